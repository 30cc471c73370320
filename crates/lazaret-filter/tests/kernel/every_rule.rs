//! One table with every kind of rule, in three conventions at once, and one child for each case: for each rule, calls on both
//! of its sides.
//!
//! The numbers are ones that no kernel has, so a call that is let through fails with `ENOSYS` and does nothing.

use super::child::{Outcome, Supervisor, in_child_by};
use super::outcome_of;
use lazaret_filter::abi::Abi;
use lazaret_filter::compile::compile;
use lazaret_filter::rule::{Branch, Call, Condition, Entry, Numbers, RuleTable, Values, Verdict};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

const ALL: u64 = u64::MAX;
const LOW: u64 = 0xffff_ffff;

fn condition(arg: u8, mask: u64, ranges: &[RangeInclusive<u64>]) -> Condition {
    Condition {
        arg,
        mask,
        values: Values::of(ranges.iter().cloned()),
    }
}

fn branch(all: Vec<Condition>, verdict: Verdict) -> Branch {
    Branch { all, verdict }
}

fn when(all: Vec<Condition>) -> Entry {
    Entry {
        branches: vec![branch(all, Verdict::Errno(200))],
        otherwise: Verdict::Errno(201),
    }
}

/// What the rule is for, and the rule.
fn rules() -> Vec<(&'static str, Entry)> {
    let wide = (5 << 32 | 7)..=(9 << 32 | 3);
    let mut rules = vec![
        ("single, 32 bits", when(vec![condition(0, LOW, &[7..=7])])),
        (
            "single, 64 bits",
            when(vec![condition(1, ALL, &[5 << 32 | 7..=5 << 32 | 7])]),
        ),
        (
            "set",
            when(vec![condition(
                0,
                LOW,
                &[1..=1, 5..=5, 9..=9, 13..=13, 17..=17, 21..=21],
            )]),
        ),
        (
            "set, 64 bits",
            when(vec![condition(
                0,
                ALL,
                &[1..=1, 1 << 32..=1 << 32, ALL..=ALL],
            )]),
        ),
        ("range, 32 bits", when(vec![condition(2, LOW, &[10..=20])])),
        (
            "range, 64 bits",
            when(vec![condition(3, ALL, std::slice::from_ref(&wide))]),
        ),
        (
            "range to the end",
            when(vec![condition(4, ALL, &[1 << 32..=ALL])]),
        ),
        (
            "range from 0",
            when(vec![condition(0, ALL, &[0..=3 << 32])]),
        ),
        (
            "ranges",
            when(vec![condition(0, ALL, &[2..=3, wide, ALL - 1..=ALL])]),
        ),
        (
            "mask",
            when(vec![condition(0, 0xf0, &[0x10..=0x10, 0x30..=0x50])]),
        ),
        (
            "mask of one bit",
            when(vec![condition(0, 1 << 17, &[0..=0])]),
        ),
        (
            "mask of both halves",
            when(vec![condition(0, 1 << 40 | 1, &[1 << 40..=1 << 40])]),
        ),
        (
            "mask of the high half",
            when(vec![condition(0, 0xff << 32, &[3 << 32..=4 << 32])]),
        ),
        (
            "several conditions",
            when(vec![
                condition(0, LOW, &[1..=1]),
                condition(1, ALL, &[2..=5]),
                condition(2, 1, &[1..=1]),
            ]),
        ),
        (
            "several branches",
            Entry {
                branches: vec![
                    branch(
                        vec![condition(0, LOW, &[1..=1]), condition(1, ALL, &[1..=1])],
                        Verdict::Errno(210),
                    ),
                    branch(vec![condition(0, LOW, &[1..=2])], Verdict::Errno(211)),
                    branch(vec![condition(1, ALL, &[1..=1])], Verdict::Errno(212)),
                ],
                otherwise: Verdict::Errno(213),
            },
        ),
    ];
    for verdict in [
        Verdict::KillProcess,
        Verdict::KillThread,
        Verdict::Trap(9),
        Verdict::Errno(0),
        Verdict::Errno(4095),
        Verdict::Ask,
        Verdict::Trace(1),
        Verdict::Log,
        Verdict::Allow,
    ] {
        rules.push((
            "verdict",
            Entry {
                branches: vec![branch(vec![condition(0, LOW, &[1..=1])], verdict)],
                otherwise: Verdict::Errno(214),
            },
        ));
        rules.push(("verdict by number", Entry::always(verdict)));
    }
    rules
}

const FIRST: u32 = 5000;

