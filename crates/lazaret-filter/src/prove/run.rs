//! Runs a filter on every call at once.
//!
//! One pass from the first instruction to the last: jumps only go forward, so each instruction is met once, with the set of
//! all calls that reach it and with what the registers and the memory then hold as functions of the call. Paths that meet are
//! merged, never counted. What nobody reads any more is not merged (libseccomp loads anew after every join).
//!
//! Says which words a filter returns for which calls, not what the kernel makes of them.

use super::bdd::{Diagrams, Full, Set};
use super::word::{self, Bits, Unusable, Word, Words};
use super::{ProveError, Reason};
use crate::program::{DATA_BYTES, Instruction, MEMORY_WORDS, Program, code};
use crate::rule::Verdict;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

/// The most different words that one filter may return.
const MAX_RETURNS: usize = 4096;

/// Index of the accumulator, of the index register and of the first word of memory in [`Registers`].
const A: usize = 0;
const X: usize = 1;
const MEMORY: usize = 2;

type Registers = [Word; MEMORY + MEMORY_WORDS];

/// What is true when an instruction is reached.
#[derive(Clone)]
struct State {
    reach: Set,
    registers: Registers,
}

/// The calls for which the filter returns each word; the sets are disjoint and make up all calls. Data that the kernel ignores are
/// left out of the words, and errnos are cut as it does.
pub(super) fn run(
    diagrams: &mut Diagrams,
    filter: usize,
    program: &Program,
) -> Result<BTreeMap<u32, Set>, ProveError> {
    let instructions = program.instructions();
    let mut run = Run {
        diagrams,
        words: Words::default(),
        filter,
        live: liveness(instructions),
        waiting: vec![None; instructions.len()],
        returns: BTreeMap::new(),
    };
    // the kernel clears both registers before the first instruction; memory is not read before it is written
    let start = State {
        reach: Set::ALL,
        registers: [Word::Constant(0); MEMORY + MEMORY_WORDS],
    };
    run.arrive(0, 0, start)?;
    for (at, &instruction) in instructions.iter().enumerate() {
        // `waiting` has the program's length
        if let Some(state) = run.waiting[at].take() {
            run.instruction(at, instruction, state)?;
        }
    }
    Ok(run.returns)
}

/// For each instruction, the registers whose values some path from it on still reads, as bits.
fn liveness(instructions: &[Instruction]) -> Vec<u32> {
    let mut live = vec![0u32; instructions.len()];
    for (at, i) in instructions.iter().enumerate().rev() {
        // `Program::new` has checked that jumps stay inside; a return's successors are not used
        let after = |by: u32| live.get(at + 1 + by as usize).copied().unwrap_or(0);
        let memory = 1 << (MEMORY as u32 + i.k % MEMORY_WORDS as u32);
        const LIVE_A: u32 = 1 << A;
        const LIVE_X: u32 = 1 << X;
        let next = after(0);
        let both = after(i.jt.into()) | after(i.jf.into());
        // `at` counts `instructions`, and `live` has their length
        live[at] = match i.code {
            code::RET_K => 0,
            code::RET_A => LIVE_A,
            code::LD_W_ABS | code::LD_W_LEN | code::LD_IMM => next & !LIVE_A,
            code::LDX_W_LEN | code::LDX_IMM => next & !LIVE_X,
            code::LD_MEM => next & !LIVE_A | memory,
            code::LDX_MEM => next & !LIVE_X | memory,
            code::ST => next & !memory | LIVE_A,
            code::STX => next & !memory | LIVE_X,
            code::TAX => next & !LIVE_X | LIVE_A,
            code::TXA => next & !LIVE_A | LIVE_X,
            code::JA => after(i.k),
            code::JEQ_K | code::JGT_K | code::JGE_K | code::JSET_K => both | LIVE_A,
            code::JEQ_X | code::JGT_X | code::JGE_X | code::JSET_X => both | LIVE_A | LIVE_X,
            // by zero it returns, whoever reads its result
            code::DIV_X => next | LIVE_X,
            code::ADD_X
            | code::SUB_X
            | code::MUL_X
            | code::OR_X
            | code::AND_X
            | code::LSH_X
            | code::RSH_X
            | code::XOR_X
                if next & LIVE_A != 0 =>
            {
                next | LIVE_X
            }
            // the rest computes A from A: it reads it when somebody reads the result
            _ => next,
        };
    }
    live
}

