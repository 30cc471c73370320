//! Rule tables as profiles.
//!
//! What libseccomp or runc would turn into something else than the table means is refused here.

use super::meaning::{Engine, meaning};
use super::read::OciReadError;
use super::{Action, Architecture, OciArg, OciSeccomp, OciSyscall, Operator};
use crate::abi::Abi;
use crate::compile::{CompileError, check_table};
use crate::rule::{Branch, Condition, Entry, Numbers, RuleTable, Verdict};
use crate::table;
use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// The most argument combinations of one call's conditions: each becomes a rule of its own.
pub const MAX_RULES_PER_CALL: usize = 256;

/// Up to so many values are named one by one, as people would.
const MAX_SINGLES: usize = 32;

/// Blocks that are looked at for one condition; most of a range can lie in gaps of its mask.
const MAX_STEPS: usize = 1 << 16;

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The Unix socket.
    pub path: String,
    /// Handed over with each listener; for Lazaret the policy's digest.
    pub metadata: String,
}

/// Why a table has no profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OciError {
    /// The table breaks its own documentation.
    #[error("rule table is malformed")]
    Table(#[from] CompileError),
    /// A profile has one set of rules for all its architectures.
    #[error("table serves {found} conventions, a profile is made for one")]
    OneAbi {
        /// Conventions of the table.
        found: usize,
    },
    /// Too many blocks to name them one by one.
    #[error(
        "call {call} compares argument {arg} with ranges that need more than {MAX_RULES_PER_CALL} masked comparisons"
    )]
    Range {
        /// Its name.
        call: &'static str,
        /// The argument.
        arg: u8,
    },
    /// libseccomp has x32 only beside x86-64.
    #[error("profile for {0} alone cannot be expressed")]
    Abi(Abi),
    /// libseccomp kills the thread for architectures it was not told of (`SCMP_FLTATR_ACT_BADARCH`), and a profile cannot
    /// change that.
    #[error("other architectures get {found:?}, a profile gives them only KillThread")]
    Foreign {
        /// The table's verdict.
        found: Verdict,
    },
    /// runc refuses it.
    #[error("unnamed calls cannot be asked, runc refuses SCMP_ACT_NOTIFY as the default")]
    DefaultAsk,
    /// runc refuses it: it writes to its own pipe after the filter is in force.
    #[error("call write cannot be asked, runc refuses SCMP_ACT_NOTIFY for it")]
    WriteAsk,
    /// The runtime would not start the container.
    #[error("calls are asked but no listener is named")]
    NoListener,
    /// The listener would never be made.
    #[error("listener is named but no call is asked")]
    NothingAsked,
    /// `SCMP_ACT_TRAP` has no datum.
    #[error("{call} traps with datum {datum}, a profile has only 0")]
    TrapDatum {
        /// Its name, or `unnamed calls`.
        call: String,
        /// The datum.
        datum: u16,
    },
    /// libseccomp refuses it (`sys_chk_seccomp_action`).
    #[error("{call} fails with errno 4095, libseccomp takes 4094 at most")]
    LargestErrno {
        /// Its name, or `unnamed calls`.
        call: String,
    },
    /// Profiles name calls.
    #[error("number {nr} has no name under {abi}, and its verdict is not the default")]
    Nameless {
        /// The number.
        nr: u32,
        /// The table's convention.
        abi: Abi,
    },
    /// libseccomp has no "else" beside a condition but the default.
    #[error(
        "call {call} gets {found:?} when no condition holds, a profile has only the default there"
    )]
    Otherwise {
        /// Its name.
        call: &'static str,
        /// The entry's last verdict.
        found: Verdict,
    },
    /// runc makes an OR of them.
    #[error(
        "call {call} has two conditions on argument {arg} in one branch, runc takes them as alternatives"
    )]
    SameArgument {
        /// Its name.
        call: &'static str,
        /// The argument.
        arg: u8,
    },
    /// Such a condition always holds.
    #[error("call {call} compares no bit of argument {arg}")]
    NoBits {
        /// Its name.
        call: &'static str,
        /// The argument.
        arg: u8,
    },
    /// Rules of a profile have no order.
    #[error(
        "call {call} has branches with different verdicts that can hold at once, profiles have no order"
    )]
    Overlap {
        /// Its name.
        call: &'static str,
    },
    /// What runc or libseccomp would refuse or do by accident.
    #[error("profile would not mean the table")]
    Engine(#[from] OciReadError),
    /// A bound against runaway products.
    #[error("call {call} needs {found} rules, the limit is {MAX_RULES_PER_CALL}")]
    TooManyRules {
        /// Its name.
        call: &'static str,
        /// Combinations of its values.
        found: usize,
    },
}

