//! From raw rounds to the report's figures. Pure.
//!
//! Ratios are paired: each round gives one ratio of two targets that were measured within seconds of each other, so
//! that a machine that slows down for a minute slows down both.

use super::BenchResult;
use super::stats::{ratios, spread};
use crate::report::data::{
    CpuPerRequest, Latency, Percentiles, Protection, Round, Sample, Spread, Start, Throughput,
};
use std::collections::{BTreeMap, BTreeSet};

/// The figures of rounds; warm-up rounds are kept and not counted.
#[must_use]
pub fn summarise(rounds: Vec<Round>) -> BenchResult {
    BenchResult {
        throughput: Throughput {
            lazaret_over_default: ratio(&rounds, LAZARET_OVER_DEFAULT, per_second),
            lazaret_over_unconfined: ratio(&rounds, LAZARET_OVER_UNCONFINED, per_second),
            a_over_a: ratio(&rounds, A_OVER_A, per_second),
            per_second: per_protection(&rounds, per_second),
        },
        cpu_per_request: CpuPerRequest {
            lazaret_over_default: ratio(&rounds, LAZARET_OVER_DEFAULT, cpu_ms),
            lazaret_over_unconfined: ratio(&rounds, LAZARET_OVER_UNCONFINED, cpu_ms),
            a_over_a: ratio(&rounds, A_OVER_A, cpu_ms),
            ms: per_protection(&rounds, cpu_ms),
        },
        latency: latency(&rounds),
        rounds,
    }
}

fn latency(rounds: &[Round]) -> Latency {
    let mut p95 = per_protection(rounds, |sample| sample.p95_ms);
    let mut p99 = per_protection(rounds, |sample| sample.p99_ms);
    let ms = per_protection(rounds, |sample| sample.p50_ms)
        .into_iter()
        .filter_map(|(protection, p50)| {
            let percentiles = Percentiles {
                p50,
                p95: p95.remove(&protection)?,
                p99: p99.remove(&protection)?,
            };
            Some((protection, percentiles))
        })
        .collect();
    Latency { ms }
}

/// The section on starts, from each start's seconds; protections without a start are left out.
#[must_use]
pub fn starts(samples: BTreeMap<Protection, Vec<f64>>) -> Start {
    let seconds = samples
        .iter()
        .filter_map(|(protection, samples)| Some((*protection, spread(samples)?.median)))
        .collect();
    Start { seconds, samples }
}

const LAZARET_OVER_DEFAULT: (Protection, Protection) = (Protection::Lazaret, Protection::Default);
const LAZARET_OVER_UNCONFINED: (Protection, Protection) =
    (Protection::Lazaret, Protection::Unconfined);
const A_OVER_A: (Protection, Protection) = (Protection::DefaultAgain, Protection::Default);

fn per_second(sample: &Sample) -> Option<f64> {
    (sample.seconds > 0.0).then(|| sample.requests as f64 / sample.seconds)
}

fn cpu_ms(sample: &Sample) -> Option<f64> {
    (sample.requests > 0).then_some(())?;
    Some(sample.cpu_seconds? * 1e3 / sample.requests as f64)
}

fn counted(rounds: &[Round]) -> impl Iterator<Item = &Round> {
    rounds.iter().filter(|round| !round.warm_up)
}

fn ratio(
    rounds: &[Round],
    (over, under): (Protection, Protection),
    figure: impl Fn(&Sample) -> Option<f64>,
) -> Option<Spread> {
    let find = |round: &Round, protection| {
        let sample = round
            .samples
            .iter()
            .find(|sample| sample.protection == protection)?;
        figure(sample)
    };
    ratios(counted(rounds).filter_map(|round| Some((find(round, over)?, find(round, under)?))))
}

