//! A policy with the meaning of a seccomp profile: what an engine's profile allows, as rules that hold in every phase.
//!
//! Starts from what the filter *means* (`lazaret_filter::oci::meaning`), not from the profile's text, so that what runtimes
//! and libseccomp make of it is in it. What the language cannot say is an error; the result is proved before it is given out.
//! Nothing is guessed: phases, reasons and evidence are for people to add.

use super::{Policy, PolicyError, words};
use crate::ceiling;
use crate::digest::Digest;
use crate::format::policy::{
    API_VERSION, CallV1, CeilingV1, ConditionV1, EndV1, EnvironmentV1, ImageV1, KIND, MetadataV1,
    ModeV1, OtherwiseV1, PhasesV1, PolicyV1, RangeV1, RuleV1, ValueV1,
};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use core::fmt;
use lazaret_filter::abi::Abi;
use lazaret_filter::prove::{Difference, ProveError, Space};
use lazaret_filter::rule::{Branch, Condition, Entry, Numbers, RuleTable, Values, Verdict};
use lazaret_filter::{constants, table};

/// Values of one range that are written one by one; a longer range is written as one.
const SINGLES: u64 = 4;

/// What a profile does not say and a policy must.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The policy's name.
    pub name: String,
    /// The image's name, for people.
    pub image: String,
    /// The image's digests.
    pub digests: Vec<Digest>,
    /// Whether containers run with `no_new_privs`.
    pub no_new_privileges: bool,
    /// Where the rules come from, for their reasons.
    pub source: String,
}

/// A profile as a policy.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The policy.
    pub policy: Policy,
    /// What a reader should know of it.
    pub notes: Vec<Note>,
}

/// What the policy says in another way than the profile.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// The profile serves a convention that a policy closes.
    Closed {
        /// The convention.
        abi: Abi,
    },
    /// The profile allows a call of the ceiling `default`; the policy's ceiling is without it.
    LeftOut {
        /// The call.
        call: &'static str,
        /// Why it is in `default`.
        why: &'static str,
    },
    /// The profile compares all 64 bits, the kernel and the policy only the argument's own.
    Width {
        /// The call.
        call: String,
        /// The argument.
        arg: &'static str,
        /// Its width in bits.
        bits: u32,
    },
    /// Refused by both, with another errno.
    Errno(Difference),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Closed { abi } => write!(
                f,
                "the profile serves {abi} calls too; a policy closes every convention but its own"
            ),
            Note::LeftOut { call, why } => write!(
                f,
                "the profile allows `{call}`, which is in the ceiling `default` ({why}); the policy's ceiling is without it"
            ),
            Note::Width { call, arg, bits } => write!(
                f,
                "the profile compares 64 bits of argument `{arg}` of `{call}`; the kernel uses {bits} of them, and so does the policy"
            ),
            Note::Errno(difference) => {
                let abi = difference.abi.unwrap_or(Abi::X86_64);
                let names = words::numbers(abi, &difference.numbers).join(" ");
                write!(
                    f,
                    "{} fails with {} under the profile and with {} under the policy",
                    names,
                    words::verdict(difference.expected),
                    words::verdict(difference.found)
                )
            }
        }
    }
}

/// One thing that the language has no words for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unsayable {
    /// Policies are allow-lists.
    #[error("calls without a rule get {}, a policy refuses them with EPERM, EACCES or ENOSYS", words::verdict(*found))]
    Default {
        /// The default.
        found: Verdict,
    },
    /// A verdict that no rule has.
    #[error("`{call}` gets {}, a policy only allows, asks or refuses", words::verdict(*found))]
    Verdict {
        /// The call.
        call: String,
        /// Its verdict.
        found: Verdict,
    },
    /// Conditions name arguments.
    #[error("`{call}` is compared in argument {arg}, for which the tables have no name")]
    NoArgument {
        /// The call.
        call: String,
        /// The argument, from 0.
        arg: u8,
    },
    /// A rule has one condition for each argument.
    #[error("`{call}` is compared twice in argument `{arg}`, under different masks")]
    TwoMasks {
        /// The call.
        call: String,
        /// The argument.
        arg: &'static str,
    },
}

