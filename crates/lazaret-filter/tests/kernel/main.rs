//! The kernel as judge: compiled filters are loaded, in a forked child each, and what the kernel does with calls is compared
//! with [`RuleTable::decide`]; chains are loaded up to the kernel's bound, and programs up to its checks.
//!
//! A filter is only ever loaded by the child of [`child::in_child`], which ends with its case. Needs no privilege: the child
//! sets `no_new_privs`.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod chains;
mod child;
mod every_rule;

use child::{Outcome, in_child, in_child_raw, raw};
use lazaret_filter::abi::{Abi, X32_BIT};
use lazaret_filter::bitmap;
use lazaret_filter::compile::compile;
use lazaret_filter::interpret::eval_chain;
use lazaret_filter::program::{Instruction, Program, code};
use lazaret_filter::rule::{Branch, Call, Condition, Entry, Numbers, RuleTable, Verdict};
use lazaret_filter::table::nr_of;

/// A table under which only `nr` (and what the child needs to end) is interesting.
fn table(name: &str, entry: Entry) -> RuleTable {
    let numbers = Numbers {
        entries: [
            (number(name), entry),
            (number("exit_group"), Entry::always(Verdict::Allow)),
        ]
        .into(),
        // the child loads a second filter through the first
        otherwise: Verdict::Allow,
    };
    RuleTable::single(Abi::X86_64, numbers, Verdict::KillProcess)
}

fn number(name: &str) -> u32 {
    nr_of(Abi::X86_64, name).expect("known")
}

/// What the kernel does when a filter says this of a call that returns `result` when it is let through.
fn outcome_of(verdict: Verdict, result: i64) -> Outcome {
    match verdict {
        Verdict::KillProcess | Verdict::KillThread | Verdict::Trap(_) => {
            Outcome::Died(libc::SIGSYS)
        }
        Verdict::Errno(errno) => Outcome::Returned(-i64::from(errno)),
        // nobody listens, nobody traces
        Verdict::Ask | Verdict::Trace(_) => Outcome::Returned(-i64::from(libc::ENOSYS)),
        Verdict::Log | Verdict::Allow => Outcome::Returned(result),
    }
}

/// `personality(0xffffffff)` only asks: 0 for an ordinary process.
const QUERY: u64 = 0xffff_ffff;

#[test]
fn every_verdict_by_number_and_its_neighbour() {
    let asks = [QUERY, 0, 0, 0, 0, 0];
    for verdict in [
        Verdict::KillProcess,
        Verdict::KillThread,
        Verdict::Trap(1),
        Verdict::Errno(0),
        Verdict::Errno(13),
        Verdict::Errno(4095),
        Verdict::Ask,
        Verdict::Trace(1),
        Verdict::Log,
        Verdict::Allow,
    ] {
        let program = compile(&table("personality", Entry::always(verdict))).expect("compiles");
        let outcome = in_child(std::slice::from_ref(&program), number("personality"), asks);
        assert_eq!(outcome, outcome_of(verdict, 0), "{verdict:?}");
        // the neighbour does what it does without any filter
        let neighbour = number("personality") + 1;
        let unfiltered = in_child(&[], neighbour, [0; 6]);
        assert_eq!(in_child(&[program], neighbour, [0; 6]), unfiltered);
    }
}

#[test]
fn conditions_on_both_halves_and_masks() {
    let condition = |arg, mask, values: &[u64]| Condition {
        arg,
        mask,
        values: values.iter().copied().collect(),
    };
    // The kernel ignores the call's other arguments, so any value may be there.
    let corners = [
        0,
        1,
        2,
        0xf,
        1 << 31,
        1 << 32,
        1 << 32 | 1,
        0xf << 32,
        u64::MAX,
    ];
    for (mask, values) in [
        (u64::MAX, &[1u64, 1 << 32][..]),
        (0xffff_ffff, &[0, 1]),
        (0xffff_ffff_0000_0000, &[0, 0xf << 32]),
        (0xf, &[1, 0xf]),
        (1 << 63 | 1, &[1 << 63 | 1]),
    ] {
        let table = table(
            "personality",
            Entry {
                branches: vec![
                    Branch {
                        all: vec![condition(5, mask, values), condition(4, u64::MAX, &[3])],
                        verdict: Verdict::Errno(7),
                    },
                    Branch {
                        all: vec![condition(5, mask, values)],
                        verdict: Verdict::Allow,
                    },
                ],
                otherwise: Verdict::Errno(5),
            },
        );
        let program = compile(&table).expect("compiles");
        for last in corners {
            for fourth in [3, 2] {
                let nr = number("personality");
                let args = [QUERY, 0, 0, 0, fourth, last];
                let mut call = Call::new(Abi::X86_64, nr);
                call.args = args;
                let outcome = in_child(std::slice::from_ref(&program), nr, args);
                let expected = outcome_of(table.decide(&call), 0);
                assert_eq!(outcome, expected, "mask {mask:#x}, {call:x?}");
            }
        }
    }
}

#[test]
fn x32_numbers_are_foreign() {
    let table = table("personality", Entry::always(Verdict::Allow));
    let program = compile(&table).expect("compiles");
    let nr = number("personality") | X32_BIT;
    let outcome = in_child(&[program], nr, [QUERY, 0, 0, 0, 0, 0]);
    assert_eq!(outcome, Outcome::Died(libc::SIGSYS));
}

/// `lazaret_filter::compare` leaves this number out.
#[test]
fn minus_one_is_no_call_whatever_a_filter_says() {
    let mut table = table("personality", Entry::always(Verdict::Allow));
    table.foreign = Verdict::Allow;
    let program = compile(&table).expect("compiles");
    let outcome = in_child(&[program], u32::MAX, [0; 6]);
    assert_eq!(outcome, Outcome::Returned(-i64::from(libc::ENOSYS)));
}

