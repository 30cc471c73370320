//! Containers that are admitted: their phases, denials, `exec`s.

use crate::node::{self, Node, Paper, skipped};
use crate::server::Server;
use serde_json::json;

#[test]
fn a_container_with_its_papers_in_order_starts_and_its_calls_are_decided_by_phase() {
    if skipped() {
        return;
    }
    let server = Server::start();
    let paper = Paper {
        serving_port: Some(server.port),
        ..Paper::default()
    };
    let policy = paper.policy();
    let node = Node::with(&paper);
    let mut events = node.watch();

    let mut container = node.create(&policy);
    let received = events.until("listener_received");
    assert_eq!(received["container"], container.id.as_str());
    assert_eq!(
        (&received["pid"], &received["exec"]),
        (&json!(container.pid), &json!(false))
    );
    assert_eq!(node.status_of(&container)["state"]["is"], "prelude");

    container.go();
    let admitted = events.until("admitted");
    assert_eq!(admitted["policy"], policy.digest().to_string());
    assert_eq!(admitted["image"], paper.image.to_string());
    assert_eq!(admitted["key"], node.key.public().id().as_str());
    assert_eq!(admitted["mode"], "enforce");
    assert_eq!(
        admitted["stricter"],
        json!([]),
        "compiled here: nothing may differ"
    );
    let prelude = events.until("asked");
    assert_eq!(prelude["phase"], "prelude");
    assert_eq!(events.until_phase("startup")["cause"], "execve");
    assert!(container.try_chdir(), "startup allows chdir");

    // not ready: asked more than once and still in startup
    for _ in 0..2 {
        server
            .asked
            .recv_timeout(node::PATIENCE)
            .expect("asked for readiness");
    }
    let status = node.status_of(&container);
    assert_eq!(status["state"]["phase"], "startup");
    assert_eq!(status["name"], "h1");

    server.be_ready();
    let startup = events.until("asked");
    assert_eq!(startup["phase"], "startup");
    assert!(startup["calls"]["chdir"].as_u64() >= Some(1), "{startup}");
    assert_eq!(
        startup["calls"]["write"],
        json!(null),
        "allowed by the kernel, never asked"
    );
    assert_eq!(events.until_phase("serving")["cause"], "readiness");

    assert!(!container.try_chdir(), "serving does not");
    let denied = events.until("denied");
    assert_eq!(denied["call"], "chdir");
    assert_eq!(denied["phase"], "serving");
    assert_eq!(denied["pid"], container.pid);
    assert_eq!(denied["process"], "sh");
    assert_eq!(denied["arch"], "x86_64");
    assert_eq!(denied["enforced"], true);
    assert!(container.try_write());

    let counts = node.status_of(&container)["state"]["counts"].clone();
    let serving = json!({"asked": 1, "allowed": 0, "denied": 1});
    assert_eq!(counts["serving"], serving);
    let startup = &counts["startup"];
    assert_eq!(startup["asked"], startup["allowed"]);

    let id = container.id.clone();
    let said = container.end();
    assert!(said.contains("can't cd to /tmp"), "{said}");
    assert!(!said.contains("lazaret"), "{said}");
    assert_eq!(events.until("ended")["container"], id.as_str());
    assert_eq!(node.status()["containers"], json!([]));
}

#[test]
fn a_phase_is_moved_by_hand_and_by_the_stop_signal() {
    if skipped() {
        return;
    }
    let paper = Paper::default();
    let node = Node::with(&paper);
    let mut events = node.watch();
    let mut client = node.client();
    let mut container = node.create(&paper.policy());
    events.until("listener_received");
    let id = container.id.clone();
    let mut phase = |to: &str, who: &str| {
        client.ask(&json!({"type": "phase", "v": 1, "container": who, "to": to}))
    };
    let reply = phase("serving", &id);
    let early = "container is in its prelude, its papers are not checked yet";
    assert_eq!(reply["reason"], early);

    container.go();
    events.until_phase("startup");
    assert!(container.try_chdir());
    assert_eq!(phase("serving", "h1")["type"], "done", "by name");
    assert_eq!(events.until_phase("serving")["cause"], "by hand");
    assert!(!container.try_chdir());
    for nobody in ["", "nobody", "h"] {
        assert_eq!(phase("startup", nobody)["type"], "error", "`{nobody}`");
    }
    let beginning = phase("startup", &id[..63]);
    assert_eq!(beginning["type"], "done", "by the beginning of its id");
    assert!(container.try_chdir(), "loosened without a restart");
    assert_eq!(phase("prelude", &id)["type"], "error");

    let stopping = json!({"type": "stopping", "v": 1, "container": id});
    assert_eq!(node.client().ask(&stopping)["type"], "done");
    assert_eq!(events.until_phase("stopping")["cause"], "stop signal");
    assert!(!container.try_chdir(), "not for stopping");
    let unknown = json!({"type": "stopping", "v": 1, "container": "nobody"});
    assert_eq!(node.client().ask(&unknown)["type"], "error");
}

