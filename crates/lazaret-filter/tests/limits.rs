//! Both sides of every check that the kernel makes of a filter.

use lazaret_filter::program::{Instruction, Program, ProgramError, code};

fn stmt(code: u16, k: u32) -> Instruction {
    Instruction::statement(code, k)
}

const ALLOW: u32 = 0x7fff_0000;

fn ret() -> Instruction {
    stmt(code::RET_K, ALLOW)
}

fn check(instructions: Vec<Instruction>, expected: Result<(), ProgramError>) {
    assert_eq!(
        Program::new(instructions.clone()).map(|_| ()),
        expected,
        "{instructions:?}"
    );
}

#[test]
fn length() {
    check(vec![], Err(ProgramError::Empty));
    check(vec![ret()], Ok(()));
    check(vec![ret(); 4096], Ok(()));
    check(
        vec![ret(); 4097],
        Err(ProgramError::TooLong { found: 4097 }),
    );
}

#[test]
fn last_instruction() {
    check(vec![stmt(code::LD_IMM, 0), stmt(code::RET_A, 0)], Ok(()));
    check(
        vec![ret(), stmt(code::LD_IMM, 0)],
        Err(ProgramError::NoReturn),
    );
}

#[test]
fn codes() {
    // BPF_MOD, BPF_RET|BPF_X, LD|B|ABS, LD|W|IND, LDX|B|MSH, an unknown bit
    for bad in [0x94, 0x9c, 0x0e, 0x30, 0x28, 0x40, 0xb1, 0x8000] {
        check(
            vec![stmt(bad, 0), ret()],
            Err(ProgramError::Code { at: 0, code: bad }),
        );
    }
    for good in [
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
        code::DIV_X,
        code::OR_K,
        code::OR_X,
        code::AND_K,
        code::AND_X,
        code::LSH_X,
        code::RSH_X,
        code::NEG,
        code::XOR_K,
        code::XOR_X,
        code::TAX,
        code::TXA,
        code::RET_A,
    ] {
        check(vec![stmt(good, 0), ret()], Ok(()));
    }
}

#[test]
fn loads() {
    for good in [0, 4, 8, 60] {
        check(vec![stmt(code::LD_W_ABS, good), ret()], Ok(()));
    }
    for bad in [2, 61, 64, 0xffff_fffc] {
        check(
            vec![stmt(code::LD_W_ABS, bad), ret()],
            Err(ProgramError::Load { at: 0, offset: bad }),
        );
    }
}

#[test]
fn operands() {
    check(vec![stmt(code::DIV_K, 1), ret()], Ok(()));
    check(
        vec![stmt(code::DIV_K, 0), ret()],
        Err(ProgramError::DivisionByZero { at: 0 }),
    );
    for shift in [code::LSH_K, code::RSH_K] {
        check(vec![stmt(shift, 31), ret()], Ok(()));
        check(
            vec![stmt(shift, 32), ret()],
            Err(ProgramError::Shift { at: 0, by: 32 }),
        );
    }
    for store in [code::ST, code::STX] {
        check(vec![stmt(store, 15), ret()], Ok(()));
        check(
            vec![stmt(store, 16), ret()],
            Err(ProgramError::Memory { at: 0, word: 16 }),
        );
    }
}

#[test]
fn jumps() {
    let jeq = |jt, jf| Instruction::jump(code::JEQ_K, 0, jt, jf);
    check(vec![jeq(1, 0), ret(), ret()], Ok(()));
    check(vec![jeq(0, 1), ret(), ret()], Ok(()));
    let outside = Err(ProgramError::Jump { at: 0, length: 3 });
    check(vec![jeq(2, 0), ret(), ret()], outside.clone());
    check(vec![jeq(0, 2), ret(), ret()], outside.clone());
    check(vec![stmt(code::JA, 1), ret(), ret()], Ok(()));
    check(vec![stmt(code::JA, 2), ret(), ret()], outside.clone());
    // the kernel computes in 32 bits without an overflow: `k >= flen - pc - 1`
    check(vec![stmt(code::JA, u32::MAX), ret(), ret()], outside);
}

#[test]
fn memory_is_written_before_it_is_read() {
    let (st, ld) = (stmt(code::ST, 3), stmt(code::LD_MEM, 3));
    check(vec![st, ld, ret()], Ok(()));
    check(
        vec![stmt(code::ST, 2), ld, ret()],
        Err(ProgramError::Unwritten { at: 1, word: 3 }),
    );
    // written on one of two paths only
    let jeq = Instruction::jump(code::JEQ_K, 0, 0, 1);
    check(
        vec![jeq, st, ld, ret()],
        Err(ProgramError::Unwritten { at: 2, word: 3 }),
    );
    // written on both
    check(
        vec![
            Instruction::jump(code::JEQ_K, 0, 0, 2),
            st,
            stmt(code::JA, 1),
            stmt(code::STX, 3),
            ld,
            ret(),
        ],
        Ok(()),
    );
}

#[test]
fn bytes() {
    let program = Program::new(vec![stmt(code::LD_W_ABS, 4), ret()]).expect("valid");
    let bytes = program.to_bytes();
    assert_eq!(Program::from_bytes(&bytes), Ok(program));
    assert_eq!(
        Program::from_bytes(&bytes[..15]),
        Err(ProgramError::Ragged { found: 15 })
    );
    assert_eq!(Program::from_bytes(&[]), Err(ProgramError::Empty));
    assert_eq!(
        Program::from_bytes(&vec![0; 4097 * 8]),
        Err(ProgramError::TooLong { found: 4097 })
    );
}
