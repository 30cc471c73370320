//! The messages between `lazaretd` and those who talk to it on the control socket.
//!
//! One JSON object per line, each with `type` and `v`; at most [`MAX_LINE`] bytes for a request. The client sends
//! [`Request`]s, the daemon sends one [`Reply`] for each, and after [`Request::Watch`] one per event until the client
//! hangs up. Who may talk is decided by the socket (owner and peer credentials), not here.

use crate::digest::Digest;
use crate::event::Event;
use crate::phase::Phase;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The longest request, in bytes with its newline.
pub const MAX_LINE: usize = 64 * 1024;

/// Version 1 of this protocol; no other number parses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "u32")]
pub struct V1;

/// A version that this program does not speak.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("control protocol version {found}, this program speaks version 1")]
pub struct UnknownVersion {
    /// The version in the message.
    pub found: u32,
}

impl From<V1> for u32 {
    fn from(_: V1) -> u32 {
        1
    }
}

impl TryFrom<u32> for V1 {
    type Error = UnknownVersion;

    fn try_from(found: u32) -> Result<V1, UnknownVersion> {
        if found == 1 {
            Ok(V1)
        } else {
            Err(UnknownVersion { found })
        }
    }
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Every container the daemon knows; answered by [`Reply::Status`].
    Status {
        /// Protocol version.
        v: V1,
    },
    /// Events from now on; answered by [`Reply::Watching`], then [`Reply::Event`] and [`Reply::Missed`].
    Watch {
        /// Protocol version.
        v: V1,
    },
    /// Moves a container by hand; answered by [`Reply::Done`].
    Phase {
        /// Protocol version.
        v: V1,
        /// Its id, a prefix of it that only it has, or its name.
        container: String,
        /// `startup`, `serving` or `stopping`.
        to: Phase,
    },
    /// The engine is about to send the stop signal (sent by `lazaret-runtime`); answered by [`Reply::Done`].
    Stopping {
        /// Protocol version.
        v: V1,
        /// Its full id.
        container: String,
    },
}

/// What the daemon says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// To [`Request::Status`].
    Status {
        /// Protocol version.
        v: V1,
        /// Version of the daemon.
        version: String,
        /// By id.
        containers: Vec<ContainerStatus>,
        /// Events since the daemon's start that did not reach the log, because it could not be written fast enough or
        /// at all. The counts in `containers` are exact all the same.
        lost_events: u64,
    },
    /// To [`Request::Watch`]: events follow.
    Watching {
        /// Protocol version.
        v: V1,
    },
    /// One event.
    Event {
        /// Protocol version.
        v: V1,
        /// What happened.
        event: Event,
    },
    /// This client reads too slowly: so many events were left out here.
    Missed {
        /// Protocol version.
        v: V1,
        /// How many.
        events: u64,
    },
    /// It is done.
    Done {
        /// Protocol version.
        v: V1,
    },
    /// It cannot be done.
    Error {
        /// Protocol version.
        v: V1,
        /// One sentence.
        reason: String,
    },
}

/// One container, as the daemon sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerStatus {
    /// The engine's id.
    pub id: String,
    /// The engine's name; empty when there is none.
    pub name: String,
    /// Its first process in the host's numbering.
    pub pid: u32,
    /// How far the gate holds it.
    pub state: ContainerState,
}

/// How far the gate holds a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case", deny_unknown_fields)]
pub enum ContainerState {
    /// The runtime prepares it; its papers are not checked yet.
    Prelude,
    /// Its papers are in order and its calls are decided here.
    Admitted(Box<Admitted>),
    /// It was running when this daemon started: its listener is gone and asked calls fail with `ENOSYS` until the
    /// container is started again.
    Unsupervised,
}

/// What is known of an admitted container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admitted {
    /// Digest of its image.
    pub image: Digest,
    /// The policy's name.
    pub policy: String,
    /// The policy's revision.
    pub revision: u64,
    /// Digest of the policy's canonical form.
    pub policy_digest: Digest,
    /// Id of the key that signed it.
    pub key: String,
    /// `enforce` or `observe`.
    pub mode: String,
    /// The phase by which its calls are decided now.
    pub phase: Phase,
    /// How many `exec` listeners are open beside it.
    pub execs: u64,
    /// Counts of the ask band by phase, those of its `exec`s included.
    pub counts: BTreeMap<Phase, Counts>,
    /// Calls that the kernel holds more strictly than the policy, by name or number.
    pub stricter: Vec<String>,
}

/// How the ask band was answered. Exact, whatever happens to the event log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Calls that reached the daemon.
    pub asked: u64,
    /// Of these: went on because the policy allows them.
    pub allowed: u64,
    /// Of these: denied, or in mode observe: would have been.
    pub denied: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    #[test]
    fn requests_are_these_lines() {
        for (line, request) in [
            (r#"{"type":"status","v":1}"#, Request::Status { v: V1 }),
            (r#"{"type":"watch","v":1}"#, Request::Watch { v: V1 }),
            (
                r#"{"type":"phase","v":1,"container":"c1","to":"serving"}"#,
                Request::Phase {
                    v: V1,
                    container: "c1".to_string(),
                    to: Phase::Serving,
                },
            ),
            (
                r#"{"type":"stopping","v":1,"container":"c1"}"#,
                Request::Stopping {
                    v: V1,
                    container: "c1".to_string(),
                },
            ),
        ] {
            assert_eq!(serde_json::to_string(&request).ok().as_deref(), Some(line));
            assert_eq!(serde_json::from_str::<Request>(line).ok(), Some(request));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for line in [
            "{}",
            "[]",
            r#"{"type":"status"}"#,
            r#"{"type":"status","v":2}"#,
            r#"{"type":"status","v":1,"more":true}"#,
            r#"{"type":"phase","v":1,"container":"c1","to":"running"}"#,
            r#"{"type":"stop","v":1}"#,
        ] {
            assert!(serde_json::from_str::<Request>(line).is_err(), "{line}");
        }
    }

    #[test]
    fn replies_come_back_as_they_were() {
        let digest = Digest::of(b"image");
        let mut counts = BTreeMap::new();
        counts.insert(
            Phase::Startup,
            Counts {
                asked: 3,
                allowed: 2,
                denied: 1,
            },
        );
        let admitted = Admitted {
            image: digest,
            policy: "fhir".to_string(),
            revision: 3,
            policy_digest: digest,
            key: "k".to_string(),
            mode: "enforce".to_string(),
            phase: Phase::Serving,
            execs: 1,
            counts,
            stricter: vec!["cachestat".to_string()],
        };
        let containers = [
            ContainerState::Prelude,
            ContainerState::Unsupervised,
            ContainerState::Admitted(Box::new(admitted)),
        ]
        .map(|state| ContainerStatus {
            id: "c1".to_string(),
            name: "hapi".to_string(),
            pid: 7,
            state,
        });
        let event = Event {
            v: 1,
            time_ms: u64::MAX,
            container: "c1".to_string(),
            what: crate::event::What::Unsupervised { pid: 7 },
        };
        for reply in [
            Reply::Status {
                v: V1,
                version: "0".to_string(),
                containers: containers.to_vec(),
                lost_events: 0,
            },
            Reply::Watching { v: V1 },
            Reply::Event { v: V1, event },
            Reply::Missed { v: V1, events: 2 },
            Reply::Done { v: V1 },
            Reply::Error {
                v: V1,
                reason: "no".to_string(),
            },
        ] {
            let line = serde_json::to_string(&reply).unwrap_or_default();
            assert_eq!(serde_json::from_str(&line).ok(), Some(reply), "{line}");
        }
    }
}
