//! Golden bytes, long jumps, limits and refusals of the compiler.

use lazaret_filter::abi::Abi;
use lazaret_filter::compile::{CompileError, compile};
use lazaret_filter::disasm::disassemble;
use lazaret_filter::interpret::eval;
use lazaret_filter::program::{Instruction, code};
use lazaret_filter::rule::{Branch, Call, Condition, Entry, Numbers, RuleTable, Verdict};
use std::collections::BTreeSet;

fn condition(arg: u8, mask: u64, values: &[u64]) -> Condition {
    Condition {
        arg,
        mask,
        values: values.iter().copied().collect(),
    }
}

fn when(all: Vec<Condition>, verdict: Verdict, otherwise: Verdict) -> Entry {
    Entry {
        branches: vec![Branch { all, verdict }],
        otherwise,
    }
}

fn table(entries: impl IntoIterator<Item = (u32, Entry)>) -> RuleTable {
    let numbers = Numbers {
        entries: entries.into_iter().collect(),
        otherwise: Verdict::Errno(1),
    };
    RuleTable::single(Abi::X86_64, numbers, Verdict::KillProcess)
}

/// read and write allowed, socket of two domains allowed, execve asked.
fn small() -> RuleTable {
    let domains = condition(0, 0xffff_ffff, &[1, 2]);
    table([
        (0, Entry::always(Verdict::Allow)),
        (1, Entry::always(Verdict::Allow)),
        (41, when(vec![domains], Verdict::Allow, Verdict::Errno(1))),
        (59, Entry::always(Verdict::Ask)),
    ])
}

/// Checked by hand against the table, once.
const SMALL: &str = "   0  ld   [4]                          ; architecture
   1  jeq  0xc000003e, 2, 4             ; x86_64
   2  ld   [0]                          ; number, x86_64
   3  jset 0x40000000, 4, 5             ; x32
   4  ret  0x80000000                   ; kill process
   5  jge  0x2, 6, 12                   ; from open
   6  jeq  0x29, 9, 7                   ; socket
   7  jeq  0x3b, 8, 13                  ; execve
   8  ret  0x7fc00000                   ; ask
   9  ld   [16]                         ; socket: argument 0 `family`, low half
  10  jge  0x3, 13, 11                  ; from AF_AX25
  11  jeq  0x0, 13, 12                  ; AF_UNSPEC
  12  ret  0x7fff0000                   ; allow
  13  ret  0x00050001                   ; errno 1
";

/// The same as `struct sock_filter`s of a little-endian machine.
#[cfg(target_endian = "little")]
const SMALL_BYTES: [u64; 14] = [
    0x0000_0004_0000_0020,
    0xc000_003e_0200_0015,
    0x0000_0000_0000_0020,
    0x4000_0000_0100_0045,
    0x8000_0000_0000_0006,
    0x0000_0002_0600_0035,
    0x0000_0029_0002_0015,
    0x0000_003b_0500_0015,
    0x7fc0_0000_0000_0006,
    0x0000_0010_0000_0020,
    0x0000_0003_0002_0035,
    0x0000_0000_0001_0015,
    0x7fff_0000_0000_0006,
    0x0005_0001_0000_0006,
];

#[test]
fn small_table_as_text() {
    let program = compile(&small()).expect("compiles");
    assert_eq!(disassemble(&program, Abi::X86_64), SMALL);
}

#[test]
#[cfg(target_endian = "little")]
fn small_table_as_bytes() {
    let program = compile(&small()).expect("compiles");
    let words: Vec<u64> = program
        .to_bytes()
        .as_chunks()
        .0
        .iter()
        .map(|bytes| u64::from_le_bytes(*bytes))
        .collect();
    assert_eq!(words, SMALL_BYTES, "{words:#018x?}");
}

/// 400 different entries need jumps over more than 255 instructions.
#[test]
fn long_jumps_go_over_trampolines() {
    let entry = |nr: u32| {
        let own = condition(0, u64::MAX, &[u64::from(nr) << 32 | 7]);
        when(
            vec![own],
            Verdict::Trace(nr as u16),
            Verdict::Errno(nr as u16),
        )
    };
    let table = table((0..400).map(|nr| (nr * 2, entry(nr))));
    let program = compile(&table).expect("compiles");
    let hops = program.instructions().iter();
    assert!(hops.filter(|i| i.code == code::JA).count() > 0);
    for nr in (0..810).chain([u32::MAX, 0x4000_0000]) {
        for arg in [0, u64::from(nr / 2) << 32 | 7, 7, u64::from(nr / 2) << 32] {
            let mut call = Call::new(Abi::X86_64, nr);
            call.args[0] = arg;
            let found = eval(&program, &call).expect("evaluates");
            assert_eq!(found.verdict, table.decide(&call), "{call:x?}");
            // 8 levels of tests for the number, each with at most one trampoline, and a dozen for the rest
            assert!(found.executed <= 32, "{nr}: {} executed", found.executed);
        }
    }
}

