//! A node in production, by the command line: drift becomes a rule, revisions, execs under permits, daemons that come and go
//! under requests.

use crate::learn::learnt;
use crate::node::Node;
use crate::world::{Ours, PATIENCE, Said, run, wait_for, world};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const EPERM: (i64, i64) = (-1, 1);

/// Restarts of the daemon under requests.
const RESTARTS: u64 = 50;

/// Clients that send requests all the time; berth has as many threads.
const CLIENTS: usize = 4;

/// A rule by which each phase may, and the daemon is asked.
const ASKED: &str = "rules:\n- ask: [getpriority]\n  why: each request asks\n";

/// The learnt policy under this number, with these changes to its text.
fn revision(node: &Node, number: u64, changes: &[(&str, &str)]) -> PathBuf {
    let mut text = fs::read_to_string(&learnt().policy).expect("a policy");
    let number_is = format!("revision: {number}}}");
    let changes = changes.iter().copied();
    for (from, to) in changes.chain([("revision: 1}", number_is.as_str())]) {
        assert_eq!(
            text.matches(from).count(),
            1,
            "`{from}` is once in:\n{text}"
        );
        text = text.replace(from, to);
    }
    let path = node.path(&format!("revision-{number}.yaml"));
    fs::write(&path, text).expect("written");
    path
}

