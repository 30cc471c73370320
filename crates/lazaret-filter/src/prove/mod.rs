//! Proves what filters do: for every architecture, every number, every instruction pointer and all six 64-bit arguments at
//! once, without trying any of them.
//!
//! ```text
//! RuleTable ── table ──┐
//!                      ├─► Meaning ── compare ──► Comparison ─┐
//! Programs ─── run ────┘      └────── entries ──► Ruled       ├─ region ──► Difference, Cube
//!              (word, bdd)                                    └─ checked by the interpreter
//! ```
//!
//! A [`Meaning`] divides all calls into the sets that get each verdict. A filter's is found by running it on all calls at once: its
//! registers are functions of the call, a jump divides the calls that reach it, paths that meet are joined. Sets are reduced
//! ordered binary decision diagrams, so two sets are equal when their diagrams are: equality, refinement and difference are
//! exact. No solver, no sampling, no guess.
//!
//! What that costs is bounded. A value that grows beyond the bound (a product of two arguments, say) is *unknown*; when the
//! outcome depends on one, the answer is [`ProveError::Undecided`] with the instruction that made it, never a false *equal*. A
//! difference is never false either: its [`Difference::call`] was run through the interpreter on both sides.
//!
//! Deliberately not here: what a policy is, where filters come from, and which differences are acceptable.
//!
//! # Example
//!
//! ```
//! use lazaret_filter::abi::Abi;
//! use lazaret_filter::rule::{Entry, Numbers, RuleTable, Verdict};
//! use lazaret_filter::{compile, prove};
//!
//! let numbers = Numbers {
//!     entries: [(0, Entry::always(Verdict::Allow))].into(),
//!     otherwise: Verdict::Errno(1),
//! };
//! let mut table = RuleTable::single(Abi::X86_64, numbers, Verdict::KillProcess);
//! let filter = compile::compile(&table)?;
//! assert!(prove::prove(&table, &[filter.clone()])?.is_equal());
//!
//! table.abis.get_mut(&Abi::X86_64).unwrap().entries.clear();
//! let comparison = prove::prove(&table, &[filter])?;
//! assert_eq!(comparison.looser[0].numbers, 0..=0);
//! assert!(!comparison.is_at_least_as_strict());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bdd;
mod compare;
mod entries;
mod region;
mod run;
mod table;
mod word;

pub use compare::{Comparison, Difference, MAX_DIFFERENCES, NO_CALL, Omitted};
pub use entries::{Case, Ruled};
pub use region::{Cube, MAX_CUBES, MAX_VALUES, Operand, Region, Term};

use crate::interpret;
use crate::program::Program;
use crate::rule::{Call, RuleTable, Verdict};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use bdd::{Diagrams, Full, Set};
use core::fmt;

/// Why there is no proof, in either direction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProveError {
    /// Without a filter the kernel allows everything; nobody should mistake that for a meaning.
    #[error("chain has no filter")]
    EmptyChain,
    /// A filter computes something that the bounds do not hold.
    #[error("undecided: filter {filter}, instruction {instruction}: {reason}")]
    Undecided {
        /// The filter's index in the chain.
        filter: usize,
        /// The instruction's index in the filter.
        instruction: usize,
        /// What is too much.
        reason: Reason,
    },
    /// Tables or chains, or what they differ in, need more than the bounds hold.
    #[error(
        "undecided: sets of calls need more than {} nodes or {} steps",
        bdd::MAX_NODES,
        bdd::MAX_STEPS
    )]
    TooLarge,
    /// The verdicts of one convention change too often over its numbers to be listed.
    #[error("verdicts change at more than {limit} numbers")]
    TooManyRanges {
        /// The most that are listed.
        limit: usize,
    },
    /// A meaning was handed to a [`Space`] that has not made it.
    #[error("meaning belongs to another space")]
    OtherSpace,
    /// The interpreter does not confirm a difference: a fault of this crate, which must not pass for an answer.
    #[error("interpreter does not confirm a difference at {call:x?}")]
    Unconfirmed {
        /// The call.
        call: Call,
    },
}

