//! The exercise: what a correct server reaches, and that every wrong is seen.

use super::SOON;
use super::fake::{CAPABILITY, Fake, Fault, Scenario};
use lazaret_fhir::capability::CapabilityError;
use lazaret_fhir::coverage::{Coverage, Outcome};
use lazaret_fhir::exercise::{CLIENTS, ExerciseError, Plan, Progress, run};
use lazaret_fhir::{BODY_LIMIT, TransportError};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn plan(fake: &Fake, number: u32) -> Plan {
    Plan::new(fake.base().parse().expect("a base"), number)
}

fn exercise(scenario: Scenario) -> Coverage {
    let fake = Fake::start(scenario);
    let plan = Plan {
        export_timeout: SOON,
        ..plan(&fake, 1)
    };
    run(&plan, &()).expect("a run that ends")
}

fn fails(scenario: Scenario) -> ExerciseError {
    let fake = Fake::start(scenario);
    run(
        &Plan {
            request_timeout: SOON,
            ..plan(&fake, 1)
        },
        &(),
    )
    .expect_err("a run that does not end")
}

fn outcome(coverage: &Coverage, name: &str) -> (Outcome, Vec<u16>) {
    let row = coverage
        .rows()
        .iter()
        .find(|row| row.name == name)
        .expect("the row");
    (row.outcome, row.statuses.clone())
}

#[test]
fn a_correct_server_does_everything() {
    let coverage = exercise(Scenario::Correct);
    let wrong: Vec<_> = coverage
        .rows()
        .iter()
        .filter(|r| r.outcome != Outcome::Succeeded)
        .collect();
    let names: Vec<&str> = wrong.iter().map(|r| r.name.as_str()).collect();
    // No resource of the seven refers to a Bundle.
    assert_eq!(names, ["Bundle.parameter._has"], "{wrong:?}");
    let figures = coverage.figures();
    assert_eq!(figures.interactions.to_string(), "65/65");
    assert_eq!(figures.search_parameters.to_string(), "195/196");
    assert_eq!(
        figures.search_parameters.unreached,
        BTreeSet::from(["Bundle._has".to_owned()])
    );
    let names: BTreeSet<&str> = coverage.rows().iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names.len(), coverage.rows().len(), "a name is there twice");
    assert_eq!(
        names.iter().filter(|n| n.starts_with("client.")).count(),
        CLIENTS as usize
    );
    let counts = coverage.counts();
    assert_eq!((counts.refused, counts.failed), (0, 0));
    assert_eq!(counts.succeeded, coverage.rows().len() - 1);
    // Not declared by HAPI, yet answered.
    assert!(
        coverage
            .rows()
            .iter()
            .any(|r| r.name == "system.batch" && !r.declared)
    );
    let check = |name, statuses: &[u16]| assert_eq!(outcome(&coverage, name).1, statuses, "{name}");
    check("Patient.create", &[201; 5]);
    check("Patient.paging", &[200; 3]);
    check("Patient.delete", &[201, 204, 410]);
    check("Patient.conditional-create", &[201, 200]);
    check("Patient.refuses-malformed", &[400]);
    check("system.batch", &[200, 200, 200, 201, 404]);
    check("system.$export", &[202]);
    check("system.$export-result", &[200, 200]);
}

#[test]
fn runs_have_the_same_statuses_on_a_used_server() {
    let fake = Fake::start(Scenario::Correct);
    let first = run(&plan(&fake, 1), &()).expect("a run that ends");
    let second = run(&plan(&fake, 2), &()).expect("a run that ends");
    assert_eq!(first.status_differences(&second), []);
}

