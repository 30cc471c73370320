//! The engine's health check, asked over Docker's API on its Unix socket (podman's service speaks it too).
//!
//! Only `State.Health.Status` of `GET /containers/ID/json` is read. The check itself is the engine's: it runs as an
//! `exec` in the container.

use super::TIMEOUT;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;
use tokio::runtime::Handle;

/// Bytes of an answer. One for a container with a hundred mounts and variables has some 50 KiB.
const MAX_ANSWER: usize = 1 << 20;

/// The engine could not be asked, or its answer does not help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum HealthError {
    /// Nobody listens.
    #[error("cannot reach the engine's API at `{}` (option `docker-socket`)", socket.display())]
    Connect {
        /// Where.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The exchange broke off.
    #[error("cannot ask the engine's API")]
    Exchange(#[from] hyper::Error),
    /// An id that no path can hold.
    #[error("cannot ask the engine's API for container `{id}`")]
    Id {
        /// The id.
        id: String,
        /// Why.
        #[source]
        source: hyper::http::Error,
    },
    /// Another status.
    #[error("the engine's API answers {status} for container {id}")]
    Status {
        /// What it answers.
        status: StatusCode,
        /// The id.
        id: String,
    },
    /// The answer is too long, or breaks off.
    #[error("cannot read the engine's answer, of which at most {MAX_ANSWER} bytes are read")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It is no description of a container.
    #[error("cannot understand the engine's answer")]
    Answer(#[from] serde_json::Error),
    /// The engine runs no health check for it.
    #[error(
        "container {id} has no health check that the policy could wait for: give it one, or take `http`, `tcp` or `quiet`"
    )]
    NoCheck {
        /// The id.
        id: String,
    },
    /// No answer in time.
    #[error("the engine's API gave no answer in {} s", TIMEOUT.as_secs())]
    Late,
}

/// What is read of the answer (Docker Engine API, `ContainerInspect`).
#[derive(Deserialize)]
struct Inspected {
    #[serde(rename = "State")]
    state: State,
}

#[derive(Deserialize)]
struct State {
    /// Absent where there is no health check.
    #[serde(rename = "Health")]
    health: Option<Health>,
}

#[derive(Deserialize)]
struct Health {
    #[serde(rename = "Status")]
    status: String,
}

/// Asks once whether the engine holds the container for healthy. Blocks for [`TIMEOUT`] at most, on a thread of the runtime
/// on which blocking is allowed.
///
/// # Errors
/// See [`HealthError`].
pub(super) fn ask(socket: &Path, id: &str) -> Result<bool, HealthError> {
    let asked = async { tokio::time::timeout(TIMEOUT, inspect(socket, id)).await };
    let answer = Handle::current()
        .block_on(asked)
        .map_err(|_| HealthError::Late)??;
    let inspected: Inspected = serde_json::from_slice(&answer)?;
    match inspected
        .state
        .health
        .as_ref()
        .map(|one| one.status.as_str())
    {
        // Docker leaves `Health` out or says `none`, podman gives it an empty status
        None | Some("none" | "") => Err(HealthError::NoCheck { id: id.to_owned() }),
        Some(status) => Ok(status == "healthy"),
    }
}

async fn inspect(socket: &Path, id: &str) -> Result<Bytes, HealthError> {
    let connected = UnixStream::connect(socket).await;
    let stream = connected.map_err(|source| HealthError::Connect {
        socket: socket.to_path_buf(),
        source,
    })?;
    let request = Request::get(format!("/containers/{id}/json"))
        // any name does: the socket says who is asked (RFC 9112, 3.2, wants one)
        .header("Host", "engine")
        .body(Empty::<Bytes>::new())
        .map_err(|source| HealthError::Id {
            id: id.to_owned(),
            source,
        })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        if status != StatusCode::OK {
            return Err(HealthError::Status {
                status,
                id: id.to_owned(),
            });
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        Ok(body.map_err(HealthError::Body)?.to_bytes())
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // the connection may end when its last byte has been read; what was asked then has its answer
        ended = connection => {
            ended?;
            exchange.await
        }
    }
}

#[cfg(test)]
mod tests;
