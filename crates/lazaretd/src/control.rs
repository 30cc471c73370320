//! The control socket: answers `lazaret status`, `watch`, `phase`, `revise`, `suggest`, and the wrapper's `stopping`.

use crate::daemon::Daemon;
use crate::gate::Revision;
use crate::roles::Role;
use anyhow::{Context as _, anyhow};
use lazaret_core::control::{MAX_LINE, Reply, Request, V1};
use lazaret_core::life::Input;
use lazaret_core::phase::Phase;
use lazaret_kernel::handover::peer;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::broadcast::error::RecvError;

/// How long a client may take to read one reply.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Talks with one client until it hangs up or sends nonsense.
pub(crate) async fn talk(daemon: Arc<Daemon>, stream: UnixStream) {
    let role = match peer(&stream) {
        Ok(peer) => match daemon.config.roles.of(&peer) {
            Some(role) => role,
            None => {
                tracing::warn!("control socket: user id {} refused", peer.uid);
                return;
            }
        },
        Err(error) => {
            tracing::warn!("control socket: {:#}", anyhow::Error::from(error));
            return;
        }
    };
    if let Err(error) = converse(&daemon, stream, role).await {
        tracing::debug!("control socket: {error}");
    }
}

async fn converse(daemon: &Arc<Daemon>, stream: UnixStream, role: Role) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    while let Some(line) = next_line(&mut read).await? {
        let request = match line {
            Some(line) => serde_json::from_slice(&line).map_err(|error| error.to_string()),
            None => Err(format!("request is longer than {MAX_LINE} bytes")),
        };
        match request {
            Ok(request) if Role::needed(&request) > role => {
                let reason = "your group may look, this needs the role operate".to_owned();
                send(&mut write, &Reply::Error { v: V1, reason }).await?;
            }
            Ok(Request::Watch { .. }) => return watch(daemon, read, write).await,
            Ok(request) => {
                let reply = answer(daemon, request).await;
                crate::fault::point("reply");
                send(&mut write, &reply).await?;
            }
            // what follows cannot be told from the rest of this
            Err(reason) => return send(&mut write, &Reply::Error { v: V1, reason }).await,
        }
    }
    Ok(())
}

/// The next line without its newline; `Some(None)` when it is too long, `None` at the end.
async fn next_line(read: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Option<Vec<u8>>>> {
    let mut line = Vec::new();
    // MAX_LINE is far below 2^64
    let bounded = &mut (&mut *read).take(MAX_LINE as u64);
    bounded.read_until(b'\n', &mut line).await?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(Some(line))),
        // cut off by the bound, or by a client that hung up in the middle of a line
        Some(_) => Ok(Some(None)),
    }
}

async fn answer(daemon: &Arc<Daemon>, request: Request) -> Reply {
    let outcome = match request {
        Request::Status { .. } => Ok(Reply::Status {
            v: V1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            containers: daemon.status(),
            lost_events: daemon.events.lost(),
        }),
        // handled where the connection is
        Request::Watch { .. } => Ok(Reply::Watching { v: V1 }),
        Request::Drift { container, .. } => daemon
            .drift(container.as_deref())
            .map(|drift| Reply::Drift { v: V1, drift })
            .map_err(anyhow::Error::from),
        Request::Phase { container, to, .. } => move_by_hand(daemon, &container, to).await,
        Request::Revise {
            container,
            revision,
            kernel,
            ..
        } => {
            let wanted = Revision {
                wanted: revision,
                kernel,
            };
            revise(daemon, &container, wanted).await
        }
        Request::Stopping { container, .. } => match daemon.live(&container) {
            Some(container) => {
                daemon.happened(&container, Input::StopSignal);
                Ok(Reply::Done { v: V1 })
            }
            None => Err(anyhow!("no container `{container}` is supervised")),
        },
    };
    outcome.unwrap_or_else(|error| Reply::Error {
        v: V1,
        reason: format!("{error:#}"),
    })
}

/// Moves a container; what is acknowledged is known to the next daemon.
async fn move_by_hand(daemon: &Arc<Daemon>, wanted: &str, to: Phase) -> anyhow::Result<Reply> {
    let container = daemon.find(wanted)?;
    daemon.step(&container, Input::ByHand(to))?;
    let keeping = Arc::clone(daemon);
    tokio::task::spawn_blocking(move || keeping.save_now(&container))
        .await
        .context("the phase has changed, but a gate after this one may not know")?
        .context("the phase has changed, but a gate after this one would not know")?;
    crate::fault::point("phase-kept");
    Ok(Reply::Done { v: V1 })
}

async fn revise(daemon: &Arc<Daemon>, wanted: &str, revision: Revision) -> anyhow::Result<Reply> {
    let container = daemon.find(wanted)?;
    let daemon = Arc::clone(daemon);
    let reply = tokio::task::spawn_blocking(move || daemon.put_in_force(&container, revision))
        .await
        .context("the check of the revision failed")?;
    Ok(reply?)
}

async fn watch(
    daemon: &Arc<Daemon>,
    mut read: BufReader<OwnedReadHalf>,
    mut write: OwnedWriteHalf,
) -> io::Result<()> {
    let mut events = daemon.events.watch();
    send(&mut write, &Reply::Watching { v: V1 }).await?;
    let mut ignored = [0; 512];
    loop {
        let reply = tokio::select! {
            event = events.recv() => match event {
                Ok(event) => Reply::Event { v: V1, event },
                Err(RecvError::Lagged(events)) => Reply::Missed { v: V1, events },
                Err(RecvError::Closed) => return Ok(()),
            },
            // the only thing a watcher can still say is good-bye
            read = read.read(&mut ignored) => match read? {
                0 => return Ok(()),
                _ => continue,
            },
        };
        send(&mut write, &reply).await?;
    }
}

async fn send(write: &mut OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    tokio::time::timeout(WRITE_TIMEOUT, write.write_all(&line))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