fn allowed(call: &str) -> bool {
    let (result, errno) = world().call(call);
    (result >= 0, errno) == (true, 0)
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn drift_becomes_a_rule_that_is_reviewed_signed_and_enforced() {
    let mut node = Node::new();
    let observed = revision(&node, 1, &[("mode: enforce", "mode: observe")]);
    node.install(&observed);
    node.start();
    let server = node.serving();
    let id = server.0.as_str();
    let mut watch = node.ask(&["watch", "--plain"]);
    let mut watch = Ours(watch.stdout(Stdio::piped()).spawn().expect("lazaret"));
    let mut lines = BufReader::new(watch.0.stdout.take().expect("piped")).lines();
    let before = node.status(id).expect("it is known");
    // made until the watcher hears: each goes on, and is told
    let heard = AtomicBool::new(false);
    let told = std::thread::scope(|scope| {
        scope.spawn(|| {
            let begin = Instant::now();
            while !heard.load(Ordering::Relaxed) && begin.elapsed() < PATIENCE {
                assert!(allowed("getpriority"), "observed, so it goes on");
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let mut lines = lines.by_ref().map_while(Result::ok);
        let told = lines.find(|line| line.contains("getpriority"));
        heard.store(true, Ordering::Relaxed);
        told.expect("a line of the watcher")
    });
    assert!(told.contains("serving") && told.contains("berth"), "{told}");
    drop(watch);

    let proposed = node.path("proposed.yaml");
    let mut suggest = node.ask(&["suggest", "--container", id]);
    suggest.arg("--policy").arg(&observed);
    let said = run(suggest.arg("--out").arg(&proposed));
    let added: Vec<&str> = said
        .good()
        .lines()
        .filter(|line| line.starts_with('+') && line.contains("allow"))
        .collect();
    assert_eq!(
        added.len(),
        1,
        "exactly the rule that was missing: {said:?}"
    );
    assert!(added[0].contains("getpriority"), "{said:?}");
    assert_eq!(
        node.status(id).expect("known")["state"]["in_force"],
        before["state"]["in_force"],
        "nothing is widened by itself"
    );

    // reviewed: it shall bite from now on
    let text = fs::read_to_string(&proposed).expect("the proposal");
    let text = text.replace("mode: observe", "mode: enforce");
    let text = text.replace("revision: 1}", "revision: 2}");
    fs::write(&proposed, text).expect("written");
    node.install(&proposed);
    let said = run(&mut node.ask(&["revise", id, "--revision", "2"]));
    assert!(said.good().contains("(enforce)"), "{said:?}");
    assert!(allowed("getpriority"), "by the new rule");
    assert_eq!(world().call("alarm"), EPERM, "nothing else");
    let denied = node.wait_event(id, "denied", "call", "alarm");
    assert_eq!(denied["enforced"], true);
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_revision_loosens_and_tightens_a_server_that_runs() {
    let mut node = Node::with(&learnt().policy);
    let server = node.serving();
    let id = server.0.as_str();
    let revise =
        |node: &Node, number: &str| run(&mut node.ask(&["revise", id, "--revision", number]));
    let of = |node: &Node, which: &str| {
        node.status(id).expect("known")["state"][which]["revision"].clone()
    };
    assert_eq!(world().call("getpriority"), EPERM);
    let none = revise(&node, "2");
    assert_eq!(none.code, Some(1), "{none:?}");
    assert!(none.err.contains("not installed"), "{none:?}");
    node.install(&revision(&node, 2, &[("rules:\n", ASKED)]));
    assert_eq!(
        world().call("getpriority"),
        EPERM,
        "installed is not in force"
    );
    revise(&node, "2").good();
    assert!(allowed("getpriority"));
    assert_eq!(
        (of(&node, "in_force"), of(&node, "in_kernel")),
        (json!(2), json!(1))
    );
    let shown = run(&mut node.ask(&["status"]));
    assert!(shown.good().contains("in kernel"), "{shown:?}");
    // one that is put in names the policy in the kernel
    assert!(
        server
            .probe(&["getsid", "getpriority"])
            .good()
            .contains("\"errno\": 0")
    );
    node.kill();
    node.start();
    assert!(allowed("getpriority"), "the next daemon knows");
    revise(&node, "1").good();
    assert_eq!(world().call("getpriority"), EPERM, "tightened again");
    assert_eq!(of(&node, "in_force"), json!(1));
    let pid = server.inspect("{{.State.Pid}}");
    assert_eq!(
        node.status(id).expect("known")["pid"].to_string(),
        pid,
        "never restarted"
    );
}

/// Signs a permit with this key and installs it; what installing says.
fn permit(node: &Node, key: &str, seconds: u64, calls: &str) -> Said {
    let out = node.path("permit.json");
    let from = "2020-01-01T00:00:00Z";
    let mut sign = world().lazaret(&["permit", "sign", "--reason", "case 7", "--calls", calls]);
    sign.args(["--for", &format!("{seconds}s")])
        .arg("--key")
        .arg(node.path(key));
    if seconds == 1 {
        sign.args(["--from", from]);
    }
    run(sign
        .arg("--policy")
        .arg(&learnt().policy)
        .arg("--out")
        .arg(&out))
    .good();
    let mut install = world().lazaret(&["permit", "install"]);
    run(install.arg(&out).arg("--store").arg(node.path("store")))
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn an_exec_is_refused_and_opened_by_a_permit() {
    let mut node = Node::new();
    node.install(&revision(
        &node,
        1,
        &[("phases:\n", "phases:\n  exec: {start: refuse}\n")],
    ));
    node.start();
    let server = node.serving();
    let id = server.0.as_str();
    let refused = |words: &str| {
        let said = server.probe(&["getsid"]);
        assert_ne!(said.code, Some(0), "{said:?}");
        let text = format!("{}{}", said.out, said.err);
        let sentence =
            "lazaret: process not started: the policy refuses processes from outside, and ";
        assert!(text.contains(sentence) && text.contains(words), "{said:?}");
    };
    refused("no permit is installed");
    node.key("stranger");
    assert_eq!(
        permit(&node, "stranger", 3600, "ceiling").code,
        Some(4),
        "not by a pinned key"
    );
    assert_eq!(permit(&node, "site", 1, "ceiling").code, Some(1), "of 2020");
    refused("no permit is installed");

    permit(&node, "site", 3600, "policy").good();
    let held = server.probe(&["getsid", "getpriority"]);
    assert!(
        held.good()
            .contains("\"call\": \"getpriority\", \"result\": -1, \"errno\": 1"),
        "{held:?}"
    );
    let used = node
        .events(id)
        .into_iter()
        .find(|event| event["type"] == "permitted");
    assert_eq!(used.expect("told")["reason"], "case 7");

    permit(&node, "site", 3600, "ceiling").good();
    let open = server.probe(&["getpriority", "mount"]);
    assert!(
        !open
            .good()
            .contains("\"call\": \"getpriority\", \"result\": -1"),
        "{open:?}"
    );
    assert!(
        open.out
            .contains("\"call\": \"mount\", \"result\": -1, \"errno\": 1"),
        "{open:?}"
    );
    assert_eq!(world().call("getpriority"), EPERM, "not the server's");
}

/// What clients saw.
#[derive(Debug, Default)]
struct Seen {
    micros: Vec<u128>,
    failed: Vec<String>,
}

/// Sends requests, each of which makes an asked call, until told to stop.
fn client(stop: &AtomicBool, answered: &AtomicU64) -> Seen {
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let answer = world().get("/call/getpriority?a0=0&a1=0");
        seen.micros.push(begin.elapsed().as_micros());
        match answer {
            Some((200, body)) if body.contains("\"errno\": 0") => {}
            other => seen.failed.push(format!("{other:?}")),
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
    seen
}

/// Lets clients send requests while `work` is done; what they saw, fastest first. `work` is given a wait for more answers.
fn under_requests(work: impl FnOnce(&dyn Fn())) -> Seen {
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut all = Seen::default();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| client(&stop, &answered)))
            .collect();
        work(&|| {
            let before = answered.load(Ordering::Relaxed);
            wait_for("answers", || {
                (answered.load(Ordering::Relaxed) >= before + 4 * CLIENTS as u64).then_some(())
            });
        });
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            let seen = client.join().expect("a client");
            all.micros.extend(seen.micros);
            all.failed.extend(seen.failed);
        }
    });
    all.micros.sort_unstable();
    all
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn no_request_fails_while_the_daemon_restarts_fifty_times() {
    let mut node = Node::new();
    node.install(&revision(&node, 1, &[("rules:\n", ASKED)]));
    node.start();
    let server = node.serving();
    let calm = under_requests(|_| std::thread::sleep(Duration::from_secs(2)));
    assert_eq!(calm.failed, Vec::<String>::new());
    let seen = under_requests(|more| {
        for restart in 0..RESTARTS {
            more();
            if restart % 2 == 0 {
                node.terminate();
            } else {
                node.kill();
            }
            node.start();
        }
        more();
    });
    let median = |seen: &Seen| seen.micros[seen.micros.len() / 2];
    println!(
        "{} requests, {} failed; median {} µs ({} µs without restarts), slowest {} ms",
        seen.micros.len(),
        seen.failed.len(),
        median(&seen),
        median(&calm),
        seen.micros.last().expect("some") / 1000
    );
    assert_eq!(seen.failed, Vec::<String>::new());
    let taken = |event: &&Value| event["type"] == "taken_over" && event["exec"] == false;
    let events = node.events(&server.0);
    assert_eq!(events.iter().filter(taken).count() as u64, RESTARTS);
    let status = node.status(&server.0).expect("it is known");
    assert_eq!(status["state"]["phase"], "serving");
    assert_eq!(world().call("alarm"), EPERM, "and it is held");
}
