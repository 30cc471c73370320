//! Named ceilings: calls that no policy for this kind of workload may ever allow.
//!
//! A ceiling is the kernel's deny band: final, whatever a later revision says. The calls since Linux 5.1 that `default`
//! leaves open are listed too, so that no call of a newer table goes without a decision.

/// Every `CLONE_NEW*` bit of `include/uapi/linux/sched.h`, `CLONE_NEWTIME` (0x80) apart: `clone(2)` reads the low byte as
/// the exit signal, so that flag exists for `unshare` and `clone3` only.
pub const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// How far a ceiling forbids a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Whatever its arguments.
    Always,
    /// Unless `args[arg] & mask` is 0.
    Unless {
        /// Which argument.
        arg: u8,
        /// The forbidden bits.
        mask: u64,
    },
}

/// One call of a ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forbidden {
    /// The call's name.
    pub call: &'static str,
    /// How far.
    pub reach: Reach,
    /// Why.
    pub why: &'static str,
}

const fn always(call: &'static str, why: &'static str) -> Forbidden {
    Forbidden {
        call,
        reach: Reach::Always,
        why,
    }
}

const IO_URING: &str = "does work without system calls, past every filter";
const TRACE: &str = "reads and writes other processes; a tracer bypasses seccomp";
const MOUNT: &str = "changes the file system tree; mounting the host's disk is the study's escape";
const NAMESPACE: &str =
    "enters or makes namespaces; a way to capabilities the container was not given";
const CLONE3: &str = "its namespace flags are behind a pointer, where no filter sees them; libc falls back to clone at ENOSYS";
const MODULE: &str = "loads code into the kernel";
const BPF: &str = "loads programs into the kernel";
const KEYS: &str = "the kernel's key rings are not separated by namespaces";
const MACHINE: &str = "acts on the machine, not on the container";
const CLOCK: &str = "sets the host's clock";
const OLD: &str = "obsolete or unimplemented; only attacks call it";
const MEMORY: &str = "a helper of kernel exploits (stalls the kernel at a page fault)";
const HANDLE: &str = "opens files by handle, past mounts (the \"shocker\" escape)";
const PORTS: &str = "raw access to the hardware's ports";

/// The set named `default`.
pub const DEFAULT: &[Forbidden] = &[
    always("acct", MACHINE),
    always("add_key", KEYS),
    always("adjtimex", CLOCK),
    always("afs_syscall", OLD),
    always("bpf", BPF),
    always("chroot", MOUNT),
    always("clock_adjtime", CLOCK),
    always("clock_settime", CLOCK),
    Forbidden {
        call: "clone",
        reach: Reach::Unless {
            arg: 0,
            mask: NAMESPACE_FLAGS,
        },
        why: NAMESPACE,
    },
    always("clone3", CLONE3),
    always("create_module", OLD),
    always("delete_module", MODULE),
    always("fanotify_init", MACHINE),
    always("finit_module", MODULE),
    always("fsconfig", MOUNT),
    always("fsmount", MOUNT),
    always("fsopen", MOUNT),
    always("fspick", MOUNT),
    always("get_kernel_syms", OLD),
    always("getpmsg", OLD),
    always("init_module", MODULE),
    always("io_uring_enter", IO_URING),
    always("io_uring_register", IO_URING),
    always("io_uring_setup", IO_URING),
    always("ioperm", PORTS),
    always("iopl", PORTS),
    always("kcmp", TRACE),
    always("kexec_file_load", MACHINE),
    always("kexec_load", MACHINE),
    always("keyctl", KEYS),
    always("lookup_dcookie", MACHINE),
    always(
        "lsm_set_self_attr",
        "changes the AppArmor or SELinux confinement of the caller; the runtime does that through /proc before the program",
    ),
    always("mount", MOUNT),
    always("mount_setattr", MOUNT),
    always("move_mount", MOUNT),
    always("name_to_handle_at", HANDLE),
    always("nfsservctl", OLD),
    always("open_by_handle_at", HANDLE),
    always("open_tree", MOUNT),
    always("open_tree_attr", MOUNT),
    always("perf_event_open", MACHINE),
    always(
        "personality",
        "changes how the kernel lays out memory; a helper of exploits",
    ),
    always("pidfd_getfd", TRACE),
    always("pivot_root", MOUNT),
    always("process_madvise", TRACE),
    always("process_vm_readv", TRACE),
    always("process_vm_writev", TRACE),
    always("ptrace", TRACE),
    always("putpmsg", OLD),
    always("query_module", OLD),
    always("quotactl", MACHINE),
    always("quotactl_fd", MACHINE),
    always("reboot", MACHINE),
    always("request_key", KEYS),
    always("security", OLD),
    always("setdomainname", MACHINE),
    always("sethostname", MACHINE),
    always("setns", NAMESPACE),
    always("settimeofday", CLOCK),
    always("swapoff", MACHINE),
    always("swapon", MACHINE),
    always("_sysctl", OLD),
    always("syslog", MACHINE),
    always("tuxcall", OLD),
    always("umount2", MOUNT),
    always("unshare", NAMESPACE),
    always("uselib", OLD),
    always("userfaultfd", MEMORY),
    always("ustat", OLD),
    always("vhangup", MACHINE),
    always("vserver", OLD),
];

