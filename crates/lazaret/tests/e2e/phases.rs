//! A confined container under Docker: admitted, held phase by phase, stopped.

use crate::learn::learnt;
use crate::node::Node;
use crate::world::{Ours, run, wait_for, world};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

const EPERM: (i64, i64) = (-1, 1);
/// What the kernel answers berth when it may look for a path that is not there.
const ENOENT: &str = "{\"call\": \"unlink\", \"result\": -1, \"errno\": 2}";
/// berth's server never says that it is ready.
const NEVER_READY: &str = "--env=BERTH_READY_AFTER_MS=86400000";

/// The counts of a phase in `lazaret status`.
fn counts(status: &Value, phase: &str) -> [u64; 3] {
    let counts = &status["state"]["counts"][phase];
    ["asked", "allowed", "denied"].map(|name| counts[name].as_u64().unwrap_or(0))
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_server_comes_up_serves_is_held_and_stops() {
    let node = Node::with(&learnt().policy);
    let mut watch = node.ask(&["watch", "--format", "json"]);
    let mut watch = Ours(watch.stdout(Stdio::piped()).spawn().expect("lazaret"));
    let mut watched = BufReader::new(watch.0.stdout.take().expect("piped")).lines();
    let server = node.serving();
    let id = server.0.as_str();

    let status = node.status(id).expect("it is known");
    assert_eq!(
        status["name"],
        server.inspect("{{.Name}}").trim_start_matches('/')
    );
    assert_eq!(status["state"]["image"], world().berth().config_digest);
    assert_eq!(status["state"]["in_force"]["mode"], "enforce");
    assert!(counts(&status, "prelude")[0] > 0 && counts(&status, "startup")[0] > 0);
    assert_eq!(
        counts(&status, "serving"),
        [0, 0, 0],
        "serving is all in the kernel"
    );

    // asked and not in the policy; its neighbour that is; and one under the ceiling, which the kernel denies unasked
    assert_eq!(world().call("getpriority?a0=1&a1=7"), EPERM);
    assert_eq!(world().call("getppid"), (0, 0));
    assert_eq!(world().call("mount"), EPERM);
    let denied = node.wait_event(id, "denied", "call", "getpriority");
    let pid: u32 = server.inspect("{{.State.Pid}}").parse().expect("a pid");
    let expected = json!({
        "v": 1, "type": "denied", "times": 1, "container": id, "time_ms": denied["time_ms"], "pid": pid, "process": "berth",
        "nr": 140, "arch": "x86_64", "call": "getpriority", "args": [1, 7, 0, 0, 0, 0],
        "phase": "serving", "enforced": true,
    });
    assert_eq!(denied, expected);
    let told = watched
        .by_ref()
        .map(|line| serde_json::from_str::<Value>(&line.expect("a line")).expect("JSON"))
        .find(|event| event["type"] == "denied");
    assert_eq!(told, Some(expected));
    let status = node.status(id).expect("it is known");
    assert_eq!(counts(&status, "serving"), [1, 0, 1]);
    let denials = node.events(id);
    let denials = denials.iter().filter(|event| event["type"] == "denied");
    assert_eq!(denials.count(), 1, "mount was not asked about");

    world().docker(&["stop", id]).good();
    assert_eq!(server.inspect("{{.State.ExitCode}}"), "0");
    let logs = server.logs();
    assert!(
        logs.contains(&format!("berth: stopping: {ENOENT}")),
        "{logs}"
    );
    wait_for("end of the container", || {
        node.status(id).is_none().then_some(())
    });
    assert_eq!(
        node.phases(id),
        [
            "prelude>startup (execve)",
            "startup>serving (readiness)",
            "serving>stopping (stop signal)"
        ]
    );
    let events = node.events(id);
    let stopping = events
        .iter()
        .find(|event| event["type"] == "asked" && event["phase"] == "stopping");
    let stopping = stopping.expect("what was asked in the stop");
    assert_eq!(stopping["calls"]["unlink"], 1);
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn what_only_a_start_needs_is_allowed_until_it_serves() {
    let node = Node::with(&learnt().policy);
    let server = node.berth(&[NEVER_READY]);
    world().wait_answering();
    node.wait_phase(&server.0, "startup");
    // SOCK_STREAM; learnt for AF_INET, so AF_INET6 is another matter
    let tcp = || world().call("socket?a0=2&a1=1");
    assert_eq!(tcp().1, 0);
    assert_eq!(world().call("socket?a0=10&a1=1"), EPERM);
    assert_eq!(world().call("unlink"), EPERM, "that is for the stop");

    let moved = |to: &str| run(&mut node.ask(&["phase", &server.0[..12], to]));
    moved("serving").good();
    assert_eq!(tcp(), EPERM);
    assert_eq!(world().call("unlink"), EPERM);
    let denied = node.wait_event(&server.0, "denied", "phase", "serving");
    assert_eq!(denied["args"], json!([2, 1, 0, 0, 0, 0]));

    moved("stopping").good();
    assert_eq!(world().call("unlink"), (-1, 2));
    assert_eq!(tcp(), EPERM);
    assert_eq!(
        node.phases(&server.0),
        [
            "prelude>startup (execve)",
            "startup>serving (by hand)",
            "serving>stopping (by hand)"
        ]
    );
    let said = moved("exec");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("cannot be entered by hand"), "{said:?}");
    let said = run(&mut node.ask(&["phase", "nobody", "serving"]));
    assert_eq!(said.code, Some(1), "{said:?}");
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_process_put_in_has_a_phase_of_its_own() {
    let node = Node::with(&learnt().policy);
    let server = node.serving();
    let good = server.probe(&["getsid"]);
    assert!(good.good().contains("\"errno\": 0"), "{good:?}");
    // the server itself may not, and the probe may not do everything
    assert_eq!(world().call("getsid"), EPERM);
    let held = server.probe(&["getpriority"]);
    assert!(held.good().contains("\"errno\": 1"), "{held:?}");
    let denied = node.wait_event(&server.0, "denied", "phase", "exec");
    assert_eq!(
        (&denied["call"], &denied["enforced"]),
        (&json!("getpriority"), &json!(true))
    );
    assert_ne!(denied["pid"].to_string(), server.inspect("{{.State.Pid}}"));
    wait_for("end of both processes", || {
        let events = node.events(&server.0);
        let ended = events
            .iter()
            .filter(|event| event["type"] == "ended" && event["exec"] == true);
        (ended.count() == 2).then_some(())
    });
    let status = node.status(&server.0).expect("it runs on");
    assert_eq!(status["state"]["phase"], "serving");
    assert_eq!(counts(&status, "exec")[2], 1);
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn in_observe_everything_asked_goes_on_and_is_told() {
    let mut node = Node::new();
    let text = fs::read_to_string(&learnt().policy).expect("a policy");
    let observing = text.replace("mode: enforce", "mode: observe");
    assert_ne!(text, observing);
    let policy = node.path("observe.yaml");
    fs::write(&policy, observing).expect("written");
    node.install(&policy);
    node.start();
    let server = node.serving();
    let (result, errno) = world().call("getpriority?a0=0&a1=0");
    assert!(result > 0 && errno == 0, "it went on");
    assert_eq!(world().call("mount"), EPERM, "the ceiling stays");
    let told = node.wait_event(&server.0, "denied", "call", "getpriority");
    assert_eq!(
        (&told["enforced"], &told["phase"]),
        (&json!(false), &json!("serving"))
    );
    let status = node.status(&server.0).expect("it is known");
    assert_eq!(status["state"]["in_force"]["mode"], "observe");
    assert_eq!(counts(&status, "serving"), [1, 0, 1]);
}
