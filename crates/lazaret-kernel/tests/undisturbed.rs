//! The kernel as judge: a process whose filters are read does not notice.
//!
//! Each case is a child of this test in namespaces of its own (`common`).
#![cfg(target_arch = "x86_64")]

#[path = "undisturbed/calls.rs"]
mod calls;
mod common;

use calls::{CALLS, SIZE, blocking, compat_program, raw};
use common::{CHILD, Confined, program, skipped};
use lazaret_core::filter::program::{Instruction, Program, code};
use lazaret_core::filter::rule::Verdict;
use lazaret_kernel::filters::{Chain, NameError, Named, ReadError, Road, read, read_chain};
use lazaret_kernel::{load, process, tasks};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Readings of each blocked call.
const READINGS: u32 = 25;

/// Their own: a semaphore outlives its process.
const NAMESPACES: [&str; 5] = ["--pid", "--ipc", "--net", "--fork", "--kill-child"];

fn announce() {
    println!("\n@-1 {}", raw(libc::SYS_gettid, [0; 6]));
}

fn hear_line() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("a line");
    line.trim().to_owned()
}

/// The child's side; as a test of its own it does nothing.
#[test]
fn child() {
    let Ok(role) = std::env::var(CHILD) else {
        return;
    };
    match role.split_once(' ') {
        Some(("block", "compat")) => become_compat(),
        Some(("block", name)) => block(name),
        _ => match role.as_str() {
            "signals" => count_signals(),
            "family" => watch_child(),
            "sleeper" => sleep_confined(),
            "vfork" => wait_in_vfork(),
            "leaderless" => lose_leader(),
            "plain" => {
                announce();
                hear_line();
            }
            "chain" => fill_chain(),
            _ => panic!("no such role: {role}"),
        },
    }
    std::process::exit(0);
}

fn confine() {
    load::set_no_new_privs().expect("no_new_privs");
    load::load(&program(Verdict::Allow, 1)).expect("a filter");
}

fn block(name: &str) {
    let case = blocking(name);
    std::thread::spawn(move || {
        hear_line();
        (case.wake)();
        // what was made for it stays until the process ends
        loop {
            std::thread::park();
        }
    });
    confine();
    announce();
    let returned = (case.call)();
    println!("@{returned}");
}

/// Executes a 32-bit program from memory.
fn become_compat() {
    let memory = rustix::fs::memfd_create("compat", rustix::fs::MemfdFlags::CLOEXEC);
    let mut memory = fs::File::from(memory.expect("made"));
    memory.write_all(&compat_program()).expect("written");
    // what is open for writing cannot be executed
    let program = fs::File::open(format!("/proc/self/fd/{}", memory.as_raw_fd())).expect("opened");
    drop(memory);
    confine();
    // execve makes its thread the first of the process
    println!("\n@-1 {}", std::process::id());
    let error = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd())).exec();
    panic!("32-bit program does not start: {error}");
}

/// Signals that a handler has seen.
static SEEN: AtomicU32 = AtomicU32::new(0);

extern "C" fn seen(_signal: i32) {
    SEEN.fetch_add(1, Ordering::Relaxed);
}

fn handle(signal: i32, handler: extern "C" fn(i32)) {
    // JUSTIFICATION: std has no signal handlers.
    // SAFETY: the handlers here change an atomic, which is allowed in any handler (signal-safety(7)).
    let before = unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    assert_ne!(before, libc::SIG_ERR);
}

/// Counts a signal until a line comes, and says how many there were.
fn count_signals() {
    static OVER: AtomicU32 = AtomicU32::new(0);
    extern "C" fn over(_signal: i32) {
        OVER.store(1, Ordering::Relaxed);
    }
    handle(libc::SIGRTMIN(), seen);
    handle(libc::SIGUSR2, over);
    let thread = usize::try_from(raw(libc::SYS_gettid, [0; 6])).expect("a thread");
    confine();
    announce();
    std::thread::spawn(move || {
        hear_line();
        let process = std::process::id() as usize;
        // Whatever waits already is delivered with it, before the thread goes on (exit_to_user_mode_loop,
        // kernel/entry/common.c). Again and again, since it may come just before the call that it is to end.
        loop {
            let signal = libc::SIGUSR2 as usize;
            raw(libc::SYS_tgkill, [process, thread, signal, 0, 0, 0]);
            std::thread::yield_now();
        }
    });
    while OVER.load(Ordering::SeqCst) == 0 {
        raw(libc::SYS_pause, [0; 6]);
    }
    println!("@{}", SEEN.load(Ordering::SeqCst));
}

