//! The kernel as judge: calls whose supervisor is gone without an answer are notified again.
//!
//! Each case is a child of this test in a pid namespace of its own (`common`). The child holds its listener open itself, as
//! a holder process would, so that a lost call hangs instead of failing with `ENOSYS`.

mod common;

use common::{ASKED, CHILD, Confined, program, skipped};
use lazaret_core::filter::rule::Verdict;
use lazaret_kernel::filters::ReadError;
use lazaret_kernel::notify::{Answer, Answered, Listener, Notification, Polled};
use lazaret_kernel::process::NamespaceId;
use lazaret_kernel::renotify::{Renotified, Why, renotify, renotify_all};
use lazaret_kernel::{load, pidfd, process, tasks};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

/// Everything that is waited for here takes milliseconds; this is for a machine under load.
const PATIENCE_MS: u32 = 20_000;

/// Long enough for a call that does not hang.
const HANG_MS: u32 = 100;

/// Threads of the child that ask.
const THREADS: usize = 8;

fn ask() -> i64 {
    // JUSTIFICATION: std has no wrapper that always makes the call.
    // SAFETY: getppid takes nothing and touches no memory.
    unsafe { libc::syscall(ASKED) }
}

fn own_tid() -> u32 {
    rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .cast_unsigned()
}

/// As `load::load_with_listener`, so that a received notification waits for a fatal signal only.
fn load_killable() -> OwnedFd {
    let program = program(Verdict::Ask, 1);
    let mut instructions: Vec<libc::sock_filter> = program
        .instructions()
        .iter()
        .map(|it| libc::sock_filter {
            code: it.code,
            jt: it.jt,
            jf: it.jf,
            k: it.k,
        })
        .collect();
    let header = libc::sock_fprog {
        len: u16::try_from(instructions.len()).expect("few"),
        filter: instructions.as_mut_ptr(),
    };
    let flags =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // JUSTIFICATION: nothing in this project sets that flag.
    // SAFETY: `header` points at live instructions, which the kernel copies before it returns (seccomp(2)).
    let returned = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const header,
        )
    };
    let fd = i32::try_from(returned).expect("a descriptor");
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the call has just made it, and nothing else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The child's side; as a test of its own it does nothing.
#[test]
fn child() {
    let Ok(role) = std::env::var(CHILD) else {
        return;
    };
    load::set_no_new_privs().expect("no_new_privs");
    let listener = match role.as_str() {
        "killable" => load_killable(),
        _ => load::load_with_listener(&program(Verdict::Ask, 2)).expect("listener"),
    };
    if role == "busy" {
        std::thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
    }
    println!("\n@{} {}", listener.as_raw_fd(), own_tid());
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line).expect("a line") > 0 {
        match line.trim() {
            "threads" => {
                let threads: Vec<_> = (0..THREADS).map(|_| std::thread::spawn(ask)).collect();
                let returned = threads.into_iter().map(|it| it.join().expect("ended"));
                println!("@{}", returned.sum::<i64>());
            }
            // dash asks for its parent when it starts
            "process" => shell(Command::new("sh")),
            "nested" => {
                let mut unshare = Command::new("unshare");
                unshare.args(["--pid", "--fork", "sh"]);
                shell(unshare);
            }
            _ => println!("@{}", ask()),
        }
        line.clear();
    }
    std::process::exit(0);
}

fn shell(mut command: Command) {
    let status = command.args(["-c", "exit 7"]).status().expect("starts");
    println!("@{:?}", status.code());
}

struct Case {
    child: Confined,
    listener: Listener,
    namespace: NamespaceId,
}

impl Case {
    fn new(role: &str) -> Case {
        let child = Confined::in_pid_namespace(role);
        Case {
            listener: listener_of(&child),
            namespace: process::pid_namespace(child.pid).expect("namespace"),
            child,
        }
    }

    /// A supervisor receives so many notifications and is gone; the next one has the listener.
    fn lose(&mut self, count: usize) -> Vec<Notification> {
        let lost: Vec<Notification> = (0..count).map(|_| wait(&self.listener)).collect();
        self.listener = listener_of(&self.child);
        lost
    }

    fn renotify(&self) -> Renotified {
        renotify(self.namespace).expect("a pass over /proc")
    }

    fn answer(&self, errno: u16) -> Notification {
        let asked = wait(&self.listener);
        let answered = self.listener.respond(asked.id, Answer::Errno(errno));
        assert_eq!(answered.expect("taken"), Answered::Delivered);
        asked
    }
}

