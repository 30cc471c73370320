//! The types of `report.json`, format version 1.
//!
//! Wire types only: they hold figures and judge nothing ([`super::verdict`] does). `None` is written as `null` and
//! means *not measured*; unknown fields are errors, so that a report of a later version is not half read.

use lazaret_core::digest::Digest;
use lazaret_core::phase::Phase;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Most bytes of a `report.json` that are read.
pub const MAX_BYTES: usize = 16 << 20;

/// The format version that this program writes and reads.
pub const VERSION: u32 = 1;

/// A `report.json` that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// Longer than [`MAX_BYTES`].
    #[error("report has {len} bytes, at most {MAX_BYTES} are read")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// Not the JSON that is expected.
    #[error("report is not understood")]
    Json(#[source] serde_json::Error),
    /// Another format version.
    #[error("report has format version {found}, this program reads {VERSION}")]
    Version {
        /// The version it says.
        found: u32,
    },
}

/// Everything that one demonstration showed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Format version, [`VERSION`].
    pub v: u32,
    /// What was confined, as people name it: `HAPI FHIR JPA 8.8.0`.
    pub subject: String,
    /// When the report was made, milliseconds since the Unix epoch.
    pub made_ms: u64,
    /// Versions of what took part.
    pub versions: Versions,
    /// Digests of what took part.
    pub digests: Digests,
    /// How the recording went.
    pub recording: Recording,
    /// Phase → call name → how often it was made, all recordings together.
    pub histogram: BTreeMap<Phase, BTreeMap<String, u64>>,
    /// The policy's three bands.
    pub policy: Policy,
    /// What was asked in the start under enforcement: call name → how often.
    pub asked_in_start: Option<BTreeMap<String, u64>>,
    /// What of the server's declared interactions the exercise reached.
    pub coverage: Option<Coverage>,
    /// The same exercise under enforcement.
    pub enforced: Enforced,
    /// What the gate did with papers that are not in order.
    pub gate: Gate,
    /// Attacks, each under each protection it was tried under.
    pub attacks: Vec<Attack>,
    /// The daemon killed and started again under requests.
    pub daemon_restart: Option<DaemonRestart>,
    /// Time from `start` to the first good answer.
    pub start: Start,
    /// Requests per second.
    pub throughput: Throughput,
    /// The container's CPU time per request.
    pub cpu_per_request: CpuPerRequest,
    /// Time to answer.
    pub latency: Latency,
    /// The raw figures behind `throughput`, `cpu_per_request` and `latency`, warm-up included.
    pub rounds: Vec<Round>,
}

impl Report {
    /// A report in which nothing was measured yet.
    #[must_use]
    pub fn empty(subject: &str, made_ms: u64) -> Report {
        Report {
            v: VERSION,
            subject: subject.to_owned(),
            made_ms,
            versions: Versions::default(),
            digests: Digests::default(),
            recording: Recording::default(),
            histogram: BTreeMap::new(),
            policy: Policy::default(),
            asked_in_start: None,
            coverage: None,
            enforced: Enforced::default(),
            gate: Gate::default(),
            attacks: Vec::new(),
            daemon_restart: None,
            start: Start::default(),
            throughput: Throughput::default(),
            cpu_per_request: CpuPerRequest::default(),
            latency: Latency::default(),
            rounds: Vec::new(),
        }
    }

    /// Reads a report.
    ///
    /// # Errors
    /// When it is longer than [`MAX_BYTES`], not the JSON of this format, or of another version.
    pub fn from_json(bytes: &[u8]) -> Result<Report, ReportError> {
        /// The version alone, so that a later format is named as such and not as an unknown field.
        #[derive(Deserialize)]
        struct Versioned {
            v: u32,
        }
        if bytes.len() > MAX_BYTES {
            return Err(ReportError::TooLong { len: bytes.len() });
        }
        let Versioned { v } = serde_json::from_slice(bytes).map_err(ReportError::Json)?;
        if v != VERSION {
            return Err(ReportError::Version { found: v });
        }
        serde_json::from_slice(bytes).map_err(ReportError::Json)
    }

