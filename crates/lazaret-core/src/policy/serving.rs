//! When a container serves, and what its other phases admit: the values behind `phases` of a policy.
//!
//! What is asked and how is the gate's business (`lazaretd`, `readiness`); the order of a life is [`crate::life`]'s.

use crate::format::policy::{HealthV1, HttpV1, ServingV1, TcpV1, WhenV1};
use alloc::format;
use alloc::string::String;
use core::fmt;

/// When a container serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// What means ready.
    pub trigger: Trigger,
    /// Milliseconds after it that still are startup.
    pub settle_ms: u64,
    /// Milliseconds after these in which calls that serving denies are told and go on. 0: none.
    pub dwell_ms: u64,
}

/// What means that a server is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// An answer to an HTTP request.
    Http(Http),
    /// A connection that is taken on 127.0.0.1 in the container's network namespace.
    Tcp {
        /// TCP port.
        port: u16,
    },
    /// The engine's own health check says healthy.
    Health,
    /// No call that startup allows and serving does not.
    Quiet {
        /// For so many milliseconds, at least 1.
        for_ms: u64,
    },
}

/// An HTTP answer on 127.0.0.1 in the container's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// TCP port.
    pub port: u16,
    /// Path and query, from `/` on.
    pub path: String,
    /// Status.
    pub status: u16,
}

/// Whether a process may be put into a running container from outside (`docker exec`, a probe).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecStart {
    /// It starts, under the rules of phase exec.
    Admit,
    /// Its first `execve` fails, but under a signed permit.
    Refuse,
}

impl Serving {
    /// As it is written in a policy. A time of 0 is left out, but for `settle` beside `http`, where policies have always
    /// had it.
    #[must_use]
    pub fn wire(&self) -> ServingV1 {
        let mut when = WhenV1 {
            dwell: written(self.dwell_ms),
            settle: written(self.settle_ms),
            ..WhenV1::default()
        };
        match &self.trigger {
            Trigger::Http(Http { port, path, status }) => {
                when.http = Some(HttpV1 {
                    path: path.clone(),
                    port: *port,
                    status: *status,
                });
                when.settle = Some(duration(self.settle_ms));
            }
            Trigger::Tcp { port } => when.tcp = Some(TcpV1 { port: *port }),
            Trigger::Health => when.health = Some(HealthV1::Engine),
            Trigger::Quiet { for_ms } => when.quiet = Some(duration(*for_ms)),
        }
        ServingV1 { when }
    }
}

fn written(ms: u64) -> Option<String> {
    (ms > 0).then(|| duration(ms))
}

/// A duration as policies write it.
fn duration(ms: u64) -> String {
    if ms.is_multiple_of(1000) {
        format!("{}s", ms / 1000)
    } else {
        format!("{ms}ms")
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trigger::Http(http) => {
                write!(
                    f,
                    "port {} {} answers {}",
                    http.port, http.path, http.status
                )
            }
            Trigger::Tcp { port } => write!(f, "port {port} takes connections"),
            Trigger::Health => f.write_str("the engine's health check says healthy"),
            Trigger::Quiet { for_ms } => {
                write!(f, "no start-up-only call for {for_ms} ms")
            }
        }
    }
}

/// The trigger, and the times after it that are not 0.
impl fmt::Display for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.trigger)?;
        if self.settle_ms > 0 {
            write!(f, ", {} ms later", self.settle_ms)?;
        }
        if self.dwell_ms > 0 {
            write!(
                f,
                ", then {} ms in which denials are told only",
                self.dwell_ms
            )?;
        }
        Ok(())
    }
}
