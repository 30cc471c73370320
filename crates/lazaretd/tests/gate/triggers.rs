//! How a container comes to serve, and to stop: TCP, a quiet time, settle and dwell, the end of its first process.

use crate::node::{Node, Paper, skipped};
use crate::paper::policy_of;
use crate::server::Server;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// The ordinary policy of these tests with this trigger.
fn when(trigger: Value) -> Value {
    let mut text = Paper::default().text();
    text["phases"] = json!({"serving": {"when": trigger}});
    text
}

/// A node that has this policy installed, and runs.
fn node(text: &Value) -> Node {
    let mut node = Node::new();
    node.install(&policy_of(text.clone()), &node.key);
    node.start();
    node
}

#[test]
fn a_port_that_takes_connections_is_ready() {
    if skipped() {
        return;
    }
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").expect("port");
        free.local_addr().expect("address").port()
    };
    let text = when(json!({"tcp": {"port": port}}));
    let node = node(&text);
    let mut events = node.watch();
    let mut container = node.create(&policy_of(text));
    container.go();
    events.until_phase("startup");
    assert!(container.try_chdir(), "nobody listens yet");
    assert_eq!(node.status_of(&container)["state"]["phase"], "startup");
    let _server = TcpListener::bind(("127.0.0.1", port)).expect("still free");
    assert_eq!(events.until_phase("serving")["cause"], "readiness");
    assert!(!container.try_chdir());
}

const QUIET: Duration = Duration::from_secs(2);

#[test]
fn each_call_of_the_start_moves_the_quiet_time() {
    if skipped() {
        return;
    }
    let text = when(json!({"quiet": "2s"}));
    let node = node(&text);
    let mut events = node.watch();
    let mut container = node.create(&policy_of(text));
    container.go();
    events.until_phase("startup");
    let begin = Instant::now();
    let mut last = begin;
    while begin.elapsed() < 2 * QUIET {
        assert!(container.try_chdir(), "a start that goes on is no service");
        last = Instant::now();
        // the time between two calls of a start; shorter than the quiet time whatever the machine does meanwhile
        std::thread::sleep(Duration::from_millis(100));
    }
    // calls that serving allows as well move nothing
    while node.status_of(&container)["state"]["phase"] == "startup" {
        assert!(container.try_write());
        assert!(last.elapsed() < crate::node::PATIENCE);
    }
    let quiet = last.elapsed();
    assert!(quiet >= QUIET - Duration::from_millis(50), "{quiet:?}");
    assert_eq!(events.until_phase("serving")["cause"], "readiness");
    assert!(!container.try_chdir());
}

#[test]
fn during_the_dwell_denials_are_told_and_then_they_bite() {
    if skipped() {
        return;
    }
    let server = Server::start();
    let http = json!({"path": "/metadata", "port": server.port, "status": 200});
    let text = when(json!({"http": http, "settle": "300ms", "dwell": "3s"}));
    let mut node = node(&text);
    let mut events = node.watch();
    let mut container = node.create(&policy_of(text));
    container.go();
    events.until_phase("startup");
    assert!(container.try_chdir());
    let status = node.status_of(&container);
    assert_eq!(status["state"]["dwell"], Value::Null);
    server.be_ready();
    let dwell = events.until("dwell_began");
    assert_eq!(
        (&dwell["phase"], &dwell["dwell_ms"]),
        (&json!("serving"), &json!(3000))
    );
    let status = node.status_of(&container);
    assert_eq!(
        (&status["state"]["phase"], &status["state"]["dwell"]),
        (&json!("startup"), &json!("serving"))
    );
    assert!(container.try_chdir(), "told, and let go on");
    let told = events.until("denied");
    assert_eq!(
        (&told["call"], &told["phase"], &told["enforced"]),
        (&json!("chdir"), &json!("serving"), &json!(false))
    );
    // one that takes over in the middle dwells
    let begin = Instant::now();
    while !node.is_recorded("dwelling", &container.id) {
        assert!(begin.elapsed() < crate::node::PATIENCE, "no record of it");
    }
    node.kill();
    node.start();
    let mut events = node.watch();
    let status = node.status_of(&container);
    assert_eq!(status["state"]["dwell"], "serving");
    let serving = events.until_phase("serving");
    let dwelt = |event: &Value| event["time_ms"].as_u64().expect("a time");
    assert!(dwelt(&serving) >= dwelt(&dwell) + 2950, "{dwell} {serving}");
    assert!(!container.try_chdir(), "now it bites");
    let denied = events.until("denied");
    assert_eq!(
        (&denied["phase"], &denied["enforced"]),
        (&json!("serving"), &json!(true))
    );
}

#[test]
fn when_its_first_process_is_gone_a_container_stops() {
    if skipped() {
        return;
    }
    let mut text = Paper::default().text();
    let rules = text["rules"].as_array_mut().expect("rules");
    rules.push(json!({"allow": ["clone", "kill", "rt_sigsuspend", "wait4"], "why": "a shell that makes another"}));
    rules.push(json!({"allow": ["chdir"], "during": ["stopping"], "why": "only at the end"}));
    let policy = policy_of(text.clone());
    let node = node(&text);
    let mut events = node.watch();
    let mut other = node.create(&policy);
    other.go();
    events.until_phase("startup");
    let mut container = node.create_inside(&other, &policy);
    container.go();
    events.until_phase("startup");
    assert!(container.try_chdir());
    let to = json!({"type": "phase", "v": 1, "container": container.id, "to": "serving"});
    // a child that lives on, and takes commands
    container.send("exec 3<&0; ( echo @parted; while read x <&3; do eval \"$x\"; done ) & wait\n");
    assert_eq!(container.hear(), "parted");
    assert_eq!(node.client().ask(&to)["type"], "done");
    assert!(!container.try_chdir(), "serving");
    container.send("kill -9 $$\n");
    let stopping = events.until_phase("stopping");
    assert_eq!(stopping["cause"], "process gone");
    assert_eq!(stopping["container"], container.id.as_str());
    assert!(container.try_chdir(), "stopping allows it");
    assert_eq!(node.status_of(&container)["state"]["phase"], "stopping");
    assert_eq!(node.status_of(&other)["state"]["phase"], "startup");
}
