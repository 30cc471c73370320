//! Disks that are full, and a log folder that vanishes.
//!
//! State and log are on small file systems in memory that only the daemon sees: they are mounted in a mount namespace of its own.

use super::stage::{Stage, denied, eventually, files, log_lines, logged, moved, revised, try_ask};
use crate::node::{Node, Ours, Paper, skipped};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A node whose state and log are on file systems of this size, and the process that keeps these.
fn small(bytes: u32) -> (Node, Ours) {
    let mut node = Node::new();
    node.log = "log/events.jsonl".to_owned();
    let mut script = String::new();
    for folder in ["run", "log"] {
        let path = node.own(folder);
        fs::create_dir(&path).expect("folder");
        let path = path.display();
        script += &format!("mount -t tmpfs -o size={bytes},mode=0700 none {path} && ");
    }
    script += "echo mounted && exec cat";
    let mut keeper = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "--",
            "sh",
            "-c",
            &script,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map(Ours)
        .expect("unshare");
    let mut line = String::new();
    BufReader::new(keeper.0.stdout.as_mut().expect("piped"))
        .read_line(&mut line)
        .expect("a line");
    assert_eq!(line, "mounted\n");
    let pid = keeper.0.id();
    node.enter = vec![
        "nsenter".to_owned(),
        format!("--mount=/proc/{pid}/ns/mnt"),
        "--".to_owned(),
    ];
    node.view = PathBuf::from(format!("/proc/{pid}/root"));
    (node, keeper)
}

/// Fills the file systems to the last byte.
fn fill(node: &Node) {
    for folder in ["run", "log"] {
        let path = node.path(folder).join("fill");
        let mut file = fs::File::options()
            .append(true)
            .create(true)
            .open(path)
            .expect("file");
        for size in [4096, 1] {
            while file.write(&vec![0; size]).is_ok() {}
        }
    }
}

fn empty(node: &Node) {
    for folder in ["run", "log"] {
        fs::remove_file(node.path(folder).join("fill")).expect("there");
    }
}

#[test]
fn a_full_disk_stops_nothing_and_what_cannot_be_kept_is_not_acknowledged() {
    if skipped() {
        return;
    }
    let (node, _keeper) = small(256 * 1024);
    let mut stage = Stage::set(node, &Paper::default());
    let id = stage.serving.id.clone();
    fill(&stage.node);

    // a container starts, and asks, and ends
    let mut container = stage.node.create(&stage.policy);
    container.go();
    assert!(container.try_chdir(), "it starts");
    let said = |what: &str, node: &Node| {
        let said = node.said.lock().expect("lines");
        said.iter().any(|line| line.contains(what))
    };
    assert!(
        said("ends with this daemon", &stage.node),
        "and that is said"
    );
    let late = container.id.clone();
    container.end();
    for _ in 0..20 {
        assert!(!stage.serving.try_chdir());
    }
    // what is asked for is refused as a whole, or said to be half done
    let ask = |node: &Node, request: &Value| try_ask(node, request).expect("an answer");
    let answer = ask(&stage.node, &revised(&stage.startup));
    assert_eq!(answer["type"], "error", "{answer}");
    let reason = answer["reason"].as_str().expect("a reason");
    assert!(reason.contains("No space left on device"), "{reason}");
    stage.rights_hold();
    assert!(stage.startup.try_chdir(), "the revision is not in force");
    let answer = ask(&stage.node, &moved(&stage.startup, "serving"));
    assert_eq!(answer["type"], "error", "{answer}");
    let reason = answer["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("a gate after this one would not know"),
        "{reason}"
    );
    stage.rights_hold();
    let halves = files(&stage.node, "run/listeners");
    assert!(
        halves.iter().all(|name| name.ends_with(".json")),
        "{halves:?}"
    );

    // there is room again: all of it is written
    empty(&stage.node);
    // 20, and those of the two looks at the rights
    eventually("every denial is in the log", || {
        denied(&stage.node, &id) == 22
    });
    eventually("the end is in the log", || {
        logged(&stage.node)
            .iter()
            .any(|event| event["type"] == "ended" && event["container"] == late.as_str())
    });
    assert_eq!(stage.node.status()["lost_events"], 0);
    stage.log_holds();
    eventually("the record is written", || {
        said("its record is written again", &stage.node)
    });
    stage.node.kill();
    stage.node.start();
    let status = stage.node.status_of(&stage.startup);
    assert_eq!(status["state"]["phase"], "serving", "the next daemon knows");
    stage.rights_hold();

    // and a daemon that starts while it is full takes over
    fill(&stage.node);
    stage.node.kill();
    stage.node.start();
    stage.rights_hold();
    empty(&stage.node);
    stage.end();
}

#[test]
fn a_log_folder_that_vanishes_is_made_again() {
    if skipped() {
        return;
    }
    let mut node = Node::new();
    node.log = "log/events.jsonl".to_owned();
    let mut stage = Stage::set(node, &Paper::default());
    fs::remove_dir_all(stage.node.path("log")).expect("gone");
    stage.rights_hold();
    let mut container = stage.node.create(&stage.policy);
    container.go();
    assert!(container.try_chdir());
    let id = container.id.clone();
    container.end();
    eventually("its whole life is in the new log", || {
        let events = logged(&stage.node);
        let of = |kind: &str| {
            events
                .iter()
                .filter(|event| event["type"] == kind && event["container"] == id.as_str())
                .count()
        };
        [of("listener_received"), of("admitted"), of("ended")] == [1, 1, 1]
    });
    assert_eq!(stage.node.status()["lost_events"], 0);

    // it cannot be made: a file is in its place
    fs::remove_dir_all(stage.node.path("log")).expect("gone");
    fs::write(stage.node.path("log"), "").expect("in its place");
    stage.rights_hold();
    stage.node.kill();
    stage.node.start();
    stage.rights_hold();
    eventually("denials are counted", || {
        let status = stage.node.status_of(&stage.serving);
        status["state"]["counts"]["serving"]["denied"].as_u64() >= Some(1)
    });
    assert!(log_lines(&stage.node).is_empty());
    fs::remove_file(stage.node.path("log")).expect("gone");
    eventually("the log is there again", || {
        !log_lines(&stage.node).is_empty()
    });
    stage.end();
}
