//! What the prover says of filters, held against what they do.

mod chains;
mod differences;
mod laws;
mod lists;
mod mutations;
mod programs;
mod random;
#[path = "../laws/strategies.rs"]
mod strategies;
mod undecided;

use lazaret_filter::abi::{Abi, X32_BIT};
use lazaret_filter::program::{Instruction, Program, code};
use lazaret_filter::rule::{Entry, Numbers, RuleTable, Verdict};

const ALLOW: Verdict = Verdict::Allow;
const EPERM: Verdict = Verdict::Errno(1);
const KILL: Verdict = Verdict::KillThread;

/// The architecture word of x86-64.
const X86_64: u32 = 0xc000_003e;

fn load(offset: u32) -> Instruction {
    Instruction::statement(code::LD_W_ABS, offset)
}

fn statement(code: u16, k: u32) -> Instruction {
    Instruction::statement(code, k)
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction::jump(code, k, jt, jf)
}

fn ret(verdict: Verdict) -> Instruction {
    Instruction::statement(code::RET_K, verdict.to_raw())
}

fn program(instructions: &[Instruction]) -> Program {
    Program::new(instructions.to_vec()).expect("the kernel would take it")
}

/// Every call by every convention gets the same.
fn always(verdict: Verdict) -> RuleTable {
    RuleTable {
        abis: [].into(),
        foreign: verdict,
    }
}

/// Number 0 is allowed, other numbers fail with EPERM, other conventions are killed.
fn zero_only() -> RuleTable {
    let numbers = Numbers {
        entries: [(0, Entry::always(ALLOW))].into(),
        otherwise: EPERM,
    };
    RuleTable::single(Abi::X86_64, numbers, KILL)
}

/// The filter of [`zero_only`], with what it says at each place.
fn filter(allowed: Verdict, other: Verdict, foreign: Verdict) -> Vec<Instruction> {
    vec![
        load(4),
        jump(code::JEQ_K, X86_64, 0, 5),
        load(0),
        jump(code::JSET_K, X32_BIT, 3, 0),
        jump(code::JEQ_K, 0, 0, 1),
        ret(allowed),
        ret(other),
        ret(foreign),
    ]
}
