//! What a comparison reports: the side, the numbers, the arguments, the call.

use crate::{ALLOW, EPERM, KILL, filter, jump, load, program, ret, zero_only};
use lazaret_filter::abi::{Abi, X32_BIT};
use lazaret_filter::program::{Instruction, code};
use lazaret_filter::prove::{Comparison, MAX_DIFFERENCES, prove};
use lazaret_filter::rule::{Branch, Call, Condition, Entry, RuleTable, Verdict};

const ENOSYS: Verdict = Verdict::Errno(38);

fn judge(body: &[Instruction]) -> Comparison {
    prove(&zero_only(), &[program(body)]).expect("decided")
}

#[test]
fn sides() {
    type Pairs = &'static [(Verdict, Verdict)];
    let check = |filter: Vec<Instruction>, looser: Pairs, stricter: Pairs, other: Pairs| {
        let comparison = judge(&filter);
        for (found, expected) in [
            (&comparison.looser, looser),
            (&comparison.stricter, stricter),
            (&comparison.other, other),
        ] {
            let mut pairs: Vec<_> = found.iter().map(|d| (d.expected, d.found)).collect();
            pairs.sort_unstable();
            pairs.dedup();
            assert_eq!(pairs, expected);
        }
        assert_eq!(comparison.is_at_least_as_strict(), looser.is_empty());
        let equal = looser.is_empty() && stricter.is_empty() && other.is_empty();
        assert_eq!(comparison.is_equal_for_calls(), equal);
        comparison
    };
    const LOG: Verdict = Verdict::Log;
    const PROCESS: Verdict = Verdict::KillProcess;
    const EACCES: Verdict = Verdict::Errno(13);
    check(filter(ALLOW, EPERM, KILL), &[], &[], &[]);
    check(filter(LOG, EPERM, KILL), &[], &[(ALLOW, LOG)], &[]);
    check(
        filter(ALLOW, Verdict::Ask, KILL),
        &[(EPERM, Verdict::Ask)],
        &[],
        &[],
    );
    check(filter(ALLOW, EPERM, EPERM), &[(KILL, EPERM)], &[], &[]);
    check(filter(ALLOW, EPERM, PROCESS), &[], &[(KILL, PROCESS)], &[]);
    // an errno for another is on neither side; programs care when one is ENOSYS
    let errno = check(filter(ALLOW, EACCES, KILL), &[], &[], &[(EPERM, EACCES)]);
    assert!(errno.other.iter().all(|d| !d.matters()));
    let errno = check(filter(ALLOW, ENOSYS, KILL), &[], &[], &[(EPERM, ENOSYS)]);
    assert!(errno.other.iter().all(|d| d.matters()));
}

#[test]
fn numbers_are_ranges() {
    let comparison = judge(&filter(ALLOW, ALLOW, KILL));
    let found: Vec<_> = comparison
        .looser
        .iter()
        .map(|d| (d.abi, d.numbers.clone(), d.when.is_everything(), d.call))
        .collect();
    let half = 2 * X32_BIT;
    assert_eq!(
        found,
        [
            (
                Some(Abi::X86_64),
                1..=X32_BIT - 1,
                true,
                Call::new(Abi::X86_64, 1)
            ),
            (
                Some(Abi::X86_64),
                half..=half + X32_BIT - 1,
                true,
                Call::new(Abi::X86_64, half)
            ),
        ]
    );
    // every architecture but one, the known ones by themselves and first
    let comparison = judge(&filter(ALLOW, EPERM, EPERM));
    let abis: Vec<_> = comparison.looser.iter().map(|d| d.abi).collect();
    let (i386, x32, arm) = (Some(Abi::I386), Some(Abi::X32), Some(Abi::Aarch64));
    assert_eq!(abis, [i386, x32, x32, arm, None, None, None, None]);
    assert!(
        comparison
            .looser
            .iter()
            .all(|d| d.abi.is_none() || d.architectures.clone().count() == 1)
    );
    assert_eq!(comparison.looser[4].architectures, 0..=0x4000_0002);
    assert_eq!(comparison.looser[7].architectures, 0xc000_00b8..=u32::MAX);
}

/// One far number of one foreign architecture.
#[test]
fn a_hole_under_another_architecture_is_found() {
    for arch in [0x4000_0003, 0xc000_00b7, 0x1234_5678] {
        let mut body = vec![
            load(4),
            jump(code::JEQ_K, arch, 0, 3),
            load(0),
            jump(code::JEQ_K, 77_777, 0, 1),
            ret(ALLOW),
        ];
        body.extend(filter(ALLOW, EPERM, KILL));
        let looser = judge(&body).looser;
        let calls: Vec<_> = looser
            .iter()
            .map(|d| (d.call.arch, d.numbers.clone()))
            .collect();
        assert_eq!(calls, [(arch, 77_777..=77_777)]);
        assert_eq!(looser[0].architectures, arch..=arch);
    }
}

