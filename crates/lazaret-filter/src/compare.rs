//! Compares what a chain of filters does with what a rule table means.
//!
//! This is a comparison by evaluation, with the calls chosen from both sides:
//!
//! - **Numbers**: 0 to 1023 with and without x32's bit, the table's entries and their neighbours, some far ones, and the
//!   neighbourhood of every constant that a filter compares the number with. For filters that look at the number only by
//!   `jeq`, `jgt`, `jge` and x32's bit, which is all that Lazaret and libseccomp emit, that leaves no number out (but −1,
//!   which is no call).
//! - **Architectures**: the known ones, the smallest and largest word, and the neighbourhood of every constant that a filter
//!   compares the architecture with; exhaustive in the same sense. Under a foreign one where no filter looks at the number,
//!   one number stands for all.
//! - **Arguments**: for each number the product over those argument halves that the table's conditions or the filters' paths
//!   for this number look at, each at the boundary values of every constant it is compared with, masks included. A number
//!   for which neither side looks at any argument is decided once, which is exhaustive.
//!
//! Arguments are therefore *boundary-valued*, not exhaustive: a filter that computes with arguments before it compares them,
//! or joins several different masks of one half, can escape. A symbolic proof will replace this; its place is [`compare`],
//! whose signature says nothing about how the difference was found.

use crate::abi::{Abi, X32_BIT};
use crate::interpret::{EvalError, Seen, eval_chain_seen};
use crate::program::Program;
use crate::rule::{Call, Condition, RuleTable, Verdict};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Ordering;

/// The most instructions that one comparison executes, over all evaluations. A filter for a whole policy needs a few
/// million.
pub const MAX_WORK: u64 = 1 << 26;

/// The most pairs of an architecture and a number that are visited. Ordinary filters need about ten thousand.
pub const MAX_PAIRS: usize = 1 << 20;

/// ENOSYS, the same on every architecture of [`Abi`] (`include/uapi/asm-generic/errno.h`). Programs take it as "this kernel
/// does not have the call" and fall back, which no other errno makes them do.
const ENOSYS: u16 = 38;

/// The number −1, which is no call: the kernel dispatches it to nothing whatever a filter says (`do_syscall_64` in
/// `arch/x86/entry/`, `NO_SYSCALL` in `arch/arm64`), and tracers use it to skip a call. libseccomp leaves it out of its
/// check for x32 on purpose. So nothing is compared there.
const NO_CALL: u32 = u32::MAX;

/// A call on which the two sides differ. Each number and pair of verdicts is reported once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Difference {
    /// The first such call that was met.
    pub call: Call,
    /// What the table says.
    pub expected: Verdict,
    /// What the chain does.
    pub found: Verdict,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The chain is more permissive than the table ([`Verdict::permissiveness`]).
    pub looser: Vec<Difference>,
    /// The chain is less permissive, or of two errnos only one is ENOSYS. Other differences of an errno count as none.
    pub stricter: Vec<Difference>,
    /// Calls that were compared.
    pub calls: u64,
}

/// Why a chain cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// A call has no verdict.
    #[error("filter cannot be evaluated")]
    Eval(#[from] EvalError),
    /// The filters or the conditions distinguish too many arguments.
    #[error("comparison needs more than {MAX_WORK} executed instructions")]
    TooMuchWork,
    /// The filters distinguish too many architectures and numbers.
    #[error("comparison needs {found} pairs of architecture and number, the limit is {MAX_PAIRS}")]
    TooManyPairs {
        /// Pairs that are to be visited.
        found: usize,
    },
}

/// Compares a chain of filters, oldest first, with a table.
///
/// # Flow
/// Every architecture with every number, each with its arguments; whatever constants a run shows become points to visit,
/// until nothing new is shown.
///
/// # Guarantees
/// Both lists are empty only when the verdicts agreed on every call that was visited (the module says which those are), but
/// for errnos other than ENOSYS. Ends after [`MAX_WORK`] at the latest, whatever the filters are.
///
/// # Errors
/// An empty chain, a filter that reads the instruction pointer, or one beyond the bound.
pub fn compare(expected: &RuleTable, chain: &[Program]) -> Result<Comparison, CompareError> {
    let mut search = Search {
        expected,
        chain,
        architectures: architectures(),
        numbers: numbers(expected),
        shown: chain
            .iter()
            .map(|program| alloc::vec![None; program.instructions().len()])
            .collect(),
        work: 0,
        comparison: Comparison::default(),
    };
    search.run()?;
    Ok(search.comparison)
}

