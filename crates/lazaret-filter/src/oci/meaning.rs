//! What runc and its libseccomp make of a profile, as a rule table.
//!
//! Follows runc 1.1.5 (`libcontainer/seccomp/seccomp_linux.go`, `patchbpf/enosys_linux.go`) with libseccomp-golang 0.10 and
//! libseccomp 2.5.4 (`src/db.c`, `src/arch.c`, `src/gen_bpf.c`); `testing/seccomp-judge` holds it against the library itself.
//! Not modelled: whether the filter fits into the kernel, and what a kernel without an action would refuse.

use super::accumulator::{Blocks, Unsound};
use super::multiplex::multiplexed;
use super::note::{Note, Place};
use super::read::OciReadError;
use super::tree::{Added, Next, Refused, Tree, Words, is_no_op};
use super::{Action, OciArg, OciSeccomp, OciSyscall, Operator, flatten};
use crate::abi::{Abi, X32_BIT};
use crate::rule::{Entry, Numbers, RuleTable, Verdict};
use crate::table;
use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

/// The runtime and the library that load a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    native: Abi,
    newest: u32,
    lacks: &'static [&'static str],
    stub: bool,
}

impl Engine {
    /// runc 1.1.5 with libseccomp 2.5.4-1+deb12u1 on x86-64.
    #[must_use]
    pub const fn debian12() -> Engine {
        Engine {
            native: Abi::X86_64,
            // futex_requeue; since statx all architectures give a new call the same number
            newest: 456,
            // x86-64 gave them numbers below 424, later
            lacks: &["uprobe", "uretprobe"],
            stub: true,
        }
    }

    /// The same on a host of another architecture.
    #[must_use]
    pub const fn on(self, native: Abi) -> Engine {
        Engine { native, ..self }
    }

    /// The same with a runtime that does not put its ENOSYS stub before libseccomp's filter.
    #[must_use]
    pub const fn without_stub(self) -> Engine {
        Engine {
            stub: false,
            ..self
        }
    }

    /// The call's number under the convention, when libseccomp knows it; for x32 without [`X32_BIT`].
    #[must_use]
    pub fn number(&self, abi: Abi, call: &str) -> Option<u32> {
        let known = |nr: &u32| *nr <= self.newest || (abi == Abi::X32 && X32_OWN.contains(nr));
        table::nr_of(abi, call).filter(|nr| known(nr) && !self.lacks.contains(&call))
    }

    /// Whether libseccomp knows the name under any convention.
    #[must_use]
    pub fn knows(&self, call: &str) -> bool {
        multiplexed(call).is_some() || Abi::ALL.iter().any(|abi| self.number(*abi, call).is_some())
    }
}

/// Numbers of x32 alone (`arch/x86/entry/syscalls/syscall_64.tbl`: "the end of the legacy x32 range").
const X32_OWN: core::ops::RangeInclusive<u32> = 512..=547;

/// The number -1 as [`Abi::of`] takes it apart: it has [`X32_BIT`].
const MINUS_ONE: u32 = !X32_BIT;

const ENOSYS: Verdict = Verdict::Errno(38);

/// `include/linux/err.h`.
const MAX_ERRNO: u16 = 4095;

