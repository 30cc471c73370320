//! Filters made to exhaust a prover end in an error, in bounded memory.

use lazaret_filter::program::{Instruction, MAX_INSTRUCTIONS, Program, code};
use lazaret_filter::prove::{ProveError, prove};
use lazaret_filter::rule::{RuleTable, Verdict};

/// Kilobytes that this process may ever hold: the tests here run one after the other.
const MOST: u64 = 300 << 10;

#[path = "prove/random.rs"]
mod random;
use random::SplitMix;

const EPERM: Verdict = Verdict::Errno(1);
const ALLOW: Verdict = Verdict::Allow;

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

/// The filter has no answer, and finding that took no more memory.
fn check(instructions: Vec<Instruction>) {
    let filter = Program::new(instructions).expect("the kernel would take it");
    let table = RuleTable {
        abis: [].into(),
        foreign: Verdict::Allow,
    };
    let error = prove(&table, &[filter]).expect_err("too much");
    let undecided = matches!(error, ProveError::Undecided { filter: 0, .. });
    assert!(undecided, "{error}");
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|text| text.trim().strip_suffix(" kB"));
    let peak: u64 = peak.expect("a peak").parse().expect("a number");
    println!("{error}; {peak} kB");
    assert!(peak < MOST, "{peak} kB");
}

/// One test, so that nothing else holds memory meanwhile.
#[test]
fn hostile_filters() {
    check(products());
    check(sums());
    check(masks());
}

fn products() -> Vec<Instruction> {
    // every value is unknown, and every join merges it; the last jump needs it
    let mut body = vec![load(16), statement(code::TAX, 0)];
    while body.len() < MAX_INSTRUCTIONS - 3 {
        let offset = 16 + body.len() as u32 % 12 * 4;
        body.extend([
            load(offset),
            statement(code::MUL_X, 0),
            jump(code::JA, 0, 0, 0),
        ]);
    }
    body.truncate(MAX_INSTRUCTIONS - 3);
    body.extend([jump(code::JEQ_K, 7, 0, 1), ret(EPERM), ret(ALLOW)]);
    body
}

fn sums() -> Vec<Instruction> {
    // computed words that are all live, chosen by jumps on other words
    let mut random = SplitMix(1);
    let mut body: Vec<Instruction> = (0..16).map(|word| statement(code::ST, word)).collect();
    while body.len() + 12 < MAX_INSTRUCTIONS {
        let word = random.next() as u32 % 16;
        body.extend([
            load(16 + random.next() as u32 % 12 * 4),
            jump(code::JSET_K, random.next() as u32, 0, 3),
            statement(code::LDX_MEM, word),
            statement(code::ADD_X, 0),
            statement(code::ST, random.next() as u32 % 16),
        ]);
    }
    body.extend([
        statement(code::LD_MEM, 0),
        jump(code::JGT_K, 77, 0, 1),
        ret(EPERM),
        ret(ALLOW),
    ]);
    body
}

fn masks() -> Vec<Instruction> {
    // nothing but tests of bits of every argument, with the sets of calls growing from each to the next
    let mut random = SplitMix(2);
    let mut body = Vec::new();
    while body.len() + 4 < MAX_INSTRUCTIONS {
        body.extend([
            load(16 + random.next() as u32 % 12 * 4),
            jump(
                code::JSET_K,
                random.next() as u32,
                (random.next() % 8 * 2) as u8,
                (random.next() % 8 * 2) as u8,
            ),
        ]);
    }
    // where the last jumps land
    body.truncate(MAX_INSTRUCTIONS - 20);
    body.extend((0..10).flat_map(|_| [ret(EPERM), ret(ALLOW)]));
    body
}
