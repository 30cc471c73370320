//! The calling conventions a system call can arrive by, and the architecture word that seccomp shows for each.

use core::fmt;
use core::str::FromStr;

/// The bit that an x32 call carries in its number (`__X32_SYSCALL_BIT`, `arch/x86/include/uapi/asm/unistd.h`).
pub const X32_BIT: u32 = 0x4000_0000;

/// A calling convention. One kernel can serve several; a filter sees [`Abi::audit_arch`] and the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Abi {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86, also reached by `int 0x80` from 64-bit code; numbers are the i386 ones.
    I386,
    /// x86-64 with 32-bit pointers: shares `AUDIT_ARCH_X86_64`, numbers carry [`X32_BIT`].
    X32,
    /// 64-bit ARM, little endian.
    Aarch64,
}

impl Abi {
    /// Every convention this crate has a table for.
    pub const ALL: [Abi; 4] = [Abi::X86_64, Abi::I386, Abi::X32, Abi::Aarch64];

    /// `seccomp_data.arch` for this convention (`include/uapi/linux/audit.h`).
    #[must_use]
    pub const fn audit_arch(self) -> u32 {
        match self {
            Abi::X86_64 | Abi::X32 => 0xc000_003e,
            Abi::I386 => 0x4000_0003,
            Abi::Aarch64 => 0xc000_00b7,
        }
    }

    /// The convention of a call and its number there (for x32 without [`X32_BIT`]), from what a filter sees; `None` for an
    /// architecture this crate has no table for.
    #[must_use]
    pub const fn of(arch: u32, nr: u32) -> Option<(Abi, u32)> {
        match arch {
            0xc000_003e if nr & X32_BIT != 0 => Some((Abi::X32, nr & !X32_BIT)),
            0xc000_003e => Some((Abi::X86_64, nr)),
            0x4000_0003 => Some((Abi::I386, nr)),
            0xc000_00b7 => Some((Abi::Aarch64, nr)),
            _ => None,
        }
    }

    /// The name used in policies and recordings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Abi::X86_64 => "x86_64",
            Abi::I386 => "i386",
            Abi::X32 => "x32",
            Abi::Aarch64 => "aarch64",
        }
    }
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no calling convention of this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown architecture, known are x86_64, i386, x32 and aarch64")]
pub struct UnknownAbi;

impl FromStr for Abi {
    type Err = UnknownAbi;

    fn from_str(s: &str) -> Result<Self, UnknownAbi> {
        Abi::ALL
            .into_iter()
            .find(|abi| abi.name() == s)
            .ok_or(UnknownAbi)
    }
}
