//! A policy that has passed every check, and what it means.
//!
//! Stages: [`crate::format::policy`] is the text, [`check`] turns it into a [`Policy`], [`decide`] gives verdicts, one by
//! one and as a table, [`lower`] says what a kernel's filter must mean.

mod check;
mod decide;
pub mod diff;
pub mod explain;
pub mod import;
pub mod lint;
mod lower;
pub mod near;
mod permit;
mod problem;
mod serving;
pub mod words;
mod written;

pub use check::MAX_BYTES;
pub use decide::Decision;
pub use lower::{Bands, Unseen};
pub use problem::{Place, PolicyError, Problem, Segment, What};
pub use serving::{ExecStart, Http, Serving, Trigger};
pub use written::Written;

use crate::ceiling::Reach;
use crate::digest::Digest;
use crate::format::policy::PolicyV1;
use crate::phase::Phase;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use lazaret_filter::abi::Abi;
use lazaret_filter::rule::{Call, Condition, Verdict};

/// Whether denials in the ask band bite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Calls outside the policy fail.
    Enforce,
    /// Calls of the ask band outside the policy go on and are reported.
    Observe,
}

/// The phases in which a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope(u8);

impl Scope {
    /// Startup, serving, stopping and exec: a rule without `until` and `during`.
    pub const ALWAYS: Scope = Scope(
        Self::bit(Phase::Startup)
            | Self::bit(Phase::Serving)
            | Self::bit(Phase::Stopping)
            | Self::bit(Phase::Exec),
    );

    const fn bit(phase: Phase) -> u8 {
        match phase {
            Phase::Prelude => 0,
            Phase::Startup => 1,
            Phase::Serving => 2,
            Phase::Stopping => 4,
            Phase::Exec => 8,
        }
    }

    /// These phases; prelude is not a policy's to decide and adds nothing.
    #[must_use]
    pub fn of(phases: &[Phase]) -> Scope {
        Scope(
            phases
                .iter()
                .fold(0, |bits, phase| bits | Self::bit(*phase)),
        )
    }

    /// Whether the scope holds in `phase`.
    #[must_use]
    pub const fn holds(self, phase: Phase) -> bool {
        self.0 & Self::bit(phase) != 0
    }

    /// The phases of the scope.
    pub fn phases(self) -> impl Iterator<Item = Phase> {
        Phase::ALL
            .into_iter()
            .filter(move |phase| self.holds(*phase))
    }
}

/// An `allow` or an `ask` of one call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Allow {
    /// Index of the rule in the text.
    pub(crate) rule: usize,
    pub(crate) scope: Scope,
    /// AND; empty means whatever the arguments.
    pub(crate) conditions: Vec<Condition>,
    /// An `ask`: the kernel leaves each such call to the gate.
    pub(crate) asked: bool,
}

impl Allow {
    /// Whether a filter alone may allow what the rule allows: it says so, and phases do not matter to it.
    pub(crate) fn by_kernel(&self) -> bool {
        !self.asked && self.scope == Scope::ALWAYS
    }

    /// Whether the kernel may allow the call by its number.
    pub(crate) fn by_number(&self) -> bool {
        self.by_kernel() && self.conditions.is_empty()
    }
}

/// All that is said of one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallRules {
    /// In the order of the text, except that every `ask` stands after every `allow`.
    pub(crate) allows: Vec<Allow>,
    /// Index of the rule and its errno.
    pub(crate) deny: Option<(usize, u16)>,
}

/// A policy that has passed every check of the language.
///
/// # Guarantees
/// Every name is resolved for the policy's architecture (names unknown under `allow` and `ask` are in
/// [`Policy::unresolved`]), no rule contradicts another or the ceiling, and the calls that the kernel restarts and returns
/// through are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    wire: PolicyV1,
    abi: Abi,
    mode: Mode,
    digests: BTreeSet<Digest>,
    ceiling: BTreeMap<u32, Reach>,
    otherwise: u16,
    serving: Option<Serving>,
    restarts: u32,
    exec_start: ExecStart,
    prelude: BTreeSet<u32>,
    calls: BTreeMap<u32, CallRules>,
    unresolved: BTreeSet<String>,
    oldest_kernel: (u32, u32),
}