/// What the runtime and its libseccomp make of a profile.
///
/// # Flow
/// runc: actions to libseccomp's, rules that say the default left out, unknown names left out, conditions on one argument
/// taken apart. libseccomp, for each convention: numbers by name, on i386 the multiplexers too, then the tree of tests of each
/// call. Then runc's stub for calls newer than any that the profile names.
///
/// # Guarantees
/// `meaning(p)?.0.decide(call)` is the verdict of the kernel's filter for every call, but for [`Note::HighNumbers`].
///
/// # Assumptions
/// The kernel knows every action that the profile uses; libseccomp refuses the others.
///
/// # Errors
/// What runc or libseccomp refuse; an architecture without a call table; and what libseccomp does by accident,
/// [`OciReadError::Tangled`].
pub fn meaning(
    profile: &OciSeccomp,
    engine: &Engine,
) -> Result<(RuleTable, Vec<Note>), OciReadError> {
    let mut notes = Vec::new();
    if !profile.flags.is_empty() {
        notes.push(Note::Flags);
    }
    let default = verdict(
        profile.default_action,
        profile.default_errno_ret,
        None,
        &mut notes,
    );
    if default == Verdict::Ask {
        return Err(OciReadError::DefaultAsk);
    }
    check_errno(default, None)?;
    let served = served(profile, engine, &mut notes)?;
    let rules = rules(profile, default, engine, &served, &mut notes)?;
    let mut table = RuleTable {
        abis: BTreeMap::new(),
        // SCMP_FLTATR_ACT_BADARCH stays SCMP_ACT_KILL (db_col_reset)
        foreign: Verdict::KillThread,
    };
    let otherwise = default;
    let mut kinds = BTreeMap::new();
    let mut blocks = Blocks::default();
    for &abi in &served {
        let trees = trees(abi, &rules, engine, &mut notes)?;
        check_words(abi, &trees, &mut blocks)?;
        kinds.insert(abi, Kinds::of(&trees));
        let entries = entries(trees, otherwise)?;
        table.abis.insert(abi, Numbers { entries, otherwise });
    }
    check_number_is_loaded(&kinds)?;
    let stubbed = if engine.stub && !permissive(profile) {
        stub(profile, engine, &mut table, &mut notes)
    } else {
        BTreeSet::new()
    };
    let without_x32 = served.contains(&Abi::X86_64) && !served.contains(&Abi::X32);
    if without_x32 && otherwise != table.foreign {
        table
            .abis
            .insert(Abi::X32, minus_one(otherwise, table.foreign));
        notes.push(Note::TracerSkip);
        if !stubbed.contains(&Abi::X86_64) {
            notes.push(Note::HighNumbers);
        }
    }
    for numbers in table.abis.values_mut() {
        let otherwise = Entry::always(numbers.otherwise);
        numbers.entries.retain(|_, entry| *entry != otherwise);
    }
    Ok((table, notes))
}

/// runc's `getAction`.
fn verdict(
    action: Action,
    errno: Option<u32>,
    rule: Option<usize>,
    notes: &mut Vec<Note>,
) -> Verdict {
    let verdict = match action {
        Action::Allow => Verdict::Allow,
        Action::Notify => Verdict::Ask,
        Action::Log => Verdict::Log,
        Action::Trap => Verdict::Trap(0),
        Action::Kill | Action::KillThread => Verdict::KillThread,
        Action::KillProcess => Verdict::KillProcess,
        // EPERM without errnoRet; SetReturnCode takes 16 bits
        Action::Errno => Verdict::Errno((errno.unwrap_or(1) & 0xffff) as u16),
        Action::Trace => Verdict::Trace((errno.unwrap_or(1) & 0xffff) as u16),
    };
    if let Some(found) = errno {
        match verdict {
            Verdict::Errno(kept) | Verdict::Trace(kept) if found == u32::from(kept) => {}
            Verdict::Errno(kept) | Verdict::Trace(kept) => {
                notes.push(Note::ErrnoCut { rule, found, kept });
            }
            _ => notes.push(Note::ErrnoIgnored { rule }),
        }
    }
    verdict
}

/// libseccomp refuses the largest errno that the kernel has (`sys_chk_seccomp_action`: below `MAX_ERRNO`).
fn check_errno(verdict: Verdict, rule: Option<usize>) -> Result<(), OciReadError> {
    match verdict {
        Verdict::Errno(errno) if errno >= MAX_ERRNO => {
            Err(OciReadError::ErrnoLimit { rule, errno })
        }
        _ => Ok(()),
    }
}

/// The conventions of libseccomp's filter: the host's own is always there (`db_col_reset`).
fn served(
    profile: &OciSeccomp,
    engine: &Engine,
    notes: &mut Vec<Note>,
) -> Result<BTreeSet<Abi>, OciReadError> {
    let mut served = BTreeSet::new();
    for &architecture in &profile.architectures {
        let abi = architecture
            .abi()
            .ok_or(OciReadError::Architecture { architecture })?;
        served.insert(abi);
    }
    if served.insert(engine.native) {
        notes.push(Note::Native { abi: engine.native });
    }
    if served.contains(&Abi::X32) && !served.contains(&Abi::X86_64) {
        return Err(OciReadError::X32Alone);
    }
    Ok(served)
}