#[test]
fn every_wrong_is_seen_and_is_a_difference() {
    let correct = exercise(Scenario::Correct);
    let check = |scenario: Scenario, row: &str, expected: Outcome| {
        let found = exercise(scenario.clone());
        assert_eq!(outcome(&found, row).0, expected, "{scenario:?}\n{found}");
        found
    };
    let differs = |scenario: Scenario, row: &str, expected: Outcome| {
        let found = check(scenario, row, expected);
        for (one, other) in [(&correct, &found), (&found, &correct)] {
            let differences = one.status_differences(other);
            let difference = differences
                .iter()
                .find(|d| d.name == row)
                .expect("a difference");
            assert_eq!(difference.here, Some(outcome(one, row).1));
            assert_eq!(difference.there, Some(outcome(other, row).1));
        }
    };
    differs(
        Scenario::Answers("PATCH", "Patient", 500),
        "Patient.patch",
        Outcome::Failed,
    );
    differs(
        Scenario::Answers("PATCH", "Patient", 405),
        "Patient.patch",
        Outcome::Refused,
    );
    differs(
        Scenario::Answers("GET", "_history", 302),
        "system.history",
        Outcome::Failed,
    );
    differs(
        Scenario::Answers("POST", "Patient", 500),
        "client.07",
        Outcome::Failed,
    );
    differs(
        Scenario::Wrong(Fault::AcceptsAnything),
        "Patient.refuses-malformed",
        Outcome::Failed,
    );
    differs(
        Scenario::Wrong(Fault::AcceptsAnything),
        "Bundle.refuses-wrong-type",
        Outcome::Failed,
    );
    differs(
        Scenario::Wrong(Fault::EndlessPages),
        "Patient.paging",
        Outcome::Failed,
    );
    differs(
        Scenario::Wrong(Fault::NeverExports),
        "system.$export-result",
        Outcome::Failed,
    );
    differs(
        Scenario::Wrong(Fault::KeepsDeleted),
        "Patient.delete",
        Outcome::Failed,
    );
    // Right statuses, wrong work.
    check(
        Scenario::Wrong(Fault::IgnoresPatch),
        "Observation.patch",
        Outcome::Failed,
    );
    check(
        Scenario::Wrong(Fault::IgnoresUpdate),
        "Encounter.update",
        Outcome::Failed,
    );
    check(
        Scenario::Wrong(Fault::HalvesTransactions),
        "system.refuses-half-a-transaction",
        Outcome::Failed,
    );
    check(
        Scenario::Wrong(Fault::ExportsHalf),
        "system.$export-result",
        Outcome::Failed,
    );
    check(
        Scenario::Wrong(Fault::SortsBackwards),
        "Patient.search-sort",
        Outcome::Failed,
    );
    check(
        Scenario::Wrong(Fault::KeepsUuids),
        "system.transaction",
        Outcome::Failed,
    );
    // Answered by nobody, declared by nobody: no error. What is declared and needs a create that fails is skipped.
    let found = check(
        Scenario::Answers("POST", "Organization", 500),
        "Organization.read",
        Outcome::Skipped,
    );
    assert_eq!(
        outcome(&found, "Organization.create"),
        (Outcome::Failed, vec![500])
    );
    assert_eq!(outcome(&found, "Patient.read").0, Outcome::Succeeded);
}

#[test]
fn what_is_not_declared_is_not_tried() {
    let mut declared: Value = serde_json::from_str(CAPABILITY).expect("JSON");
    declared["rest"][0]["interaction"] = json!([]);
    declared["rest"][0]["operation"] = json!([]);
    for resource in declared["rest"][0]["resource"]
        .as_array_mut()
        .expect("types")
    {
        let interactions = resource["interaction"]
            .as_array_mut()
            .expect("interactions");
        interactions.retain(|i| i["code"] != "patch");
    }
    let fake = Fake::start(Scenario::Declares(declared));
    let plan = plan(&fake, 1);
    let coverage = run(&plan, &()).expect("a run that ends");
    assert_eq!(
        outcome(&coverage, "Patient.patch"),
        (Outcome::NotDeclared, vec![])
    );
    assert_eq!(
        outcome(&coverage, "system.history"),
        (Outcome::NotDeclared, vec![])
    );
    assert!(
        !fake
            .log()
            .iter()
            .any(|line| line.starts_with("PATCH") || line.starts_with("GET _history"))
    );
    assert_eq!(coverage.figures().interactions.to_string(), "56/56");
    // Tried all the same, and answered.
    assert_eq!(
        outcome(&coverage, "system.transaction").0,
        Outcome::Succeeded
    );
    assert_eq!(coverage.counts().failed, 0);
}

