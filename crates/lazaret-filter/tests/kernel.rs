//! The kernel as judge: compiled filters are loaded, in a forked child each, and what the kernel does with calls is compared
//! with [`RuleTable::decide`].
//!
//! A filter is only ever loaded by [`in_child`]'s child, which ends with its case. Needs no privilege: the child sets
//! `no_new_privs`.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use lazaret_filter::abi::{Abi, X32_BIT};
use lazaret_filter::compile::compile;
use lazaret_filter::interpret::eval_chain;
use lazaret_filter::program::{Instruction, Program, code};
use lazaret_filter::rule::{Branch, Call, Condition, Entry, Numbers, RuleTable, Verdict};
use lazaret_filter::table::nr_of;

/// What a child does with one call, as its parent sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The call came back with this: its result, or minus an errno.
    Returned(i64),
    /// The child died by this signal.
    Died(i32),
    /// The kernel refused the filter with this errno.
    Refused(i32),
}

/// Loads the filters, oldest first, in a child, makes the call there, and says how that went.
fn in_child(chain: &[Program], nr: u32, args: [u64; 6]) -> Outcome {
    let chain: Vec<Vec<libc::sock_filter>> = chain.iter().map(|p| raw(p.instructions())).collect();
    in_child_raw(&chain, nr, args)
}

fn raw(instructions: &[Instruction]) -> Vec<libc::sock_filter> {
    instructions
        .iter()
        .map(|i| libc::sock_filter {
            code: i.code,
            jt: i.jt,
            jf: i.jf,
            k: i.k,
        })
        .collect()
}

fn in_child_raw(chain: &[Vec<libc::sock_filter>], nr: u32, args: [u64; 6]) -> Outcome {
    // One shared page carries the outcome: (0 nothing yet, 1 refused, 2 returned) and the value. Writing to it needs no call
    // that a filter could deny.
    // JUSTIFICATION: std has no shared anonymous memory and no fork.
    // SAFETY: a new anonymous mapping; no existing memory is touched.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(page, libc::MAP_FAILED);
    let page: *mut [i64; 2] = page.cast();
    // SAFETY: between fork and its death the child calls nothing but system calls and touches only memory that was prepared
    // before: no lock of another thread of the test harness can be met.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork failed");
    if pid == 0 {
        child(chain, nr, args, page);
    }
    let mut status = 0;
    // SAFETY: `status` is ours and lives through the call; `pid` is a child that nobody else waits for.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    // SAFETY: the page is mapped, aligned and at least 16 bytes long, and its only other user is dead.
    let [kind, value] = unsafe { page.read_volatile() };
    // SAFETY: the mapping made above, not used afterwards.
    let unmapped = unsafe { libc::munmap(page.cast(), 4096) };
    assert_eq!(unmapped, 0);
    match kind {
        1 => Outcome::Refused(value as i32),
        2 => Outcome::Returned(value),
        _ => {
            assert!(libc::WIFSIGNALED(status), "child ended without a word");
            Outcome::Died(libc::WTERMSIG(status))
        }
    }
}

/// Never returns: ends by `exit_group` or a signal.
fn child(chain: &[Vec<libc::sock_filter>], nr: u32, args: [u64; 6], page: *mut [i64; 2]) -> ! {
    // SAFETY: only changes this process, which has one thread.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    for filter in chain {
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_ptr().cast_mut(),
        };
        // JUSTIFICATION: std and libc have no wrapper of seccomp(2).
        // SAFETY: `program` points at `len` instructions that live until the child's end; the kernel copies them before it
        // returns. The filter falls on this child only, which the test has made for it.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            )
        };
        if rc != 0 {
            let errno = std::io::Error::last_os_error().raw_os_error();
            finish(page, [1, errno.unwrap_or_default().into()]);
        }
    }
    let result: i64;
    // JUSTIFICATION: libc's `syscall` is right too, but would hide the difference between errno and a result of −1.
    // SAFETY: the tests only make calls that touch no memory: numbers out of range, or arguments that are plain values.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") i64::from(nr) => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    finish(page, [2, result]);
}

fn finish(page: *mut [i64; 2], words: [i64; 2]) -> ! {
    // SAFETY: the page is mapped, aligned and long enough, and the parent reads it only after our death.
    unsafe { page.write_volatile(words) };
    // SAFETY: ends the process without running anything of the test harness.
    unsafe { libc::_exit(0) }
}

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
