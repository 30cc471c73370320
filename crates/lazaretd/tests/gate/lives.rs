//! Servers that begin again inside their container, worker pools, helpers: what is a restart, and what is not.

use crate::node::{Node, Paper, STARTUP, Sandbox, Watch, skipped};
use crate::paper::policy_of;
use crate::server::Server;
use serde_json::{Value, json};
use std::fs;
use std::time::Instant;

/// What a shell needs to have children.
const CHILDREN: &[&str] = &[
    "clone",
    "getpgrp",
    "pipe2",
    "rt_sigaction",
    "rt_sigsuspend",
    "set_robust_list",
    "setpgid",
    "vfork",
    "wait4",
];

/// A policy for a server that may begin again so often.
fn text(server: &Server, restarts: u32) -> Value {
    let paper = Paper {
        serving_port: Some(server.port),
        ..Paper::default()
    };
    let mut text = paper.text();
    let rules = text["rules"].as_array_mut().expect("rules");
    rules.push(json!({"allow": CHILDREN, "why": "processes of its own"}));
    text["phases"]["startup"] = json!({"restarts": restarts});
    text
}

/// A container that serves.
struct Life {
    node: Node,
    events: Watch,
    container: Sandbox,
}

impl Life {
    /// `server` is what process 1 does in the startup.
    fn serving(server: &Server, text: Value, begin: &str) -> Life {
        let policy = policy_of(text);
        let mut node = Node::new();
        node.install(&policy, &node.key);
        node.start();
        let mut events = node.watch();
        let mut container = node.create(&policy);
        container.go();
        events.until_phase("startup");
        container.send(begin);
        assert_eq!(container.hear(), "up");
        assert!(container.try_chdir(), "startup");
        server.be_ready();
        events.until_phase("serving");
        assert!(!container.try_chdir(), "serving");
        Life {
            node,
            events,
            container,
        }
    }

    fn phase(&self) -> Value {
        self.node.status_of(&self.container)["state"]["phase"].clone()
    }

    /// Asserts that so many calls were asked in serving, no more; each is counted after its answer.
    fn asked_in_serving(&self, expected: u64) {
        let begin = Instant::now();
        let asked = || {
            let status = self.node.status_of(&self.container);
            let asked = &status["state"]["counts"]["serving"]["asked"];
            asked.as_u64().unwrap_or(0)
        };
        while asked() < expected {
            assert!(begin.elapsed() < crate::node::PATIENCE, "{}", asked());
        }
        assert_eq!(asked(), expected);
    }

    /// The next denial of this call.
    fn denied(&mut self, call: &str) -> Value {
        loop {
            let denied = self.events.until("denied");
            if denied["call"] == call {
                return denied;
            }
        }
    }

    /// Lets the shell do this; what it says.
    fn tell(&mut self, command: &str) -> String {
        self.container.send(command);
        self.container.hear()
    }

    /// Events of this type in the log.
    fn logged(&self, kind: &str) -> usize {
        let log = fs::read_to_string(self.node.path("events.jsonl")).expect("log");
        let events = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["type"] == kind).count()
    }
}

/// Process 1 keeps a server running: another shell that reads the same commands, those after `up` was said.
const SUPERVISOR: &str =
    "echo @up; while /bin/sh; code=$?; [ $code = 0 ]; do echo @died; done; echo @over $code\n";

/// Process 1 is the server.
const ALONE: &str = "echo @up\n";

#[test]
fn a_server_that_died_begins_again_as_often_as_the_policy_says() {
    if skipped() {
        return;
    }
    let server = Server::start();
    let mut life = Life::serving(&server, text(&server, 2), SUPERVISOR);
    for round in 0..2 {
        server.be_down();
        assert_eq!(life.tell("exit\n"), "died");
        assert_eq!(life.events.until_phase("startup")["cause"], "restart");
        assert!(life.container.try_chdir(), "startup again");
        if round == 0 {
            // the next daemon goes on counting
            life.node.kill();
            life.node.start();
            life.events = life.node.watch();
            assert_eq!(life.phase(), "startup");
        }
        server.be_ready();
        assert_eq!(life.events.until_phase("serving")["cause"], "readiness");
        assert!(!life.container.try_chdir(), "serving again");
    }
    server.be_down();
    assert_eq!(life.tell("exit\n"), "died");
    assert_eq!(life.container.hear(), "over 126", "not executable");
    let refused = life.events.until("restart_refused");
    assert_eq!(refused["process"], "sh");
    let reason = refused["reason"].as_str().expect("text");
    assert!(reason.contains("phases.startup.restarts"), "{reason}");
    assert_eq!(life.denied("execve")["enforced"], true);
    // a loop of them does not fill the log
    assert_eq!(life.tell("/bin/sh; echo @$?\n"), "126");
    assert_eq!(life.phase(), "serving");
    assert_eq!(life.logged("restart_refused"), 1);
}