fn table() -> RuleTable {
    let numbers = |otherwise| Numbers {
        entries: (FIRST..)
            .step_by(2)
            .zip(rules())
            .map(|(nr, (_, entry))| (nr, entry))
            .collect(),
        otherwise,
    };
    let mut table = RuleTable {
        abis: [
            (Abi::X86_64, numbers(Verdict::Allow)),
            (Abi::I386, numbers(Verdict::Errno(220))),
            (Abi::X32, numbers(Verdict::Errno(221))),
        ]
        .into(),
        foreign: Verdict::KillProcess,
    };
    // argument 5 of an interrupt is the frame pointer
    table.abis.values_mut().for_each(|numbers| {
        numbers.entries.retain(|_, entry| {
            entry
                .branches
                .iter()
                .flat_map(|branch| &branch.all)
                .all(|condition| condition.arg < 5)
        })
    });
    table
}

/// For each condition its boundaries and what is beyond, the other arguments as they would hold.
fn cases(abi: Abi, nr: u32, entry: &Entry) -> Vec<Call> {
    let mut calls = BTreeSet::from([[0; 6], [1; 6], [2; 6]]);
    for branch in &entry.branches {
        let mut holding = [0; 6];
        for condition in &branch.all {
            let mut values = condition.values.ranges();
            holding[usize::from(condition.arg)] = values.next().map_or(0, |range| *range.start());
        }
        calls.insert(holding);
        for condition in &branch.all {
            for range in condition.values.ranges() {
                for end in [*range.start(), *range.end()] {
                    for value in [
                        end.wrapping_sub(1),
                        end,
                        end.wrapping_add(1),
                        end ^ 1 << 32,
                        end | !condition.mask,
                    ] {
                        let mut args = holding;
                        args[usize::from(condition.arg)] = value;
                        calls.insert(args);
                    }
                }
            }
        }
    }
    let calls = calls.into_iter().map(|mut args| {
        if abi == Abi::I386 {
            // registers of 32 bits; the sixth is not ours
            args = args.map(|arg| arg & LOW);
        }
        Call {
            args,
            ..Call::new(abi, nr)
        }
    });
    calls.collect()
}

#[test]
fn every_kind_of_rule_on_both_sides_in_every_convention() {
    let table = table();
    let program = compile(&table).expect("compiles");
    let nosys = -i64::from(libc::ENOSYS);
    for (&abi, numbers) in &table.abis {
        for (&nr, entry) in &numbers.entries {
            let mut verdicts = BTreeSet::new();
            for call in cases(abi, nr, entry) {
                let verdict = table.decide(&call);
                let outcome = in_child_by(std::slice::from_ref(&program), &call, Supervisor::None);
                assert_eq!(
                    outcome,
                    outcome_of(verdict, nosys),
                    "{verdict:?} for {call:x?}"
                );
                verdicts.insert(verdict);
            }
            // a register of 32 bits has no high half to tell values apart
            if abi != Abi::I386 && !entry.branches.is_empty() {
                assert!(verdicts.len() > 1, "only {verdicts:?} for {entry:?}");
            }
            let neighbour = Call::new(abi, nr + 1);
            let outcome = in_child_by(std::slice::from_ref(&program), &neighbour, Supervisor::None);
            assert_eq!(
                outcome,
                outcome_of(table.decide(&neighbour), nosys),
                "{neighbour:x?}"
            );
        }
    }
}

#[test]
fn an_asked_call_gets_the_listeners_answer_and_its_neighbour_does_not() {
    let table = table();
    let program = compile(&table).expect("compiles");
    let asked = |abi: Abi| {
        let mut entries = table.abis[&abi].entries.iter();
        let nr = entries.find(|(_, entry)| **entry == Entry::always(Verdict::Ask));
        *nr.expect("one call is asked").0
    };
    for abi in [Abi::X86_64, Abi::I386, Abi::X32] {
        let call = Call::new(abi, asked(abi));
        let answers = Supervisor::Answers(4711);
        let outcome = in_child_by(std::slice::from_ref(&program), &call, answers);
        assert_eq!(outcome, Outcome::Returned(4711), "{abi}");
        let neighbour = Call::new(abi, asked(abi) + 1);
        let outcome = in_child_by(std::slice::from_ref(&program), &neighbour, answers);
        let expected = outcome_of(table.decide(&neighbour), -i64::from(libc::ENOSYS));
        assert_eq!(outcome, expected, "{abi}");
    }
}

/// The same rules for one convention: the others die, whatever the number.
#[test]
fn conventions_without_numbers_are_foreign() {
    let mut table = table();
    table.abis.retain(|abi, _| *abi == Abi::X86_64);
    let program = compile(&table).expect("compiles");
    for nr in [0, 39, FIRST, 0x3fff_ffff] {
        for abi in [Abi::I386, Abi::X32] {
            let call = Call::new(abi, nr);
            let outcome = in_child_by(std::slice::from_ref(&program), &call, Supervisor::None);
            assert_eq!(outcome, Outcome::Died(libc::SIGSYS), "{abi} {nr}");
        }
    }
}
