//! Whether the kernel takes a chain of filters: the bound on their lengths together.
//!
//! The kernel does not count the instructions that it was given but those that it made of them, and some become several. This
//! module counts like it and converts nothing.

use crate::program::{Instruction, Program, code};

/// The most instructions on a path of filters (`MAX_INSNS_PER_PATH`, `kernel/seccomp.c`: `(1 << 18) / sizeof(struct
/// sock_filter)`).
pub const MAX_INSTRUCTIONS_PER_CHAIN: usize = (1 << 18) / crate::program::INSTRUCTION_BYTES;

/// What each filter costs beside its instructions, the newest left out (`seccomp_attach_filter`, `kernel/seccomp.c`).
const PENALTY: usize = 4;

/// Instructions before the first converted one: `A` and `X` become 0, and the context moves to where it is expected
/// (`bpf_convert_filter`, `net/core/filter.c`).
const PROLOGUE: usize = 3;

/// The length of a chain that the kernel takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// As the kernel counts: converted, with the penalty for each filter but the newest.
    pub instructions: usize,
    /// [`MAX_INSTRUCTIONS_PER_CHAIN`].
    pub limit: usize,
}

impl Length {
    /// Instructions, as [`converted`] counts them, that one more filter may have: the new filter makes the penalty of the
    /// one before it count.
    #[must_use]
    pub const fn left(self) -> usize {
        self.limit.saturating_sub(self.instructions + PENALTY)
    }
}

/// Why the kernel would refuse a chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// `seccomp_attach_filter` returns `ENOMEM`.
    #[error(
        "chain has {instructions} converted instructions up to filter {filter}, the kernel allows {MAX_INSTRUCTIONS_PER_CHAIN}"
    )]
    TooLong {
        /// The first filter that does not fit, counted from 0, the oldest.
        filter: usize,
        /// As the kernel counts when it is to attach that filter.
        instructions: usize,
    },
}

/// The length of a chain, oldest filter first.
///
/// ```
/// use lazaret_filter::chain::{check_length, converted};
/// use lazaret_filter::program::{Instruction, Program, code};
///
/// let allow = Program::new(vec![Instruction::statement(code::RET_K, 0x7fff_0000)])?;
/// // three instructions before, and two for the return
/// assert_eq!(converted(&allow), 5);
/// let length = check_length(&[allow.clone(), allow])?;
/// assert_eq!((length.instructions, length.limit), (5 + 4 + 5, 32768));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Assumptions
/// The kernel does not blind constants in filters: with `net.core.bpf_jit_harden` at 2, and at 1 for filters of unprivileged
/// processes, each instruction with a constant becomes several more (`bpf_jit_blind_constants`, `kernel/bpf/core.c`), and
/// chains are refused earlier than this says.
///
/// # Errors
/// [`ChainError::TooLong`].
pub fn check_length(chain: &[Program]) -> Result<Length, ChainError> {
    let mut instructions = 0;
    for (filter, program) in chain.iter().enumerate() {
        // Every sum before was at most the limit, and a program has at most 4096 instructions of at most 5 each.
        instructions += converted(program) + if filter > 0 { PENALTY } else { 0 };
        if instructions > MAX_INSTRUCTIONS_PER_CHAIN {
            return Err(ChainError::TooLong {
                filter,
                instructions,
            });
        }
    }
    Ok(Length {
        instructions,
        limit: MAX_INSTRUCTIONS_PER_CHAIN,
    })
}

/// The number of instructions that the kernel makes of a filter (`bpf_convert_filter`, `net/core/filter.c`).
#[must_use]
pub fn converted(program: &Program) -> usize {
    let each = program.instructions().iter().map(|i| instruction(*i));
    PROLOGUE + each.sum::<usize>()
}

fn instruction(i: Instruction) -> usize {
    match i.code {
        // the value goes to the result's register first
        code::RET_K => 2,
        // the divisor is looked at first: cut to 32 bits, compared with 0, and "return 0" in two instructions
        code::DIV_X => 5,
        code::JEQ_K | code::JGT_K | code::JGE_K | code::JSET_K => {
            // constants of eBPF are signed: one with the highest bit goes to a register first
            let constant = usize::from(i.k.cast_signed() < 0);
            constant + jump(i)
        }
        code::JEQ_X | code::JGT_X | code::JGE_X | code::JSET_X => jump(i),
        _ => 1,
    }
}

/// A jump of eBPF goes one way and falls through the other.
fn jump(i: Instruction) -> usize {
    // the opposite of a test of bits has no instruction
    let has_opposite = !matches!(i.code, code::JSET_K | code::JSET_X);
    match (i.jt, i.jf) {
        (_, 0) => 1,
        (0, _) if has_opposite => 1,
        _ => 2,
    }
}
