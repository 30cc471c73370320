//! For every table and every filter.

use crate::programs::{self, program};
use crate::strategies::{calls, rebuilt, table, weights};
use lazaret_filter::abi::X32_BIT;
use lazaret_filter::compile::{compile, compile_weighted};
use lazaret_filter::interpret::eval_chain_at;
use lazaret_filter::prove::{ProveError, Space, prove};
use lazaret_filter::rule::{Call, RuleTable};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn a_table_equals_its_own_filters(table in table(), weights in weights(), seed in any::<u64>()) {
        let other = rebuilt(&table, seed);
        for filter in [compile(&table), compile_weighted(&table, &weights), compile(&other)] {
            let comparison = prove(&table, &[filter.expect("fits")]).expect("decided");
            prop_assert!(comparison.is_equal(), "{:?}", comparison);
        }
    }

    #[test]
    fn a_table_means_what_it_decides(table in table(), seed in any::<u64>()) {
        let mut space = Space::new();
        let meaning = space.of_table(&table).expect("small");
        for call in calls(&table, seed, 200) {
            prop_assert_eq!(space.verdict(&meaning, &call, seed), Ok(table.decide(&call)));
        }
    }

    /// Two tables differ exactly where brute force sees it, and on the right side.
    #[test]
    fn comparison_agrees_with_brute_force(
        (a, b) in (table(), table(), any::<bool>()).prop_map(|(a, b, near)| {
            let near = near.then(|| changed(&a, &b));
            (a, near.unwrap_or(b))
        }),
        seed in any::<u64>(),
    ) {
        let comparison = prove(&a, &[compile(&b).expect("fits")]).expect("decided");
        let lists = [&comparison.looser, &comparison.stricter, &comparison.other, &comparison.no_call];
        for d in lists.into_iter().flatten() {
            prop_assert_eq!(a.decide(&d.call), d.expected);
            prop_assert_eq!(b.decide(&d.call), d.found);
            prop_assert!(d.numbers.contains(&d.call.nr) && d.architectures.contains(&d.call.arch));
            let matching = d.when.cubes.iter().filter(|cube| cube.holds(&d.call.args, 0)).count();
            prop_assert!(matching == 1 || d.when.more, "{}", d.when);
        }
        let probes = calls(&a, seed, 100).chain(calls(&b, seed, 100));
        for call in probes {
            let (expected, found) = (a.decide(&call), b.decide(&call));
            let mut listed = lists.into_iter().flatten().filter(|d| {
                d.architectures.contains(&call.arch)
                    && d.numbers.contains(&call.nr)
                    && (d.when.more || d.when.cubes.iter().any(|cube| cube.holds(&call.args, 0)))
            });
            let cut = comparison.omitted != Default::default();
            if expected == found {
                prop_assert!(listed.all(|d| d.when.more), "{:x?}", call);
            } else {
                prop_assert!(cut || listed.any(|d| (d.expected, d.found) == (expected, found)), "{:x?}", call);
            }
        }
    }
}

/// `a` with one number of `b`, or with its other verdicts.
fn changed(a: &RuleTable, b: &RuleTable) -> RuleTable {
    let mut changed = a.clone();
    let mut theirs = b
        .abis
        .values()
        .flat_map(|numbers| &numbers.entries)
        // of x32 or not, depending on whose it is
        .filter(|&(&nr, _)| nr & X32_BIT == 0);
    let mine = changed.abis.values_mut().next();
    match (mine, theirs.next()) {
        (Some(mine), Some((&nr, entry))) => {
            mine.entries.insert(nr, entry.clone());
        }
        _ => changed.foreign = b.foreign,
    }
    changed
}

/// What is proved of a chain is what the interpreter does with it; says whether anything was.
fn agrees(chain: &[lazaret_filter::program::Program], seed: u64) -> Result<bool, TestCaseError> {
    let mut space = Space::new();
    let meaning = match space.of_chain(chain) {
        Ok(meaning) => meaning,
        Err(ProveError::Undecided {
            filter,
            instruction,
            ..
        }) => {
            prop_assert!(instruction < chain[filter].instructions().len());
            return Ok(false);
        }
        Err(error) => return Err(TestCaseError::fail(error.to_string())),
    };
    for (call, ip) in programs::calls(chain, seed, 400) {
        let evaluated = eval_chain_at(chain, &call, ip).expect("an instruction pointer is given");
        prop_assert_eq!(
            space.verdict(&meaning, &call, ip).expect("its space"),
            evaluated.verdict,
            "{:x?} at {:#x} in {:x?}",
            call,
            ip,
            chain
        );
    }
    Ok(true)
}

/// Every instruction, with everything that random filters do to each other.
#[test]
fn meaning_agrees_with_evaluation() {
    let mut runner = TestRunner::new(config(600));
    let decided = std::cell::Cell::new(0u32);
    let strategy = (prop::collection::vec(program(), 1..3), any::<u64>());
    runner
        .run(&strategy, |(chain, seed)| {
            decided.set(decided.get() + u32::from(agrees(&chain, seed)?));
            Ok(())
        })
        .unwrap();
    println!("{} of 600 random chains decided", decided.get());
    assert!(decided.get() > 300, "only {} of 600", decided.get());
}

/// The least that a law about tables rests on: a call is in one set.
#[test]
fn far_calls_have_a_verdict() {
    let mut space = Space::new();
    let meaning = space.of_table(&crate::zero_only()).expect("small");
    let call = Call {
        arch: 77,
        nr: u32::MAX,
        args: [u64::MAX; 6],
    };
    assert_eq!(space.verdict(&meaning, &call, u64::MAX), Ok(crate::KILL));
}