/// What is too much in one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Its result cannot be followed, and the outcome depends on it.
    Value {
        /// The jump, division or return that depends on it.
        used: usize,
    },
    /// The set of calls that it separates or lets pass is too large to hold.
    Calls,
    /// The filter returns too many different words.
    Returns {
        /// The most that are followed.
        limit: usize,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Value { used } => write!(
                f,
                "its result cannot be followed, and instruction {used} depends on it"
            ),
            Reason::Calls => f.write_str("the calls that it tells apart cannot be followed"),
            Reason::Returns { limit } => {
                write!(f, "the filter returns more than {limit} different words")
            }
        }
    }
}

impl From<Full> for ProveError {
    fn from(Full: Full) -> ProveError {
        ProveError::TooLarge
    }
}

/// Holds the sets of calls of the meanings that are to be compared with each other, within fixed bounds of memory and time.
pub struct Space {
    diagrams: Diagrams,
    identity: Arc<()>,
}

/// What every call gets: for each verdict the set of its calls. Belongs to the [`Space`] that made it.
#[derive(Clone)]
pub struct Meaning {
    /// Not empty, disjoint, and together all calls.
    sets: BTreeMap<Verdict, Set>,
    origin: Origin,
    space: Arc<()>,
}

/// Where a meaning comes from, to have witnesses checked.
#[derive(Clone)]
enum Origin {
    Table(Arc<RuleTable>),
    Chain(Arc<[Program]>),
}

impl fmt::Debug for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meaning")
            .field("verdicts", &self.sets.keys())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space").finish_non_exhaustive()
    }
}

impl Default for Space {
    fn default() -> Space {
        Space::new()
    }
}

impl Space {
    /// An empty space.
    #[must_use]
    pub fn new() -> Space {
        Space {
            diagrams: Diagrams::new(),
            identity: Arc::new(()),
        }
    }

    /// What a table means.
    ///
    /// # Errors
    /// [`ProveError::TooLarge`].
    pub fn of_table(&mut self, table: &RuleTable) -> Result<Meaning, ProveError> {
        let sets = table::sets(&mut self.diagrams, table)?;
        self.meaning(sets, Origin::Table(Arc::new(table.clone())))
    }

    /// What a chain of filters does, oldest first.
    ///
    /// # Flow
    /// Each filter by itself; then, from the newest on, an older one's word counts where its action is stricter
    /// (`seccomp_run_filters`, `kernel/seccomp.c`), so that of equal actions the newest filter's datum stands.
    ///
    /// # Errors
    /// An empty chain, and what cannot be decided.
    pub fn of_chain(&mut self, chain: &[Program]) -> Result<Meaning, ProveError> {
        // ACTION_ONLY in kernel/seccomp.c: the upper half as a signed number
        let action = |raw: u32| (raw & 0xffff_0000).cast_signed();
        let mut strictest: Option<BTreeMap<u32, Set>> = None;
        for (filter, program) in chain.iter().enumerate().rev() {
            let older = run::run(&mut self.diagrams, filter, program)?;
            let Some(newer) = strictest.take() else {
                strictest = Some(older);
                continue;
            };
            let mut both = BTreeMap::new();
            for (&new, &new_set) in &newer {
                for (&old, &old_set) in &older {
                    let wins = if action(old) < action(new) { old } else { new };
                    let set = self.diagrams.and(new_set, old_set)?;
                    add(&mut self.diagrams, &mut both, wins, set)?;
                }
            }
            strictest = Some(both);
        }
        let mut sets = BTreeMap::new();
        for (raw, set) in strictest.ok_or(ProveError::EmptyChain)? {
            add(&mut self.diagrams, &mut sets, Verdict::from_raw(raw), set)?;
        }
        self.meaning(sets, Origin::Chain(chain.into()))
    }