/// Sizes around those at which a jump stops reaching its target, both ways of a test.
#[test]
fn jumps_of_every_distance_around_255() {
    let mut distances = [BTreeSet::new(), BTreeSet::new()];
    for size in 140..240 {
        // three tests for equality, then one by order
        let values: Vec<u64> = (0..size).map(|at| at * 2).collect();
        let size = size * 2;
        // the first condition's "no" leads over the second one to the second branch
        let both = |second| vec![condition(0, 0xf, &[1]), condition(1, 0xffff_ffff, second)];
        let entry = Entry {
            branches: vec![
                Branch {
                    all: both(&values),
                    verdict: Verdict::Trace(1),
                },
                Branch {
                    all: vec![condition(2, 0xf, &[1])],
                    verdict: Verdict::Trace(2),
                },
            ],
            otherwise: Verdict::Errno(3),
        };
        // the search tree's "greater" leads over that entry to this one
        let next = when(
            vec![condition(3, 0xf, &[1])],
            Verdict::Trace(4),
            Verdict::Errno(5),
        );
        let table = table([(0, entry), (1, next)]);
        let program = compile(&table).expect("compiles");
        for i in program.instructions().iter().filter(|i| i.code != code::JA) {
            distances[0].insert(i.jt);
            distances[1].insert(i.jf);
        }
        for nr in 0..3 {
            for args in [
                [1, 0, 0, 0],
                [1, size - 1, 1, 1],
                [1, size - 2, 1, 1],
                [1, size, 1, 1],
                [0, 0, 1, 1],
                [0; 4],
            ] {
                let mut call = Call::new(Abi::X86_64, nr);
                call.args[..4].copy_from_slice(&args);
                let found = eval(&program, &call).expect("evaluates");
                assert_eq!(found.verdict, table.decide(&call), "{size}, {call:x?}");
            }
        }
    }
    // 255 one way needs a trampoline of the other at just that place
    for (way, seen) in ["jt", "jf"].iter().zip(distances) {
        let missing: Vec<u8> = (240..=254).filter(|by| !seen.contains(by)).collect();
        assert_eq!(missing, Vec::<u8>::new(), "{way}");
    }
}

/// Both ways of one test stop reaching their returns at neighbouring distances.
#[test]
fn two_returns_at_the_edge_of_one_jump() {
    for size in 150..220 {
        let values: Vec<u64> = (0..size).map(|at| at * 2).collect();
        let size = size * 2;
        let entry = |arg, values: &[u64], verdict, otherwise| {
            when(
                vec![condition(arg, 0xffff_ffff, values)],
                verdict,
                otherwise,
            )
        };
        let table = table([
            (0, entry(0, &[7], Verdict::Trace(1), Verdict::Trace(2))),
            (1, entry(1, &values, Verdict::Trace(3), Verdict::Trace(4))),
            (2, entry(2, &[7], Verdict::Trace(2), Verdict::Trace(1))),
        ]);
        let program = compile(&table).expect("compiles");
        for nr in 0..4 {
            for arg in [7, size] {
                let mut call = Call::new(Abi::X86_64, nr);
                call.args = [arg; 6];
                let found = eval(&program, &call).expect("evaluates");
                assert_eq!(found.verdict, table.decide(&call), "{size}, {call:x?}");
            }
        }
    }
}

#[test]
fn the_kernels_limit_is_named() {
    let entry = |nr: u32, values: u64| {
        let own = condition(
            0,
            0xffff_ffff,
            &(0..values).map(|at| at * 2).collect::<Vec<_>>(),
        );
        when(
            vec![own],
            Verdict::Trace(nr as u16),
            Verdict::Errno(nr as u16),
        )
    };
    let needs = |values| compile(&table((0..100).map(|nr| (nr * 2, entry(nr, values)))));
    let fits = needs(32).expect("fits").instructions().len();
    assert!((3800..=4096).contains(&fits), "{fits}");
    let Err(CompileError::TooLong { found }) = needs(40) else {
        panic!("4000 values and 100 entries cannot fit");
    };
    assert_eq!(
        CompileError::TooLong { found }.to_string(),
        format!("filter has {found} instructions, the kernel allows 4096")
    );
    assert!(found > 4096);
}

