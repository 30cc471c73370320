//! What a comparison reports, and what it refuses.

use lazaret_filter::abi::{Abi, X32_BIT};
use lazaret_filter::compare::{CompareError, Comparison, Difference, compare};
use lazaret_filter::interpret::EvalError;
use lazaret_filter::program::{Instruction, Program, code};
use lazaret_filter::rule::{Branch, Call, Condition, Entry, Numbers, RuleTable, Verdict};

/// Number 0 is allowed, everything else fails with EPERM.
fn table() -> RuleTable {
    let numbers = Numbers {
        entries: [(0, Entry::always(Verdict::Allow))].into(),
        otherwise: Verdict::Errno(1),
    };
    RuleTable::single(Abi::X86_64, numbers, Verdict::KillThread)
}

fn test(k: u32) -> Instruction {
    Instruction::jump(code::JEQ_K, k, 0, 0)
}

fn load(offset: u32) -> Instruction {
    Instruction::statement(code::LD_W_ABS, offset)
}

fn ret(verdict: Verdict) -> Instruction {
    Instruction::statement(code::RET_K, verdict.to_raw())
}

fn judge(body: Vec<Instruction>) -> Result<Comparison, CompareError> {
    compare(&table(), &[Program::new(body).expect("valid")])
}

/// The filter of [`table`], with what it says at each place.
fn filter(allowed: Verdict, other: Verdict, foreign: Verdict) -> Vec<Instruction> {
    vec![
        load(4),
        Instruction::jump(code::JEQ_K, 0xc000_003e, 0, 5),
        load(0),
        Instruction::jump(code::JSET_K, X32_BIT, 3, 0),
        Instruction::jump(code::JEQ_K, 0, 0, 1),
        ret(allowed),
        ret(other),
        ret(foreign),
    ]
}

#[test]
fn sides() {
    let (allow, eperm, kill) = (Verdict::Allow, Verdict::Errno(1), Verdict::KillThread);
    let (enosys, eacces) = (Verdict::Errno(38), Verdict::Errno(13));
    // filter, pairs that are looser, pairs that are stricter
    type Pairs = &'static [(Verdict, Verdict)];
    let check = |filter: Vec<Instruction>, looser: Pairs, stricter: Pairs| {
        let comparison = judge(filter).expect("comparable");
        for (found, expected) in [
            (&comparison.looser, looser),
            (&comparison.stricter, stricter),
        ] {
            let mut pairs: Vec<_> = found.iter().map(|d| (d.expected, d.found)).collect();
            pairs.sort_unstable();
            pairs.dedup();
            assert_eq!(pairs, expected);
        }
    };
    const ALLOW: Verdict = Verdict::Allow;
    const EPERM: Verdict = Verdict::Errno(1);
    const ENOSYS: Verdict = Verdict::Errno(38);
    const KILL: Verdict = Verdict::KillThread;
    check(filter(allow, eperm, kill), &[], &[]);
    check(
        filter(Verdict::Log, eperm, kill),
        &[],
        &[(ALLOW, Verdict::Log)],
    );
    check(
        filter(allow, Verdict::Ask, kill),
        &[(EPERM, Verdict::Ask)],
        &[],
    );
    check(filter(allow, eperm, eperm), &[(KILL, EPERM)], &[]);
    check(
        filter(allow, eperm, Verdict::KillProcess),
        &[],
        &[(KILL, Verdict::KillProcess)],
    );
    // another errno is no difference, but ENOSYS has a meaning of its own
    check(filter(allow, eacces, kill), &[], &[]);
    check(filter(allow, enosys, kill), &[], &[(EPERM, ENOSYS)]);
}

/// Each number is named, in order, by one call.
#[test]
fn differences_are_reported_once() {
    let wide = filter(Verdict::Allow, Verdict::Allow, Verdict::KillThread);
    let comparison = judge(wide).expect("comparable");
    let numbers: Vec<u32> = comparison.looser.iter().map(|d| d.call.nr).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b));
    assert!((1..1024).all(|nr| numbers.contains(&nr)));
    let first = Difference {
        call: Call::new(Abi::X86_64, 1),
        expected: Verdict::Errno(1),
        found: Verdict::Allow,
    };
    assert_eq!(comparison.looser.first(), Some(&first));
}

