//! The rules: actions, scopes, contradictions.

use super::super::problem::{Place, What};
use super::super::{Allow, CallRules, Scope};
use super::calls::Use;
use super::{MAX_RULES, Reader};
use crate::ceiling::Reach;
use crate::format::policy::{CallV1, RuleV1};
use crate::phase::Phase;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use lazaret_filter::abi::Abi;
use lazaret_filter::table;

/// Calls without which a process cannot even be interrupted or end (KERNEL-FACTS, "restart_syscall, rt_sigreturn …"), and
/// those with which runc's two processes hand the listener over: it refuses a `write` that is asked
/// (`libcontainer/seccomp/seccomp_linux.go`), and a `read` that is asked waits for ever where no gate answers, since the
/// waiting process holds the listener itself (runc 1.1.5, measured).
const REQUIRED: [(&str, &str); 6] = [
    ("exit", "threads end through it"),
    ("exit_group", "processes end through it"),
    (
        "read",
        "the runtime waits with it for the gate, so it cannot be asked",
    ),
    (
        "restart_syscall",
        "the kernel restarts interrupted calls through it",
    ),
    ("rt_sigreturn", "signal handlers return through it"),
    (
        "write",
        "the runtime hands the listener over with it, so it cannot be asked",
    ),
];

/// What a rule does with its calls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Allow,
    Ask,
    Deny,
}

impl Action {
    const fn name(self) -> &'static str {
        match self {
            Action::Allow => "allow",
            Action::Ask => "ask",
            Action::Deny => "deny",
        }
    }
}

/// The action of a rule and its calls; `None` unless it is exactly one.
fn action(rule: &RuleV1) -> Option<(Action, &[CallV1])> {
    match (&rule.allow, &rule.ask, &rule.deny) {
        (Some(calls), None, None) => Some((Action::Allow, calls)),
        (None, Some(calls), None) => Some((Action::Ask, calls)),
        (None, None, Some(calls)) => Some((Action::Deny, calls)),
        _ => None,
    }
}

/// A rule in its place.
struct Here<'r> {
    place: Place,
    index: usize,
    rule: &'r RuleV1,
    action: Action,
    calls: &'r [CallV1],
}