fn listener_of(child: &Confined) -> Listener {
    let fd = pidfd::take(child.pid, child.fd).expect("listener");
    Listener::new(fd).expect("a seccomp listener")
}

fn wait(listener: &Listener) -> Notification {
    assert_eq!(listener.poll(PATIENCE_MS).expect("poll"), Polled::Waiting);
    listener.recv().expect("received").expect("still there")
}

fn until_it_waits(tid: u32) {
    while !process::waits_in_notification(tid).expect("wchan") {
        std::thread::yield_now();
    }
}

fn assert_left_nothing(done: &Renotified, woken: u32) {
    assert!(done.left.is_empty(), "{:?}", done.left);
    assert_eq!(done.woken, woken);
}

#[test]
fn a_lost_call_hangs_until_it_is_notified_again() {
    if skipped() {
        return;
    }
    let mut case = Case::new("asks");
    case.child.tell("call");
    let lost = case.lose(1);
    // this is what the module is for
    assert_eq!(case.listener.poll(HANG_MS).expect("poll"), Polled::Nothing);
    until_it_waits(lost[0].tid);

    assert_left_nothing(&case.renotify(), 1);
    assert!(case.child.runs_free());
    let again = case.answer(libc::EACCES as u16);
    assert_ne!(again.id, lost[0].id);
    assert_eq!((again.tid, again.call), (lost[0].tid, lost[0].call));
    assert_eq!(case.child.hear(), "-1");
    // nothing waits, nothing is done
    assert_left_nothing(&case.renotify(), 0);
}

#[test]
fn a_call_that_is_lost_before_its_thread_sleeps_is_found() {
    if skipped() {
        return;
    }
    let mut case = Case::new("asks");
    for _ in 0..100 {
        case.child.tell("call");
        let lost = wait(&case.listener);
        // at once: its thread may not have come to the wait
        let done = case.renotify();
        assert!(done.left.is_empty(), "{:?}", done.left);
        assert_ne!(case.answer(1).id, lost.id);
        assert_eq!(case.child.hear(), "-1");
    }
}

#[test]
fn every_thread_that_waits_comes_again_and_repeating_it_is_harmless() {
    if skipped() {
        return;
    }
    let mut case = Case::new("asks");
    case.child.tell("threads");
    // some lost, the others not received yet
    let lost = case.lose(THREADS / 2);
    while tasks::threads(case.child.pid)
        .expect("there")
        .into_iter()
        .filter(|&tid| process::waits_in_notification(tid).unwrap_or(false))
        .count()
        < THREADS
    {
        std::thread::yield_now();
    }
    for _ in 0..5 {
        let done = case.renotify();
        // some may be on their way back into the wait by then: they are waited for
        assert_left_nothing(&done, THREADS as u32);
    }
    let mut tids = BTreeSet::new();
    for _ in 0..THREADS {
        let asked = case.answer(1);
        assert!(lost.iter().all(|lost| lost.id != asked.id));
        tids.insert(asked.tid);
    }
    assert_eq!(tids.len(), THREADS);
    assert_eq!(case.child.hear(), format!("-{THREADS}"));
}

#[test]
fn other_processes_of_the_namespace_and_those_below_it_are_found() {
    if skipped() {
        return;
    }
    for role in ["process", "nested"] {
        let mut case = Case::new("asks");
        case.child.tell(role);
        let lost = case.lose(1)[0];
        assert_ne!(process::process_of(lost.tid).ok(), Some(case.child.pid));
        let inner = process::pid_namespace(lost.tid).expect("there");
        assert_eq!(inner != case.namespace, role == "nested");
        until_it_waits(lost.tid);

        assert_left_nothing(&case.renotify(), 1);
        let asked = wait(&case.listener);
        assert_ne!(asked.id, lost.id);
        case.listener
            .respond(asked.id, Answer::Continue)
            .expect("taken");
        assert_eq!(case.child.hear(), "Some(7)");
    }
}

#[test]
fn one_pass_serves_several_containers_and_no_other() {
    if skipped() {
        return;
    }
    let mut cases: Vec<Case> = (0..3).map(|_| Case::new("asks")).collect();
    let mut lost = Vec::new();
    for case in &mut cases {
        case.child.tell("call");
        lost.push(case.lose(1)[0]);
        until_it_waits(lost[lost.len() - 1].tid);
    }
    let wanted = BTreeSet::from([cases[0].namespace, cases[1].namespace]);
    let done = renotify_all(&wanted).expect("a pass over /proc");
    assert_eq!(done.keys().copied().collect::<BTreeSet<_>>(), wanted);
    for done in done.values() {
        assert_left_nothing(done, 1);
    }
    assert!(!cases[0].listener.is_valid(lost[0].id));
    assert!(!cases[1].listener.is_valid(lost[1].id));
    assert!(
        cases[2].listener.is_valid(lost[2].id),
        "not asked for, not touched"
    );
    // a namespace that is gone has nothing to wake
    let gone = cases.pop().expect("three");
    let namespace = gone.namespace;
    drop(gone);
    assert_left_nothing(&renotify(namespace).expect("a pass"), 0);
}