fn sleep_confined() {
    confine();
    announce();
    loop {
        raw(libc::SYS_pause, [0; 6]);
    }
}

/// A parent that counts what it hears of its child, a [`sleep_confined`].
fn watch_child() {
    handle(libc::SIGCHLD, seen);
    let mut child = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, "sleeper")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("child starts");
    let mut said = String::new();
    let mut output = BufReader::new(child.stdout.take().expect("piped above"));
    while !said.starts_with('@') {
        said.clear();
        assert!(output.read_line(&mut said).expect("a line") > 0);
    }
    println!("\n{said}");
    let pid = usize::try_from(child.id()).expect("small");
    loop {
        // WSTOPPED 2, WEXITED 4, WCONTINUED 8, WNOHANG 1; P_PID is 1
        let happened = |how: i32| {
            let info = [0_u32; 32];
            let at = (&raw const info).expose_provenance();
            assert_eq!(raw(libc::SYS_waitid, [1, pid, at, how as usize, 0, 0]), 0);
            let info: *const u32 = std::ptr::with_exposed_provenance(at);
            // SAFETY: inside the array above.
            let code = unsafe { info.add(2) };
            // SAFETY: si_code in the array above, which the kernel has just filled in.
            unsafe { code.read_volatile() }
        };
        let send = |signal: i32, what: i32| {
            let before = SEEN.load(Ordering::SeqCst);
            let sent = raw(libc::SYS_kill, [pid, signal as usize, 0, 0, 0, 0]);
            assert_eq!(sent, 0);
            happened(what);
            while SEEN.load(Ordering::SeqCst) == before {
                std::thread::yield_now();
            }
        };
        match hear_line().as_str() {
            "stop" => send(libc::SIGSTOP, libc::WSTOPPED),
            "continue" => send(libc::SIGCONT, libc::WCONTINUED),
            "end" => break,
            _ => {}
        }
        let more = happened(libc::WSTOPPED | libc::WCONTINUED | libc::WEXITED | libc::WNOHANG);
        println!("@{} {more}", SEEN.load(Ordering::SeqCst));
    }
    child.kill().expect("ours");
    child.wait().expect("ours");
}

/// Waits like `vfork` until its child, which has memory of its own, has heard a line.
fn wait_in_vfork() {
    confine();
    announce();
    let flags = (libc::CLONE_VFORK | libc::SIGCHLD) as usize;
    if raw(libc::SYS_clone, [flags, 0, 0, 0, 0, 0]) == 0 {
        let byte = [0_u8; 1];
        raw(
            libc::SYS_read,
            [0, (&raw const byte).expose_provenance(), 1, 0, 0, 0],
        );
        raw(libc::SYS_exit_group, [0; 6]);
    }
    println!("@goes on");
}

/// A process whose first thread has ended and whose second goes on.
fn lose_leader() {
    confine();
    // SAFETY: the other threads of this program hold no lock: they wait for this one (`--test-threads=1`).
    if unsafe { libc::fork() } != 0 {
        hear_line();
        return;
    }
    std::thread::spawn(|| {
        announce();
        loop {
            raw(libc::SYS_pause, [0; 6]);
        }
    });
    raw(libc::SYS_exit, [0; 6]);
}

/// Loads long filters until the kernel takes no more.
fn fill_chain() {
    load::set_no_new_privs().expect("no_new_privs");
    let mut instructions = vec![Instruction::statement(code::LD_IMM, 0); 4095];
    instructions.push(Instruction::statement(code::RET_K, Verdict::Allow.to_raw()));
    let long = Program::new(instructions).expect("valid");
    announce();
    for loaded in 0.. {
        if let Err(error) = load::load(&long) {
            println!("@{loaded} {error}");
            break;
        }
    }
    hear_line();
}

