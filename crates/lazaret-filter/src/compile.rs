//! Turns a [`RuleTable`] into classic BPF.
//!
//! The shape: the architecture, x32's bit, a balanced binary search over ranges of numbers with equal entries, and the
//! argument checks of an entry as its leaf. A call that is decided by its number alone meets only loads of number and
//! architecture, constant tests and a return: what `seccomp_is_const_allow` (`kernel/seccomp.c`, since 5.11) can follow to
//! put the call into the kernel's allow bitmap. It optimises nothing else; frequencies are not known here.
//!
//! Instructions are emitted from the last to the first. Jumps in classic BPF only go forward, so every target is placed
//! before the jumps to it are, and its distance is known.

use crate::abi::{Abi, X32_BIT};
use crate::program::{Instruction, MAX_INSTRUCTIONS, Program, ProgramError, code};
use crate::rule::{Condition, Entry, RuleTable, Verdict};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

// struct seccomp_data, include/uapi/linux/seccomp.h
const NR_OFFSET: u32 = 0;
const ARCH_OFFSET: u32 = 4;
const ARGS_OFFSET: u32 = 16;

/// Why a table has no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The kernel's limit.
    #[error("filter has {found} instructions, the kernel allows {MAX_INSTRUCTIONS}")]
    TooLong {
        /// Instructions the table needs.
        found: usize,
    },
    /// A branch without conditions would hide everything after it.
    #[error("call {nr} has a branch without conditions")]
    NoCondition {
        /// The number.
        nr: u32,
    },
    /// There are six arguments.
    #[error("call {nr} has a condition on argument {arg}, the last is 5")]
    Argument {
        /// The number.
        nr: u32,
        /// The argument.
        arg: u8,
    },
    /// The condition could never hold.
    #[error("call {nr} has a condition on argument {arg} without values")]
    NoValue {
        /// The number.
        nr: u32,
        /// The argument.
        arg: u8,
    },
    /// The value could never match.
    #[error("call {nr} compares argument {arg} with {value:#x}, outside of its mask {mask:#x}")]
    OutsideMask {
        /// The number.
        nr: u32,
        /// The argument.
        arg: u8,
        /// The value.
        value: u64,
        /// The mask.
        mask: u64,
    },
    /// x32's bit tells the conventions apart and is no part of a number.
    #[error("number {nr:#x} of {abi} carries x32's bit")]
    X32Bit {
        /// The number.
        nr: u32,
        /// The convention.
        abi: Abi,
    },
    /// A verdict that the kernel would change or that a filter cannot return.
    #[error("errno {errno} cannot be returned, the largest is 4095")]
    Errno {
        /// The errno.
        errno: u16,
    },
    /// The emitted program failed the kernel's checks: a defect of this module, caught before the kernel sees it.
    #[error("compiled filter is invalid")]
    Invalid(#[source] ProgramError),
}

/// Compiles a table.
///
/// # Guarantees
/// `eval(compile(table)?, call) == table.decide(call)` for every call. The same table gives the same bytes on every machine
/// of one byte order.
///
/// # Errors
/// A table that breaks its own documentation, or needs more than [`MAX_INSTRUCTIONS`].
pub fn compile(table: &RuleTable) -> Result<Program, CompileError> {
    check_table(table)?;
    let foreign = Entry::always(table.foreign);
    let defaults: BTreeMap<Abi, Entry> = table
        .abis
        .iter()
        .map(|(&abi, numbers)| (abi, Entry::always(numbers.otherwise)))
        .collect();
    let architectures: BTreeSet<u32> = table.abis.keys().map(|abi| abi.audit_arch()).collect();
    let mut emit = Emitter::default();
    let mut trees: Vec<(u32, Target)> = Vec::new();
    for arch in architectures {
        let tree = emit.tree(&segments(table, arch, &defaults, &foreign));
        trees.push((arch, emit.load(NR_OFFSET, u32::MAX, tree)));
    }
    let mut top = Target::Return(table.foreign);
    for (arch, tree) in trees {
        top = emit.jump(code::JEQ_K, arch, tree, top);
    }
    emit.load(ARCH_OFFSET, u32::MAX, top);
    emit.finish()
}

/// Whether a table keeps what its own documentation says.
pub(crate) fn check_table(table: &RuleTable) -> Result<(), CompileError> {
    let errno = |verdict: Verdict| match verdict {
        // MAX_ERRNO, include/linux/err.h: __seccomp_filter cuts a larger datum
        Verdict::Errno(errno) if errno > 4095 => Err(CompileError::Errno { errno }),
        _ => Ok(()),
    };
    errno(table.foreign)?;
    for (&abi, numbers) in &table.abis {
        errno(numbers.otherwise)?;
        for (&nr, entry) in &numbers.entries {
            if matches!(abi, Abi::X86_64 | Abi::X32) && nr & X32_BIT != 0 {
                return Err(CompileError::X32Bit { nr, abi });
            }
            errno(entry.otherwise)?;
            for branch in &entry.branches {
                errno(branch.verdict)?;
                if branch.all.is_empty() {
                    return Err(CompileError::NoCondition { nr });
                }
                for condition in &branch.all {
                    check_condition(nr, condition)?;
                }
            }
        }
    }
    Ok(())
}