    /// What one call gets, which is made at this address.
    ///
    /// # Errors
    /// [`ProveError::OtherSpace`].
    pub fn verdict(
        &self,
        meaning: &Meaning,
        call: &Call,
        instruction_pointer: u64,
    ) -> Result<Verdict, ProveError> {
        self.check(meaning)?;
        let words = word::of_call(call, instruction_pointer);
        let mut holders = meaning
            .sets
            .iter()
            .filter(|&(_, &set)| region::contains(&self.diagrams, set, &words));
        // the sets make up all calls, so that there is one; a fault here must not pass for an answer
        let (&verdict, _) = holders
            .next()
            .ok_or(ProveError::Unconfirmed { call: *call })?;
        Ok(verdict)
    }

    fn meaning(
        &mut self,
        sets: BTreeMap<Verdict, Set>,
        origin: Origin,
    ) -> Result<Meaning, ProveError> {
        if cfg!(debug_assertions) {
            let mut all = Set::NONE;
            for &set in sets.values() {
                assert_eq!(self.diagrams.and(all, set)?, Set::NONE, "sets overlap");
                all = self.diagrams.or(all, set)?;
            }
            assert_eq!(all, Set::ALL, "sets leave calls out");
        }
        Ok(Meaning {
            sets,
            origin,
            space: Arc::clone(&self.identity),
        })
    }

    /// [`region::region`], once for each set.
    fn region_of(&mut self, set: Set, known: &mut BTreeMap<Set, Region>) -> Result<Region, Full> {
        if let Some(region) = known.get(&set) {
            return Ok(region.clone());
        }
        let region = region::region(&mut self.diagrams, set)?;
        known.insert(set, region.clone());
        Ok(region)
    }

    fn check(&self, meaning: &Meaning) -> Result<(), ProveError> {
        if Arc::ptr_eq(&self.identity, &meaning.space) {
            Ok(())
        } else {
            Err(ProveError::OtherSpace)
        }
    }
}

impl Meaning {
    /// The verdicts that some call gets, strictest first.
    pub fn verdicts(&self) -> impl Iterator<Item = Verdict> + '_ {
        self.sets.keys().copied()
    }

    /// What the call gets, by evaluation.
    fn decide(&self, call: &Call, instruction_pointer: u64) -> Option<Verdict> {
        match &self.origin {
            Origin::Table(table) => Some(table.decide(call)),
            Origin::Chain(chain) => {
                let outcome = interpret::eval_chain_at(chain, call, instruction_pointer);
                outcome.ok().map(|outcome| outcome.verdict)
            }
        }
    }
}

/// Adds calls to those of a key; without any the key stays away.
fn add<K: Ord>(
    diagrams: &mut Diagrams,
    sets: &mut BTreeMap<K, Set>,
    key: K,
    set: Set,
) -> Result<(), Full> {
    if set != Set::NONE {
        let so_far = sets.entry(key).or_insert(Set::NONE);
        *so_far = diagrams.or(*so_far, set)?;
    }
    Ok(())
}

/// Compares a chain of filters, oldest first, with a table.
///
/// # Flow
/// The meaning of the table, the meaning of the chain, and where they differ, all in a [`Space`] of their own.
///
/// # Guarantees
/// [`Comparison::is_equal`] and [`Comparison::is_at_least_as_strict`] hold for every call there can be. Every difference that
/// is listed shows a call for which `interpret` and [`RuleTable::decide`] disagree.
///
/// # Assumptions
/// The programs are the chain that the kernel runs, whole and in its order.
///
/// # Caveats
/// A filter that compares two arguments with each other, or multiplies them, is undecided; those of libseccomp, systemd and this
/// crate compare with constants. What is said of [`NO_CALL`] is in [`Comparison::no_call`] and makes nothing looser.
///
/// # Errors
/// When it cannot be decided within the bounds, with the instruction at fault where there is one.
pub fn prove(expected: &RuleTable, chain: &[Program]) -> Result<Comparison, ProveError> {
    let mut space = Space::new();
    let expected = space.of_table(expected)?;
    let found = space.of_chain(chain)?;
    space.compare(&expected, &found)
}