/// A rule as libseccomp gets it.
struct Rule<'a> {
    place: Place,
    call: &'a str,
    verdict: Verdict,
    args: Vec<OciArg>,
}

/// runc's part: one rule for each name, and for each condition where two name the same argument.
fn rules<'a>(
    profile: &'a OciSeccomp,
    default: Verdict,
    engine: &Engine,
    served: &BTreeSet<Abi>,
    notes: &mut Vec<Note>,
) -> Result<Vec<Rule<'a>>, OciReadError> {
    let mut rules = Vec::new();
    for (index, syscall) in profile.syscalls.iter().enumerate() {
        let verdict = verdict(syscall.action, syscall.errno_ret, Some(index), notes);
        let alternatives = alternatives(index, syscall)?;
        for call in &syscall.names {
            let place = Place {
                rule: index,
                call: call.clone(),
            };
            if call.is_empty() {
                return Err(OciReadError::EmptyName { rule: index });
            }
            if verdict == Verdict::Ask && call == "write" {
                return Err(OciReadError::WriteAsk);
            }
            let exists = |abi: &Abi| {
                engine.number(*abi, call).is_some()
                    || (*abi == Abi::I386 && multiplexed(call).is_some())
            };
            if verdict == default {
                notes.push(Note::SaysDefault { place });
                continue;
            }
            if !engine.knows(call) {
                notes.push(Note::Unknown { place });
                continue;
            }
            check_errno(verdict, Some(index))?;
            if !served.iter().any(exists) {
                notes.push(Note::Absent {
                    place: place.clone(),
                });
            }
            if alternatives.len() > 1 {
                notes.push(Note::Alternatives {
                    place: place.clone(),
                });
            }
            argument_notes(&place, &syscall.args, notes);
            rules.extend(alternatives.iter().map(|args| Rule {
                place: place.clone(),
                call,
                verdict,
                args: args.clone(),
            }));
        }
    }
    Ok(rules)
}

fn alternatives(rule: usize, syscall: &OciSyscall) -> Result<Vec<Vec<OciArg>>, OciReadError> {
    let mut seen = BTreeSet::new();
    let mut twice = false;
    for arg in &syscall.args {
        if arg.index > 5 {
            return Err(OciReadError::Argument {
                rule,
                index: arg.index,
            });
        }
        twice |= !seen.insert(arg.index);
    }
    Ok(if twice {
        syscall.args.iter().map(|arg| vec![arg.clone()]).collect()
    } else {
        vec![syscall.args.clone()]
    })
}

fn argument_notes(place: &Place, args: &[OciArg], notes: &mut Vec<Note>) {
    for arg in args {
        let (place, index) = (place.clone(), arg.index);
        if arg.op != Operator::MaskedEqual {
            if arg.value_two != 0 {
                notes.push(Note::SecondValue { place, arg: index });
            }
        } else if arg.value_two & !arg.value != 0 {
            notes.push(Note::OutsideMask { place, arg: index });
        }
    }
}

/// Where libseccomp keeps a call's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Slot<'a> {
    /// A number of the convention.
    Number(u32),
    /// One of libseccomp's negative numbers for calls that the convention lacks: no code is made of it, but its rules can
    /// contradict each other.
    Lacking(&'a str),
}

