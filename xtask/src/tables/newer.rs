//! Calls that no Debian 12 header knows: a list by hand, up to Linux 6.18.
//!
//! A header that knows a name wins over this list, and so does a kernel source for the arguments.

/// A call newer than Debian 12's headers.
pub(super) struct Newer {
    /// The number, the same for every convention that has the call.
    pub(super) nr: u32,
    /// The name in the kernel's tables.
    pub(super) name: &'static str,
    /// The first kernel that has it.
    pub(super) since: (u16, u16),
    /// The conventions that have it.
    pub(super) abis: &'static [&'static str],
}

/// Every convention: since Linux 5.1 new calls get one number everywhere.
const COMMON: &[&str] = &["x86_64", "i386", "x32", "aarch64"];
/// Marked `64` in arch/x86/entry/syscalls/syscall_64.tbl, in which x32 has no part.
const X86_64: &[&str] = &["x86_64"];
/// Marked `64` in syscall_64.tbl and reserved everywhere else.
const NOT_X32: &[&str] = &["x86_64", "i386", "aarch64"];

const fn newer(
    nr: u32,
    name: &'static str,
    since: (u16, u16),
    abis: &'static [&'static str],
) -> Newer {
    Newer {
        nr,
        name,
        since,
        abis,
    }
}

/// Calls that Linux 6.2 to 6.18 added: arch/x86/entry/syscalls/syscall_64.tbl, syscall_32.tbl and scripts/syscall.tbl
/// (before 6.11 include/uapi/asm-generic/unistd.h) of those releases.
pub(super) const NEWER: [Newer; 21] = [
    newer(335, "uretprobe", (6, 11), X86_64),
    newer(336, "uprobe", (6, 18), X86_64),
    newer(451, "cachestat", (6, 5), COMMON),
    newer(452, "fchmodat2", (6, 6), COMMON),
    newer(453, "map_shadow_stack", (6, 6), NOT_X32),
    newer(454, "futex_wake", (6, 7), COMMON),
    newer(455, "futex_wait", (6, 7), COMMON),
    newer(456, "futex_requeue", (6, 7), COMMON),
    newer(457, "statmount", (6, 8), COMMON),
    newer(458, "listmount", (6, 8), COMMON),
    newer(459, "lsm_get_self_attr", (6, 8), COMMON),
    newer(460, "lsm_set_self_attr", (6, 8), COMMON),
    newer(461, "lsm_list_modules", (6, 8), COMMON),
    newer(462, "mseal", (6, 10), COMMON),
    newer(463, "setxattrat", (6, 13), COMMON),
    newer(464, "getxattrat", (6, 13), COMMON),
    newer(465, "listxattrat", (6, 13), COMMON),
    newer(466, "removexattrat", (6, 13), COMMON),
    newer(467, "open_tree_attr", (6, 15), COMMON),
    newer(468, "file_getattr", (6, 17), COMMON),
    newer(469, "file_setattr", (6, 17), COMMON),
];

/// The arguments of those that Linux 6.12 does not have, from 6.18: fs/xattr.c, fs/namespace.c, fs/file_attr.c and
/// arch/x86/kernel/uprobes.c. Name, then name and type of each argument.
pub(super) const ARGUMENTS: [(&str, &[(&str, &str)]); 8] = [
    (
        "file_getattr",
        &[
            ("dfd", "int"),
            ("filename", "const char *"),
            ("ufattr", "struct file_attr *"),
            ("usize", "size_t"),
            ("at_flags", "unsigned int"),
        ],
    ),
    (
        "file_setattr",
        &[
            ("dfd", "int"),
            ("filename", "const char *"),
            ("ufattr", "struct file_attr *"),
            ("usize", "size_t"),
            ("at_flags", "unsigned int"),
        ],
    ),
    (
        "getxattrat",
        &[
            ("dfd", "int"),
            ("pathname", "const char *"),
            ("at_flags", "unsigned int"),
            ("name", "const char *"),
            ("uargs", "struct xattr_args *"),
            ("usize", "size_t"),
        ],
    ),
    (
        "listxattrat",
        &[
            ("dfd", "int"),
            ("pathname", "const char *"),
            ("at_flags", "unsigned int"),
            ("list", "char *"),
            ("size", "size_t"),
        ],
    ),
    (
        "open_tree_attr",
        &[
            ("dfd", "int"),
            ("filename", "const char *"),
            ("flags", "unsigned"),
            ("uattr", "struct mount_attr *"),
            ("usize", "size_t"),
        ],
    ),
    (
        "removexattrat",
        &[
            ("dfd", "int"),
            ("pathname", "const char *"),
            ("at_flags", "unsigned int"),
            ("name", "const char *"),
        ],
    ),
    (
        "setxattrat",
        &[
            ("dfd", "int"),
            ("pathname", "const char *"),
            ("at_flags", "unsigned int"),
            ("name", "const char *"),
            ("uargs", "const struct xattr_args *"),
            ("usize", "size_t"),
        ],
    ),
    ("uprobe", &[]),
];