fn check_condition(nr: u32, condition: &Condition) -> Result<(), CompileError> {
    let Condition { arg, mask, values } = condition;
    let (arg, mask) = (*arg, *mask);
    if arg > 5 {
        return Err(CompileError::Argument { nr, arg });
    }
    if values.is_empty() {
        return Err(CompileError::NoValue { nr, arg });
    }
    if values.singles(MAX_INSTRUCTIONS).is_none() {
        return Err(CompileError::TooLong { found: usize::MAX });
    }
    let mut ends = values
        .ranges()
        .flat_map(|range| [*range.start(), *range.end()]);
    match ends.find(|value| value & !mask != 0) {
        Some(value) => Err(CompileError::OutsideMask {
            nr,
            arg,
            value,
            mask,
        }),
        None => Ok(()),
    }
}

/// The numbers from the first field up to the next segment have this entry. Neighbours differ; the first starts at 0.
type Segment<'a> = (u32, &'a Entry);

/// The segments of all conventions that share an architecture. They are told apart by x32's bit, so that no convention
/// changes inside a quarter of the numbers.
fn segments<'a>(
    table: &'a RuleTable,
    arch: u32,
    defaults: &'a BTreeMap<Abi, Entry>,
    foreign: &'a Entry,
) -> Vec<Segment<'a>> {
    let mut segments: Vec<Segment<'a>> = Vec::new();
    let mut from = |start: u32, entry: &'a Entry| {
        if segments.last().is_some_and(|&(last, _)| last == start) {
            segments.pop();
        }
        if segments.last().is_none_or(|&(_, last)| last != entry) {
            segments.push((start, entry));
        }
    };
    for quarter in [0, X32_BIT, X32_BIT << 1, X32_BIT << 1 | X32_BIT] {
        let last = quarter | (X32_BIT - 1);
        let served = Abi::of(arch, quarter)
            .and_then(|(abi, first)| Some((first, table.abis.get(&abi)?, defaults.get(&abi)?)));
        let Some((first, numbers, otherwise)) = served else {
            from(quarter, foreign);
            continue;
        };
        from(quarter, otherwise);
        for (&nr, entry) in numbers.entries.range(first..=first | (X32_BIT - 1)) {
            // `first` is the quarter's first number, with x32's bit or without
            let nr = nr - first + quarter;
            from(nr, entry);
            if nr < last {
                from(nr + 1, otherwise);
            }
        }
    }
    segments
}

/// Where a jump goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// To any return of this verdict.
    Return(Verdict),
    /// To an emitted instruction, by its index in [`Emitter::labels`].
    Label(usize),
}

/// Collects instructions from the last to the first.
#[derive(Default)]
struct Emitter<'a> {
    /// The last instruction of the program is the first here.
    reversed: Vec<Instruction>,
    /// For each label the index in `reversed` of the latest instruction that leads to it: itself or a trampoline.
    labels: Vec<usize>,
    /// The latest return of a verdict.
    returns: BTreeMap<Verdict, usize>,
    /// Leaves that are already there.
    leaves: BTreeMap<&'a Entry, Target>,
}

impl<'a> Emitter<'a> {
    fn push(&mut self, instruction: Instruction) -> usize {
        self.reversed.push(instruction);
        self.reversed.len() - 1
    }

    /// A label for the instruction that was emitted last.
    fn label(&mut self, at: usize) -> Target {
        self.labels.push(at);
        Target::Label(self.labels.len() - 1)
    }

    /// The instructions between the one that will be emitted next and `at`.
    fn skipped(&self, at: usize) -> usize {
        // `at` was emitted before: it is below the length
        self.reversed.len() - 1 - at
    }

    /// Makes sure that the next instruction and, when that is another trampoline, the one after it, can reach the target
    /// with at most `limit` skipped instructions.
    fn reach(&mut self, target: Target, limit: usize) {
        match target {
            // a second return costs as much as a trampoline, and runs faster
            Target::Return(verdict) => {
                let near = self
                    .returns
                    .get(&verdict)
                    .is_some_and(|&at| self.skipped(at) <= limit);
                if !near {
                    let at = self.push(Instruction::statement(code::RET_K, verdict.to_raw()));
                    self.returns.insert(verdict, at);
                }
            }
            // labels are only made by `label`, and the vector never shrinks
            Target::Label(label) => {
                let skipped = self.skipped(self.labels[label]);
                if skipped > limit {
                    // Beyond 4096 the program is refused in the end, long before 32 bits are full.
                    let k = u32::try_from(skipped).unwrap_or(u32::MAX);
                    self.labels[label] = self.push(Instruction::statement(code::JA, k));
                }
            }
        }
    }