/// The calls of one convention: a name, its rules, and how many there were.
type Trees<'a> = BTreeMap<Slot<'a>, (&'a str, Tree, usize)>;

/// libseccomp's part for one convention.
fn trees<'a>(
    abi: Abi,
    rules: &'a [Rule<'a>],
    engine: &Engine,
    notes: &mut Vec<Note>,
) -> Result<Trees<'a>, OciReadError> {
    let words = match abi {
        Abi::I386 | Abi::X32 => Words::One,
        Abi::X86_64 | Abi::Aarch64 => Words::Two,
    };
    let mut trees = Trees::new();
    for rule in rules {
        let place = || rule.place.clone();
        let direct = engine.number(abi, rule.call);
        let through = multiplexed(rule.call).filter(|_| abi == Abi::I386);
        let mut slots = Vec::new();
        if let Some((multiplexer, number)) = through {
            let mut args = rule.args.clone();
            args.retain(|arg| arg.index != 0);
            args.push(OciArg {
                index: 0,
                value: number,
                value_two: 0,
                op: Operator::Equal,
            });
            if !rule.args.is_empty() {
                let through = multiplexer;
                notes.push(Note::Multiplexed {
                    place: place(),
                    through,
                });
            }
            // both are in every table of i386
            if let Some(nr) = table::nr_of(abi, multiplexer) {
                slots.push((Slot::Number(nr), args));
            }
        }
        match direct {
            Some(nr) => slots.push((Slot::Number(nr), rule.args.clone())),
            // abi_rule_add leaves out what i386 lacks
            None if abi == Abi::I386 && through.is_none() => {}
            None => slots.push((Slot::Lacking(rule.call), rule.args.clone())),
        }
        if direct.is_some() {
            word_notes(rule, abi, words, notes);
        }
        for (slot, args) in slots {
            let (_, tree, count) = trees
                .entry(slot)
                .or_insert_with(|| (rule.call, Tree::default(), 0));
            *count += 1;
            if *count > flatten::MAX_BRANCHES {
                return Err(OciReadError::TooManyRules {
                    call: rule.call.to_owned(),
                });
            }
            let (place, call) = (place(), rule.call.to_owned());
            match tree.add(&args, rule.verdict, words) {
                Ok(Added::Whole) => {}
                Ok(Added::Covered) => notes.push(Note::Covered { place, abi }),
                Ok(Added::Redundant) => notes.push(Note::Redundant { place, abi }),
                Err(Refused::Conflict) => {
                    let rule = place.rule;
                    return Err(OciReadError::Conflict { call, rule, abi });
                }
                Err(Refused::Tangled) => {
                    let rule = place.rule;
                    return Err(OciReadError::Tangled { call, rule, abi });
                }
            }
        }
    }
    Ok(trees)
}

/// Which kinds of calls have rules under a convention.
#[derive(Clone, Copy, Debug, Default)]
struct Kinds {
    numbers: bool,
    numbers_without_conditions: bool,
    lacking: bool,
    lacking_without_conditions: bool,
}

impl Kinds {
    fn of(trees: &Trees<'_>) -> Kinds {
        let mut kinds = Kinds::default();
        for (slot, (_, tree, _)) in trees {
            let without_conditions = matches!(tree.top(), Next::Verdict(_));
            if matches!(slot, Slot::Number(_)) {
                kinds.numbers = true;
                kinds.numbers_without_conditions |= without_conditions;
            } else {
                kinds.lacking = true;
                kinds.lacking_without_conditions |= without_conditions;
            }
        }
        kinds
    }
}

/// `_gen_bpf_syscalls` loads the number before the first call of its list, and then leaves out calls that the convention lacks:
/// when such a one is the first, the number is never loaded. First comes what has the fewest tests, the smallest number first;
/// lacking calls have the largest. x86-64 by itself loads the number elsewhere; with x32 the two share a list.
fn check_number_is_loaded(kinds: &BTreeMap<Abi, Kinds>) -> Result<(), OciReadError> {
    let lists: [&[Abi]; 3] = [&[Abi::X86_64, Abi::X32], &[Abi::I386], &[Abi::Aarch64]];
    for list in lists {
        let kinds: Vec<Kinds> = list
            .iter()
            .filter_map(|abi| kinds.get(abi).copied())
            .collect();
        let alone = list.len() > kinds.len();
        if alone || !kinds.iter().any(|kinds| kinds.numbers) {
            continue;
        }
        let first = kinds
            .iter()
            .find(|kinds| kinds.numbers_without_conditions || kinds.lacking_without_conditions);
        let loaded = match first {
            Some(first) => first.numbers_without_conditions,
            None => !kinds.iter().any(|kinds| kinds.lacking),
        };
        if let (false, Some(&abi)) = (loaded, list.first()) {
            return Err(OciReadError::NumberNotLoaded { abi });
        }
    }
    Ok(())
}