#[test]
fn a_stopped_process_stays_stopped() {
    if skipped() {
        return;
    }
    let mut case = Case::new("asks");
    case.child.tell("call");
    let lost = case.lose(1)[0];
    until_it_waits(lost.tid);
    let pid = Pid::from_raw(case.child.pid.cast_signed()).expect("pid");
    kill_process(pid, Signal::STOP).expect("ours");
    let state = || process::status(lost.tid).expect("there").state;
    while state() != 'T' {
        std::thread::yield_now();
    }
    // the stop has withdrawn it
    assert_left_nothing(&case.renotify(), 0);
    assert_eq!(state(), 'T');
    assert_eq!(case.listener.poll(HANG_MS).expect("poll"), Polled::Nothing);
    kill_process(pid, Signal::CONT).expect("ours");
    assert_ne!(case.answer(1).id, lost.id);
    assert_eq!(case.child.hear(), "-1");
}

fn seize(tid: u32) {
    // JUSTIFICATION: rustix has no ptrace.
    // SAFETY: SEIZE reads and writes no memory of this process (ptrace(2)); the thread is a child's of this test.
    let returned = unsafe { libc::ptrace(libc::PTRACE_SEIZE, tid.cast_signed(), 0_usize, 0_usize) };
    assert_eq!(returned, 0);
}

#[test]
fn what_does_not_wait_is_not_touched() {
    if skipped() {
        return;
    }
    for role in ["asks", "busy"] {
        let case = Case::new(role);
        // whatever is tried with these threads fails now, and is told
        for tid in tasks::threads(case.child.pid).expect("there") {
            seize(tid);
        }
        let begin = Instant::now();
        assert_left_nothing(&case.renotify(), 0);
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_thread_that_another_traces_is_told() {
    if skipped() {
        return;
    }
    let mut case = Case::new("asks");
    case.child.tell("call");
    let lost = case.lose(1)[0];
    until_it_waits(lost.tid);
    seize(lost.tid);
    let done = case.renotify();
    assert_eq!(done.woken, 0);
    let [left] = done.left.as_slice() else {
        panic!("{:?}", done.left)
    };
    assert_eq!(left.tid, lost.tid);
    assert!(
        matches!(left.why, Why::Stop(ReadError::Traced { tracer, .. }) if tracer == own_tid()),
        "{:?}",
        left.why
    );
}

#[test]
fn nothing_in_our_own_pid_namespace_is_touched() {
    if skipped() {
        return;
    }
    let mut child = Confined::start("asks", &[]);
    let listener = listener_of(&child);
    child.tell("call");
    let asked = wait(&listener);
    until_it_waits(asked.tid);
    let own = process::own_pid_namespace().expect("namespace");
    let done = renotify(own).expect("a pass over /proc");
    assert_eq!(done.woken, 0);
    let left = done.left.iter().find(|left| left.tid == asked.tid);
    assert!(
        matches!(
            left.map(|left| &left.why),
            Some(Why::Stop(ReadError::OwnNamespace { .. }))
        ),
        "{:?}",
        done.left
    );
    assert!(listener.is_valid(asked.id));
    listener.respond(asked.id, Answer::Errno(1)).expect("taken");
    assert_eq!(child.hear(), "-1");
}

#[test]
fn a_wait_for_a_fatal_signal_cannot_be_withdrawn_and_is_told() {
    if skipped() {
        return;
    }
    let mut case = Case::new("killable");
    case.child.tell("call");
    let lost = case.lose(1)[0];
    until_it_waits(lost.tid);
    let done = case.renotify();
    assert_eq!(done.woken, 0);
    assert!(
        matches!(
            done.left.first().map(|left| &left.why),
            Some(Why::Stop(
                ReadError::NotStopped { .. } | ReadError::Uninterruptible { .. }
            ))
        ),
        "{:?}",
        done.left
    );
    // its supervisor can still answer, if it remembers the id
    let answered = case.listener.respond(lost.id, Answer::Errno(1));
    assert_eq!(answered.expect("taken"), Answered::Delivered);
    assert_eq!(case.child.hear(), "-1");
}