/// Waits until the thread sleeps in this call; `false` when it is gone.
fn sleeps_in(tid: u32, nr: i64) -> bool {
    // poll goes on as restart_syscall
    let starts = [nr, libc::SYS_restart_syscall].map(|nr| format!("{nr} "));
    loop {
        match fs::read_to_string(format!("/proc/{tid}/syscall")) {
            Ok(call) if starts.iter().any(|start| call.starts_with(start)) => return true,
            Ok(_) => std::thread::yield_now(),
            Err(_) => return false,
        }
    }
}

/// What the call returned; of the 32-bit program the low byte, which is its exit code and that of its `unshare`.
fn result(child: &mut Confined, name: &str) -> i64 {
    if name == "compat" {
        let ended = child.unshare.wait().expect("ours");
        return i64::from(ended.code().expect("a code"));
    }
    child.hear().parse().expect("a number")
}

#[test]
fn no_blocked_call_fails_because_its_filters_are_read() {
    if skipped() {
        return;
    }
    for &(name, nr) in CALLS {
        let mut child = Confined::start(&format!("block {name}"), &NAMESPACES);
        let namespace = process::pid_namespace(child.pid).expect("namespace");
        for _ in 0..READINGS {
            if !sleeps_in(child.tid, nr) {
                panic!("{name} returned {}", result(&mut child, name));
            }
            let chain = read_chain(child.tid, namespace).expect(name);
            assert_eq!(chain, [program(Verdict::Allow, 1)]);
        }
        if !sleeps_in(child.tid, nr) {
            panic!("{name} returned {}", result(&mut child, name));
        }
        child.tell("go on");
        let returned = result(&mut child, name);
        assert!((0..=SIZE).contains(&returned), "{name} returned {returned}");
    }
}

/// Waits until the first letter of the thread's state is this one.
fn until_state(tid: u32, state: char) {
    while process::status(tid).expect("there").state != state {
        std::thread::yield_now();
    }
}

fn container(child: &Confined) -> Road {
    Road::Container(process::pid_namespace(child.pid).expect("namespace"))
}

fn one_filter() -> Chain {
    Chain::Filters(vec![program(Verdict::Allow, 1)])
}

#[test]
fn every_signal_arrives() {
    if skipped() {
        return;
    }
    let mut child = Confined::in_pid_namespace("signals");
    let sent = 5000;
    std::thread::scope(|scope| {
        let ids = [child.pid, child.tid].map(|id| id as usize);
        let sender = scope.spawn(move || {
            for _ in 0..sent {
                // real-time signals are counted, not merged (signal(7))
                let signal = libc::SIGRTMIN() as usize;
                let returned = raw(libc::SYS_tgkill, [ids[0], ids[1], signal, 0, 0, 0]);
                assert_eq!(returned, 0);
                std::thread::yield_now();
            }
        });
        while !sender.is_finished() {
            let chain = read(child.tid, container(&child)).expect("read");
            assert_eq!(chain, one_filter());
        }
    });
    child.tell("how many?");
    assert_eq!(child.hear(), sent.to_string());
}

#[test]
fn job_control_and_the_parent_notice_nothing() {
    if skipped() {
        return;
    }
    let mut parent = Confined::in_pid_namespace("family");
    let road = container(&parent);
    let child = parent.tid;
    let look = |parent: &mut Confined, word: &str| {
        parent.tell(word);
        parent.hear()
    };
    // signals heard, and what waitid still has to say
    assert_eq!(look(&mut parent, "look"), "0 0");
    assert_eq!(read(child, road).expect("read"), one_filter());
    assert_eq!(look(&mut parent, "look"), "0 0");

    assert_eq!(look(&mut parent, "stop"), "1 0");
    until_state(child, 'T');
    for _ in 0..READINGS {
        assert_eq!(read(child, road).expect("read"), one_filter());
        // it passes through running on its way from the one stop to the other
        until_state(child, 'T');
    }
    assert_eq!(look(&mut parent, "look"), "1 0");
    assert_eq!(look(&mut parent, "continue"), "2 0");
    until_state(child, 'S');
    assert_eq!(read(child, road).expect("read"), one_filter());
    assert_eq!(look(&mut parent, "look"), "2 0");
    parent.tell("end");
}

#[test]
fn a_thread_that_takes_no_signal_is_left_alone() {
    if skipped() {
        return;
    }
    let mut child = Confined::in_pid_namespace("vfork");
    until_state(child.tid, 'D');
    let error = read(child.tid, container(&child)).expect_err("it cannot stop");
    assert!(
        matches!(error, ReadError::Uninterruptible { .. }),
        "{error}"
    );
    child.tell("go on");
    assert_eq!(child.hear(), "goes on");
}

