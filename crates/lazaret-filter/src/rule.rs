//! What a filter means: a verdict for each number, with conditions on arguments, and [`RuleTable::decide`].
//!
//! The table says nothing about names, phases or reasons; those are a policy's business.

use crate::abi::{Abi, X32_BIT};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// What the kernel does with a call. The order is the kernel's precedence over a chain of filters, strictest first
/// (`seccomp(2)`, "SECCOMP_RET_*").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Verdict {
    /// The whole process dies (`SECCOMP_RET_KILL_PROCESS`).
    KillProcess,
    /// The calling thread dies (`SECCOMP_RET_KILL_THREAD`).
    KillThread,
    /// `SIGSYS` with this datum.
    Trap(u16),
    /// The call fails with this errno, 0 to 4095 (larger values are cut to 4095 by the kernel).
    Errno(u16),
    /// A supervisor is asked (`SECCOMP_RET_USER_NOTIF`).
    Ask,
    /// A tracer is asked (`SECCOMP_RET_TRACE`); without one the call fails with `ENOSYS`.
    Trace(u16),
    /// Allowed and logged.
    Log,
    /// Allowed.
    Allow,
}

impl Verdict {
    /// The word a filter returns for this verdict (`include/uapi/linux/seccomp.h`).
    #[must_use]
    pub const fn to_raw(self) -> u32 {
        match self {
            Verdict::KillProcess => 0x8000_0000,
            Verdict::KillThread => 0,
            Verdict::Trap(data) => 0x0003_0000 | data as u32,
            Verdict::Errno(errno) => 0x0005_0000 | errno as u32,
            Verdict::Ask => 0x7fc0_0000,
            Verdict::Trace(data) => 0x7ff0_0000 | data as u32,
            Verdict::Log => 0x7ffc_0000,
            Verdict::Allow => 0x7fff_0000,
        }
    }

    /// The verdict behind a returned word. An action the kernel does not know kills the process (`seccomp(2)`, since 4.14).
    #[must_use]
    pub const fn from_raw(raw: u32) -> Verdict {
        let data = (raw & 0xffff) as u16;
        match raw & 0xffff_0000 {
            0 => Verdict::KillThread,
            0x0003_0000 => Verdict::Trap(data),
            // seccomp_run_filters caps the datum at MAX_ERRNO (kernel/seccomp.c, __seccomp_filter)
            0x0005_0000 => Verdict::Errno(if data > 4095 { 4095 } else { data }),
            0x7fc0_0000 => Verdict::Ask,
            0x7ff0_0000 => Verdict::Trace(data),
            0x7ffc_0000 => Verdict::Log,
            0x7fff_0000 => Verdict::Allow,
            _ => Verdict::KillProcess,
        }
    }

    /// How permissive the action is, without its datum: two errnos are equally strict.
    #[must_use]
    pub const fn permissiveness(self) -> u8 {
        match self {
            Verdict::KillProcess => 0,
            Verdict::KillThread => 1,
            Verdict::Trap(_) => 2,
            Verdict::Errno(_) => 3,
            Verdict::Ask => 4,
            Verdict::Trace(_) => 5,
            Verdict::Log => 6,
            Verdict::Allow => 7,
        }
    }
}

/// One system call as a filter sees it (`struct seccomp_data` without the instruction pointer).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// The number, x32's bit included.
    pub nr: u32,
    /// The six arguments, 64 bits each, upper halves as the caller left them.
    pub args: [u64; 6],
}

impl Call {
    /// A call without arguments by `abi`; for x32 the number gets its bit.
    #[must_use]
    pub const fn new(abi: Abi, nr: u32) -> Call {
        let nr = if matches!(abi, Abi::X32) {
            nr | X32_BIT
        } else {
            nr
        };
        Call {
            arch: abi.audit_arch(),
            nr,
            args: [0; 6],
        }
    }
}

/// `(args[arg] & mask) ∈ values`. The mask is already cut to the argument's declared width.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub arg: u8,
    /// The bits that are compared.
    pub mask: u64,
    /// The values that hold, each within the mask; never empty.
    pub values: BTreeSet<u64>,
}

impl Condition {
    /// Whether the condition holds for these arguments.
    #[must_use]
    pub fn holds(&self, args: &[u64; 6]) -> bool {
        args.get(usize::from(self.arg))
            .is_some_and(|value| self.values.contains(&(value & self.mask)))
    }
}

/// Conditions joined by AND, and the verdict when all hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Branch {
    /// At least one condition.
    pub all: Vec<Condition>,
    /// The verdict then.
    pub verdict: Verdict,
}

/// The verdicts of one number: the first branch that holds, else `otherwise`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Tried in order.
    pub branches: Vec<Branch>,
    /// When no branch holds.
    pub otherwise: Verdict,
}

impl Entry {
    /// One verdict whatever the arguments.
    #[must_use]
    pub const fn always(verdict: Verdict) -> Entry {
        Entry {
            branches: Vec::new(),
            otherwise: verdict,
        }
    }
}

/// The meaning of one filter for one native architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleTable {
    /// The only convention that is served.
    pub abi: Abi,
    /// Verdicts by number.
    pub entries: BTreeMap<u32, Entry>,
    /// For every number without an entry.
    pub otherwise: Verdict,
    /// For every other architecture, and for x32 numbers under x86-64.
    pub foreign: Verdict,
}

impl RuleTable {
    /// The verdict for a call.
    ///
    /// # Guarantees
    /// Total: every architecture, number and argument has exactly one verdict.
    #[must_use]
    pub fn decide(&self, call: &Call) -> Verdict {
        if call.arch != self.abi.audit_arch() || (self.abi == Abi::X86_64 && call.nr & X32_BIT != 0)
        {
            return self.foreign;
        }
        match self.entries.get(&call.nr) {
            None => self.otherwise,
            Some(entry) => entry
                .branches
                .iter()
                .find(|branch| {
                    branch
                        .all
                        .iter()
                        .all(|condition| condition.holds(&call.args))
                })
                .map_or(entry.otherwise, |branch| branch.verdict),
        }
    }
}