fn architectures() -> BTreeSet<u32> {
    let mut words: BTreeSet<u32> = Abi::ALL.into_iter().map(Abi::audit_arch).collect();
    words.extend([0, u32::MAX]);
    words
}

fn numbers(expected: &RuleTable) -> BTreeSet<u32> {
    let mut numbers: BTreeSet<u32> = (0..1024).flat_map(|nr| [nr, nr | X32_BIT]).collect();
    for nr in [1024, 0xffff, X32_BIT, 0x7fff_ffff, 0x8000_0000, NO_CALL]
        .into_iter()
        .chain(
            expected
                .abis
                .values()
                .flat_map(|numbers| numbers.entries.keys().copied()),
        )
    {
        around(nr, &mut numbers);
    }
    numbers
}

fn around(k: u32, into: &mut BTreeSet<u32>) {
    into.extend([k.wrapping_sub(1), k, k.wrapping_add(1)]);
}

/// The values of a word that lie on both sides of `word & mask == k`, `> k`, `>= k` or `word & k != 0`.
fn boundaries(mask: u32, k: u32, bits: bool, into: &mut BTreeSet<u32>) {
    if bits {
        let k = k & mask;
        into.extend([0, !k]);
        into.extend((0..32).map(|bit| 1u32 << bit).filter(|bit| bit & k != 0));
        return;
    }
    for k in [k.wrapping_sub(1), k, k.wrapping_add(1)] {
        // bits outside of the mask must not matter: once none, once all of them
        into.extend([k, k & mask, k | !mask]);
    }
    // and a single bit of the mask must
    let lowest = mask & mask.wrapping_neg();
    let highest = mask.checked_ilog2().map_or(0, |bit| 1u32 << bit);
    into.extend([k ^ lowest, k ^ highest]);
}

/// Halves of arguments: index 0 is the low half of the first argument.
const HALVES: usize = 12;

/// The word of `struct seccomp_data` that is half 0.
const FIRST_HALF: usize = 4;

/// The values that each half of an argument takes; a half without any is 0.
type Points = [BTreeSet<u32>; HALVES];

struct Search<'a> {
    expected: &'a RuleTable,
    chain: &'a [Program],
    /// Both grow while the search runs.
    architectures: BTreeSet<u32>,
    numbers: BTreeSet<u32>,
    /// What each instruction of each filter last showed about them: most runs show nothing new.
    shown: Vec<Vec<Option<Seen>>>,
    work: u64,
    comparison: Comparison,
}

