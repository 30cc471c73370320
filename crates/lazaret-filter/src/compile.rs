//! Turns a [`RuleTable`] into classic BPF.
//!
//! ```text
//! RuleTable ─ check ─► ranges of numbers ─┬─ search ─► decision graph ─ emit ─► Program
//!                      entries ─ conditions ┘          (equal nodes once)
//! ```
//!
//! A filter loads the architecture, then the number, finds the number's range by a search that runs few tests for the given
//! weights, and only then looks at arguments. A call that is decided by its number alone meets only what
//! `seccomp_is_const_allow` (`kernel/seccomp.c`, since 5.11) can follow, so the kernel puts it into its allow bitmap and runs
//! no filter for it at all ([`crate::bitmap`]).
//!
//! Names, phases and reasons have no place here, and neither has loading.

mod check;
mod conditions;
mod emit;
mod graph;
mod search;
mod segments;

pub(crate) use check::check_table;

use crate::abi::Abi;
use crate::program::{MAX_INSTRUCTIONS, Program, ProgramError, code};
use crate::rule::RuleTable;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use graph::Graph;

// struct seccomp_data, include/uapi/linux/seccomp.h
const NR_OFFSET: u32 = 0;
const ARCH_OFFSET: u32 = 4;

/// Why a table has no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The kernel's limit.
    #[error("filter has {found} instructions, the kernel allows {MAX_INSTRUCTIONS}")]
    TooLong {
        /// Instructions the table needs.
        found: usize,
    },
    /// A branch without conditions would hide everything after it.
    #[error("call {nr} has a branch without conditions")]
    NoCondition {
        /// The number.
        nr: u32,
    },
    /// There are six arguments.
    #[error("call {nr} has a condition on argument {arg}, the last is 5")]
    Argument {
        /// The number.
        nr: u32,
        /// The argument.
        arg: u8,
    },
    /// The condition could never hold.
    #[error("call {nr} has a condition on argument {arg} without values")]
    NoValue {
        /// The number.
        nr: u32,
        /// The argument.
        arg: u8,
    },
    /// The value could never match.
    #[error("call {nr} compares argument {arg} with {value:#x}, outside of its mask {mask:#x}")]
    OutsideMask {
        /// The number.
        nr: u32,
        /// The argument.
        arg: u8,
        /// The value.
        value: u64,
        /// The mask.
        mask: u64,
    },
    /// x32's bit tells the conventions apart and is no part of a number.
    #[error("number {nr:#x} of {abi} carries x32's bit")]
    X32Bit {
        /// The number.
        nr: u32,
        /// The convention.
        abi: Abi,
    },
    /// A verdict that the kernel would change or that a filter cannot return.
    #[error("errno {errno} cannot be returned, the largest is 4095")]
    Errno {
        /// The errno.
        errno: u16,
    },
    /// The emitted program failed the kernel's checks: a defect of this module, caught before the kernel sees it.
    #[error("compiled filter is invalid")]
    Invalid(#[source] ProgramError),
}

/// How often calls are made, compared with each other.
///
/// Only calls that the filter runs for matter: a call that is allowed by its number alone is answered by the kernel's bitmap
/// from Linux 5.11 on ([`crate::bitmap::allows`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights(BTreeMap<(Abi, u32), u32>);

impl Weights {
    fn iter(&self) -> impl Iterator<Item = ((Abi, u32), u32)> {
        self.0.iter().map(|(&call, &weight)| (call, weight))
    }
}

/// From counts by convention and number, for x32 without its bit. Counts of one call are added. Only their relation counts:
/// when the largest does not fit into 32 bits, all are divided by the same power of two, and none becomes 0 by that.
impl FromIterator<((Abi, u32), u64)> for Weights {
    fn from_iter<I: IntoIterator<Item = ((Abi, u32), u64)>>(counts: I) -> Weights {
        let mut sums: BTreeMap<(Abi, u32), u64> = BTreeMap::new();
        for (call, count) in counts {
            let sum = sums.entry(call).or_default();
            *sum = sum.saturating_add(count);
        }
        let largest = sums.values().copied().max().unwrap_or_default();
        let shift = 32u32.saturating_sub(largest.leading_zeros());
        let scaled = sums
            .into_iter()
            .filter(|(_, sum)| *sum > 0)
            .map(|(call, sum)| {
                // the shift leaves at most 32 bits of the largest
                (call, u32::try_from(sum >> shift).unwrap_or(u32::MAX).max(1))
            });
        Weights(scaled.collect())
    }
}

/// Compiles a table, every range of numbers being as likely as another.
///
/// # Guarantees
/// `eval(compile(table)?, call) == table.decide(call)` for every call. Equal tables give the same bytes on every machine of
/// one byte order.
///
/// # Errors
/// A table that breaks its own documentation, or needs more than [`MAX_INSTRUCTIONS`].
pub fn compile(table: &RuleTable) -> Result<Program, CompileError> {
    compile_weighted(table, &Weights::default())
}

/// Compiles a table so that frequent calls meet few instructions.
///
/// ```
/// use lazaret_filter::abi::Abi;
/// use lazaret_filter::compile::{Weights, compile_weighted};
/// use lazaret_filter::rule::{Entry, Numbers, RuleTable, Verdict};
///
/// let asked = (0..300).step_by(2).map(|nr| (nr, Entry::always(Verdict::Ask)));
/// let numbers = Numbers { entries: asked.collect(), otherwise: Verdict::Errno(1) };
/// let rules = RuleTable::single(Abi::X86_64, numbers, Verdict::KillProcess);
///
/// // as counted by a recorder
/// let counts = [((Abi::X86_64, 202), 81_000), ((Abi::X86_64, 232), 19_000)];
/// let filter = compile_weighted(&rules, &Weights::from_iter(counts))?;
/// # Ok::<(), lazaret_filter::compile::CompileError>(())
/// ```
///
/// # Guarantees
/// As [`compile`]; the weights change the order of tests, never a verdict.
///
/// # Errors
/// As [`compile`].
pub fn compile_weighted(table: &RuleTable, weights: &Weights) -> Result<Program, CompileError> {
    check_table(table)?;
    let mut graph = Graph::default();
    let mut leaves = segments::Leaves::default();
    let mut trees = Vec::new();
    for arch in architectures(table, weights) {
        let numbers = segments::numbers(&mut graph, &mut leaves, table, weights, arch);
        trees.push((arch, graph.load(NR_OFFSET, numbers)));
    }
    let mut root = graph.verdict(table.foreign);
    for (arch, tree) in trees.into_iter().rev() {
        root = graph.test(code::JEQ_K, arch, tree, root);
    }
    let root = graph.load(ARCH_OFFSET, root);
    emit::emit(&graph, root)
}

/// The architecture words that are served, the most frequent first, then in the order of [`Abi`].
fn architectures(table: &RuleTable, weights: &Weights) -> Vec<u32> {
    let mut words: Vec<u32> = Vec::new();
    for arch in table.abis.keys().map(|abi| abi.audit_arch()) {
        if !words.contains(&arch) {
            words.push(arch);
        }
    }
    let weight = |arch: u32| -> u64 {
        let calls = weights.iter();
        let own = calls.filter(|((abi, _), _)| abi.audit_arch() == arch);
        // 32-bit weights of at most 2^32 numbers for each convention of two
        own.map(|(_, weight)| u64::from(weight))
            .fold(0, u64::saturating_add)
    };
    // stable: equal weights stay in order
    words.sort_by_key(|arch| core::cmp::Reverse(weight(*arch)));
    words
}
