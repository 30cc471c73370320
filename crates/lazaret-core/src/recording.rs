//! One run of a container as the probe saw it.

use crate::phase::Phase;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use lazaret_filter::abi::Abi;
use serde::{Deserialize, Serialize};

/// The values of one argument of a call that were seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArgSummary {
    /// Which argument, 0 to 5.
    pub arg: u8,
    /// Value → how often. Values are masked to what the probe summarises (see `lazaret-probe`, "arguments").
    pub values: BTreeMap<u64, u64>,
    /// False when there were more distinct values than the probe keeps: then `values` is a sample.
    pub complete: bool,
}

/// One call in one phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observation {
    /// The calling convention.
    pub abi: Abi,
    /// The number in that convention's numbering, without x32's bit.
    pub nr: u32,
    /// The phase.
    pub phase: Phase,
    /// How often.
    pub count: u64,
    /// First time, nanoseconds since the recording began.
    pub first_ns: u64,
    /// Last time, nanoseconds since the recording began.
    pub last_ns: u64,
    /// Summaries of the arguments of a fixed list of calls; empty for the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<ArgSummary>,
}

/// What the probe knows it missed. Any of them makes a recording incomplete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Losses {
    /// Calls that found no room in a map.
    pub failed_insertions: u64,
    /// Runs of the probe that the kernel skipped (`bpf_prog_info.recursion_misses`).
    pub missed_runs: u64,
}

impl Losses {
    /// All losses together.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.failed_insertions.saturating_add(self.missed_runs)
    }
}

/// What was recorded and under which circumstances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// Native convention of the host.
    pub arch: Abi,
    /// Runtime name and version, as `runc 1.1.5`.
    pub runtime: String,
    /// Whether the container ran with `no_new_privs`.
    pub no_new_privileges: bool,
}