/// One 64-bit value of one argument of one number, which nobody would try.
#[test]
fn a_single_call_is_found() {
    let mut body = vec![
        load(0),
        jump(code::JEQ_K, 9, 0, 5),
        load(36),
        jump(code::JEQ_K, 0x0bad_cafe, 0, 3),
        load(32),
        jump(code::JEQ_K, 0xdead_beef, 0, 1),
        ret(ALLOW),
    ];
    body.extend(filter(ALLOW, EPERM, KILL));
    let comparison = judge(&body);
    // under x86-64 and under everything else, where 9 is killed
    let d = &comparison.looser[1];
    assert_eq!(
        (d.abi, d.call.args[2]),
        (Some(Abi::X86_64), 0x0bad_cafe_dead_beef)
    );
    assert_eq!(d.when.to_string(), "arg2 == 0xbadcafedeadbeef");
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
            verdict: ALLOW,
        }],
        otherwise: EPERM,
    };
    let mut table = zero_only();
    let numbers = table.abis.get_mut(&Abi::X86_64).expect("served");
    numbers.entries.insert(0, entry);
    table
}

/// Where a filter is looser and stricter that puts this between the test for number 0 and its two returns, allow and EPERM.
fn regions(table: &RuleTable, checks: &[Instruction]) -> (String, String) {
    let mut body = filter(ALLOW, EPERM, KILL);
    body.splice(5..5, checks.iter().copied());
    let more = checks.len() as u8;
    body[1].jf += more;
    body[3].jt += more;
    body[4].jf += more;
    let comparison = prove(table, &[program(&body)]).expect("decided");
    let text = |list: &[lazaret_filter::prove::Difference]| match list {
        [] => String::new(),
        [d] => {
            assert_eq!(d.numbers, 0..=0);
            d.when.to_string()
        }
        more => panic!("{more:?}"),
    };
    (text(&comparison.looser), text(&comparison.stricter))
}

/// Filters that test bits by `jset`, with one bit too few, too many, or of the wrong kind.
#[test]
fn single_bits_matter() {
    let jset = |bits, jt, jf| jump(code::JSET_K, bits, jt, jf);
    let none_of = |mask, bits| regions(&one_value(mask, 0), &[load(24), jset(bits, 1, 0)]);
    let pair = |looser: &str, stricter: &str| (looser.to_owned(), stricter.to_owned());
    assert_eq!(none_of(0x70, 0x70), pair("", ""));
    assert_eq!(none_of(0x70, 0x50), pair("arg1 & 0x70 == 32", ""));
    assert_eq!(none_of(0x50, 0x70), pair("", "arg1 & 0x70 == 32"));
    assert_eq!(
        none_of(0x1_0000_0070, 0x70),
        pair("arg1 & 0x100000070 == 0x100000000", "")
    );
    let checks = [load(24), jset(0xc0, 2, 0), jset(0x1020, 0, 1)];
    assert_eq!(
        regions(&one_value(0x60, 0x20), &checks),
        pair("arg1 & 0x10e0 == 0x1000", "arg1 & 0xe0 == 160")
    );
}

/// Alternating verdicts: the list is cut and says so, the decision is not.
#[test]
fn lists_are_bounded() {
    let odd = [load(0), jump(code::JSET_K, 1, 0, 1), ret(ALLOW)];
    let mut body = odd.to_vec();
    body.extend(filter(ALLOW, EPERM, KILL));
    let comparison = judge(&body);
    assert_eq!(comparison.looser.len(), MAX_DIFFERENCES);
    assert!(comparison.omitted.looser > 1000);
    assert!(!comparison.is_at_least_as_strict());
    // and of arguments: odd bits set and even bits clear somewhere, in every argument
    let mut body = Vec::new();
    for offset in (16..64).step_by(8) {
        body.extend([
            load(offset),
            jump(code::JSET_K, 0x5555_5555, 1, 0),
            ret(ALLOW),
            jump(code::JSET_K, 0xaaaa_aaaa, 0, 1),
            ret(ALLOW),
        ]);
    }
    body.extend(filter(ALLOW, EPERM, KILL));
    let comparison = judge(&body);
    assert!(
        comparison
            .looser
            .iter()
            .any(|d| d.numbers.contains(&1) && !d.when.cubes.is_empty())
    );
}
