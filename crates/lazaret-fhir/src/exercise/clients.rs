//! Sixteen clients at once, each with a connection and resources of its own, in an order of its own.
//!
//! The clients meet in the server's pools and tables, never on one resource: contention for one resource has no status
//! that could be foretold.

use super::dialogue::{Dialogue, Problem, check};
use super::instance::{create, patch};
use super::search::matches;
use super::session::Known;
use super::system::transaction;
use super::{CLIENTS, Limits, client_row};
use crate::capability::Capability;
use crate::client::{Call, Client, query};
use crate::coverage::Interaction;
use crate::data::{self, Identity, Links};
use crate::kind::Kind;
use crate::random::Random;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;
use ureq::http::Method;

/// Index of the first client's first resource, and the distance between two clients'.
const FIRST: u32 = 1000;
const APART: u32 = 100;

/// What a client does with its patient.
#[derive(Clone, Copy)]
enum Deed {
    Read,
    Search,
    SearchPost,
    Update,
    Patch,
    History,
    Transaction,
    Observe,
    CreateAndDelete,
    UnknownId,
}

impl Deed {
    /// All, each with the Patient interaction that must be declared; the transaction is one of the whole system.
    const ALL: [(Self, &str); 10] = [
        (Self::Read, "read"),
        (Self::Search, "search-type"),
        (Self::SearchPost, "search-type"),
        (Self::Update, "update"),
        (Self::Patch, "patch"),
        (Self::History, "history-instance"),
        (Self::Transaction, "transaction"),
        (Self::Observe, "search-type"),
        (Self::CreateAndDelete, "delete"),
        (Self::UnknownId, "read"),
    ];
}

/// Runs the clients and gives one row for each, in their order.
pub(super) fn run(limits: &Limits<'_>, capability: &Capability) -> Vec<Interaction> {
    let patient = capability.types.get(Kind::Patient.name());
    if !patient.is_some_and(|p| p.interactions.contains("create")) {
        let undeclared = |number| client_row(name(number), false, Instant::now(), None, Vec::new());
        return (0..CLIENTS).map(undeclared).collect();
    }
    let deeds = declared(capability);
    let barrier = Barrier::new(CLIENTS as usize);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (deeds, barrier) = (deeds.clone(), &barrier);
                scope.spawn(move || one(number, deeds, barrier, limits))
            })
            .collect();
        threads
            .into_iter()
            .zip(0..)
            .map(|(thread, number)| {
                thread.join().unwrap_or_else(|_| {
                    let problem = Problem::Failed("the client's thread panicked".to_owned());
                    client_row(
                        name(number),
                        true,
                        Instant::now(),
                        Some(problem),
                        Vec::new(),
                    )
                })
            })
            .collect()
    })
}

fn name(number: u32) -> String {
    format!("client.{number:02}")
}

fn declared(capability: &Capability) -> Vec<Deed> {
    let patient = capability.types.get(Kind::Patient.name());
    Deed::ALL
        .into_iter()
        .filter(|(_, code)| {
            patient.is_some_and(|p| p.interactions.contains(*code))
                || capability.system_interactions.contains(*code)
        })
        .map(|(deed, _)| deed)
        .collect()
}

fn one(number: u32, mut deeds: Vec<Deed>, barrier: &Barrier, limits: &Limits<'_>) -> Interaction {
    let plan = limits.plan;
    let client = Client::new(plan.base.clone(), plan.request_timeout);
    let mut ask = Dialogue::new(&client);
    Random::new(&[plan.seed, u64::from(number)]).shuffle(&mut deeds);
    let first = Identity {
        seed: plan.seed,
        run: plan.run,
        index: FIRST + number * APART,
    };
    barrier.wait();
    let began = Instant::now();
    let problem = patient(first, &deeds, limits, &mut ask).err();
    client_row(name(number), true, began, problem, ask.into_statuses())
}

/// Ends at the first problem: what follows would not be comparable.
fn patient(
    first: Identity,
    deeds: &[Deed],
    limits: &Limits<'_>,
    ask: &mut Dialogue<'_>,
) -> Result<(), Problem> {
    let patient = data::resource(Kind::Patient, first, &Links::default());
    let known = create(Kind::Patient, &patient, ask)?;
    for deed in deeds {
        if limits.check().is_err() {
            return Err(Problem::Missing("more time: the run ended before"));
        }
        act(*deed, first, &known, ask)?;
    }
    Ok(())
}

fn act(deed: Deed, first: Identity, known: &Known, ask: &mut Dialogue<'_>) -> Result<(), Problem> {
    let path = format!("Patient/{}", known.id);
    let url = ask.url(&path);
    let by_identifier = query(&[("identifier", &first.token(Kind::Patient))]);
    let index = |at| Identity {
        index: first.index + at,
        ..first
    };
    let links = Links {
        patient: Some(path),
        ..Links::default()
    };
    match deed {
        Deed::Read => ask.resource(Call::get(url), &[200], "Patient").map(drop),
        Deed::Search => {
            let url = ask.url(&format!("Patient?{by_identifier}"));
            found(Kind::Patient, Call::get(url), ask)
        }
        Deed::SearchPost => {
            let call = Call::new(Method::POST, ask.url("Patient/_search"));
            let body = by_identifier.into_bytes();
            found(
                Kind::Patient,
                call.body("application/x-www-form-urlencoded", body),
                ask,
            )
        }
        Deed::Update => {
            let mut changed = data::resource(Kind::Patient, first, &Links::default());
            if let Some(map) = changed.as_object_mut() {
                map.insert("id".to_owned(), known.id.clone().into());
                map.insert("birthDate".to_owned(), "1990-01-02".into());
            }
            ask.ask(Call::new(Method::PUT, url).json(&changed), &[200])
                .map(drop)
        }
        Deed::Patch => {
            let (pointer, [value, _]) = Kind::Patient.change();
            let body = patch(pointer, &value);
            ask.ask(
                Call::new(Method::PATCH, url).body("application/json-patch+json", body),
                &[200],
            )
            .map(drop)
        }
        Deed::History => ask
            .bundle(Call::get(format!("{url}/_history")), "history")
            .map(drop),
        Deed::Transaction => transaction(&data::transaction(index(1)), ask),
        Deed::Observe => {
            let observation = data::resource(Kind::Observation, index(2), &links);
            create(Kind::Observation, &observation, ask)?;
            let by_subject = query(&[("subject", links.patient.as_deref().unwrap_or_default())]);
            found(
                Kind::Observation,
                Call::get(ask.url(&format!("Observation?{by_subject}"))),
                ask,
            )
        }
        Deed::CreateAndDelete => {
            let victim = data::resource(Kind::Patient, index(3), &Links::default());
            let victim = create(Kind::Patient, &victim, ask)?;
            let url = ask.url(&format!("Patient/{}", victim.id));
            ask.ask(Call::new(Method::DELETE, url), &[200, 204])
                .map(drop)
        }
        Deed::UnknownId => ask
            .ask(Call::get(ask.url("Patient/lazaret-no-such-id")), &[404])
            .map(drop),
    }
}

fn found(kind: Kind, call: Call, ask: &mut Dialogue<'_>) -> Result<(), Problem> {
    let bundle = ask.bundle(call, "searchset")?;
    check(
        !matches(&bundle, kind).is_empty(),
        "the search does not find what the client has created",
    )
}
