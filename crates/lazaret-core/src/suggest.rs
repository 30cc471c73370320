//! From drift (calls that a policy denied, or would have) to rules that would allow it, for review.
//!
//! Pure. Nothing is widened here: the outcome is a text that a person reads, changes, signs. What no rule can allow, or
//! what an author closed on purpose, is named with its reason and never proposed.

mod conditions;

use crate::format::policy::{CallV1, PolicyV1, RuleV1};
use crate::phase::Phase;
use crate::policy::Policy;
use crate::policy::explain::Cause;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use conditions::Shape;
use core::fmt;
use lazaret_filter::rule::{Call, Verdict};
use lazaret_filter::table;

/// The most characters of a reason; the language allows 512.
const MAX_WHY: usize = 480;

/// The most processes that a reason names.
const MAX_PROCESSES: usize = 4;

/// Calls of one kind that were denied, or would have been: what events of type `denied` say, added up as the caller likes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// The phase.
    pub phase: Phase,
    /// Name, or number where there is no name.
    pub call: CallV1,
    /// The process's name.
    pub process: String,
    /// The register arguments of some of the calls; as many as are known.
    pub args: Vec<[u64; 6]>,
    /// How many calls there were, at least as many as `args` has.
    pub times: u64,
    /// The day of the first one, as `2026-11-22`; stands in the reason. Empty when nobody knows it.
    pub since: String,
}

impl Drift {
    /// A call as events name it: by its name, or its number as text.
    #[must_use]
    pub fn call_of(event: &str) -> CallV1 {
        event
            .parse()
            .map_or_else(|_| CallV1::from(event), CallV1::Number)
    }
}

/// Drift that gets no rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The call.
    pub call: CallV1,
    /// The phase.
    pub phase: Phase,
    /// How many calls.
    pub times: u64,
    /// Why.
    pub why: Why,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Left {
            call,
            phase,
            times,
            why,
        } = self;
        write!(f, "`{call}`, {times} times in {phase}: {why}")
    }
}

/// Why drift gets no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// No rule can allow it.
    #[error("it is under the ceiling, no rule can allow it")]
    UnderCeiling,
    /// The author closed it.
    #[error("the policy denies it: \"{why}\"")]
    Denied {
        /// The reason that the rule gives.
        why: String,
    },
    /// This policy allows it: the drift was seen under another one, or in other words.
    #[error("this policy allows it")]
    Allowed,
    /// The runtime's own calls are not a policy's.
    #[error("no rule speaks of the prelude")]
    Prelude,
    /// By this call the restart of a server is told.
    #[error(
        "`phases.startup.restarts` tells a restart of the server by it: allowed while serving, there would be none"
    )]
    Restart,
    /// Not in the tables of the policy's architecture.
    #[error("it is no call of the policy's architecture")]
    Unknown,
    /// The policy allows it under conditions, and nobody kept the arguments.
    #[error("the policy allows it under conditions, and no arguments were kept to widen them")]
    NoArguments,
    /// Too many different arguments for a list.
    #[error(
        "the policy allows it under conditions, and it was made with {found} different arguments, more than {limit}: decide by hand what they have in common"
    )]
    TooManyValues {
        /// How many there were.
        found: usize,
        /// How many are proposed at most.
        limit: usize,
    },
}

/// Rules that would allow drift.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suggestion {
    /// To be added; in the order of the calls' numbers.
    pub rules: Vec<RuleV1>,
    /// What gets none, in the same order.
    pub left: Vec<Left>,
}

impl Suggestion {
    /// The policy text with the rules at its end and the next revision; the same text where there are none.
    ///
    /// # Errors
    /// [`LastRevision`].
    pub fn apply(&self, text: &PolicyV1) -> Result<PolicyV1, LastRevision> {
        let mut text = text.clone();
        if self.rules.is_empty() {
            return Ok(text);
        }
        let revision = &mut text.metadata.revision;
        *revision = revision.checked_add(1).ok_or(LastRevision)?;
        text.rules.extend(self.rules.iter().cloned());
        Ok(text)
    }
}