#[test]
fn without_restarts_in_the_policy_a_server_stays_down_and_it_is_told() {
    if skipped() {
        return;
    }
    let server = Server::start();
    let mut life = Life::serving(&server, text(&server, 0), SUPERVISOR);
    assert_eq!(life.tell("exit\n"), "died");
    assert_eq!(life.container.hear(), "over 126");
    assert_eq!(life.events.until("restart_refused")["process"], "sh");
    assert_eq!(life.phase(), "serving");
    assert!(!life.container.try_chdir());
}

#[test]
fn workers_that_are_forked_ask_about_nothing() {
    if skipped() {
        return;
    }
    let server = Server::start();
    let mut life = Life::serving(&server, text(&server, 2), ALONE);
    for _ in 0..20 {
        assert_eq!(life.tell("( echo @worker; )\n"), "worker");
    }
    // each is held to the phase of its container
    assert_eq!(life.tell("( cd /tmp && echo @yes || echo @no )\n"), "no");
    // this one, and the one by which it was seen to serve
    life.asked_in_serving(2);
    assert_eq!(life.phase(), "serving");
}

#[test]
fn workers_that_execute_go_on_where_the_policy_lets_them_in_serving() {
    if skipped() {
        return;
    }
    let server = Server::start();
    let mut text = text(&server, 0);
    let rules = text["rules"].as_array_mut().expect("rules");
    let program: Vec<_> = STARTUP.iter().filter(|name| **name != "chdir").collect();
    rules.push(json!({"allow": program, "why": "workers that execute the server again"}));
    let mut life = Life::serving(&server, text, ALONE);
    for worker in 1..=5 {
        let command = "/bin/sh -c 'echo @worker; cd /tmp && echo @out || echo @held'\n";
        assert_eq!(life.tell(command), "worker");
        assert_eq!(life.container.hear(), "held", "no way back to startup");
        // its execve, and its chdir; and the one by which it was seen to serve
        life.asked_in_serving(1 + 2 * worker);
    }
    assert_eq!(life.phase(), "serving");
    assert_eq!(life.logged("restart_refused"), 0);
}

#[test]
fn workers_that_execute_are_refused_with_the_reason_where_it_does_not() {
    if skipped() {
        return;
    }
    let server = Server::start();
    let mut life = Life::serving(&server, text(&server, 0), ALONE);
    assert_eq!(life.tell("/bin/sh -c 'echo @worker'; echo @$?\n"), "126");
    let refused = life.events.until("restart_refused");
    let reason = refused["reason"].as_str().expect("text");
    assert!(reason.contains("phases.startup.restarts is 0"), "{reason}");
    assert_ne!(refused["pid"], life.container.pid, "the worker's own");
}

#[test]
fn a_helper_of_the_server_is_no_restart() {
    if skipped() {
        return;
    }
    let server = Server::start();
    let mut life = Life::serving(&server, text(&server, 2), SUPERVISOR);
    // by the server, which is a child of process 1
    assert_eq!(life.tell("/bin/true; echo @$?\n"), "126");
    assert_eq!(life.denied("execve")["phase"], "serving");
    assert_eq!(life.phase(), "serving");
    assert_eq!(
        life.logged("restart_refused"),
        0,
        "nor one that was refused"
    );
    // both restarts are left
    for _ in 0..2 {
        server.be_down();
        assert_eq!(life.tell("exit\n"), "died");
        life.events.until_phase("startup");
        assert!(life.container.try_chdir());
        server.be_ready();
        life.events.until_phase("serving");
        assert!(!life.container.try_chdir());
    }
}

#[test]
fn process_1_that_executes_itself_again_begins_again() {
    if skipped() {
        return;
    }
    let server = Server::start();
    let mut life = Life::serving(&server, text(&server, 1), ALONE);
    server.be_down();
    life.container.send("exec /bin/sh\n");
    assert_eq!(life.events.until_phase("startup")["cause"], "restart");
    assert!(life.container.try_chdir(), "startup again");
    server.be_ready();
    life.events.until_phase("serving");
    assert!(!life.container.try_chdir());
    // none is left: a shell whose `exec` fails ends
    life.container.send("exec /bin/sh\n");
    let refused = life.events.until("restart_refused");
    assert_eq!(refused["pid"], life.container.pid);
    let ended = life.events.until("ended");
    assert_eq!(ended["container"], life.container.id.as_str());
}
