//! The kernel as judge: notifications, filters of a live process and namespaces, each with a child that this test made.
//!
//! The child is this program again, run as its test `child` by `unshare --pid --fork`: process 1 of a pid namespace of
//! its own. It loads a filter that asks about one harmless call, says so, and then makes that call for each line it is
//! sent.

mod common;

use common::{ASKED, CHILD, Confined, program, skipped};
use lazaret_core::filter::rule::Verdict;
use lazaret_kernel::filters::{ReadError, read_chain};
use lazaret_kernel::load;
use lazaret_kernel::netns::NetworkNamespace;
use lazaret_kernel::notify::{Answer, Answered, Listener, NotifyError, Polled};
use lazaret_kernel::{pidfd, process};
use std::fs;
use std::os::fd::AsRawFd as _;

/// Everything that is waited for here takes milliseconds; this is for a machine under load.
const PATIENCE_MS: u32 = 20_000;

/// The child's side; as a test of its own it does nothing.
#[test]
fn child() {
    let Ok(role) = std::env::var(CHILD) else {
        return;
    };
    load::set_no_new_privs().expect("no_new_privs");
    let listener = match role.as_str() {
        "plain" => None,
        _ => {
            load::load(&program(Verdict::Allow, 1)).expect("first filter");
            Some(load::load_with_listener(&program(Verdict::Ask, 2)).expect("listener"))
        }
    };
    let fd = listener.as_ref().map_or(-1, |fd| fd.as_raw_fd());
    // JUSTIFICATION: std has no gettid.
    // SAFETY: gettid takes nothing and touches no memory.
    let tid = unsafe { libc::syscall(libc::SYS_gettid) };
    // libtest's own line may stand before it
    println!("\n@{fd} {tid}");
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line).expect("a line") > 0 {
        if line.trim() == "close" {
            // as runtimes do: only the supervisor holds the listener then
            assert!(fd >= 0);
            // JUSTIFICATION: the descriptor is owned by `listener`, which is borrowed by nothing else; closing it by
            // number keeps the loop simple.
            // SAFETY: `fd` is open and the OwnedFd is leaked below, so it is closed once.
            unsafe { libc::close(fd) };
            println!("@closed");
        } else {
            // JUSTIFICATION: std has no wrapper that always makes the call.
            // SAFETY: getppid takes nothing and touches no memory.
            let returned = unsafe { libc::syscall(ASKED) };
            let errno = std::io::Error::last_os_error().raw_os_error();
            println!(
                "@{returned} {}",
                if returned == -1 { errno } else { None }.unwrap_or(0)
            );
        }
        line.clear();
    }
    std::mem::forget(listener);
    std::process::exit(0);
}

fn listener_of(confined: &Confined) -> Listener {
    let fd = pidfd::take(confined.pid, confined.fd).expect("listener");
    Listener::new(fd).expect("a seccomp listener")
}

fn wait(listener: &Listener) -> lazaret_kernel::notify::Notification {
    assert_eq!(listener.poll(PATIENCE_MS).expect("poll"), Polled::Waiting);
    listener.recv().expect("received").expect("still there")
}

#[test]
fn a_call_is_continued_or_fails_as_answered() {
    if skipped() {
        return;
    }
    let mut confined = Confined::in_pid_namespace("asks");
    let listener = listener_of(&confined);
    assert_eq!(listener.poll(0).expect("poll"), Polled::Nothing);

    confined.tell("call");
    let asked = wait(&listener);
    assert_eq!(asked.tid, confined.tid);
    assert_eq!(i64::from(asked.call.nr), ASKED);
    assert_eq!(
        asked.call.arch,
        lazaret_core::filter::abi::Abi::X86_64.audit_arch()
    );
    assert!(listener.is_valid(asked.id));
    // it is asked about a moment before it sleeps
    while !process::waits_in_notification(asked.tid).expect("wchan") {
        std::thread::yield_now();
    }
    let answered = listener.respond(asked.id, Answer::Continue);
    assert_eq!(answered.expect("taken"), Answered::Delivered);
    assert_eq!(
        confined.hear(),
        "0 0",
        "process 1 has no parent in its namespace"
    );
    assert!(!listener.is_valid(asked.id));

    // which changes who runs where, and no answer
    listener
        .wake_synchronously()
        .expect("taken, or unknown to the kernel");
    confined.tell("call");
    let asked = wait(&listener);
    let answered = listener.respond(asked.id, Answer::Errno(libc::EACCES as u16));
    assert_eq!(answered.expect("taken"), Answered::Delivered);
    assert_eq!(confined.hear(), format!("-1 {}", libc::EACCES));

    // answered already
    let again = listener.respond(asked.id, Answer::Continue);
    assert_eq!(again.expect("no error"), Answered::Withdrawn);
}

#[test]
fn a_filter_is_read_while_its_call_waits_and_the_call_comes_again() {
    if skipped() {
        return;
    }
    let mut confined = Confined::in_pid_namespace("asks");
    let listener = listener_of(&confined);
    confined.tell("call");
    let first = wait(&listener);
    let namespace = process::pid_namespace(confined.pid).expect("namespace");

    let chain = read_chain(first.tid, namespace).expect("read");
    assert_eq!(
        chain,
        [program(Verdict::Allow, 1), program(Verdict::Ask, 2)]
    );
    assert!(confined.runs_free());

    // withdrawn by the stop, and no error
    let late = listener.respond(first.id, Answer::Errno(1));
    assert_eq!(late.expect("no error"), Answered::Withdrawn);
    let second = wait(&listener);
    assert_ne!(first.id, second.id);
    assert_eq!((first.tid, first.call), (second.tid, second.call));
    let answered = listener.respond(second.id, Answer::Continue);
    assert_eq!(answered.expect("taken"), Answered::Delivered);
    assert_eq!(confined.hear(), "0 0");
}

