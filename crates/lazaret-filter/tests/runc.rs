//! What runc 1.1.5 with libseccomp 2.5.4 made of our profiles, read back from the kernel with `PTRACE_SECCOMP_GET_FILTER`
//! (`tests/data`, x86-64), compared with the tables that the profiles were written from.
#![cfg(target_endian = "little")]

use lazaret_filter::abi::{Abi, X32_BIT};
use lazaret_filter::compare::compare;
use lazaret_filter::program::{Program, code};
use lazaret_filter::rule::{Branch, Condition, Entry, Numbers, RuleTable, Verdict};
use lazaret_filter::table::{calls, name_of, nr_of};
use std::collections::{BTreeMap, BTreeSet};

const ALLOWED: &str = "read write close fstat mmap munmap brk rt_sigaction rt_sigprocmask rt_sigreturn ioctl pread64 \
    readv writev access pipe select sched_yield mremap madvise dup nanosleep getpid sendfile connect accept sendto \
    recvfrom sendmsg recvmsg execve exit wait4 fcntl getcwd futex exit_group restart_syscall epoll_wait pause openat \
    newfstatat arch_prctl set_tid_address set_robust_list rseq prlimit64 getrandom clock_nanosleep readlink capget capset \
    chdir faccessat2 fstatfs getdents64 getppid prctl setgid setgroups setuid epoll_ctl epoll_pwait tgkill gettid \
    sigaltstack cachestat";

const DENIED: &str = "ptrace mount bpf unshare io_uring_setup io_uring_enter init_module";

const EPERM: Verdict = Verdict::Errno(1);
const ENOSYS: Verdict = Verdict::Errno(38);

fn number(name: &str) -> u32 {
    nr_of(Abi::X86_64, name).expect("known")
}

/// The table behind `…-static.bpf`.
fn answering() -> RuleTable {
    let allow_when = |conditions: &[(u8, u64, &[u64])]| Entry {
        branches: vec![Branch {
            all: conditions
                .iter()
                .map(|&(arg, mask, values)| Condition {
                    arg,
                    mask,
                    values: values.iter().copied().collect(),
                })
                .collect(),
            verdict: Verdict::Allow,
        }],
        otherwise: EPERM,
    };
    let mut entries: BTreeMap<u32, Entry> = ALLOWED
        .split_whitespace()
        .map(|name| (number(name), Entry::always(Verdict::Allow)))
        .collect();
    let int = 0xffff_ffff;
    entries.extend([
        (number("clone3"), Entry::always(ENOSYS)),
        (number("clone"), allow_when(&[(0, 0x7e02_0000, &[0])])),
        (
            number("socket"),
            allow_when(&[(0, int, &[1, 2, 10]), (1, 0xf, &[1, 2])]),
        ),
        (number("personality"), allow_when(&[(0, int, &[0, int])])),
        (
            number("mprotect"),
            allow_when(&[(2, u64::MAX, &[0, 1, 3, 5])]),
        ),
    ]);
    let numbers = Numbers {
        entries,
        otherwise: EPERM,
    };
    RuleTable::single(Abi::X86_64, numbers, Verdict::KillThread)
}

fn numbers(table: &mut RuleTable) -> &mut Numbers {
    table.abis.get_mut(&Abi::X86_64).expect("served")
}

/// The table behind `…-asking.bpf`: every name but the denied ones is asked unless it is allowed.
fn asking() -> RuleTable {
    let mut table = answering();
    for (nr, name) in calls(Abi::X86_64) {
        if !DENIED.split_whitespace().any(|denied| denied == name) {
            let ask = Entry::always(Verdict::Ask);
            numbers(&mut table).entries.entry(nr).or_insert(ask);
        }
    }
    table
}

fn read(kind: &str) -> Program {
    let path = format!(
        "{}/tests/data/runc-1.1.5-libseccomp-2.5.4-{kind}.bpf",
        env!("CARGO_MANIFEST_DIR")
    );
    Program::from_bytes(&std::fs::read(path).expect("fixture")).expect("the kernel took it")
}

/// Names and x32-less numbers for which the kernel's filter is stricter, by verdicts.
fn stricter(table: &RuleTable, filter: Program) -> BTreeMap<(Verdict, Verdict), BTreeSet<u32>> {
    let comparison = compare(table, &[filter]).expect("comparable");
    assert_eq!(comparison.looser, []);
    let mut found: BTreeMap<_, BTreeSet<u32>> = BTreeMap::new();
    for d in comparison.stricter {
        found
            .entry((d.expected, d.found))
            .or_default()
            .insert(d.call.nr);
    }
    found
}

#[test]
fn static_filter_differs_only_by_runcs_enosys_for_newer_calls() {
    let found = stricter(&answering(), read("static"));
    assert_eq!(found.keys().collect::<Vec<_>>(), [&(EPERM, ENOSYS)]);
    // from the first call after the newest that the profile names (cachestat, 451)
    assert_eq!(found[&(EPERM, ENOSYS)].first(), Some(&452));
}

