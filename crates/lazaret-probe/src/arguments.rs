//! The calls whose arguments are summarised.
//!
//! One table for both sides: `masks` turns it into what the eBPF program is given. Numbers, positions and widths come
//! from `lazaret-filter`'s tables. Pointers have no place here: nobody can judge them by value.

use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::table;

/// Most distinct values kept of one argument of one call, per namespace, convention and phase.
pub const VALUES_MAX: u32 = 64;

/// Calls and the arguments, by their kernel or manual names, that are summarised.
///
/// Flags, commands, families and signals: small sets in practice, and what policies put conditions on.
pub const SUMMARISED: &[(&str, &[&str])] = &[
    ("arch_prctl", &["option"]),
    ("clone", &["flags"]),
    ("fcntl", &["cmd"]),
    ("futex", &["op"]),
    ("ioctl", &["cmd"]),
    ("kill", &["sig"]),
    ("madvise", &["advice"]),
    ("mmap", &["prot", "flags"]),
    ("mprotect", &["prot"]),
    ("openat", &["flags"]),
    ("personality", &["personality"]),
    ("prctl", &["option"]),
    ("prlimit64", &["resource"]),
    ("setns", &["nstype"]),
    ("setsockopt", &["level", "optname"]),
    ("socket", &["domain", "type", "protocol"]),
    ("socketpair", &["domain", "type", "protocol"]),
    ("tgkill", &["sig"]),
    ("unshare", &["flags"]),
];

/// The argument at this position of this call is counted after being cut to `mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mask {
    pub(crate) abi: Abi,
    pub(crate) nr: u32,
    pub(crate) arg: u8,
    pub(crate) mask: u64,
}

/// [`SUMMARISED`] for every convention that x86-64 kernels serve.
///
/// Left out: calls that a convention does not have, and i386's `mmap`, whose one argument is a pointer
/// (`old_mmap`, `mm/mmap.c`).
pub(crate) fn masks() -> impl Iterator<Item = Mask> {
    [Abi::X86_64, Abi::I386, Abi::X32]
        .into_iter()
        .flat_map(|abi| SUMMARISED.iter().map(move |row| (abi, row)))
        .filter(|(abi, (call, _))| !(*abi == Abi::I386 && *call == "mmap"))
        .filter_map(|(abi, (call, args))| Some((abi, *call, *args, table::nr_of(abi, call)?)))
        .flat_map(|(abi, call, args, nr)| {
            args.iter().filter_map(move |name| {
                let (arg, def) = table::arg(call, name)?;
                // registers of a 32-bit call are 32 bits wide
                let abi_mask = if abi == Abi::I386 {
                    0xffff_ffff
                } else {
                    u64::MAX
                };
                Some(Mask {
                    abi,
                    nr,
                    arg,
                    mask: def.width.mask() & abi_mask,
                })
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn every_call_and_argument_is_known_and_fits() {
        for (call, args) in SUMMARISED {
            let nr = table::nr_of(Abi::X86_64, call).unwrap();
            for name in *args {
                let (arg, _) = table::arg(call, name)
                    .unwrap_or_else(|| panic!("{call} has no argument {name}"));
                assert!(
                    masks().any(|mask| mask.abi == Abi::X86_64 && mask.nr == nr && mask.arg == arg)
                );
            }
        }
        for mask in masks() {
            assert!(wire::summary_index(mask.abi, mask.nr).is_some(), "{mask:?}");
            assert!(usize::from(mask.arg) < wire::ARGS);
        }
    }

    #[test]
    fn widths_and_positions_are_the_kernels() {
        let find = |abi, nr, arg| {
            masks()
                .find(|mask| (mask.abi, mask.nr, mask.arg) == (abi, nr, arg))
                .map(|mask| mask.mask)
        };
        // openat(dfd, filename, int flags, …) and clone(unsigned long flags, …)
        assert_eq!(find(Abi::X86_64, 257, 2), Some(0xffff_ffff));
        assert_eq!(find(Abi::X86_64, 56, 0), Some(u64::MAX));
        assert_eq!(find(Abi::I386, 120, 0), Some(0xffff_ffff));
        // x32 has an ioctl of its own; i386's old_mmap has no registers to look at
        assert_eq!(find(Abi::X32, 514, 1), Some(0xffff_ffff));
        assert_eq!(find(Abi::I386, 90, 2), None);
    }
}
