//! System call numbers, names and register arguments.
//!
//! The numbers are generated (`cargo xtask tables`) from Debian's `linux-libc-dev`, with the calls that Linux added up to
//! 6.18. Arguments are listed only for calls that policies put conditions on: a call that is missing from [`args_of`] takes
//! no conditions. What lies behind a pointer has no place here: a filter cannot read it.

mod aarch64;
mod args;
mod i386;
mod since;
mod x32;
mod x86_64;

use crate::abi::Abi;

/// How many low bits of an argument the kernel uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Width {
    /// `int`, `unsigned int`, `pid_t`, `umode_t`: the upper half is whatever the caller left there, and ignored.
    Bits32,
    /// `long`, `size_t` and pointers.
    Bits64,
}

impl Width {
    /// The bits that count.
    #[must_use]
    pub const fn mask(self) -> u64 {
        match self {
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

/// Every call of a convention, by number.
pub fn calls(abi: Abi) -> impl Iterator<Item = (u32, &'static str)> {
    by_nr(abi).iter().copied()
}

/// The first kernel that has the call, as (major, minor); `None` for calls of Linux 6.1 and older, and unknown ones.
#[must_use]
pub fn since(name: &str) -> Option<(u16, u16)> {
    find(since::SINCE, name)
}

/// The arguments of a call that conditions may name, first argument first.
///
/// Positions are those of the 64-bit conventions (`x86_64`, `aarch64`). Where those differ, the list ends before the
/// difference: the slice can be shorter than the call's real number of arguments.
#[must_use]
pub fn args_of(name: &str) -> Option<&'static [ArgDef]> {
    find(args::ARGS, name)
}

/// Position and definition of an argument, by its name in the kernel or in the call's manual page (`socket`'s `family`
/// is `domain` there).
#[must_use]
pub fn arg(call: &str, name: &str) -> Option<(u8, &'static ArgDef)> {
    let kernel_name = args::MANUAL_NAMES
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
    fn hand_written_lists_are_sorted_and_name_real_calls() {
        assert!(args::ARGS.is_sorted_by_key(|(name, _)| name));
        for (call, defs) in args::ARGS {
            assert!(nr_of(Abi::X86_64, call).is_some(), "{call}");
            assert!((1..=6).contains(&defs.len()), "{call}");
        }
        for (call, manual, kernel) in args::MANUAL_NAMES {
            assert!(arg(call, kernel).is_some(), "{call} {kernel}");
            assert_eq!(arg(call, manual), arg(call, kernel), "{call} {manual}");
        }
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
        assert_eq!(arg("socket", "fd"), None);
        assert_eq!(arg("getpid", "pid"), None);
    }

    #[test]
    fn newer_calls_know_their_kernel() {
        assert_eq!(since("cachestat"), Some((6, 5)));
        assert_eq!(since("uprobe"), Some((6, 18)));
        assert_eq!(since("read"), None);
    }
}
