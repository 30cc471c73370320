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

#[cfg(test)]
mod tests {
    use super::*;
    use lazaret_core::filter::abi::Abi;
    use lazaret_core::phase::Phase;

    fn key(abi: Abi, nr: u32, phase: Phase, arg: u8) -> CallKey {
        CallKey {
            slot: 7,
            abi,
            nr,
            phase,
            arg,
        }
    }

    fn value(count: u64, first_ns: u64, last_ns: u64) -> CallValue {
        CallValue {
            count,
            first_ns,
            last_ns,
        }
    }

    #[test]
    fn cpus_that_counted_nothing_have_no_times() {
        assert_eq!(over_cpus([value(0, 0, 0), value(0, 0, 0)]), None);
        assert_eq!(
            over_cpus([value(0, 0, 0), value(2, 50, 60), value(3, 40, 45)]),
            Some(value(5, 40, 60))
        );
    }

    #[test]
    fn arguments_join_the_calls_of_their_own_phase_and_convention() {
        let native = key(Abi::X86_64, 41, Phase::Startup, 0);
        let entries = Entries {
            calls: vec![
                (key(Abi::I386, 41, Phase::Startup, 0), value(1, 100, 100)),
                (key(Abi::X86_64, 41, Phase::Exec, 0), value(1, 90, 100)),
                (native, value(3, 110, 120)),
                (key(Abi::X86_64, 3, Phase::Serving, 0), value(1, 130, 130)),
            ],
            values: vec![
                (native, 2, 3),
                (CallKey { arg: 1, ..native }, 1, 2),
                (CallKey { arg: 1, ..native }, 5, 1),
            ],
            sets: vec![(native, false), (CallKey { arg: 1, ..native }, true)],
        };
        let observations = observations(entries, 100);
        let rows: Vec<_> = observations
            .iter()
            .map(|seen| (seen.abi, seen.nr, seen.phase, seen.first_ns, seen.last_ns))
            .collect();
        assert_eq!(
            rows,
            [
                (Abi::X86_64, 3, Phase::Serving, 30, 30),
                (Abi::X86_64, 41, Phase::Startup, 10, 20),
                // a time before the start is the start
                (Abi::X86_64, 41, Phase::Exec, 0, 0),
                (Abi::I386, 41, Phase::Startup, 0, 0),
            ]
        );
        let args: Vec<_> = observations
            .iter()
            .map(|seen| seen.args.as_slice())
            .collect();
        let summary = |arg, values: &[(u64, u64)], complete| ArgSummary {
            arg,
            values: values.iter().copied().collect(),
            complete,
        };
        assert_eq!(
            args,
            [
                &[][..],
                &[
                    summary(0, &[(2, 3)], true),
                    summary(1, &[(1, 2), (5, 1)], false)
                ],
                &[],
                &[],
            ]
        );
    }
}