/// Why a profile has no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The profile says nothing of the convention.
    #[error("the profile does not serve {0}")]
    NotServed(Abi),
    /// What the language cannot say, all of it.
    #[error("{}", list(.0))]
    Unsayable(Vec<Unsayable>),
    /// The result is no policy: most often, the profile does not allow what every policy has to.
    #[error("the profile makes no policy")]
    Policy(#[from] PolicyError),
    /// The result cannot be compared with the profile.
    #[error("cannot prove that the policy means the same")]
    Prove(#[from] ProveError),
    /// The result would mean something else.
    #[error("the policy would not mean the same: {} would get {} instead of {}", words::call(&.0.call), words::verdict(.0.found), words::verdict(.0.expected))]
    Differs(Box<Difference>),
}

fn list(problems: &[Unsayable]) -> String {
    let each: Vec<String> = problems.iter().map(ToString::to_string).collect();
    each.join("; ")
}

/// The policy for `abi` with the meaning of `profile`.
///
/// # Flow
/// Rules from the table's entries, the ceiling from what they leave of `default`, the checks of the language, then a proof.
///
/// # Guarantees
/// [`Policy::static_table`] gives each call of the convention the profile's verdict, but for what [`Imported::notes`] lists: an
/// errno, or the upper half of an argument that the kernel does not look at.
///
/// # Errors
/// What the language cannot say, or a result that is no policy.
pub fn import(profile: &RuleTable, abi: Abi, subject: Subject) -> Result<Imported, ImportError> {
    let numbers = profile.abis.get(&abi).ok_or(ImportError::NotServed(abi))?;
    let default = |found| ImportError::Unsayable(vec![Unsayable::Default { found }]);
    let (otherwise, errno) = usual(numbers, abi).ok_or_else(|| default(numbers.otherwise))?;
    let mut import = Import::new(abi, otherwise);
    let named = table::calls(abi).map(|(nr, _)| nr);
    let all: BTreeSet<u32> = named.chain(numbers.entries.keys().copied()).collect();
    for nr in all {
        let entry = numbers.entries.get(&nr).cloned();
        import.entry(nr, &entry.unwrap_or(Entry::always(numbers.otherwise)));
    }
    if !import.problems.is_empty() {
        return Err(ImportError::Unsayable(import.problems));
    }
    let mut notes: Vec<Note> = profile
        .abis
        .iter()
        // a convention can be there only for the number −1, which is no call
        .filter(|(other, numbers)| **other != abi && numbers.otherwise != profile.foreign)
        .map(|(other, _)| Note::Closed { abi: *other })
        .collect();
    let ceiling = left_of_ceiling(numbers, abi, &mut notes);
    notes.append(&mut import.notes);
    let policy = Policy::try_from(import.wire(errno, ceiling, &subject))?;
    let expected = RuleTable::single(
        abi,
        Numbers {
            entries: import.narrowed,
            otherwise: numbers.otherwise,
        },
        policy.static_table().foreign,
    );
    let mut space = Space::new();
    let expected = space.of_table(&expected)?;
    let found = space.of_table(&policy.static_table())?;
    let comparison = space.compare(&expected, &found)?;
    let differs = comparison
        .looser
        .into_iter()
        .chain(comparison.stricter)
        .next();
    if let Some(difference) = differs {
        return Err(ImportError::Differs(Box::new(difference)));
    }
    notes.extend(comparison.other.into_iter().map(Note::Errno));
    Ok(Imported { policy, notes })
}

/// The errno as a policy writes it.
fn errno_name(verdict: Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Errno(1) => Some("EPERM"),
        Verdict::Errno(13) => Some("EACCES"),
        Verdict::Errno(38) => Some("ENOSYS"),
        _ => None,
    }
}

