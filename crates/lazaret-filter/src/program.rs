//! A classic BPF program that the kernel would take as a seccomp filter.
//!
//! [`Program`] has passed the kernel's own checks; nothing after it checks again. Loading it is `lazaret-kernel`'s work.

use alloc::vec::Vec;

/// The most instructions a filter may have (`BPF_MAXINSNS`, `include/uapi/linux/bpf_common.h`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Bytes of one instruction (`struct sock_filter`, `include/uapi/linux/filter.h`).
pub const INSTRUCTION_BYTES: usize = 8;

/// `sizeof(struct seccomp_data)`: number, architecture, instruction pointer and six arguments.
pub const DATA_BYTES: u32 = 64;

/// Words of scratch memory (`BPF_MEMWORDS`, `include/uapi/linux/filter.h`).
pub const MEMORY_WORDS: usize = 16;

/// The operation codes that the kernel allows in a seccomp filter, by the names of `include/uapi/linux/filter.h`.
pub mod code {
    #![expect(missing_docs, reason = "the names are the documentation")]

    pub const LD_W_ABS: u16 = 0x20;
    pub const LD_W_LEN: u16 = 0x80;
    pub const LDX_W_LEN: u16 = 0x81;
    pub const LD_IMM: u16 = 0x00;
    pub const LDX_IMM: u16 = 0x01;
    pub const LD_MEM: u16 = 0x60;
    pub const LDX_MEM: u16 = 0x61;
    pub const ST: u16 = 0x02;
    pub const STX: u16 = 0x03;
    pub const ADD_K: u16 = 0x04;
    pub const ADD_X: u16 = 0x0c;
    pub const SUB_K: u16 = 0x14;
    pub const SUB_X: u16 = 0x1c;
    pub const MUL_K: u16 = 0x24;
    pub const MUL_X: u16 = 0x2c;
    pub const DIV_K: u16 = 0x34;
    pub const DIV_X: u16 = 0x3c;
    pub const OR_K: u16 = 0x44;
    pub const OR_X: u16 = 0x4c;
    pub const AND_K: u16 = 0x54;
    pub const AND_X: u16 = 0x5c;
    pub const LSH_K: u16 = 0x64;
    pub const LSH_X: u16 = 0x6c;
    pub const RSH_K: u16 = 0x74;
    pub const RSH_X: u16 = 0x7c;
    pub const NEG: u16 = 0x84;
    pub const XOR_K: u16 = 0xa4;
    pub const XOR_X: u16 = 0xac;
    pub const JA: u16 = 0x05;
    pub const JEQ_K: u16 = 0x15;
    pub const JEQ_X: u16 = 0x1d;
    pub const JGT_K: u16 = 0x25;
    pub const JGT_X: u16 = 0x2d;
    pub const JGE_K: u16 = 0x35;
    pub const JGE_X: u16 = 0x3d;
    pub const JSET_K: u16 = 0x45;
    pub const JSET_X: u16 = 0x4d;
    pub const RET_K: u16 = 0x06;
    pub const RET_A: u16 = 0x16;
    pub const TAX: u16 = 0x07;
    pub const TXA: u16 = 0x87;
}

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instruction {
    /// What to do, see [`code`].
    pub code: u16,
    /// Instructions to skip when a test holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

impl Instruction {
    /// An instruction that is no conditional jump.
    #[must_use]
    pub const fn statement(code: u16, k: u32) -> Instruction {
        Instruction {
            code,
            jt: 0,
            jf: 0,
            k,
        }
    }

    /// A conditional jump.
    #[must_use]
    pub const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
        Instruction { code, jt, jf, k }
    }

    /// The bytes of the `struct sock_filter`, in this machine's byte order.
    #[must_use]
    pub fn to_bytes(self) -> [u8; INSTRUCTION_BYTES] {
        let [code0, code1] = self.code.to_ne_bytes();
        let [k0, k1, k2, k3] = self.k.to_ne_bytes();
        [code0, code1, self.jt, self.jf, k0, k1, k2, k3]
    }

    /// The instruction in these bytes, in this machine's byte order.
    #[must_use]
    pub fn from_bytes(bytes: [u8; INSTRUCTION_BYTES]) -> Instruction {
        let [code0, code1, jt, jf, k0, k1, k2, k3] = bytes;
        Instruction {
            code: u16::from_ne_bytes([code0, code1]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        }
    }
}

/// Why the kernel would refuse a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// `bpf_check_basics_ok`.
    #[error("filter is empty")]
    Empty,
    /// `bpf_check_basics_ok`.
    #[error("filter has {found} instructions, the kernel allows {MAX_INSTRUCTIONS}")]
    TooLong {
        /// Instructions in the program.
        found: usize,
    },
    /// Only for [`Program::from_bytes`].
    #[error("filter has {found} bytes, not a multiple of {INSTRUCTION_BYTES}")]
    Ragged {
        /// Bytes handed in.
        found: usize,
    },
    /// `chk_code_allowed` and `seccomp_check_filter`.
    #[error("instruction {at} has code {code:#06x}, which seccomp does not allow")]
    Code {
        /// Its index.
        at: usize,
        /// Its operation code.
        code: u16,
    },
    /// `seccomp_check_filter`.
    #[error(
        "instruction {at} loads offset {offset}, allowed are multiples of 4 below {DATA_BYTES}"
    )]
    Load {
        /// Its index.
        at: usize,
        /// Its operand.
        offset: u32,
    },
    /// `bpf_check_classic`.
    #[error("instruction {at} divides by zero")]
    DivisionByZero {
        /// Its index.
        at: usize,
    },
    /// `bpf_check_classic`.
    #[error("instruction {at} shifts by {by} bits, at most 31 are allowed")]
    Shift {
        /// Its index.
        at: usize,
        /// Its operand.
        by: u32,
    },
    /// `bpf_check_classic`.
    #[error("instruction {at} names memory word {word}, the last is {}", MEMORY_WORDS - 1)]
    Memory {
        /// Its index.
        at: usize,
        /// Its operand.
        word: u32,
    },
    /// `check_load_and_stores`.
    #[error("instruction {at} reads memory word {word} before every path has written it")]
    Unwritten {
        /// Its index.
        at: usize,
        /// Its operand.
        word: u32,
    },
    /// `bpf_check_classic`.
    #[error("instruction {at} jumps out of the filter of {length} instructions")]
    Jump {
        /// Its index.
        at: usize,
        /// Instructions in the program.
        length: usize,
    },
    /// `bpf_check_classic`.
    #[error("last instruction is no return")]
    NoReturn,
}

