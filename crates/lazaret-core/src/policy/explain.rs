//! Why a policy gives one call the verdicts it gives: the rules, the ceiling and `otherwise`, phase by phase.
//!
//! Says the same as [`Policy::decide`] for every call, with the regions of arguments spelled out instead of one call's. How
//! it is shown is the command line's business.

use super::{Allow, Policy, Scope};
use crate::ceiling::{self, Reach};
use crate::format::policy::CeilingV1;
use crate::phase::Phase;
use alloc::vec;
use alloc::vec::Vec;
use lazaret_filter::abi::Abi;
use lazaret_filter::rule::{Condition, Entry, Values, Verdict};
use lazaret_filter::table::{self, ArgDef, Release};

/// What gives a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The call, or these arguments of it, are under the ceiling.
    Ceiling,
    /// A `deny` rule; its index in the canonical text.
    Denied(usize),
    /// The prelude is the runtime's own.
    Prelude,
    /// A rule that lets it through; its index in the canonical text.
    Allowed(usize),
    /// No rule holds.
    Otherwise,
}

/// One region of a call's arguments in one phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Joined by AND; empty holds always.
    pub when: Vec<Condition>,
    /// What happens there.
    pub verdict: Verdict,
    /// Why.
    pub cause: Cause,
}

/// What happens to a call in one phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InPhase {
    /// The phase.
    pub phase: Phase,
    /// The first case that holds counts; the last has no conditions.
    pub cases: Vec<Case>,
}

/// A call's place under the ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnderCeiling {
    /// How far.
    pub reach: Reach,
    /// Why, for a named ceiling.
    pub why: Option<&'static str>,
}

/// What would have to be written so that a call is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToAllow {
    /// Name the ceiling's calls one by one, without this one.
    LeaveCeiling,
    /// Take the call out of a `deny` rule; its index in the canonical text.
    DropDenial(usize),
    /// A rule that allows it in these phases; where `narrow`, it is allowed there under conditions already.
    AddRule {
        /// Phases in which some arguments are denied.
        phases: Vec<Phase>,
        /// Whether a rule allows some arguments.
        narrow: bool,
    },
}

/// Everything a policy says of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The policy's convention.
    pub abi: Abi,
    /// The number.
    pub nr: u32,
    /// The name, where the table has one.
    pub name: Option<&'static str>,
    /// The first kernel with the call.
    pub since: Option<Release>,
    /// The arguments that conditions can name.
    pub args: &'static [ArgDef],
    /// Whether, how far and why the ceiling is over it.
    pub ceiling: Option<UnderCeiling>,
    /// What the kernel decides itself under an OCI profile.
    pub kernel: Entry,
    /// Phase by phase, in the order of a life.
    pub phases: Vec<InPhase>,
    /// Steps, all of them needed; empty when every argument is allowed in every phase.
    pub to_allow: Vec<ToAllow>,
}

impl Policy {
    /// Everything the policy says of a call by its native convention.
    #[must_use]
    pub fn explain(&self, nr: u32) -> Explanation {
        let name = table::name_of(self.abi, nr);
        let kernel = self.kernel_table();
        let numbers = kernel.abis.get(&self.abi);
        let kernel = numbers.map_or(Entry::always(kernel.foreign), |numbers| {
            let entry = numbers.entries.get(&nr).cloned();
            entry.unwrap_or(Entry::always(numbers.otherwise))
        });
        Explanation {
            abi: self.abi,
            nr,
            name,
            since: name.and_then(table::since),
            args: name.and_then(table::args_of).unwrap_or(&[]),
            ceiling: self.ceiling_over(nr),
            kernel,
            phases: Phase::ALL
                .into_iter()
                .map(|phase| InPhase {
                    phase,
                    cases: self.cases(phase, nr),
                })
                .collect(),
            to_allow: self.to_allow(nr),
        }
    }

    fn ceiling_over(&self, nr: u32) -> Option<UnderCeiling> {
        let reach = *self.ceiling.get(&nr)?;
        let why = match &self.wire.ceiling {
            CeilingV1::Named(set) => ceiling::named(set).and_then(|set| {
                let name = table::name_of(self.abi, nr)?;
                set.iter().find(|one| one.call == name).map(|one| one.why)
            }),
            CeilingV1::Calls(_) => None,
        };
        Some(UnderCeiling { reach, why })
    }

    /// The regions of a call's arguments in one phase, in the order of [`Policy::decide`].
    #[must_use]
    pub fn cases(&self, phase: Phase, nr: u32) -> Vec<Case> {
        let always = |verdict, cause| Case {
            when: Vec::new(),
            verdict,
            cause,
        };
        let otherwise = Verdict::Errno(self.otherwise);
        if let Some((rule, errno)) = self.call(nr).and_then(|rules| rules.deny) {
            return vec![always(Verdict::Errno(errno), Cause::Denied(rule))];
        }
        let mut cases = Vec::new();
        match self.ceiling.get(&nr) {
            Some(Reach::Always) => {
                let verdict = Verdict::Errno(self.ceiling_errno(nr));
                return vec![always(verdict, Cause::Ceiling)];
            }
            Some(Reach::Unless { arg, mask }) => cases.push(Case {
                when: vec![Condition {
                    arg: *arg,
                    mask: *mask,
                    // any of the bits
                    values: Values::of([1..=*mask]),
                }],
                verdict: otherwise,
                cause: Cause::Ceiling,
            }),
            None => {}
        }
        if phase == Phase::Prelude {
            cases.push(always(Verdict::Allow, Cause::Prelude));
            return cases;
        }
        for allow in self.allows(nr).filter(|allow| allow.scope.holds(phase)) {
            cases.push(Case {
                when: allow.conditions.clone(),
                verdict: Verdict::Allow,
                cause: Cause::Allowed(allow.rule),
            });
            if allow.conditions.is_empty() {
                return cases;
            }
        }
        cases.push(always(otherwise, Cause::Otherwise));
        cases
    }

    fn allows(&self, nr: u32) -> impl Iterator<Item = &Allow> {
        self.call(nr).into_iter().flat_map(|rules| &rules.allows)
    }

    fn to_allow(&self, nr: u32) -> Vec<ToAllow> {
        let mut steps = Vec::new();
        if self.ceiling.contains_key(&nr) {
            steps.push(ToAllow::LeaveCeiling);
        }
        if let Some((rule, _)) = self.call(nr).and_then(|rules| rules.deny) {
            steps.push(ToAllow::DropDenial(rule));
        }
        let closed = |phase: &Phase| {
            !self
                .allows(nr)
                .any(|allow| allow.scope.holds(*phase) && allow.conditions.is_empty())
        };
        let phases: Vec<Phase> = Scope::ALWAYS.phases().filter(closed).collect();
        if !phases.is_empty() {
            let narrow = phases
                .iter()
                .any(|phase| self.allows(nr).any(|allow| allow.scope.holds(*phase)));
            steps.push(ToAllow::AddRule { phases, narrow });
        }
        steps
    }
}
