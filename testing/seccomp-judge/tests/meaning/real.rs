//! The profiles that engines come with, for several hosts; and runc's own filters, read back from the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use lazaret_filter::abi::Abi;
use lazaret_filter::interpret::eval;
use lazaret_filter::oci::{
    Action, Architecture, Engine, Host, Listener, Note, OciSeccomp, meaning, profile, read,
};
use lazaret_filter::program::Program;
use lazaret_filter::prove::prove;
use lazaret_filter::rule::{Branch, Call, Condition, Entry, Numbers, RuleTable, Verdict};
use lazaret_filter::table::{calls, nr_of};
use seccomp_judge::{Search, compile, compile_for, number, runc};

use crate::calls::{compare, plain};

const DEFAULT: &str = "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW CAP_SETGID CAP_SETUID \
    CAP_SETFCAP CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL CAP_AUDIT_WRITE";

fn file(name: &str) -> Vec<u8> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/lazaret-filter/tests/data");
    let path = data.join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn resolved(name: &str, kernel: (u16, u16), capabilities: &str) -> OciSeccomp {
    let document = read::parse(&file(&format!("profiles/{name}.json"))).expect(name);
    let capabilities: BTreeSet<String> =
        capabilities.split_whitespace().map(str::to_owned).collect();
    let host = Host {
        abi: Abi::X86_64,
        kernel,
        capabilities: &capabilities,
    };
    document.resolve(&host).profile
}

fn check(name: &str, kernel: (u16, u16), capabilities: &str) {
    let profile = resolved(name, kernel, capabilities);
    let meant = meaning(&profile, &plain()).expect(name);
    let (filter, _) = compile(&profile).expect(name);
    let compared = compare(&profile, &meant, &filter, (8000, true), 1);
    assert!(compared > 10_000, "{name}: {compared}");
    let (tree, _) = compile_for(&profile, Search::Tree).expect(name);
    let in_tree = compare(&profile, &meant, &tree, (8000, true), 2);
    let with_stub = meaning(&profile, &Engine::debian12()).expect(name);
    let filter = runc(&profile).expect(name);
    let with_stubs = compare(&profile, &with_stub, &filter, (8000, true), 3);
    for (expected, found) in [
        (&meant, compile(&profile).expect(name).0),
        (&with_stub, filter),
    ] {
        let proof = prove(&expected.0, &[found]).expect(name);
        assert!(proof.is_equal(), "{name}: {proof:#?}");
    }
    let all = compared + in_tree + with_stubs;
    println!("{name} {kernel:?}: {all} calls");
    assert!(all >= 100_000, "{name}: {all}");
}

#[test]
fn docker_20_10() {
    check("moby-20.10.24", (6, 1), DEFAULT);
    check("moby-20.10.24", (4, 4), "CAP_SYS_ADMIN CAP_SYS_PTRACE");
}

#[test]
fn docker_28() {
    check("moby-profiles-0.2.4", (6, 12), DEFAULT);
    check("moby-profiles-0.2.4", (4, 7), "CAP_BPF CAP_SYSLOG");
    check("moby-profiles-0.2.4", (6, 12), "CAP_SYS_ADMIN");
}

#[test]
fn docker_old_format() {
    check("moby-20.10.24-old-format", (6, 1), "");
}

#[test]
fn podman() {
    check("containers-common-0.50.1", (6, 1), DEFAULT);
    // conditions on two arguments of socket, with two actions
    check("containers-common-0.50.1", (6, 1), "CAP_SYS_CHROOT");
}

#[test]
fn containerd() {
    check("containerd-1.6.20", (6, 1), "");
    check("containerd-1.6.20-sys-admin", (6, 1), "");
}

/// What `Note::HighNumbers` says is the only thing that a table does not say.
#[test]
fn high_numbers_are_killed_by_libseccomp() {
    let profile: OciSeccomp = OciSeccomp {
        default_action: Action::Allow,
        default_errno_ret: None,
        architectures: vec![Architecture::X86_64],
        flags: Vec::new(),
        listener_path: None,
        listener_metadata: None,
        syscalls: Vec::new(),
    };
    let (table, notes) = meaning(&profile, &Engine::debian12()).expect("allows all");
    assert!(notes.contains(&Note::HighNumbers));
    let filter = runc(&profile).expect("allows all");
    for nr in [0x7fff_ffff, 0x8000_0000, 0xbfff_ffff, 0xc000_0000, u32::MAX] {
        let call = Call {
            arch: Abi::X86_64.audit_arch(),
            nr,
            args: [0; 6],
        };
        let found = eval(&filter, &call)
            .expect("no instruction pointer")
            .verdict;
        let differs = (0x8000_0000..0xc000_0000).contains(&nr);
        assert_eq!(table.decide(&call) != found, differs, "{nr:#x}");
        let killed = nr & 0x8000_0000 == 0 || nr != u32::MAX;
        assert_eq!(found == Verdict::KillThread, killed, "{nr:#x}");
    }
}

