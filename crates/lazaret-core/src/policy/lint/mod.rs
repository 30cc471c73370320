//! What a checked policy says that its author may not want: findings with a stable code, a severity and a place.
//!
//! The findings rest on the policy's meaning, not on its layout. A policy without findings is not therefore a good one, and
//! nothing here changes a policy or a verdict.

mod lists;
mod reach;

use super::{Mode, Place, Policy, Serving, Trigger};
use crate::ceiling::{self, Reach};
use crate::format::policy::{CallV1, CeilingV1, RuleV1};
use crate::phase::Phase;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use lazaret_filter::prove::ProveError;
use lazaret_filter::rule::Verdict;
use lazaret_filter::table::{self, Release};
pub use lists::{Danger, HOT};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Should be changed, or be said to be meant.
    Warning,
}

impl Severity {
    /// The word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where, in the canonical text ([`Policy::wire`]).
    pub place: Place,
    /// What.
    pub lint: Lint,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lint {
    /// Other rules allow, or the ceiling forbids, all that this one allows of a call, phase by phase and argument by argument.
    #[error(
        "a rule on `{call}` that changes nothing: other rules allow all of it, or the ceiling forbids it"
    )]
    Unreachable {
        /// The call.
        call: String,
    },
    /// A condition makes the kernel run the filter at every such call: the call leaves the bitmap that answers by number.
    #[error(
        "a condition on `{call}`, which servers make all the time: the kernel runs the whole filter each time"
    )]
    HotCondition {
        /// The call.
        call: String,
    },
    /// Allowed while serving, and still the gate is asked each time.
    #[error(
        "`{call}` is a call that servers make all the time, and the gate is asked each time: allow it in every phase, or not while serving"
    )]
    HotAsked {
        /// The call.
        call: String,
    },
    /// A reviewer learns nothing from it.
    #[error("`{found}` is no reason: say what needs the call")]
    NoReason {
        /// What stands there.
        found: String,
    },
    /// A call that intruders use is open while the server serves.
    #[error("`{call}` is allowed while serving: {why}; {instead}")]
    Dangerous {
        /// The call.
        call: String,
        /// What it is good for.
        why: &'static str,
        /// What to do about it.
        instead: &'static str,
        /// How much it matters.
        severity: Severity,
    },
    /// The name allows nothing.
    #[error("`{name}` is no call of {arch}: it allows nothing there")]
    OtherArch {
        /// The name.
        name: String,
        /// The policy's architecture.
        arch: &'static str,
    },
    /// Rules that split the phases among them.
    #[error(
        "rules allow `{call}` in every phase, each in some: one rule without `until` and `during` says it, and the kernel decides it by itself"
    )]
    PhasesAddUp {
        /// The call.
        call: String,
    },
    /// Rules speak of serving, and nothing says when that begins.
    #[error(
        "rules depend on the phase, but `phases.serving` is missing: only `lazaret phase` ends the start-up"
    )]
    NoTrigger,
    /// Serving begins with the first answer of a server that may still be starting.
    #[error(
        "neither `settle` nor `dwell`: denials bite at the first sign that the server is ready; with `dwell` they are told before they bite"
    )]
    NoPause,
    /// A ceiling of one's own that is lower than the named one.
    #[error(
        "the ceiling leaves out {} of the named one, `default`: {}", calls.len(), calls.join(" ")
    )]
    Ceiling {
        /// The calls it leaves out.
        calls: Vec<&'static str>,
    },
    /// Nothing is denied but by the kernel.
    #[error("mode `observe`: calls outside the policy go on and are only reported")]
    Observe,
    /// Nothing says how the policy came about.
    #[error("no evidence: nothing says what the policy rests on")]
    NoEvidence,
    /// The recordings do not carry the policy.
    #[error("the evidence is incomplete: {what}")]
    WeakEvidence {
        /// What is missing.
        what: &'static str,
    },
    /// Hosts are shut out without need.
    #[error(
        "kernels before {found} are refused, though nothing in the policy needs more than {needed}"
    )]
    Kernel {
        /// What the policy asks for.
        found: String,
        /// What it needs.
        needed: Release,
    },
}

