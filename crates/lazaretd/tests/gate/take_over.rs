//! A daemon that is gone, and the one after it: listeners, phases, revisions and lost calls go on.

use crate::node::{Node, Paper, skipped};
use crate::sandbox::Sandbox;
use serde_json::{Value, json};
use std::fs;
use std::time::Instant;

/// A container in startup, under a node that keeps its listener.
fn started(paper: &Paper) -> (Node, Sandbox) {
    let node = Node::with(paper);
    let mut events = node.watch();
    let mut container = node.create(&paper.policy());
    container.go();
    events.until_phase("startup");
    assert!(container.try_chdir(), "startup allows chdir");
    recorded(&node, "held", &container);
    (node, container)
}

/// Waits until the next daemon would know of this state.
fn recorded(node: &Node, state: &str, container: &Sandbox) {
    let begin = Instant::now();
    while !node.is_recorded(state, &container.id) {
        assert!(
            begin.elapsed() < crate::node::PATIENCE,
            "no record of {state}"
        );
        std::thread::yield_now();
    }
}

/// Waits until the log has an event of this type for the container.
fn logged(node: &Node, kind: &str, container: &Sandbox) -> Value {
    let begin = Instant::now();
    loop {
        let log = fs::read_to_string(node.path("events.jsonl")).unwrap_or_default();
        let mut events = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found = events
            .find(|event| event["type"] == kind && event["container"] == container.id.as_str());
        if let Some(found) = found {
            return found;
        }
        assert!(begin.elapsed() < crate::node::PATIENCE, "no event {kind}");
        std::thread::yield_now();
    }
}

fn phase_of(node: &Node, container: &Sandbox) -> Value {
    node.status_of(container)["state"]["phase"].clone()
}

#[test]
fn the_next_daemon_goes_on_where_the_last_one_was() {
    if skipped() {
        return;
    }
    let paper = Paper::default();
    let (mut node, mut container) = started(&paper);
    let before = node.status_of(&container);
    for _ in 0..3 {
        node.kill();
        assert!(container.try_write(), "it serves on");
        node.start();
        let taken = logged(&node, "taken_over", &container);
        assert_eq!(
            (&taken["pid"], &taken["exec"]),
            (&json!(container.pid), &json!(false))
        );
        let after = node.status_of(&container);
        assert_eq!(after["state"]["in_force"], before["state"]["in_force"]);
        assert_eq!(phase_of(&node, &container), "startup");
        assert!(container.try_chdir(), "startup still allows chdir");
    }
    let to = json!({"type": "phase", "v": 1, "container": container.id, "to": "serving"});
    assert_eq!(node.client().ask(&to)["type"], "done");
    node.kill();
    node.start();
    assert_eq!(
        phase_of(&node, &container),
        "serving",
        "acknowledged, so kept"
    );
    assert!(!container.try_chdir(), "serving does not allow chdir");
    // an exec of the daemon before this one is not needed for one of this
    let mut events = node.watch();
    let policy = paper.policy();
    let mut exec = node.exec(&container, &policy, &policy.digest().to_string());
    exec.go();
    events.until_phase("exec");
    assert!(!exec.try_chdir(), "exec does not allow chdir");
    node.kill();
    node.start();
    assert!(!exec.try_chdir(), "nor does it under the next daemon");
    assert!(exec.try_write());
    exec.end();
    container.end();
    let begin = Instant::now();
    while node.status()["containers"] != json!([]) {
        assert!(begin.elapsed() < crate::node::PATIENCE);
        std::thread::yield_now();
    }
    // nothing of them is left
    let begin = Instant::now();
    while fs::read_dir(node.path("run/listeners"))
        .expect("there")
        .count()
        > 0
    {
        assert!(begin.elapsed() < crate::node::PATIENCE, "records are left");
        std::thread::yield_now();
    }
}

#[test]
fn a_call_that_was_lost_with_the_daemon_is_asked_again() {
    if skipped() {
        return;
    }
    let paper = Paper::default();
    let (mut node, mut container) = started(&paper);
    node.kill();
    // this one dies with a call in its hands
    node.fault = Some("received".to_owned());
    node.start();
    container.begin_chdir();
    node.daemon().wait().expect("it kills itself");
    node.fault = None;
    node.start();
    assert!(container.ended_chdir(), "asked again, and allowed");
    // told once for each daemon: the last one asked again
    let log = fs::read_to_string(node.path("events.jsonl")).expect("log");
    let again: Vec<u64> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| event["type"] == "taken_over")
        .filter_map(|event| event["asked_again"].as_u64())
        .collect();
    assert_eq!(again, [0, 1]);
}

#[test]
fn calls_that_wait_for_a_daemon_fail_when_none_comes() {
    if skipped() {
        return;
    }
    let paper = Paper::default();
    let (mut node, mut container) = started(&paper);
    node.kill();
    node.hold_for = 1;
    node.start();
    node.kill();
    assert!(!container.try_chdir(), "after a second it fails");
    assert!(container.try_write(), "and serves on");
    node.start();
    assert_eq!(
        node.status_of(&container)["state"],
        json!({"is": "unsupervised"})
    );
}

#[test]
fn papers_that_are_no_longer_in_order_open_nothing() {
    if skipped() {
        return;
    }
    let paper = Paper::default();
    let (mut node, mut container) = started(&paper);
    node.kill();
    let key = node.path("store/keys/a.pem");
    let away = node.path("a.pem");
    fs::rename(&key, &away).expect("unpinned");
    fs::write(
        node.path("store/keys/b.pem"),
        lazaret_bundle::key::PrivateKey::generate(lazaret_bundle::key::Algorithm::Ed25519)
            .expect("key")
            .public()
            .to_pem()
            .expect("PEM"),
    )
    .expect("another");
    node.start();
    assert_eq!(
        logged(&node, "papers_lost", &container)["check"],
        "signature"
    );
    assert_eq!(node.status_of(&container)["state"]["is"], "papers_lost");
    assert!(!container.try_chdir(), "what it asks fails");
    assert!(container.try_write(), "what the kernel allows goes on");
    // in order again, they are in force again
    node.kill();
    fs::rename(&away, &key).expect("pinned again");
    node.start();
    assert!(container.try_chdir());
}
