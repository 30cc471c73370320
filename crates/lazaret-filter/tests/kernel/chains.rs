//! The bound on the lengths of a chain, to the instruction, for every operation code and form of jump.

use super::child::{Outcome, in_child};
use super::{QUERY, number};
use lazaret_filter::chain::{ChainError, MAX_INSTRUCTIONS_PER_CHAIN, check_length, converted};
use lazaret_filter::program::{Instruction, MAX_INSTRUCTIONS, Program, code};
use lazaret_filter::rule::Verdict;

fn stmt(code: u16, k: u32) -> Instruction {
    Instruction::statement(code, k)
}

fn ret() -> Instruction {
    stmt(code::RET_K, Verdict::Allow.to_raw())
}

/// A program that repeats a piece `times` and allows.
fn repeat(piece: &[Instruction], times: usize) -> Program {
    let mut instructions = piece.repeat(times);
    instructions.push(ret());
    Program::new(instructions).expect("valid")
}

/// Pieces that run through to their end, or allow.
fn pieces() -> Vec<Vec<Instruction>> {
    let fill = stmt(code::JA, 0);
    let mut pieces = vec![
        vec![fill],
        vec![ret()],
        vec![
            stmt(code::LD_IMM, Verdict::Allow.to_raw()),
            stmt(code::RET_A, 0),
        ],
        vec![stmt(code::LDX_IMM, 1), stmt(code::DIV_X, 0)],
        vec![stmt(code::ST, 15), stmt(code::LD_MEM, 15)],
        vec![stmt(code::STX, 0), stmt(code::LDX_MEM, 0)],
    ];
    for code in [
        code::LD_W_ABS,
        code::LD_W_LEN,
        code::LDX_W_LEN,
        code::LD_IMM,
        code::LDX_IMM,
        code::ADD_K,
        code::ADD_X,
        code::SUB_K,
        code::SUB_X,
        code::MUL_K,
        code::MUL_X,
        code::DIV_K,
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
        code::TAX,
        code::TXA,
    ] {
        pieces.push(vec![stmt(code, 4)]);
    }
    for code in [
        code::JEQ_K,
        code::JGT_K,
        code::JGE_K,
        code::JSET_K,
        code::JEQ_X,
        code::JGT_X,
        code::JGE_X,
        code::JSET_X,
    ] {
        for k in [0x7fff_ffff, 0x8000_0000] {
            for (jt, jf) in [(1, 0), (0, 1), (1, 2)] {
                pieces.push(vec![Instruction::jump(code, k, jt, jf), fill, fill]);
            }
        }
    }
    pieces
}

/// The lengths are compared at the bound itself: a chain that fills it is loaded, one instruction more is refused.
#[test]
fn kernel_and_check_length_refuse_the_same_chains() {
    let hardened = std::fs::read_to_string("/proc/sys/net/core/bpf_jit_harden");
    if hardened.is_ok_and(|level| level.trim() != "0") {
        eprintln!("skipped: this kernel blinds constants of filters, which lengthens them");
        return;
    }
    for piece in pieces() {
        // as much of the piece as one filter holds, then returns until one more filter can fill the rest
        let mut chain = vec![repeat(&piece, (MAX_INSTRUCTIONS - 1) / piece.len())];
        let prologue_and_return = converted(&repeat(&[], 0));
        let left = loop {
            let left = check_length(&chain).expect("fits").left() - prologue_and_return;
            if left < MAX_INSTRUCTIONS - 1 {
                break left;
            }
            chain.push(repeat(&[ret()], (left / 2 - 8).min(MAX_INSTRUCTIONS - 1)));
        };
        let ja = [stmt(code::JA, 0)];
        let judge = |last: usize| {
            let mut chain = chain.clone();
            chain.push(repeat(&ja, last));
            let outcome = in_child(&chain, number("personality"), [QUERY, 0, 0, 0, 0, 0]);
            (check_length(&chain), outcome)
        };
        let (fits, loaded) = judge(left);
        assert_eq!(
            fits.map(|length| length.instructions),
            Ok(MAX_INSTRUCTIONS_PER_CHAIN)
        );
        assert_eq!(loaded, Outcome::Returned(0), "{piece:?}");
        let (fits, refused) = judge(left + 1);
        let too_long = ChainError::TooLong {
            filter: chain.len(),
            instructions: MAX_INSTRUCTIONS_PER_CHAIN + 1,
        };
        assert_eq!(fits, Err(too_long));
        assert_eq!(refused, Outcome::Refused(libc::ENOMEM), "{piece:?}");
    }
}