/// A filter that the kernel would load.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Program {
    instructions: Vec<Instruction>,
}

impl Program {
    /// Takes a program that passes the kernel's checks.
    ///
    /// # Flow
    /// In the kernel's order: length (`bpf_check_basics_ok`), then per instruction the code, operands and jumps, the last
    /// return, and the use of scratch memory (`bpf_check_classic`, `check_load_and_stores`, all `net/core/filter.c`); then
    /// what seccomp allows of that (`seccomp_check_filter`, `kernel/seccomp.c`).
    ///
    /// # Guarantees
    /// Every path through the program ends at a return inside it: jumps only go forward. No path reads a word of memory
    /// that it has not written, divides by a constant zero or loads outside of `struct seccomp_data`.
    ///
    /// # Errors
    /// The first thing that the kernel would refuse with `EINVAL`.
    pub fn new(instructions: Vec<Instruction>) -> Result<Program, ProgramError> {
        check(&instructions)?;
        Ok(Program { instructions })
    }

    /// Reads an array of `struct sock_filter` in this machine's byte order.
    ///
    /// # Errors
    /// As [`Program::new`], and a length that is no whole number of instructions.
    pub fn from_bytes(bytes: &[u8]) -> Result<Program, ProgramError> {
        let (chunks, rest) = bytes.as_chunks::<INSTRUCTION_BYTES>();
        if !rest.is_empty() {
            return Err(ProgramError::Ragged { found: bytes.len() });
        }
        if chunks.len() > MAX_INSTRUCTIONS {
            return Err(ProgramError::TooLong {
                found: chunks.len(),
            });
        }
        Program::new(
            chunks
                .iter()
                .copied()
                .map(Instruction::from_bytes)
                .collect(),
        )
    }

    /// The array of `struct sock_filter` in this machine's byte order.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.instructions
            .iter()
            .flat_map(|instruction| instruction.to_bytes())
            .collect()
    }

    /// The instructions; never empty.
    #[must_use]
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }
}

