//! One run of a container as the probe saw it.

use crate::digest::Digest;
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

/// The image that ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// As it was asked for.
    pub name: String,
    /// Index, manifest and configuration digests, as far as the engine knows them; never empty.
    pub digests: Vec<Digest>,
}

/// What was exercised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exercise {
    /// `fhir`, or the command that was given.
    pub name: String,
    /// Interactions that the server declares; 0 where nothing declares any.
    pub declared: u64,
    /// Those of them that succeeded.
    pub succeeded: u64,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
}

/// One run of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// The image.
    pub subject: Subject,
    /// The circumstances.
    pub environment: Environment,
    /// How the probe was attached, as `tp_btf`.
    pub probe: String,
    /// Nanoseconds since the recording began at which each phase began; a phase that was not reached is absent.
    pub timeline: BTreeMap<Phase, u64>,
    /// Length of the recording, nanoseconds.
    pub duration_ns: u64,
    /// Whether the container was stopped by its signal and its end was recorded.
    pub stopped: bool,
    /// What was exercised; absent when nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exercise: Option<Exercise>,
    /// What the probe knows it missed.
    pub losses: Losses,
    /// What it saw, sorted by abi, number and phase.
    pub observations: Vec<Observation>,
}

impl Recording {
    /// Why the recording cannot carry a policy; none when it is complete.
    #[must_use]
    pub fn gaps(&self) -> Vec<Gap> {
        let mut gaps = Vec::new();
        if self.losses.total() > 0 {
            gaps.push(Gap::Lost {
                calls: self.losses.total(),
            });
        }
        if !self.timeline.contains_key(&Phase::Serving) {
            gaps.push(Gap::NeverServed);
        }
        if !self.stopped {
            gaps.push(Gap::NotStopped);
        }
        if self.observations.is_empty() {
            gaps.push(Gap::Empty);
        }
        gaps
    }

    /// Nanoseconds of serving after the last call that was new in its phase.
    #[must_use]
    pub fn since_last_new_ns(&self) -> u64 {
        let end = self
            .timeline
            .get(&Phase::Stopping)
            .copied()
            .unwrap_or(self.duration_ns);
        let serving = self
            .observations
            .iter()
            .filter(|seen| seen.phase == Phase::Serving);
        let newest = serving.map(|seen| seen.first_ns).max().unwrap_or(0);
        end.saturating_sub(newest)
    }
}

/// Why a recording is incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Gap {
    /// The probe missed calls.
    #[error("{calls} calls were lost while recording")]
    Lost {
        /// How many.
        calls: u64,
    },
    /// The server never became ready.
    #[error("the server never served")]
    NeverServed,
    /// Shutdown was not recorded.
    #[error("the stop by signal was not recorded")]
    NotStopped,
    /// Nothing was seen at all.
    #[error("no call was recorded")]
    Empty,
}
