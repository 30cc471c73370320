//! What a filter means: a verdict for each number, with conditions on arguments, and [`RuleTable::decide`].
//!
//! The table says nothing about names, phases or reasons; those are a policy's business.

use crate::abi::{Abi, X32_BIT};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

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

/// A set of 64-bit values, as disjoint inclusive ranges in ascending order. No two ranges touch, so equal sets are equal
/// values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Values(Vec<(u64, u64)>);

impl Values {
    /// The union of ranges, in any order; empty ranges add nothing.
    #[must_use]
    pub fn of(ranges: impl IntoIterator<Item = RangeInclusive<u64>>) -> Values {
        let mut sorted: Vec<(u64, u64)> = ranges
            .into_iter()
            .filter(|range| !range.is_empty())
            .map(RangeInclusive::into_inner)
            .collect();
        sorted.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (first, last) in sorted {
            match merged.last_mut() {
                // the sum saturates only where the range reaches the largest value, and then everything touches it
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        Values(merged)
    }

    /// Whether the set has the value.
    #[must_use]
    pub fn contains(&self, value: u64) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= value);
        after
            .checked_sub(1)
            .and_then(|at| self.0.get(at))
            .is_some_and(|&(_, last)| value <= last)
    }

    /// Whether the set has no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges, ascending, with a gap between any two.
    pub fn ranges(
        &self,
    ) -> impl DoubleEndedIterator<Item = RangeInclusive<u64>> + ExactSizeIterator {
        self.0.iter().map(|&(first, last)| first..=last)
    }

    /// The values one by one when there are at most `limit`, else `None`.
    #[must_use]
    pub fn singles(&self, limit: usize) -> Option<Vec<u64>> {
        let mut values = Vec::new();
        for range in self.ranges() {
            for value in range {
                if values.len() == limit {
                    return None;
                }
                values.push(value);
            }
        }
        Some(values)
    }

    /// The ranges whose values have no bit outside `mask`; each is kept or dropped as a whole.
    #[must_use]
    pub fn within(&self, mask: u64) -> Values {
        Values::of(self.ranges().filter(|range| {
            // all values of a range share the bits above the highest in which its ends differ; below, every bit occurs set
            let spread = range.start() ^ range.end();
            let below = spread
                .checked_ilog2()
                .map_or(0, |bit| u64::MAX >> (63 - bit));
            (range.start() | below) & !mask == 0
        }))
    }

    /// The values of either set.
    #[must_use]
    pub fn union(&self, other: &Values) -> Values {
        Values::of(self.ranges().chain(other.ranges()))
    }
}

impl FromIterator<u64> for Values {
    fn from_iter<I: IntoIterator<Item = u64>>(values: I) -> Values {
        Values::of(values.into_iter().map(|value| value..=value))
    }
}

impl<const N: usize> From<[u64; N]> for Values {
    fn from(values: [u64; N]) -> Values {
        values.into_iter().collect()
    }
}

/// `(args[arg] & mask) ∈ values`. The mask is already cut to the argument's declared width.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub arg: u8,
    /// The bits that are compared.
    pub mask: u64,
    /// The values that hold; never empty, and the ends of each range lie within the mask.
    pub values: Values,
}

impl Condition {
    /// Whether the condition holds for these arguments.
    #[must_use]
    pub fn holds(&self, args: &[u64; 6]) -> bool {
        args.get(usize::from(self.arg))
            .is_some_and(|value| self.values.contains(value & self.mask))
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

/// The verdicts of one calling convention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Verdicts by number; for x32 without [`X32_BIT`].
    pub entries: BTreeMap<u32, Entry>,
    /// For every number without an entry.
    pub otherwise: Verdict,
}

impl Numbers {
    /// The most permissive verdict that some arguments get for a number.
    #[must_use]
    pub fn widest(&self, nr: u32) -> Verdict {
        self.entries.get(&nr).map_or(self.otherwise, |entry| {
            let branches = entry.branches.iter().map(|branch| branch.verdict);
            branches.fold(entry.otherwise, Verdict::max)
        })
    }

    /// The verdict for a number, without [`X32_BIT`].
    #[must_use]
    pub fn verdict(&self, nr: u32, args: &[u64; 6]) -> Verdict {
        let Some(entry) = self.entries.get(&nr) else {
            return self.otherwise;
        };
        let holds = |branch: &&Branch| branch.all.iter().all(|condition| condition.holds(args));
        let branch = entry.branches.iter().find(holds);
        branch.map_or(entry.otherwise, |branch| branch.verdict)
    }
}

/// The meaning of one filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleTable {
    /// The conventions that are served.
    pub abis: BTreeMap<Abi, Numbers>,
    /// For every other convention. x32 shares the architecture of x86-64 and is told apart by [`X32_BIT`]; each of the two
    /// is foreign unless it has numbers of its own.
    pub foreign: Verdict,
}

impl RuleTable {
    /// A table for one convention only.
    #[must_use]
    pub fn single(abi: Abi, numbers: Numbers, foreign: Verdict) -> RuleTable {
        RuleTable {
            abis: BTreeMap::from([(abi, numbers)]),
            foreign,
        }
    }

    /// The verdict for a call.
    ///
    /// # Guarantees
    /// Total: every architecture, number and argument has exactly one verdict.
    #[must_use]
    pub fn decide(&self, call: &Call) -> Verdict {
        Abi::of(call.arch, call.nr)
            .and_then(|(abi, nr)| Some((self.abis.get(&abi)?, nr)))
            .map_or(self.foreign, |(numbers, nr)| {
                numbers.verdict(nr, &call.args)
            })
    }
}
