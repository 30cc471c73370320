//! What cannot be followed is said, with the instruction that made it; and only when the outcome depends on it.

use crate::{ALLOW, EPERM, always, jump, load, program, ret, statement};
use lazaret_filter::program::{Instruction, code};
use lazaret_filter::prove::{Comparison, ProveError, Reason, Space, prove};
use lazaret_filter::rule::{Call, Verdict};

fn judge(instructions: &[Instruction]) -> Result<Comparison, ProveError> {
    prove(&always(ALLOW), &[program(instructions)])
}

/// The accumulator and X are two arguments.
const TWO: [Instruction; 3] = [
    Instruction::statement(code::LD_W_ABS, 16),
    Instruction::statement(code::TAX, 0),
    Instruction::statement(code::LD_W_ABS, 24),
];

fn with_two(rest: &[Instruction]) -> Vec<Instruction> {
    [&TWO, rest].concat()
}

fn undecided(instruction: usize, reason: Reason) -> Result<Comparison, ProveError> {
    Err(ProveError::Undecided {
        filter: 0,
        instruction,
        reason,
    })
}

#[test]
fn the_instruction_at_fault_is_named() {
    let both = [jump(code::JEQ_K, 77, 0, 1), ret(EPERM), ret(ALLOW)];
    for code in [code::MUL_X, code::DIV_X] {
        let found = judge(&with_two(&[&[statement(code, 0)], &both[..]].concat()));
        assert_eq!(found, undecided(3, Reason::Value { used: 4 }), "{code:#x}");
    }
    // made here, moved through X and memory, used there
    let moved = [
        statement(code::MUL_X, 0),
        statement(code::ST, 5),
        load(0),
        statement(code::LDX_MEM, 5),
        statement(code::ADD_X, 0),
        statement(code::TAX, 0),
        statement(code::TXA, 0),
    ];
    let found = judge(&with_two(&[&moved, &both[..]].concat()));
    assert_eq!(found, undecided(3, Reason::Value { used: 10 }));
    // two arguments compared with each other
    for code in [code::JEQ_X, code::JGT_X, code::JGE_X, code::JSET_X] {
        let compared = [jump(code, 0, 0, 1), ret(EPERM), ret(ALLOW)];
        let found = judge(&with_two(&compared));
        if code == code::JSET_X {
            // too large as well, though less so than the others
            assert!(found.is_err());
        } else {
            assert_eq!(found, undecided(3, Reason::Calls), "{code:#x}");
        }
    }
    // an unknown divisor may be 0, which ends the filter
    let divided = [statement(code::MUL_X, 0), statement(code::TAX, 0), load(0)];
    let rest = [statement(code::DIV_X, 0), ret(ALLOW)];
    let found = judge(&with_two(&[&divided[..], &rest].concat()));
    assert_eq!(found, undecided(3, Reason::Value { used: 6 }));
    // returned
    let found = judge(&with_two(&[
        statement(code::MUL_X, 0),
        statement(code::RET_A, 0),
    ]));
    assert_eq!(found, undecided(3, Reason::Value { used: 4 }));
    let text = found.expect_err("undecided").to_string();
    let said = "undecided: filter 0, instruction 3: its result cannot be followed, and instruction 4 depends on it";
    assert_eq!(text, said);
}

/// The same values, where nobody asks for them.
#[test]
fn what_nobody_depends_on_does_not_matter() {
    let same = [jump(code::JEQ_K, 77, 1, 1), ret(EPERM), ret(ALLOW)];
    let dead = [load(0), jump(code::JEQ_K, 77, 0, 0), ret(ALLOW)];
    let gone = [
        statement(code::AND_K, 0),
        jump(code::JEQ_K, 1, 0, 1),
        ret(EPERM),
        ret(ALLOW),
    ];
    let stored = [
        statement(code::ST, 0),
        load(0),
        jump(code::JEQ_K, 3, 0, 1),
        load(4),
        ret(ALLOW),
    ];
    for rest in [&same[..], &dead, &gone, &stored] {
        let body = [&[statement(code::MUL_X, 0)], rest].concat();
        let found = judge(&with_two(&body)).expect("decided");
        assert!(found.is_equal());
    }
    // behind a test that never holds
    let never = [
        load(0),
        statement(code::AND_K, 0xff),
        jump(code::JGT_K, 0xff, 0, 4),
        load(16),
        statement(code::MUL_X, 0),
        statement(code::RET_A, 0),
        ret(EPERM),
        ret(ALLOW),
    ];
    assert!(judge(&with_two(&never)).expect("decided").is_equal());
}

#[test]
fn too_many_returned_words() {
    // the number as the datum of a trap
    let trap = [
        load(0),
        statement(code::AND_K, 0xffff),
        statement(code::OR_K, Verdict::Trap(0).to_raw()),
        statement(code::RET_A, 0),
    ];
    let found = judge(&trap);
    assert_eq!(found, undecided(3, Reason::Returns { limit: 4096 }));
}

/// As an errno it is cut to 4095: as many verdicts as there can be, each a small set.
#[test]
fn every_errno() {
    let errno = program(&[
        load(0),
        statement(code::AND_K, 0xffff),
        statement(code::OR_K, Verdict::Errno(0).to_raw()),
        statement(code::RET_A, 0),
    ]);
    let mut space = Space::new();
    let meaning = space.of_chain(&[errno]).expect("decided");
    assert_eq!(meaning.verdicts().count(), 4096);
    for (nr, expected) in [
        (0, 0),
        (38, 38),
        (4094, 4094),
        (4095, 4095),
        (4096, 4095),
        (0x1_0001, 1),
    ] {
        let call = Call {
            arch: 1,
            nr,
            args: [0; 6],
        };
        assert_eq!(
            space.verdict(&meaning, &call, 0),
            Ok(Verdict::Errno(expected))
        );
    }
}

/// Arithmetic with constants is followed exactly.
#[test]
fn constants_are_no_obstacle() {
    for (code, k, from, to) in [
        (code::ADD_K, 0xffff_fff0, 100, 84),
        (code::SUB_K, 7, 3, 0xffff_fffc),
        (code::MUL_K, 3, 0x5555_5556, 2),
        (code::MUL_K, 0xffff_ffff, 5, 0xffff_fffb),
        (code::DIV_K, 10, 1234, 123),
        (code::DIV_K, 0xffff_ffff, 0xffff_ffff, 1),
        (code::NEG, 0, 1, 0xffff_ffff),
        (code::LSH_K, 31, 3, 0x8000_0000),
        (code::RSH_K, 4, 0xabc, 0xab),
        (code::XOR_K, 0xff, 0xf0, 0x0f),
    ] {
        let filter = program(&[
            load(16),
            statement(code, k),
            jump(code::JEQ_K, to, 0, 1),
            ret(EPERM),
            ret(ALLOW),
        ]);
        let comparison = prove(&always(ALLOW), std::slice::from_ref(&filter)).expect("decided");
        assert!(!comparison.is_equal());
        let d = &comparison.stricter[0];
        let mut space = Space::new();
        let meaning = space.of_chain(&[filter]).expect("decided");
        let mut call = d.call;
        call.args[0] = from;
        assert_eq!(space.verdict(&meaning, &call, 0), Ok(EPERM), "{code:#x}");
    }
}