/// One far number of one foreign architecture.
#[test]
fn a_hole_under_another_architecture_is_found() {
    for arch in [0x4000_0003, 0xc000_00b7, 0x1234_5678] {
        let mut body = vec![
            load(4),
            Instruction::jump(code::JEQ_K, arch, 0, 3),
            load(0),
            Instruction::jump(code::JEQ_K, 77_777, 0, 1),
            ret(Verdict::Allow),
        ];
        body.extend(filter(
            Verdict::Allow,
            Verdict::Errno(1),
            Verdict::KillThread,
        ));
        let looser = judge(body).expect("comparable").looser;
        let calls: Vec<_> = looser.iter().map(|d| (d.call.arch, d.call.nr)).collect();
        assert_eq!(calls, [(arch, 77_777)]);
    }
}

/// A table that allows number 0 for one value of its second argument.
fn one_value(mask: u64, value: u64) -> RuleTable {
    let condition = Condition {
        arg: 1,
        mask,
        values: [value].into(),
    };
    let entry = Entry {
        branches: vec![Branch {
            all: vec![condition],
            verdict: Verdict::Allow,
        }],
        otherwise: Verdict::Errno(1),
    };
    let mut table = table();
    table
        .abis
        .get_mut(&Abi::X86_64)
        .expect("served")
        .entries
        .insert(0, entry);
    table
}

/// How many looser and stricter calls a filter has that puts this between the test for number 0 and its two returns,
/// allow and EPERM.
fn count(table: &RuleTable, checks: &[Instruction]) -> (usize, usize) {
    let mut body = filter(Verdict::Allow, Verdict::Errno(1), Verdict::KillThread);
    body.splice(5..5, checks.iter().copied());
    let more = checks.len() as u8;
    body[1].jf += more;
    body[3].jt += more;
    body[4].jf += more;
    let comparison = compare(table, &[Program::new(body).expect("valid")]).expect("comparable");
    (comparison.looser.len(), comparison.stricter.len())
}

/// Filters that test bits by `jset`, with one bit too few, too many, or of the wrong kind.
#[test]
fn single_bits_matter() {
    let jset = |bits, jt, jf| Instruction::jump(code::JSET_K, bits, jt, jf);
    let none_of = |mask, bits| count(&one_value(mask, 0), &[load(24), jset(bits, 1, 0)]);
    assert_eq!(none_of(0x70, 0x70), (0, 0));
    assert_eq!(none_of(0x70, 0x50), (1, 0));
    assert_eq!(none_of(0x50, 0x70), (0, 1));
    assert_eq!(none_of(0x1_0000_0070, 0x70), (1, 0));
    // looser for a lone 0x1000, stricter for 0x20 beside 0x80
    let checks = [load(24), jset(0xc0, 2, 0), jset(0x1020, 0, 1)];
    assert_eq!(count(&one_value(0x60, 0x20), &checks), (1, 1));
}

/// A filter made to keep a comparison busy is refused in bounded time and memory.
#[test]
fn hostile_filters_are_refused() {
    let allow = ret(Verdict::Allow);
    let mut both = vec![load(4)];
    both.extend((0..2000).map(|k| test(k * 100)));
    both.push(load(0));
    both.extend((0..2000).map(|k| test(k * 100)));
    both.push(allow);
    let refused = judge(both);
    assert!(matches!(refused, Err(CompareError::TooManyPairs { .. })));

    let mut arguments = Vec::new();
    for offset in (16..64).step_by(4) {
        arguments.push(load(offset));
        arguments.extend((0..300).map(|k| test(k * 100)));
    }
    arguments.push(allow);
    assert_eq!(judge(arguments), Err(CompareError::TooMuchWork));
}

#[test]
fn what_has_no_verdict_is_refused() {
    let no_verdict = |error| Err(CompareError::Eval(error));
    assert_eq!(
        judge(vec![load(8), ret(Verdict::Allow)]),
        no_verdict(EvalError::InstructionPointer { at: 0 })
    );
    assert_eq!(compare(&table(), &[]), no_verdict(EvalError::EmptyChain));
}