/// A call that `default` leaves to the rules of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spared {
    /// The call's name.
    pub call: &'static str,
    /// Why it needs no ceiling.
    pub why: &'static str,
}

const fn spared(call: &'static str, why: &'static str) -> Spared {
    Spared { call, why }
}

const LIKE_OLDER: &str = "a variant of an older call that is not under the ceiling either";
const OWN: &str = "acts on the caller's own memory or descriptors only";
const TIGHTENS: &str = "can only take rights from its caller";
const MOUNT_TABLE: &str = "reads what /proc/self/mountinfo shows anyway; another mount namespace needs CAP_SYS_ADMIN there";
const SIGNALS: &str = "reaches no process that kill does not reach";
const PROBES: &str = "serves the kernel's own probes: fails outside their trampoline, and seccomp lets it pass inside";

/// The calls since Linux 5.1 that the set named `default` leaves open. Every newer call stands here or in [`DEFAULT`].
pub const SPARED: &[Spared] = &[
    spared("cachestat", OWN),
    spared("close_range", OWN),
    spared("epoll_pwait2", LIKE_OLDER),
    spared("faccessat2", LIKE_OLDER),
    spared("fchmodat2", LIKE_OLDER),
    spared("file_getattr", LIKE_OLDER),
    spared("file_setattr", LIKE_OLDER),
    spared("futex_requeue", LIKE_OLDER),
    spared("futex_wait", LIKE_OLDER),
    spared("futex_waitv", LIKE_OLDER),
    spared("futex_wake", LIKE_OLDER),
    spared("getxattrat", LIKE_OLDER),
    spared("landlock_add_rule", TIGHTENS),
    spared("landlock_create_ruleset", TIGHTENS),
    spared("landlock_restrict_self", TIGHTENS),
    spared("listmount", MOUNT_TABLE),
    spared("listxattrat", LIKE_OLDER),
    spared(
        "lsm_get_self_attr",
        "reads what /proc/self/attr shows anyway",
    ),
    spared(
        "lsm_list_modules",
        "reads what /sys/kernel/security/lsm shows anyway",
    ),
    spared("map_shadow_stack", OWN),
    spared("memfd_secret", OWN),
    spared("mseal", TIGHTENS),
    spared("openat2", LIKE_OLDER),
    spared("pidfd_open", SIGNALS),
    spared("pidfd_send_signal", SIGNALS),
    spared(
        "process_mrelease",
        "only frees the memory of a process that is dying already",
    ),
    spared("removexattrat", LIKE_OLDER),
    spared("set_mempolicy_home_node", OWN),
    spared("setxattrat", LIKE_OLDER),
    spared("statmount", MOUNT_TABLE),
    spared("uprobe", PROBES),
    spared("uretprobe", PROBES),
];

/// A named ceiling.
#[must_use]
pub fn named(name: &str) -> Option<&'static [Forbidden]> {
    (name == "default").then_some(DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lazaret_filter::abi::Abi;
    use lazaret_filter::table;

    #[test]
    fn default_names_real_calls_once_in_order() {
        for pair in DEFAULT.windows(2) {
            let key = |forbidden: &Forbidden| forbidden.call.trim_start_matches('_');
            assert!(
                key(&pair[0]) < key(&pair[1]),
                "{} before {}",
                pair[0].call,
                pair[1].call
            );
        }
        for forbidden in DEFAULT {
            assert!(
                table::nr_of(Abi::X86_64, forbidden.call).is_some(),
                "{}",
                forbidden.call
            );
        }
    }

    #[test]
    fn every_call_since_5_1_is_forbidden_or_spared() {
        let mut judged = 0;
        for abi in [Abi::X86_64, Abi::Aarch64] {
            for (_, call) in table::calls(abi) {
                if table::since(call).is_none_or(|since| since < table::Release::new(5, 1, 0)) {
                    continue;
                }
                let forbidden = DEFAULT.iter().any(|forbidden| forbidden.call == call);
                let spared = SPARED.iter().any(|spared| spared.call == call);
                assert!(forbidden != spared, "{call}: {forbidden} {spared}");
                judged += 1;
            }
        }
        assert!(judged >= 2 * SPARED.len() - 2, "{judged}");
        assert!(SPARED.is_sorted_by(|a, b| a.call < b.call));
    }

    #[test]
    fn personality_and_what_runc_calls_late_stay_out_of_each_others_way() {
        // KERNEL-FACTS, "Between filter installation and exec": the ceiling must not stop the runtime's own calls.
        let runc = "capget capset chdir close execve exit faccessat2 fstat fstatfs getcwd getdents64 getpid getppid \
                    newfstatat openat openat2 statx prctl read setgid setgroups setuid write futex rt_sigreturn nanosleep \
                    mmap madvise sched_yield tgkill clone rt_sigprocmask setresgid setresuid rt_sigaction fchdir";
        for call in runc.split_whitespace() {
            assert!(
                !DEFAULT
                    .iter()
                    .any(|forbidden| forbidden.call == call && forbidden.reach == Reach::Always),
                "{call}"
            );
        }
    }
}
