//! The daemon under its own policy, and the process that reads filters for it.

use crate::node::{Node, PATIENCE, Paper, Sandbox, skipped};
use lazaret_core::filter::prove::{Comparison, prove};
use lazaret_core::filter::rule::Verdict;
use lazaret_core::policy::Policy;
use lazaret_kernel::filters::{self, Chain, Named, Road};
use lazaret_kernel::process;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const POLICY: &[u8] = include_bytes!("../../lazaretd.policy.json");

/// A field of `/proc/PID/status`, or of a thread's.
fn field(path: &str, name: &str) -> String {
    let status = fs::read_to_string(format!("{path}/status")).expect("it runs");
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.expect("the kernel tells").trim().to_owned()
}

/// `Seccomp` and `NoNewPrivs` of every thread.
fn modes(pid: u32) -> Vec<(String, String)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let paths = threads.map(|thread| thread.expect("there").path());
    let mut modes: Vec<_> = paths
        .map(|path| {
            let path = path.to_str().expect("text");
            (field(path, "Seccomp"), field(path, "NoNewPrivs"))
        })
        .collect();
    modes.dedup();
    modes
}

/// The daemon's reader.
fn reader(daemon: u32) -> u32 {
    let threads = fs::read_dir(format!("/proc/{daemon}/task")).expect("it runs");
    let children = threads.flat_map(|thread| {
        let path = thread.expect("there").path().join("children");
        let children = fs::read_to_string(path).expect("children");
        let children: Vec<u32> = children
            .split_whitespace()
            .map(|pid| pid.parse().expect("pid"))
            .collect();
        children
    });
    let mut readers = children.filter(|pid| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == b"lazaretd\0read\0")
    });
    readers.next().expect("it has a reader")
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("ours");
}

/// What the filter of a live daemon is against its policy.
fn compared(pid: u32) -> Comparison {
    let road = Road::Named(Named::new(pid).expect("our child"));
    let Chain::Filters(chain) = filters::read(pid, road).expect("read") else {
        panic!("no filter");
    };
    assert_eq!(chain.len(), 1);
    let policy = Policy::from_canonical_json(POLICY).expect("good");
    let mut table = policy.static_table();
    table.foreign = Verdict::KillProcess;
    prove(&table, &chain).expect("decided")
}

#[test]
fn the_kernel_holds_the_daemon_to_its_policy() {
    if skipped() {
        return;
    }
    let mut node = Node::with(&Paper::default());
    let pid = node.daemon().id();
    assert_eq!(modes(pid), [("2".to_owned(), "1".to_owned())]);
    let compared = compared(pid);
    assert!(compared.looser.is_empty(), "{:?}", compared.looser);
    assert!(compared.stricter.is_empty(), "{:?}", compared.stricter);
    assert!(compared.other.is_empty(), "{:?}", compared.other);
    let reader = reader(pid);
    assert_eq!(modes(reader), [("0".to_owned(), "1".to_owned())]);
    // it ends with the daemon, however that ends
    node.kill();
    gone(reader);
}

#[test]
fn at_an_orderly_end_the_reader_ends_first() {
    if skipped() {
        return;
    }
    let mut node = Node::with(&Paper::default());
    let _container = container(&node);
    let reader = reader(node.daemon().id());
    let daemon = rustix::process::Pid::from_child(node.daemon());
    rustix::process::kill_process(daemon, rustix::process::Signal::TERM).expect("ours");
    assert!(node.daemon().wait().expect("ours").success());
    // waited for: not even a zombie is left to somebody else
    assert!(process::status(reader).is_err());
}

#[test]
fn observed_it_is_looser_and_off_it_is_not_there() {
    if skipped() {
        return;
    }
    let mut node = Node::new();
    node.configuration = "confine = 'observe'".to_owned();
    node.start();
    let pid = node.daemon().id();
    assert_eq!(modes(pid), [("2".to_owned(), "1".to_owned())]);
    let looser = compared(pid).looser;
    assert!(!looser.is_empty());
    for difference in looser {
        assert_eq!(difference.found, Verdict::Log, "{difference:?}");
    }
    node.kill();
    node.configuration = "confine = 'off'".to_owned();
    node.start();
    let pid = node.daemon().id();
    assert_eq!(modes(pid), [("0".to_owned(), "0".to_owned())]);
}

/// Waits until a process of ours, or of our daemon's, is over.
fn gone(pid: u32) {
    let begin = Instant::now();
    while process::status(pid).is_ok_and(|status| !status.is_over()) {
        assert!(begin.elapsed() < PATIENCE, "{pid} is still there");
        std::thread::yield_now();
    }
}

fn container(node: &Node) -> Sandbox {
    let mut events = node.watch();
    let mut container = node.create(&Paper::default().policy());
    container.go();
    events.until_phase("startup");
    container
}