impl Reader {
    pub(super) fn rules(
        &mut self,
        rules: &[RuleV1],
        abi: Abi,
        ceiling: &BTreeMap<u32, Reach>,
    ) -> BTreeMap<u32, CallRules> {
        let place = Place::field("rules");
        let before = self.problems.len();
        self.bounded(&place, rules.len(), MAX_RULES);
        let mut read: Vec<Here<'_>> = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let place = place.index(index);
            self.text(place.at("why"), &rule.why);
            match action(rule) {
                Some((action, calls)) => read.push(Here {
                    place,
                    index,
                    rule,
                    action,
                    calls,
                }),
                None => self.problem(place, What::OneAction),
            }
        }
        let mut found: BTreeMap<u32, CallRules> = BTreeMap::new();
        // in this order a contradiction is told at the same one of the two rules, wherever they stand
        for action in [Action::Deny, Action::Allow, Action::Ask] {
            for here in read.iter().filter(|here| here.action == action) {
                match action {
                    Action::Deny => self.deny(here, abi, &mut found),
                    Action::Allow | Action::Ask => self.allow(here, abi, ceiling, &mut found),
                }
            }
        }
        if let Some(told) = self.problems.get_mut(before..) {
            // `rules` itself, then the rules as they stand in the text
            told.sort_by(|a, b| a.place.0.get(1).cmp(&b.place.0.get(1)));
        }
        found
    }

    /// Fields that say nothing in a rule of this action.
    fn not_with(&mut self, here: &Here<'_>, fields: &[(&'static str, bool)]) {
        let action = here.action.name();
        for &(field, present) in fields {
            if present {
                let what = What::NotWith { field, action };
                self.problem(here.place.at(field), what);
            }
        }
    }

    fn deny(&mut self, here: &Here<'_>, abi: Abi, found: &mut BTreeMap<u32, CallRules>) {
        let rule = here.rule;
        let fields = [
            ("when", !rule.when.is_empty()),
            ("until", rule.until.is_some()),
            ("during", rule.during.is_some()),
        ];
        self.not_with(here, &fields);
        let errno = rule
            .errno
            .as_ref()
            .map_or(1, |name| self.errno(here.place.at("errno"), name));
        let list = here.place.at("deny");
        if here.calls.is_empty() {
            self.problem(list.clone(), What::Empty);
        }
        for call in self.calls(&list, here.calls, abi, Use::Closing) {
            let entry = found.entry(call.nr).or_default();
            match entry.deny {
                Some((other, _)) => {
                    let name = call.name.into_owned();
                    self.problem(call.place, What::DeniedTwice { name, other });
                }
                None => entry.deny = Some((here.index, errno)),
            }
        }
    }

    /// An `allow` or an `ask`.
    fn allow(
        &mut self,
        here: &Here<'_>,
        abi: Abi,
        ceiling: &BTreeMap<u32, Reach>,
        found: &mut BTreeMap<u32, CallRules>,
    ) {
        self.not_with(here, &[("errno", here.rule.errno.is_some())]);
        let scope = self.scope(&here.place, here.rule);
        let list = here.place.at(here.action.name());
        if here.calls.is_empty() {
            self.problem(list.clone(), What::Empty);
        }
        for call in self.calls(&list, here.calls, abi, Use::Allowing) {
            let name = || call.name.clone().into_owned();
            if ceiling.get(&call.nr) == Some(&Reach::Always) {
                self.problem(call.place.clone(), What::UnderCeiling { name: name() });
            }
            let conditions = self.conditions(&here.place, &call.name, &here.rule.when);
            let entry = found.entry(call.nr).or_default();
            let allow = Allow {
                rule: here.index,
                scope,
                conditions,
                asked: here.action == Action::Ask,
            };
            if let Some((other, _)) = entry.deny {
                let what = What::Contradiction {
                    name: name(),
                    other,
                };
                self.problem(call.place.clone(), what);
            }
            let by_number = entry.allows.iter().find(|other| other.by_number());
            if let (true, Some(Allow { rule: other, .. })) = (allow.asked, by_number) {
                let what = What::NeverAsked {
                    name: name(),
                    other: *other,
                };
                self.problem(call.place.clone(), what);
            }
            entry.allows.push(allow);
        }
    }

    fn scope(&mut self, at: &Place, rule: &RuleV1) -> Scope {
        match (rule.until.as_deref(), &rule.during) {
            (None, None) => Scope::ALWAYS,
            (Some("serving"), None) => Scope::of(&[Phase::Startup]),
            (Some("stopping"), None) => Scope::of(&[Phase::Startup, Phase::Serving]),
            (Some(other), None) => {
                let found = other.chars().take(80).collect();
                self.problem(
                    at.at("until"),
                    What::Phase {
                        found,
                        expected: "serving or stopping",
                    },
                );
                Scope::ALWAYS
            }
            (Some(_), Some(_)) => {
                self.problem(at.at("until"), What::UntilAndDuring);
                Scope::ALWAYS
            }
            (None, Some(names)) => self.during(&at.at("during"), names),
        }
    }

    fn during(&mut self, place: &Place, names: &[String]) -> Scope {
        const EXPECTED: &str = "startup, serving, stopping or exec";
        let mut phases = Vec::new();
        for (index, name) in names.iter().enumerate() {
            match Phase::ALL
                .into_iter()
                .find(|phase| phase.name() == name && *phase != Phase::Prelude)
            {
                Some(phase) if phases.contains(&phase) => {
                    self.problem(place.index(index), What::Twice { name: name.clone() });
                }
                Some(phase) => phases.push(phase),
                None => {
                    let found = name.chars().take(80).collect();
                    self.problem(
                        place.index(index),
                        What::Phase {
                            found,
                            expected: EXPECTED,
                        },
                    );
                }
            }
        }
        let scope = Scope::of(&phases);
        if phases.is_empty() {
            self.problem(place.clone(), What::Empty);
        } else if scope == Scope::ALWAYS {
            self.problem(place.clone(), What::AllPhases);
        } else if phases == [Phase::Startup] {
            self.problem(place.clone(), What::WriteUntil { until: "serving" });
        } else if scope == Scope::of(&[Phase::Startup, Phase::Serving]) {
            self.problem(place.clone(), What::WriteUntil { until: "stopping" });
        }
        scope
    }

    pub(super) fn required(&mut self, calls: &BTreeMap<u32, CallRules>, abi: Abi) {
        for (name, why) in REQUIRED {
            let allowed = table::nr_of(abi, name)
                .and_then(|nr| calls.get(&nr))
                .is_some_and(|rules| rules.allows.iter().any(Allow::by_number));
            if !allowed {
                self.problem(Place::field("rules"), What::Missing { name, why });
            }
        }
    }
}