/// There is no higher revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {} is the last one there is", u64::MAX)]
pub struct LastRevision;

/// All drift of one call in one phase.
#[derive(Debug, Default)]
struct Seen {
    times: u64,
    processes: BTreeSet<String>,
    args: BTreeSet<[u64; 6]>,
    since: Option<String>,
}

impl Seen {
    fn add(&mut self, drift: &Drift) {
        self.times = self.times.saturating_add(drift.times);
        self.processes.insert(printable(&drift.process));
        self.args.extend(drift.args.iter().copied());
        let since = printable(&drift.since);
        self.since = Some(match self.since.take() {
            Some(before) if before <= since => before,
            _ => since,
        });
    }
}

/// What would have to be added to `policy` so that it allows `drift`.
///
/// # Guarantees
/// The policy with [`Suggestion::apply`] passes every check of the language (unless it has too many rules, or its trigger is
/// `quiet` and no start-up-only call is left), allows every call of the drift that got a rule, in the phase in which it was seen, and otherwise allows what it
/// allowed. Where it allows a call under conditions, no more than the arguments that were seen are added. The same drift
/// gives the same rules, in whatever order it comes.
///
/// # Caveats
/// A call without conditions in the policy gets a rule without conditions: whoever reviews it may want to write some.
#[must_use]
pub fn suggest(policy: &Policy, drift: &[Drift]) -> Suggestion {
    let mut suggestion = Suggestion::default();
    let mut calls: BTreeMap<u32, BTreeMap<Phase, Seen>> = BTreeMap::new();
    for one in drift {
        let nr = match &one.call {
            CallV1::Name(name) => table::nr_of(policy.abi(), name),
            CallV1::Number(nr) => Some(*nr),
        };
        let phases = match nr {
            Some(nr) if one.phase != Phase::Prelude => calls.entry(nr).or_default(),
            _ => {
                let why = if nr.is_none() {
                    Why::Unknown
                } else {
                    Why::Prelude
                };
                suggestion.left.push(Left {
                    call: one.call.clone(),
                    phase: one.phase,
                    times: one.times,
                    why,
                });
                continue;
            }
        };
        phases.entry(one.phase).or_default().add(one);
    }
    suggestion
        .left
        .sort_by(|a, b| (&a.call, a.phase, a.times).cmp(&(&b.call, b.phase, b.times)));
    for (nr, phases) in calls {
        one_call(policy, nr, phases, &mut suggestion);
    }
    suggestion
}

fn one_call(policy: &Policy, nr: u32, phases: BTreeMap<Phase, Seen>, into: &mut Suggestion) {
    let call = table::name_of(policy.abi(), nr).map_or(CallV1::Number(nr), CallV1::from);
    let shape = Shape::of(policy, nr);
    // rules that say the same in several phases are one
    let mut open: BTreeMap<Vec<conditions::Tuple>, BTreeMap<Phase, Seen>> = BTreeMap::new();
    for (phase, mut seen) in phases {
        let outcome = keep_denied(policy, nr, phase, &mut seen).and_then(|()| match &shape {
            None => Ok(Vec::new()),
            Some(shape) => shape.tuples(&seen.args),
        });
        match outcome {
            Ok(tuples) => {
                open.entry(tuples).or_default().insert(phase, seen);
            }
            Err(why) => into.left.push(Left {
                call: call.clone(),
                phase,
                times: seen.times,
                why,
            }),
        }
    }
    for (tuples, phases) in open {
        let rule = rule(policy, nr, &call, &phases);
        match &shape {
            None => into.rules.push(rule),
            Some(shape) => into
                .rules
                .extend(shape.conditions(&tuples).into_iter().map(|when| RuleV1 {
                    when,
                    ..rule.clone()
                })),
        }
    }
}

