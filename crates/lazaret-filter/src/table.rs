//! System call numbers, names, releases and register arguments.
//!
//! All generated, none built with the crate: numbers and names from the headers of Debian's `linux-libc-dev`, releases
//! from syscalls(2), arguments from the kernel's `SYSCALL_DEFINE`s; calls that Linux added later, up to 6.18, from a list
//! by hand. The header of each file in `table/` names package and version.
//!
//! What lies behind a pointer has no place here: a filter cannot read it.

mod aarch64;
mod args;
mod i386;
mod manual;
mod since;
mod x32;
mod x86_64;

use core::fmt;

use crate::abi::Abi;

/// How many low bits of an argument its declared type has.
///
/// The rest of the register is whatever the caller left there, and ignored: a condition that looks at it can be evaded.
/// A few functions use fewer bits than they declare: `clone` takes the lower 32 of its flags (`lower_32_bits` in
/// kernel/fork.c), and `readv` and its kin hand a long `fd` on as an int. A rule that *denies* single values there needs a
/// mask; one that allows them is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Width {
    /// `umode_t`.
    Bits16,
    /// `int`, `unsigned int`, `pid_t`, `clockid_t`.
    Bits32,
    /// `long`, `size_t`, `loff_t` and pointers.
    Bits64,
}

impl Width {
    /// The bits that count.
    #[must_use]
    pub const fn mask(self) -> u64 {
        match self {
            Width::Bits16 => 0xffff,
            Width::Bits32 => 0xffff_ffff,
            Width::Bits64 => u64::MAX,
        }
    }
}

/// A register argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgDef {
    /// The name in the kernel's `SYSCALL_DEFINE`.
    pub name: &'static str,
    /// The width of its type there on 64-bit kernels.
    pub width: Width,
}

const fn w16(name: &'static str) -> ArgDef {
    ArgDef {
        name,
        width: Width::Bits16,
    }
}

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

/// A release of the kernel, as `uname -r` begins. Ordered by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release {
    /// 6 of 6.1.
    pub major: u16,
    /// 1 of 6.1.
    pub minor: u16,
    /// 16 of 2.6.16; 0 where no third number is of interest, as always since 3.0.
    pub patch: u16,
}

impl Release {
    /// A release of three numbers.
    #[must_use]
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        match self.patch {
            0 => Ok(()),
            patch => write!(f, ".{patch}"),
        }
    }
}

/// The number of a call; without [`crate::abi::X32_BIT`] for x32.
#[must_use]
pub fn nr_of(abi: Abi, name: &str) -> Option<u32> {
    let table = match abi {
        Abi::X86_64 => x86_64::BY_NAME,
        Abi::I386 => i386::BY_NAME,
        Abi::X32 => x32::BY_NAME,
        Abi::Aarch64 => aarch64::BY_NAME,
    };
    find(table, name)
}

/// The name of a number; without [`crate::abi::X32_BIT`] for x32.
#[must_use]
pub fn name_of(abi: Abi, nr: u32) -> Option<&'static str> {
    let table = by_nr(abi);
    let at = table.binary_search_by_key(&nr, |&(nr, _)| nr).ok()?;
    table.get(at).map(|&(_, name)| name)
}

/// A call as text: its name, or its number in decimal where it has none here; without [`crate::abi::X32_BIT`] for x32.
///
/// A number without a name is still a number: nothing says "unknown".
#[must_use]
pub const fn display(abi: Abi, nr: u32) -> CallName {
    CallName { abi, nr }
}

/// See [`display`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallName {
    abi: Abi,
    nr: u32,
}

impl fmt::Display for CallName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match name_of(self.abi, self.nr) {
            Some(name) => f.pad(name),
            None => fmt::Display::fmt(&self.nr, f),
        }
    }
}

/// Every call of a convention, by number.
pub fn calls(abi: Abi) -> impl Iterator<Item = (u32, &'static str)> {
    by_nr(abi).iter().copied()
}

/// The first release that has the call, on the first architecture that had it; for the stable series before 2.6, which
/// syscalls(2) tells apart no further, the series (2.4), and 1.0 for everything older.
///
/// `None` for names that no table has, and for reserved numbers that no kernel since 2.4 serves, like `afs_syscall`.
/// An architecture may have got the call later: no call of `aarch64` is older than 3.7, none of x32 than 3.4, and i386 has
/// `socket` and its kin only since 4.3.
#[must_use]
pub fn since(name: &str) -> Option<Release> {
    find(since::SINCE, name)
}

