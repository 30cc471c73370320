//! Meanings as lists, of filters that others made: the list of a filter, read as a table, means the filter.
//!
//! `tests/data/libseccomp-*.bpf` are what libseccomp 2.5.4 (`seccomp_export_bpf`, little endian) makes of the default profile
//! of moby/profiles v0.2.4 for a container without added capabilities on x86-64 with i386 and x32; `-tree` with
//! `SCMP_FLTATR_CTL_OPTIMIZE` 2.

use crate::{ALLOW, EPERM, KILL, filter, program, zero_only};
use lazaret_filter::abi::{Abi, X32_BIT};
use lazaret_filter::compile::compile;
use lazaret_filter::program::Program;
use lazaret_filter::prove::{Cube, Operand, Ruled, Space, prove};
use lazaret_filter::rule::{Branch, Condition, Entry, Numbers, RuleTable, Verdict};
use lazaret_filter::table::nr_of;
use std::collections::BTreeMap;
use std::time::Instant;

pub(crate) const FILES: [&str; 4] = [
    "libseccomp-2.5.4-moby-0.2.4",
    "libseccomp-2.5.4-moby-0.2.4-tree",
    "runc-1.1.5-libseccomp-2.5.4-static",
    "runc-1.1.5-libseccomp-2.5.4-asking",
];

pub(crate) fn read(name: &str) -> Program {
    let path = format!("{}/tests/data/{name}.bpf", env!("CARGO_MANIFEST_DIR"));
    Program::from_bytes(&std::fs::read(path).expect("fixture")).expect("a filter")
}

fn conditions(cube: &Cube) -> Vec<Condition> {
    let condition = |term: &lazaret_filter::prove::Term| match term.operand {
        Operand::Argument(arg) => Condition {
            arg,
            mask: term.mask,
            values: term.values.clone(),
        },
        Operand::InstructionPointer => panic!("no table has it"),
    };
    cube.terms.iter().map(condition).collect()
}

/// The list of one convention as rules: the longest range is what every other number gets.
fn numbers(list: &[Ruled]) -> Numbers {
    let length = |ruled: &&Ruled| ruled.numbers.end() - ruled.numbers.start();
    let longest = list
        .iter()
        .max_by_key(length)
        .expect("every number has one");
    let [otherwise] = longest.cases.as_slice() else {
        panic!("far numbers have conditions: {longest:?}");
    };
    let otherwise = otherwise.verdict;
    let mut entries = BTreeMap::new();
    for ruled in list {
        if let [case] = ruled.cases.as_slice()
            && case.verdict == otherwise
        {
            continue;
        }
        let (last, first) = ruled.cases.split_last().expect("never empty");
        let branches = first.iter().flat_map(|case| {
            assert!(!case.when.more, "{}", case.when);
            case.when.cubes.iter().map(|cube| Branch {
                all: conditions(cube),
                verdict: case.verdict,
            })
        });
        let entry = Entry {
            branches: branches.collect(),
            otherwise: last.verdict,
        };
        for nr in ruled.numbers.clone() {
            entries.insert(nr, entry.clone());
        }
    }
    Numbers { entries, otherwise }
}

/// A filter as a table, by its lists.
pub(crate) fn table_of(program: &Program, abis: &[Abi]) -> RuleTable {
    let mut space = Space::new();
    let meaning = space
        .of_chain(std::slice::from_ref(program))
        .expect("decided");
    let mut list = |abi| space.entries(&meaning, abi).expect("listed");
    let foreign = list(Abi::Aarch64);
    assert_eq!(foreign.len(), 1);
    RuleTable {
        abis: abis.iter().map(|&abi| (abi, numbers(&list(abi)))).collect(),
        foreign: foreign[0].cases[0].verdict,
    }
}

#[test]
fn the_list_of_a_filter_is_the_filter() {
    for name in FILES {
        let program = read(name);
        let abis: &[Abi] = if name.starts_with("libseccomp") {
            &[Abi::X86_64, Abi::I386, Abi::X32]
        } else {
            &[Abi::X86_64]
        };
        // number -1 of the whole architecture is x32's alone; libseccomp gives it x86-64's default
        let table = table_of(&program, abis);
        let comparison = prove(&table, &[program]).expect("decided");
        assert!(comparison.is_equal_for_calls(), "{name}: {comparison:?}");
        let rules: usize = table
            .abis
            .values()
            .map(|numbers| numbers.entries.len())
            .sum();
        println!("{name}: {rules} rules");
        assert!(rules > 60);
        assert!(
            prove(&table, &[compile(&table).expect("fits")])
                .expect("decided")
                .is_equal()
        );
    }
}