#[test]
fn a_first_thread_that_has_ended_is_gone_and_the_others_are_read() {
    if skipped() {
        return;
    }
    let child = Confined::in_pid_namespace("leaderless");
    let leader = process::process_of(child.tid).expect("there");
    assert_ne!(leader, child.tid);
    until_state(leader, 'Z');
    let road = container(&child);
    let error = read(leader, road).expect_err("it has ended");
    assert!(error.is_gone(), "{error}");
    assert_eq!(read(child.tid, road).expect("read"), one_filter());
    // the kernel gives no cgroup for a thread that has ended; one that lives is asked
    assert_eq!(tasks::cgroups(leader).ok(), tasks::cgroups(child.tid).ok());
}

#[test]
fn a_thread_that_another_traces_is_refused() {
    if skipped() {
        return;
    }
    let child = Confined::in_pid_namespace("sleeper");
    let road = container(&child);
    let traced = raw(
        libc::SYS_ptrace,
        [libc::PTRACE_SEIZE as usize, child.tid as usize, 0, 0, 0, 0],
    );
    assert_eq!(traced, 0);
    let error = read(child.tid, road).expect_err("traced by this thread");
    assert!(
        matches!(error, ReadError::Traced { tracer, .. } if i64::from(tracer) == raw(libc::SYS_gettid, [0; 6])),
        "{error}"
    );
}

#[test]
fn a_thread_without_filters_is_not_touched() {
    if skipped() {
        return;
    }
    let child = Confined::in_pid_namespace("plain");
    // so that nobody else can seize it
    let traced = raw(
        libc::SYS_ptrace,
        [libc::PTRACE_SEIZE as usize, child.tid as usize, 0, 0, 0, 0],
    );
    assert_eq!(traced, 0);
    assert_eq!(
        read(child.tid, container(&child)).expect("answered"),
        Chain::Unfiltered
    );
}

#[test]
fn a_named_process_is_read_and_what_we_hang_on_is_refused() {
    if skipped() {
        return;
    }
    // in our own pid namespace, where only the name gives the right
    let child = Confined::start("sleeper", &[]);
    let named = Road::Named(Named::new(child.pid).expect("a child"));
    assert_eq!(read(child.tid, named).expect("read"), one_filter());
    assert!(child.runs_free());
    let error = read(child.tid, container(&child)).expect_err("not a container");
    assert!(matches!(error, ReadError::OwnNamespace { .. }), "{error}");
    let other = Confined::start("sleeper", &[]);
    let error = read(other.tid, named).expect_err("another process");
    assert!(matches!(error, ReadError::OtherProcess { .. }), "{error}");

    let refused = |pid: u32| Named::new(pid).expect_err("refused");
    assert!(matches!(refused(1), NameError::First));
    assert!(matches!(
        refused(std::process::id()),
        NameError::Itself { .. }
    ));
    assert!(matches!(
        refused(std::os::unix::process::parent_id()),
        NameError::Ancestor { .. }
    ));
    let process = child.pid;
    assert!(matches!(refused(child.tid), NameError::Thread { process: its, .. } if its == process));
    assert!(matches!(refused(1 << 23), NameError::Process { .. }));
    // kthreadd is process 2 of the first pid namespace (rest_init, init/main.c)
    if process::comm(2).is_ok_and(|name| name == "kthreadd") {
        assert!(matches!(refused(2), NameError::Kernel { .. }));
    }
}

#[test]
fn the_kernels_limit_on_a_chain_is_named() {
    if skipped() {
        return;
    }
    let mut child = Confined::in_pid_namespace("chain");
    let said = child.hear();
    let (loaded, error) = said.split_once(' ').expect("two");
    // 8 filters of 4096 and 4 for each would be more than 32768
    assert!(
        loaded
            .parse::<u32>()
            .is_ok_and(|loaded| (1..8).contains(&loaded)),
        "{loaded}"
    );
    assert!(
        error.starts_with("filter of 4096 instructions does not fit"),
        "{error}"
    );
    assert!(error.contains("32768"), "{error}");
}