#[test]
fn of_a_chain_the_strictest_counts_and_then_the_newest() {
    let filter =
        |verdict| compile(&table("personality", Entry::always(verdict))).expect("compiles");
    for (old, new) in [
        (Verdict::Errno(3), Verdict::Errno(4)),
        (Verdict::Errno(4), Verdict::Errno(3)),
        (Verdict::Errno(3), Verdict::Allow),
        (Verdict::Allow, Verdict::Errno(3)),
        (Verdict::KillProcess, Verdict::Errno(3)),
        (Verdict::Ask, Verdict::Errno(3)),
        (Verdict::Log, Verdict::Allow),
    ] {
        let chain = [filter(old), filter(new)];
        let nr = number("personality");
        let evaluated = eval_chain(&chain, &Call::new(Abi::X86_64, nr)).expect("evaluates");
        let outcome = in_child(&chain, nr, [QUERY, 0, 0, 0, 0, 0]);
        assert_eq!(
            outcome,
            outcome_of(evaluated.verdict, 0),
            "{old:?}, {new:?}"
        );
    }
}

#[test]
fn long_jumps() {
    // a call of its own errno for every second number from 1000 on, where the kernel has no calls
    let mut table = table("personality", Entry::always(Verdict::Allow));
    for at in 0..400u16 {
        let own = Condition {
            arg: 0,
            mask: u64::MAX,
            values: [u64::from(at)].into(),
        };
        let entry = Entry {
            branches: vec![Branch {
                all: vec![own],
                verdict: Verdict::Errno(at + 1),
            }],
            otherwise: Verdict::Errno(at + 1001),
        };
        table
            .abis
            .get_mut(&Abi::X86_64)
            .expect("served")
            .entries
            .insert(1000 + 2 * u32::from(at), entry);
    }
    let program = compile(&table).expect("compiles");
    for at in (0..400).step_by(57).chain([399]) {
        for (nr, arg, expected) in [
            (1000 + 2 * at, u64::from(at), at + 1),
            (1000 + 2 * at, u64::from(at) | 1 << 32, at + 1001),
            (1001 + 2 * at, u64::from(at), libc::ENOSYS as u32),
        ] {
            let outcome = in_child(std::slice::from_ref(&program), nr, [arg, 0, 0, 0, 0, 0]);
            assert_eq!(
                outcome,
                Outcome::Returned(-i64::from(expected)),
                "{nr} {arg:#x}"
            );
        }
    }
}

/// The kernel's verdict on programs at the edges of [`Program::new`] is ours.
#[test]
fn kernel_and_program_refuse_the_same() {
    let ret = Instruction::statement(code::RET_K, Verdict::Allow.to_raw());
    let one = |code, k| vec![Instruction::statement(code, k), ret];
    let jeq = |jt, jf| vec![Instruction::jump(code::JEQ_K, 0, jt, jf), ret, ret];
    let mut cases = vec![
        vec![],
        vec![ret],
        vec![ret; 4096],
        vec![ret; 4097],
        vec![ret, Instruction::statement(code::LD_IMM, 0)],
        jeq(1, 0),
        jeq(2, 0),
        jeq(0, 1),
        jeq(0, 2),
    ];
    for k in [0, 1, 2, 4, 8, 15, 16, 31, 32, 60, 61, 64, u32::MAX] {
        let codes = [
            code::LD_W_ABS,
            code::DIV_K,
            code::LSH_K,
            code::RSH_K,
            code::ST,
            code::STX,
        ];
        cases.extend(codes.map(|code| one(code, k)));
        cases.push(one(code::LD_MEM, k));
        cases.push(one(code::JA, k));
    }
    let store = Instruction::statement(code::ST, 3);
    let load = Instruction::statement(code::LDX_MEM, 3);
    cases.push(vec![store, load, ret]);
    cases.push(vec![
        Instruction::jump(code::JEQ_K, 0, 0, 1),
        store,
        load,
        ret,
    ]);
    // every code there is
    cases.extend((0..=0xff).map(|code| one(code, 1)));
    for instructions in cases {
        let outcome = in_child_raw(
            &[raw(&instructions)],
            number("personality"),
            [QUERY, 0, 0, 0, 0, 0],
        );
        let ours = Program::new(instructions.clone());
        let agrees = match outcome {
            Outcome::Refused(errno) => errno == libc::EINVAL && ours.is_err(),
            Outcome::Returned(_) | Outcome::Died(_) => ours.is_ok(),
        };
        let shown = instructions.get(..3.min(instructions.len()));
        assert!(agrees, "{outcome:?}, {ours:?}: {shown:?}");
    }
}

/// The kernel lets `uretprobe` and `uprobe` through whatever a filter says, if it has them; nothing else.
#[test]
fn exempt_calls_meet_no_filter() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("readable");
    let mut parts = release
        .split('.')
        .map_while(|part| part.parse::<u16>().ok());
    let version = (parts.next(), parts.next());
    let deny = compile(&RuleTable {
        abis: [].into(),
        foreign: Verdict::Errno(77),
    });
    let chain = [deny.expect("compiles")];
    for (nr, since) in [(334, None), (335, Some(14)), (336, Some(18)), (337, None)] {
        let exempt = since.is_some_and(|minor| version >= (Some(6), Some(minor)));
        let outcome = in_child(&chain, nr, [0; 6]);
        assert_eq!(
            outcome != Outcome::Returned(-77),
            exempt,
            "{nr} on {release}"
        );
        assert_eq!(bitmap::is_exempt(Abi::X86_64, nr), since.is_some());
    }
}
