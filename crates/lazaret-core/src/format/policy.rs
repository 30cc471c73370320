//! The policy language, version 1, as it is written (DESIGN §4).
//!
//! Fields stand in alphabetical order, so that serialising gives the canonical JSON form: sorted keys, no white space,
//! integers only. No meaning is checked here.
//!
//! `docs/policy.schema.json` is generated from these types (feature `schema`).

#[cfg(feature = "schema")]
mod schema;

#[cfg(feature = "schema")]
pub use schema::schema;
#[cfg(feature = "schema")]
use schema::{DURATION, ERRNOS};

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The only `apiVersion`.
pub const API_VERSION: &str = "lazaret.dev/v1";
/// The only `kind`.
pub const KIND: &str = "SyscallPolicy";

/// A whole policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PolicyV1 {
    /// Always `lazaret.dev/v1`.
    #[cfg_attr(feature = "schema", schemars(extend("const" = API_VERSION)))]
    pub api_version: String,
    /// Calls that no rule can allow.
    pub ceiling: CeilingV1,
    /// Where the policy was learnt and where it holds.
    pub environment: EnvironmentV1,
    /// What the policy rests on; absent for one that was written by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<EvidenceV1>,
    /// The image it is for.
    pub image: ImageV1,
    /// Always `SyscallPolicy`.
    #[cfg_attr(feature = "schema", schemars(extend("const" = KIND)))]
    pub kind: String,
    /// Name and revision.
    pub metadata: MetadataV1,
    /// What happens to a denied call in the ask band.
    pub mode: ModeV1,
    /// The verdict for calls without a rule.
    pub otherwise: OtherwiseV1,
    /// How phases are told apart.
    #[serde(default, skip_serializing_if = "PhasesV1::is_empty")]
    pub phases: PhasesV1,
    /// What is allowed and denied.
    pub rules: Vec<RuleV1>,
}

/// Name and revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MetadataV1 {
    /// Lower-case letters, digits, `-`, `.`; at most 128.
    #[cfg_attr(feature = "schema", schemars(extend("pattern" = "^[a-z0-9][a-z0-9./-]{0,127}$")))]
    pub name: String,
    /// Counts up with every change; a node refuses an older one than it has seen.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub revision: u64,
}

/// The image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageV1 {
    /// Index, manifest and configuration digests.
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub digests: Vec<Digest>,
    /// For people; identity is the digests.
    pub name: String,
}

/// Where the policy was learnt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EnvironmentV1 {
    /// `x86_64` or `aarch64`.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ["x86_64", "aarch64"])))]
    pub arch: String,
    /// Oldest kernel, as `>=5.11`.
    #[cfg_attr(feature = "schema", schemars(extend("pattern" = r"^>=[0-9]+\.[0-9]+")))]
    pub kernel: String,
    /// C libraries found in the image, as `glibc 2.36`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub libc: Vec<String>,
    /// Whether the container was recorded with `no_new_privs`.
    pub no_new_privileges: bool,
    /// Runtimes it was recorded under, as `runc 1.1.5`.
    pub runtimes: Vec<String>,
}

/// Whether denials bite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ModeV1 {
    /// Calls outside the policy fail.
    Enforce,
    /// Calls of the ask band outside the policy go on and are reported.
    Observe,
}

/// A named ceiling or a list of calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "expected `default` or a list of system calls")]
pub enum CeilingV1 {
    /// A named set; `default` is the only one.
    #[cfg_attr(feature = "schema", schemars(extend("const" = "default")))]
    Named(String),
    /// Calls.
    Calls(Vec<CallV1>),
}

/// A system call, in every list of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(
    untagged,
    expecting = "expected the name of a system call, or the number of one without a name"
)]
pub enum CallV1 {
    /// Its number, where the tables have no name for it.
    Number(u32),
    /// Its name in the kernel's tables.
    Name(String),
}

impl fmt::Display for CallV1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallV1::Number(nr) => write!(f, "{nr}"),
            CallV1::Name(name) => f.write_str(name),
        }
    }
}

/// A call by its name is that name; one without a name is no name.
impl PartialEq<str> for CallV1 {
    fn eq(&self, name: &str) -> bool {
        matches!(self, CallV1::Name(own) if own == name)
    }
}

impl From<&str> for CallV1 {
    fn from(name: &str) -> CallV1 {
        CallV1::Name(name.into())
    }
}

/// The verdict for calls without a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OtherwiseV1 {
    /// `errno` is the only action.
    #[cfg_attr(feature = "schema", schemars(extend("const" = "errno")))]
    pub action: String,
    /// `EPERM`, `EACCES` or `ENOSYS`.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ERRNOS)))]
    pub errno: String,
}

/// How phases are told apart, and what they admit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PhasesV1 {
    /// What is put into the container from outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecV1>,
    /// The runtime's own calls before the first `execve`, as recorded; only a static profile needs them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prelude: Option<PreludeV1>,
    /// When the server serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<ServingV1>,
    /// The start of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<StartupV1>,
}

impl PhasesV1 {
    fn is_empty(&self) -> bool {
        *self == PhasesV1::default()
    }
}

/// What is put into the container from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ExecV1 {
    /// Whether it may start; absent is `admit`.
    pub start: StartV1,
}

/// Whether a process may be put into the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum StartV1 {
    /// It starts, under the rules of phase exec.
    Admit,
    /// Its first `execve` fails, but under a signed permit.
    Refuse,
}