fn per_protection(
    rounds: &[Round],
    figure: impl Fn(&Sample) -> Option<f64>,
) -> BTreeMap<Protection, Spread> {
    let samples = || counted(rounds).flat_map(|round| &round.samples);
    let protections: BTreeSet<Protection> = samples().map(|sample| sample.protection).collect();
    protections
        .into_iter()
        .filter_map(|protection| {
            let figures: Vec<f64> = samples()
                .filter(|sample| sample.protection == protection)
                .filter_map(&figure)
                .collect();
            Some((protection, spread(&figures)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(protection: Protection, requests: u64, cpu_seconds: Option<f64>) -> Sample {
        Sample {
            protection,
            requests,
            failed: 0,
            seconds: 2.0,
            p50_ms: Some(1.0),
            p95_ms: Some(2.0),
            p99_ms: Some(3.0),
            cpu_seconds,
        }
    }

    fn round(warm_up: bool, speed: u64) -> Round {
        Round {
            warm_up,
            samples: vec![
                sample(Protection::Lazaret, 9 * speed, Some(0.9)),
                sample(Protection::Default, 10 * speed, Some(1.0)),
                sample(Protection::DefaultAgain, 11 * speed, None),
            ],
        }
    }

    #[test]
    fn ratios_are_paired_by_round() {
        // The machine's speed changes hundredfold between rounds; the ratios do not.
        let rounds = vec![round(false, 100), round(false, 1), round(false, 10)];
        let BenchResult {
            throughput,
            cpu_per_request: cpu,
            latency,
            ..
        } = summarise(rounds);
        let over = throughput.lazaret_over_default.expect("measured");
        assert_eq!(
            (over.low, over.median, over.high, over.n),
            (0.9, 0.9, 0.9, 3)
        );
        let again = throughput.a_over_a.expect("measured");
        assert_eq!((again.low, again.median, again.high), (1.1, 1.1, 1.1));
        let cpu_over = cpu.lazaret_over_default.expect("measured");
        assert!((cpu_over.median - 1.0).abs() < 1e-12, "{cpu_over:?}");
        let default = throughput
            .per_second
            .get(&Protection::Default)
            .expect("measured");
        assert_eq!(default.median, 50.0);
        let ms = cpu.ms.get(&Protection::Default).expect("measured");
        assert_eq!(ms.median, 10.0);
        let percentiles = latency.ms.get(&Protection::Lazaret).expect("measured");
        assert_eq!((percentiles.p50.median, percentiles.p99.median), (1.0, 3.0));
    }

    #[test]
    fn what_was_not_measured_is_absent() {
        let rounds = vec![round(false, 1)];
        let BenchResult {
            throughput,
            cpu_per_request: cpu,
            latency,
            ..
        } = summarise(rounds);
        assert_eq!(throughput.lazaret_over_unconfined, None);
        assert_eq!(cpu.a_over_a, None, "one side has no CPU account");
        assert!(!cpu.ms.contains_key(&Protection::DefaultAgain));
        assert!(!latency.ms.contains_key(&Protection::Unconfined));
        let nothing_answered = vec![Round {
            warm_up: false,
            samples: vec![sample(Protection::Lazaret, 0, Some(1.0))],
        }];
        let found = summarise(nothing_answered);
        assert!(found.cpu_per_request.ms.is_empty());
    }

    #[test]
    fn warm_up_is_not_counted() {
        let rounds = vec![round(true, 1000), round(false, 1)];
        let BenchResult { throughput, .. } = summarise(rounds);
        let default = throughput
            .per_second
            .get(&Protection::Default)
            .expect("measured");
        assert_eq!((default.n, default.median), (1, 5.0));
    }

    #[test]
    fn starts_have_a_median() {
        let samples = BTreeMap::from([
            (Protection::Default, vec![20.0, 18.0, 25.0]),
            (Protection::Lazaret, vec![]),
        ]);
        let start = starts(samples);
        assert_eq!(start.seconds, BTreeMap::from([(Protection::Default, 20.0)]));
    }
}
