//! Names of argument values, as policies write them.
//!
//! Only values that policies put conditions on, and only values on which `x86_64` and `aarch64` agree; the header is in the
//! comment of each list, and `tests/constants.rs` compares them with the installed headers. Structures behind pointers have
//! no place here, so neither have the flags of `clone3`, `openat2` or `bpf`.

mod events;
mod files;
mod memory;
mod process;
mod sockets;

/// One vocabulary: names and values of one kind of argument.
type Names = &'static [(&'static str, u64)];

/// The value of a name for an argument of a call. The argument may be named as in [`crate::table::arg`].
#[must_use]
pub fn value(call: &str, arg: &str, name: &str) -> Option<u64> {
    vocabulary(call, arg)?
        .iter()
        .find(|(known, _)| *known == name)
        .map(|&(_, value)| value)
}

/// The name of exactly this value for an argument of a call, the first of several; combinations of flags have none.
///
/// Nor have values whose meaning depends on another argument, which this function does not see: a socket's protocol
/// (`IPPROTO_TCP` is 6, and so is `NETLINK_XFRM`) and the option of a level.
#[must_use]
pub fn name(call: &str, arg: &str, value: u64) -> Option<&'static str> {
    let (_, def) = crate::table::arg(call, arg)?;
    if matches!(
        (call, def.name),
        ("socket" | "socketpair", "protocol") | ("setsockopt" | "getsockopt", "optname")
    ) {
        return None;
    }
    vocabulary(call, arg)?
        .iter()
        .find(|(_, known)| *known == value)
        .map(|&(name, _)| name)
}

