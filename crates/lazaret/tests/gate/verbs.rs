//! `status`, `watch`, `phase` and `revise`: answers, refusals, gates of another version, gates that break.

use crate::fake::{Gate, ID, Play, denied, event, in_force, status};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

fn says(kind: &'static str, lines: Vec<Value>) -> Gate {
    Gate::plays(vec![(kind, vec![Play::Say(lines)])])
}

fn raw(kind: &'static str, bytes: impl Into<Vec<u8>>) -> Gate {
    Gate::plays(vec![
        (kind, vec![Play::Raw(bytes.into())]),
        ("status", vec![Play::Say(vec![status(0)])]),
    ])
}

fn revised(until_restart: &[&str]) -> Value {
    json!({"type": "revised", "v": 1, "container": ID, "from": in_force(3, 'c'), "to": in_force(4, 'b'),
        "until_restart": until_restart})
}

#[test]
fn status_is_told_as_text_and_passes_through_as_json() {
    let gate = says("status", vec![status(2)]);
    gate.check(
        &["status"],
        0,
        &[
            "lazaretd 0.0.9, 1 containers",
            "in kernel  fhir revision 3",
            "until restart: kill",
            "permits    sha256:9999",
            "asked 3 allowed 1 denied 2",
        ],
    );
    let json = gate.run(&["status", "--format", "json"]).stdout;
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(json, status(2));
}

#[test]
fn events_are_lines_and_end_with_the_gate() {
    let events = vec![
        json!({"type": "watching", "v": 1}),
        event(&denied(12, "mkdir", 83)),
        json!({"type": "missed", "v": 1, "events": 5}),
    ];
    let mut bytes = Vec::new();
    for one in &events {
        bytes.extend(format!("{one}\n").bytes());
    }
    let gate = raw("watch", bytes.clone());
    let all = gate.check(
        &["watch"],
        3,
        &[
            "2024-02-29T23:59:50.000Z 111111111111 denied mkdir(pathname = 0x1000, mode = 493) by java[7] in serving, 12 times",
            "missing: - {allow: [mkdir], during: [serving]}",
            "5 events left out",
            "the gate hung up",
        ],
    );
    assert!(
        !all.contains('\u{1b}'),
        "no terminal, nothing that steers one"
    );
    let gate = raw("watch", bytes);
    let json = gate.run(&["watch", "--format", "json"]).stdout;
    let lines: Vec<Value> = String::from_utf8(json)
        .expect("text")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines, [denied(12, "mkdir", 83), events[2].clone()]);
}

