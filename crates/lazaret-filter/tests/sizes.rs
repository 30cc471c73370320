//! What tables cost: instructions of conditions, shared code, weighted trees, and the limit to the instruction.

use lazaret_filter::abi::{Abi, X32_BIT};
use lazaret_filter::compile::{CompileError, Weights, compile, compile_weighted};
use lazaret_filter::interpret::eval;
use lazaret_filter::program::{Instruction, MAX_INSTRUCTIONS, Program, code};
use lazaret_filter::rule::{Branch, Call, Condition, Entry, Numbers, RuleTable, Values, Verdict};
use lazaret_filter::{bitmap, table as calls_of};
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

fn allow_when(all: Vec<Condition>) -> Branch {
    Branch {
        all,
        verdict: Verdict::Allow,
    }
}

fn entry(branches: Vec<Branch>) -> Entry {
    Entry {
        branches,
        otherwise: Verdict::Errno(1),
    }
}

fn table(entries: impl IntoIterator<Item = (u32, Entry)>) -> RuleTable {
    let numbers = Numbers {
        entries: entries.into_iter().collect(),
        otherwise: Verdict::Errno(1),
    };
    RuleTable::single(Abi::Aarch64, numbers, Verdict::KillProcess)
}

fn length(table: &RuleTable) -> usize {
    compile(table).expect("compiles").instructions().len()
}

/// Loads and tests that the conditions add to a call that is allowed by number.
fn added(branches: Vec<Branch>) -> usize {
    let allowed = table([(7, Entry::always(Verdict::Allow))]);
    length(&table([(7, entry(branches))])) - length(&allowed)
}

#[test]
fn conditions_take_as_few_instructions_as_can_be() {
    let one = |mask, ranges: &[RangeInclusive<u64>]| {
        added(vec![allow_when(vec![condition(0, mask, ranges)])])
    };
    for (mask, ranges, expected) in [
        // load, equal
        (LOW, vec![5..=5], 2),
        (LOW, vec![0..=0], 2),
        // load, at least, below
        (LOW, vec![5..=9], 3),
        // load, at least
        (LOW, vec![5..=LOW], 2),
        (LOW, vec![0..=9], 2),
        // load and test twice
        (ALL, vec![5..=5], 4),
        // high: nothing below 3, any above, and at 3 the low half decides
        (ALL, vec![3 << 32 | 7..=ALL], 5),
        // only the high half matters
        (ALL, vec![3 << 32..=ALL], 2),
        (0xff << 32, vec![3 << 32..=3 << 32], 3),
        // load, and, equal
        (0xf0, vec![0x10..=0x10], 3),
        // load, one test of bits
        (0xf0, vec![0..=0], 2),
        (0x40, vec![0x40..=0x40], 2),
        // a set is tested value by value while it is small
        (LOW, vec![1..=1, 5..=5, 9..=9], 4),
        // then split: one instruction for each value, and one for each split
        (LOW, vec![1..=1, 5..=5, 9..=9, 13..=13, 17..=17, 21..=21], 8),
        // no bit is compared
        (0, vec![0..=0], 0),
    ] {
        assert_eq!(one(mask, &ranges), expected, "{mask:#x} {ranges:x?}");
    }
}

#[test]
fn branches_share_loads_and_tests() {
    let low = |arg, range| condition(arg, LOW, &[range]);
    // three branches on one argument: one load, and the tests of one set
    let one_by_one = (0..3)
        .map(|at| allow_when(vec![low(0, at * 4..=at * 4)]))
        .collect();
    assert_eq!(added(one_by_one), 4);
    // the second argument's check is there once
    let shared = [2, 4, 6].map(|first| allow_when(vec![low(0, first..=first), low(1, 9..=9)]));
    assert_eq!(added(shared.into()), 6);
    // two calls with one set of conditions: one number more to test
    let own = || entry(vec![allow_when(vec![low(0, 3..=5)])]);
    let (one, two) = (table([(7, own())]), table([(7, own()), (70, own())]));
    assert_eq!(length(&two), length(&one) + 1);
    // two calls whose second condition is the same share its check
    let first = |value| entry(vec![allow_when(vec![low(0, value..=value), low(1, 9..=9)])]);
    let (one, two) = (
        table([(7, first(1))]),
        table([(7, first(1)), (70, first(2))]),
    );
    // a number, a load and a test
    assert_eq!(length(&two), length(&one) + 3);
    // conventions of different architectures share everything but the numbers
    let mut both = one.clone();
    both.abis.insert(Abi::I386, one.abis[&Abi::Aarch64].clone());
    let found = length(&both);
    assert!(found <= length(&one) + 3, "{found}");
}

