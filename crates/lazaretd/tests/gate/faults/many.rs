//! A hundred containers that end at once, and a holder that dies.

use super::stage::{Stage, denied, eventually, logged, nothing_is_left};
use crate::node::{Node, Paper, skipped};
use crate::sandbox::Sandbox;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::fs;
use std::sync::Mutex;

/// Containers.
const MANY: usize = 100;

/// Processes that are started at the same time.
const AT_ONCE: usize = 4;

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its descriptors")
        .count()
}

/// The holder of a node: the process whose command line has its socket.
fn holder(node: &Node) -> u32 {
    let socket = node.own("run/hold.sock").display().to_string();
    let is_holder = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains("\0hold\0") && line.contains(&socket)
    };
    let pids = fs::read_dir("/proc").expect("proc").flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(is_holder).expect("a holder")
}

fn kill_holder(node: &Node) {
    let pid = Pid::from_raw(holder(node).cast_signed()).expect("not 0"); // a pid
    kill_process(pid, Signal::KILL).expect("killed");
}

/// Makes each of these, several at a time.
fn each<T: Send>(number: usize, make: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = Mutex::new(0..number);
    let made = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(at) = next.lock().expect("no panic here").next() else {
                        return;
                    };
                    let one = make(at);
                    made.lock().expect("no panic here").push(one);
                }
            });
        }
    });
    made.into_inner().expect("no panic")
}

#[test]
fn a_hundred_containers_and_their_execs_end_at_once() {
    if skipped() {
        return;
    }
    let mut node = Node::with(&Paper::default());
    let policy = Paper::default().policy();
    let metadata = policy.digest().to_string();
    let daemon = node.daemon().id();
    let before = [daemon, holder(&node)].map(descriptors);
    let threads = || {
        fs::read_dir(format!("/proc/{daemon}/task"))
            .expect("its threads")
            .count()
    };
    let all = each(MANY, |at| {
        let mut container = node.create(&policy);
        container.go();
        assert!(container.try_chdir());
        let mut exec = node.exec(&container, &policy, &metadata);
        exec.go();
        // some are denied more than others
        for _ in 0..=at % 3 {
            assert!(!exec.try_chdir());
        }
        (at, container, exec)
    });
    let listed = node.status()["containers"].as_array().map(Vec::len);
    assert_eq!(listed, Some(MANY));
    let mut expected: Vec<(String, u64)> = Vec::new();
    let mut ending: Vec<Sandbox> = Vec::new();
    for (at, container, exec) in all {
        expected.push((container.id.clone(), at as u64 % 3 + 1)); // a hundred
        ending.extend([container, exec]);
    }
    for one in &mut ending {
        // process 1 of its namespace ends with it, and all others with that
        one.outer.0.kill().expect("ours");
    }
    for one in ending {
        one.end();
    }
    eventually("status is empty", || {
        node.status()["containers"] == json!([])
    });
    for (id, times) in expected {
        eventually("every denial is in the log", || denied(&node, &id) == times);
    }
    let ended = |exec: bool| {
        let events = logged(&node);
        let ended = events
            .iter()
            .filter(|event| event["type"] == "ended" && event["exec"] == exec);
        ended.count()
    };
    eventually("every end is in the log", || {
        ended(false) + ended(true) >= 2 * MANY
    });
    assert_eq!((ended(false), ended(true)), (MANY, MANY));
    eventually("no descriptor is left", || {
        [daemon, holder(&node)].map(descriptors) == before
    });
    println!("{} threads, {before:?} descriptors", threads());
    nothing_is_left(&mut node);
}

#[test]
fn a_holder_that_dies_is_replaced_and_filled() {
    if skipped() {
        return;
    }
    let mut stage = Stage::set(Node::new(), &Paper::default());
    for _ in 0..3 {
        stage.node.said.lock().expect("lines").clear();
        kill_holder(&stage.node);
        stage.rights_hold();
        eventually("another holder has everything", || {
            let said = stage.node.said.lock().expect("lines");
            said.iter()
                .any(|line| line.contains("has all 4 descriptors again"))
        });
        stage.node.kill();
        stage.node.start();
        stage.rights_hold();
    }
    stage.end();
}

#[test]
fn calls_that_wait_fail_when_daemon_and_holder_die_together() {
    if skipped() {
        return;
    }
    let mut stage = Stage::set(Node::new(), &Paper::default());
    stage.node.kill();
    stage.startup.begin_chdir();
    stage.serving.begin_chdir();
    kill_holder(&stage.node);
    assert_eq!(stage.startup.chdir_outcome(), Some(false));
    assert_eq!(stage.serving.chdir_outcome(), Some(false));
    assert!(stage.startup.still_answers() && stage.serving.still_answers());
    stage.node.start();
    for container in [&stage.startup, &stage.serving] {
        let status = stage.node.status_of(container);
        assert_eq!(status["state"], json!({"is": "unsupervised"}));
    }
    assert!(!stage.startup.try_chdir(), "nobody answers any more");
    stage.end();
}
