//! Tests of the rounds, with a load that is made up.

use super::*;
use std::path::PathBuf;

fn target(protection: Protection, cpu: Option<CpuAccount>) -> Target {
    Target {
        protection,
        base: "http://127.0.0.1:1/fhir".parse().expect("a base"),
        network: Network::Own,
        cpu,
    }
}

fn plan(targets: Vec<Target>) -> BenchPlan {
    BenchPlan {
        targets,
        rounds: 20,
        warm_up: 2,
        duration: Duration::from_secs(1),
        clients: 1,
        mix: Mix::default(),
        seed: 3,
    }
}

fn load(failed: u64) -> LoadResult {
    LoadResult {
        requests: 10,
        failed,
        unanswered: 0,
        statuses: BTreeMap::new(),
        latency: load::Latency {
            p50_us: 1_500,
            p95_us: 2_000,
            p99_us: 3_000,
            max_us: 4_000,
        },
        elapsed_us: 2_000_000,
        first_failure: None,
    }
}

#[test]
fn every_target_once_per_round_in_changing_order() {
    let targets = [
        Protection::Unconfined,
        Protection::Default,
        Protection::Lazaret,
    ];
    let plan = plan(targets.map(|protection| target(protection, None)).to_vec());
    let mut told = Vec::new();
    let found = rounds(
        &plan,
        |_, _| Ok(load(0)),
        |round, of| told.push((round, of)),
    );
    let found = found.expect("measured");
    assert_eq!(told, (1..=22).map(|round| (round, 22)).collect::<Vec<_>>());
    let warm_up = found.iter().filter(|round| round.warm_up).count();
    assert_eq!((found.len(), warm_up, found[1].warm_up), (22, 2, true));
    let mut orders = BTreeSet::new();
    for round in &found {
        let order: Vec<Protection> = round
            .samples
            .iter()
            .map(|sample| sample.protection)
            .collect();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, targets);
        orders.insert(order);
    }
    assert_eq!(orders.len(), 6, "22 rounds show all six orders");
    let again = rounds(&plan, |_, _| Ok(load(0)), |_, _| ());
    assert!(again.is_ok_and(|again| again == found));
}

#[test]
fn failed_requests_are_not_counted_as_answered() {
    let plan = plan(vec![target(Protection::Default, None)]);
    let sample = |failed| {
        let found = rounds(&plan, |_, _| Ok(load(failed)), |_, _| ()).expect("measured");
        found[0].samples[0]
    };
    assert_eq!(
        sample(4),
        Sample {
            protection: Protection::Default,
            requests: 6,
            failed: 4,
            seconds: 2.0,
            p50_ms: Some(1.5),
            p95_ms: Some(2.0),
            p99_ms: Some(3.0),
            cpu_seconds: None,
        }
    );
    // No answer, no latency: zero milliseconds would be the best of all servers.
    assert_eq!((sample(10).requests, sample(10).p50_ms), (0, None));
}

#[test]
fn cpu_time_is_that_between_before_and_after() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("cpuacct.usage");
    let cpu = CpuAccount::V1(path.clone());
    let plan = plan(vec![target(Protection::Lazaret, Some(cpu))]);
    let used = |round: u32| u64::from(round) * 500_000_000;
    std::fs::write(&path, used(0).to_string()).expect("a file");
    let drive = |_: &Target, round: u32| {
        std::fs::write(&path, used(round).to_string()).expect("a file");
        Ok(load(0))
    };
    let found = rounds(&plan, drive, |_, _| ()).expect("measured");
    for round in found {
        assert_eq!(round.samples[0].cpu_seconds, Some(0.5));
    }
}

#[test]
fn ends_with_an_error_that_names_the_target() {
    let gone = CpuAccount::V2(PathBuf::from("/nonexistent/cpu.stat"));
    let gone = plan(vec![target(Protection::Default, Some(gone))]);
    let found = rounds(&gone, |_, _| Ok(load(0)), |_, _| ());
    assert!(matches!(
        found,
        Err(BenchError::Cpu {
            protection: Protection::Default,
            round: 1,
            ..
        })
    ));
    let one = plan(vec![target(Protection::Lazaret, None)]);
    let fail = |target: &Target, round| match round {
        3 => Err(BenchError::Load {
            protection: target.protection,
            round,
            source: LoadError::Mix { requests: 0 },
        }),
        _ => Ok(load(0)),
    };
    let error = rounds(&one, fail, |_, _| ()).expect_err("refused");
    assert_eq!(error.to_string(), "target `lazaret`, round 3");
}

/// Nobody listens on port 1: the error comes before any round.
#[test]
fn plans_that_cannot_be_measured_are_refused() {
    let one = || target(Protection::Default, None);
    let cases = [
        (plan(Vec::new()), "nothing to measure: 0 targets, 20 rounds"),
        (
            BenchPlan {
                rounds: 0,
                ..plan(vec![one()])
            },
            "nothing to measure: 1 targets, 0 rounds",
        ),
        (plan(vec![one(), one()]), "two targets run under `default`"),
        (plan(vec![one()]), "cannot prepare target `default`"),
    ];
    for (plan, expected) in cases {
        let error = run(&plan, |_, _| panic!("no round may begin")).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    }
}