struct Run<'a> {
    diagrams: &'a mut Diagrams,
    words: Words,
    filter: usize,
    live: Vec<u32>,
    /// What is known of each instruction that is still to come, from the jumps so far.
    waiting: Vec<Option<State>>,
    returns: BTreeMap<u32, Set>,
}

impl Run<'_> {
    fn undecided(&self, instruction: usize, reason: Reason) -> ProveError {
        ProveError::Undecided {
            filter: self.filter,
            instruction,
            reason,
        }
    }

    /// A set of calls that is needed to go on: only the bounds of the whole proof end it.
    fn set(
        &mut self,
        at: usize,
        operation: impl FnOnce(&mut Diagrams) -> Result<Set, Full>,
    ) -> Result<Set, ProveError> {
        let set = operation(self.diagrams);
        set.map_err(|Full| self.undecided(at, Reason::Calls))
    }

    /// Calls come to `to` from `from`.
    fn arrive(&mut self, from: usize, to: usize, mut state: State) -> Result<(), ProveError> {
        if state.reach == Set::NONE {
            return Ok(());
        }
        // `Program::new` has checked that jumps stay inside
        let live = self.live[to];
        for (register, word) in state.registers.iter_mut().enumerate() {
            if live & 1 << register == 0 {
                *word = Word::Constant(0);
            }
        }
        let Some(mut there) = self.waiting[to].take() else {
            self.waiting[to] = Some(state);
            return Ok(());
        };
        for (old, &new) in there.registers.iter_mut().zip(&state.registers) {
            if *old != new {
                *old = self.merge(to, state.reach, new, *old);
            }
        }
        there.reach = self.set(from, |diagrams| diagrams.or(there.reach, state.reach))?;
        self.waiting[to] = Some(there);
        Ok(())
    }

    /// `new` for the calls in `reach`, else `old`.
    fn merge(&mut self, at: usize, reach: Set, new: Word, old: Word) -> Word {
        let merged = self.diagrams.bounded(|diagrams| {
            let bits = |diagrams: &mut Diagrams, word| match self.words.bits(diagrams, word) {
                Ok(bits) => Ok(Ok(bits)),
                Err(Unusable::Unknown { .. }) => Ok(Err(word)),
                Err(Unusable::Full) => Err(Full),
            };
            let new = bits(diagrams, new)?;
            let old = bits(diagrams, old)?;
            match (new, old) {
                (Ok(new), Ok(old)) => Ok(Ok(word::choose(diagrams, reach, &new, &old)?)),
                (Err(unknown), _) | (_, Err(unknown)) => Ok(Err(unknown)),
            }
        });
        match merged {
            Ok(Ok(bits)) => self.words.word(bits),
            Ok(Err(unknown)) => unknown,
            Err(Full) => Word::Unknown { at },
        }
    }

    fn instruction(
        &mut self,
        at: usize,
        i: Instruction,
        mut state: State,
    ) -> Result<(), ProveError> {
        // below MEMORY_WORDS for the instructions that name one; the remainder only makes that visible here
        let memory = MEMORY + i.k as usize % MEMORY_WORDS;
        let k = Word::Constant(i.k);
        let (a, x) = (state.registers[A], state.registers[X]);
        match i.code {
            code::RET_K => return self.returned(at, state.reach, k),
            code::RET_A => return self.returned(at, state.reach, a),
            code::JA => return self.arrive(at, at + 1 + i.k as usize, state),
            code::JEQ_K | code::JGT_K | code::JGE_K | code::JSET_K => {
                return self.branch(at, i, state, k);
            }
            code::JEQ_X | code::JGT_X | code::JGE_X | code::JSET_X => {
                return self.branch(at, i, state, x);
            }
            // checked: a multiple of 4 below DATA_BYTES, so the index is below 16
            code::LD_W_ABS => state.registers[A] = Word::Input((i.k / 4) as u8),
            code::LD_W_LEN => state.registers[A] = Word::Constant(DATA_BYTES),
            code::LD_IMM => state.registers[A] = k,
            code::LD_MEM => state.registers[A] = state.registers[memory],
            code::LDX_W_LEN => state.registers[X] = Word::Constant(DATA_BYTES),
            code::LDX_IMM => state.registers[X] = k,
            code::LDX_MEM => state.registers[X] = state.registers[memory],
            code::ST => state.registers[memory] = a,
            code::STX => state.registers[memory] = x,
            code::TAX => state.registers[X] = a,
            code::TXA => state.registers[A] = x,
            code => {
                // BPF_X, `include/uapi/linux/bpf_common.h`
                let operand = if code & 0x08 != 0 { x } else { k };
                if code == code::DIV_X {
                    state.reach = self.nonzero(at, state.reach, x)?;
                    if state.reach == Set::NONE {
                        return Ok(());
                    }
                }
                // `at` is not the last instruction, which returns
                let wanted = self.live[at + 1] & 1 << A != 0;
                if wanted {
                    state.registers[A] = self.compute(at, code, a, operand);
                }
            }
        }
        self.arrive(at, at + 1, state)
    }

    /// The calls that go on after a division by `x`. For the others, `x` being 0, the filter returns 0
    /// (`bpf_convert_filter`, `net/core/filter.c`).
    fn nonzero(&mut self, at: usize, reach: Set, x: Word) -> Result<Set, ProveError> {
        let zero = self.test(at, code::JEQ_K, x, Word::Constant(0))?;
        let stops = self.set(at, |diagrams| diagrams.and(reach, zero))?;
        self.add_return(at, 0, stops)?;
        self.set(at, |diagrams| diagrams.and(reach, !zero))
    }

    fn compute(&mut self, at: usize, code: u16, a: Word, operand: Word) -> Word {
        // what needs no bits of an unknown word
        match (code, operand) {
            (code::AND_K | code::AND_X | code::MUL_K | code::MUL_X, Word::Constant(0)) => {
                return operand;
            }
            (
                code::ADD_K
                | code::ADD_X
                | code::SUB_K
                | code::SUB_X
                | code::OR_K
                | code::OR_X
                | code::XOR_K
                | code::XOR_X
                | code::LSH_K
                | code::LSH_X
                | code::RSH_K
                | code::RSH_X,
                Word::Constant(0),
            )
            | (code::AND_K | code::AND_X, Word::Constant(u32::MAX))
            | (code::MUL_K | code::MUL_X | code::DIV_K | code::DIV_X, Word::Constant(1)) => {
                return a;
            }
            _ => {}
        }
        for word in [a, operand] {
            if let Word::Unknown { .. } = word {
                return word;
            }
        }
        let bits = self.diagrams.bounded(|diagrams| {
            let usable = |unusable| match unusable {
                // both words were looked at above
                Unusable::Unknown { .. } | Unusable::Full => Full,
            };
            let a = self.words.bits(diagrams, a).map_err(usable)?;
            let b = self.words.bits(diagrams, operand).map_err(usable)?;
            calculate(diagrams, code, &a, &b)
        });
        match bits {
            Ok(bits) => self.words.word(bits),
            Err(Full) => Word::Unknown { at },
        }
    }

    fn branch(
        &mut self,
        at: usize,
        i: Instruction,
        state: State,
        operand: Word,
    ) -> Result<(), ProveError> {
        let target = |by: u8| at + 1 + usize::from(by);
        if i.jt == i.jf {
            return self.arrive(at, target(i.jt), state);
        }
        let holds = self.test(at, i.code, state.registers[A], operand)?;
        let reach = state.reach;
        let taken = self.set(at, |diagrams| diagrams.and(reach, holds))?;
        let not = self.set(at, |diagrams| diagrams.and(reach, !holds))?;
        let registers = state.registers;
        for (reach, by) in [(taken, i.jt), (not, i.jf)] {
            self.arrive(at, target(by), State { reach, registers })?;
        }
        Ok(())
    }

    /// The calls for which a comparison of `a` with `b` holds.
    fn test(&mut self, at: usize, code: u16, a: Word, b: Word) -> Result<Set, ProveError> {
        if let (code::JSET_K | code::JSET_X, Word::Constant(0)) = (code, b) {
            return Ok(Set::NONE);
        }
        let holds = self.diagrams.bounded(|diagrams| {
            let bits = |diagrams: &mut Diagrams, word| match self.words.bits(diagrams, word) {
                Ok(bits) => Ok(Ok(bits)),
                Err(Unusable::Unknown { at }) => Ok(Err(at)),
                Err(Unusable::Full) => Err(Full),
            };
            let (a, b) = match (bits(diagrams, a)?, bits(diagrams, b)?) {
                (Ok(a), Ok(b)) => (a, b),
                (Err(unknown), _) | (_, Err(unknown)) => return Ok(Err(unknown)),
            };
            Ok(Ok(match code {
                code::JEQ_K | code::JEQ_X => word::equal(diagrams, &a, &b)?,
                code::JGT_K | code::JGT_X => !word::at_least(diagrams, &b, &a)?,
                code::JGE_K | code::JGE_X => word::at_least(diagrams, &a, &b)?,
                // callers pass one of the four comparisons
                _ => word::intersects(diagrams, &a, &b)?,
            }))
        });
        match holds {
            Ok(Ok(set)) => Ok(set),
            Ok(Err(unknown)) => Err(self.undecided(unknown, Reason::Value { used: at })),
            Err(Full) => Err(self.undecided(at, Reason::Calls)),
        }
    }

    fn returned(&mut self, at: usize, reach: Set, word: Word) -> Result<(), ProveError> {
        if let Word::Constant(raw) = word {
            return self.add_return(at, canonical(raw), reach);
        }
        let bits = self.words.bits(self.diagrams, word);
        let bits = bits.map_err(|unusable| match unusable {
            Unusable::Unknown { at: made } => self.undecided(made, Reason::Value { used: at }),
            Unusable::Full => self.undecided(at, Reason::Calls),
        })?;
        self.each_return(at, &bits, 32, 0, reach)
    }

    /// Adds every word that `bits` can be for the calls in `reach`; its bits from `open` on are those of `raw`.
    fn each_return(
        &mut self,
        at: usize,
        bits: &Bits,
        open: usize,
        raw: u32,
        reach: Set,
    ) -> Result<(), ProveError> {
        if reach == Set::NONE {
            return Ok(());
        }
        let settled = match open {
            0 => true,
            // the action is known: is there more to know?
            16 => {
                let any = canonical(raw | 0xffff);
                canonical(raw) == any
            }
            // 0x1000 and above is cut to MAX_ERRNO
            12 => canonical(raw) == canonical(raw | 0x0fff),
            _ => false,
        };
        if settled {
            return self.add_return(at, canonical(raw), reach);
        }
        // `open` is above 0 and at most 32
        let next = open - 1;
        let bit = bits[next];
        let set = self.set(at, |diagrams| diagrams.and(reach, bit))?;
        let clear = self.set(at, |diagrams| diagrams.and(reach, !bit))?;
        self.each_return(at, bits, next, raw, clear)?;
        self.each_return(at, bits, next, raw | 1 << next, set)
    }

    fn add_return(&mut self, at: usize, raw: u32, reach: Set) -> Result<(), ProveError> {
        if reach == Set::NONE {
            return Ok(());
        }
        let before = self.returns.get(&raw).copied().unwrap_or(Set::NONE);
        let both = self.set(at, |diagrams| diagrams.or(before, reach))?;
        self.returns.insert(raw, both);
        if self.returns.len() > MAX_RETURNS {
            return Err(self.undecided(at, Reason::Returns { limit: MAX_RETURNS }));
        }
        Ok(())
    }
}

