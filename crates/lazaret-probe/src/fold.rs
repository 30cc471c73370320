//! From map entries to observations: pure.

use std::collections::BTreeMap;

use lazaret_core::recording::{ArgSummary, Losses, Observation};

use crate::probe::AttachKind;
use crate::wire::{CallKey, CallValue};

/// What the probe saw of one pid namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Sorted by convention, number and phase. Times are nanoseconds since the probe was attached.
    pub observations: Vec<Observation>,
    /// What is known to be missing, in whichever namespace: the probe cannot tell whose call it was.
    pub losses: Losses,
    /// How the programs were attached.
    pub attach_kind: AttachKind,
    /// The namespace's process 1 was seen being forked; if not, earlier calls are missing.
    pub from_start: bool,
    /// Pid namespaces that were made by processes of this one, directly. Their calls are not in `observations`.
    pub nested: usize,
}

/// The values of the CPUs of one entry of `calls`, together. `None` when no CPU counted anything.
pub(crate) fn over_cpus(values: impl IntoIterator<Item = CallValue>) -> Option<CallValue> {
    values
        .into_iter()
        .filter(|value| value.count > 0)
        .reduce(|a, b| CallValue {
            count: a.count.saturating_add(b.count),
            first_ns: a.first_ns.min(b.first_ns),
            last_ns: a.last_ns.max(b.last_ns),
        })
}

/// The entries of one namespace's slot.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    pub(crate) calls: Vec<(CallKey, CallValue)>,
    /// Argument, value, count.
    pub(crate) values: Vec<(CallKey, u64, u64)>,
    /// Arguments, and whether some of their values were left out.
    pub(crate) sets: Vec<(CallKey, bool)>,
}

/// Observations with times relative to `started_ns` (`CLOCK_MONOTONIC`), sorted by convention, number and phase.
pub(crate) fn observations(entries: Entries, started_ns: u64) -> Vec<Observation> {
    let mut summaries: BTreeMap<CallKey, ArgSummary> = BTreeMap::new();
    for (key, overflowed) in entries.sets {
        summaries.insert(
            key,
            ArgSummary {
                arg: key.arg,
                values: BTreeMap::new(),
                complete: !overflowed,
            },
        );
    }
    for (key, value, count) in entries.values {
        summaries
            .entry(key)
            .or_insert_with(|| ArgSummary {
                arg: key.arg,
                values: BTreeMap::new(),
                complete: true,
            })
            .values
            .insert(value, count);
    }
    let mut observations: Vec<Observation> = entries
        .calls
        .into_iter()
        .map(|(key, value)| {
            let from = CallKey { arg: 0, ..key };
            let to = CallKey {
                arg: u8::MAX,
                ..key
            };
            Observation {
                abi: key.abi,
                nr: key.nr,
                phase: key.phase,
                count: value.count,
                first_ns: value.first_ns.saturating_sub(started_ns),
                last_ns: value.last_ns.saturating_sub(started_ns),
                args: summaries
                    .range(from..=to)
                    .map(|(_, summary)| summary.clone())
                    .collect(),
            }
        })
        .collect();
    observations.sort_by_key(|seen| (seen.abi, seen.nr, seen.phase));
    observations
}
