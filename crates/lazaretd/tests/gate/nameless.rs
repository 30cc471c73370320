//! A runtime that does not say which process it hands over (crun 1.8 with an exec: process 0): the gate finds it by what it
//! asks first.

use crate::node::{Node, Paper, skipped};
use crate::sandbox::Sandbox;
use lazaret_core::filter::compile::compile;
use lazaret_core::policy::Policy;
use serde_json::json;

/// Hands over as process 0.
fn hand_over(node: &Node, mut sandbox: Sandbox, metadata: &str, status: &str) -> Sandbox {
    let pid = std::mem::take(&mut sandbox.pid);
    node.hand_over(&sandbox, metadata, status);
    sandbox.pid = pid;
    sandbox
}

fn create(node: &Node, policy: &Policy) -> Sandbox {
    let program = compile(&policy.kernel_table()).expect("compiled");
    let container = node.unshared(&node.docker_container(), &program);
    hand_over(node, container, &policy.digest().to_string(), "creating")
}

/// Puts a process into the pid namespace of process `of`, and says that it is in this container.
fn exec(node: &Node, container: &Sandbox, of: u32, policy: &Policy) -> Sandbox {
    let program = compile(&policy.kernel_table()).expect("compiled");
    let exec = node.entered(container, of, &program);
    hand_over(node, exec, &policy.digest().to_string(), "running")
}

#[test]
fn an_exec_is_found_by_its_first_call() {
    if skipped() {
        return;
    }
    let paper = Paper::default();
    let policy = paper.policy();
    let mut node = Node::with(&paper);
    let mut container = node.create(&policy);
    container.go();
    assert!(container.try_chdir());
    let mut events = node.watch();
    let mut held = exec(&node, &container, container.pid, &policy);
    held.go();
    let received = events.until("listener_received");
    assert_eq!(
        (&received["pid"], &received["exec"]),
        (&json!(held.pid), &json!(true))
    );
    events.until_phase("exec");
    assert!(!held.try_chdir(), "exec does not allow chdir");
    assert_eq!(events.until("denied")["pid"], held.pid);
    assert_eq!(node.status_of(&container)["state"]["execs"], 1);
    // found once, known to the next daemon as well
    node.kill();
    node.start();
    assert!(!held.try_chdir());
    assert_eq!(node.status_of(&container)["state"]["execs"], 1);
    held.end();
    assert!(container.try_chdir());
}

#[test]
fn an_exec_from_another_pid_namespace_is_refused() {
    if skipped() {
        return;
    }
    let paper = Paper::default();
    let policy = paper.policy();
    let node = Node::with(&paper);
    let (mut one, mut other) = (node.create(&policy), node.create(&policy));
    for container in [&mut one, &mut other] {
        container.go();
        assert!(container.try_chdir());
    }
    let mut events = node.watch();
    let mut stray = exec(&node, &one, other.pid, &policy);
    stray.go();
    let refused = events.until("refused");
    assert_eq!(refused["check"], "exec", "{refused}");
    let sentence = format!(
        "the process is not in the pid namespace of container {}",
        one.id
    );
    assert_eq!(refused["reason"], sentence.as_str());
    assert_eq!(stray.hear(), "exec: Permission denied (os error 13)");
    assert!(stray.end().contains(&sentence));
    assert_eq!(node.status_of(&one)["state"]["execs"], 0);
}

#[test]
fn an_exec_that_ends_before_it_asks_is_over() {
    if skipped() {
        return;
    }
    let paper = Paper::default();
    let policy = paper.policy();
    let node = Node::with(&paper);
    let mut container = node.create(&policy);
    container.go();
    assert!(container.try_chdir());
    let mut events = node.watch();
    let held = exec(&node, &container, container.pid, &policy);
    // killed
    drop(held);
    let ended = events.until("ended");
    assert_eq!(
        (&ended["exec"], &ended["container"]),
        (&json!(true), &json!(container.id))
    );
    assert!(container.try_chdir());
}

#[test]
fn a_container_is_found_by_its_first_call() {
    if skipped() {
        return;
    }
    let paper = Paper::default();
    let policy = paper.policy();
    let node = Node::with(&paper);
    let mut events = node.watch();
    let mut container = create(&node, &policy);
    container.go();
    assert_eq!(events.until("listener_received")["pid"], container.pid);
    events.until_phase("startup");
    assert!(container.try_chdir());
    let to = json!({"type": "phase", "v": 1, "container": container.id, "to": "serving"});
    assert_eq!(node.client().ask(&to)["type"], "done");
    assert!(!container.try_chdir(), "serving does not allow chdir");

    // and without papers
    std::fs::remove_dir_all(node.path("store/images")).expect("removed");
    let mut refused = create(&node, &policy);
    refused.go();
    assert_eq!(events.until("refused")["check"], "no-bundle");
    assert_eq!(refused.hear(), "exec: Permission denied (os error 13)");
}
