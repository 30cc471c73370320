//! From what a demonstration left in its directory to one [`Report`]. Pure: the files are read by `crate::pages`.
//!
//! Every figure comes from a file that Lazaret's own programs wrote (recordings, coverages, events, rounds); only what no
//! program of ours can know (how a container was started, whether an attacker got through) comes from [`Facts`].

use super::data::{
    Attack, DaemonRestart, Digests, Enforced, Gate, Policy, Protection, Recording, Refusal, Report,
    Versions,
};
use crate::bench::BenchResult;
use crate::bench::summary::starts;
use lazaret_core::digest::Digest;
use lazaret_core::event::{Event, What};
use lazaret_core::filter::table::name_of;
use lazaret_core::phase::Phase;
use lazaret_core::policy::Policy as CorePolicy;
use lazaret_core::profile::Profile;
use lazaret_fhir::coverage::Coverage;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What the driver of the demonstration saw: `facts.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Format version, 1.
    pub v: u32,
    /// What was demonstrated.
    pub subject: String,
    /// When, milliseconds since the Unix epoch.
    pub made_ms: u64,
    /// Versions of what took part.
    pub versions: Versions,
    /// Id of the container that the enforced exercise ran in.
    pub container: String,
    /// Starts with papers that are not in order.
    pub refusals: Vec<Refusal>,
    /// Attacks.
    pub attacks: Vec<Attack>,
    /// The daemon killed and started again under requests.
    pub daemon_restart: Option<DaemonRestart>,
    /// Seconds of each start, per protection.
    pub starts: BTreeMap<Protection, Vec<f64>>,
}

/// All that a report is made of.
#[derive(Debug)]
pub struct Parts {
    /// See [`Facts`].
    pub facts: Facts,
    /// The recordings, merged.
    pub profile: Profile,
    /// The policy.
    pub policy: CorePolicy,
    /// Digest of the bundle and id of the key that signed it.
    pub bundle: (Digest, String),
    /// The exercise while learning, of each run.
    pub learning: Vec<Coverage>,
    /// The exercise under the engine's default profile.
    pub default: Coverage,
    /// The exercise under Lazaret.
    pub enforced: Coverage,
    /// The gate's events.
    pub events: Vec<Event>,
    /// The rounds of load.
    pub bench: BenchResult,
}

/// Puts a report together.
#[must_use]
pub fn assemble(parts: Parts) -> Report {
    let Parts {
        facts,
        profile,
        policy,
        bundle,
        learning,
        default,
        enforced,
        events,
        bench,
    } = parts;
    let mut report = Report::empty(&facts.subject, facts.made_ms);
    let recordings = profile.recordings();
    report.recording = Recording {
        runs: Some(recordings.len() as u64),
        lost: Some(
            recordings
                .values()
                .map(|recording| recording.losses.total())
                .sum(),
        ),
        slow_down: slow_down(&learning, &default),
    };
    report.digests = Digests {
        image: policy.image_digests().first().copied(),
        policy: Some(policy.digest()),
        bundle: Some(bundle.0),
        key: Some(bundle.1),
    };
    report.histogram = histogram(&profile);
    report.policy = bands(&policy);
    report.coverage = learning.first().map(Into::into);
    let own: Vec<&Event> = events
        .iter()
        .filter(|event| event.container == facts.container)
        .collect();
    report.asked_in_start = asked(&own, Phase::Startup);
    let whole = !events.iter().any(|event| {
        let ours = event.container.is_empty() || event.container == facts.container;
        ours && matches!(event.what, What::EventsLost { .. })
    });
    report.enforced = compare(&own, whole, &enforced, &default);
    report.versions = facts.versions;
    report.gate = Gate {
        refusals: facts.refusals,
    };
    report.attacks = facts.attacks;
    report.daemon_restart = facts.daemon_restart;
    report.start = starts(facts.starts);
    bench.fill(&mut report);
    report
}

/// Time of the exercise while recording (the middle of the runs) over its time without.
fn slow_down(learning: &[Coverage], default: &Coverage) -> Option<f64> {
    let mut times: Vec<u64> = learning.iter().map(Coverage::elapsed_ms).collect();
    times.sort_unstable();
    let middle = *times.get(times.len() / 2)?;
    // milliseconds of minutes: far below 2⁵³
    (default.elapsed_ms() > 0).then(|| middle as f64 / default.elapsed_ms() as f64)
}

fn histogram(profile: &Profile) -> BTreeMap<Phase, BTreeMap<String, u64>> {
    let mut phases: BTreeMap<Phase, BTreeMap<String, u64>> = BTreeMap::new();
    for ((abi, nr, phase), seen) in profile.seen() {
        let name = name_of(abi, nr).map_or_else(|| nr.to_string(), ToString::to_string);
        phases.entry(phase).or_default().insert(name, seen.count);
    }
    phases
}

fn bands(policy: &CorePolicy) -> Policy {
    let bands = policy.bands();
    let names = |numbers: &BTreeSet<u32>| -> Vec<String> {
        let name = |nr: &u32| {
            name_of(policy.abi(), *nr).map_or_else(|| nr.to_string(), ToString::to_string)
        };
        numbers.iter().map(name).collect()
    };
    Policy {
        name: Some(policy.name().to_string()),
        revision: Some(policy.revision()),
        allow_serving: Some(names(&bands.allow)),
        ask: Some(bands.ask.len() as u64),
        ask_names: Some(names(&bands.ask)),
        deny: Some(bands.deny.len() as u64),
        deny_names: Some(names(&bands.deny)),
    }
}

/// Calls asked in a phase that has ended; none when the gate never said so.
fn asked(events: &[&Event], wanted: Phase) -> Option<BTreeMap<String, u64>> {
    let mut all: Option<BTreeMap<String, u64>> = None;
    for event in events {
        if let What::Asked { phase, calls } = &event.what
            && *phase == wanted
        {
            let all = all.get_or_insert_default();
            for (call, count) in calls {
                *all.entry(call.clone()).or_default() += count;
            }
        }
    }
    all
}

fn compare(events: &[&Event], whole: bool, enforced: &Coverage, default: &Coverage) -> Enforced {
    let mut denied_calls: BTreeMap<String, u64> = BTreeMap::new();
    for event in events {
        if let What::Denied {
            times,
            call,
            phase: Phase::Serving,
            ..
        } = &event.what
        {
            *denied_calls.entry(call.clone()).or_default() += times;
        }
    }
    let differences = enforced.status_differences(default);
    // a container that never served was never held to the serving rules, and a log with gaps counts too few: no zero
    let served = events.iter().any(|event| {
        matches!(
            event.what,
            What::PhaseChanged {
                to: Phase::Serving,
                ..
            }
        )
    });
    Enforced {
        requests: Some(enforced.counts().answers as u64),
        denied_serving: (served && whole).then(|| denied_calls.values().sum()),
        denied_calls,
        status_differences: Some(differences.len() as u64),
        differing_steps: differences.iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(container: &str, what: What) -> Event {
        Event {
            v: 1,
            time_ms: 0,
            container: container.to_string(),
            what,
        }
    }

    fn denied(phase: Phase) -> What {
        What::Denied {
            times: 1,
            pid: 1,
            process: "java".to_string(),
            nr: 83,
            arch: "x86_64".to_string(),
            call: "mkdir".to_string(),
            args: [0; 6],
            phase,
            enforced: true,
        }
    }

    fn coverage() -> Coverage {
        let subject = lazaret_fhir::coverage::Subject {
            base: String::new(),
            software: String::new(),
            fhir_version: String::new(),
            run: 1,
            seed: 1,
        };
        Coverage::new(
            subject,
            1000,
            lazaret_fhir::coverage::Figures::default(),
            Vec::new(),
        )
    }

    #[test]
    fn denials_while_serving_are_counted_and_gaps_are_no_zero() {
        let serving = || {
            let (from, to, cause) = (Phase::Startup, Phase::Serving, "readiness".to_string());
            event("c", What::PhaseChanged { from, to, cause })
        };
        let count = |events: &[Event], whole| {
            let events: Vec<&Event> = events.iter().collect();
            compare(&events, whole, &coverage(), &coverage()).denied_serving
        };
        assert_eq!(count(&[serving()], true), Some(0));
        assert_eq!(
            count(
                &[
                    serving(),
                    event("c", denied(Phase::Serving)),
                    event("c", denied(Phase::Startup))
                ],
                true
            ),
            Some(1)
        );
        assert_eq!(
            count(&[event("c", denied(Phase::Startup))], true),
            None,
            "it never served"
        );
        assert_eq!(count(&[serving()], false), None, "the log has gaps");
    }

    #[test]
    fn what_was_asked_is_added_up_by_phase() {
        let calls = |count| BTreeMap::from([("bind".to_string(), count)]);
        let one = event(
            "c",
            What::Asked {
                phase: Phase::Startup,
                calls: calls(2),
            },
        );
        let two = event(
            "c",
            What::Asked {
                phase: Phase::Serving,
                calls: calls(5),
            },
        );
        assert_eq!(asked(&[&one, &two, &one], Phase::Startup), Some(calls(4)));
        assert_eq!(asked(&[&two], Phase::Startup), None);
    }

    #[test]
    fn recording_is_compared_with_the_same_exercise_without_it() {
        assert_eq!(slow_down(&[coverage(), coverage()], &coverage()), Some(1.0));
        assert_eq!(slow_down(&[], &coverage()), None);
    }
}
