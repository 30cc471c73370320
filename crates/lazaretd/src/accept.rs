//! Takes in connections: runtimes on the one socket, clients on the other.

use crate::control;
use crate::daemon::Daemon;
use crate::serve;
use lazaret_kernel::handover;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};

/// How long a runtime may take to hand over.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause after a failed accept (no descriptors left), so that it is no busy loop.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts runtimes for ever.
pub(crate) async fn runtimes(daemon: Arc<Daemon>, socket: UnixListener) {
    loop {
        let stream = next(&socket).await;
        tokio::spawn(take_over(Arc::clone(&daemon), stream));
    }
}

/// Accepts clients for ever.
pub(crate) async fn clients(daemon: Arc<Daemon>, socket: UnixListener) {
    loop {
        let stream = next(&socket).await;
        tokio::spawn(control::talk(Arc::clone(&daemon), stream));
    }
}

async fn next(socket: &UnixListener) -> UnixStream {
    loop {
        match socket.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::error!("cannot accept a connection: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn take_over(daemon: Arc<Daemon>, stream: UnixStream) {
    let stream = match stream.into_std() {
        Ok(stream) => stream,
        Err(error) => {
            tracing::error!("handover failed: {error}");
            return;
        }
    };
    // Also on failure the connection stays open until the message is dealt with; the runtime does not wait for it.
    let received =
        tokio::task::spawn_blocking(move || handover::receive(&stream, HANDOVER_TIMEOUT)).await;
    match received {
        Ok(Ok(handover)) => serve::supervise(daemon, handover).await,
        Ok(Err(error)) => {
            let error = anyhow::Error::from(error);
            tracing::error!("handover refused: {error:#}");
        }
        Err(error) => tracing::error!("handover failed: {error}"),
    }
}