/// The errno with which most of the calls that have a name are refused, if a policy can say it. The default of a filter can be
/// another one: runc answers numbers that are newer than its libseccomp with ENOSYS.
fn usual(numbers: &Numbers, abi: Abi) -> Option<(Verdict, &'static str)> {
    let Verdict::Errno(_) = numbers.otherwise else {
        return None;
    };
    let mut counts: BTreeMap<Verdict, usize> = BTreeMap::new();
    for (nr, _) in table::calls(abi) {
        let entry = numbers.entries.get(&nr);
        let verdict = entry.map_or(numbers.otherwise, |entry| entry.otherwise);
        if errno_name(verdict).is_some() {
            *counts.entry(verdict).or_default() += 1;
        }
    }
    let (verdict, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    Some((verdict, errno_name(verdict)?))
}

/// The calls of `default` of which the profile allows nothing.
fn left_of_ceiling(numbers: &Numbers, abi: Abi, notes: &mut Vec<Note>) -> Vec<CallV1> {
    let mut ceiling = Vec::new();
    for forbidden in ceiling::DEFAULT {
        let Some(nr) = table::nr_of(abi, forbidden.call) else {
            continue;
        };
        if matches!(numbers.widest(nr), Verdict::Errno(_)) {
            ceiling.push(CallV1::from(forbidden.call));
        } else if forbidden.reach == ceiling::Reach::Always {
            notes.push(Note::LeftOut {
                call: forbidden.call,
                why: forbidden.why,
            });
        }
    }
    ceiling
}

/// The rules, as they are collected.
struct Import {
    abi: Abi,
    otherwise: Verdict,
    /// Calls by the conditions that allow them; none for the unconditional ones.
    allow: BTreeMap<Vec<ConditionV1>, BTreeSet<CallV1>>,
    /// Calls by the errno with which they are refused.
    deny: BTreeMap<&'static str, BTreeSet<CallV1>>,
    /// The profile's entries with conditions as wide as the arguments are.
    narrowed: BTreeMap<u32, Entry>,
    notes: Vec<Note>,
    problems: Vec<Unsayable>,
}

impl Import {
    fn new(abi: Abi, otherwise: Verdict) -> Import {
        Import {
            abi,
            otherwise,
            allow: BTreeMap::new(),
            deny: BTreeMap::new(),
            narrowed: BTreeMap::new(),
            notes: Vec::new(),
            problems: Vec::new(),
        }
    }

    fn entry(&mut self, nr: u32, entry: &Entry) {
        let call = table::name_of(self.abi, nr).map_or(CallV1::Number(nr), CallV1::from);
        let mut branches = Vec::new();
        for branch in &entry.branches {
            let Some((all, wire)) = self.conditions(nr, &branch.all) else {
                // it can never hold, or it is a problem by now
                continue;
            };
            match branch.verdict {
                Verdict::Allow => {
                    self.allow.entry(wire).or_default().insert(call.clone());
                }
                // whatever is not allowed is refused; the proof says where that would be another errno
                Verdict::Errno(_) => {}
                found => self.unsayable(nr, found),
            }
            branches.push(Branch {
                all,
                verdict: branch.verdict,
            });
        }
        match entry.otherwise {
            Verdict::Allow => {
                self.allow.entry(Vec::new()).or_default().insert(call);
            }
            // the ceiling would answer clone3 with ENOSYS
            Verdict::Errno(_)
                if entry.otherwise == self.otherwise
                    && table::nr_of(self.abi, "clone3") != Some(nr) => {}
            Verdict::Errno(_) => {
                if let (Some(errno), true) = (errno_name(entry.otherwise), branches.is_empty()) {
                    self.deny.entry(errno).or_default().insert(call);
                }
            }
            found => self.unsayable(nr, found),
        }
        self.narrowed.insert(
            nr,
            Entry {
                // a branch that always holds ends the list
                otherwise: branches
                    .iter()
                    .position(|branch| branch.all.is_empty())
                    .map_or(entry.otherwise, |at| {
                        let verdict = branches[at].verdict; // `position` found it
                        branches.truncate(at);
                        verdict
                    }),
                branches,
            },
        );
    }

    fn unsayable(&mut self, nr: u32, found: Verdict) {
        let call = table::display(self.abi, nr).to_string();
        self.problems.push(Unsayable::Verdict { call, found });
    }

    /// A branch's conditions as wide as the arguments are, for the proof and as text.
    fn conditions(
        &mut self,
        nr: u32,
        all: &[Condition],
    ) -> Option<(Vec<Condition>, Vec<ConditionV1>)> {
        let name = table::name_of(self.abi, nr);
        let call = table::display(self.abi, nr).to_string();
        let args = name.and_then(table::args_of).unwrap_or(&[]);
        let mut narrowed: Vec<Condition> = Vec::new();
        for condition in all {
            let arg = condition.arg;
            let Some(definition) = args.get(usize::from(arg)) else {
                self.problems.push(Unsayable::NoArgument { call, arg });
                return None;
            };
            let width = definition.width.mask();
            if condition.mask & !width != 0 {
                self.width(&call, definition.name, width.count_ones());
            }
            // the condition on the argument as the kernel reads it: with nothing above its width
            let mask = condition.mask & width;
            let below = Values::of([0..=mask]);
            let values = intersection(&condition.values, &below);
            if values.is_empty() {
                return None;
            }
            if mask == 0 {
                continue;
            }
            match narrowed.iter_mut().find(|other| other.arg == arg) {
                None => narrowed.push(Condition { arg, mask, values }),
                Some(other) if other.mask == mask => {
                    other.values = intersection(&other.values, &values);
                    if other.values.is_empty() {
                        return None;
                    }
                }
                Some(_) => {
                    let arg = definition.name;
                    self.problems.push(Unsayable::TwoMasks { call, arg });
                    return None;
                }
            }
        }
        narrowed.sort();
        let wire = narrowed.iter().filter_map(|condition| {
            // every argument was found above
            let definition = args.get(usize::from(condition.arg))?;
            let mask = (condition.mask != definition.width.mask()).then_some(condition.mask);
            Some(ConditionV1 {
                arg: definition.name.to_string(),
                values: values(&call, definition.name, condition),
                mask,
            })
        });
        let wire = wire.collect();
        Some((narrowed, wire))
    }

    fn width(&mut self, call: &str, arg: &'static str, bits: u32) {
        let call = call.to_string();
        let note = Note::Width { call, arg, bits };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn wire(&self, errno: &str, ceiling: Vec<CallV1>, subject: &Subject) -> PolicyV1 {
        let mut rules: Vec<RuleV1> = Vec::new();
        for (when, calls) in &self.allow {
            rules.push(RuleV1 {
                allow: Some(calls.iter().cloned().collect()),
                when: when.clone(),
                why: format!("allowed by {}", subject.source),
                ..RuleV1::default()
            });
        }
        for (errno, calls) in &self.deny {
            rules.push(RuleV1 {
                deny: Some(calls.iter().cloned().collect()),
                errno: Some((*errno).to_string()),
                why: format!("refused with {errno} by {}", subject.source),
                ..RuleV1::default()
            });
        }
        PolicyV1 {
            api_version: API_VERSION.to_string(),
            ceiling: CeilingV1::Calls(ceiling),
            environment: EnvironmentV1 {
                arch: self.abi.name().to_string(),
                kernel: ">=5.11".to_string(),
                libc: vec![],
                no_new_privileges: subject.no_new_privileges,
                runtimes: vec![],
            },
            evidence: None,
            image: ImageV1 {
                digests: subject.digests.clone(),
                name: subject.image.clone(),
            },
            kind: KIND.to_string(),
            metadata: MetadataV1 {
                name: subject.name.clone(),
                revision: 1,
            },
            mode: ModeV1::Enforce,
            otherwise: OtherwiseV1 {
                action: "errno".to_string(),
                errno: errno.to_string(),
            },
            phases: PhasesV1::default(),
            rules,
        }
    }
}

/// The values of a condition as people write them: constants by name, long ranges as ranges.
fn values(call: &str, arg: &str, condition: &Condition) -> Vec<ValueV1> {
    let mut values = Vec::new();
    for range in condition.values.ranges() {
        let (first, last) = range.into_inner();
        if last - first < SINGLES {
            values.extend((first..=last).map(|value| {
                constants::name(call, arg, value).map_or(ValueV1::Number(value), |name| {
                    ValueV1::Name(name.to_string())
                })
            }));
            continue;
        }
        values.push(ValueV1::Range(RangeV1 {
            from: (first != 0).then_some(EndV1::Number(first)),
            to: (last != condition.mask).then_some(EndV1::Number(last)),
        }));
    }
    values
}

fn intersection(a: &Values, b: &Values) -> Values {
    Values::of(a.ranges().flat_map(|x| {
        b.ranges()
            .map(move |y| *x.start().max(y.start())..=*x.end().min(y.end()))
    }))
}
