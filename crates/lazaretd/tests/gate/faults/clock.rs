//! The wall clock jumps by a day, forwards and back, while a permit holds and a container waits for its phase.
//!
//! Only the daemon sees it: libfaketime gives its process the time that a file says, and leaves the monotonic clock alone.

use super::killed::permit;
use super::stage::{denied, eventually, files, logged};
use crate::node::{Node, Paper, skipped};
use crate::server::Server;
use std::fs;
use std::path::PathBuf;

/// Seconds of a day.
const DAY: &str = "86400";

/// libfaketime, for programs with several threads.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    let mut found = folders.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    found.find(|path| path.exists())
}

/// How far the daemon's clock is off.
fn shift(node: &Node, by: &str) {
    let path = node.path("faketime");
    let new = node.path("faketime.new");
    fs::write(&new, by).expect("written");
    fs::rename(&new, &path).expect("replaced");
}

#[test]
fn a_clock_that_jumps_ends_permits_and_brings_none_back() {
    if skipped() {
        return;
    }
    let Some(library) = library() else {
        println!("SKIP: libfaketime is not installed (Debian: faketime)");
        return;
    };
    let server = Server::start();
    let paper = Paper {
        exec_start: "refuse",
        serving_port: Some(server.port),
        ..Paper::default()
    };
    let policy = paper.policy();
    let metadata = policy.digest().to_string();
    let mut node = Node::new();
    let file = node.own("faketime").display().to_string();
    for (name, value) in [
        ("LD_PRELOAD", library.display().to_string().as_str()),
        ("FAKETIME_TIMESTAMP_FILE", &file),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ] {
        node.env.push((name.to_owned(), value.to_owned()));
    }
    shift(&node, "+0");
    permit(&node, &paper);
    node.install(&policy, &node.key);
    node.start();
    let mut container = node.create(&policy);
    container.go();
    assert!(container.try_chdir());
    let mut exec = node.exec(&container, &policy, &metadata);
    exec.go();
    assert!(exec.try_chdir(), "the permit opens it");
    let times = || {
        let events = logged(&node);
        let times = events.iter().filter_map(|event| event["time_ms"].as_u64());
        (times.clone().min(), times.max())
    };
    let (_, before_ms) = times();

    shift(&node, &format!("+{DAY}"));
    assert!(!exec.try_chdir(), "it ended yesterday");
    assert!(container.try_chdir(), "phases have nothing to do with it");
    eventually("a denial of tomorrow", || {
        times().1 > before_ms.map(|ms| ms + 80_000_000)
    });
    server.be_ready();
    eventually("serving", || {
        node.status_of(&container)["state"]["phase"] == "serving"
    });

    shift(&node, &format!("-{DAY}"));
    assert!(!exec.try_chdir(), "what has ended stays ended");
    assert!(!container.try_chdir(), "serving stays serving");
    assert!(!exec.try_chdir());
    eventually("sums are exact", || denied(&node, &container.id) == 4);
    assert!(times().0 < before_ms, "times of events follow the clock");

    // and under the next daemon, whose clock never saw tomorrow
    let floor = || {
        let text = fs::read_to_string(node.path("run/clock")).unwrap_or_default();
        text.parse::<u64>().ok()
    };
    eventually("the floor is written down", || {
        floor() > before_ms.map(|ms| ms + 80_000_000)
    });
    node.kill();
    node.start();
    assert!(!exec.try_chdir(), "nor does a restart bring it back");
    let mut late = node.exec(&container, &policy, &metadata);
    late.go();
    assert_eq!(late.chdir_outcome(), None, "and no other exec starts");
    let said = late.end();
    assert!(said.contains("held until"), "{said}");
    // where no floor is known, it would hold: this is what the floor is for
    node.kill();
    fs::remove_file(node.path("run/clock")).expect("there");
    shift(&node, "+0");
    node.start();
    assert!(exec.try_chdir());
    exec.end();
    container.end();
    eventually("no record is left", || {
        files(&node, "run/listeners").is_empty()
    });
}
