//! The phases of a container's life.

use core::fmt;
use serde::{Deserialize, Serialize};

/// Where a container, or one process of it, is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The runtime's own calls between the filter and the first `execve`.
    Prelude,
    /// From the first `execve` until the server serves.
    Startup,
    /// The server answers requests.
    Serving,
    /// The engine's stop signal was sent.
    Stopping,
    /// A process that was put into the container from outside (`docker exec`, a probe), and its children.
    Exec,
}

impl Phase {
    /// Every phase, in the order of a life; `exec` stands beside it.
    pub const ALL: [Phase; 5] = [
        Phase::Prelude,
        Phase::Startup,
        Phase::Serving,
        Phase::Stopping,
        Phase::Exec,
    ];

    /// The name used in policies, recordings and events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Prelude => "prelude",
            Phase::Startup => "startup",
            Phase::Serving => "serving",
            Phase::Stopping => "stopping",
            Phase::Exec => "exec",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
