//! The daemon's own life: start, a second one, sockets, death and what containers get then.

use crate::node::{Node, Ours, Paper, skipped};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

/// Starts another daemon that must end by itself; returns its exit code and what it said.
fn ends(command: &mut Command) -> (Option<i32>, String) {
    let mut daemon = Ours(command.stderr(Stdio::piped()).spawn().expect("daemon"));
    let mut said = String::new();
    let mut stderr = daemon.0.stderr.take().expect("piped");
    stderr.read_to_string(&mut said).expect("text");
    (daemon.0.wait().expect("ended").code(), said)
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    if skipped() {
        return;
    }
    let mut node = Node::new();
    node.start();
    let (code, said) = ends(&mut node.command());
    let socket = node.path("run/gate.sock");
    assert_eq!(
        said,
        format!(
            "lazaretd: another lazaretd answers on `{}`\n",
            socket.display()
        )
    );
    assert_eq!(code, Some(1));
    assert_eq!(node.status()["type"], "status");
    // killed, its socket files are left; the next one takes them over
    node.kill();
    assert!(socket.exists());
    node.start();
    assert_eq!(node.status()["type"], "status");
}

#[test]
fn a_folder_that_others_may_enter_is_refused() {
    if skipped() {
        return;
    }
    let node = Node::new();
    let folder = node.path("run");
    fs::create_dir(&folder).expect("folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("set");
    let (code, said) = ends(&mut node.command());
    assert_eq!(
        said,
        format!(
            "lazaretd: `{}` has mode 0755, expected 0700\n",
            folder.display()
        )
    );
    assert_eq!(code, Some(3));
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused() {
    if skipped() {
        return;
    }
    let node = Node::new();
    let path = node.path("bad.toml");
    fs::write(&path, "listen = '/x'\nlissten = '/y'\n").expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_lazaretd"));
    let (code, said) = ends(command.arg("--config").arg(&path));
    assert_eq!(code, Some(2));
    assert!(
        said.contains("unknown field `lissten`") && said.contains("line 2"),
        "{said}"
    );
}

#[test]
fn sigterm_ends_it_cleanly() {
    if skipped() {
        return;
    }
    let paper = Paper::default();
    let mut node = Node::holding_for(&paper, 0);
    let mut events = node.watch();
    let mut container = node.create(&paper.policy());
    container.go();
    events.until_phase("startup");
    assert!(container.try_chdir(), "the shell is up");
    let pid = Pid::from_child(node.daemon());
    kill_process(pid, Signal::TERM).expect("ours");
    assert_eq!(node.daemon().wait().expect("ended").code(), Some(0));
    assert!(!node.path("run/gate.sock").exists());
    assert!(!node.path("run/control.sock").exists());
    let log = fs::read_to_string(node.path("events.jsonl")).expect("log");
    let types: Vec<_> = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["type"].clone())
        .collect();
    let expected = [
        "gate_started",
        "listener_received",
        "admitted",
        "asked",
        "phase_changed",
    ];
    assert_eq!(types[..5], expected);
    assert_eq!(types[5], "gate_stopped");
    assert!(!container.try_chdir());
}

#[test]
fn without_a_keeper_allowed_calls_go_on_and_the_next_daemon_reports_the_container() {
    if skipped() {
        return;
    }
    let paper = Paper::default();
    let mut node = Node::holding_for(&paper, 0);
    let mut events = node.watch();
    let mut container = node.create(&paper.policy());
    container.go();
    events.until_phase("startup");
    assert!(container.try_chdir());
    // the state is written beside the answers; wait for it as a person would, by looking
    while !node.is_recorded("held", &container.id) {
        std::thread::yield_now();
    }
    node.kill();
    assert!(!container.try_chdir(), "fails closed");
    assert!(container.try_write(), "and serves on");

    node.start();
    let status = node.status_of(&container);
    assert_eq!(status["state"], json!({"is": "unsupervised"}));
    assert_eq!(
        (&status["pid"], &status["name"]),
        (&json!(container.pid), &json!("h1"))
    );
    // the log is written beside
    while !node.has_logged("unsupervised", &container.id) {
        std::thread::yield_now();
    }
    let to = json!({"type": "phase", "v": 1, "container": container.id, "to": "serving"});
    let reply = node.client().ask(&to);
    let reason = format!(
        "container {} is not supervised: this gate started after it",
        container.id
    );
    assert_eq!(reply["reason"], reason);
    // an exec into it cannot be checked against anything
    let mut events = node.watch();
    let policy = paper.policy();
    let mut exec = node.exec(&container, &policy, &policy.digest().to_string());
    exec.go();
    assert_eq!(events.until("refused")["check"], "exec");
    drop(exec);

    // it is forgotten when it ends
    container.end();
    while node.status()["containers"] != json!([]) {
        std::thread::yield_now();
    }
}

#[test]
fn two_containers_with_one_id_are_not_mixed_up() {
    if skipped() {
        return;
    }
    let paper = Paper::default();
    let policy = paper.policy();
    let node = Node::with(&paper);
    let mut events = node.watch();
    let mut first = node.create(&policy);
    first.go();
    events.until_phase("startup");
    let mut second = node.create_again(&first.id, &policy);
    second.go();
    assert_eq!(events.until("refused")["check"], "container-id");
    let said = second.end();
    assert!(
        said.starts_with("lazaret: container not started: another container with the id"),
        "{said}"
    );
    assert!(first.try_chdir(), "the first is not touched");
    // restarted under its id after its end
    let id = first.id.clone();
    first.end();
    let mut third = node.create_again(&id, &policy);
    third.go();
    events.until("admitted");
    assert!(third.try_chdir());
}

#[test]
fn what_is_no_handover_leaves_the_daemon_as_it_was() {
    if skipped() {
        return;
    }
    let paper = Paper::default();
    let node = Node::with(&paper);
    for nonsense in [
        "",
        "{",
        "[]\n",
        "\0\0\0\0",
        r#"{"fds":[],"pid":1,"state":{}}"#,
    ] {
        let mut stream = UnixStream::connect(node.path("run/gate.sock")).expect("socket");
        stream.write_all(nonsense.as_bytes()).expect("sent");
    }
    let mut events = node.watch();
    let mut container = node.create(&paper.policy());
    container.go();
    events.until_phase("startup");
    assert!(container.try_chdir());
}

#[test]
fn nonsense_on_the_control_socket_gets_one_error_and_a_hang_up() {
    if skipped() {
        return;
    }
    let mut node = Node::new();
    node.start();
    for nonsense in [json!({}), json!([]), json!({"type": "status", "v": 2})] {
        let mut client = node.client();
        let reply = client.ask(&nonsense);
        assert_eq!(reply["type"], "error", "{reply}");
        assert!(client.hear().is_none());
    }
    // longer than a request may be: it hangs up in the middle, and is well
    let mut endless = UnixStream::connect(node.path("run/control.sock")).expect("socket");
    let sent = endless.write_all(&vec![b'x'; 4 << 20]);
    assert!(sent.is_err(), "4 MiB do not fit into the socket");
    assert_eq!(node.status()["containers"], json!([]));
    assert_eq!(node.status()["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn nobody_but_root_hands_over_or_asks() {
    if skipped() {
        return;
    }
    let mut node = Node::new();
    node.start();
    // the folders keep others out; open them, so that the peer check itself is asked
    for folder in ["", "run"] {
        let path = node.path(folder);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
    }
    for socket in ["run/gate.sock", "run/control.sock"] {
        let path = node.path(socket);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("set");
        let answer = crate::nobody::as_nobody(&path, "{\"type\":\"status\",\"v\":1}\n");
        assert_eq!(answer, "", "{socket}");
    }
    assert_eq!(node.status()["type"], "status");
}