/// The arguments of a call that conditions may name, first argument first.
///
/// Positions are those of the 64-bit conventions (`x86_64`, `aarch64`). Where those differ, the list ends before the
/// difference: the slice can be shorter than the call's real number of arguments, as it is for `clone` alone. An empty
/// list is a call without arguments; `None` a name whose arguments are not known: calls of 32-bit conventions only, and
/// numbers that no kernel since 6.1 serves.
#[must_use]
pub fn args_of(name: &str) -> Option<&'static [ArgDef]> {
    find(args::ARGS, name)
}

/// Position and definition of an argument, by its name in the kernel or in the call's manual page (`socket`'s `family`
/// is `domain` there).
#[must_use]
pub fn arg(call: &str, name: &str) -> Option<(u8, &'static ArgDef)> {
    let kernel_name = manual::MANUAL_NAMES
        .iter()
        .find(|(of, manual, _)| *of == call && *manual == name)
        .map_or(name, |&(_, _, kernel)| kernel);
    (0u8..)
        .zip(args_of(call)?)
        .find(|(_, def)| def.name == kernel_name)
}

fn by_nr(abi: Abi) -> &'static [(u32, &'static str)] {
    match abi {
        Abi::X86_64 => x86_64::BY_NR,
        Abi::I386 => i386::BY_NR,
        Abi::X32 => x32::BY_NR,
        Abi::Aarch64 => aarch64::BY_NR,
    }
}

