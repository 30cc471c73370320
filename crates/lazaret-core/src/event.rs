//! What the gate tells: one JSON object per line, each with `type` and `v`.

use crate::phase::Phase;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// One line of the event log. Never holds health data: no buffers, no bodies, no file contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Format version, 1.
    pub v: u32,
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The container's id as the engine knows it; empty for events of the daemon itself.
    pub container: String,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum What {
    /// The daemon began to answer.
    GateStarted {
        /// Version of the program.
        version: String,
    },
    /// A runtime handed over a listener.
    ListenerReceived {
        /// The runtime's process id for the container's process.
        pid: u32,
        /// False for a container start, true for an `exec`.
        exec: bool,
    },
    /// The papers were in order and the first `execve` went on.
    Admitted {
        /// Digest of the image that was resolved.
        image: String,
        /// Digest of the policy's canonical form.
        policy: String,
        /// Id of the key that signed it.
        key: String,
        /// `enforce` or `observe`.
        mode: String,
        /// Calls that the kernel holds more strictly than the policy, by name or number.
        stricter: Vec<String>,
    },
    /// The papers were not in order; the container did not start.
    Refused {
        /// Short name of the check that failed, stable.
        check: String,
        /// One sentence, as written to the container's standard error.
        reason: String,
    },
    /// The container moved on.
    PhaseChanged {
        /// From here.
        from: Phase,
        /// To here.
        to: Phase,
        /// Why: `execve`, `readiness`, `stop signal`, `by hand`.
        cause: String,
    },
    /// A call was denied (mode enforce) or would have been (mode observe).
    Denied {
        /// Process id in the host's numbering.
        pid: u32,
        /// The process's name (`/proc/PID/comm`).
        process: String,
        /// The call's number in its convention.
        nr: u32,
        /// The calling convention.
        arch: String,
        /// The call's name, or its number as text.
        call: String,
        /// The six register arguments.
        args: [u64; 6],
        /// The phase.
        phase: Phase,
        /// False in mode observe: the call went on.
        enforced: bool,
    },
    /// How often the ask band was consulted in the phase that ended.
    Asked {
        /// The phase.
        phase: Phase,
        /// Call name → how often.
        calls: alloc::collections::BTreeMap<String, u64>,
    },
    /// A container that was running when the gate started again: its listener is gone, asked calls fail with `ENOSYS`.
    Unsupervised {
        /// Its first process in the host's numbering.
        pid: u32,
    },
    /// All processes behind a listener are gone.
    Ended {
        /// False for a container, true for an `exec`.
        exec: bool,
    },
    /// Lines that are missing here: the disk could not keep up or refused, or denials came in a flood. Counts by phase
    /// (`lazaret status`) are exact all the same.
    EventsLost {
        /// How many.
        lines: u64,
    },
}