/// Branches over many arguments: what would multiply is done one after the other.
#[test]
fn branches_that_overlap_everywhere_stay_in_proportion() {
    let branches = |count: u64| {
        (0..count).map(move |at| Branch {
            all: (0..6)
                .map(|arg| condition(arg, ALL, &[at * 7..=at * 7 + 50 * count]))
                .collect(),
            verdict: Verdict::Trace(at as u16),
        })
    };
    let found = length(&table([(7, entry(branches(40).collect()))]));
    // 6 arguments of 2 halves with 3 tests at most and 2 loads
    assert!(found < 40 * 6 * 5 + 50, "{found}");
}

/// When x32 is not served, one test keeps it out; a small table has no shorter way.
#[test]
fn a_foreign_x32_takes_one_test() {
    let numbers = Numbers {
        entries: [(0, Entry::always(Verdict::Allow))].into(),
        otherwise: Verdict::Errno(1),
    };
    let table = |foreign| RuleTable::single(Abi::X86_64, numbers.clone(), foreign);
    // when foreign calls get what unknown ones get, none
    let without = length(&table(Verdict::Errno(1)));
    let with = compile(&table(Verdict::KillProcess)).expect("compiles");
    // the test, and another return
    assert_eq!(with.instructions().len(), without + 2);
    let mut tests = with.instructions().iter();
    assert!(tests.any(|i| i.code == code::JSET_K && i.k == X32_BIT));
}

#[test]
fn frequent_calls_meet_few_tests() {
    // every third call is allowed: a hundred ranges
    let allowed = (0..300)
        .step_by(3)
        .map(|nr| (nr, Entry::always(Verdict::Allow)));
    let table = table(allowed);
    let hot = [(Abi::Aarch64, 150), (Abi::Aarch64, 151), (Abi::Aarch64, 3)];
    let weights: Weights = hot.into_iter().zip([1000, 500, 100]).collect();
    let executed = |program: &Program, nr| {
        eval(program, &Call::new(Abi::Aarch64, nr))
            .expect("evaluates")
            .executed
    };
    let (plain, weighted) = (compile(&table), compile_weighted(&table, &weights));
    let (plain, weighted) = (plain.expect("compiles"), weighted.expect("compiles"));
    let all = |program: &Program| (0..310).map(|nr| executed(program, nr)).max();
    for (_, nr) in hot {
        assert!(executed(&weighted, nr) < executed(&plain, nr), "{nr}");
    }
    // two loads, the architecture and the return are in each; then almost nothing for the hottest
    assert!(executed(&weighted, 150) <= 4 + 2);
    // and nothing is far down for it
    assert!(all(&weighted) <= all(&plain).map(|most| most + 6));
    let as_long = plain.instructions().len() + plain.instructions().len() / 10;
    assert!(weighted.instructions().len() <= as_long);
}

#[test]
fn frequent_architectures_are_tested_first() {
    let numbers = Numbers {
        entries: [(0, Entry::always(Verdict::Allow))].into(),
        otherwise: Verdict::Errno(1),
    };
    let table = RuleTable {
        abis: [Abi::X86_64, Abi::I386, Abi::Aarch64]
            .map(|abi| (abi, numbers.clone()))
            .into(),
        foreign: Verdict::KillProcess,
    };
    let first = |weights: Weights| {
        let program = compile_weighted(&table, &weights).expect("compiles");
        program.instructions()[1].k
    };
    assert_eq!(first(Weights::default()), Abi::X86_64.audit_arch());
    let weights = [
        ((Abi::I386, 3), 1),
        ((Abi::Aarch64, 500), u64::MAX),
        ((Abi::Aarch64, 500), 1),
    ];
    assert_eq!(
        first(weights.into_iter().collect()),
        Abi::Aarch64.audit_arch()
    );
}

/// The longest filter that the kernel takes, and one instruction more.
#[test]
fn the_limit_is_exact() {
    let table = |values: u64| {
        let own = condition(
            0,
            LOW,
            &(0..values).map(|at| at * 2..=at * 2).collect::<Vec<_>>(),
        );
        table([(7, entry(vec![allow_when(vec![own])]))])
    };
    // the most values that fit
    let (mut values, mut too_many) = (1u64, 5000);
    while values + 1 < too_many {
        let middle = values.midpoint(too_many);
        match compile(&table(middle)) {
            Ok(_) => values = middle,
            Err(_) => too_many = middle,
        }
    }
    let longest = compile(&table(values)).expect("fits");
    assert_eq!(longest.instructions().len(), MAX_INSTRUCTIONS);
    let Err(error) = compile(&table(values + 1)) else {
        panic!("one value more takes one instruction more");
    };
    let CompileError::TooLong { found } = error else {
        panic!("{error}");
    };
    assert!((4097..=4098).contains(&found), "{found}");
    let message = format!("filter has {found} instructions, the kernel allows 4096");
    assert_eq!(error.to_string(), message);
}

