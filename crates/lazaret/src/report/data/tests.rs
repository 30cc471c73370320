//! Tests of the format. They declare their own types, so that renaming a field breaks them.

use super::*;
use crate::bench::summary::{starts, summarise};
use serde_json::Value;

const SAMPLE: &str = include_str!("../../../tests/data/report.json");

fn sample() -> Report {
    Report::from_json(SAMPLE.as_bytes()).expect("the sample is a report")
}

/// What readers of `report.json` rely on: issue 3, item 12.
#[derive(Deserialize)]
struct Promised {
    recording: PromisedRecording,
    policy: PromisedPolicy,
    enforced: PromisedEnforced,
    gate: PromisedGate,
    attacks: Vec<PromisedAttack>,
    throughput: PromisedRatios,
    cpu_per_request: PromisedRatios,
    start: PromisedStart,
}
#[derive(Deserialize)]
struct PromisedRecording {
    lost: u64,
}
#[derive(Deserialize)]
struct PromisedPolicy {
    allow_serving: Vec<String>,
    ask: u64,
}
#[derive(Deserialize)]
struct PromisedEnforced {
    denied_serving: u64,
    status_differences: u64,
}
#[derive(Deserialize)]
struct PromisedGate {
    refusals: Vec<PromisedRefusal>,
}
#[derive(Deserialize)]
struct PromisedRefusal {
    case: String,
    started: bool,
    reason: String,
}
#[derive(Deserialize)]
struct PromisedAttack {
    name: String,
    protection: String,
    worked: bool,
}
#[derive(Deserialize)]
struct PromisedRatios {
    lazaret_over_default: PromisedSpread,
    lazaret_over_unconfined: PromisedSpread,
    a_over_a: PromisedSpread,
}
#[derive(Deserialize)]
struct PromisedSpread {
    median: f64,
    low: f64,
    high: f64,
}
#[derive(Deserialize)]
struct PromisedStart {
    seconds: BTreeMap<String, f64>,
}

#[test]
fn promised_fields_are_where_they_are_promised() {
    let written = sample().to_json().expect("written");
    let promised: Promised = serde_json::from_slice(&written).expect("all are there");
    assert_eq!(promised.recording.lost, 0);
    assert_eq!(promised.policy.allow_serving.len(), 39);
    assert_eq!(promised.policy.ask, 284);
    assert_eq!(promised.enforced.denied_serving, 0);
    assert_eq!(promised.enforced.status_differences, 0);
    let refusals = &promised.gate.refusals;
    assert!(refusals.iter().any(|refusal| refusal.case == "changed_byte"
        && !refusal.started
        && refusal.reason.contains("signature")));
    let escape: Vec<_> = promised
        .attacks
        .iter()
        .filter(|attack| attack.name == "mount_escape")
        .map(|attack| (attack.protection.as_str(), attack.worked))
        .collect();
    assert_eq!(
        escape,
        [
            ("unconfined", true),
            ("default", true),
            ("lazaret_startup", false),
            ("lazaret_serving", false)
        ]
    );
    for ratios in [&promised.throughput, &promised.cpu_per_request] {
        let PromisedRatios {
            lazaret_over_default,
            lazaret_over_unconfined,
            a_over_a,
        } = ratios;
        for spread in [lazaret_over_default, lazaret_over_unconfined, a_over_a] {
            assert!(spread.low <= spread.median && spread.median <= spread.high);
        }
    }
    let protections: Vec<&str> = promised.start.seconds.keys().map(String::as_str).collect();
    assert_eq!(protections, ["default", "lazaret", "unconfined"]);
}

/// Everything that is written is read again, and nothing else is in the sample.
#[test]
fn written_as_read() {
    let written = sample().to_json().expect("written");
    let mut ours: Value = serde_json::from_slice(&written).expect("JSON");
    let mut theirs: Value = serde_json::from_str(SAMPLE).expect("JSON");
    for value in [&mut ours, &mut theirs] {
        round(value);
    }
    assert_eq!(ours, theirs);
}

/// serde_json without its feature `float_roundtrip` may read a number one unit in the last place off.
fn round(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(number) = number.as_f64() {
                *value = Value::String(format!("{number:.9e}"));
            }
        }
        Value::Array(values) => values.iter_mut().for_each(round),
        Value::Object(fields) => fields.values_mut().for_each(round),
        _ => {}
    }
}

/// The sample's figures are those of its own rounds: `bench` and `report` mean the same.
#[test]
fn figures_follow_from_the_rounds() {
    let sample = sample();
    let figures = |report: &Report| {
        let mut figures = [
            serde_json::to_value(&report.throughput).expect("JSON"),
            serde_json::to_value(&report.cpu_per_request).expect("JSON"),
            serde_json::to_value(&report.latency).expect("JSON"),
            serde_json::to_value(&report.start).expect("JSON"),
        ];
        figures.iter_mut().for_each(round);
        figures
    };
    let mut again = Report::empty("again", 0);
    summarise(sample.rounds.clone()).fill(&mut again);
    again.start = starts(sample.start.samples.clone());
    assert_eq!(again.rounds, sample.rounds);
    assert_eq!(figures(&again), figures(&sample));
}

/// Absent is `null`, and a report without figures is still a report.
#[test]
fn absent_is_null() {
    let written = Report::empty("nothing", 0).to_json().expect("written");
    let value: Value = serde_json::from_slice(&written).expect("JSON");
    for pointer in [
        "/recording/lost",
        "/policy/allow_serving",
        "/policy/ask",
        "/enforced/denied_serving",
        "/throughput/lazaret_over_default",
        "/daemon_restart",
    ] {
        assert_eq!(value.pointer(pointer), Some(&Value::Null), "{pointer}");
    }
    let read = Report::from_json(&written).expect("read");
    assert_eq!(read, Report::empty("nothing", 0));
}

#[test]
fn names_are_those_of_the_format() {
    for protection in [
        Protection::Unconfined,
        Protection::Default,
        Protection::DefaultAgain,
        Protection::Lazaret,
        Protection::LazaretStartup,
        Protection::LazaretServing,
    ] {
        let written = serde_json::to_value(protection).expect("JSON");
        assert_eq!(written, protection.name());
    }
}

#[test]
fn what_is_no_report_of_this_version_is_refused() {
    let change = |from: &str, to: &str| {
        assert!(SAMPLE.contains(from), "{from}");
        SAMPLE.replacen(from, to, 1).into_bytes()
    };
    let cases = [
        (
            change("\"v\": 1", "\"v\": 2"),
            "report has format version 2, this program reads 1",
        ),
        // A later version is named as such, whatever else is in it.
        (
            change("\"v\": 1", "\"v\": 2, \"new\": 0"),
            "report has format version 2, this program reads 1",
        ),
        (
            change("\"v\": 1", "\"v\": 1, \"new\": 0"),
            "report is not understood",
        ),
        (
            change("\"lost\": 0", "\"lots\": 0"),
            "report is not understood",
        ),
        (
            change("\"lost\": 0", "\"lost\": -1"),
            "report is not understood",
        ),
        (
            change("\"lazaret_serving\"", "\"magic\""),
            "report is not understood",
        ),
        (Vec::new(), "report is not understood"),
        (
            vec![b' '; MAX_BYTES + 1],
            "report has 16777217 bytes, at most 16777216 are read",
        ),
    ];
    for (bytes, expected) in cases {
        let error = Report::from_json(&bytes).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    }
}
