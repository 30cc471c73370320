//! `eval(compile(table), call) == table.decide(call)`, and what else must hold for every table.
//!
//! An ordinary run makes more than 10^7 evaluations. `LAZARET_LAWS=10` makes ten times as many tables of each law.

mod strategies;

use lazaret_filter::abi::{Abi, X32_BIT};
use lazaret_filter::bitmap;
use lazaret_filter::compile::{compile, compile_weighted};
use lazaret_filter::interpret::{eval, eval_chain};
use lazaret_filter::program::Program;
use lazaret_filter::rule::{Call, Verdict};
use proptest::prelude::*;
use strategies::{calls, rebuilt, table, weights};

/// Each table costs much more than a call.
const TABLES: u32 = 1200;
const CALLS: usize = 9000;

fn config(cases: u32) -> ProptestConfig {
    let times = match std::env::var("LAZARET_LAWS") {
        Ok(times) => times.parse().expect("LAZARET_LAWS is a number"),
        Err(_) => 1,
    };
    ProptestConfig {
        cases: cases * times,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    // 10.8 million evaluations
    #![proptest_config(config(TABLES))]

    #[test]
    fn compiled_filter_means_its_table(table in table(), seed in any::<u64>()) {
        let program = compile(&table).expect("small tables fit");
        for call in calls(&table, seed, CALLS) {
            let found = eval(&program, &call).expect("no instruction pointer is read");
            prop_assert_eq!(found.verdict, table.decide(&call), "{:?}", call);
            prop_assert!(found.executed as usize <= program.instructions().len());
        }
    }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn weights_change_no_verdict(table in table(), weights in weights(), seed in any::<u64>()) {
        let program = compile_weighted(&table, &weights).expect("small tables fit");
        for call in calls(&table, seed, 1000) {
            let found = eval(&program, &call).expect("no instruction pointer is read");
            prop_assert_eq!(found.verdict, table.decide(&call), "{:?}", call);
        }
    }

    #[test]
    fn same_table_same_bytes(table in table(), weights in weights(), seed in any::<u64>()) {
        let again = rebuilt(&table, seed);
        let bytes = compile(&table).expect("small tables fit").to_bytes();
        prop_assert_eq!(&compile(&again).expect("compiles again").to_bytes(), &bytes);
        prop_assert_eq!(Program::from_bytes(&bytes).expect("valid").to_bytes(), bytes);
        prop_assert_eq!(compile_weighted(&again, &weights), compile_weighted(&table, &weights));
    }

    /// A call that the table allows by its number alone is one that the kernel runs no filter for; no other call is.
    #[test]
    fn what_is_allowed_by_number_is_in_the_kernels_bitmap(table in table(), seed in any::<u64>()) {
        let chain = [compile(&table).expect("small tables fit")];
        for call in calls(&table, seed, 500) {
            let Some((abi, nr)) = Abi::of(call.arch, call.nr) else {
                continue;
            };
            let by_number = table.abis.get(&abi).map_or(table.foreign == Verdict::Allow, |numbers| {
                numbers.entries.get(&nr).map_or(numbers.otherwise == Verdict::Allow, |entry| {
                    entry.otherwise == Verdict::Allow
                        && entry.branches.iter().all(|branch| branch.verdict == Verdict::Allow)
                })
            });
            let found = bitmap::allows(&chain, abi, nr);
            if by_number {
                prop_assert_eq!(found, abi != Abi::X32 && call.nr & X32_BIT == 0, "{:?}", call);
            }
            if found {
                prop_assert_eq!(table.decide(&call), Verdict::Allow, "{:?}", call);
            }
        }
        for abi in table.abis.keys() {
            let share = bitmap::share(&chain, *abi);
            prop_assert!(share.in_bitmap == share.allowed_by_number || *abi == Abi::X32);
        }
    }

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

/// Every number around every border of a table with all conventions, not only the likely ones.
#[test]
fn numbers_at_the_borders_of_conventions() {
    proptest!(config(60), |(table in table())| {
        let program = compile(&table).expect("small tables fit");
        for arch in Abi::ALL.map(Abi::audit_arch).into_iter().chain([0, u32::MAX]) {
            for quarter in [0, X32_BIT, 2 * X32_BIT, 3 * X32_BIT] {
                for nr in (0..550).map(|at| (quarter + at).wrapping_sub(30)) {
                    let call = Call { arch, nr, args: [0; 6] };
                    let found = eval(&program, &call).expect("no instruction pointer is read");
                    prop_assert_eq!(found.verdict, table.decide(&call), "{:x?}", call);
                }
            }
        }
    });
}