/// A table of a hostile size is refused in good time, and with a figure.
#[test]
fn huge_tables_are_refused() {
    let verdict = |nr: u32| Verdict::Trace((nr % 50_000) as u16);
    let numbers = table((0..50_000).map(|nr| (nr, Entry::always(verdict(nr)))));
    let branches = (0..5_000).map(|at| Branch {
        all: vec![
            condition(0, ALL, &[at * 3..=at * 3]),
            condition(1, ALL, &[at..=at + 9]),
        ],
        verdict: verdict(at as u32),
    });
    let masks = (0..5_000).map(|at| condition((at % 6) as u8, at | 1 << 50, &[1 << 50..=1 << 50]));
    for table in [
        numbers,
        table([(7, entry(branches.collect()))]),
        table([(7, entry(vec![allow_when(masks.collect())]))]),
    ] {
        let Err(CompileError::TooLong { found }) = compile(&table) else {
            panic!("cannot fit");
        };
        assert!(found > MAX_INSTRUCTIONS);
    }
}

/// What the kernel's emulation follows, and what makes it give up.
#[test]
fn the_bitmap_follows_number_and_architecture_only() {
    let stmt = Instruction::statement;
    let jump = Instruction::jump;
    let allow = stmt(code::RET_K, Verdict::Allow.to_raw());
    let number = stmt(code::LD_W_ABS, 0);
    let allows = |mut instructions: Vec<Instruction>| {
        instructions.push(allow);
        let filter = Program::new(instructions).expect("valid");
        bitmap::allows(&[filter], Abi::X86_64, 7)
    };
    let kill = stmt(code::RET_K, 0);
    assert!(allows(vec![]));
    assert!(allows(vec![number, jump(code::JEQ_K, 7, 1, 0), kill]));
    assert!(allows(vec![number, jump(code::JGE_K, 7, 1, 0), kill]));
    assert!(allows(vec![number, jump(code::JGT_K, 6, 1, 0), kill]));
    assert!(allows(vec![number, jump(code::JSET_K, 8, 0, 1), kill]));
    assert!(allows(vec![
        number,
        stmt(code::AND_K, 3),
        jump(code::JEQ_K, 3, 1, 0),
        kill
    ]));
    assert!(allows(vec![
        stmt(code::LD_W_ABS, 4),
        jump(code::JEQ_K, 0xc000_003e, 1, 0),
        kill
    ]));
    assert!(allows(vec![stmt(code::JA, 1), kill]));
    assert!(!allows(vec![kill]));
    // an argument, the instruction pointer, and whatever else, although nothing depends on them
    for given_up in [
        stmt(code::LD_W_ABS, 16),
        stmt(code::LD_W_ABS, 8),
        stmt(code::LD_IMM, 0),
        stmt(code::OR_K, 0),
        stmt(code::TAX, 0),
        stmt(code::ST, 0),
        jump(code::JEQ_X, 0, 0, 0),
    ] {
        assert!(!allows(vec![given_up]), "{given_up:?}");
    }
    // only this word: any other datum is "no"
    assert!(!allows(vec![stmt(
        code::RET_K,
        Verdict::Allow.to_raw() | 1
    )]));
    assert!(!allows(vec![stmt(code::RET_K, Verdict::Log.to_raw())]));
}