/// Leaves in `seen` the arguments that the policy denies and that a rule can allow.
fn keep_denied(policy: &Policy, nr: u32, phase: Phase, seen: &mut Seen) -> Result<(), Why> {
    let starts = ["execve", "execveat"].map(|name| table::nr_of(policy.abi(), name));
    if policy.restarts() > 0 && phase == Phase::Serving && starts.contains(&Some(nr)) {
        return Err(Why::Restart);
    }
    let cases = policy.cases(phase, nr);
    // cases end with one that has no conditions
    let last = cases.last().map(|case| case.cause);
    match last {
        Some(Cause::Denied(rule)) => {
            let rule = policy.wire().rules.get(rule);
            let why = rule.map_or_else(String::new, |rule| rule.why.clone());
            return Err(Why::Denied { why });
        }
        Some(Cause::Ceiling) => return Err(Why::UnderCeiling),
        _ => {}
    }
    if seen.args.is_empty() {
        return match last {
            Some(Cause::Allowed(_)) => Err(Why::Allowed),
            _ => Ok(()),
        };
    }
    let mut ceiling = false;
    seen.args.retain(|args| {
        let mut call = Call::new(policy.abi(), nr);
        call.args = *args;
        let case = cases.iter().find(|case| {
            let mut conditions = case.when.iter();
            conditions.all(|condition| condition.holds(&call.args))
        });
        ceiling |= case.is_some_and(|case| case.cause == Cause::Ceiling);
        case.is_some_and(|case| case.verdict != Verdict::Allow && case.cause == Cause::Otherwise)
    });
    match (seen.args.is_empty(), ceiling) {
        (false, _) => Ok(()),
        (true, true) => Err(Why::UnderCeiling),
        (true, false) => Err(Why::Allowed),
    }
}

/// A rule for some phases of a call, without conditions.
fn rule(policy: &Policy, nr: u32, call: &CallV1, phases: &BTreeMap<Phase, Seen>) -> RuleV1 {
    let calls = Some(Vec::from([call.clone()]));
    let mut rule = RuleV1 {
        why: reason(phases),
        ..RuleV1::default()
    };
    // the band that its author chose for it
    if policy.asks(nr) {
        rule.ask = calls;
    } else {
        rule.allow = calls;
    }
    let names: Vec<&str> = phases.keys().map(|phase| phase.name()).collect();
    match names.as_slice() {
        ["startup"] => rule.until = Some("serving".to_string()),
        ["startup", "serving"] => rule.until = Some("stopping".to_string()),
        ["startup", "serving", "stopping", "exec"] => {}
        names => rule.during = Some(names.iter().map(ToString::to_string).collect()),
    }
    rule
}

/// `drift: 12 times in serving by java, 3 times in exec by sh since 2026-11-22`.
fn reason(phases: &BTreeMap<Phase, Seen>) -> String {
    let each: Vec<String> = phases
        .iter()
        .map(|(phase, seen)| {
            let names: Vec<&str> = seen
                .processes
                .iter()
                .take(MAX_PROCESSES)
                .map(String::as_str)
                .collect();
            let more = if seen.processes.len() > MAX_PROCESSES {
                " and others"
            } else {
                ""
            };
            format!(
                "seen {} times in {phase} by {}{more}",
                seen.times,
                names.join(", ")
            )
        })
        .collect();
    let since = phases.values().filter_map(|seen| seen.since.as_ref());
    let since = since.filter(|since| !since.is_empty()).min();
    let since = since.map_or_else(String::new, |since| format!(" since {since}"));
    let text = format!("drift: {}{since}", each.join(", "));
    text.chars().take(MAX_WHY).collect()
}

/// A name that a process gave itself, without what a text may not hold.
fn printable(text: &str) -> String {
    let printed = |c: char| if c.is_control() { '?' } else { c };
    text.chars().take(32).map(printed).collect()
}
