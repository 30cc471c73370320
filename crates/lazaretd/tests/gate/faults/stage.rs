//! A node with containers in two phases, on which something goes wrong, and what must hold afterwards.

use crate::node::{Node, PATIENCE, Paper};
use crate::paper::Chdir;
use crate::sandbox::Sandbox;
use lazaret_core::policy::Policy;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

/// Waits until this holds.
#[track_caller]
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Old log files that are kept, where a test turns the log over.
pub(super) const KEEP: u32 = 9;

/// The policy's next revision, which never allows `chdir`.
pub(super) const REVISION: u64 = 4;

/// The node and its containers.
pub(super) struct Stage {
    pub(super) node: Node,
    pub(super) policy: Policy,
    /// In startup, which allows `chdir`.
    pub(super) startup: Sandbox,
    /// In serving, which does not.
    pub(super) serving: Sandbox,
    /// Lines that were in the log.
    logged: Vec<String>,
}

impl Stage {
    /// Two containers under this policy, each known to the next daemon; the daemon runs.
    pub(super) fn set(mut node: Node, paper: &Paper) -> Stage {
        let policy = paper.policy();
        node.install(&policy, &node.key);
        let stricter = Paper {
            revision: REVISION,
            chdir: Chdir::Never,
            ..*paper
        };
        node.install(&stricter.policy(), &node.key);
        node.start();
        let startup = admitted(&node, &policy);
        let serving = admitted(&node, &policy);
        let to = moved(&serving, "serving");
        assert_eq!(node.client().ask(&to)["type"], "done");
        let mut stage = Stage {
            node,
            policy,
            startup,
            serving,
            logged: Vec::new(),
        };
        stage.remember_log();
        stage
    }

    /// What is in the log now must stay there.
    pub(super) fn remember_log(&mut self) {
        self.logged = log_lines(&self.node);
    }

    /// Starts a daemon that kills itself at this point, in place of the one that runs. False when it did so at once.
    pub(super) fn arm(&mut self, fault: &str) -> bool {
        self.node.kill();
        self.remember_log();
        self.node.fault = Some(fault.to_owned());
        let started = self.node.try_start();
        self.node.fault = None;
        started
    }

    /// Waits until the daemon has killed itself.
    #[track_caller]
    pub(super) fn is_killed(&mut self, fault: &str) {
        let daemon = self.node.daemon();
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = daemon.try_wait().expect("waited") {
                break status;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "the daemon never came to {fault}"
            );
            std::thread::sleep(Duration::from_millis(2));
        };
        assert_eq!(status.signal(), Some(9), "{fault}: {status}");
    }

    /// Nobody hangs, and each container has the rights of its phase.
    pub(super) fn rights_hold(&mut self) {
        assert!(self.startup.still_answers() && self.serving.still_answers());
        assert!(!self.serving.try_chdir(), "serving denies chdir");
        let status = self.node.status_of(&self.startup);
        let allowed = status["state"]["phase"] == "startup"
            && status["state"]["in_force"]["revision"] != REVISION;
        assert_eq!(self.startup.try_chdir(), allowed, "{status}");
    }

    /// Every line that was in the log is there, whole and in its place.
    pub(super) fn log_holds(&self) {
        let now = log_lines(&self.node);
        assert!(now.len() >= self.logged.len(), "lines are gone");
        for (before, now) in self.logged.iter().zip(&now) {
            assert_eq!(before, now);
        }
    }

    /// No line of the log is half a line.
    pub(super) fn log_is_whole(&self) {
        for line in log_lines(&self.node) {
            let whole = serde_json::from_str::<Value>(&line).is_ok();
            assert!(whole, "cut: {line}");
        }
    }

    /// Ends everything; nothing is left of it.
    pub(super) fn end(self) {
        let Stage {
            mut node,
            startup,
            serving,
            ..
        } = self;
        for container in [startup, serving] {
            container.end();
        }
        nothing_is_left(&mut node);
    }
}

/// No container, no record, no half a file, no descriptor with the keeper but the two sockets, no zombie.
pub(super) fn nothing_is_left(node: &mut Node) {
    eventually("status is empty", || {
        node.status()["containers"] == json!([])
    });
    eventually("no record is left", || {
        files(node, "run/listeners").is_empty()
    });
    assert_eq!(zombies(node.daemon().id()), 0);
    node.kill();
    node.said.lock().expect("lines").clear();
    node.start();
    let said = node.said.lock().expect("lines").clone();
    let kept = said
        .iter()
        .find(|line| line.contains("descriptors are with"));
    let kept = kept.unwrap_or_else(|| panic!("not said: {said:?}"));
    assert!(kept.contains(" 2 descriptors are with"), "{kept}");
    assert_eq!(files(node, "run/papers"), [""; 0], "papers are left");
}

pub(super) fn files(node: &Node, folder: &str) -> Vec<String> {
    let found = fs::read_dir(node.path(folder)).expect("folder");
    found
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

/// Children of a process that have ended and were not waited for.
fn zombies(pid: u32) -> usize {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let state = |pid: &&str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('Z'))
    };
    children.split_whitespace().filter(state).count()
}

/// A container that is admitted, and its phase known to the next daemon.
pub(super) fn admitted(node: &Node, policy: &Policy) -> Sandbox {
    let mut container = node.create(policy);
    container.go();
    assert!(container.try_chdir(), "startup allows chdir");
    eventually("a record of its papers", || {
        let records = files(node, "run/listeners").into_iter().filter_map(|name| {
            let text = fs::read_to_string(node.path("run/listeners").join(name)).ok()?;
            serde_json::from_str::<Value>(&text).ok()
        });
        let mut records = records.filter(|record| record["claim"]["id"] == container.id.as_str());
        records.any(|record| record["life"]["state"] != "prelude" && !record["papers"].is_null())
    });
    container
}

/// The request to move a container.
pub(super) fn moved(container: &Sandbox, to: &str) -> Value {
    json!({"type": "phase", "v": 1, "container": container.id, "to": to})
}

/// The request to put the next revision in force.
pub(super) fn revised(container: &Sandbox) -> Value {
    json!({"type": "revise", "v": 1, "container": container.id, "revision": REVISION, "kernel": "whole"})
}

/// Asks a daemon that may be killed over it; none when it said nothing.
pub(super) fn try_ask(node: &Node, request: &Value) -> Option<Value> {
    let mut stream = UnixStream::connect(node.path("run/control.sock")).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).expect("limit");
    writeln!(stream, "{request}").ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

/// Lines of the log, the oldest file first.
pub(super) fn log_lines(node: &Node) -> Vec<String> {
    let numbered = |number: u32| node.path(&format!("{}.{number}", node.log));
    // a crash between two moves leaves a number free
    let mut texts: Vec<String> = (1..=KEEP)
        .rev()
        .filter_map(|number| fs::read_to_string(numbered(number)).ok())
        .collect();
    texts.push(fs::read_to_string(node.path(&node.log)).unwrap_or_default());
    let lines = texts.iter().flat_map(|text| text.lines());
    lines.map(str::to_owned).collect()
}

/// Events of the log.
pub(super) fn logged(node: &Node) -> Vec<Value> {
    let lines = log_lines(node);
    let events = lines
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok());
    events.collect()
}

/// How many calls the log says were denied to this container.
pub(super) fn denied(node: &Node, id: &str) -> u64 {
    let events = logged(node);
    let denied = events
        .iter()
        .filter(|event| event["type"] == "denied" && event["container"] == id);
    denied.filter_map(|event| event["times"].as_u64()).sum()
}