#[test]
fn the_end_of_every_task_is_a_hang_up() {
    if skipped() {
        return;
    }
    let mut confined = Confined::in_pid_namespace("asks");
    let listener = listener_of(&confined);
    confined.tell("call");
    let asked = wait(&listener);
    confined.unshare.kill().expect("killed");
    // the child dies after its unshare; then the call is withdrawn and nothing waits
    while listener.poll(PATIENCE_MS).expect("poll") != Polled::HungUp {}
    let late = listener.respond(asked.id, Answer::Continue);
    assert_eq!(late.expect("no error"), Answered::Withdrawn);
    assert_eq!(listener.recv().expect("no error"), None);
}

#[test]
fn without_a_supervisor_asked_calls_fail_and_others_go_on() {
    if skipped() {
        return;
    }
    let mut confined = Confined::in_pid_namespace("asks");
    let listener = listener_of(&confined);
    confined.tell("close");
    assert_eq!(confined.hear(), "closed");
    drop(listener);
    confined.tell("call");
    assert_eq!(confined.hear(), format!("-1 {}", libc::ENOSYS));
}

#[test]
fn tasks_outside_the_container_are_never_touched() {
    if skipped() {
        return;
    }
    let confined = Confined::in_pid_namespace("asks");
    let other = Confined::in_pid_namespace("asks");
    let namespace = process::pid_namespace(confined.pid).expect("namespace");
    let error = read_chain(other.tid, namespace).expect_err("another container");
    assert!(matches!(error, ReadError::OtherNamespace { .. }), "{error}");

    // a child of ours, but in our pid namespace: even when asked for by that very namespace
    let own = Confined::start("asks", &[]);
    let namespace = process::own_pid_namespace().expect("namespace");
    for tid in [own.tid, std::process::id()] {
        let error = read_chain(tid, namespace).expect_err("our own");
        assert!(matches!(error, ReadError::OwnNamespace { .. }), "{error}");
    }
    for tid in [0, 1 << 31] {
        let error = read_chain(tid, namespace).expect_err("no thread");
        assert!(matches!(error, ReadError::NoTid { .. }), "{error}");
    }
}

#[test]
fn a_thread_without_filters_is_refused_and_runs_on() {
    if skipped() {
        return;
    }
    let mut confined = Confined::in_pid_namespace("plain");
    let namespace = process::pid_namespace(confined.pid).expect("namespace");
    let error = read_chain(confined.tid, namespace).expect_err("it has no filter");
    assert!(matches!(error, ReadError::NoFilter { .. }), "{error}");
    assert!(confined.runs_free());
    confined.tell("call");
    assert_eq!(confined.hear(), "0 0");
}

#[test]
fn a_stopped_thread_stays_stopped() {
    if skipped() {
        return;
    }
    let mut confined = Confined::in_pid_namespace("asks");
    let listener = listener_of(&confined);
    let pid = rustix::process::Pid::from_raw(confined.pid.cast_signed()).expect("pid");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("ours");
    let state = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", confined.tid)).expect("stat");
        stat.rsplit(')')
            .next()
            .and_then(|rest| rest.trim().chars().next())
    };
    while state() != Some('T') {
        std::thread::yield_now();
    }
    let namespace = process::pid_namespace(confined.pid).expect("namespace");
    let chain = read_chain(confined.tid, namespace).expect("read");
    assert_eq!(chain.len(), 2);
    // it passes through running on its way from the one stop to the other
    while state() != Some('T') {
        std::thread::yield_now();
    }
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("ours");
    confined.tell("call");
    let asked = wait(&listener);
    listener.respond(asked.id, Answer::Continue).expect("taken");
    assert_eq!(confined.hear(), "0 0");
}

#[test]
fn other_descriptors_are_no_listeners() {
    let (one, _two) = std::os::unix::net::UnixStream::pair().expect("socket pair");
    let file = fs::File::open("/dev/null").expect("there");
    for fd in [one.into(), file.into()] {
        let error = Listener::new(fd).expect_err("no listener");
        assert!(matches!(error, NotifyError::NotAListener(_)), "{error}");
    }
}

#[test]
fn work_runs_inside_the_other_network_namespace() {
    if skipped() {
        return;
    }
    let confined = Confined::start("plain", &["--net", "--pid", "--fork", "--kill-child"]);
    let here = || fs::read_link("/proc/thread-self/ns/net").expect("namespace");
    let outside = here();
    let namespace = NetworkNamespace::of(confined.pid).expect("opened");
    let inside = namespace.run(here).expect("ran");
    let theirs = fs::read_link(format!("/proc/{}/ns/net", confined.pid)).expect("namespace");
    assert_eq!(inside, theirs);
    assert_ne!(inside, outside);
    assert_eq!(here(), outside, "this thread has not moved");
}