impl Policy {
    /// The policy as text values, in canonical order.
    #[must_use]
    pub fn wire(&self) -> &PolicyV1 {
        &self.wire
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.wire.metadata.name
    }

    /// Its revision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.wire.metadata.revision
    }

    /// Whether denials bite.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The native convention it is for.
    #[must_use]
    pub fn abi(&self) -> Abi {
        self.abi
    }

    /// Digests of the image it is for.
    #[must_use]
    pub fn image_digests(&self) -> &BTreeSet<Digest> {
        &self.digests
    }

    /// When a container under this policy serves; `None`: only by hand.
    #[must_use]
    pub fn serving(&self) -> Option<&Serving> {
        self.serving.as_ref()
    }

    /// How often the server may start again inside a running container (`phases.startup.restarts`).
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Whether a process may be put into the container from outside (`phases.exec.start`).
    #[must_use]
    pub fn exec_start(&self) -> ExecStart {
        self.exec_start
    }

    /// Whether startup allows this call and serving does not: what a trigger `quiet` waits for to end, and what a restart
    /// of the server begins with.
    #[must_use]
    pub fn is_startup_only(&self, call: &Call) -> bool {
        let allows = |phase| self.decide(phase, call).verdict == Verdict::Allow;
        allows(Phase::Startup) && !allows(Phase::Serving)
    }

    /// Names under `allow` and `ask` that the tables do not know: a warning, since they allow nothing.
    #[must_use]
    pub fn unresolved(&self) -> &BTreeSet<String> {
        &self.unresolved
    }

    /// Why this host is not the environment the policy holds in, if so. `kernel` is a release as `uname -r` gives it.
    #[must_use]
    pub fn environment_mismatch(&self, abi: Abi, kernel: &str) -> Option<String> {
        if abi != self.abi {
            return Some(alloc::format!(
                "the policy is for {}, the host is {abi}",
                self.abi
            ));
        }
        let (major, minor) = self.oldest_kernel;
        match check::release(kernel) {
            Some(found) if found >= self.oldest_kernel => None,
            _ => Some(alloc::format!(
                "the policy needs kernel {major}.{minor} or newer, the host runs `{kernel}`"
            )),
        }
    }

    /// The form that is hashed and signed.
    #[must_use]
    pub fn canonical_json(&self) -> Vec<u8> {
        // the wire types hold no maps and no floats: serialising them cannot fail (serde_json, "Errors" of to_vec)
        serde_json::to_vec(&self.wire).unwrap_or_default()
    }

    /// Digest of [`Policy::canonical_json`]: the policy's identity.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.canonical_json())
    }

    /// Reads the canonical form.
    ///
    /// # Errors
    /// Larger than [`MAX_BYTES`], no JSON of this shape, not in canonical form, or any problem of meaning.
    pub fn from_canonical_json(bytes: &[u8]) -> Result<Policy, PolicyError> {
        if bytes.len() > MAX_BYTES {
            return Err(PolicyError::TooLarge {
                bytes: bytes.len(),
                limit: MAX_BYTES,
            });
        }
        let wire: PolicyV1 = serde_json::from_slice(bytes).map_err(|error| PolicyError::Shape {
            problem: alloc::string::ToString::to_string(&error),
        })?;
        let policy = Policy::try_from(wire)?;
        if policy.canonical_json() != bytes {
            return Err(PolicyError::NotCanonical);
        }
        Ok(policy)
    }

    /// Every condition under which some rule lets a call through.
    pub(crate) fn conditions(&self, nr: u32) -> impl Iterator<Item = &Condition> {
        let allows = self.calls.get(&nr).map_or(&[][..], |rules| &rules.allows);
        allows.iter().flat_map(|allow| &allow.conditions)
    }

    /// Whether some rule says `ask` of a call.
    pub(crate) fn asks(&self, nr: u32) -> bool {
        let rules = self.calls.get(&nr);
        rules.is_some_and(|rules| rules.allows.iter().any(|allow| allow.asked))
    }

    /// The number of a call, and what the rules say of it.
    pub(crate) fn call(&self, nr: u32) -> Option<&CallRules> {
        self.calls.get(&nr)
    }
}