/// Every name of our tables, under every convention.
#[test]
fn the_engine_knows_the_numbers_that_libseccomp_knows() {
    let engine = Engine::debian12();
    let names: BTreeSet<&str> = Abi::ALL
        .into_iter()
        .flat_map(|abi| calls(abi).map(|(_, name)| name))
        .collect();
    assert!(names.len() > 400);
    let made_up = ["send", "semop", "nosuchcall", ""];
    for name in names.into_iter().chain(made_up) {
        let native = number(Architecture::X86_64, name);
        assert_eq!(engine.knows(name), native.is_some(), "{name}");
        for abi in Abi::ALL {
            let found = number(Architecture::of(abi), name).and_then(|nr| u32::try_from(nr).ok());
            // for i386 the library hides the numbers of what can be multiplexed
            if abi != Abi::I386 || found.is_some() {
                let bit = if abi == Abi::X32 { 0x4000_0000 } else { 0 };
                assert_eq!(
                    engine.number(abi, name).map(|nr| nr | bit),
                    found,
                    "{name} {abi}"
                );
            }
        }
    }
}

const ALLOWED: &str = "read write close fstat mmap munmap brk rt_sigaction rt_sigprocmask rt_sigreturn ioctl pread64 \
    readv writev access pipe select sched_yield mremap madvise dup nanosleep getpid sendfile connect accept sendto \
    recvfrom sendmsg recvmsg execve exit wait4 fcntl getcwd futex exit_group restart_syscall epoll_wait pause openat \
    newfstatat arch_prctl set_tid_address set_robust_list rseq prlimit64 getrandom clock_nanosleep readlink capget capset \
    chdir faccessat2 fstatfs getdents64 getppid prctl setgid setgroups setuid epoll_ctl epoll_pwait tgkill gettid \
    sigaltstack cachestat";

/// The table behind `runc-1.1.5-libseccomp-2.5.4-static.bpf`, as in `crates/lazaret-filter/tests/runc.rs`.
fn answering() -> RuleTable {
    let denied = Verdict::Errno(1);
    let number = |name: &str| nr_of(Abi::X86_64, name).expect("known");
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
        otherwise: denied,
    };
    let mut entries: BTreeMap<u32, Entry> = ALLOWED
        .split_whitespace()
        .map(|name| (number(name), Entry::always(Verdict::Allow)))
        .collect();
    let int = 0xffff_ffff;
    entries.extend([
        (number("clone3"), Entry::always(Verdict::Errno(38))),
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
        otherwise: denied,
    };
    RuleTable::single(Abi::X86_64, numbers, Verdict::KillThread)
}

/// The same table with every other call asked but the denied ones.
fn asking() -> RuleTable {
    const DENIED: &str = "ptrace mount bpf unshare io_uring_setup io_uring_enter init_module";
    let mut table = answering();
    let numbers = table.abis.get_mut(&Abi::X86_64).expect("served");
    for (nr, name) in calls(Abi::X86_64) {
        if !DENIED.split_whitespace().any(|denied| denied == name) {
            numbers
                .entries
                .entry(nr)
                .or_insert(Entry::always(Verdict::Ask));
        }
    }
    table
}

#[test]
fn the_judge_makes_the_filters_that_runc_made() {
    let listener = Listener {
        path: "/run/listener.sock".to_owned(),
        metadata: String::new(),
    };
    let cases = [
        ("static", answering(), None),
        ("asking", asking(), Some(&listener)),
    ];
    for (kind, table, listener) in cases {
        let bytes = file(&format!("runc-1.1.5-libseccomp-2.5.4-{kind}.bpf"));
        let kernels = Program::from_bytes(&bytes).expect("the kernel took it");
        let profile = profile(&table, listener).expect("can be expressed");
        let judged = runc(&profile).expect("libseccomp takes it");
        assert_eq!(judged, kernels, "{kind}");
        let meant = meaning(&profile, &Engine::debian12()).expect("has a meaning");
        let proof = prove(&meant.0, std::slice::from_ref(&kernels)).expect("decided");
        assert!(proof.is_equal(), "{kind}: {proof:#?}");
        compare(&profile, &meant, &kernels, (4000, true), 5);
    }
}