#[test]
fn without_its_reader_it_admits_nobody_and_goes_on() {
    if skipped() {
        return;
    }
    let mut node = Node::with(&Paper::default());
    let mut first = container(&node);
    let reader = reader(node.daemon().id());
    kill(reader);
    gone(reader);
    let mut events = node.watch();
    let mut second = node.create(&Paper::default().policy());
    second.go();
    let refused = events.until("refused");
    assert_eq!(refused["check"], "filter-unread", "{refused}");
    let said = second.end();
    assert!(said.contains("the process that reads filters"), "{said}");
    assert!(first.try_chdir(), "it is answered as before");
    assert!(node.daemon().try_wait().expect("ours").is_none());
    // the next one has a reader
    node.kill();
    node.start();
    assert!(first.try_chdir());
    container(&node);
}

#[test]
fn without_its_reader_it_ends_where_systemd_starts_it_again() {
    if skipped() {
        return;
    }
    let node = Node::new();
    let path = node.path("notify");
    let manager = UnixDatagram::bind(&path).expect("bound");
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        // what is closed again answers BARRIER=1 (sd_notify(3))
        while let Ok(Some(message)) = lazaret_kernel::fds::receive(&manager, &mut buffer, 1) {
            drop(message);
        }
    });
    let mut command = node.command();
    command.env("NOTIFY_SOCKET", path).env("FDSTORE", "100");
    let mut daemon = crate::node::Ours(command.spawn().expect("daemon"));
    let log = BufReader::new(daemon.0.stderr.take().expect("piped"));
    let mut lines = log.lines().map(|line| line.expect("log"));
    assert!(lines.any(|line| line.contains("listening on")));
    kill(reader(daemon.0.id()));
    assert!(lines.any(|line| line.contains("the reader of filters is gone")));
    let status = daemon.0.wait().expect("ours");
    assert_eq!(status.signal(), Some(6), "{status}");
}

/// A reader without a daemon, and the daemon's end of its socket.
fn lone_reader() -> (Child, UnixStream) {
    let (here, there) = UnixStream::pair().expect("pair");
    here.set_read_timeout(Some(PATIENCE)).expect("set");
    let child = Command::new(env!("CARGO_BIN_EXE_lazaretd"))
        .arg("read")
        .stdin(Stdio::from(OwnedFd::from(there)))
        .spawn();
    (child.expect("started"), here)
}

fn ask(mut reader: &UnixStream, text: &str) {
    let length = u32::try_from(text.len()).expect("short");
    reader.write_all(&length.to_le_bytes()).expect("sent");
    reader.write_all(text.as_bytes()).expect("sent");
}

#[test]
fn a_reader_that_is_killed_leaves_nothing_stopped() {
    if skipped() {
        return;
    }
    let node = Node::with(&Paper::default());
    let mut container = container(&node);
    let pid = container.pid;
    let namespace = process::pid_namespace(pid).expect("it runs");
    let question = serde_json::json!({"tid": pid, "namespace": namespace}).to_string();
    let mut seized = 0;
    for round in 0..60_u64 {
        let (mut child, socket) = lone_reader();
        // it is up, and each of these stops the container's shell
        ask(&socket, &question);
        std::io::Read::read_exact(&mut &socket, &mut [0; 5]).expect("an answer");
        ask(&socket, &question);
        // from before the stop to after it
        std::thread::sleep(Duration::from_micros(20 * (round % 30)));
        seized += u32::from(field(&format!("/proc/{pid}"), "TracerPid") != "0");
        child.kill().expect("ours");
        child.wait().expect("ours");
        assert_eq!(field(&format!("/proc/{pid}"), "TracerPid"), "0");
        assert!(container.try_write(), "round {round}");
    }
    println!("{seized} of 60 readers were killed while they traced");
    assert!(container.try_chdir(), "and it is asked about as before");
}

#[test]
fn a_reader_ends_with_its_daemon_and_at_nonsense_but_not_at_sigterm() {
    if skipped() {
        return;
    }
    let (mut child, socket) = lone_reader();
    ask(&socket, "hello");
    assert_eq!(child.wait().expect("ours").code(), Some(3));
    let (mut child, socket) = lone_reader();
    // this very process: refused, and the reader is up
    let namespace = process::own_pid_namespace().expect("readable");
    let question = serde_json::json!({"tid": std::process::id(), "namespace": namespace});
    ask(&socket, &question.to_string());
    let mut answer = [0; 5];
    std::io::Read::read_exact(&mut &socket, &mut answer).expect("an answer");
    assert_eq!(answer, [1, 0, 0, 0, 1]);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("ours");
    ask(&socket, &question.to_string());
    std::io::Read::read_exact(&mut &socket, &mut answer).expect("still an answer");
    drop(socket);
    assert_eq!(child.wait().expect("ours").code(), Some(0));
}
