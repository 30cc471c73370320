//! The kernel as judge: notifications, filters of a live process and namespaces, each with a child that this test made.
//!
//! The child is this program again, run as its test `child` by `unshare --pid --fork`: process 1 of a pid namespace of
//! its own. It loads a filter that asks about one harmless call, says so, and then makes that call for each line it is
//! sent.

use lazaret_core::filter::program::{Instruction, Program, code};
use lazaret_core::filter::rule::Verdict;
use lazaret_kernel::filters::{ReadError, read_chain};
use lazaret_kernel::load;
use lazaret_kernel::netns::NetworkNamespace;
use lazaret_kernel::notify::{Answer, Answered, Listener, NotifyError, Polled};
use lazaret_kernel::{pidfd, process};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Set for the child only.
const CHILD: &str = "LAZARET_KERNEL_TEST_CHILD";

/// A call that nothing in the child makes by itself.
const ASKED: i64 = libc::SYS_getppid;

/// Everything that is waited for here takes milliseconds; this is for a machine under load.
const PATIENCE_MS: u32 = 20_000;

fn program(asked: Verdict, marker: u32) -> Program {
    let ret = |verdict: Verdict| Instruction::statement(code::RET_K, verdict.to_raw());
    let nr = u32::try_from(ASKED).expect("a small number");
    Program::new(vec![
        Instruction::statement(code::LD_IMM, marker), // tells programs apart
        Instruction::statement(code::LD_W_ABS, 0),    // seccomp_data.nr
        Instruction::jump(code::JEQ_K, nr, 0, 1),
        ret(asked),
        ret(Verdict::Allow),
    ])
    .expect("a valid filter")
}

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

/// A child in its own pid namespace, and the `unshare` that holds it.
struct Confined {
    unshare: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// The child in this program's numbering.
    pid: u32,
    /// Its thread that has the filter.
    tid: u32,
    /// The listener's number in the child, −1 without.
    fd: i32,
}

impl Confined {
    fn start(role: &str, unshare: &[&str]) -> Confined {
        let mut command = match unshare {
            [] => Command::new(std::env::current_exe().expect("own path")),
            _ => {
                let mut command = Command::new("unshare");
                command
                    .args(unshare)
                    .arg("--")
                    .arg(std::env::current_exe().expect("own path"));
                command
            }
        };
        command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
        let mut started = command
            .env(CHILD, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("child starts");
        let stdin = started.stdin.take();
        let stdout = BufReader::new(started.stdout.take().expect("piped above"));
        let mut confined = Confined {
            pid: started.id(),
            unshare: started,
            stdin,
            stdout,
            tid: 0,
            fd: -1,
        };
        let said = confined.hear();
        let (fd, inner_tid) = said.split_once(' ').expect("two numbers");
        confined.fd = fd.parse().expect("a number");
        if !unshare.is_empty() {
            let parent = confined.pid;
            let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
            confined.pid = children
                .expect("children")
                .trim()
                .parse()
                .expect("one child");
        }
        confined.tid = thread_named(confined.pid, inner_tid);
        confined
    }

    fn in_pid_namespace(role: &str) -> Confined {
        Confined::start(role, &["--pid", "--fork", "--kill-child"])
    }

    /// The next line that the child means for us.
    fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(
                self.stdout.read_line(&mut line).expect("a line") > 0,
                "child is gone"
            );
            if let Some(said) = line.trim().strip_prefix('@') {
                return said.to_owned();
            }
        }
    }

    fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("not closed yet");
        writeln!(stdin, "{line}").expect("child reads");
    }

    fn listener(&self) -> Listener {
        let fd = pidfd::take(self.pid, self.fd).expect("listener");
        Listener::new(fd).expect("a seccomp listener")
    }

    /// Neither stopped (`t`, `T`) nor traced.
    fn runs_free(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.tid)).expect("status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.expect("field").trim().to_owned()
        };
        field("TracerPid:") == "0" && !field("State:").to_lowercase().starts_with('t')
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        // --kill-child: the child dies with its unshare
        self.unshare.kill().expect("ours to kill");
        self.unshare.wait().expect("ours to wait for");
    }
}

/// The thread of `pid` whose id in its innermost namespace is `inner`.
fn thread_named(pid: u32, inner: &str) -> u32 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    let found = threads.filter_map(Result::ok).find(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        ids.and_then(|ids| ids.split_whitespace().last()) == Some(inner)
    });
    let name = found.expect("thread").file_name();
    name.to_str()
        .and_then(|name| name.parse().ok())
        .expect("a number")
}

fn skipped() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIP: not root, no pid namespace can be made");
    }
    !root
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
    let listener = confined.listener();
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
    let listener = confined.listener();
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
    let listener = confined.listener();
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
    let listener = confined.listener();
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
fn a_failed_reading_leaves_the_thread_running_and_untraced() {
    if skipped() {
        return;
    }
    let mut confined = Confined::in_pid_namespace("plain");
    let namespace = process::pid_namespace(confined.pid).expect("namespace");
    let error = read_chain(confined.tid, namespace).expect_err("it has no filter");
    assert!(
        matches!(error, ReadError::Filter { index: 0, .. }),
        "{error}"
    );
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
    let listener = confined.listener();
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