#[test]
fn undeclared_and_unanswered_is_no_error() {
    for (status, expected) in [
        (404, Outcome::NotDeclared),
        (405, Outcome::NotDeclared),
        (501, Outcome::NotDeclared),
        (500, Outcome::Failed),
    ] {
        // Batch, which HAPI does not declare, and transaction, which it does.
        let found = exercise(Scenario::Answers("POST", "", status));
        assert_eq!(
            outcome(&found, "system.batch"),
            (expected, vec![status]),
            "{status}"
        );
        let declared = if status < 500 {
            Outcome::Refused
        } else {
            Outcome::Failed
        };
        assert_eq!(
            outcome(&found, "system.transaction"),
            (declared, vec![status]),
            "{status}"
        );
    }
}

#[test]
fn what_is_not_fhir_is_told_before_anything_is_sent() {
    let metadata = |status, content_type, body: &str| {
        Scenario::Metadata(status, content_type, body.as_bytes().to_vec())
    };
    for (scenario, text) in [
        (
            metadata(200, "application/json", "{\"up\": true}"),
            "is not FHIR: resourceType is missing",
        ),
        (
            metadata(200, "text/html", "<html>Hello"),
            "is not FHIR: it answers `text/html` that is not JSON: <html>Hello",
        ),
        (
            metadata(404, "text/html", "<html>Nothing"),
            "answers 404 instead of 200, with `text/html`: <html>Nothing",
        ),
        (
            metadata(500, "text/plain", "oh"),
            "answers 500 instead of 200, with `text/plain`: oh",
        ),
    ] {
        let fake = Fake::start(scenario);
        let error = run(&plan(&fake, 1), &()).expect_err("not FHIR").to_string();
        assert!(
            error.starts_with(&fake.base()) && error.contains(text),
            "{error}"
        );
        assert_eq!(fake.log(), ["GET metadata"]);
    }
}

#[test]
fn a_metadata_without_end_and_one_without_beginning_are_refused() {
    let large = vec![b' '; usize::try_from(BODY_LIMIT).expect("it fits") + 1];
    let error = fails_slowly(Scenario::Metadata(200, "application/fhir+json", large));
    let too_large = CapabilityError::Transport(TransportError::TooLarge { url: String::new() });
    assert!(same_transport(&error, &too_large), "{error:?}");
    let error = fails(Scenario::Hangs);
    let timed_out = TransportError::TimedOut {
        url: String::new(),
        limit: SOON,
    };
    assert!(
        same_transport(&error, &CapabilityError::Transport(timed_out)),
        "{error:?}"
    );
}

fn fails_slowly(scenario: Scenario) -> ExerciseError {
    let fake = Fake::start(scenario);
    run(&plan(&fake, 1), &()).expect_err("a run that does not end")
}

/// Whether two errors are the same variant of `TransportError`.
fn same_transport(error: &ExerciseError, expected: &CapabilityError) -> bool {
    match (error, expected) {
        (
            ExerciseError::Capability(CapabilityError::Transport(found)),
            CapabilityError::Transport(expected),
        ) => std::mem::discriminant(found) == std::mem::discriminant(expected),
        _ => false,
    }
}

