//! Several filters, the instruction pointer, and the number that is no call.

use crate::{ALLOW, EPERM, KILL, X86_64, always, filter, jump, load, program, ret, zero_only};
use lazaret_filter::abi::{Abi, X32_BIT};
use lazaret_filter::compile::compile;
use lazaret_filter::program::{Instruction, Program, code};
use lazaret_filter::prove::{Comparison, NO_CALL, ProveError, Space, prove};
use lazaret_filter::rule::Verdict;

const ENOSYS: Verdict = Verdict::Errno(38);

fn raw(word: u32) -> Program {
    program(&[Instruction::statement(code::RET_K, word)])
}

fn word(verdict: Verdict) -> Program {
    raw(verdict.to_raw())
}

#[test]
fn precedence_is_the_kernels() {
    let (trap, trace) = (Verdict::Trap(3), Verdict::Trace(1));
    for (oldest_first, expected) in [
        (&[ALLOW, EPERM, ALLOW][..], EPERM),
        // of equal actions the newest filter's datum
        (&[EPERM, ENOSYS], ENOSYS),
        (&[ENOSYS, EPERM], EPERM),
        (&[trap, EPERM, KILL], KILL),
        (&[Verdict::KillProcess, KILL], Verdict::KillProcess),
        (&[Verdict::Log, trace, Verdict::Ask], Verdict::Ask),
    ] {
        let chain: Vec<Program> = oldest_first.iter().map(|&v| word(v)).collect();
        let comparison = prove(&always(expected), &chain).expect("decided");
        assert!(comparison.is_equal(), "{oldest_first:?}: {comparison:?}");
        let comparison = prove(&always(ALLOW), &chain).expect("decided");
        assert!(!comparison.is_equal());
    }
    // an action that the kernel does not know kills, but only when its number is the smallest
    let unknown = 0x7ffd_0000;
    assert!(
        prove(&always(EPERM), &[raw(unknown), word(EPERM)])
            .expect("decided")
            .is_equal()
    );
    let kills = prove(&always(Verdict::KillProcess), &[raw(unknown), word(ALLOW)]);
    assert!(kills.expect("decided").is_equal());
}

#[test]
fn parts_of_a_chain_add_up() {
    // each filter lacks what the other has
    let table = zero_only();
    let whole = compile(&table).expect("fits");
    let part = program(&filter(ALLOW, EPERM, ALLOW));
    let other = program(&filter(ALLOW, ALLOW, KILL));
    assert!(
        prove(&table, &[part.clone(), other.clone()])
            .expect("decided")
            .is_equal()
    );
    assert!(
        prove(&table, &[whole.clone(), part.clone(), word(ALLOW)])
            .expect("decided")
            .is_equal()
    );
    assert!(
        !prove(&table, &[part])
            .expect("decided")
            .is_at_least_as_strict()
    );
    assert!(
        !prove(&table, &[other])
            .expect("decided")
            .is_at_least_as_strict()
    );
    assert_eq!(prove(&table, &[]), Err(ProveError::EmptyChain));
    // the fault is in the second filter
    let hostile = program(&[
        load(16),
        Instruction::statement(code::TAX, 0),
        load(24),
        jump(code::JEQ_X, 0, 0, 1),
        ret(EPERM),
        ret(ALLOW),
    ]);
    let found = prove(&table, &[whole, hostile]);
    let Err(ProveError::Undecided {
        filter: 1,
        instruction: 3,
        ..
    }) = found
    else {
        panic!("{found:?}");
    };
}