    /// Writes a report: indented, with a line feed at the end.
    ///
    /// # Errors
    /// None are known: every map key is a string or a plain name.
    pub fn to_json(&self) -> Result<Vec<u8>, ReportError> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(ReportError::Json)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// Under what a container ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protection {
    /// No filter at all.
    Unconfined,
    /// The engine's default profile.
    Default,
    /// A second, identical container under the engine's default profile: the A/A comparison.
    DefaultAgain,
    /// Lazaret, in the phase the container is in by itself.
    Lazaret,
    /// Lazaret, while the server starts.
    LazaretStartup,
    /// Lazaret, while the server serves.
    LazaretServing,
}

impl Protection {
    /// The name in `report.json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Protection::Unconfined => "unconfined",
            Protection::Default => "default",
            Protection::DefaultAgain => "default_again",
            Protection::Lazaret => "lazaret",
            Protection::LazaretStartup => "lazaret_startup",
            Protection::LazaretServing => "lazaret_serving",
        }
    }

    /// The name for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Protection::Unconfined => "unconfined",
            Protection::Default => "engine's default",
            Protection::DefaultAgain => "engine's default (second)",
            Protection::Lazaret => "Lazaret",
            Protection::LazaretStartup => "Lazaret, startup",
            Protection::LazaretServing => "Lazaret, serving",
        }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Several measurements of one thing, in the unit of the field that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// 10th percentile: nine of ten rounds were higher.
    pub low: f64,
    /// 90th percentile: nine of ten rounds were lower.
    pub high: f64,
    /// How many measurements.
    pub n: u64,
    /// Where the true median lies with 95 % confidence; absent below six measurements, which cannot say.
    pub median_interval: Option<Interval>,
}

/// From here to there, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Versions of what took part, as each says it of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// Lazaret.
    pub lazaret: Option<String>,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// The engine.
    pub docker: Option<String>,
    /// The container manager below it.
    pub containerd: Option<String>,
    /// The runtime.
    pub runc: Option<String>,
    /// The Java virtual machine in the image.
    pub java: Option<String>,
    /// The FHIR server in the image.
    pub hapi: Option<String>,
}

/// Digests of what took part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digests {
    /// The image (its configuration).
    pub image: Option<Digest>,
    /// The policy's canonical form.
    pub policy: Option<Digest>,
    /// The signed bundle, as it lies in the node's store.
    pub bundle: Option<Digest>,
    /// Id of the key that signed it.
    pub key: Option<String>,
}

/// How the recording went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// Runs that were merged.
    pub runs: Option<u64>,
    /// Calls that the probe knows it missed, all runs together.
    pub lost: Option<u64>,
    /// Time of the exercise while recording, over its time without.
    pub slow_down: Option<f64>,
}

/// The policy's three bands, by call names of the native convention.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The policy's name.
    pub name: Option<String>,
    /// Its revision.
    pub revision: Option<u64>,
    /// Calls that the kernel allows by itself while the server serves.
    pub allow_serving: Option<Vec<String>>,
    /// How many calls are asked.
    pub ask: Option<u64>,
    /// Their names.
    pub ask_names: Option<Vec<String>>,
    /// How many calls the kernel denies whatever the policy says.
    pub deny: Option<u64>,
    /// Their names.
    pub deny_names: Option<Vec<String>>,
}

/// What of the server's declared interactions the exercise reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coverage {
    /// Interactions of the exercise that the server's CapabilityStatement declares.
    pub declared: u64,
    /// Interactions for which at least one request was sent.
    pub tried: u64,
    /// Of the tried, answered as expected: done, or refused where that is right (malformed input).
    pub succeeded: u64,
    /// Of the tried, refused by the server against expectation.
    pub refused: u64,
    /// Of the tried, answered with a server error, wrongly, or not at all.
    pub failed: u64,
    /// The same by group, in the order in which they are to be shown.
    pub rows: Vec<CoverageRow>,
    /// One line for each interaction that did not succeed.
    pub remarks: Vec<String>,
}

/// One group of interactions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoverageRow {
    /// Its name: `Patient`, `system`, `client`.
    pub name: String,
    /// See [`Coverage::declared`].
    pub declared: u64,
    /// See [`Coverage::tried`].
    pub tried: u64,
    /// See [`Coverage::succeeded`].
    pub succeeded: u64,
    /// See [`Coverage::refused`].
    pub refused: u64,
    /// See [`Coverage::failed`].
    pub failed: u64,
}

