//! Filters as text, with the names of what they compare.
//!
//! Works on any filter, whoever made it: what a line compares follows from the paths that lead to it. For reading only:
//! nothing parses this text.

mod facts;

use crate::abi::{Abi, X32_BIT};
use crate::program::{Instruction, Program, code};
use crate::rule::Verdict;
use crate::{constants, table};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write as _;
use facts::{Facts, Word};

/// Calls that a note lists before it only counts them.
const LISTED: usize = 3;

/// One line for each instruction: index, operation with the indices that jumps lead to, and a note.
///
/// Numbers have the names of the convention that was tested on the way to the line; `abi` is only for lines before or
/// without such a test. Where the number is known, arguments and their values have names too.
#[must_use]
pub fn disassemble(program: &Program, abi: Abi) -> String {
    let instructions = program.instructions();
    let mut out = String::new();
    for (at, (i, facts)) in instructions.iter().zip(facts::before(program)).enumerate() {
        let line = operation(at, *i);
        let note = facts.map_or("unreachable".to_string(), |facts| note(*i, &facts, abi));
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
fn note(i: Instruction, facts: &Facts, abi: Abi) -> String {
    match (i.code, facts.word) {
        (code::LD_W_ABS, _) => loaded(i.k, facts, abi),
        (code::RET_K, _) => verdict(Verdict::from_raw(i.k)),
        (code::JEQ_K, Some(Word { offset: 4, .. })) => architecture(i.k),
        (code::JSET_K | code::JGE_K, Some(Word { offset: 0, .. }))
            if i.k == X32_BIT && facts.may_be_x86() =>
        {
            "x32".to_string()
        }
        (code::JEQ_K, Some(word)) if word.offset == 0 && word.is_whole() => number(i.k, facts, abi),
        (code::JGE_K, Some(word)) if word.offset == 0 && word.is_whole() => {
            format!("from {}", number(i.k, facts, abi))
        }
        (code::JGT_K, Some(word)) if word.offset == 0 && word.is_whole() => {
            format!("after {}", number(i.k, facts, abi))
        }
        (code::AND_K | code::JSET_K, Some(Word { offset, .. })) if offset >= 16 => {
            format!("bits of {}", half(offset, facts, abi))
        }
        (code::JEQ_K | code::JGE_K | code::JGT_K, Some(word)) if word.offset >= 16 => {
            match (value_name(i.k, word, facts, abi), i.code) {
                (None, _) => String::new(),
                (Some(name), code::JEQ_K) => name.to_string(),
                (Some(name), code::JGE_K) => format!("from {name}"),
                (Some(name), _) => format!("after {name}"),
            }
        }
        _ => String::new(),
    }
}

/// A load: what, and of which calls.
fn loaded(offset: u32, facts: &Facts, abi: Abi) -> String {
    match offset {
        0 => match facts.single_arch() {
            Some(arch) => format!("number, {}", architecture(arch)),
            None => "number".to_string(),
        },
        4 => "architecture".to_string(),
        8 => "instruction pointer, low half".to_string(),
        12 => "instruction pointer, high half".to_string(),
        _ => {
            let calls = calls(facts, abi);
            let half = half(offset, facts, abi);
            match &calls[..] {
                [] => half,
                [call] => format!("{call}: {half}"),
                [..] if calls.len() <= LISTED => format!("{}: {half}", calls.join(", ")),
                // `LISTED` is below the length here
                [..] => {
                    let listed = calls[..LISTED].join(", ");
                    format!("{listed} and {} more: {half}", calls.len() - LISTED)
                }
            }
        }
    }
}

/// Half of an argument; `Program::new` has checked that the offset is below 64, and callers that it is at least 16.
fn half(offset: u32, facts: &Facts, abi: Abi) -> String {
    let position = (offset - 16) / 8;
    let half = if offset.is_multiple_of(8) {
        "low"
    } else {
        "high"
    };
    match argument(position, facts, abi) {
        Some((_, name)) => format!("argument {position} `{name}`, {half} half"),
        None => format!("argument {position}, {half} half"),
    }
}

/// The call and the name of an argument, when all calls that can be here agree.
fn argument(position: u32, facts: &Facts, abi: Abi) -> Option<(&'static str, &'static str)> {
    let mut agreed = None;
    for (arch, nr) in facts.calls(abi)? {
        let (of, nr) = Abi::of(arch, nr)?;
        let call = table::name_of(of, nr)?;
        // positions of arguments are known for the 64-bit conventions
        if of == Abi::I386 {
            continue;
        }
        let arg = table::args_of(call)?.get(usize::try_from(position).ok()?)?;
        if agreed.is_some_and(|agreed| agreed != (call, arg.name)) {
            return None;
        }
        agreed = Some((call, arg.name));
    }
    agreed
}

/// The name of an argument's value.
fn value_name(k: u32, word: Word, facts: &Facts, abi: Abi) -> Option<&'static str> {
    // values with names fit into the low half
    if !word.offset.is_multiple_of(8) || !word.is_whole() {
        return None;
    }
    let (call, arg) = argument((word.offset - 16) / 8, facts, abi)?;
    constants::name(call, arg, k.into())
}

/// A number by the convention that was tested.
fn number(nr: u32, facts: &Facts, abi: Abi) -> String {
    let arch = facts.single_arch().unwrap_or(abi.audit_arch());
    match Abi::of(arch, nr) {
        // what a tracer sets to skip a call; libseccomp's filters look for it
        _ if nr == u32::MAX => "-1".to_string(),
        // no call: a border between conventions
        _ if nr >= X32_BIT << 1 => format!("{nr:#x}"),
        Some((Abi::X32, nr)) => format!("{}, x32", table::display(Abi::X32, nr)),
        Some((of, nr)) => table::display(of, nr).to_string(),
        None => nr.to_string(),
    }
}

/// The names of the calls that can be here, when they are few enough to have been told apart. A call of several
/// conventions is there once.
fn calls(facts: &Facts, abi: Abi) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (arch, nr) in facts.calls(abi).unwrap_or_default() {
        let name = match Abi::of(arch, nr) {
            Some((of, nr)) => table::display(of, nr).to_string(),
            None => nr.to_string(),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn architecture(arch: u32) -> String {
    // x86-64 and x32 have one word; the first is named
    let known = Abi::ALL.into_iter().find(|abi| abi.audit_arch() == arch);
    known.map_or_else(|| format!("architecture {arch:#x}"), |abi| abi.to_string())
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
