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
    /// The daemon was told to end; what it holds stays with its keeper.
    GateStopped,
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
        /// Why: `execve`, `readiness`, `quiet`, `stop signal`, `process gone`, `by hand`, `restart`.
        cause: String,
    },
    /// The server is ready and its dwell runs: what the phase to come denies is reported, and goes on.
    DwellBegan {
        /// The phase to come.
        phase: Phase,
        /// How long, in milliseconds.
        dwell_ms: u64,
    },
    /// The server seems to begin again inside its container, and the policy does not let it (`phases.startup.restarts`).
    RestartRefused {
        /// Process id in the host's numbering.
        pid: u32,
        /// The process's name (`/proc/PID/comm`).
        process: String,
        /// One sentence.
        reason: String,
    },
    /// Another signed revision decides the ask band from now on.
    Revised {
        /// Digest of the policy that was in force.
        from: String,
        /// Digest of the policy in force now.
        to: String,
        /// Its revision.
        revision: u64,
        /// Id of the key that signed it.
        key: String,
        /// Calls that it denies and the kernel's filter allows until the container is started again.
        until_restart: Vec<String>,
    },
    /// A process was put into the container under a signed permit.
    Permitted {
        /// Digest of the permit.
        permit: String,
        /// Id of the key that signed it.
        key: String,
        /// The reason that it gives.
        reason: String,
        /// When it ends, in milliseconds since the Unix epoch.
        until_ms: u64,
    },
    /// A listener was taken over from the daemon before this one.
    TakenOver {
        /// The process that was handed over, in the host's numbering.
        pid: u32,
        /// False for a container, true for an `exec`.
        exec: bool,
        /// Threads whose call had been lost with the daemon and was asked again.
        asked_again: u64,
    },
    /// The papers of a container that runs are no longer in order (found at a take-over): every call that it asks fails.
    PapersLost {
        /// Short name of the check that failed, stable.
        check: String,
        /// One sentence.
        reason: String,
    },
    /// Calls were denied (mode enforce) or would have been (mode observe, or during a dwell). The first of a kind is told at
    /// once; those that follow within a second are told together. Kinds are told apart by phase, call, process name and
    /// `enforced`.
    Denied {
        /// How many calls this line stands for. The sum over all lines is exact.
        times: u64,
        /// Process id in the host's numbering, of the last one.
        pid: u32,
        /// The process's name (`/proc/PID/comm`).
        process: String,
        /// The call's number in its convention.
        nr: u32,
        /// The calling convention.
        arch: String,
        /// The call's name, or its number as text.
        call: String,
        /// The six register arguments, of the last one.
        args: [u64; 6],
        /// The phase.
        phase: Phase,
        /// False in mode observe and during a dwell: the call went on.
        enforced: bool,
    },
    /// How often the ask band was consulted in the phase that ended.
    Asked {
        /// The phase.
        phase: Phase,
        /// Call name → how often.
        calls: alloc::collections::BTreeMap<String, u64>,
    },
    /// A container that was running when the gate started, and nobody kept its listener: asked calls fail with `ENOSYS`.
    Unsupervised {
        /// Its first process in the host's numbering.
        pid: u32,
    },
    /// All processes behind a listener are gone.
    Ended {
        /// False for a container, true for an `exec`.
        exec: bool,
    },
    /// Lines that are missing here: the disk could not keep up or refused. Denials are never among them: they are told later.
    EventsLost {
        /// How many.
        lines: u64,
    },
    /// Audit events that the export gave up. Totals since its queue was made, so a line that is told twice says the same.
    AuditLost {
        /// Dropped because the queue was full.
        dropped: u64,
        /// Refused by the server for what they are, and moved aside.
        rejected: u64,
        /// How often the log had been turned over before it was read: what was in it is not counted.
        gaps: u64,
    },
}