#[test]
fn the_bitmap_is_that_of_the_whole_chain() {
    let filter = |names: &[u32]| {
        let numbers = Numbers {
            entries: names
                .iter()
                .map(|nr| (*nr, Entry::always(Verdict::Allow)))
                .collect(),
            otherwise: Verdict::Errno(1),
        };
        let abis = [Abi::X86_64, Abi::I386, Abi::X32].map(|abi| (abi, numbers.clone()));
        compile(&RuleTable {
            abis: abis.into(),
            foreign: Verdict::KillProcess,
        })
        .expect("compiles")
    };
    let chain = [filter(&[1, 2, 3]), filter(&[2, 3, 4])];
    for abi in [Abi::X86_64, Abi::I386] {
        let found: Vec<u32> = (0..9)
            .filter(|nr| bitmap::allows(&chain, abi, *nr))
            .collect();
        assert_eq!(found, [2, 3]);
        let share = bitmap::share(&chain, abi);
        assert_eq!((share.in_bitmap, share.allowed_by_number), (2, 2));
    }
    // allowed by number, but the kernel's bitmaps end before the bit
    let share = bitmap::share(&chain, Abi::X32);
    assert_eq!((share.in_bitmap, share.allowed_by_number), (0, 2));
    assert!(bitmap::allows(&[], Abi::X86_64, 0));
    assert!(!bitmap::allows(&[], Abi::X86_64, X32_BIT));
    // checks an argument to no end: allowed whatever it is, and not in the bitmap
    let to_no_end = Program::new(vec![
        Instruction::statement(code::LD_W_ABS, 16),
        Instruction::jump(code::JEQ_K, 1, 1, 0),
        Instruction::statement(code::RET_K, Verdict::Allow.to_raw()),
        Instruction::statement(code::RET_K, Verdict::Allow.to_raw()),
    ]);
    let share = bitmap::share(&[to_no_end.expect("valid")], Abi::X86_64);
    assert_eq!(share.in_bitmap, 0);
    assert!(share.allowed_by_number > 300);
}

/// Docker's default profile (moby 0.2.4) for three conventions, as libseccomp 2.5.4 compiled it: one number after the other,
/// and with its binary tree. The same meaning takes about a fifth of the instructions; fewer of them run.
#[test]
fn dockers_profile_against_libseccomp() {
    let libseccomps = ["", "-tree"].map(|kind| {
        let path = format!(
            "{}/tests/data/libseccomp-2.5.4-moby-0.2.4{kind}.bpf",
            env!("CARGO_MANIFEST_DIR")
        );
        Program::from_bytes(&std::fs::read(path).expect("readable")).expect("valid")
    });
    let [linear, tree] = &libseccomps;
    let verdict = |program: &Program, call: &Call| eval(program, call).expect("evaluates").verdict;
    // by number from the filter itself, the three calls with conditions from the profile
    let numbers = |abi| {
        let entries = calls_of::calls(abi).map(|(nr, name)| {
            let branch = match name {
                "clone" => Some(condition(0, 0x7e02_0000, &[0..=0])),
                "personality" => {
                    let values = [0, 8, 0x2_0000, 0x2_0008, LOW].map(|value| value..=value);
                    Some(condition(0, LOW, &values))
                }
                "socket" => Some(condition(0, LOW, &[0..=37, 39..=39, 41..=45])),
                _ => None,
            };
            let entry = match branch {
                Some(condition) => entry(vec![allow_when(vec![condition])]),
                None => Entry::always(verdict(linear, &Call::new(abi, nr))),
            };
            (nr, entry)
        });
        let otherwise = Verdict::Errno(1);
        (
            abi,
            Numbers {
                entries: entries.collect(),
                otherwise,
            },
        )
    };
    let abis = [Abi::X86_64, Abi::I386, Abi::X32];
    let table = RuleTable {
        abis: abis.map(numbers).into(),
        foreign: Verdict::KillThread,
    };
    let ours = compile(&table).expect("compiles");
    for abi in abis {
        for nr in 0..700 {
            for value in [0, 8, 37, 38, 39, 40, 45, 46, 0x2_0000, 0x200_0000, LOW] {
                let mut call = Call::new(abi, nr);
                call.args[0] = value;
                for theirs in &libseccomps {
                    assert_eq!(verdict(&ours, &call), verdict(theirs, &call), "{call:x?}");
                }
            }
        }
    }
    let length = |program: &Program| program.instructions().len();
    let executed = |program: &Program| {
        let calls = calls_of::calls(Abi::X86_64).map(|(nr, _)| Call::new(Abi::X86_64, nr));
        let each = calls.map(|call| f64::from(eval(program, &call).expect("evaluates").executed));
        let each: Vec<f64> = each.collect();
        each.iter().sum::<f64>() / each.len() as f64
    };
    for (name, program) in [("linear", linear), ("tree", tree), ("ours", &ours)] {
        println!(
            "{name}: {} instructions, {:.1} run",
            length(program),
            executed(program)
        );
    }
    assert!(length(&ours) * 9 < length(linear) * 2);
    assert!(length(&ours) * 11 < length(tree) * 2);
    assert!(executed(&ours) * 20.0 < executed(linear));
    assert!(executed(&ours) * 1.3 < executed(tree));
}