#[test]
fn conditions_are_readable() {
    let mut space = Space::new();
    let meaning = space
        .of_chain(&[read("libseccomp-2.5.4-moby-0.2.4")])
        .expect("decided");
    let list = space.entries(&meaning, Abi::X86_64).expect("listed");
    let when = |name: &str| -> Vec<(Verdict, String)> {
        let nr = nr_of(Abi::X86_64, name).expect("known");
        let ruled = list.iter().find(|ruled| ruled.numbers.contains(&nr));
        let cases = &ruled.expect("every number is listed").cases;
        cases
            .iter()
            .map(|c| (c.verdict, c.when.to_string()))
            .collect()
    };
    let pair =
        |allowed: &str, denied: &str| vec![(ALLOW, allowed.to_owned()), (EPERM, denied.to_owned())];
    assert_eq!(when("read"), [(ALLOW, "always".to_owned())]);
    assert_eq!(when("mount"), [(EPERM, "always".to_owned())]);
    assert_eq!(when("clone3"), [(Verdict::Errno(38), "always".to_owned())]);
    assert_eq!(
        when("clone"),
        pair("arg0 & 0x7e020000 == 0", "arg0 & 0x7e020000 != 0")
    );
    assert_eq!(
        when("socket"),
        pair("arg0 in {0..=37, 39, 41..=45}", "arg0 in {38, 40, 46..}")
    );
    assert_eq!(
        when("personality"),
        pair(
            "arg0 in {0, 8, 0x20000, 0x20008, 0xffffffff}",
            "arg0 in {1..=7, 9..=0x1ffff, 0x20001..=0x20007, 0x20009..=0xfffffffe, 0x100000000..}"
        )
    );
}

#[test]
fn ranges_are_whole_and_conventions_apart() {
    let mut space = Space::new();
    let meaning = space.of_table(&zero_only()).expect("small");
    let list = |space: &mut Space, abi| -> Vec<_> {
        let ruled = space.entries(&meaning, abi).expect("listed").into_iter();
        ruled
            .map(|r| {
                assert_eq!(r.cases.len(), 1);
                assert!(r.cases[0].when.is_everything());
                (r.numbers, r.cases[0].verdict)
            })
            .collect()
    };
    let half = 2 * X32_BIT;
    assert_eq!(
        list(&mut space, Abi::X86_64),
        [
            (0..=0, ALLOW),
            (1..=X32_BIT - 1, EPERM),
            (half..=half + X32_BIT - 1, EPERM)
        ]
    );
    // without the bit
    assert_eq!(
        list(&mut space, Abi::X32),
        [(0..=X32_BIT - 1, KILL), (half..=half + X32_BIT - 1, KILL)]
    );
    assert_eq!(list(&mut space, Abi::I386), [(0..=u32::MAX, KILL)]);
}

/// `cargo test -p lazaret-filter --test prove -- --ignored --nocapture`
#[test]
#[ignore = "prints times"]
fn times() {
    for name in FILES {
        let program = read(name);
        let table = table_of(&program, &[Abi::X86_64, Abi::I386, Abi::X32]);
        let mut best = [u128::MAX; 2];
        for _ in 0..10 {
            let start = Instant::now();
            let comparison = prove(&table, std::slice::from_ref(&program)).expect("decided");
            best[0] = best[0].min(start.elapsed().as_micros());
            assert!(comparison.is_at_least_as_strict());
            let start = Instant::now();
            let own = compile(&table).expect("fits");
            let own = prove(&table, &[own]).expect("decided");
            best[1] = best[1].min(start.elapsed().as_micros());
            assert!(own.is_equal());
        }
        let instructions = program.instructions().len();
        println!(
            "{name}: {instructions} instructions proved in {} µs; compiled by us and proved in {} µs",
            best[0], best[1]
        );
    }
}

/// What `filter` makes is what these lists are for, too.
#[test]
fn a_filter_that_is_looser_is_listed_so() {
    let mut space = Space::new();
    let loose = program(&filter(ALLOW, ALLOW, KILL));
    let meaning = space.of_chain(&[loose]).expect("decided");
    let list = space.entries(&meaning, Abi::X86_64).expect("listed");
    assert!(list.iter().all(|ruled| ruled.cases[0].verdict == ALLOW));
    assert_eq!(list.len(), 2);
}
