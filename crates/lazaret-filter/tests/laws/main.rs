//! `eval(compile(table), call) == table.decide(call)`, and what else must hold for every table.

mod strategies;

use lazaret_filter::compare::{Difference, compare};
use lazaret_filter::compile::compile;
use lazaret_filter::interpret::{eval, eval_chain};
use lazaret_filter::program::Program;
use lazaret_filter::rule::{RuleTable, Verdict};
use proptest::prelude::*;
use proptest::sample::Index;
use std::cmp::Ordering;
use strategies::{calls, table, verdict};

const TABLES: u32 = 600;
const CALLS: usize = 200;

proptest! {
    // 600 tables with 200 calls each: 120 000 evaluations
    #![proptest_config(ProptestConfig { cases: TABLES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn compiled_filter_means_its_table(table in table(), seed in any::<u64>()) {
        let program = compile(&table).expect("small tables fit");
        for call in calls(&table, seed, CALLS) {
            let found = eval(&program, &call).expect("no instruction pointer is read");
            prop_assert_eq!(found.verdict, table.decide(&call), "{:?}", call);
            prop_assert!(found.executed as usize <= program.instructions().len());
        }
    }

    #[test]
    fn same_table_same_bytes(table in table()) {
        let bytes = compile(&table).expect("small tables fit").to_bytes();
        prop_assert_eq!(&compile(&table.clone()).expect("compiles again").to_bytes(), &bytes);
        prop_assert_eq!(Program::from_bytes(&bytes).expect("valid").to_bytes(), bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_chain_is_as_strict_as_its_strictest_filter(
        a in table(),
        b in table(),
        seed in any::<u64>(),
    ) {
        let chain = [compile(&a).expect("fits"), compile(&b).expect("fits")];
        for call in calls(&a, seed, 50) {
            let (old, new) = (a.decide(&call), b.decide(&call));
            // of equally strict verdicts the newer filter's datum counts
            let expected = if old.permissiveness() < new.permissiveness() { old } else { new };
            prop_assert_eq!(eval_chain(&chain, &call).expect("evaluates").verdict, expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_table_equals_its_own_filter(table in small_table()) {
        let comparison = compare(&table, &[compile(&table).expect("fits")]).expect("comparable");
        prop_assert_eq!(&comparison.looser, &Vec::<Difference>::new());
        prop_assert_eq!(&comparison.stricter, &Vec::<Difference>::new());
    }

    /// Every pair of verdicts that differs at some call is reported, on the right side and at a call where it shows.
    #[test]
    fn a_changed_verdict_is_found(
        table in small_table(),
        pick in any::<Index>(),
        to in verdict(),
        seed in any::<u64>(),
    ) {
        let mut changed = table.clone();
        change(&mut changed, pick, to);
        let comparison = compare(&table, &[compile(&changed).expect("fits")]).expect("comparable");
        for d in comparison.looser.iter().chain(&comparison.stricter) {
            prop_assert_eq!(table.decide(&d.call), d.expected);
            prop_assert_eq!(changed.decide(&d.call), d.found);
        }
        for call in calls(&table, seed, CALLS).into_iter().filter(|call| call.nr != u32::MAX) {
            let (expected, found) = (table.decide(&call), changed.decide(&call));
            let side = match found.permissiveness().cmp(&expected.permissiveness()) {
                Ordering::Greater => &comparison.looser,
                Ordering::Less => &comparison.stricter,
                Ordering::Equal => continue,
            };
            prop_assert!(side.iter().any(|d| (d.expected, d.found) == (expected, found)), "{:?}", call);
        }
    }
}

/// At most one condition for each half of an argument and call: what boundary values decide exactly.
fn small_table() -> impl Strategy<Value = RuleTable> {
    table().prop_map(|mut table| {
        for entry in table
            .abis
            .values_mut()
            .flat_map(|numbers| numbers.entries.values_mut())
        {
            entry.branches.truncate(2);
            for branch in &mut entry.branches {
                branch.all.truncate(1);
            }
        }
        table
    })
}

fn change(table: &mut RuleTable, pick: Index, to: Verdict) {
    let mut places: Vec<&mut Verdict> = vec![&mut table.foreign];
    for numbers in table.abis.values_mut() {
        places.push(&mut numbers.otherwise);
        for entry in numbers.entries.values_mut() {
            places.push(&mut entry.otherwise);
            places.extend(entry.branches.iter_mut().map(|branch| &mut branch.verdict));
        }
    }
    let at = pick.index(places.len());
    *places[at] = to;
}
