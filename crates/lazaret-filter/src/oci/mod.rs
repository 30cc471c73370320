//! The `linux.seccomp` object of the OCI runtime specification: written from rule tables, read from profiles of Docker, podman
//! and runtimes, and what a runtime and its libseccomp really make of one.
//!
//! ```text
//!   JSON ──► read::parse ──► Document ──► Document::resolve(Host) ──► OciSeccomp ──► meaning(Engine) ──► RuleTable
//!                                                                         ▲                                 │
//!                                                                         └──────────── profile ◄───────────┘
//! ```
//!
//! A profile is not a filter: the runtime's libseccomp makes the filter from it, and bends some of it. [`profile()`] refuses
//! what would be bent; [`meaning()`] says what comes out, and a [`Note`] for each rule that the engine ignores or changes.
//! Nothing here reads files or calls libseccomp.

mod accumulator;
mod errno;
mod flatten;
mod json;
mod meaning;
mod multiplex;
mod note;
pub mod read;
mod resolve;
mod tree;
mod write;

pub use meaning::{Engine, meaning};
pub use note::{Note, Place};
pub use read::{Document, MAX_DEPTH, MAX_PROFILE_BYTES, OciReadError};
pub use resolve::{Host, Resolved};
pub use write::{Listener, MAX_RULES_PER_CALL, OciError, profile};

use crate::abi::Abi;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// `linux.seccomp` (`config-linux.md`, "Seccomp", in the OCI runtime specification 1.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OciSeccomp {
    /// For calls that are not named.
    pub default_action: Action,
    /// The errno of a default action that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// The architectures that are served; the runtime kills on the others.
    #[serde(default)]
    pub architectures: Vec<Architecture>,
    /// Flags of `seccomp(2)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// The Unix socket that the runtime sends the listener to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_path: Option<String>,
    /// What the runtime hands over with the listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_metadata: Option<String>,
    /// The rules.
    #[serde(default)]
    pub syscalls: Vec<OciSyscall>,
}

/// One rule: for each of the names, the action when all of the arguments hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OciSyscall {
    /// Names of calls.
    pub names: Vec<String>,
    /// What happens.
    pub action: Action,
    /// The errno or the tracer's datum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// Joined by AND, as long as no index is there twice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<OciArg>,
}

/// One comparison of an argument.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OciArg {
    /// Which argument, 0 to 5.
    pub index: u8,
    /// The datum; for a masked comparison the mask.
    pub value: u64,
    /// For a masked comparison the datum.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub value_two: u64,
    /// How they are compared.
    pub op: Operator,
}

/// `omitempty` of the specification's Go types.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// What the kernel does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Action {
    /// Allowed.
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    /// A supervisor is asked.
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
    /// Fails with `errnoRet`, EPERM when that is missing.
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    /// Allowed and logged.
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    /// A tracer is asked.
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    /// `SIGSYS`.
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    /// The thread dies (the older name of [`Action::KillThread`]).
    #[serde(rename = "SCMP_ACT_KILL")]
    Kill,
    /// The thread dies.
    #[serde(rename = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    /// The process dies.
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operator {
    /// `arg != value`.
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    /// `arg < value`.
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    /// `arg <= value`.
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    /// `arg == value`.
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    /// `arg >= value`.
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    /// `arg > value`.
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    /// `arg & value == valueTwo`.
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}
/// The architectures that engines put into profiles; this crate has tables for the first four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Architecture {
    /// [`Abi::X86_64`].
    #[serde(rename = "SCMP_ARCH_X86_64")]
    X86_64,
    /// [`Abi::I386`].
    #[serde(rename = "SCMP_ARCH_X86")]
    X86,
    /// [`Abi::X32`].
    #[serde(rename = "SCMP_ARCH_X32")]
    X32,
    /// [`Abi::Aarch64`].
    #[serde(rename = "SCMP_ARCH_AARCH64")]
    Aarch64,
    /// 32-bit ARM.
    #[serde(rename = "SCMP_ARCH_ARM")]
    Arm,
    /// MIPS, big endian.
    #[serde(rename = "SCMP_ARCH_MIPS")]
    Mips,
    /// MIPS, 64 bits, big endian.
    #[serde(rename = "SCMP_ARCH_MIPS64")]
    Mips64,
    /// MIPS, N32, big endian.
    #[serde(rename = "SCMP_ARCH_MIPS64N32")]
    Mips64N32,
    /// MIPS, little endian.
    #[serde(rename = "SCMP_ARCH_MIPSEL")]
    Mipsel,
    /// MIPS, 64 bits, little endian.
    #[serde(rename = "SCMP_ARCH_MIPSEL64")]
    Mipsel64,
    /// MIPS, N32, little endian.
    #[serde(rename = "SCMP_ARCH_MIPSEL64N32")]
    Mipsel64N32,
    /// PowerPC.
    #[serde(rename = "SCMP_ARCH_PPC")]
    Ppc,
    /// PowerPC, 64 bits, big endian.
    #[serde(rename = "SCMP_ARCH_PPC64")]
    Ppc64,
    /// PowerPC, 64 bits, little endian.
    #[serde(rename = "SCMP_ARCH_PPC64LE")]
    Ppc64Le,
    /// z/Architecture, 31 bits.
    #[serde(rename = "SCMP_ARCH_S390")]
    S390,
    /// z/Architecture, 64 bits.
    #[serde(rename = "SCMP_ARCH_S390X")]
    S390X,
    /// RISC-V, 64 bits.
    #[serde(rename = "SCMP_ARCH_RISCV64")]
    Riscv64,
    /// LoongArch, 64 bits.
    #[serde(rename = "SCMP_ARCH_LOONGARCH64")]
    Loongarch64,
}

impl Architecture {
    /// The convention, when this crate has a table for it.
    #[must_use]
    pub const fn abi(self) -> Option<Abi> {
        match self {
            Architecture::X86_64 => Some(Abi::X86_64),
            Architecture::X86 => Some(Abi::I386),
            Architecture::X32 => Some(Abi::X32),
            Architecture::Aarch64 => Some(Abi::Aarch64),
            _ => None,
        }
    }

    /// What a profile calls the convention.
    #[must_use]
    pub const fn of(abi: Abi) -> Architecture {
        match abi {
            Abi::X86_64 => Architecture::X86_64,
            Abi::I386 => Architecture::X86,
            Abi::X32 => Architecture::X32,
            Abi::Aarch64 => Architecture::Aarch64,
        }
    }
}