/// The same exercise under enforcement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enforced {
    /// Requests of the exercise under enforcement.
    pub requests: Option<u64>,
    /// Calls denied while serving.
    pub denied_serving: Option<u64>,
    /// Their names → how often.
    pub denied_calls: BTreeMap<String, u64>,
    /// Steps of the exercise whose status code differs from that without Lazaret.
    pub status_differences: Option<u64>,
    /// Which, one line each.
    pub differing_steps: Vec<String>,
}

/// What the gate did with papers that are not in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// One for each case.
    pub refusals: Vec<Refusal>,
}

/// One start with papers that are not in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// What is wrong with them; [`super::verdict::REFUSAL_CASES`] must be among them.
    pub case: String,
    /// Whether the container started (it must not).
    pub started: bool,
    /// The sentence on the container's standard error; empty when there was none.
    pub reason: String,
}

/// One attack under one protection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attack {
    /// Its name; [`super::verdict::MOUNT_ESCAPE`] and [`super::verdict::SERVER_SHELL`] must be among them.
    pub name: String,
    /// Under what it was tried.
    pub protection: Protection,
    /// Whether the attacker got what they wanted.
    pub worked: bool,
    /// What was seen, in a few words.
    pub detail: String,
    /// The error that the decisive call returned: `EPERM`.
    pub errno: Option<String>,
}

/// The daemon killed and started again while the server is under requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DaemonRestart {
    /// Requests from before the kill until after the new start.
    pub requests: u64,
    /// Of these, failed.
    pub failed: u64,
    /// Asked calls that were refused meanwhile (nobody there to answer); absent when nothing counted them.
    pub asked_refused: Option<u64>,
    /// Seconds without a daemon.
    pub down_seconds: f64,
}

/// Time from `start` to the first good answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Median seconds per protection.
    pub seconds: BTreeMap<Protection, f64>,
    /// Each start's seconds, in the order in which they were made.
    pub samples: BTreeMap<Protection, Vec<f64>>,
}

/// Requests per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throughput {
    /// Lazaret over the engine's default, paired by round.
    pub lazaret_over_default: Option<Spread>,
    /// Lazaret over no filter at all, paired by round.
    pub lazaret_over_unconfined: Option<Spread>,
    /// One container under the engine's default over an identical one: what noise alone does.
    pub a_over_a: Option<Spread>,
    /// Requests per second.
    pub per_second: BTreeMap<Protection, Spread>,
}

/// CPU time of the container's cgroup per request that succeeded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuPerRequest {
    /// Lazaret over the engine's default, paired by round.
    pub lazaret_over_default: Option<Spread>,
    /// Lazaret over no filter at all, paired by round.
    pub lazaret_over_unconfined: Option<Spread>,
    /// One container under the engine's default over an identical one: what noise alone does.
    pub a_over_a: Option<Spread>,
    /// Milliseconds of CPU time.
    pub ms: BTreeMap<Protection, Spread>,
}

/// Time to answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Milliseconds; each percentile is taken per round, its spread is over the rounds.
    pub ms: BTreeMap<Protection, Percentiles>,
}

/// Percentiles of the time to answer, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Percentiles {
    /// Half of the requests were faster.
    pub p50: Spread,
    /// 95 of 100 were faster.
    pub p95: Spread,
    /// 99 of 100 were faster.
    pub p99: Spread,
}

/// One round: every target once, in random order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Round {
    /// True for a round that only warms up: it is kept here and counted nowhere.
    pub warm_up: bool,
    /// In the order in which they were made.
    pub samples: Vec<Sample>,
}

/// One target under load, once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The target.
    pub protection: Protection,
    /// Requests that were answered as they should be.
    pub requests: u64,
    /// Requests that were not.
    pub failed: u64,
    /// Wall time.
    pub seconds: f64,
    /// Time to answer, milliseconds, half were faster; absent when no request was answered as it should be.
    pub p50_ms: Option<f64>,
    /// Time to answer, milliseconds, 95 of 100 were faster; absent when no request was answered as it should be.
    pub p95_ms: Option<f64>,
    /// Time to answer, milliseconds, 99 of 100 were faster; absent when no request was answered as it should be.
    pub p99_ms: Option<f64>,
    /// CPU time of the container's cgroup meanwhile; absent when it has none of its own.
    pub cpu_seconds: Option<f64>,
}

#[cfg(test)]
mod tests;
