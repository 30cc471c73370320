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
    /// Puts another installed revision in force; answered by [`Reply::Revised`].
    Revise {
        /// Protocol version.
        v: V1,
        /// Its id, a prefix of it that only it has, or its name.
        container: String,
        /// The revision; none is the highest that is installed for its image.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revision: Option<u64>,
        /// What to do when the kernel's filter allows what the revision denies.
        kernel: Kernel,
    },
    /// Calls that were denied or would have been, counted; answered by [`Reply::Drift`].
    Drift {
        /// Protocol version.
        v: V1,
        /// Its id, a prefix of it that only it has, or its name; none is every container.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        container: Option<String>,
    },
    /// The engine is about to send the stop signal (sent by `lazaret-runtime`); answered by [`Reply::Done`].
    Stopping {
        /// Protocol version.
        v: V1,
        /// Its full id.
        container: String,
    },
}

/// What a revision may leave to the next start of its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernel {
    /// Nothing: refuse a revision of which a part could not be held.
    Whole,
    /// Calls that the kernel's filter allows already.
    Partly,
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
    /// To [`Request::Revise`]: it is in force, and a daemon that comes after this one knows.
    Revised {
        /// Protocol version.
        v: V1,
        /// Full id of the container.
        container: String,
        /// What was in force.
        from: InForce,
        /// What is now.
        to: InForce,
        /// Calls that it denies and the kernel's filter allows until the container is started again.
        until_restart: Vec<String>,
    },
    /// To [`Request::Drift`].
    Drift {
        /// Protocol version.
        v: V1,
        /// Most frequent first.
        drift: Vec<DriftEntry>,
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
    /// It runs, but its papers are no longer in order: every call that it asks fails.
    PapersLost {
        /// One sentence.
        reason: String,
    },
    /// It was running when this daemon started and nobody kept its listener: asked calls fail with `ENOSYS` until the
    /// container is started again.
    Unsupervised,
}

/// A revision of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InForce {
    /// The policy's name.
    pub policy: String,
    /// Its revision.
    pub revision: u64,
    /// Digest of its canonical form.
    pub digest: Digest,
    /// Id of the key that signed it.
    pub key: String,
    /// `enforce` or `observe`.
    pub mode: String,
}

/// Calls of one kind that were denied, or would have been, since the daemon began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriftEntry {
    /// Full id of the container.
    pub container: String,
    /// Its name.
    pub name: String,
    /// Digest of the policy in force now.
    pub digest: Digest,
    /// The phase by whose rules it is denied.
    pub phase: Phase,
    /// The call's name, or its number as text.
    pub call: String,
    /// Its number in its convention.
    pub nr: u32,
    /// The calling convention.
    pub arch: String,
    /// The process's name.
    pub process: String,
    /// The six register arguments of the last one.
    pub args: [u64; 6],
    /// How often.
    pub times: u64,
    /// False: the calls went on (mode observe, or a dwell).
    pub enforced: bool,
}

/// What is known of an admitted container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admitted {
    /// Digest of its image.
    pub image: Digest,
    /// What decides the ask band.
    pub in_force: InForce,
    /// What the kernel's filter was made from, at the start of the container.
    pub in_kernel: InForce,
    /// Calls that the policy in force denies and the kernel's filter allows until the container is started again.
    pub until_restart: Vec<String>,
    /// The phase by which its calls are decided now.
    pub phase: Phase,
    /// The phase to come, while its denials are reported and do not bite yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dwell: Option<Phase>,
    /// Permits under which processes were put into it and still run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permits: Vec<String>,
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
                r#"{"type":"revise","v":1,"container":"c1","revision":4,"kernel":"whole"}"#,
                Request::Revise {
                    v: V1,
                    container: "c1".to_string(),
                    revision: Some(4),
                    kernel: Kernel::Whole,
                },
            ),
            (
                r#"{"type":"drift","v":1}"#,
                Request::Drift {
                    v: V1,
                    container: None,
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
        let in_force = InForce {
            policy: "fhir".to_string(),
            revision: 3,
            digest,
            key: "k".to_string(),
            mode: "enforce".to_string(),
        };
        let admitted = Admitted {
            image: digest,
            in_force: in_force.clone(),
            in_kernel: in_force.clone(),
            until_restart: vec!["kill".to_string()],
            phase: Phase::Startup,
            dwell: Some(Phase::Serving),
            permits: vec![],
            execs: 1,
            counts,
            stricter: vec!["cachestat".to_string()],
        };
        let drift = DriftEntry {
            container: "c1".to_string(),
            name: "hapi".to_string(),
            digest,
            phase: Phase::Serving,
            call: "mkdir".to_string(),
            nr: 83,
            arch: "x86_64".to_string(),
            process: "java".to_string(),
            args: [0; 6],
            times: 3,
            enforced: false,
        };
        let containers = [
            ContainerState::Prelude,
            ContainerState::PapersLost {
                reason: "no".to_string(),
            },
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
            Reply::Revised {
                v: V1,
                container: "c1".to_string(),
                from: in_force.clone(),
                to: in_force,
                until_restart: vec![],
            },
            Reply::Drift {
                v: V1,
                drift: vec![drift],
            },
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
