//! Asks whether a server inside a container is ready: the server itself on 127.0.0.1 in the container's network
//! namespace, or the engine that runs its health check.
//!
//! The answer decides when the policy gets stricter, never what it holds; a server that lies stays in its startup
//! phase. Who asks, how often and what follows is the daemon's business. The trigger `quiet` is told by the calls
//! themselves ([`lazaret_core::life`]); nobody is asked for it.

mod health;
mod http;
mod tcp;

use health::HealthError;
use lazaret_core::policy::Trigger;
use lazaret_image::Engine;
use lazaret_kernel::netns::{NetnsError, NetworkNamespace};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Pause between two questions.
pub(crate) const INTERVAL: Duration = Duration::from_millis(250);

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Where a container is asked.
#[derive(Debug)]
pub(crate) struct Where {
    /// Its network namespace.
    pub(crate) namespace: Arc<NetworkNamespace>,
    /// The engine that started it.
    pub(crate) engine: Engine,
    /// The id by which the engine knows it.
    pub(crate) id: String,
    /// The socket of Docker's API, or of podman's service, which speaks it too.
    pub(crate) docker_socket: PathBuf,
}

/// Nobody could be asked. The container stays in its startup phase.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ReadinessError {
    /// The namespace cannot be entered.
    #[error("cannot ask the server")]
    Namespace(#[from] NetnsError),
    /// The engine could not be asked, or has no answer.
    #[error("cannot ask for the container's health")]
    Health(#[from] HealthError),
    /// containerd has no health checks.
    #[error(
        "policy waits for the engine's health check, and containerd runs none: take `http`, `tcp` or `quiet`"
    )]
    NoHealthChecks,
    /// This trigger is told by calls.
    #[error("nobody can be asked for a quiet time")]
    Quiet,
}

/// Asks once. False: not yet. Blocks for a few seconds at most.
///
/// # Errors
/// When nobody can be asked.
pub(crate) fn ask(trigger: &Trigger, place: &Where) -> Result<bool, ReadinessError> {
    match trigger {
        Trigger::Http(http) => Ok(http::ask(&place.namespace, http)?),
        Trigger::Tcp { port } => Ok(tcp::ask(&place.namespace, *port)?),
        Trigger::Health => match place.engine {
            // podman's service speaks the same API; under CRI-O nobody answers, and that is told
            Engine::Docker | Engine::Storage => Ok(health::ask(&place.docker_socket, &place.id)?),
            Engine::Containerd => Err(ReadinessError::NoHealthChecks),
        },
        Trigger::Quiet { .. } => Err(ReadinessError::Quiet),
    }
}