/// The profile from which a runtime's libseccomp makes a filter that means the table.
///
/// # Flow
/// The default action from `otherwise`, the table's own architecture, then one rule for each action and conditions with all
/// names that share them, in a fixed order.
///
/// # Guarantees
/// Every difference between profile and table that is known to come from runc or libseccomp is an error here. The same
/// table gives the same profile.
///
/// # Caveats
/// A libseccomp that does not know a name leaves the call to the default action (runc warns), and runc answers numbers that
/// are newer than its libseccomp with ENOSYS: the kernel's filter can be stricter, see [`crate::compare`].
///
/// # Errors
/// Whatever the table says and a profile cannot.
pub fn profile(table: &RuleTable, listener: Option<&Listener>) -> Result<OciSeccomp, OciError> {
    check_table(table)?;
    let mut abis = table.abis.iter();
    let (Some((&abi, numbers)), None) = (abis.next(), abis.next()) else {
        return Err(OciError::OneAbi {
            found: table.abis.len(),
        });
    };
    let architecture = match abi {
        Abi::X86_64 => Architecture::X86_64,
        Abi::I386 => Architecture::X86,
        Abi::Aarch64 => Architecture::Aarch64,
        Abi::X32 => return Err(OciError::Abi(abi)),
    };
    if table.foreign != Verdict::KillThread {
        return Err(OciError::Foreign {
            found: table.foreign,
        });
    }
    if numbers.otherwise == Verdict::Ask {
        return Err(OciError::DefaultAsk);
    }
    let (default_action, default_errno_ret) = action("unnamed calls", numbers.otherwise)?;
    let mut rules: BTreeMap<Rule, BTreeSet<&'static str>> = BTreeMap::new();
    for (&nr, entry) in &numbers.entries {
        for rule in entry_rules(abi, numbers, nr, entry)? {
            rules.entry(rule.0).or_default().insert(rule.1);
        }
    }
    let asked = rules.keys().any(|(action, ..)| *action == Action::Notify);
    match listener {
        None if asked => return Err(OciError::NoListener),
        Some(_) if !asked => return Err(OciError::NothingAsked),
        _ => {}
    }
    let profile = OciSeccomp {
        default_action,
        default_errno_ret,
        architectures: alloc::vec![architecture],
        flags: Vec::new(),
        listener_path: listener.map(|listener| listener.path.clone()),
        listener_metadata: listener.map(|listener| listener.metadata.clone()),
        syscalls: rules
            .into_iter()
            .map(|((action, errno_ret, args), names)| OciSyscall {
                names: names.into_iter().map(ToOwned::to_owned).collect(),
                action,
                errno_ret,
                args,
            })
            .collect(),
    };
    // libseccomp's accidents
    meaning(&profile, &Engine::debian12().on(abi).without_stub())?;
    Ok(profile)
}

/// What names are grouped by.
type Rule = (Action, Option<u32>, Vec<OciArg>);

fn action(call: &str, verdict: Verdict) -> Result<(Action, Option<u32>), OciError> {
    Ok(match verdict {
        Verdict::KillProcess => (Action::KillProcess, None),
        Verdict::KillThread => (Action::KillThread, None),
        Verdict::Trap(0) => (Action::Trap, None),
        Verdict::Trap(datum) => {
            return Err(OciError::TrapDatum {
                call: call.to_owned(),
                datum,
            });
        }
        Verdict::Errno(4095) => {
            return Err(OciError::LargestErrno {
                call: call.to_owned(),
            });
        }
        Verdict::Errno(errno) => (Action::Errno, Some(errno.into())),
        Verdict::Ask => (Action::Notify, None),
        Verdict::Trace(datum) => (Action::Trace, Some(datum.into())),
        Verdict::Log => (Action::Log, None),
        Verdict::Allow => (Action::Allow, None),
    })
}

