//! Recordings merged.
//!
//! A profile *is* the set of its recordings, keyed by digest: merging is set union, so it is commutative, associative and
//! idempotent by construction, and nothing of a recording is lost on the way. The figures are views.

use crate::digest::Digest;
use crate::format::recording as wire;
use crate::phase::Phase;
use crate::recording::{ArgSummary, Recording};
use alloc::collections::{BTreeMap, BTreeSet};
use lazaret_filter::abi::Abi;

/// Recordings merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    recordings: BTreeMap<Digest, Recording>,
}

/// One call in one phase over all runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How often, all runs together.
    pub count: u64,
    /// In how many runs.
    pub runs: u64,
    /// Argument → values, merged.
    pub args: BTreeMap<u8, ArgValues>,
}

/// The values of one argument over all runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgValues {
    /// Values.
    pub values: BTreeSet<u64>,
    /// False when some run had more than it kept.
    pub complete: bool,
}

/// The estimate of what another run would show for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// One run, or none: nothing can be said.
    Unknown,
    /// Share of sightings, in tenths of a percent.
    PerMille(u64),
}

impl Profile {
    /// A profile of these recordings.
    #[must_use]
    pub fn of(recordings: impl IntoIterator<Item = Recording>) -> Profile {
        let keyed = recordings
            .into_iter()
            .map(|recording| (Digest::of(&wire::write(&recording)), recording));
        Profile {
            recordings: keyed.collect(),
        }
    }

    /// Both together.
    #[must_use]
    pub fn merge(mut self, other: Profile) -> Profile {
        self.recordings.extend(other.recordings);
        self
    }

    /// The recordings by digest.
    #[must_use]
    pub fn recordings(&self) -> &BTreeMap<Digest, Recording> {
        &self.recordings
    }

    /// Every call by convention, number and phase.
    #[must_use]
    pub fn seen(&self) -> BTreeMap<(Abi, u32, Phase), Seen> {
        let mut all: BTreeMap<(Abi, u32, Phase), Seen> = BTreeMap::new();
        for observation in self
            .recordings
            .values()
            .flat_map(|recording| &recording.observations)
        {
            let seen = all
                .entry((observation.abi, observation.nr, observation.phase))
                .or_default();
            seen.count = seen.count.saturating_add(observation.count);
            seen.runs += 1;
            for summary in &observation.args {
                seen.add(summary);
            }
        }
        all
    }

    /// Good–Turing on sightings by run: of all (call, phase, run) sightings, the share that is the only one of its
    /// (call, phase). Prelude and exec stand apart from the application and are left out.
    #[must_use]
    pub fn unseen(&self) -> Unseen {
        if self.recordings.len() < 2 {
            return Unseen::Unknown;
        }
        let seen = self.seen();
        let mut once = 0_u64;
        let mut all = 0_u64;
        for ((_, _, phase), seen) in &seen {
            if !matches!(phase, Phase::Prelude | Phase::Exec) {
                all += seen.runs;
                once += u64::from(seen.runs == 1);
            }
        }
        // at most a few thousand sightings: the product is far below u64::MAX
        Unseen::PerMille((once * 1000).checked_div(all).unwrap_or(1000))
    }
}

impl Seen {
    fn add(&mut self, summary: &ArgSummary) {
        let values = self.args.entry(summary.arg).or_insert_with(|| ArgValues {
            values: BTreeSet::new(),
            complete: true,
        });
        values.values.extend(summary.values.keys());
        values.complete &= summary.complete;
    }
}