/// Whether libseccomp's tests compare what they mean.
fn check_words(abi: Abi, trees: &Trees<'_>, blocks: &mut Blocks) -> Result<(), OciReadError> {
    for (slot, (call, tree, _)) in trees {
        let call = || (*call).to_owned();
        if matches!(slot, Slot::Number(_)) {
            blocks.add(tree).map_err(|error| match error {
                Unsound::WrongWord => OciReadError::WrongWord { call: call(), abi },
                Unsound::TooLarge => OciReadError::TooManyRules { call: call() },
            })?;
        }
    }
    Ok(())
}

fn entries(trees: Trees<'_>, otherwise: Verdict) -> Result<BTreeMap<u32, Entry>, OciReadError> {
    let mut entries = BTreeMap::new();
    for (slot, (call, tree, _)) in trees {
        if let Slot::Number(nr) = slot {
            let entry =
                flatten::entry(&tree, otherwise).map_err(|_| OciReadError::TooManyRules {
                    call: call.to_owned(),
                })?;
            entries.insert(nr, entry);
        }
    }
    Ok(entries)
}

fn word_notes(rule: &Rule<'_>, abi: Abi, words: Words, notes: &mut Vec<Note>) {
    for arg in &rule.args {
        let place = || rule.place.clone();
        let written = arg.value | arg.value_two;
        if is_no_op(arg, words) {
            let arg = arg.index;
            notes.push(Note::NoBits {
                place: place(),
                arg,
                abi,
            });
        } else if words == Words::One && written > u64::from(u32::MAX) {
            notes.push(Note::Narrowed {
                place: place(),
                arg: arg.index,
                value: written,
                abi,
            });
        }
    }
}

/// Whether runc leaves its stub out (`generatePatch`).
fn permissive(profile: &OciSeccomp) -> bool {
    // runc 1.1 means to look for ENOSYS and compares with the filter's word for it
    let word = Some(ENOSYS.to_raw());
    profile.default_errno_ret == word
        || matches!(
            profile.default_action,
            Action::Allow | Action::Log | Action::Trace
        )
}

/// runc's stub (`findLastSyscalls`, `generateEnosysStub`): in each listed architecture, numbers above the largest that some
/// rule names get ENOSYS, even where that rule was left out. Where it did so.
fn stub(
    profile: &OciSeccomp,
    engine: &Engine,
    table: &mut RuleTable,
    notes: &mut Vec<Note>,
) -> BTreeSet<Abi> {
    let mut stubbed = BTreeSet::new();
    let listed: BTreeSet<Abi> = profile
        .architectures
        .iter()
        .filter_map(|architecture| architecture.abi())
        .collect();
    for abi in listed {
        // on i386 libseccomp gives negative numbers for what can be multiplexed
        let numbers = profile
            .syscalls
            .iter()
            .flat_map(|syscall| &syscall.names)
            .filter(|call| abi != Abi::I386 || multiplexed(call).is_none())
            .filter_map(|call| engine.number(abi, call));
        // the largest being 0 is taken for none being there; x32 numbers have their bit
        let largest = numbers.max().filter(|nr| *nr != 0 || abi == Abi::X32);
        let (Some(largest), Some(numbers)) = (largest, table.abis.get_mut(&abi)) else {
            continue;
        };
        // what libseccomp made of multiplexed calls can lie above
        numbers.entries.retain(|nr, _| *nr <= largest);
        for nr in 0..=largest {
            let default = || Entry::always(numbers.otherwise);
            numbers.entries.entry(nr).or_insert_with(default);
        }
        numbers.otherwise = ENOSYS;
        // libseccomp's own tables end below 1000, so the sum is small
        let from = largest + 1;
        notes.push(Note::NewerCalls { abi, from });
        stubbed.insert(abi);
    }
    stubbed
}

/// What `_gen_bpf_arch` does with numbers from [`X32_BIT`] on where x32 is not served: kill, but for -1.
fn minus_one(otherwise: Verdict, foreign: Verdict) -> Numbers {
    Numbers {
        entries: BTreeMap::from([(MINUS_ONE, Entry::always(otherwise))]),
        otherwise: foreign,
    }
}