fn entry_rules(
    abi: Abi,
    numbers: &Numbers,
    nr: u32,
    entry: &Entry,
) -> Result<Vec<(Rule, &'static str)>, OciError> {
    if *entry == Entry::always(numbers.otherwise) {
        return Ok(Vec::new());
    }
    let call = table::name_of(abi, nr).ok_or(OciError::Nameless { nr, abi })?;
    let verdicts = entry.branches.iter().map(|branch| branch.verdict);
    if call == "write" && verdicts.chain([entry.otherwise]).any(|v| v == Verdict::Ask) {
        return Err(OciError::WriteAsk);
    }
    if entry.branches.is_empty() {
        let (action, errno) = action(call, entry.otherwise)?;
        return Ok(alloc::vec![((action, errno, Vec::new()), call)]);
    }
    if entry.otherwise != numbers.otherwise {
        return Err(OciError::Otherwise {
            call,
            found: entry.otherwise,
        });
    }
    for branch in &entry.branches {
        check_branch(call, branch)?;
    }
    check_order(call, &entry.branches)?;
    let mut rules = Vec::new();
    for branch in &entry.branches {
        // libseccomp refuses a rule with the default's action; nothing else can hold where this branch does
        if branch.verdict == numbers.otherwise {
            continue;
        }
        let (action, errno) = action(call, branch.verdict)?;
        for args in combinations(call, &branch.all)? {
            rules.push(((action, errno, args), call));
        }
    }
    Ok(rules)
}

fn check_branch(call: &'static str, branch: &Branch) -> Result<(), OciError> {
    let mut seen = BTreeSet::new();
    let mut found: usize = 1;
    for condition in &branch.all {
        let arg = condition.arg;
        if condition.mask == 0 {
            return Err(OciError::NoBits { call, arg });
        }
        if !seen.insert(arg) {
            return Err(OciError::SameArgument { call, arg });
        }
        let comparisons = alternatives(call, condition)?;
        found = found.saturating_mul(comparisons.len());
    }
    if found > MAX_RULES_PER_CALL {
        return Err(OciError::TooManyRules { call, found });
    }
    Ok(())
}

/// Branches are tried in order, rules of a profile are not: where the verdicts differ, no two may hold at once.
fn check_order(call: &'static str, branches: &[Branch]) -> Result<(), OciError> {
    for (at, first) in branches.iter().enumerate() {
        for second in branches.iter().skip(at + 1) {
            if first.verdict != second.verdict && !exclude(first, second) {
                return Err(OciError::Overlap { call });
            }
        }
    }
    Ok(())
}

/// Whether some argument shows that the branches cannot both hold.
fn exclude(a: &Branch, b: &Branch) -> bool {
    a.all.iter().any(|x| b.all.iter().any(|y| apart(x, y)))
}

fn apart(a: &Condition, b: &Condition) -> bool {
    if a.arg != b.arg {
        return false;
    }
    if a.mask == b.mask {
        let overlap = |x: &RangeInclusive<u64>, y: &RangeInclusive<u64>| {
            x.start() <= y.end() && y.start() <= x.end()
        };
        return a
            .values
            .ranges()
            .all(|x| b.values.ranges().all(|y| !overlap(&x, &y)));
    }
    let common = a.mask & b.mask;
    match (
        a.values.singles(MAX_RULES_PER_CALL),
        b.values.singles(MAX_RULES_PER_CALL),
    ) {
        (Some(a), Some(b)) => a.iter().all(|x| b.iter().all(|y| (x ^ y) & common != 0)),
        _ => false,
    }
}