/// The runtime's own calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PreludeV1 {
    /// Calls.
    pub calls: Vec<CallV1>,
}

/// When the server serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ServingV1 {
    /// The trigger.
    pub when: WhenV1,
}

/// The trigger of a phase, exactly one of `http`, `tcp`, `health` and `quiet`, and what lies between it and the phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("oneOf" = [{"required": ["http"]}, {"required": ["tcp"]}, {"required": ["health"]}, {"required": ["quiet"]}])))]
#[serde(deny_unknown_fields)]
pub struct WhenV1 {
    /// How long after `settle` denials are told before they bite, as `30s`; absent: not at all.
    #[cfg_attr(feature = "schema", schemars(extend("pattern" = DURATION)))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dwell: Option<String>,
    /// A health check: `engine`, the one that the engine runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthV1>,
    /// An HTTP answer on 127.0.0.1 in the container's network namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpV1>,
    /// No call that startup allows and serving does not, for so long, as `20s`.
    #[cfg_attr(feature = "schema", schemars(extend("pattern" = DURATION)))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<String>,
    /// How long after the trigger, as `10s` or `500ms`; absent: at once.
    #[cfg_attr(feature = "schema", schemars(extend("pattern" = DURATION)))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle: Option<String>,
    /// A TCP port of the container that takes connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpV1>,
}

/// Whose health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum HealthV1 {
    /// The engine's.
    Engine,
}

/// A TCP port on 127.0.0.1 in the container's network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TcpV1 {
    /// TCP port.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub port: u16,
}

/// The start of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StartupV1 {
    /// How often the server may start again inside the running container.
    #[cfg_attr(feature = "schema", schemars(range(max = 1000)))]
    pub restarts: u32,
}

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HttpV1 {
    /// Path and query, from `/` on.
    #[cfg_attr(feature = "schema", schemars(extend("pattern" = "^/")))]
    pub path: String,
    /// TCP port.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub port: u16,
    /// The status that means ready.
    #[cfg_attr(feature = "schema", schemars(range(min = 100, max = 599)))]
    pub status: u16,
}

/// One rule: `allow`, `ask` or `deny`, exactly one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("oneOf" = [{"required": ["allow"]}, {"required": ["ask"]}, {"required": ["deny"]}])))]
#[serde(deny_unknown_fields)]
pub struct RuleV1 {
    /// Calls that may be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<CallV1>>,
    /// Calls that may be made, each decided by the gate: seen, and closed by a later revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask: Option<Vec<CallV1>>,
    /// Calls that fail, in every phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny: Option<Vec<CallV1>>,
    /// Phases by name, where `until` does not say it.
    #[cfg_attr(feature = "schema", schemars(extend("items" = {"enum": ["startup", "serving", "stopping", "exec"]})))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub during: Option<Vec<String>>,
    /// For `deny`: `EPERM`, `EACCES` or `ENOSYS`.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ERRNOS)))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
    /// From the start until this phase begins: `serving` or `stopping`.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ["serving", "stopping"])))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Conditions on arguments, joined by AND.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<ConditionV1>,
    /// The reason.
    pub why: String,
}

/// A condition on one argument: `(argument & mask) ∈ in`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ConditionV1 {
    /// The argument's name in the kernel's `SYSCALL_DEFINE`.
    pub arg: String,
    /// Values that hold: a set, each value in it once.
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    #[serde(rename = "in")]
    pub values: Vec<ValueV1>,
    /// Bits to compare; all of the argument's width when absent.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<u64>,
}

/// A value or a range of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(
    untagged,
    expecting = "expected a number, the name of a constant, or a range {from: A, to: B}"
)]
pub enum ValueV1 {
    /// A number.
    Number(u64),
    /// A constant of the kernel, as `AF_INET`.
    Name(String),
    /// Every value from one to another.
    Range(#[serde(deserialize_with = "range")] RangeV1),
}

/// A range as it is written. What serde derives would take the list `[10]` for `{from: 10}` too, and a list within a list
/// of values is a slip that would let values through.
fn range<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RangeV1, D::Error> {
    struct Ends;

    impl<'de> Visitor<'de> for Ends {
        type Value = RangeV1;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a range {from: A, to: B}")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RangeV1, A::Error> {
            RangeV1::deserialize(MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_map(Ends)
}

/// Every value from one to another, both included.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("minProperties" = 1)))]
#[serde(deny_unknown_fields)]
pub struct RangeV1 {
    /// The first; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<EndV1>,
    /// The last; the largest value of the mask when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<EndV1>,
}

/// An end of a range.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "expected a number or the name of a constant")]
pub enum EndV1 {
    /// A number.
    Number(u64),
    /// A constant of the kernel, as `AF_INET`.
    Name(String),
}

/// What the policy rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EvidenceV1 {
    /// Whether nothing was lost and every phase was recorded to its end.
    pub complete: bool,
    /// Interactions that succeeded of those declared, as `148/152`; `none` without an exerciser that counts.
    pub interactions: String,
    /// Calls the recorder knows it missed.
    pub lost: u64,
    /// Digests of the recordings.
    pub recordings: Vec<Digest>,
    /// How long serving went on after the last new call, in seconds, least of all runs.
    pub since_last_new: u64,
    /// Whether every run recorded a stop by signal to the end.
    pub stopped: bool,
    /// Good–Turing estimate of what another run would show for the first time, as `0.4 %`; `unknown` for one run.
    pub unseen: String,
}
