//! A bounded load for benchmarks: reads, searches, updates and creates in fixed proportions over kept-alive connections.
//!
//! The order of each client's requests follows from the seed. How many there are follows from the server's speed, as the
//! load is closed: a client sends the next request when the last one is answered, so latencies are those under this number of
//! clients and say nothing about an open arrival rate. Nothing is retried; every failure counts.

use crate::base::Base;
use crate::client::{Answer, Call, Client, query};
use crate::data::{self, Identity, Links};
use crate::exercise::create_one;
use crate::kind::Kind;
use crate::random::Random;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::thread;
use std::time::Instant;
use ureq::http::Method;

/// Clients at most.
pub const CLIENTS_MAX: u32 = 256;
/// Requests of one round of a [`Mix`] at most.
pub const ROUND_MAX: usize = 1000;
/// Observations that each client's patient has before the load begins.
const OBSERVATIONS: u32 = 3;
/// Run number that the load's resources carry: none that a run of the exercise has, which conditional creates would notice.
const RUN: u32 = u32::MAX;
/// Largest latency that is told apart, µs.
const LATENCY_MAX_US: u64 = 600_000_000;
/// Pause after a request without answer: a server that restarts is asked a hundred times a second, not as fast as can be.
const PAUSE: Duration = Duration::from_millis(10);

/// How many requests of each kind one round has; their order is shuffled anew for each round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mix {
    /// Reads of one of the prepared patients.
    pub reads: usize,
    /// Searches, by turns for observations by reference and for patients by identifier.
    pub searches: usize,
    /// Updates of the client's own patient.
    pub updates: usize,
    /// Creates of an observation of the client's own patient.
    pub creates: usize,
}

impl Default for Mix {
    /// Twelve reads, five searches, two updates, one create.
    fn default() -> Self {
        Self {
            reads: 12,
            searches: 5,
            updates: 2,
            creates: 1,
        }
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// The server.
    pub base: Base,
    /// Clients at once, each with one connection: 1 to the number that was prepared for.
    pub clients: u32,
    /// How long; requests under way at its end are waited for and counted.
    pub duration: Duration,
    /// Proportions.
    pub mix: Mix,
    /// Chooses the order.
    pub seed: u64,
    /// Time for one request.
    pub request_timeout: Duration,
}

/// The resources that a load works on: one patient for each client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    patients: Vec<String>,
}

/// A load could not be prepared or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// No client, or too many.
    #[error("a load has 1 to {limit} clients, not {clients}")]
    Clients {
        /// How many were asked for.
        clients: u32,
        /// How many there can be.
        limit: u32,
    },
    /// An empty or endless round.
    #[error("a round of the mix has 1 to {ROUND_MAX} requests, not {requests}")]
    Mix {
        /// How many it has.
        requests: usize,
    },
    /// A resource that the load needs could not be created.
    #[error("cannot create the load's {kind} {index} on {base}: {detail}")]
    Create {
        /// The server.
        base: String,
        /// The type.
        kind: &'static str,
        /// Which.
        index: u32,
        /// What the server said.
        detail: String,
    },
}

/// Latencies of the requests that succeeded, in µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Half of the requests took no longer.
    pub p50_us: u64,
    /// 95 of 100.
    pub p95_us: u64,
    /// 99 of 100.
    pub p99_us: u64,
    /// All.
    pub max_us: u64,
}

/// What a load did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadResult {
    /// Requests, failed ones included.
    pub requests: u64,
    /// Requests with another status than the expected, a wrong body, or no answer.
    pub failed: u64,
    /// Of these, without an answer.
    pub unanswered: u64,
    /// Status → how often.
    pub statuses: BTreeMap<u16, u64>,
    /// Latencies.
    pub latency: Latency,
    /// From the first request to the last answer, µs.
    pub elapsed_us: u64,
    /// For people: the first failure of the first client that had one.
    pub first_failure: Option<String>,
}

impl LoadResult {
    /// Requests that succeeded, per second.
    #[must_use]
    pub fn throughput(&self) -> f64 {
        // Both are far below 2⁵³.
        let succeeded = self.requests.saturating_sub(self.failed) as f64;
        succeeded * 1e6 / (self.elapsed_us.max(1) as f64)
    }
}