#[test]
fn mode_observe_lets_go_on_and_reports() {
    if skipped() {
        return;
    }
    let paper = Paper {
        mode: "observe",
        ..Paper::default()
    };
    let node = Node::with(&paper);
    let mut events = node.watch();
    let mut container = node.create(&paper.policy());
    container.go();
    events.until_phase("startup");
    assert!(container.try_chdir(), "the shell is up");
    let to = json!({"type": "phase", "v": 1, "container": container.id, "to": "serving"});
    assert_eq!(node.client().ask(&to)["type"], "done");
    assert!(container.try_chdir());
    let denied = events.until("denied");
    assert_eq!(
        (&denied["call"], &denied["enforced"]),
        (&json!("chdir"), &json!(false))
    );
    let counts = node.status_of(&container)["state"]["counts"]["serving"].clone();
    assert_eq!(counts, json!({"asked": 1, "allowed": 0, "denied": 1}));
}

#[test]
fn an_exec_is_a_phase_of_its_own() {
    if skipped() {
        return;
    }
    let paper = Paper::default();
    let policy = paper.policy();
    let digest = policy.digest().to_string();
    let node = Node::with(&paper);
    let mut events = node.watch();
    let mut container = node.create(&policy);
    container.go();
    events.until_phase("startup");

    let mut exec = node.exec(&container, &policy, &digest);
    assert_eq!(events.until("listener_received")["exec"], true);
    exec.go();
    assert_eq!(events.until_phase("exec")["from"], "prelude");
    assert!(!exec.try_chdir());
    let denied = events.until("denied");
    assert_eq!(
        (&denied["call"], &denied["phase"]),
        (&json!("chdir"), &json!("exec"))
    );
    assert_eq!(denied["pid"], exec.pid);
    assert_eq!(node.status_of(&container)["state"]["execs"], 1);
    exec.end();
    assert_eq!(events.until("asked")["phase"], "exec");
    assert_eq!(events.until("ended")["exec"], true);
    assert_eq!(node.status_of(&container)["state"]["execs"], 0);
    assert!(
        container.try_chdir(),
        "the container itself is still in startup"
    );

    // another profile than the container's
    let mut exec = node.exec(&container, &policy, "sha256:0");
    exec.go();
    assert_eq!(events.until("refused")["check"], "metadata");
    assert_eq!(exec.hear(), "exec: Permission denied (os error 13)");
    let said = exec.end();
    assert!(said.starts_with("lazaret: process not started: "), "{said}");
    assert!(container.try_chdir());
}

#[test]
fn an_exec_into_what_was_not_admitted_is_refused() {
    if skipped() {
        return;
    }
    let paper = Paper::default();
    let policy = paper.policy();
    let node = Node::with(&paper);
    let mut events = node.watch();
    // in its prelude: handed over, not let go
    let container = node.create(&policy);
    events.until("listener_received");
    let mut exec = node.exec(&container, &policy, &policy.digest().to_string());
    exec.go();
    let refused = events.until("refused");
    assert_eq!(refused["check"], "exec");
    assert_eq!(exec.hear(), "exec: Permission denied (os error 13)");
    let sentence = format!(
        "lazaret: process not started: container {} is not admitted yet\n",
        container.id
    );
    assert_eq!(exec.end(), sentence);
}