#[test]
fn nothing_to_exercise_is_an_error() {
    let rest = json!([{"mode": "server", "resource": [{"type": "Group"}]}]);
    let declared =
        json!({"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "rest": rest});
    let error = fails(Scenario::Declares(declared));
    assert!(
        matches!(error, ExerciseError::NothingDeclared { .. }),
        "{error}"
    );
}

#[test]
fn a_server_that_dies_ends_the_run_and_keeps_what_was_reached() {
    let error = fails(Scenario::DiesAfter(100));
    let ExerciseError::ServerGone { coverage, row, .. } = &error else {
        panic!("{error}")
    };
    let counts = coverage.counts();
    // Of 100 requests the first was the CapabilityStatement's.
    assert_eq!((counts.answers, counts.failed), (99, 3), "{coverage}");
    assert!(
        counts.succeeded > 20 && error.to_string().contains(row),
        "{error}"
    );
    assert_eq!(
        coverage.rows().last().map(|r| r.outcome),
        Some(Outcome::Skipped)
    );
}

/// Stops at a row.
struct StopAt(usize, AtomicUsize);

impl Progress for StopAt {
    fn row(&self, done: usize, of: usize, _name: &str) {
        assert!(done <= of);
        self.1.store(done, Ordering::Relaxed);
    }

    fn stopped(&self) -> bool {
        self.1.load(Ordering::Relaxed) >= self.0
    }
}

#[test]
fn a_run_can_be_stopped_and_has_a_deadline() {
    let fake = Fake::start(Scenario::Correct);
    let error = run(&plan(&fake, 1), &StopAt(10, AtomicUsize::new(0))).expect_err("stopped");
    let ExerciseError::Stopped { coverage, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(coverage.counts().succeeded, 11);
    let plan = Plan {
        deadline: Duration::ZERO,
        ..plan(&fake, 2)
    };
    let error = run(&plan, &()).expect_err("too late");
    let ExerciseError::Deadline { coverage, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(coverage.counts().answers, 0);
}

/// The format, as others read it.
#[derive(Deserialize)]
struct Read {
    r#type: String,
    v: u32,
    counts: ReadCounts,
    figures: serde_json::Map<String, Value>,
    rows: Vec<ReadRow>,
}

#[derive(Deserialize)]
struct ReadCounts {
    declared: usize,
    tried: usize,
    succeeded: usize,
    refused: usize,
    failed: usize,
}

#[derive(Deserialize)]
struct ReadRow {
    name: String,
    outcome: String,
    statuses: Vec<u16>,
}

#[test]
fn a_coverage_is_read_as_it_was_written() {
    let coverage = exercise(Scenario::Answers("PATCH", "Patient", 405));
    let text = serde_json::to_string(&coverage).expect("JSON");
    let read: Read = serde_json::from_str(&text).expect("the format");
    assert_eq!((read.r#type.as_str(), read.v), ("fhir_coverage", 1));
    let c = coverage.counts();
    let counts = [c.declared, c.tried, c.succeeded, c.refused, c.failed];
    let r = read.counts;
    assert_eq!(
        [r.declared, r.tried, r.succeeded, r.refused, r.failed],
        counts
    );
    assert_eq!(read.figures["interactions"]["reached"], 64);
    assert_eq!(
        read.figures["interactions"]["unreached"],
        json!(["Patient.patch"])
    );
    let patch = read
        .rows
        .iter()
        .find(|row| row.name == "Patient.patch")
        .expect("the row");
    assert_eq!(
        (patch.outcome.as_str(), patch.statuses.as_slice()),
        ("refused", [405].as_slice())
    );
    let again: Coverage = serde_json::from_str(&text).expect("its own");
    assert_eq!(again, coverage);

    let mut value: Value = serde_json::from_str(&text).expect("JSON");
    let refused = |value: &Value| {
        serde_json::from_value::<Coverage>(value.clone())
            .expect_err("wrong")
            .to_string()
    };
    value["v"] = 2.into();
    assert_eq!(
        refused(&value),
        "coverage has version 2, this program reads 1"
    );
    value["v"] = 1.into();
    value["counts"]["failed"] = 7.into();
    assert!(refused(&value).starts_with("the counts do not agree with the "));
    value["more"] = 1.into();
    assert!(refused(&value).contains("unknown field `more`"));
}

#[test]
fn the_table_names_what_went_wrong() {
    let table = exercise(Scenario::Answers("PATCH", "Patient", 405)).to_string();
    let line = |start: &str| {
        table
            .lines()
            .find(|l| l.starts_with(start))
            .expect("the line")
            .to_owned()
    };
    assert!(
        line("patch ").contains("refused") && line("vread ").matches("ok").count() == 7,
        "{table}"
    );
    assert_eq!(
        line("refused Patient.patch"),
        "refused Patient.patch [405]: status 405 instead of [200]: because 405"
    );
    assert_eq!(
        line("interactions "),
        "interactions 64/65, not reached: Patient.patch"
    );
    assert!(line("clients at once").contains("0/16"), "{table}");
}