/// Creates what `clients` clients work on: a patient with three observations each.
///
/// # Errors
/// The number of clients is out of bounds, or the server does not create a resource.
pub fn prepare(
    base: &Base,
    clients: u32,
    request_timeout: Duration,
) -> Result<Prepared, LoadError> {
    bounded(clients, CLIENTS_MAX)?;
    let client = Client::new(base.clone(), request_timeout);
    let create = |kind: Kind, index, links: &Links| {
        let resource = data::resource(kind, identity(index), links);
        create_one(&client, kind, &resource).map_err(|detail| LoadError::Create {
            base: base.to_string(),
            kind: kind.name(),
            index,
            detail,
        })
    };
    let mut patients = Vec::new();
    for index in 0..clients {
        let id = create(Kind::Patient, index, &Links::default())?;
        let links = Links {
            patient: Some(format!("Patient/{id}")),
            ..Links::default()
        };
        for at in 0..OBSERVATIONS {
            create(Kind::Observation, index * OBSERVATIONS + at, &links)?;
        }
        patients.push(id);
    }
    Ok(Prepared { patients })
}

/// Runs for the plan's duration.
///
/// # Errors
/// The plan has no client, more than were prepared for, or an empty round. A server that fails is no error but a count.
pub fn run(plan: &LoadPlan, prepared: &Prepared) -> Result<LoadResult, LoadError> {
    until(plan, prepared, &AtomicBool::new(false))
}

/// Runs until `stop` is true, at most for the plan's duration.
///
/// # Errors
/// As [`run`].
pub fn until(
    plan: &LoadPlan,
    prepared: &Prepared,
    stop: &AtomicBool,
) -> Result<LoadResult, LoadError> {
    // The conversion cannot fail: `prepare` makes at most CLIENTS_MAX.
    bounded(
        plan.clients,
        u32::try_from(prepared.patients.len()).unwrap_or(0),
    )?;
    let round = round(plan.mix)?;
    let started = Instant::now();
    let running = || !stop.load(Ordering::Relaxed) && started.elapsed() < plan.duration;
    let tallies = thread::scope(|scope| {
        let threads: Vec<_> = prepared
            .patients
            .iter()
            .zip(0..plan.clients)
            .map(|(own, number)| {
                let worker = Worker {
                    client: Client::new(plan.base.clone(), plan.request_timeout),
                    random: Random::new(&[plan.seed, u64::from(number)]),
                    prepared,
                    own,
                    number,
                    turn: 0,
                };
                let (round, running) = (round.clone(), &running);
                scope.spawn(move || worker.work(round, running))
            })
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|_| Tally::panicked()))
            .collect::<Vec<_>>()
    });
    let mut all = Tally::new();
    for tally in tallies {
        all.add(tally);
    }
    Ok(all.result(started.elapsed()))
}

fn bounded(clients: u32, limit: u32) -> Result<(), LoadError> {
    if (1..=limit).contains(&clients) {
        Ok(())
    } else {
        Err(LoadError::Clients { clients, limit })
    }
}

fn identity(index: u32) -> Identity {
    Identity {
        seed: 1,
        run: RUN,
        index,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Read,
    Search,
    Update,
    Create,
}

fn round(mix: Mix) -> Result<Vec<Request>, LoadError> {
    let kinds = [
        (Request::Read, mix.reads),
        (Request::Search, mix.searches),
        (Request::Update, mix.updates),
        (Request::Create, mix.creates),
    ];
    let requests = kinds
        .iter()
        .fold(0_usize, |sum, (_, n)| sum.saturating_add(*n));
    if requests == 0 || requests > ROUND_MAX {
        return Err(LoadError::Mix { requests });
    }
    Ok(kinds
        .into_iter()
        .flat_map(|(kind, n)| core::iter::repeat_n(kind, n))
        .collect())
}

/// One client.
struct Worker<'a> {
    client: Client,
    random: Random,
    prepared: &'a Prepared,
    own: &'a str,
    number: u32,
    turn: u32,
}

