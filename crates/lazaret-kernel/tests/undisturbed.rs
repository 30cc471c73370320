//! The kernel as judge: a process whose filters are read does not notice.
//!
//! Each case is a child of this test in namespaces of its own (`common`).
#![cfg(target_arch = "x86_64")]

mod common;
#[path = "undisturbed/calls.rs"]
mod calls;

use calls::{CALLS, blocking, compat_program, raw};
use common::{CHILD, Confined, program, skipped};
use lazaret_core::filter::rule::Verdict;
use lazaret_kernel::filters::{Chain, NameError, Named, ReadError, Road, read, read_chain};
use lazaret_kernel::{load, process};
use std::fs;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

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
        _ => panic!("no such role: {role}"),
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
                panic!("{name} returned {}", child.hear());
            }
            let chain = read_chain(child.tid, namespace).expect(name);
            assert_eq!(chain, [program(Verdict::Allow, 1)]);
        }
        if !sleeps_in(child.tid, nr) {
            panic!("{name} returned {}", child.hear());
        }
        child.tell("go on");
        if name == "compat" {
            // unshare ends with the exit code of its child
            let ended = child.unshare.wait().expect("ours");
            assert_eq!(ended.code(), Some(1), "{name}");
            continue;
        }
        let returned: i64 = child.hear().parse().expect("a number");
        assert!(returned >= 0, "{name} returned {returned}");
    }
}