    /// Skipped instructions to a target that [`Emitter::reach`] has brought near.
    fn offset(&self, target: Target) -> u8 {
        let at = match target {
            Target::Return(verdict) => self.returns.get(&verdict).copied(),
            Target::Label(label) => self.labels.get(label).copied(),
        };
        let skipped = at.map(|at| self.skipped(at));
        // `reach` was called for both targets with limits that leave room for the other's trampoline
        skipped
            .and_then(|skipped| u8::try_from(skipped).ok())
            .expect("target was brought within 255 instructions")
    }

    /// A conditional jump, or nothing when both ways lead to the same place.
    fn jump(&mut self, code: u16, k: u32, holds: Target, fails: Target) -> Target {
        if holds == fails {
            return holds;
        }
        self.reach(holds, 254);
        self.reach(fails, 255);
        let (jt, jf) = (self.offset(holds), self.offset(fails));
        let at = self.push(Instruction::jump(code, k, jt, jf));
        self.label(at)
    }

    /// A load of a word of `struct seccomp_data`, masked, that goes on to `then`.
    fn load(&mut self, offset: u32, mask: u32, then: Target) -> Target {
        self.reach(then, 0);
        if mask != u32::MAX {
            self.push(Instruction::statement(code::AND_K, mask));
        }
        let at = self.push(Instruction::statement(code::LD_W_ABS, offset));
        self.label(at)
    }

    /// A binary search for the number in the accumulator.
    fn tree(&mut self, segments: &[Segment<'a>]) -> Target {
        let (low, high) = segments.split_at(segments.len() / 2);
        match (low, high) {
            ([], [(_, entry)]) => self.leaf(entry),
            (_, [(start, _), ..]) => {
                let (high, low) = (self.tree(high), self.tree(low));
                self.jump(code::JGE_K, *start, high, low)
            }
            // `segments` is never empty, so neither is the upper half
            (_, []) => unreachable!("a table has at least one segment"),
        }
    }

    fn leaf(&mut self, entry: &'a Entry) -> Target {
        if let Some(&there) = self.leaves.get(entry) {
            return there;
        }
        let mut next = Target::Return(entry.otherwise);
        for branch in entry.branches.iter().rev() {
            let mut holds = Target::Return(branch.verdict);
            if holds != next {
                for condition in branch.all.iter().rev() {
                    holds = self.condition(condition, holds, next);
                }
            }
            next = holds;
        }
        self.leaves.insert(entry, next);
        next
    }

    /// A 64-bit comparison as one or two 32-bit ones; a half without a bit in the mask is not looked at.
    fn condition(&mut self, condition: &Condition, holds: Target, fails: Target) -> Target {
        let half = |value: u64| ((value >> 32) as u32, (value & 0xffff_ffff) as u32);
        let (high_mask, low_mask) = half(condition.mask);
        // `check_condition` has seen that arg <= 5
        let low_offset = ARGS_OFFSET + 8 * u32::from(condition.arg);
        let high_offset = low_offset + 4;
        let mut by_high: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for value in condition
            .values
            .singles(MAX_INSTRUCTIONS)
            .unwrap_or_default()
        {
            let (high, low) = half(value);
            by_high.entry(high).or_default().insert(low);
        }
        let mut high_cases: Vec<(u32, Target)> = Vec::new();
        for (high, lows) in by_high {
            let then = if low_mask == 0 {
                holds
            } else {
                let cases: Vec<_> = lows.into_iter().map(|low| (low, holds)).collect();
                self.cases(low_offset, low_mask, &cases, fails)
            };
            high_cases.push((high, then));
        }
        match *high_cases {
            // the mask has no high bit, and all values lie within it: the only high half is 0
            [(_, then)] if high_mask == 0 => then,
            _ => self.cases(high_offset, high_mask, &high_cases, fails),
        }
    }

    /// Loads a word and goes to the target of the value it equals.
    fn cases(&mut self, offset: u32, mask: u32, cases: &[(u32, Target)], fails: Target) -> Target {
        let mut next = fails;
        for &(value, then) in cases.iter().rev() {
            next = self.jump(code::JEQ_K, value, then, next);
        }
        self.load(offset, mask, next)
    }

    fn finish(mut self) -> Result<Program, CompileError> {
        let found = self.reversed.len();
        if found > MAX_INSTRUCTIONS {
            return Err(CompileError::TooLong { found });
        }
        self.reversed.reverse();
        Program::new(self.reversed).map_err(CompileError::Invalid)
    }
}