fn find<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    let at = table.binary_search_by_key(&name, |&(name, _)| name).ok()?;
    table.get(at).map(|&(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    #[test]
    fn numbers_are_the_kernels() {
        for (abi, name, nr) in [
            (Abi::X86_64, "read", 0),
            (Abi::X86_64, "execve", 59),
            (Abi::X86_64, "uprobe", 336),
            (Abi::X86_64, "file_setattr", 469),
            (Abi::I386, "execve", 11),
            (Abi::I386, "socketcall", 102),
            (Abi::X32, "execve", 520),
            (Abi::Aarch64, "execve", 221),
            (Abi::Aarch64, "newfstatat", 79),
            (Abi::Aarch64, "mmap", 222),
            (Abi::Aarch64, "mseal", 462),
        ] {
            assert_eq!(nr_of(abi, name), Some(nr), "{abi} {name}");
            assert_eq!(name_of(abi, nr), Some(name), "{abi} {nr}");
        }
        assert_eq!(nr_of(Abi::Aarch64, "open"), None);
        assert_eq!(nr_of(Abi::X32, "uretprobe"), None);
        assert_eq!(nr_of(Abi::X86_64, "syscalls"), None);
        assert_eq!(name_of(Abi::X86_64, 400), None);
    }

    #[test]
    fn both_directions_agree_and_are_sorted() {
        for abi in Abi::ALL {
            let mut last = None;
            for (nr, name) in calls(abi) {
                assert!(last < Some(nr), "{abi}: {name} is out of order");
                last = Some(nr);
                assert_eq!(nr_of(abi, name), Some(nr), "{abi} {name}");
            }
            let names = match abi {
                Abi::X86_64 => x86_64::BY_NAME,
                Abi::I386 => i386::BY_NAME,
                Abi::X32 => x32::BY_NAME,
                Abi::Aarch64 => aarch64::BY_NAME,
            };
            assert_eq!(names.len(), calls(abi).count());
        }
    }

    #[test]
    fn lists_are_sorted_and_name_real_calls() {
        assert!(args::ARGS.is_sorted_by(|(a, _), (b, _)| a < b));
        assert!(since::SINCE.is_sorted_by(|(a, _), (b, _)| a < b));
        let is_call = |name| Abi::ALL.iter().any(|abi| nr_of(*abi, name).is_some());
        for (call, defs) in args::ARGS {
            let abis = [Abi::X86_64, Abi::Aarch64];
            assert!(abis.iter().any(|abi| nr_of(*abi, call).is_some()), "{call}");
            assert!(defs.len() <= 6, "{call}");
            for (at, def) in defs.iter().enumerate() {
                let rest = defs.get(at + 1..).expect("within the list");
                assert!(rest.iter().all(|other| other.name != def.name), "{call}");
            }
        }
        for (call, _) in since::SINCE {
            assert!(is_call(call), "{call}");
        }
    }

    #[test]
    fn manual_names_are_other_names_of_known_arguments() {
        assert!(manual::MANUAL_NAMES.is_sorted());
        for (call, manual, kernel) in manual::MANUAL_NAMES {
            assert!(arg(call, kernel).is_some(), "{call} {kernel}");
            assert_eq!(arg(call, manual), arg(call, kernel), "{call} {manual}");
            let defs = args_of(call).expect("known");
            assert!(
                defs.iter().all(|def| def.name != *manual),
                "{call} {manual} is the kernel's"
            );
        }
    }

    /// Reserved, or gone before Linux 6.1.
    #[test]
    fn calls_without_arguments_listed_or_release_are_these() {
        let without = |known: fn(&str) -> bool, abis: &[Abi]| {
            let mut names: Vec<&str> = abis
                .iter()
                .flat_map(|abi| calls(*abi))
                .map(|(_, name)| name)
                .filter(|name| !known(name))
                .collect();
            names.sort_unstable();
            names.dedup();
            names.join(" ")
        };
        assert_eq!(
            without(|name| args_of(name).is_some(), &[Abi::X86_64, Abi::Aarch64]),
            "_sysctl afs_syscall create_module epoll_ctl_old epoll_wait_old get_kernel_syms get_thread_area getpmsg \
             lookup_dcookie nfsservctl putpmsg query_module security set_thread_area tuxcall uselib vserver"
        );
        assert_eq!(
            without(|name| since(name).is_some(), &Abi::ALL),
            "afs_syscall break epoll_ctl_old epoll_wait_old ftime getpmsg gtty idle lock mpx prof profil putpmsg \
             security stty tuxcall ulimit vserver"
        );
    }

    #[test]
    fn arguments_have_position_and_width() {
        let int = |name| ArgDef {
            name,
            width: Width::Bits32,
        };
        assert_eq!(arg("socket", "domain"), Some((0, &int("family"))));
        assert_eq!(arg("socket", "type"), Some((1, &int("type"))));
        assert_eq!(arg("prctl", "option"), Some((0, &int("option"))));
        assert_eq!(
            arg("clone", "flags").map(|(at, def)| (at, def.width)),
            Some((0, Width::Bits64))
        );
        assert_eq!(
            arg("mkdirat", "mode").map(|(at, def)| (at, def.width)),
            Some((2, Width::Bits16))
        );
        assert_eq!(
            arg("futex_wait", "clockid").map(|(at, def)| (at, def.width)),
            Some((5, Width::Bits32))
        );
        assert_eq!(args_of("clone").map(<[_]>::len), Some(3));
        assert_eq!(args_of("getpid"), Some([].as_slice()));
        assert_eq!(args_of("socketcall"), None);
        assert_eq!(arg("socket", "fd"), None);
        assert_eq!(arg("getpid", "pid"), None);
    }

    #[test]
    fn calls_know_their_release() {
        for (name, expected) in [
            ("read", Some("1.0")),
            ("openat", Some("2.6.16")),
            ("tkill", Some("2.4.22")),
            ("membarrier", Some("4.3")),
            ("clone3", Some("5.3")),
            ("futex_time64", Some("5.1")),
            ("futex_waitv", Some("5.16")),
            ("cachestat", Some("6.5")),
            ("uprobe", Some("6.18")),
            ("afs_syscall", None),
            ("no_such_call", None),
        ] {
            let found = since(name).map(|release| release.to_string());
            assert_eq!(found.as_deref(), expected, "{name}");
        }
        assert!(Release::new(2, 6, 39) < Release::new(3, 0, 0));
        assert!(since("openat") < since("openat2"));
    }

    #[test]
    fn an_unknown_number_is_a_number() {
        let text = |abi, nr| display(abi, nr).to_string();
        assert_eq!(text(Abi::X86_64, 59), "execve");
        assert_eq!(text(Abi::Aarch64, 59), "pipe2");
        for nr in [400, 1 << 30, u32::MAX] {
            assert_eq!(text(Abi::X86_64, nr), nr.to_string());
        }
        assert_eq!(
            format!(
                "{:>6}|{:<5}|",
                display(Abi::X86_64, 0),
                display(Abi::X86_64, 999)
            ),
            "  read|999  |"
        );
    }
}