impl Search<'_> {
    fn run(&mut self) -> Result<(), CompareError> {
        let mut visited: BTreeSet<(u32, u32)> = BTreeSet::new();
        // architectures under which the chain does not look at the number: one number stands for all
        let mut settled: BTreeSet<u32> = BTreeSet::new();
        loop {
            let open = self.architectures.difference(&settled);
            let found = open.clone().count().saturating_mul(self.numbers.len());
            if found > MAX_PAIRS {
                return Err(CompareError::TooManyPairs { found });
            }
            let mut waiting = Vec::new();
            for &arch in open {
                let numbers = self.numbers.iter().map(|&nr| (arch, nr));
                waiting.extend(numbers.filter(|pair| pair.1 != NO_CALL && !visited.contains(pair)));
            }
            if waiting.is_empty() {
                return Ok(());
            }
            for (arch, nr) in waiting {
                if settled.contains(&arch) {
                    continue;
                }
                let looks_at_number = self.visit(arch, nr)?;
                visited.insert((arch, nr));
                if !looks_at_number && Abi::of(arch, nr).is_none() {
                    settled.insert(arch);
                }
            }
        }
    }

    /// Compares every chosen argument of one number. Says whether a run looked at the number.
    fn visit(&mut self, arch: u32, nr: u32) -> Result<bool, CompareError> {
        let mut points = Points::default();
        let numbers =
            Abi::of(arch, nr).and_then(|(abi, nr)| Some((self.expected.abis.get(&abi)?, nr)));
        if let Some(entry) = numbers.and_then(|(numbers, nr)| numbers.entries.get(&nr)) {
            for condition in entry.branches.iter().flat_map(|branch| &branch.all) {
                condition_points(condition, &mut points);
            }
        }
        loop {
            let before = points.clone();
            let pass = self.pass(arch, nr, &before, &mut points)?;
            if points == before {
                // nothing new: this pass is the result
                self.record(&pass.differences);
                self.comparison.calls += pass.calls;
                return Ok(pass.looked_at_number);
            }
        }
    }

    /// Evaluates the product of `points`, and adds the constants that it meets to `next`.
    fn pass(
        &mut self,
        arch: u32,
        nr: u32,
        points: &Points,
        next: &mut Points,
    ) -> Result<Pass, CompareError> {
        let values: [Vec<u32>; HALVES] =
            core::array::from_fn(|half| points[half].iter().copied().collect());
        let mut pass = Pass::default();
        let mut at = [0usize; HALVES];
        loop {
            // all three arrays have HALVES elements
            let half = |half: usize| {
                values[half]
                    .get(at[half])
                    .map_or(0, |&value| u64::from(value))
            };
            let call = Call {
                arch,
                nr,
                args: core::array::from_fn(|arg| half(2 * arg) | half(2 * arg + 1) << 32),
            };
            let found = self.evaluate(&call, next, &mut pass.looked_at_number)?;
            pass.calls += 1;
            let expected = self.expected.decide(&call);
            if expected != found {
                pass.differences.entry((expected, found)).or_insert(call);
            }
            // the next combination, as an odometer counts
            let Some(turn) = (0..HALVES).find(|&half| at[half] + 1 < values[half].len()) else {
                return Ok(pass);
            };
            at[turn] += 1;
            at[..turn].fill(0);
        }
    }

    /// What the chain does, while numbers, architectures and `halves` learn what it looks at.
    fn evaluate(
        &mut self,
        call: &Call,
        halves: &mut Points,
        looked_at_number: &mut bool,
    ) -> Result<Verdict, CompareError> {
        let Search {
            architectures,
            numbers,
            shown,
            ..
        } = self;
        let found = eval_chain_seen(self.chain, call, None, &mut |filter, at, seen| {
            let (word, constant) = match seen {
                Seen::Loaded { word } => (word, None),
                Seen::Compared {
                    word,
                    mask,
                    k,
                    bits,
                } => (word, Some((mask, k, bits))),
            };
            *looked_at_number |= word == 0;
            let points = match word.checked_sub(FIRST_HALF) {
                Some(half) => halves.get_mut(half),
                None => {
                    // `shown` has a slot for each instruction of each filter
                    let slot = &mut shown[filter][at];
                    if slot.replace(seen) == Some(seen) {
                        return;
                    }
                    match word {
                        0 => Some(&mut *numbers),
                        1 => Some(&mut *architectures),
                        // the instruction pointer: `eval_chain_seen` fails
                        _ => None,
                    }
                }
            };
            if let Some(points) = points {
                match constant {
                    Some((mask, k, bits)) => boundaries(mask, k, bits, points),
                    None => points.extend([0, u32::MAX]),
                }
            }
        })?;
        self.work += u64::from(found.executed);
        if self.work > MAX_WORK {
            return Err(CompareError::TooMuchWork);
        }
        Ok(found.verdict)
    }

    fn record(&mut self, differences: &BTreeMap<(Verdict, Verdict), Call>) {
        for (&(expected, found), &call) in differences {
            let difference = Difference {
                call,
                expected,
                found,
            };
            match found.permissiveness().cmp(&expected.permissiveness()) {
                Ordering::Greater => self.comparison.looser.push(difference),
                Ordering::Less => self.comparison.stricter.push(difference),
                Ordering::Equal if matters(expected, found) => {
                    self.comparison.stricter.push(difference);
                }
                Ordering::Equal => {}
            }
        }
    }
}

/// What one pass over a number's calls found.
#[derive(Default)]
struct Pass {
    /// The first call for each pair of expected and found verdict.
    differences: BTreeMap<(Verdict, Verdict), Call>,
    calls: u64,
    looked_at_number: bool,
}

/// Whether two verdicts of one action differ in more than a datum that nobody acts on.
fn matters(expected: Verdict, found: Verdict) -> bool {
    match (expected, found) {
        (Verdict::Errno(a), Verdict::Errno(b)) => (a == ENOSYS) != (b == ENOSYS),
        // the data of traps and tracers are read by programs
        _ => true,
    }
}

fn condition_points(condition: &Condition, points: &mut Points) {
    let first = 2 * usize::from(condition.arg);
    for (half, shift) in [(first, 0), (first + 1, 32)] {
        let word = |value: u64| (value >> shift & 0xffff_ffff) as u32;
        let mask = word(condition.mask);
        // without a bit in the mask the table does not look at this half
        if let Some(points) = points.get_mut(half).filter(|_| mask != 0) {
            points.insert(0);
            for range in condition.values.ranges() {
                boundaries(mask, word(*range.start()), false, points);
                boundaries(mask, word(*range.end()), false, points);
            }
        }
    }
}
