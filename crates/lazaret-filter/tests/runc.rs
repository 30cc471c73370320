//! What runc 1.1.5 with libseccomp 2.5.4 made of our profiles, read back from the kernel with `PTRACE_SECCOMP_GET_FILTER`
//! (`tests/data`, x86-64), compared with the tables that the profiles were written from.
#![cfg(target_endian = "little")]

use lazaret_filter::abi::{Abi, X32_BIT};
use lazaret_filter::program::Program;
use lazaret_filter::prove::{Difference, NO_CALL, prove};
use lazaret_filter::rule::{Branch, Condition, Entry, Numbers, RuleTable, Verdict};
use lazaret_filter::table::{calls, name_of, nr_of};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

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

/// Ranges of numbers for which the kernel's filter is not looser, but other than expected, by verdicts.
fn stricter(
    table: &RuleTable,
    filter: Program,
) -> BTreeMap<(Verdict, Verdict), Vec<RangeInclusive<u32>>> {
    let comparison = prove(table, &[filter]).expect("decided");
    assert_eq!(comparison.looser, []);
    assert_eq!(comparison.omitted, Default::default());
    // libseccomp leaves the number -1 out of its test for x32: it gets what x86-64's numbers without a rule get
    let no_call: Vec<_> = comparison
        .no_call
        .iter()
        .map(|d| (d.abi, d.numbers.clone(), d.expected))
        .collect();
    assert_eq!(
        no_call,
        [(Some(Abi::X32), NO_CALL..=NO_CALL, Verdict::KillThread)]
    );
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for d in comparison.stricter.into_iter().chain(comparison.other) {
        assert!(d.matters());
        assert_eq!(d.abi, Some(Abi::X86_64));
        assert!(d.when.is_everything());
        found
            .entry((d.expected, d.found))
            .or_default()
            .push(d.numbers);
    }
    found
}

#[test]
fn static_filter_differs_only_by_runcs_enosys_for_newer_calls() {
    let found = stricter(&answering(), read("static"));
    assert_eq!(found.keys().collect::<Vec<_>>(), [&(EPERM, ENOSYS)]);
    // from the first call after the newest that the profile names (cachestat, 451)
    assert_eq!(
        found[&(EPERM, ENOSYS)],
        [452..=X32_BIT - 1, 2 * X32_BIT..=3 * X32_BIT - 1]
    );
}

#[test]
fn asking_filter_lacks_the_calls_that_libseccomp_does_not_know() {
    let found = stricter(&asking(), read("asking"));
    let names = |pair| -> Vec<_> {
        found[&pair]
            .iter()
            .cloned()
            .flatten()
            .map(|nr| name_of(Abi::X86_64, nr).expect("asked by name"))
            .collect()
    };
    assert_eq!(names((Verdict::Ask, EPERM)), ["uretprobe", "uprobe"]);
    let newer = names((Verdict::Ask, ENOSYS));
    assert_eq!(newer.first(), Some(&"statmount"));
    assert_eq!(newer.last(), Some(&"file_setattr"));
    assert_eq!(newer.len(), 13);
    assert_eq!(
        found[&(EPERM, ENOSYS)],
        [470..=X32_BIT - 1, 2 * X32_BIT..=3 * X32_BIT - 1]
    );
    assert_eq!(found.len(), 3);
}

#[test]
fn a_loosened_table_is_found_in_the_kernels_filter() {
    // the same filter judged by tables that are stricter in one point each
    let filter = read("static");
    let tighten = |change: &dyn Fn(&mut RuleTable)| {
        let mut table = answering();
        change(&mut table);
        let looser = prove(&table, std::slice::from_ref(&filter))
            .expect("decided")
            .looser;
        let [Difference { numbers, when, .. }] = looser.as_slice() else {
            panic!("{looser:?}");
        };
        (numbers.clone(), when.to_string())
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
    let one = |name, when: &str| (number(name)..=number(name), when.to_owned());
    assert_eq!(
        tighten(&|t| {
            numbers(t).entries.remove(&number("getppid"));
        }),
        one("getppid", "always")
    );
    assert_eq!(
        tighten(&|t| socket(t, &|c| c.values = [1, 2].into())),
        one(
            "socket",
            "arg0 & 0xffffffff == 10 and arg1 & 0xf in {1..=2}"
        )
    );
    assert_eq!(
        tighten(&|t| kind(t, &|c| c.mask = 0xff)),
        one(
            "socket",
            "arg0 & 0xffffffff in {1..=2, 10} and arg1 & 0xf0 != 0 and arg1 & 0xf in {1..=2}"
        )
    );
    assert_eq!(
        tighten(&|t| clone(t, &|c| c.mask |= 0x80)),
        one("clone", "arg0 & 0x7e020080 == 128")
    );
    // a bit between those that the filter looks at
    assert_eq!(
        tighten(&|t| clone(t, &|c| c.mask |= 0x10_0000)),
        one("clone", "arg0 & 0x7e120000 == 0x100000")
    );
    assert_eq!(
        tighten(&|t| clone(t, &|c| c.mask |= 1 << 40)),
        one("clone", "arg0 & 0x1007e020000 == 0x10000000000")
    );
}
