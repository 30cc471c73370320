//! Runs filters as the kernel does, on a call that is a value.
//!
//! No clock and no effects: for tests, comparison and explanation. That a verdict is also logged, traced or sent to a
//! supervisor is only said, not done.

use crate::program::{DATA_BYTES, MEMORY_WORDS, Program, code};
use crate::rule::{Call, Verdict};

/// The outcome of one filter or of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evaluated {
    /// What the kernel does.
    pub verdict: Verdict,
    /// Instructions that ran, over all filters of a chain.
    pub executed: u32,
}

/// Why a call has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// Without a filter the kernel allows everything; nobody should mistake that for a verdict.
    #[error("chain has no filter")]
    EmptyChain,
    /// A [`Call`] does not say where it was made, so such a filter has no single verdict for it.
    #[error(
        "instruction {at} reads the instruction pointer, which a call as a value does not have"
    )]
    InstructionPointer {
        /// Its index.
        at: usize,
    },
}

/// Runs one filter.
///
/// # Guarantees
/// Ends: a [`Program`] only jumps forward, so no instruction runs twice.
///
/// # Errors
/// [`EvalError::InstructionPointer`].
pub fn eval(program: &Program, call: &Call) -> Result<Evaluated, EvalError> {
    let (raw, executed) = run(program, call, None)?;
    Ok(Evaluated {
        verdict: Verdict::from_raw(raw),
        executed,
    })
}

/// Runs a chain of filters, oldest first.
///
/// The strictest action wins; of several filters with that action, the datum of the newest counts
/// (`seccomp_run_filters`, `kernel/seccomp.c`: from the newest on, a later result replaces an earlier one only when its
/// action is a smaller signed number).
///
/// # Errors
/// [`EvalError::EmptyChain`], or as [`eval`] for any filter.
pub fn eval_chain(chain: &[Program], call: &Call) -> Result<Evaluated, EvalError> {
    strictest(chain, call, None)
}

/// [`eval_chain`] for a call that is made at this address: what filters that read the instruction pointer do, too.
///
/// # Errors
/// [`EvalError::EmptyChain`].
pub fn eval_chain_at(
    chain: &[Program],
    call: &Call,
    instruction_pointer: u64,
) -> Result<Evaluated, EvalError> {
    strictest(chain, call, Some(instruction_pointer))
}

fn strictest(
    chain: &[Program],
    call: &Call,
    instruction_pointer: Option<u64>,
) -> Result<Evaluated, EvalError> {
    // ACTION_ONLY in kernel/seccomp.c: the upper half as a signed number
    let action = |raw: u32| (raw & 0xffff_0000).cast_signed();
    let mut strictest: Option<u32> = None;
    let mut executed = 0;
    for program in chain.iter().rev() {
        let (raw, ran) = run(program, call, instruction_pointer)?;
        // a chain has at most 32768 instructions (MAX_INSNS_PER_PATH, kernel/seccomp.c), and a slice cannot make this wrap
        executed += ran;
        if strictest.is_none_or(|so_far| action(raw) < action(so_far)) {
            strictest = Some(raw);
        }
    }
    Ok(Evaluated {
        verdict: Verdict::from_raw(strictest.ok_or(EvalError::EmptyChain)?),
        executed,
    })
}

/// The 32-bit word at a multiple of four below [`DATA_BYTES`] in `struct seccomp_data`, little endian as every
/// [`crate::abi::Abi`] is. `None` for an instruction pointer that is not given.
fn load(call: &Call, instruction_pointer: Option<u64>, offset: u32) -> Option<u32> {
    let half = |of: u64| {
        let bits = if offset.is_multiple_of(8) {
            of
        } else {
            of >> 32
        };
        (bits & 0xffff_ffff) as u32
    };
    match offset {
        0 => Some(call.nr),
        4 => Some(call.arch),
        8 | 12 => instruction_pointer.map(half),
        // 16 <= at < 64, so the index is below 6
        at => Some(half(call.args[((at - 16) / 8) as usize])),
    }
}

/// The returned word and the number of instructions that ran.
fn run(
    program: &Program,
    call: &Call,
    instruction_pointer: Option<u64>,
) -> Result<(u32, u32), EvalError> {
    let instructions = program.instructions();
    let mut a: u32 = 0;
    let mut x: u32 = 0;
    let mut memory = [0u32; MEMORY_WORDS];
    let mut pc: usize = 0;
    let mut executed: u32 = 0;
    loop {
        // Indexing in this loop cannot fail: `Program::new` has checked that jumps stay inside, that the last instruction
        // returns, and that words of memory are below 16. No sum can overflow: a program has at most 4096 instructions.
        let at = pc;
        let i = instructions[at];
        pc += 1;
        executed += 1;
        let test = |holds: bool| usize::from(if holds { i.jt } else { i.jf });
        match i.code {
            code::LD_W_ABS => {
                a = load(call, instruction_pointer, i.k)
                    .ok_or(EvalError::InstructionPointer { at })?;
            }
            code::LD_W_LEN => a = DATA_BYTES,
            code::LD_IMM => a = i.k,
            code::LD_MEM => a = memory[i.k as usize],
            code::ADD_K => a = a.wrapping_add(i.k),
            code::ADD_X => a = a.wrapping_add(x),
            code::SUB_K => a = a.wrapping_sub(i.k),
            code::SUB_X => a = a.wrapping_sub(x),
            code::MUL_K => a = a.wrapping_mul(i.k),
            code::MUL_X => a = a.wrapping_mul(x),
            // `Program::new` has refused a constant zero; for X it is "return 0" (bpf_convert_filter, net/core/filter.c)
            code::DIV_K | code::DIV_X => {
                let divisor = if i.code == code::DIV_K { i.k } else { x };
                match a.checked_div(divisor) {
                    Some(quotient) => a = quotient,
                    None => return Ok((0, executed)),
                }
            }
            code::OR_K => a |= i.k,
            code::OR_X => a |= x,
            code::AND_K => a &= i.k,
            code::AND_X => a &= x,
            // a shift by X uses its low five bits (___bpf_prog_run, kernel/bpf/core.c), as the wrapping shifts do
            code::LSH_K => a = a.wrapping_shl(i.k),
            code::LSH_X => a = a.wrapping_shl(x),
            code::RSH_K => a = a.wrapping_shr(i.k),
            code::RSH_X => a = a.wrapping_shr(x),
            code::NEG => a = a.wrapping_neg(),
            code::XOR_K => a ^= i.k,
            code::XOR_X => a ^= x,
            code::TXA => a = x,
            code::TAX => x = a,
            code::LDX_W_LEN => x = DATA_BYTES,
            code::LDX_IMM => x = i.k,
            code::LDX_MEM => x = memory[i.k as usize],
            code::ST => memory[i.k as usize] = a,
            code::STX => memory[i.k as usize] = x,
            code::JA => pc += i.k as usize,
            code::JEQ_K => pc += test(a == i.k),
            code::JEQ_X => pc += test(a == x),
            code::JGT_K => pc += test(a > i.k),
            code::JGT_X => pc += test(a > x),
            code::JGE_K => pc += test(a >= i.k),
            code::JGE_X => pc += test(a >= x),
            code::JSET_K => pc += test(a & i.k != 0),
            code::JSET_X => pc += test(a & x != 0),
            code::RET_A => return Ok((a, executed)),
            // what is left of the codes that `Program::new` lets through: RET_K
            _ => return Ok((i.k, executed)),
        }
    }
}
