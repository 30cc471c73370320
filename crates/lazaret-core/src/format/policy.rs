//! The policy language, version 1, as it is written (DESIGN §4).
//!
//! Fields stand in alphabetical order, so that serialising gives the canonical JSON form: sorted keys, no white space,
//! integers only. No meaning is checked here.

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The only `apiVersion`.
pub const API_VERSION: &str = "lazaret.dev/v1";
/// The only `kind`.
pub const KIND: &str = "SyscallPolicy";

/// A whole policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PolicyV1 {
    /// [`API_VERSION`].
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
    /// [`KIND`].
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
#[serde(deny_unknown_fields)]
pub struct MetadataV1 {
    /// Lower-case letters, digits, `-`, `.`; at most 128.
    pub name: String,
    /// Counts up with every change; a node refuses an older one than it has seen.
    pub revision: u64,
}

/// The image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageV1 {
    /// Index, manifest and configuration digests.
    pub digests: Vec<Digest>,
    /// For people; identity is the digests.
    pub name: String,
}

/// Where the policy was learnt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EnvironmentV1 {
    /// `x86_64` or `aarch64`.
    pub arch: String,
    /// Oldest kernel, as `>=5.11`.
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
#[serde(rename_all = "lowercase")]
pub enum ModeV1 {
    /// Calls outside the policy fail.
    Enforce,
    /// Calls of the ask band outside the policy go on and are reported.
    Observe,
}

/// A named ceiling or a list of calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CeilingV1 {
    /// A named set.
    Named(String),
    /// Call names.
    Calls(Vec<String>),
}

/// The verdict for calls without a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtherwiseV1 {
    /// `errno` is the only action.
    pub action: String,
    /// `EPERM`, `EACCES` or `ENOSYS`.
    pub errno: String,
}

/// How phases are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhasesV1 {
    /// The runtime's own calls before the first `execve`, as recorded; only a static profile needs them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prelude: Option<PreludeV1>,
    /// When the server serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<ServingV1>,
}

impl PhasesV1 {
    fn is_empty(&self) -> bool {
        self.prelude.is_none() && self.serving.is_none()
    }
}

/// The runtime's own calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreludeV1 {
    /// Call names.
    pub calls: Vec<String>,
}

/// When the server serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServingV1 {
    /// The trigger.
    pub when: WhenV1,
}

/// The trigger of a phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhenV1 {
    /// An HTTP answer on 127.0.0.1 in the container's network namespace.
    pub http: HttpV1,
    /// How long after it, as `10s` or `500ms`.
    pub settle: String,
}

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpV1 {
    /// Path and query, from `/` on.
    pub path: String,
    /// TCP port.
    pub port: u16,
    /// The status that means ready.
    pub status: u16,
}

/// One rule: `allow` or `deny`, exactly one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleV1 {
    /// Call names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// Call names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny: Option<Vec<String>>,
    /// Phases by name, where `until` does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub during: Option<Vec<String>>,
    /// For `deny`: `EPERM`, `EACCES` or `ENOSYS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
    /// From the start until this phase begins: `serving` or `stopping`.
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
#[serde(deny_unknown_fields)]
pub struct ConditionV1 {
    /// The argument's name in the kernel's `SYSCALL_DEFINE`.
    pub arg: String,
    /// Values that hold.
    #[serde(rename = "in")]
    pub values: Vec<ValueV1>,
    /// Bits to compare; all of the argument's width when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<u64>,
}

/// A number or the kernel's name for one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ValueV1 {
    /// A number.
    Number(u64),
    /// A constant of the kernel, as `AF_INET`.
    Name(String),
}

/// What the policy rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