impl Lint {
    /// The stable name of this kind of finding.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Lint::Unreachable { .. } => "L001",
            Lint::HotCondition { .. } => "L002",
            Lint::NoReason { .. } => "L003",
            Lint::Dangerous { .. } => "L004",
            Lint::OtherArch { .. } => "L005",
            Lint::PhasesAddUp { .. } => "L006",
            Lint::NoTrigger => "L007",
            Lint::Ceiling { .. } => "L008",
            Lint::Observe => "L009",
            Lint::NoEvidence => "L010",
            Lint::WeakEvidence { .. } => "L011",
            Lint::Kernel { .. } => "L012",
            Lint::HotAsked { .. } => "L013",
            Lint::NoPause => "L014",
        }
    }

    /// How much it matters.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Lint::Dangerous { severity, .. } => *severity,
            Lint::NoEvidence | Lint::Kernel { .. } | Lint::NoPause => Severity::Note,
            _ => Severity::Warning,
        }
    }
}

/// Everything that is found: what the header says, then rule by rule.
///
/// # Errors
/// [`ProveError`] when conditions are too many to decide what others cover.
pub fn lint(policy: &Policy) -> Result<Vec<Finding>, ProveError> {
    let mut linter = Linter {
        policy,
        findings: Vec::new(),
    };
    linter.header();
    linter.rules()?;
    Ok(linter.findings)
}

struct Linter<'p> {
    policy: &'p Policy,
    findings: Vec<Finding>,
}

