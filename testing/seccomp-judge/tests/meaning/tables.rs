//! Profiles written from random tables mean the tables.

use std::sync::atomic::{AtomicUsize, Ordering};

use lazaret_filter::abi::Abi;
use lazaret_filter::oci::{Listener, meaning, profile};
use lazaret_filter::rule::{Branch, Condition, Entry, Numbers, RuleTable, Values, Verdict};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use seccomp_judge::compile;

use crate::calls::{compare, plain};

const EPERM: Verdict = Verdict::Errno(1);

fn condition() -> impl Strategy<Value = Condition> {
    let masks = vec![u64::MAX, u64::MAX, 0xffff_ffff, 0xff, 0xf0f, 1 << 33 | 6];
    let end = || {
        prop_oneof![
            4 => 0u64..20,
            1 => Just(u64::MAX),
            1 => select(vec![0xffff_ffffu64, 1 << 32, 5 << 32 | 7]),
            1 => any::<u64>(),
        ]
    };
    let ranges = proptest::collection::vec((end(), end()), 1..3);
    (0u8..3, select(masks), ranges).prop_map(|(arg, mask, ranges)| {
        let ends = |(a, b): (u64, u64)| (a & mask).min(b & mask)..=(a & mask).max(b & mask);
        let values = Values::of(ranges.into_iter().map(ends));
        Condition { arg, mask, values }
    })
}

fn table() -> impl Strategy<Value = RuleTable> {
    let verdicts = select(vec![
        Verdict::Allow,
        Verdict::Allow,
        Verdict::Log,
        Verdict::Ask,
    ]);
    let branch = (proptest::collection::vec(condition(), 1..3), verdicts)
        .prop_map(|(all, verdict)| Branch { all, verdict });
    let entry = proptest::collection::vec(branch, 1..3).prop_map(|branches| Entry {
        branches,
        otherwise: EPERM,
    });
    proptest::collection::btree_map(2u32..12, entry, 1..3).prop_map(|entries| {
        let numbers = Numbers {
            entries,
            otherwise: EPERM,
        };
        RuleTable::single(Abi::X86_64, numbers, Verdict::KillThread)
    })
}

#[test]
fn profiles_of_random_tables_mean_the_tables() {
    let written = AtomicUsize::new(0);
    let cases = 1000;
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let listener = Listener {
        path: "/run/listener.sock".to_owned(),
        metadata: String::new(),
    };
    runner
        .run(&table(), |table| {
            let entries = table
                .abis
                .values()
                .flat_map(|numbers| numbers.entries.values());
            let asks = entries
                .flat_map(|entry| &entry.branches)
                .any(|it| it.verdict == Verdict::Ask);
            let Ok(profile) = profile(&table, asks.then_some(&listener)) else {
                return Ok(());
            };
            written.fetch_add(1, Ordering::Relaxed);
            let (filter, _) = compile(&profile).expect("libseccomp takes it");
            let (meant, notes) = meaning(&profile, &plain()).expect("has a meaning");
            compare(&profile, &(meant, notes.clone()), &filter, (200, false), 7);
            // the table itself knows nothing of numbers from 2^30 on
            let mut whole = table.clone();
            let skip = Numbers {
                entries: [(0xbfff_ffff, Entry::always(EPERM))].into(),
                otherwise: Verdict::KillThread,
            };
            whole.abis.insert(Abi::X32, skip);
            compare(&profile, &(whole, notes), &filter, (200, false), 8);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    let written = written.into_inner();
    println!("{written} of {cases} tables can be written");
    assert!(written > cases as usize / 5, "only {written}");
}
