//! Arguments of the calls that policies put conditions on.
//!
//! Names and types are those of the `SYSCALL_DEFINE`s of Linux 6.1 (the file is in the comment), hand-written because the
//! headers do not have them.

use super::{ArgDef, Width};

const fn w32(name: &'static str) -> ArgDef {
    ArgDef {
        name,
        width: Width::Bits32,
    }
}

const fn w64(name: &'static str) -> ArgDef {
    ArgDef {
        name,
        width: Width::Bits64,
    }
}

/// Sorted by call.
pub(super) static ARGS: &[(&str, &[ArgDef])] = &[
    // net/socket.c
    (
        "accept4",
        &[
            w32("fd"),
            w64("upeer_sockaddr"),
            w64("upeer_addrlen"),
            w32("flags"),
        ],
    ),
    // arch/x86/kernel/process_64.c
    ("arch_prctl", &[w32("option"), w64("arg2")]),
    // net/socket.c
    ("bind", &[w32("fd"), w64("umyaddr"), w32("addrlen")]),
    // kernel/fork.c; arguments 3 and 4 are swapped between x86-64 and aarch64 (CONFIG_CLONE_BACKWARDS)
    (
        "clone",
        &[w64("clone_flags"), w64("newsp"), w64("parent_tidptr")],
    ),
    // kernel/fork.c
    ("clone3", &[w64("uargs"), w64("size")]),
    // net/socket.c
    ("connect", &[w32("fd"), w64("uservaddr"), w32("addrlen")]),
    // fs/eventpoll.c
    (
        "epoll_ctl",
        &[w32("epfd"), w32("op"), w32("fd"), w64("event")],
    ),
    // fs/exec.c
    ("execve", &[w64("filename"), w64("argv"), w64("envp")]),
    // fs/exec.c
    (
        "execveat",
        &[
            w32("fd"),
            w64("filename"),
            w64("argv"),
            w64("envp"),
            w32("flags"),
        ],
    ),
    // fs/fcntl.c
    ("fcntl", &[w32("fd"), w32("cmd"), w64("arg")]),
    // kernel/futex/syscalls.c
    (
        "futex",
        &[
            w64("uaddr"),
            w32("op"),
            w32("val"),
            w64("utime"),
            w64("uaddr2"),
            w32("val3"),
        ],
    ),
    // net/socket.c
    (
        "getsockopt",
        &[
            w32("fd"),
            w32("level"),
            w32("optname"),
            w64("optval"),
            w64("optlen"),
        ],
    ),
    // fs/ioctl.c
    ("ioctl", &[w32("fd"), w32("cmd"), w64("arg")]),
    // kernel/signal.c
    ("kill", &[w32("pid"), w32("sig")]),
    // net/socket.c
    ("listen", &[w32("fd"), w32("backlog")]),
    // mm/madvise.c
    ("madvise", &[w64("start"), w64("len_in"), w32("behavior")]),
    // arch/x86/kernel/sys_x86_64.c, arch/arm64/kernel/sys.c: every argument is an unsigned long
    (
        "mmap",
        &[
            w64("addr"),
            w64("len"),
            w64("prot"),
            w64("flags"),
            w64("fd"),
            w64("off"),
        ],
    ),
    // fs/namespace.c
    (
        "mount",
        &[
            w64("dev_name"),
            w64("dir_name"),
            w64("type"),
            w64("flags"),
            w64("data"),
        ],
    ),
    // mm/mprotect.c
    ("mprotect", &[w64("start"), w64("len"), w64("prot")]),
    // fs/open.c; umode_t has 16 bits, the kernel drops the rest
    ("open", &[w64("filename"), w32("flags"), w32("mode")]),
    // fs/open.c
    (
        "openat",
        &[w32("dfd"), w64("filename"), w32("flags"), w32("mode")],
    ),
    // kernel/exec_domain.c
    ("personality", &[w32("personality")]),
    // kernel/sys.c
    (
        "prctl",
        &[
            w32("option"),
            w64("arg2"),
            w64("arg3"),
            w64("arg4"),
            w64("arg5"),
        ],
    ),
    // kernel/sys.c
    (
        "prlimit64",
        &[
            w32("pid"),
            w32("resource"),
            w64("new_rlim"),
            w64("old_rlim"),
        ],
    ),
    // kernel/ptrace.c
    (
        "ptrace",
        &[w64("request"), w64("pid"), w64("addr"), w64("data")],
    ),
    // kernel/nsproxy.c
    ("setns", &[w32("fd"), w32("flags")]),
    // net/socket.c
    (
        "setsockopt",
        &[
            w32("fd"),
            w32("level"),
            w32("optname"),
            w64("optval"),
            w32("optlen"),
        ],
    ),
    // net/socket.c
    ("socket", &[w32("family"), w32("type"), w32("protocol")]),
    // net/socket.c
    (
        "socketpair",
        &[w32("family"), w32("type"), w32("protocol"), w64("usockvec")],
    ),
    // kernel/signal.c
    ("tgkill", &[w32("tgid"), w32("pid"), w32("sig")]),
    // kernel/fork.c
    ("unshare", &[w64("unshare_flags")]),
];

/// Call, its argument's name in the manual page, the kernel's name.
pub(super) static MANUAL_NAMES: &[(&str, &str, &str)] = &[
    ("clone", "flags", "clone_flags"),
    ("madvise", "advice", "behavior"),
    ("madvise", "length", "len_in"),
    ("mount", "mountflags", "flags"),
    ("setns", "nstype", "flags"),
    ("socket", "domain", "family"),
    ("socketpair", "domain", "family"),
    ("unshare", "flags", "unshare_flags"),
];
