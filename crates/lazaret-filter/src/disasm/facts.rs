//! What is known before each instruction on all paths that lead there.
//!
//! Follows the architecture, the number, and which word the accumulator holds. Jumps only go forward, so one pass is enough.

use crate::abi::{Abi, X32_BIT};
use crate::program::{Instruction, Program, code};
use crate::rule::Values;
use alloc::vec::Vec;

/// The architectures of [`Abi`], each once.
const ARCHITECTURES: [u32; 3] = [
    Abi::X86_64.audit_arch(),
    Abi::I386.audit_arch(),
    Abi::Aarch64.audit_arch(),
];

/// Numbers that are listed one by one; more of them are as good as unknown to a reader.
const MAX_NUMBERS: usize = 64;

/// The masked word of `struct seccomp_data` that the accumulator holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) offset: u32,
    pub(super) mask: u32,
}

impl Word {
    pub(super) const fn is_whole(self) -> bool {
        self.mask == u32::MAX
    }
}

/// What holds before an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) word: Option<Word>,
    /// The numbers that are possible for each of [`ARCHITECTURES`], and last for any other.
    numbers: [Values; 4],
}

impl Facts {
    fn start() -> Facts {
        Facts {
            word: None,
            numbers: core::array::from_fn(|_| Values::of([0..=u32::MAX.into()])),
        }
    }

    fn is_possible(&self) -> bool {
        self.numbers.iter().any(|numbers| !numbers.is_empty())
    }

    /// The architectures that are possible; `None` when it can be one that is not known.
    fn archs(&self) -> Option<impl Iterator<Item = u32>> {
        let [known @ .., other] = &self.numbers;
        let possible = ARCHITECTURES.iter().zip(known);
        let possible = possible.filter(|(_, numbers)| !numbers.is_empty());
        other.is_empty().then_some(possible.map(|(arch, _)| *arch))
    }

    /// The only architecture that is possible.
    pub(super) fn single_arch(&self) -> Option<u32> {
        let mut archs = self.archs()?;
        archs.next().filter(|_| archs.next().is_none())
    }

    /// Whether the architecture can be the one that x86-64 and x32 share.
    pub(super) fn may_be_x86(&self) -> bool {
        let [x86, ..] = &self.numbers;
        !x86.is_empty()
    }

    /// The architectures and numbers that are possible, unless they are too many. Where the architecture was not tested,
    /// `untested` is taken for it.
    pub(super) fn calls(&self, untested: Abi) -> Option<Vec<(u32, u32)>> {
        let [known @ .., other] = &self.numbers;
        let mut calls = Vec::new();
        for (arch, numbers) in ARCHITECTURES.iter().zip(known) {
            if other.is_empty() || untested.audit_arch() == *arch {
                // no number is above u32::MAX, where the first sets ended
                let numbers = numbers.singles(MAX_NUMBERS)?.into_iter();
                calls.extend(numbers.filter_map(|nr| Some((*arch, u32::try_from(nr).ok()?))));
            }
        }
        Some(calls)
    }

    /// What holds on either of two paths.
    fn join(&mut self, other: &Facts) {
        if self.word != other.word {
            self.word = None;
        }
        for (numbers, others) in self.numbers.iter_mut().zip(&other.numbers) {
            if numbers != others {
                *numbers = numbers.union(others);
            }
        }
    }

    /// What holds after a test, on the side where it holds or the other.
    fn after(&self, i: Instruction, holds: bool) -> Facts {
        let mut facts = self.clone();
        let Some(word) = self.word.filter(|word| word.is_whole()) else {
            return facts;
        };
        match (word.offset, i.code) {
            (4, code::JEQ_K) => {
                let [known @ .., other] = &mut facts.numbers;
                let one = ARCHITECTURES.iter().position(|arch| *arch == i.k);
                for (at, numbers) in known.iter_mut().enumerate() {
                    if (Some(at) == one) != holds {
                        *numbers = Values::default();
                    }
                }
                if holds && one.is_some() {
                    *other = Values::default();
                }
            }
            (0, _) => {
                let k = u64::from(i.k);
                let end = u64::from(u32::MAX);
                let bit = u64::from(X32_BIT);
                let within = match i.code {
                    code::JEQ_K => Values::of([k..=k]),
                    code::JGE_K => Values::of([k..=end]),
                    code::JGT_K => Values::of([k + 1..=end]),
                    code::JSET_K if k == bit => Values::of([bit..=2 * bit - 1, 3 * bit..=end]),
                    _ => return facts,
                };
                for numbers in &mut facts.numbers {
                    *numbers = common(numbers, &within, holds);
                }
            }
            _ => {}
        }
        facts
    }
}

/// The values of `set` that are in `within`, or those that are not.
fn common(set: &Values, within: &Values, inside: bool) -> Values {
    let mut pieces = Vec::new();
    for range in set.ranges() {
        let (mut from, last) = range.into_inner();
        for cut in within.ranges() {
            let (first, end) = (from.max(*cut.start()), last.min(*cut.end()));
            if first > end {
                continue;
            }
            if inside {
                pieces.push(first..=end);
            } else if from < first {
                pieces.push(from..=first - 1);
            }
            // numbers have 32 bits, so there is a next one
            from = end + 1;
        }
        if !inside && from <= last {
            pieces.push(from..=last);
        }
    }
    Values::of(pieces)
}

/// The facts before each instruction; `None` where no path leads.
pub(super) fn before(program: &Program) -> Vec<Option<Facts>> {
    let instructions = program.instructions();
    let mut before: Vec<Option<Facts>> = alloc::vec![None; instructions.len()];
    if let Some(first) = before.first_mut() {
        *first = Some(Facts::start());
    }
    for (at, i) in instructions.iter().enumerate() {
        let Some(mut facts) = before[at].clone() else {
            continue;
        };
        let ways = match i.code {
            code::RET_K | code::RET_A => continue,
            code::JEQ_K
            | code::JEQ_X
            | code::JGT_K
            | code::JGT_X
            | code::JGE_K
            | code::JGE_X
            | code::JSET_K
            | code::JSET_X => {
                let (holds, fails) = (facts.after(*i, true), facts.after(*i, false));
                [Some((i.jt.into(), holds)), Some((i.jf.into(), fails))]
            }
            // at most 4096
            code::JA => [Some((i.k as usize, facts)), None],
            _ => {
                facts.word = match (i.code, facts.word) {
                    (code::LD_W_ABS, _) => Some(Word {
                        offset: i.k,
                        mask: u32::MAX,
                    }),
                    (code::AND_K, Some(word)) => Some(Word {
                        mask: word.mask & i.k,
                        ..word
                    }),
                    (
                        code::ST
                        | code::STX
                        | code::TAX
                        | code::LDX_IMM
                        | code::LDX_MEM
                        | code::LDX_W_LEN,
                        word,
                    ) => word,
                    _ => None,
                };
                [Some((0, facts)), None]
            }
        };
        for (skip, facts) in ways.into_iter().flatten() {
            if !facts.is_possible() {
                continue;
            }
            // `Program::new` has checked that jumps stay inside and that the last instruction returns
            match &mut before[at + 1 + skip] {
                Some(there) => there.join(&facts),
                none => *none = Some(facts),
            }
        }
    }
    before
}
