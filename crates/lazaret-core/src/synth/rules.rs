//! From what was seen to rules: which calls, in which phases, under which conditions, and why.

use super::{Stability, Warning};
use crate::ceiling::{self, NAMESPACE_FLAGS, Reach};
use crate::format::policy::{CallV1, ConditionV1, RuleV1, ValueV1};
use crate::phase::Phase;
use crate::profile::Seen;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use lazaret_filter::abi::Abi;
use lazaret_filter::{constants, table};

/// What the kernel restarts and returns through; they cannot be missing (KERNEL-FACTS, traps of injection).
const RETURNS: [&str; 4] = ["exit", "exit_group", "restart_syscall", "rt_sigreturn"];
/// What the vDSO answers without a system call, until the clock source changes (vdso(7)).
const VDSO: [&str; 5] = [
    "clock_getres",
    "clock_gettime",
    "getcpu",
    "gettimeofday",
    "time",
];
/// What runc's two processes talk with while one hands the listener over. It refuses a `write` that is asked
/// (`libcontainer/seccomp/seccomp_linux.go`); a `read` that is asked, with no gate at the socket, waits for ever, since the
/// waiting process holds the listener itself, and its parent waits for it (runc 1.1.5, measured).
const HANDOVER: [&str; 2] = ["read", "write"];

/// Calls that do the same for different C libraries and versions; glibc 2.26 to 2.41, musl 1.2.
const EQUIVALENT: [&[&str]; 16] = [
    &["access", "faccessat", "faccessat2"],
    &["accept", "accept4"],
    &["chmod", "fchmodat", "fchmodat2"],
    &["dup2", "dup3"],
    &["epoll_create", "epoll_create1"],
    &["epoll_pwait", "epoll_pwait2", "epoll_wait"],
    &["eventfd", "eventfd2"],
    &["fstat", "lstat", "newfstatat", "stat", "statx"],
    &["getrlimit", "prlimit64"],
    &["mkdir", "mkdirat"],
    &["open", "openat"],
    &["pipe", "pipe2"],
    &["poll", "ppoll"],
    &["pselect6", "select"],
    &["readlink", "readlinkat"],
    &["rename", "renameat", "renameat2"],
];

/// Its flags are behind a pointer: it is answered ENOSYS, and libc falls back to `clone`.
const CLONE3: &str = "clone3";

/// Calls that give an intruder most while serving; not forbidden, said.
const DANGEROUS: [&str; 4] = ["execve", "execveat", "fork", "vfork"];

/// What was seen, by the name of the call.
pub(super) struct Calls {
    runs: usize,
    phases: BTreeMap<&'static str, BTreeMap<Phase, Seen>>,
    /// By number, those that the tables have no name for.
    numbers: BTreeMap<u32, BTreeMap<Phase, Seen>>,
    pub(super) prelude: BTreeSet<CallV1>,
    pub(super) warnings: Vec<Warning>,
}

/// In which phases a rule holds; the order is the order of the rules.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum When {
    Always,
    Until(&'static str),
    During(Vec<Phase>),
}