impl Linter<'_> {
    fn found(&mut self, place: Place, lint: Lint) {
        self.findings.push(Finding { place, lint });
    }

    fn header(&mut self) {
        let policy = self.policy;
        if policy.mode() == Mode::Observe {
            self.found(Place::field("mode"), Lint::Observe);
        }
        self.ceiling();
        self.evidence();
        let (major, minor) = policy.oldest_kernel;
        let needed = needed_kernel(policy);
        if (major, minor) > (needed.major.into(), needed.minor.into()) {
            let lint = Lint::Kernel {
                found: format!("{major}.{minor}"),
                needed,
            };
            self.found(Place::field("environment").at("kernel"), lint);
        }
        let phased = |rule: &RuleV1| rule.until.is_some() || rule.during.is_some();
        if policy.serving.is_none() && policy.wire.rules.iter().any(phased) {
            self.found(Place::field("phases"), Lint::NoTrigger);
        }
        // a quiet time is a pause by itself
        let at_once = |one: &Serving| {
            one.settle_ms == 0 && one.dwell_ms == 0 && !matches!(one.trigger, Trigger::Quiet { .. })
        };
        if policy.mode() == Mode::Enforce && policy.serving().is_some_and(at_once) {
            let place = Place::field("phases").at("serving").at("when");
            self.found(place, Lint::NoPause);
        }
    }

    fn ceiling(&mut self) {
        let policy = self.policy;
        if let CeilingV1::Named(_) = policy.wire.ceiling {
            return;
        }
        // a list cannot say what a named ceiling says of some arguments only; the rules on such a call are looked at instead
        let left_out = ceiling::DEFAULT.iter().filter(|forbidden| {
            let nr = table::nr_of(policy.abi, forbidden.call);
            forbidden.reach == Reach::Always
                && nr.is_some_and(|nr| !policy.ceiling.contains_key(&nr))
        });
        let calls: Vec<&'static str> = left_out.map(|forbidden| forbidden.call).collect();
        if !calls.is_empty() {
            self.found(Place::field("ceiling"), Lint::Ceiling { calls });
        }
    }

    fn evidence(&mut self) {
        let place = Place::field("evidence");
        let Some(evidence) = &self.policy.wire.evidence else {
            self.found(place, Lint::NoEvidence);
            return;
        };
        let weak: [(&'static str, bool, &'static str); 4] = [
            ("lost", evidence.lost > 0, "the recorder lost calls"),
            (
                "complete",
                !evidence.complete,
                "a phase was not recorded to its end",
            ),
            (
                "stopped",
                !evidence.stopped,
                "no stop by signal was recorded to its end",
            ),
            (
                "recordings",
                evidence.recordings.is_empty(),
                "no recording is named",
            ),
        ];
        for (field, holds, what) in weak {
            if holds {
                self.found(place.at(field), Lint::WeakEvidence { what });
            }
        }
    }

    fn rules(&mut self) -> Result<(), ProveError> {
        let policy = self.policy;
        let unreachable = reach::unreachable(policy)?;
        for (index, rule) in policy.wire.rules.iter().enumerate() {
            let place = Place::field("rules").index(index);
            if is_placeholder(&rule.why) {
                let found = rule.why.chars().take(80).collect();
                self.found(place.at("why"), Lint::NoReason { found });
            }
            for (field, list) in [("allow", &rule.allow), ("ask", &rule.ask)] {
                for (at, call) in list.iter().flatten().enumerate() {
                    self.listed(index, rule, &place.at(field).index(at), call, &unreachable);
                }
            }
        }
        Ok(())
    }

    /// One call of an `allow` or `ask`.
    fn listed(
        &mut self,
        index: usize,
        rule: &RuleV1,
        place: &Place,
        call: &CallV1,
        unreachable: &reach::Unreachable,
    ) {
        let policy = self.policy;
        let Some(nr) = number(policy, call) else {
            let lint = Lint::OtherArch {
                name: call.to_string(),
                arch: policy.abi.name(),
            };
            self.found(place.clone(), lint);
            return;
        };
        let name = table::display(policy.abi, nr).to_string();
        if unreachable.rules.contains(&(nr, index)) {
            self.found(place.clone(), Lint::Unreachable { call: name });
            return;
        }
        if unreachable.split.get(&nr) == Some(&index) {
            self.found(place.clone(), Lint::PhasesAddUp { call: name.clone() });
        }
        self.hot(rule, place, nr, &name);
        if let Some(danger) = lists::danger(policy, index, nr) {
            let lint = Lint::Dangerous {
                call: name,
                why: danger.why,
                instead: danger.instead,
                severity: danger.severity,
            };
            self.found(place.clone(), lint);
        }
    }

    fn hot(&mut self, rule: &RuleV1, place: &Place, nr: u32, name: &str) {
        if !HOT.contains(&name) {
            return;
        }
        let call = name.to_string();
        let kernel = self.policy.explain(nr).kernel;
        if !rule.when.is_empty() && !kernel.branches.is_empty() {
            self.found(place.clone(), Lint::HotCondition { call });
        } else if kernel.otherwise == Verdict::Ask
            && lists::allows_in(self.policy, nr, Phase::Serving)
                .next()
                .is_some()
        {
            self.found(place.clone(), Lint::HotAsked { call });
        }
    }
}

/// The oldest kernel that has everything the policy allows, and that can run the gate.
fn needed_kernel(policy: &Policy) -> Release {
    let allowed = policy
        .calls
        .iter()
        .filter(|(_, rules)| rules.deny.is_none());
    allowed
        .filter_map(|(nr, _)| table::since(table::name_of(policy.abi, *nr)?))
        // calls allowed by number skip the filter from there on, and the language refuses older bounds
        .fold(Release::new(5, 11, 0), Ord::max)
}

/// The number behind a call of the text; `None` for names of other architectures.
fn number(policy: &Policy, call: &CallV1) -> Option<u32> {
    match call {
        CallV1::Number(nr) => Some(*nr),
        CallV1::Name(name) => table::nr_of(policy.abi, name),
    }
}

/// Whether a reason says nothing.
fn is_placeholder(why: &str) -> bool {
    let said = why
        .trim()
        .trim_end_matches(['.', '!', '?', ':'])
        .to_lowercase();
    said.chars().filter(|c| c.is_alphanumeric()).count() < 3
        || matches!(
            said.as_str(),
            "because"
                | "fixme"
                | "n/a"
                | "needed"
                | "none"
                | "reason"
                | "required"
                | "tbd"
                | "test"
                | "todo"
                | "unknown"
                | "why"
                | "xxx"
        )
}
