//! Filters that nobody would write: every instruction that the kernel accepts, joined at random. And calls on which they go
//! one way or the other.

use crate::random::SplitMix;
use lazaret_filter::abi::Abi;
use lazaret_filter::program::{Instruction, Program, code};
use lazaret_filter::rule::{Call, Verdict};
use proptest::prelude::*;
use proptest::sample::select;

/// Words of memory that a random filter uses; it begins by writing them.
const MEMORY: u32 = 3;

pub(crate) const COMPUTE: [u16; 20] = [
    code::ADD_K,
    code::ADD_X,
    code::SUB_K,
    code::SUB_X,
    code::MUL_K,
    code::MUL_X,
    code::DIV_K,
    code::DIV_X,
    code::OR_K,
    code::OR_X,
    code::AND_K,
    code::AND_X,
    code::LSH_K,
    code::LSH_X,
    code::RSH_K,
    code::RSH_X,
    code::NEG,
    code::XOR_K,
    code::XOR_X,
    code::TXA,
];

const MOVE: [u16; 9] = [
    code::TAX,
    code::TXA,
    code::ST,
    code::STX,
    code::LD_MEM,
    code::LDX_MEM,
    code::LD_IMM,
    code::LDX_IMM,
    code::LD_W_LEN,
];

pub(crate) const JUMP: [u16; 9] = [
    code::JEQ_K,
    code::JGT_K,
    code::JGE_K,
    code::JSET_K,
    code::JEQ_X,
    code::JGT_X,
    code::JGE_X,
    code::JSET_X,
    code::JA,
];

/// Small numbers, edges of bits, and the words that a seccomp filter meets.
const CONSTANTS: [u32; 18] = [
    0,
    1,
    2,
    3,
    5,
    7,
    10,
    16,
    31,
    32,
    0xff,
    0x100,
    0xffff,
    0x7fff_0000,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    0xc000_003e,
];

fn constant() -> impl Strategy<Value = u32> {
    prop_oneof![6 => select(&CONSTANTS[..]), 1 => any::<u32>()]
}

fn verdict() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => select(vec![
            Verdict::Allow.to_raw(),
            Verdict::Errno(1).to_raw(),
            Verdict::Errno(38).to_raw(),
            Verdict::Ask.to_raw(),
            Verdict::KillProcess.to_raw(),
        ]),
        // actions that the kernel does not know, errnos that it cuts, data that it ignores
        1 => select(vec![0x7ffd_0001, 0x0001_0000, 0x8001_0000, 0x0005_ffff, 0x7fff_0007, 7]),
    ]
}

/// Any valid filter of up to about 40 instructions.
pub(crate) fn program() -> impl Strategy<Value = Program> {
    // few words for each filter, or hardly any would compare a word with itself
    let words = prop::collection::vec(0u32..16, 1..4);
    let body = prop::collection::vec(
        (
            0u8..14,
            any::<prop::sample::Index>(),
            constant(),
            0u8..6,
            0u8..6,
            verdict(),
        ),
        1..36,
    );
    (words, body, verdict()).prop_map(|(words, body, last)| {
        let mut program = vec![Instruction::statement(code::LD_W_ABS, words[0] * 4)];
        program.extend((0..MEMORY).map(|word| Instruction::statement(code::ST, word)));
        let length = body.len();
        for (at, (kind, pick, k, jt, jf, raw)) in body.into_iter().enumerate() {
            // instructions that follow this one, with the last return
            let room = length - at;
            let by = |by: u8| by.min((room - 1).min(255) as u8);
            program.push(match kind {
                0..=2 => Instruction::statement(code::LD_W_ABS, pick.get(&words) * 4),
                3..=5 => {
                    let code = *pick.get(&COMPUTE);
                    let k = match code {
                        code::DIV_K => k.max(1),
                        code::LSH_K | code::RSH_K => k % 32,
                        _ => k,
                    };
                    Instruction::statement(code, k)
                }
                6..=7 => {
                    let code = *pick.get(&MOVE);
                    let memory =
                        matches!(code, code::ST | code::STX | code::LD_MEM | code::LDX_MEM);
                    Instruction::statement(code, if memory { k % MEMORY } else { k })
                }
                8..=11 => match *pick.get(&JUMP) {
                    code::JA => Instruction::statement(code::JA, by(jt).into()),
                    code => Instruction::jump(code, k, by(jt), by(jf)),
                },
                12 => Instruction::statement(code::RET_K, raw),
                _ => Instruction::statement(
                    if jt == 0 {
                        code::RET_A
                    } else {
                        code::LDX_W_LEN
                    },
                    0,
                ),
            });
        }
        program.push(Instruction::statement(code::RET_K, last));
        Program::new(program).expect("made to be valid")
    })
}

/// Calls whose words are near the constants of a filter, or equal to each other, or anything; with instruction pointers.
pub(crate) fn calls(programs: &[Program], seed: u64, count: usize) -> Vec<(Call, u64)> {
    let mut random = SplitMix(seed);
    let mut words: Vec<u32> = programs
        .iter()
        .flat_map(Program::instructions)
        .map(|i| i.k)
        .chain(CONSTANTS)
        .chain(Abi::ALL.into_iter().map(Abi::audit_arch))
        .collect();
    words.sort_unstable();
    words.dedup();
    let word = move |random: &mut SplitMix| {
        let near = words[random.next() as usize % words.len()];
        match random.next() % 8 {
            0 => near.wrapping_add(1),
            1 => near.wrapping_sub(1),
            2 => !near,
            3 => near ^ 1 << (random.next() % 32),
            4 => random.next() as u32,
            5 => random.next() as u32 % 64,
            _ => near,
        }
    };
    (0..count)
        .map(|_| {
            let mut long = || u64::from(word(&mut random)) << 32 | u64::from(word(&mut random));
            let args = std::array::from_fn(|_| long());
            let first = long();
            let call = Call {
                arch: (first >> 32) as u32,
                nr: first as u32,
                args,
            };
            (call, long())
        })
        .collect()
}