#[test]
fn a_reader_that_goes_ends_the_lines_quietly() {
    let mut lines = vec![json!({"type": "watching", "v": 1})];
    // more than a pipe holds
    lines.extend((0..2_000).map(|times| event(&denied(times, "mkdir", 83))));
    let gate = says("watch", lines);
    let mut watch = gate
        .command(&["watch"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut first = String::new();
    BufReader::new(watch.stdout.take().expect("piped"))
        .read_line(&mut first)
        .expect("a line");
    let output = watch.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn a_revision_is_shown_with_what_waits_for_a_restart() {
    let gate = says("revise", vec![revised(&["kill", "mkdir"])]);
    gate.check(
        &["revise", "hapi", "--revision", "4", "--partly"],
        0,
        &[
            "111111111111: fhir revision 3 (enforce) → fhir revision 4 (enforce)",
            "until restart: kill mkdir",
        ],
    );
    let all = gate.check(&["revise", "hapi", "--format", "json"], 0, &[]);
    let json: Value = serde_json::from_str(&all).expect("JSON");
    assert_eq!(json, revised(&["kill", "mkdir"]));
    assert_eq!(
        gate.requests(),
        [
            json!({"type": "revise", "v": 1, "container": "hapi", "revision": 4, "kernel": "partly"}),
            json!({"type": "revise", "v": 1, "container": "hapi", "kernel": "whole"}),
        ]
    );
    let whole = says("revise", vec![revised(&[])]);
    let all = whole.check(&["revise", "hapi"], 0, &["→"]);
    assert!(!all.contains("until restart"), "{all}");
}

#[test]
fn refusals_are_the_gates_own_words() {
    let no = json!({"type": "error", "v": 1, "reason": "the kernel allows `kill`, which revision 4 denies"});
    let gate = says("revise", vec![no]);
    gate.check(
        &["revise", "hapi"],
        1,
        &["lazaret: the kernel allows `kill`"],
    );
    let no = json!({"type": "error", "v": 1, "reason": "container is in its prelude"});
    let gate = says("phase", vec![no]);
    gate.check(&["phase", "hapi", "serving"], 1, &["is in its prelude"]);
    let done = says("phase", vec![json!({"type": "done", "v": 1})]);
    done.check(&["phase", "hapi", "serving"], 0, &[]);
}

#[test]
fn no_gate_is_said_so() {
    let gate = says("status", vec![]);
    gate.goes();
    for verb in [
        &["status"] as &[&str],
        &["watch"],
        &["revise", "hapi"],
        &["phase", "hapi", "serving"],
    ] {
        gate.check(
            verb,
            3,
            &["cannot reach the gate on", "is lazaretd running?"],
        );
    }
}

#[test]
fn an_older_gate_is_named_with_its_version() {
    // it answers as serde does for a request that its types do not have
    let gate = says("status", vec![status(0)]);
    gate.check(
        &["revise", "hapi"],
        3,
        &[
            "lazaretd 0.0.9 does not understand `revise` of lazaret ",
            "one version",
        ],
    );
}

#[test]
fn a_newer_gate_is_named_with_its_version() {
    let strange = json!({"type": "revised_by_committee", "v": 1});
    let gate = raw("revise", format!("{strange}\n"));
    let said = [
        "does not understand what lazaretd 0.0.9 answered",
        "revised_by_committee",
    ];
    gate.check(&["revise", "hapi"], 3, &said);
    // a status that this program cannot read still says whose it is
    let mut newer = status(0);
    newer["version"] = json!("9.0.0");
    newer["weather"] = json!("fine");
    let gate = says("status", vec![newer]);
    gate.check(&["status"], 3, &["lazaretd 9.0.0", "weather"]);
    let mut second = status(0);
    second["v"] = json!(2);
    let gate = says("status", vec![second]);
    gate.check(&["status"], 3, &["control protocol version 2"]);
    // in order, and not the answer to this
    let gate = says("status", vec![json!({"type": "done", "v": 1})]);
    gate.check(&["status"], 3, &["answered `done` to another question"]);
}

#[test]
fn a_gate_that_breaks_off_is_told() {
    raw("revise", "").check(&["revise", "hapi"], 3, &["the gate hung up"]);
    let cut = revised(&[]).to_string();
    let gate = raw("revise", &cut.as_bytes()[..cut.len() / 2]);
    gate.check(
        &["revise", "hapi"],
        3,
        &["hung up in the middle of an answer"],
    );
    raw("revise", "good day\n").check(&["revise", "hapi"], 3, &["does not understand"]);
    raw("revise", vec![0xff, b'\n']).check(&["revise", "hapi"], 3, &["does not understand"]);
}

#[test]
fn a_line_has_its_limit() {
    const LIMIT: usize = 16 << 20;
    let answer = revised(&[]).to_string();
    // as long as may be, newline included: spaces behind an object are JSON
    let mut longest = answer.clone().into_bytes();
    longest.resize(LIMIT - 1, b' ');
    longest.push(b'\n');
    raw("revise", longest.clone()).check(&["revise", "hapi"], 0, &["→"]);
    longest.insert(LIMIT - 1, b' ');
    let said = ["longer than 16777216 bytes"];
    raw("revise", longest).check(&["revise", "hapi"], 3, &said);
}
