//! Filters as text, with the names of what they compare.
//!
//! For reading only: nothing parses this text.

use crate::abi::{Abi, X32_BIT};
use crate::program::{Instruction, Program, code};
use crate::rule::Verdict;
use crate::table;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write as _;

/// One line for each instruction: index, operation, and a note with the names of the convention `abi`.
#[must_use]
pub fn disassemble(program: &Program, abi: Abi) -> String {
    let instructions = program.instructions();
    let words = loaded_words(instructions);
    let mut out = String::new();
    for (at, (i, word)) in instructions.iter().zip(words).enumerate() {
        let line = operation(at, *i);
        let note = note(*i, word, abi);
        let written = if note.is_empty() {
            writeln!(out, "{at:4}  {line}")
        } else {
            writeln!(out, "{at:4}  {line:<34}; {note}")
        };
        // writing to a string only fails when memory does, which aborts
        written.expect("a string takes everything");
    }
    out
}

/// The offset in `struct seccomp_data` that the accumulator was loaded from, before each instruction; `None` when it was
/// not, or from different ones on different paths.
fn loaded_words(instructions: &[Instruction]) -> Vec<Option<u32>> {
    // outer `None`: no path has come here yet
    let mut before: Vec<Option<Option<u32>>> = alloc::vec![None; instructions.len()];
    let mut words = Vec::with_capacity(instructions.len());
    let mut after_previous = Some(None);
    for (at, i) in instructions.iter().enumerate() {
        let jumped = before.get(at).copied().flatten();
        let here = join(jumped, after_previous);
        let word = here.flatten();
        words.push(word);
        let after = match i.code {
            code::LD_W_ABS => Some(i.k),
            code::AND_K | code::ST | code::STX | code::TAX | code::JA => word,
            _ if is_conditional(i.code) => word,
            _ => None,
        };
        let (skips, falls): ([Option<u32>; 2], bool) = match i.code {
            code::RET_K | code::RET_A => ([None, None], false),
            code::JA => ([Some(i.k), None], false),
            c if is_conditional(c) => ([Some(i.jt.into()), Some(i.jf.into())], false),
            _ => ([None, None], true),
        };
        for skip in skips.into_iter().flatten() {
            // jumps of a valid program stay inside, and a program has at most 4096 instructions
            if let Some(slot) = before.get_mut(at + 1 + skip as usize) {
                *slot = join(*slot, Some(after));
            }
        }
        after_previous = falls.then_some(after);
    }
    words
}

fn join(a: Option<Option<u32>>, b: Option<Option<u32>>) -> Option<Option<u32>> {
    match (a, b) {
        (None, only) | (only, None) => only,
        (Some(a), Some(b)) => Some(a.filter(|_| a == b)),
    }
}

fn is_conditional(code: u16) -> bool {
    matches!(
        code,
        code::JEQ_K
            | code::JEQ_X
            | code::JGT_K
            | code::JGT_X
            | code::JGE_K
            | code::JGE_X
            | code::JSET_K
            | code::JSET_X
    )
}

fn operation(at: usize, i: Instruction) -> String {
    let k = i.k;
    let jump = |name: &str, operand: &str| {
        // targets are at most 4096
        let (holds, fails) = (at + 1 + usize::from(i.jt), at + 1 + usize::from(i.jf));
        format!("{name:<4} {operand}, {holds}, {fails}")
    };
    let hex = format!("{k:#x}");
    match i.code {
        code::LD_W_ABS => format!("ld   [{k}]"),
        code::LD_W_LEN => "ld   len".to_string(),
        code::LDX_W_LEN => "ldx  len".to_string(),
        code::LD_IMM => format!("ld   {hex}"),
        code::LDX_IMM => format!("ldx  {hex}"),
        code::LD_MEM => format!("ld   M[{k}]"),
        code::LDX_MEM => format!("ldx  M[{k}]"),
        code::ST => format!("st   M[{k}]"),
        code::STX => format!("stx  M[{k}]"),
        code::ADD_K => format!("add  {hex}"),
        code::ADD_X => "add  x".to_string(),
        code::SUB_K => format!("sub  {hex}"),
        code::SUB_X => "sub  x".to_string(),
        code::MUL_K => format!("mul  {hex}"),
        code::MUL_X => "mul  x".to_string(),
        code::DIV_K => format!("div  {hex}"),
        code::DIV_X => "div  x".to_string(),
        code::OR_K => format!("or   {hex}"),
        code::OR_X => "or   x".to_string(),
        code::AND_K => format!("and  {hex}"),
        code::AND_X => "and  x".to_string(),
        code::LSH_K => format!("lsh  {k}"),
        code::LSH_X => "lsh  x".to_string(),
        code::RSH_K => format!("rsh  {k}"),
        code::RSH_X => "rsh  x".to_string(),
        code::NEG => "neg".to_string(),
        code::XOR_K => format!("xor  {hex}"),
        code::XOR_X => "xor  x".to_string(),
        code::JA => format!("ja   {}", at + 1 + k as usize),
        code::JEQ_K => jump("jeq", &hex),
        code::JEQ_X => jump("jeq", "x"),
        code::JGT_K => jump("jgt", &hex),
        code::JGT_X => jump("jgt", "x"),
        code::JGE_K => jump("jge", &hex),
        code::JGE_X => jump("jge", "x"),
        code::JSET_K => jump("jset", &hex),
        code::JSET_X => jump("jset", "x"),
        code::TAX => "tax".to_string(),
        code::TXA => "txa".to_string(),
        code::RET_A => "ret  a".to_string(),
        // what is left of the codes that `Program::new` lets through: RET_K
        _ => format!("ret  {k:#010x}"),
    }
}

/// What the operand stands for.
fn note(i: Instruction, word: Option<u32>, abi: Abi) -> String {
    match (i.code, word) {
        (code::LD_W_ABS, _) => match i.k {
            0 => "number".to_string(),
            4 => "architecture".to_string(),
            8 | 12 => "instruction pointer".to_string(),
            // `Program::new` has checked 16 <= k < 64 here
            k => {
                let half = if k.is_multiple_of(8) { "low" } else { "high" };
                format!("argument {}, {half} half", (k - 16) / 8)
            }
        },
        (code::JEQ_K | code::JGE_K | code::JGT_K, Some(0)) => {
            table::name_of(abi, i.k).unwrap_or_default().to_string()
        }
        (code::JSET_K, Some(0)) if i.k == X32_BIT => "x32".to_string(),
        (code::JEQ_K, Some(4)) => Abi::ALL
            .into_iter()
            .find(|known| known.audit_arch() == i.k)
            .map(|known| known.to_string())
            .unwrap_or_default(),
        (code::RET_K, _) => verdict(Verdict::from_raw(i.k)),
        _ => String::new(),
    }
}

fn verdict(verdict: Verdict) -> String {
    match verdict {
        Verdict::KillProcess => "kill process".to_string(),
        Verdict::KillThread => "kill thread".to_string(),
        Verdict::Trap(datum) => format!("trap {datum}"),
        Verdict::Errno(errno) => format!("errno {errno}"),
        Verdict::Ask => "ask".to_string(),
        Verdict::Trace(datum) => format!("trace {datum}"),
        Verdict::Log => "log".to_string(),
        Verdict::Allow => "allow".to_string(),
    }
}