impl Calls {
    pub(super) fn new(runs: usize) -> Calls {
        Calls {
            runs,
            phases: BTreeMap::new(),
            numbers: BTreeMap::new(),
            prelude: BTreeSet::new(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, abi: Abi, nr: u32, phase: Phase, seen: &Seen) {
        let Some(name) = table::name_of(abi, nr) else {
            self.add_number(nr, phase, seen);
            return;
        };
        if phase == Phase::Prelude {
            self.prelude.insert(CallV1::from(name));
            return;
        }
        let forbidden = ceiling::DEFAULT
            .iter()
            .any(|other| other.call == name && other.reach == Reach::Always);
        if name == CLONE3 {
            // the fallback is what will be seen under the policy
            self.phases
                .entry("clone")
                .or_default()
                .entry(phase)
                .or_default();
        } else if forbidden {
            self.warnings.push(Warning::UnderCeiling {
                call: name.to_string(),
                phase,
                count: seen.count,
            });
        } else {
            self.phases
                .entry(name)
                .or_default()
                .insert(phase, seen.clone());
        }
        if phase == Phase::Serving && DANGEROUS.contains(&name) {
            self.warnings.push(Warning::OpenWhileServing {
                call: name.to_string(),
                count: seen.count,
            });
        }
    }

    /// A call without a name is allowed like any other: what it does, only its reviewer can find out.
    fn add_number(&mut self, nr: u32, phase: Phase, seen: &Seen) {
        self.warnings.push(Warning::Nameless {
            nr,
            phase,
            count: seen.count,
        });
        if phase == Phase::Prelude {
            self.prelude.insert(CallV1::Number(nr));
        } else {
            self.numbers
                .entry(nr)
                .or_default()
                .insert(phase, seen.clone());
        }
    }

    pub(super) fn rules(&self, abi: Abi, stability: Stability) -> Vec<RuleV1> {
        let known = |name: &&str| table::nr_of(abi, name).is_some();
        let mut plain: BTreeMap<When, BTreeMap<&'static str, u64>> = BTreeMap::new();
        let mut conditional: Vec<(When, &'static str, Vec<ConditionV1>, u64)> = Vec::new();
        for (name, phases) in &self.phases {
            if RETURNS.contains(name) || VDSO.contains(name) || HANDOVER.contains(name) {
                continue;
            }
            let count = total(phases);
            let conditions = conditions(name, phases);
            if conditions.is_empty() {
                plain.entry(when(phases)).or_default().insert(name, count);
            } else {
                conditional.push((when(phases), name, conditions, count));
            }
        }
        let mut rules = vec![
            allow(
                names(RETURNS.iter().filter(|name| known(name))),
                &When::Always,
                "the kernel restarts and returns through them",
            ),
            allow(
                names(VDSO.iter().filter(|name| known(name))),
                &When::Always,
                "answered by the vDSO until the clock source changes",
            ),
            allow(
                names(&HANDOVER),
                &When::Always,
                "the runtime hands the listener over with them",
            ),
        ];
        for (when, calls) in &plain {
            let count = calls.values().copied().fold(0, u64::saturating_add);
            rules.push(allow(names(calls.keys()), when, &self.reason(when, count)));
        }
        for (nr, phases) in &self.numbers {
            let count = total(phases);
            let when = when(phases);
            let why = format!("{}; no name in the tables", self.reason(&when, count));
            rules.push(allow([CallV1::Number(*nr)], &when, &why));
        }
        conditional.sort();
        for (when, name, conditions, count) in conditional {
            let mut why = self.reason(&when, count);
            if name == "clone" {
                why.push_str("; no CLONE_NEW* flag");
            }
            let mut rule = allow([CallV1::from(name)], &when, &why);
            rule.when = conditions;
            rules.push(rule);
        }
        if stability == Stability::Equivalent {
            rules.extend(self.equivalents(abi));
        }
        let why = "flags are behind a pointer; libc falls back to clone".to_string();
        let deny = Some(vec![CallV1::from(CLONE3)]);
        rules.push(RuleV1 {
            deny,
            errno: Some("ENOSYS".to_string()),
            why,
            ..RuleV1::default()
        });
        rules
    }

    fn reason(&self, when: &When, count: u64) -> String {
        let runs = if self.runs == 1 {
            "1 run".to_string()
        } else {
            format!("{} runs", self.runs)
        };
        let place = match when {
            When::Always => "seen while serving".to_string(),
            When::Until(_) => "start-up only".to_string(),
            When::During(phases) => {
                let names: Vec<&str> = phases.iter().map(|phase| phase.name()).collect();
                format!("seen during {} only", names.join(" and "))
            }
        };
        if count == 0 {
            format!("{place}, as clone3 in {runs}")
        } else {
            format!("{place}, {} calls in {runs}", spaced(count))
        }
    }

    /// Calls equivalent to one that is allowed without conditions, in the same phases.
    fn equivalents(&self, abi: Abi) -> Vec<RuleV1> {
        let mut rules = Vec::new();
        for class in EQUIVALENT {
            let phases: BTreeSet<Phase> = class
                .iter()
                .filter_map(|name| self.phases.get(name))
                .flat_map(BTreeMap::keys)
                .copied()
                .collect();
            let missing: Vec<&str> = class
                .iter()
                .copied()
                .filter(|name| table::nr_of(abi, name).is_some())
                .filter(|name| !self.phases.contains_key(name))
                .collect();
            let Some(like) = class.iter().find(|name| self.phases.contains_key(*name)) else {
                continue;
            };
            if missing.is_empty() || phases.is_empty() {
                continue;
            }
            let why = format!("not seen; another C library makes it where this one made `{like}`");
            rules.push(allow(names(&missing), &scope(&phases), &why));
        }
        rules
    }
}

/// How often over all phases.
fn total(phases: &BTreeMap<Phase, Seen>) -> u64 {
    let counts = phases.values().map(|seen| seen.count);
    counts.fold(0, u64::saturating_add)
}

/// `1204332` → `1 204 332`.
fn spaced(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

fn when(phases: &BTreeMap<Phase, Seen>) -> When {
    scope(&phases.keys().copied().collect())
}

fn scope(phases: &BTreeSet<Phase>) -> When {
    if phases.contains(&Phase::Serving) {
        return When::Always;
    }
    if phases.len() == 1 && phases.contains(&Phase::Startup) {
        return When::Until("serving");
    }
    When::During(phases.iter().copied().collect())
}

fn names<'n>(names: impl IntoIterator<Item = &'n &'static str>) -> impl Iterator<Item = CallV1> {
    names.into_iter().map(|name| CallV1::from(*name))
}

fn allow(calls: impl IntoIterator<Item = CallV1>, when: &When, why: &str) -> RuleV1 {
    let mut rule = RuleV1 {
        allow: Some(calls.into_iter().collect()),
        why: why.to_string(),
        ..RuleV1::default()
    };
    match when {
        When::Always => {}
        When::Until(phase) => rule.until = Some((*phase).to_string()),
        When::During(phases) => {
            rule.during = Some(
                phases
                    .iter()
                    .map(|phase| phase.name().to_string())
                    .collect(),
            )
        }
    }
    rule
}

/// Conditions on the calls where they are worth leaving the bitmap for: cold and dangerous.
fn conditions(name: &str, phases: &BTreeMap<Phase, Seen>) -> Vec<ConditionV1> {
    match name {
        "clone" => vec![ConditionV1 {
            arg: argument("clone", 0),
            values: vec![ValueV1::Number(0)],
            mask: Some(NAMESPACE_FLAGS),
        }],
        "socket" | "socketpair" => {
            let domain = condition(name, 0, None, phases);
            // the low bits are the type, the others SOCK_CLOEXEC and SOCK_NONBLOCK (include/linux/net.h, SOCK_TYPE_MASK)
            let kind = condition(name, 1, Some(0xf), phases);
            domain.into_iter().chain(kind).collect()
        }
        _ => Vec::new(),
    }
}

fn argument(call: &str, arg: u8) -> String {
    let known = table::args_of(call).and_then(|arguments| arguments.get(usize::from(arg)));
    known.map_or_else(String::new, |argument| argument.name.to_string())
}

/// The values seen, where every run kept all of them.
fn condition(
    call: &str,
    arg: u8,
    mask: Option<u64>,
    phases: &BTreeMap<Phase, Seen>,
) -> Option<ConditionV1> {
    let mut values = BTreeSet::new();
    for seen in phases.values() {
        let seen = seen.args.get(&arg).filter(|values| values.complete)?;
        values.extend(
            seen.values
                .iter()
                .map(|value| value & mask.unwrap_or(u64::MAX)),
        );
    }
    let name = argument(call, arg);
    let named = |value: &u64| {
        constants::name(call, &name, *value).map_or(ValueV1::Number(*value), |constant| {
            ValueV1::Name(constant.to_string())
        })
    };
    let values: Vec<ValueV1> = values.iter().map(named).collect();
    (!values.is_empty()).then_some(ConditionV1 {
        arg: name,
        values,
        mask,
    })
}