fn check(program: &[Instruction]) -> Result<(), ProgramError> {
    if program.is_empty() {
        return Err(ProgramError::Empty);
    }
    if program.len() > MAX_INSTRUCTIONS {
        return Err(ProgramError::TooLong {
            found: program.len(),
        });
    }
    for (at, instruction) in program.iter().enumerate() {
        check_instruction(program.len(), at, *instruction)?;
    }
    match program.last() {
        Some(last) if matches!(last.code, code::RET_K | code::RET_A) => {}
        _ => return Err(ProgramError::NoReturn),
    }
    check_memory(program)
}

/// One instruction by itself: `chk_code_allowed` cut down to `seccomp_check_filter`'s list, and the operand checks of
/// `bpf_check_classic`.
fn check_instruction(length: usize, at: usize, i: Instruction) -> Result<(), ProgramError> {
    // `pc + jt + 1 >= flen` is refused; at < 4096 and jumps are u32, so usize (64 or 32 bits, `checked_add`) holds them.
    let lands = |by: u32| {
        usize::try_from(by)
            .ok()
            .and_then(|by| at.checked_add(by)?.checked_add(1))
            .is_some_and(|target| target < length)
    };
    match i.code {
        code::LD_W_ABS => {
            // seccomp_check_filter: "32-bit aligned and not out of bounds"
            if i.k >= DATA_BYTES || !i.k.is_multiple_of(4) {
                return Err(ProgramError::Load { at, offset: i.k });
            }
        }
        code::DIV_K => {
            if i.k == 0 {
                return Err(ProgramError::DivisionByZero { at });
            }
        }
        code::LSH_K | code::RSH_K => {
            if i.k >= 32 {
                return Err(ProgramError::Shift { at, by: i.k });
            }
        }
        code::LD_MEM | code::LDX_MEM | code::ST | code::STX => {
            // MEMORY_WORDS is 16
            if i.k >= MEMORY_WORDS as u32 {
                return Err(ProgramError::Memory { at, word: i.k });
            }
        }
        code::JA => {
            if !lands(i.k) {
                return Err(ProgramError::Jump { at, length });
            }
        }
        code::JEQ_K
        | code::JEQ_X
        | code::JGT_K
        | code::JGT_X
        | code::JGE_K
        | code::JGE_X
        | code::JSET_K
        | code::JSET_X => {
            if !lands(i.jt.into()) || !lands(i.jf.into()) {
                return Err(ProgramError::Jump { at, length });
            }
        }
        code::LD_W_LEN
        | code::LDX_W_LEN
        | code::LD_IMM
        | code::LDX_IMM
        | code::ADD_K
        | code::ADD_X
        | code::SUB_K
        | code::SUB_X
        | code::MUL_K
        | code::MUL_X
        | code::DIV_X
        | code::OR_K
        | code::OR_X
        | code::AND_K
        | code::AND_X
        | code::LSH_X
        | code::RSH_X
        | code::NEG
        | code::XOR_K
        | code::XOR_X
        | code::RET_K
        | code::RET_A
        | code::TAX
        | code::TXA => {}
        code => return Err(ProgramError::Code { at, code }),
    }
    Ok(())
}

/// `check_load_and_stores`: a word of memory may be read only where every path to the reader has written it.
fn check_memory(program: &[Instruction]) -> Result<(), ProgramError> {
    // One bit per word that is written on every path that reaches the instruction. A bit set of all ones stands for
    // "not reached by a jump yet", as in the kernel.
    let mut reached: Vec<u16> = alloc::vec![u16::MAX; program.len()];
    let mut written: u16 = 0;
    for (at, i) in program.iter().enumerate() {
        // `at` counts `program`, `reached` has its length
        written &= reached[at];
        let mut jump = |by: u32, written: u16| {
            // check_instruction has seen that the target is inside
            reached[at + by as usize + 1] &= written;
        };
        match i.code {
            code::ST | code::STX => written |= 1 << i.k,
            code::LD_MEM | code::LDX_MEM if written & (1 << i.k) == 0 => {
                return Err(ProgramError::Unwritten { at, word: i.k });
            }
            code::JA => {
                jump(i.k, written);
                written = u16::MAX;
            }
            code::JEQ_K
            | code::JEQ_X
            | code::JGT_K
            | code::JGT_X
            | code::JGE_K
            | code::JGE_X
            | code::JSET_K
            | code::JSET_X => {
                jump(i.jt.into(), written);
                jump(i.jf.into(), written);
                written = u16::MAX;
            }
            _ => {}
        }
    }
    Ok(())
}