#[test]
fn the_instruction_pointer_is_an_input() {
    let from = |offset, k| {
        program(&[
            load(offset),
            jump(code::JGE_K, k, 0, 1),
            ret(ALLOW),
            ret(EPERM),
        ])
    };
    for (filter, when, first) in [
        (
            from(8, 0x1000),
            "instruction pointer & 0xffffffff >= 0x1000",
            0x1000,
        ),
        (
            from(12, 0x7f00),
            "instruction pointer >= 0x7f0000000000",
            0x7f00_0000_0000,
        ),
    ] {
        let comparison = prove(&always(EPERM), &[filter]).expect("decided");
        assert_eq!(comparison.looser.len(), 10);
        for d in comparison.looser {
            assert_eq!(d.instruction_pointer, Some(first));
            assert_eq!(d.when.to_string(), when);
        }
    }
    // read, and of no consequence
    let read = program(&[load(8), jump(code::JEQ_K, 1, 0, 0), ret(EPERM)]);
    assert!(prove(&always(EPERM), &[read]).expect("decided").is_equal());
    // differences elsewhere have none
    let comparison = prove(&zero_only(), &[program(&filter(EPERM, EPERM, KILL))]).expect("decided");
    assert_eq!(comparison.stricter[0].instruction_pointer, None);
}

/// libseccomp's test for x32, which leaves out the number -1.
fn lenient(no_call: Verdict) -> Program {
    program(&[
        load(4),
        jump(code::JEQ_K, X86_64, 0, 7),
        load(0),
        jump(code::JGE_K, X32_BIT, 0, 2),
        jump(code::JEQ_K, NO_CALL, 0, 4),
        ret(no_call),
        jump(code::JEQ_K, 0, 0, 1),
        ret(ALLOW),
        ret(EPERM),
        ret(KILL),
    ])
}

fn x86_64_and_killed_above() -> lazaret_filter::rule::RuleTable {
    zero_only()
}

#[test]
fn the_number_that_is_no_call() {
    let judge = |no_call| -> Comparison {
        prove(&x86_64_and_killed_above(), &[lenient(no_call)]).expect("decided")
    };
    // the filter's numbers from 0x80000000 on are x86-64's for the table: stricter, and not in question here
    for no_call in [
        EPERM,
        ENOSYS,
        ALLOW,
        Verdict::Log,
        Verdict::Trap(0),
        Verdict::KillProcess,
    ] {
        let comparison = judge(no_call);
        assert_eq!(comparison.looser, [], "{no_call:?}");
        let [d] = comparison.no_call.as_slice() else {
            panic!("{comparison:?}");
        };
        assert_eq!(
            (d.abi, d.call.nr, d.expected, d.found),
            (Some(Abi::X32), NO_CALL, KILL, no_call)
        );
        assert!(!comparison.is_equal());
        assert!(comparison.is_at_least_as_strict());
    }
    // somebody would act on these
    for no_call in [Verdict::Ask, Verdict::Trace(0)] {
        let comparison = judge(no_call);
        assert_eq!(comparison.looser.len(), 1);
        assert_eq!(comparison.looser[0].numbers, NO_CALL..=NO_CALL);
        assert_eq!(comparison.no_call, []);
    }
    assert_eq!(judge(KILL).no_call, []);
    // its neighbour is a number like any other
    let mut neighbour = lenient(ALLOW).instructions().to_vec();
    neighbour[4].k = NO_CALL - 1;
    let comparison = prove(&zero_only(), &[program(&neighbour)]).expect("decided");
    assert_eq!(comparison.looser[0].numbers, NO_CALL - 1..=NO_CALL - 1);
    // and nothing is known of other architectures
    let comparison = prove(
        &zero_only(),
        &[program(&[
            load(4),
            jump(code::JEQ_K, 0x1234, 0, 3),
            load(0),
            jump(code::JEQ_K, NO_CALL, 0, 1),
            ret(ALLOW),
            ret(KILL),
        ])],
    )
    .expect("decided");
    assert_eq!(comparison.looser.len(), 1);
    assert_eq!(comparison.looser[0].architectures, 0x1234..=0x1234);
}

#[test]
fn meanings_of_two_spaces_do_not_mix() {
    let (mut one, mut two) = (Space::new(), Space::new());
    let mine = one.of_table(&zero_only()).expect("small");
    let theirs = two.of_table(&zero_only()).expect("small");
    assert_eq!(one.compare(&mine, &theirs), Err(ProveError::OtherSpace));
    assert_eq!(
        one.entries(&theirs, Abi::X86_64),
        Err(ProveError::OtherSpace)
    );
    assert!(two.compare(&theirs, &theirs).expect("its own").is_equal());
}