/// `seccomp_is_emulable` and `seccomp_is_const_allow` (kernel/seccomp.c) follow these instructions only; anything else on
/// the path keeps a call out of the allow bitmap.
#[test]
fn calls_decided_by_number_qualify_for_the_allow_bitmap() {
    let program = compile(&small()).expect("compiles");
    for nr in (0..100).filter(|nr| *nr != 41) {
        for i in path(program.instructions(), &Call::new(Abi::X86_64, nr)) {
            let followed = matches!(
                i,
                Instruction {
                    code: code::LD_W_ABS,
                    k: 0 | 4,
                    ..
                } | Instruction {
                    code: code::JA
                        | code::JEQ_K
                        | code::JGE_K
                        | code::JGT_K
                        | code::JSET_K
                        | code::AND_K
                        | code::RET_K,
                    ..
                }
            );
            assert!(followed, "{nr}: {i:?}");
        }
    }
}

/// The instructions that run for a call; only for the codes of the assertion above.
fn path(program: &[Instruction], call: &Call) -> Vec<Instruction> {
    let mut seen = Vec::new();
    let (mut at, mut a) = (0, 0);
    loop {
        let i = program[at];
        seen.push(i);
        let skip = |holds: bool| usize::from(if holds { i.jt } else { i.jf });
        at += 1;
        match i.code {
            code::LD_W_ABS => a = if i.k == 0 { call.nr } else { call.arch },
            code::AND_K => a &= i.k,
            code::JA => at += i.k as usize,
            code::JEQ_K => at += skip(a == i.k),
            code::JGE_K => at += skip(a >= i.k),
            code::JGT_K => at += skip(a > i.k),
            code::JSET_K => at += skip(a & i.k != 0),
            _ => return seen,
        }
    }
}

/// A half without bits in the mask is not loaded.
#[test]
fn only_halves_in_the_mask_are_loaded() {
    for (mask, value, offsets) in [
        (0xf, 1, vec![40]),
        (0xf_0000_0000, 1 << 32, vec![44]),
        (u64::MAX, 1 << 32 | 1, vec![40, 44]),
        (0, 0, vec![]),
    ] {
        let own = condition(3, mask, &[value]);
        let table = table([(9, when(vec![own], Verdict::Allow, Verdict::Ask))]);
        let program = compile(&table).expect("compiles");
        let mut loaded: Vec<u32> = program
            .instructions()
            .iter()
            .filter(|i| i.code == code::LD_W_ABS && i.k >= 16)
            .map(|i| i.k)
            .collect();
        loaded.sort_unstable();
        assert_eq!(loaded, offsets, "{mask:#x}");
    }
}

#[test]
fn malformed_tables_are_refused() {
    let refused = |entry: Entry| compile(&table([(7, entry)])).map(|_| ());
    let allow_when = |all| when(all, Verdict::Allow, Verdict::Errno(1));
    assert_eq!(refused(allow_when(vec![condition(5, 1, &[1])])), Ok(()));
    assert_eq!(
        refused(allow_when(vec![])),
        Err(CompileError::NoCondition { nr: 7 })
    );
    assert_eq!(
        refused(allow_when(vec![condition(6, 1, &[1])])),
        Err(CompileError::Argument { nr: 7, arg: 6 })
    );
    assert_eq!(
        refused(allow_when(vec![condition(0, 1, &[])])),
        Err(CompileError::NoValue { nr: 7, arg: 0 })
    );
    assert_eq!(
        refused(allow_when(vec![condition(0, 0xf, &[1, 0x10])])),
        Err(CompileError::OutsideMask {
            nr: 7,
            arg: 0,
            value: 0x10,
            mask: 0xf
        })
    );
    assert_eq!(refused(Entry::always(Verdict::Errno(4095))), Ok(()));
    assert_eq!(
        refused(Entry::always(Verdict::Errno(4096))),
        Err(CompileError::Errno { errno: 4096 })
    );
}
