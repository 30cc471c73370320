//! The rules: names of calls, scopes, conditions, contradictions.

use super::super::problem::{Place, What};
use super::super::{Allow, CallRules, Scope};
use super::{MAX_RULES, Reader};
use crate::ceiling::Reach;
use crate::format::policy::{ConditionV1, RuleV1, ValueV1};
use crate::phase::Phase;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use lazaret_filter::abi::Abi;
use lazaret_filter::constants;
use lazaret_filter::rule::Condition;
use lazaret_filter::table::{self, ArgDef};

/// Calls without which a process cannot even be interrupted or end (KERNEL-FACTS, "restart_syscall, rt_sigreturn …"),
/// and `write`, which runc refuses to have asked (`libcontainer/seccomp/seccomp_linux.go`).
const REQUIRED: [(&str, &str); 5] = [
    ("exit", "threads end through it"),
    ("exit_group", "processes end through it"),
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

impl Reader {
    /// Resolves names; unknown ones are problems, or (where they can only allow) noted. (place, name, number)
    pub(super) fn names<'n>(
        &mut self,
        place: &Place,
        names: &'n [String],
        abi: Abi,
        allows: bool,
    ) -> Vec<(Place, &'n str, u32)> {
        self.bounded(place, names.len(), 1024);
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let at = place.index(index);
            if !seen.insert(name) {
                self.problem(at, What::Twice { name: name.clone() });
                continue;
            }
            match table::nr_of(abi, name) {
                Some(nr) => found.push((at, name.as_str(), nr)),
                // a name of another architecture allows nothing here; one that nobody knows is a slip of the pen
                None if allows
                    && Abi::ALL
                        .iter()
                        .any(|other| table::nr_of(*other, name).is_some()) =>
                {
                    self.unresolved.insert(name.clone());
                }
                None => {
                    let name = name.chars().take(80).collect();
                    self.problem(
                        at,
                        What::UnknownCall {
                            name,
                            arch: abi.name(),
                        },
                    );
                }
            }
        }
        found
    }

    pub(super) fn rules(
        &mut self,
        rules: &[RuleV1],
        abi: Abi,
        ceiling: &BTreeMap<u32, Reach>,
    ) -> BTreeMap<u32, CallRules> {
        let place = Place::field("rules");
        self.bounded(&place, rules.len(), MAX_RULES);
        let mut calls: BTreeMap<u32, CallRules> = BTreeMap::new();
        // denials first: then a contradiction is told at the allow, wherever it stands
        for (index, rule) in rules.iter().enumerate() {
            if let (None, Some(names)) = (&rule.allow, &rule.deny) {
                self.deny(&place.index(index), index, rule, names, abi, &mut calls);
            }
        }
        for (index, rule) in rules.iter().enumerate() {
            let at = place.index(index);
            self.text(at.at("why"), &rule.why);
            match (&rule.allow, &rule.deny) {
                (Some(names), None) => {
                    self.allow(&at, index, rule, names, abi, ceiling, &mut calls)
                }
                (None, Some(_)) => {}
                _ => self.problem(at, What::AllowOrDeny),
            }
        }
        calls
    }

    fn deny(
        &mut self,
        at: &Place,
        index: usize,
        rule: &RuleV1,
        names: &[String],
        abi: Abi,
        calls: &mut BTreeMap<u32, CallRules>,
    ) {
        for (field, present) in [
            ("when", !rule.when.is_empty()),
            ("until", rule.until.is_some()),
            ("during", rule.during.is_some()),
        ] {
            if present {
                self.problem(
                    at.at(field),
                    What::NotWith {
                        field,
                        action: "deny",
                    },
                );
            }
        }
        let errno = rule
            .errno
            .as_ref()
            .map_or(1, |name| self.errno(at.at("errno"), name));
        let list = at.at("deny");
        if names.is_empty() {
            self.problem(list.clone(), What::Empty);
        }
        for (place, name, nr) in self.names(&list, names, abi, false) {
            let entry = calls.entry(nr).or_default();
            match entry.deny {
                Some((other, _)) => self.problem(
                    place,
                    What::DeniedTwice {
                        name: name.to_string(),
                        other,
                    },
                ),
                None => entry.deny = Some((index, errno)),
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one rule with all it is checked against, called in one place"
    )]
    fn allow(
        &mut self,
        at: &Place,
        index: usize,
        rule: &RuleV1,
        names: &[String],
        abi: Abi,
        ceiling: &BTreeMap<u32, Reach>,
        calls: &mut BTreeMap<u32, CallRules>,
    ) {
        if rule.errno.is_some() {
            self.problem(
                at.at("errno"),
                What::NotWith {
                    field: "errno",
                    action: "allow",
                },
            );
        }
        let scope = self.scope(at, rule);
        let list = at.at("allow");
        if names.is_empty() {
            self.problem(list.clone(), What::Empty);
        }
        for (place, name, nr) in self.names(&list, names, abi, true) {
            if ceiling.get(&nr) == Some(&Reach::Always) {
                self.problem(
                    place.clone(),
                    What::UnderCeiling {
                        name: name.to_string(),
                    },
                );
            }
            let conditions = self.conditions(at, name, &rule.when);
            let entry = calls.entry(nr).or_default();
            if let Some((other, _)) = entry.deny {
                self.problem(
                    place,
                    What::Contradiction {
                        name: name.to_string(),
                        other,
                    },
                );
            }
            entry.allows.push(Allow {
                rule: index,
                scope,
                conditions,
            });
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

    fn conditions(&mut self, at: &Place, call: &str, wire: &[ConditionV1]) -> Vec<Condition> {
        let mut found: Vec<Condition> = Vec::new();
        let arguments = table::args_of(call).unwrap_or(&[]);
        for (index, condition) in wire.iter().enumerate() {
            let place = at.at("when").index(index);
            let Some((arg, definition)) = table::arg(call, &condition.arg) else {
                self.unknown_arg(&place, call, condition, arguments);
                continue;
            };
            if found.iter().any(|other| other.arg == arg) {
                let arg = condition.arg.clone();
                self.problem(place.at("arg"), What::ArgTwice { arg });
                continue;
            }
            if let Some(condition) = self.condition(&place, call, arg, definition, condition) {
                found.push(condition);
            }
        }
        found.sort();
        found
    }

    fn unknown_arg(
        &mut self,
        place: &Place,
        call: &str,
        condition: &ConditionV1,
        arguments: &[ArgDef],
    ) {
        let names: Vec<&str> = arguments.iter().map(|argument| argument.name).collect();
        let known = if names.is_empty() {
            ", its arguments are not in the table".to_string()
        } else {
            format!(", it has {}", names.join(", "))
        };
        let arg = condition.arg.chars().take(80).collect();
        self.problem(
            place.at("arg"),
            What::UnknownArg {
                call: call.to_string(),
                arg,
                known,
            },
        );
    }

    fn condition(
        &mut self,
        place: &Place,
        call: &str,
        arg: u8,
        definition: &ArgDef,
        wire: &ConditionV1,
    ) -> Option<Condition> {
        let full = definition.width.mask();
        let width = full.count_ones();
        let mask = wire.mask.unwrap_or(full);
        if mask == 0 || mask & !full != 0 {
            self.problem(place.at("mask"), What::Mask { mask, width });
            return None;
        }
        if wire.values.is_empty() {
            self.problem(place.at("in"), What::Empty);
            return None;
        }
        self.bounded(&place.at("in"), wire.values.len(), 256);
        let mut values = BTreeSet::new();
        for (index, value) in wire.values.iter().enumerate() {
            let at = place.at("in").index(index);
            let number = match value {
                ValueV1::Number(number) => *number,
                ValueV1::Name(name) => match constants::value(call, definition.name, name) {
                    Some(number) => number,
                    None => {
                        let name = name.chars().take(80).collect();
                        let what = What::UnknownConstant {
                            name,
                            arg: wire.arg.clone(),
                            call: call.to_string(),
                        };
                        self.problem(at, what);
                        continue;
                    }
                },
            };
            if number & !mask != 0 {
                self.problem(
                    at,
                    What::OutsideMask {
                        value: number,
                        mask,
                    },
                );
            } else if !values.insert(number) {
                self.problem(
                    at,
                    What::Twice {
                        name: format!("{number:#x}"),
                    },
                );
            }
        }
        Some(Condition {
            arg,
            mask,
            values: values.into_iter().collect(),
        })
    }

    pub(super) fn required(&mut self, calls: &BTreeMap<u32, CallRules>, abi: Abi) {
        for (name, why) in REQUIRED {
            let allowed = table::nr_of(abi, name)
                .and_then(|nr| calls.get(&nr))
                .is_some_and(|rules| {
                    rules
                        .allows
                        .iter()
                        .any(|allow| allow.scope == Scope::ALWAYS && allow.conditions.is_empty())
                });
            if !allowed {
                self.problem(Place::field("rules"), What::Missing { name, why });
            }
        }
    }
}