/// A returned word without what the kernel ignores of it. An action that the kernel does not know stays as it is: it takes its place
/// in the order of actions before it kills.
fn canonical(raw: u32) -> u32 {
    let known = Verdict::from_raw(raw).to_raw();
    if known & 0xffff_0000 == raw & 0xffff_0000 {
        known
    } else {
        raw & 0xffff_0000
    }
}

fn calculate(diagrams: &mut Diagrams, code: u16, a: &Bits, b: &Bits) -> Result<Bits, Full> {
    match code {
        code::ADD_K | code::ADD_X => word::add(diagrams, a, b),
        code::SUB_K | code::SUB_X => word::subtract(diagrams, a, b),
        code::MUL_K | code::MUL_X => word::multiply(diagrams, a, b),
        code::DIV_K | code::DIV_X => word::divide(diagrams, a, b),
        code::OR_K | code::OR_X => word::or(diagrams, a, b),
        code::AND_K | code::AND_X => word::and(diagrams, a, b),
        code::XOR_K | code::XOR_X => word::xor(diagrams, a, b),
        code::LSH_K | code::LSH_X => word::shift(diagrams, a, b, word::shifted_left),
        code::RSH_K | code::RSH_X => word::shift(diagrams, a, b, word::shifted_right),
        // what is left of the codes that `Program::new` lets through: NEG
        _ => word::subtract(diagrams, &word::constant(0), a),
    }
}
