//! The load: counts, order, and servers that fail.

use super::fake::{Fake, Scenario};
use super::{AMPLE, SOON};
use lazaret_fhir::load;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn load_plan(fake: &Fake, duration: Duration) -> load::LoadPlan {
    load::LoadPlan {
        base: fake.base().parse().expect("a base"),
        clients: 3,
        duration,
        mix: load::Mix::default(),
        seed: 1,
        request_timeout: AMPLE,
    }
}

#[test]
fn a_load_counts_what_it_did() {
    let fake = Fake::start(Scenario::Correct);
    let plan = load_plan(&fake, SOON);
    let prepared = load::prepare(&plan.base, 3, AMPLE).expect("prepared");
    let before = fake.log().len();
    let result = load::run(&plan, &prepared).expect("a load");
    assert_eq!(result.requests as usize, fake.log().len() - before);
    assert_eq!(
        (result.failed, result.unanswered, result.first_failure),
        (0, 0, None)
    );
    assert_eq!(
        result.statuses.keys().copied().collect::<Vec<_>>(),
        [200, 201]
    );
    assert_eq!(result.statuses.values().sum::<u64>(), result.requests);
    let l = result.latency;
    assert!(
        0 < l.p50_us && l.p50_us <= l.p95_us && l.p95_us <= l.p99_us && l.p99_us <= l.max_us,
        "{l:?}"
    );
    assert!(result.elapsed_us >= 300_000);
    // Kept alive: one connection each, and that of the preparation.
    assert_eq!(fake.accepted(), 4);
}

#[test]
fn one_client_sends_the_same_requests_again() {
    let requests = |seed| {
        let fake = Fake::start(Scenario::Correct);
        let plan = load::LoadPlan {
            clients: 1,
            seed,
            ..load_plan(&fake, AMPLE)
        };
        let prepared = load::prepare(&plan.base, 4, AMPLE).expect("prepared");
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| load::until(&plan, &prepared, &stop).expect("a load"));
            fake.wait_for_more(100);
            stop.store(true, Ordering::Relaxed);
        });
        fake.log()
    };
    let (one, other) = (requests(1), requests(1));
    let shorter = one.len().min(other.len());
    assert!(shorter > 100);
    assert_eq!(one[..shorter], other[..shorter]);
    let another = requests(2);
    let methods = |log: &[String]| -> Vec<String> {
        log[16..36]
            .iter()
            .map(|line| line[..3].to_owned())
            .collect()
    };
    assert_ne!(
        methods(&one),
        methods(&another),
        "the order does not depend on the seed"
    );
    // The prepared resources, then a round of twenty.
    let of = |method: &str| {
        one[16..36]
            .iter()
            .filter(|line| line.starts_with(method))
            .count()
    };
    assert_eq!((of("GET"), of("PUT"), of("POST")), (17, 2, 1));
}

#[test]
fn a_load_goes_on_over_a_server_that_is_gone_for_a_while() {
    let fake = Fake::start(Scenario::Correct);
    let plan = load_plan(&fake, AMPLE);
    let prepared = load::prepare(&plan.base, 3, AMPLE).expect("prepared");
    let stop = AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        let load = scope.spawn(|| load::until(&plan, &prepared, &stop).expect("a load"));
        fake.wait_for_more(30);
        fake.down();
        fake.wait_for_more(9);
        fake.up();
        fake.wait_for_more(30);
        stop.store(true, Ordering::Relaxed);
        load.join().expect("no panic")
    });
    assert!(result.unanswered >= 3, "{result:?}");
    assert_eq!(result.failed, result.unanswered);
    assert!(result.requests - result.failed > 50, "{result:?}");
    assert!(
        result
            .first_failure
            .is_some_and(|f| f.starts_with("no answer from http://127.0.0.1"))
    );
}

#[test]
fn a_load_counts_wrong_statuses() {
    let fake = Fake::start(Scenario::Answers("PUT", "Patient", 409));
    let plan = load_plan(&fake, SOON);
    let prepared = load::prepare(&plan.base, 3, AMPLE).expect("prepared");
    let result = load::run(&plan, &prepared).expect("a load");
    assert!(
        result.failed > 0 && result.statuses.get(&409) == Some(&result.failed),
        "{result:?}"
    );
    assert_eq!(
        result.first_failure.as_deref(),
        Some("Update was answered 409 instead of 200")
    );
}

#[test]
fn a_load_refuses_what_it_cannot_do() {
    let fake = Fake::start(Scenario::Answers("POST", "Observation", 500));
    let base = fake.base().parse().expect("a base");
    let error = load::prepare(&base, 1, AMPLE)
        .expect_err("no observations")
        .to_string();
    assert!(
        error.starts_with("cannot create the load's Observation 0 on http://"),
        "{error}"
    );
    for clients in [0, load::CLIENTS_MAX + 1] {
        assert!(matches!(
            load::prepare(&base, clients, AMPLE),
            Err(load::LoadError::Clients { .. })
        ));
    }
    let fake = Fake::start(Scenario::Correct);
    let plan = load_plan(&fake, SOON);
    let prepared = load::prepare(&plan.base, 2, AMPLE).expect("prepared");
    let error = load::run(&plan, &prepared)
        .expect_err("too many clients")
        .to_string();
    assert_eq!(error, "a load has 1 to 2 clients, not 3");
}