impl Worker<'_> {
    fn work(mut self, mut round: Vec<Request>, running: &dyn Fn() -> bool) -> Tally {
        let mut tally = Tally::new();
        while running() {
            self.random.shuffle(&mut round);
            for request in &round {
                if !running() {
                    break;
                }
                self.turn = self.turn.wrapping_add(1);
                let call = self.call(*request);
                let began = Instant::now();
                let answer = self.client.send(call);
                tally.requests += 1;
                match answer {
                    Ok(answer) => tally.answered(*request, &answer, began.elapsed()),
                    Err(error) => {
                        tally.unanswered += 1;
                        tally.failed(|| error.to_string());
                        thread::sleep(PAUSE);
                    }
                }
            }
        }
        tally
    }

    fn call(&mut self, request: Request) -> Call {
        let base = self.client.base();
        let any = self
            .random
            .pick(&self.prepared.patients)
            .map_or(self.own, String::as_str);
        match request {
            Request::Read => Call::get(base.url(&format!("Patient/{any}"))),
            Request::Search if self.turn.is_multiple_of(2) => {
                let token = identity(self.number).token(Kind::Patient);
                Call::get(base.url(&format!("Patient?{}", query(&[("identifier", &token)]))))
            }
            Request::Search => {
                let by = query(&[("subject", &format!("Patient/{any}")), ("_count", "10")]);
                Call::get(base.url(&format!("Observation?{by}")))
            }
            Request::Update => {
                let mut patient =
                    data::resource(Kind::Patient, identity(self.number), &Links::default());
                if let Some(map) = patient.as_object_mut() {
                    map.insert("id".to_owned(), self.own.into());
                    // Another value each time: servers store no version for an update that changes nothing.
                    let (month, day) = (1 + self.turn / 28 % 12, 1 + self.turn % 28);
                    map.insert(
                        "birthDate".to_owned(),
                        format!("1990-{month:02}-{day:02}").into(),
                    );
                }
                Call::new(Method::PUT, base.url(&format!("Patient/{}", self.own))).json(&patient)
            }
            Request::Create => {
                let links = Links {
                    patient: Some(format!("Patient/{}", self.own)),
                    ..Links::default()
                };
                let observation = data::resource(Kind::Observation, identity(self.turn), &links);
                Call::new(Method::POST, base.url("Observation")).json(&observation)
            }
        }
    }
}

/// Counts of one client.
struct Tally {
    requests: u64,
    failures: u64,
    unanswered: u64,
    statuses: BTreeMap<u16, u64>,
    latencies: Histogram<u64>,
    first_failure: Option<String>,
}

impl Tally {
    fn new() -> Self {
        Self {
            requests: 0,
            failures: 0,
            unanswered: 0,
            statuses: BTreeMap::new(),
            // Three digits: the error of a percentile is below 0.1 %. It fails on a lower bound of 0, an upper bound below twice
            // the lower, or more than five digits; these are constants.
            latencies: Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)
                .expect("the bounds are constants that fit"),
            first_failure: None,
        }
    }

    fn panicked() -> Self {
        let mut tally = Self::new();
        tally.failed(|| "a client's thread panicked".to_owned());
        tally
    }

    fn answered(&mut self, request: Request, answer: &Answer, took: Duration) {
        *self.statuses.entry(answer.status).or_default() += 1;
        let expected = match request {
            Request::Read | Request::Search | Request::Update => 200,
            Request::Create => 201,
        };
        let read = matches!(request, Request::Read | Request::Search);
        if answer.status != expected {
            self.failed(|| {
                format!(
                    "{request:?} was answered {} instead of {expected}",
                    answer.status
                )
            });
        } else if read && answer.body.first() != Some(&b'{') {
            self.failed(|| format!("{request:?} was answered with something else than JSON"));
        } else {
            self.latencies
                .saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
    }

    fn failed(&mut self, detail: impl FnOnce() -> String) {
        self.failures += 1;
        self.first_failure.get_or_insert_with(detail);
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.failures += other.failures;
        self.unanswered += other.unanswered;
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        // It fails when a value of the other lies outside this one's bounds; both have the same.
        self.latencies
            .add(&other.latencies)
            .expect("both histograms have the same bounds");
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }

    fn result(self, elapsed: Duration) -> LoadResult {
        let latency = Latency {
            p50_us: self.latencies.value_at_quantile(0.50),
            p95_us: self.latencies.value_at_quantile(0.95),
            p99_us: self.latencies.value_at_quantile(0.99),
            max_us: self.latencies.max(),
        };
        LoadResult {
            requests: self.requests,
            failed: self.failures,
            unanswered: self.unanswered,
            statuses: self.statuses,
            latency,
            elapsed_us: u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
            first_failure: self.first_failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_has_what_the_mix_says() {
        let round = round(Mix::default()).expect("a round");
        let of = |kind| round.iter().filter(|r| **r == kind).count();
        assert_eq!(
            [
                of(Request::Read),
                of(Request::Search),
                of(Request::Update),
                of(Request::Create)
            ],
            [12, 5, 2, 1]
        );
    }

    #[test]
    fn empty_and_endless_rounds_are_refused() {
        let none = Mix {
            reads: 0,
            searches: 0,
            updates: 0,
            creates: 0,
        };
        for mix in [
            none,
            Mix {
                reads: ROUND_MAX + 1,
                ..none
            },
            Mix {
                reads: usize::MAX,
                creates: 1,
                ..none
            },
        ] {
            assert!(matches!(round(mix), Err(LoadError::Mix { .. })), "{mix:?}");
        }
    }
}