#[test]
fn asking_filter_lacks_the_calls_that_libseccomp_does_not_know() {
    let found = stricter(&asking(), read("asking"));
    let names = |pair| -> Vec<_> {
        found[&pair]
            .iter()
            .map(|nr| name_of(Abi::X86_64, *nr).expect("asked by name"))
            .collect()
    };
    assert_eq!(names((Verdict::Ask, EPERM)), ["uretprobe", "uprobe"]);
    let newer = names((Verdict::Ask, ENOSYS));
    assert_eq!(newer.first(), Some(&"statmount"));
    assert_eq!(newer.last(), Some(&"file_setattr"));
    assert_eq!(newer.len(), 13);
    assert_eq!(found[&(EPERM, ENOSYS)].first(), Some(&470));
    assert_eq!(found.len(), 3);
}

#[test]
fn a_loosened_table_is_found_in_the_kernels_filter() {
    // the same filter judged by tables that are stricter in one point each
    let filter = read("static");
    let tighten = |change: &dyn Fn(&mut RuleTable)| {
        let mut table = answering();
        change(&mut table);
        let looser = compare(&table, std::slice::from_ref(&filter))
            .expect("comparable")
            .looser;
        assert!(!looser.is_empty());
        let numbers: BTreeSet<u32> = looser.iter().map(|d| d.call.nr).collect();
        numbers.into_iter().collect::<Vec<_>>()
    };
    let condition = |name: &'static str, at: usize| {
        move |table: &mut RuleTable, change: &dyn Fn(&mut Condition)| {
            let entry = numbers(table)
                .entries
                .get_mut(&number(name))
                .expect("entry");
            change(&mut entry.branches[0].all[at]);
        }
    };
    let (socket, kind, clone) = (
        condition("socket", 0),
        condition("socket", 1),
        condition("clone", 0),
    );
    let one = |name| vec![number(name)];
    assert_eq!(
        tighten(&|t| {
            numbers(t).entries.remove(&number("getppid"));
        }),
        one("getppid")
    );
    assert_eq!(
        tighten(&|t| socket(t, &|c| {
            c.values = c
                .values
                .singles(9)
                .unwrap()
                .into_iter()
                .filter(|v| *v != 10)
                .collect();
        })),
        one("socket")
    );
    assert_eq!(tighten(&|t| kind(t, &|c| c.mask = 0xff)), one("socket"));
    assert_eq!(tighten(&|t| clone(t, &|c| c.mask |= 0x80)), one("clone"));
    // a bit between those that the filter looks at
    assert_eq!(
        tighten(&|t| clone(t, &|c| c.mask |= 0x10_0000)),
        one("clone")
    );
    assert_eq!(tighten(&|t| clone(t, &|c| c.mask |= 1 << 40)), one("clone"));
}

/// The filter's own sense is not on trial here, only that a flipped bit does not go unseen.
#[test]
fn every_single_instruction_mutation_that_matters_is_found() {
    let table = answering();
    let filter = read("static");
    // what brute force can see: every number, and for those with conditions the corners of two arguments
    let sample: Vec<_> = (0..460)
        .chain((0..20).map(|nr| nr | X32_BIT))
        .flat_map(|nr| {
            let args: &[u64] = match name_of(Abi::X86_64, nr) {
                Some("clone" | "socket" | "personality" | "mprotect") => {
                    &[0, 1, 3, 10, 0xf, 0x802, 0x2_0000, 0xffff_ffff, 1 << 32]
                }
                _ => &[0],
            };
            args.iter().flat_map(move |&first| {
                args.iter().map(move |&other| {
                    let mut call = lazaret_filter::rule::Call::new(Abi::X86_64, nr);
                    call.args = [first, other, other, 0, 0, 0];
                    call
                })
            })
        })
        .collect();
    let (mut tried, mut mattered, mut refused) = (0, 0, 0);
    for at in 0..filter.instructions().len() {
        for change in 0..4 {
            // half of the changes, to keep the test short
            if (at + change) % 2 != 0 {
                continue;
            }
            let mut mutated = filter.instructions().to_vec();
            let i = &mut mutated[at];
            match change {
                0 => i.k ^= 1,
                1 => i.k = i.k.wrapping_add(0x10),
                2 => std::mem::swap(&mut i.jt, &mut i.jf),
                _ if i.code == code::JGE_K => i.code = code::JGT_K,
                _ if i.code == code::JEQ_K => i.code = code::JGE_K,
                _ => continue,
            }
            if mutated == filter.instructions() {
                continue;
            }
            let Ok(mutated) = Program::new(mutated) else {
                continue; // the kernel would refuse it
            };
            tried += 1;
            let looser_somewhere = sample.iter().any(|call| {
                let found = lazaret_filter::interpret::eval(&mutated, call).map(|e| e.verdict);
                found
                    .is_ok_and(|found| found.permissiveness() > table.decide(call).permissiveness())
            });
            if !looser_somewhere {
                continue;
            }
            mattered += 1;
            match compare(&table, &[mutated]) {
                Ok(found) => assert!(
                    !found.looser.is_empty(),
                    "instruction {at}, change {change}"
                ),
                // reads the instruction pointer, or sends every number through the argument checks
                Err(_) => refused += 1,
            }
        }
    }
    let counts = format!("{tried} tried, {mattered} mattered, {refused} refused");
    assert!(tried > 120 && mattered > 40 && refused < 8, "{counts}");
}