/// Comparisons of which exactly one holds where the condition does.
fn alternatives(call: &'static str, condition: &Condition) -> Result<Vec<OciArg>, OciError> {
    if let Some(values) = condition.values.singles(MAX_SINGLES) {
        // a value with a bit outside the mask never occurs, and libseccomp would cut the bit off
        let occur = values
            .into_iter()
            .filter(|value| value & !condition.mask == 0);
        let compare = |value| compare_bits(condition.arg, condition.mask, value);
        return Ok(occur.map(compare).collect());
    }
    match whole(condition) {
        Some(comparison) => Ok(alloc::vec![comparison]),
        None => blocks(call, condition),
    }
}

/// A condition that one comparison of all 64 bits says.
fn whole(condition: &Condition) -> Option<OciArg> {
    if condition.mask != u64::MAX {
        return None;
    }
    let ranges: Vec<(u64, u64)> = condition
        .values
        .ranges()
        .map(RangeInclusive::into_inner)
        .collect();
    let (op, value) = match *ranges.as_slice() {
        [(0, last)] => (Operator::LessOrEqual, last),
        [(first, u64::MAX)] => (Operator::GreaterOrEqual, first),
        // ranges do not touch, so there is a value between them
        [(0, last), (first, u64::MAX)] if first - last == 2 => (Operator::NotEqual, last + 1),
        _ => return None,
    };
    Some(OciArg {
        index: condition.arg,
        value,
        value_two: 0,
        op,
    })
}

/// The condition's ranges cut into aligned blocks, each of which a masked comparison says.
fn blocks(call: &'static str, condition: &Condition) -> Result<Vec<OciArg>, OciError> {
    let Condition { arg, mask, values } = condition;
    let too_many = || OciError::Range { call, arg: *arg };
    let mut found = Vec::new();
    let mut steps = 0;
    for range in values.ranges() {
        let (mut first, last) = range.into_inner();
        loop {
            steps += 1;
            if found.len() > MAX_RULES_PER_CALL || steps > MAX_STEPS {
                return Err(too_many());
            }
            let size = block_bits(first, last, *mask);
            // at most 63, see `block_bits`
            let inside = (1u64 << size) - 1;
            // others never occur
            if first & !mask == 0 {
                found.push(compare_bits(*arg, mask & !inside, first));
            }
            match (first | inside).checked_add(1) {
                Some(next) if next <= last => first = next,
                _ => break,
            }
        }
    }
    if found
        .iter()
        .any(|comparison| comparison.value == 0 && comparison.op == Operator::MaskedEqual)
    {
        return Err(OciError::NoBits { call, arg: *arg });
    }
    Ok(found)
}

/// How many low bits are free in the largest block that begins with `first`, ends with `last` or before, and is not cut by
/// gaps of the mask; 63 at most.
fn block_bits(first: u64, last: u64, mask: u64) -> u32 {
    let free = first.trailing_zeros().min(mask.trailing_ones()).min(63);
    let fits = |bits: &u32| first | ((1u64 << bits) - 1) <= last;
    (0..=free).rev().find(fits).unwrap_or(0)
}

/// One comparison for each condition, in every combination.
fn combinations(
    call: &'static str,
    conditions: &[Condition],
) -> Result<Vec<Vec<OciArg>>, OciError> {
    let mut all: Vec<Vec<OciArg>> = alloc::vec![Vec::new()];
    for condition in conditions {
        let comparisons = alternatives(call, condition)?;
        all = all
            .into_iter()
            .flat_map(|args| {
                comparisons.iter().map(move |comparison| {
                    let mut args = args.clone();
                    args.push(comparison.clone());
                    args
                })
            })
            .collect();
    }
    for args in &mut all {
        args.sort();
    }
    Ok(all)
}

fn compare_bits(index: u8, mask: u64, datum: u64) -> OciArg {
    if mask == u64::MAX {
        return OciArg {
            index,
            value: datum,
            value_two: 0,
            op: Operator::Equal,
        };
    }
    OciArg {
        index,
        value: mask,
        value_two: datum,
        op: Operator::MaskedEqual,
    }
}