/// All names, and their values, that an argument of a call may have. The argument may be named as in
/// [`crate::table::arg`].
#[must_use]
pub fn vocabulary(call: &str, arg: &str) -> Option<&'static [(&'static str, u64)]> {
    let (_, def) = crate::table::arg(call, arg)?;
    let vocabulary = match (call, def.name) {
        ("open" | "openat" | "open_by_handle_at", "flags") | ("mq_open", "oflag") => files::OPEN,
        ("pipe2" | "dup3", "flags") => files::DESCRIPTOR,
        ("fchownat" | "newfstatat" | "unlinkat" | "name_to_handle_at", "flag")
        | ("execveat" | "faccessat2" | "fchmodat2" | "linkat" | "statx" | "utimensat", "flags")
        | (
            "file_getattr" | "file_setattr" | "getxattrat" | "listxattrat" | "removexattrat"
            | "setxattrat",
            "at_flags",
        ) => files::AT,
        ("fcntl", "cmd") => files::FCNTL,
        ("flock", "cmd") => files::FLOCK,
        ("lseek", "whence") => files::SEEK,
        ("fallocate", "mode") => files::FALLOCATE,
        ("fadvise64", "advice") => files::FADVISE,
        ("renameat2", "flags") => files::RENAME,
        ("preadv2" | "pwritev2", "flags") => files::RWF,
        ("close_range", "flags") => files::CLOSE_RANGE,
        ("mount", "flags") => files::MOUNT,
        ("ioctl", "cmd") => files::IOCTL,
        ("mmap" | "mprotect" | "pkey_mprotect", "prot") => memory::PROT,
        ("mmap", "flags") => memory::MAP,
        ("mremap", "flags") => memory::MREMAP,
        ("msync", "flags") => memory::MSYNC,
        ("mlockall", "flags") => memory::MLOCKALL,
        ("madvise" | "process_madvise", "behavior") => memory::MADVISE,
        ("memfd_create", "flags") => memory::MEMFD,
        ("userfaultfd", "flags") => memory::USERFAULTFD,
        ("membarrier", "cmd") => memory::MEMBARRIER,
        ("clone", "clone_flags") => process::CLONE,
        ("unshare", "unshare_flags") | ("setns", "flags") => process::UNSHARE,
        ("prctl", "option") => process::PRCTL,
        ("arch_prctl", "option") => process::ARCH_PRCTL,
        ("seccomp", "op") => process::SECCOMP,
        ("seccomp", "flags") => process::SECCOMP_FLAGS,
        ("personality", "personality") => process::PERSONALITIES,
        ("prlimit64" | "getrlimit" | "setrlimit", "resource") => process::RLIMITS,
        (
            "kill" | "tkill" | "tgkill" | "rt_sigaction" | "rt_sigqueueinfo" | "rt_tgsigqueueinfo"
            | "pidfd_send_signal",
            "sig",
        ) => process::SIGNALS,
        ("rt_sigprocmask", "how") => process::SIGPROCMASK,
        ("wait4" | "waitid", "options") => process::WAIT,
        ("waitid", "which") => process::WAITID,
        ("sched_setscheduler", "policy") => process::SCHEDULERS,
        ("getpriority" | "setpriority", "which") => process::PRIORITIES,
        ("ptrace", "request") => process::PTRACE,
        ("pidfd_open", "flags") => process::PIDFD,
        ("futex", "op") => events::FUTEX,
        ("epoll_ctl", "op") => events::EPOLL_CTL,
        ("epoll_create1", "flags") => events::EPOLL_CREATE,
        ("eventfd2", "flags") => events::EVENTFD,
        ("signalfd4", "flags") => events::SIGNALFD,
        ("inotify_init1", "flags") => events::INOTIFY,
        ("timerfd_create", "flags") => events::TIMERFD,
        (
            "clock_adjtime" | "clock_getres" | "clock_gettime" | "clock_nanosleep"
            | "clock_settime" | "timer_create",
            "which_clock",
        )
        | ("timerfd_create" | "futex_wait", "clockid") => events::CLOCKS,
        ("getrandom", "flags") => events::GETRANDOM,
        ("socket" | "socketpair", "family") => sockets::FAMILIES,
        ("socket" | "socketpair", "type") => sockets::SOCKET_TYPES,
        ("socket" | "socketpair", "protocol") => sockets::PROTOCOLS,
        ("accept4", "flags") => sockets::SOCKET_FLAGS,
        ("setsockopt" | "getsockopt", "level") => sockets::LEVELS,
        ("setsockopt" | "getsockopt", "optname") => sockets::OPTIONS,
        ("sendto" | "sendmsg" | "sendmmsg" | "recvfrom" | "recvmsg" | "recvmmsg", "flags") => {
            sockets::MESSAGES
        }
        ("shutdown", "how") => sockets::SHUTDOWN,
        _ => return None,
    };
    Some(vocabulary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Abi;
    use crate::table;

    #[test]
    fn names_belong_to_an_argument() {
        for (call, arg, name, expected) in [
            ("socket", "domain", "AF_INET6", Some(10)),
            ("socket", "family", "AF_INET6", Some(10)),
            ("socket", "type", "SOCK_STREAM", Some(1)),
            ("clone", "flags", "CLONE_NEWUSER", Some(0x1000_0000)),
            ("unshare", "flags", "CLONE_NEWTIME", Some(0x80)),
            ("prctl", "option", "PR_SET_NAME", Some(15)),
            ("ioctl", "cmd", "FIONREAD", Some(0x541b)),
            ("openat", "flags", "O_CREAT", Some(0o100)),
            ("kill", "sig", "SIGKILL", Some(9)),
            ("prlimit64", "resource", "RLIMIT_NOFILE", Some(7)),
            ("socket", "protocol", "IPPROTO_TCP", Some(6)),
            ("setsockopt", "optname", "SO_ATTACH_FILTER", Some(26)),
            ("clone", "flags", "CLONE_NEWTIME", None),
            ("openat", "flags", "O_DIRECTORY", None),
            ("socket", "type", "AF_INET", None),
            ("socket", "protocol", "AF_INET", None),
            ("getpid", "domain", "AF_INET", None),
        ] {
            assert_eq!(value(call, arg, name), expected, "{call} {arg} {name}");
        }
        assert_eq!(name("socket", "domain", 1), Some("AF_UNIX"));
        assert_eq!(name("clone", "flags", 0x300), None);
        assert_eq!(name("socket", "protocol", 6), None);
        assert_eq!(name("setsockopt", "optname", 26), None);
    }

    #[test]
    fn a_vocabulary_belongs_to_a_call_and_has_no_name_twice() {
        let mut vocabularies = 0;
        for (call, defs) in [Abi::X86_64, Abi::Aarch64]
            .into_iter()
            .flat_map(table::calls)
            .filter_map(|(_, call)| Some((call, table::args_of(call)?)))
        {
            for def in defs {
                let Some(list) = vocabulary(call, def.name) else {
                    continue;
                };
                vocabularies += 1;
                for (at, (name, value)) in list.iter().enumerate() {
                    let mut rest = list.iter().skip(at + 1);
                    assert!(rest.all(|(other, _)| other != name), "{call} {name}");
                    assert_eq!(value & !def.width.mask(), 0, "{call} {name}");
                }
            }
        }
        // A row of the table that names no argument gives nothing: 106 rows, of which `x86_64` and `aarch64` share all but
        // those of `open` and `arch_prctl`.
        assert_eq!(vocabularies, 2 * 106 - 2);
    }
}
