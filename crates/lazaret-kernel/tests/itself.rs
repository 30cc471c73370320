//! What a process does to itself at its start: take the service manager's descriptors, and confine all of its threads.
//!
//! Both change a process for good and the first must find it with one thread, so this has no test harness (which has two):
//! `main` runs each case in a child, this program again behind a shell.

use lazaret_core::filter::program::{Instruction, Program, code};
use lazaret_core::filter::rule::Verdict;
use lazaret_kernel::load::LoadError;
use lazaret_kernel::{fds, load, process};
use std::fs::File;
use std::io::Read as _;
use std::process::Command;
use std::sync::Barrier;

/// Set for the child only: what it is to do.
const CHILD: &str = "LAZARET_KERNEL_TEST_CHILD";

/// A call that nothing in the child makes by itself.
const ASKED: i64 = libc::SYS_getppid;

fn main() {
    match std::env::var(CHILD).as_deref() {
        Ok("takes") => take(),
        Ok("late") => {
            let thread = std::thread::spawn(std::thread::park);
            println!("{}", outcome());
            thread.thread().unpark();
        }
        Ok("confines") => confine(),
        Ok("diverges") => diverge(),
        Ok("closes") => close(),
        Ok(role) => panic!("no such role: {role}"),
        Err(_) => {
            descriptors_are_taken_once_with_their_names();
            descriptors_that_were_not_passed_on_are_refused();
            a_process_confines_all_of_its_threads_or_none();
            what_was_inherited_is_closed_and_nothing_else();
            println!("test result: ok. 4 passed");
        }
    }
}

/// Runs `script` in a shell that ends in this program's child, and returns what that says.
fn said(role: &str, script: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(std::env::current_exe().expect("own path"))
        .env(CHILD, role)
        .output()
        .expect("sh runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.is_empty(), "{output:?}");
    text.trim_end_matches('\n').to_owned()
}

/// What was passed on, with the contents of each file.
fn outcome() -> String {
    match fds::inherited() {
        Ok(all) => all
            .into_iter()
            .map(|it| {
                let flags = rustix::io::fcntl_getfd(&it.fd).expect("open");
                assert_eq!(flags, rustix::io::FdFlags::CLOEXEC);
                let mut text = String::new();
                File::from(it.fd)
                    .read_to_string(&mut text)
                    .expect("readable");
                format!("{}={} ", it.name, text.trim())
            })
            .collect(),
        Err(error) => error.to_string(),
    }
}

fn take() {
    if std::env::var_os("OPEN").is_some() {
        // as a program that opens its own files first: its first free number is 3
        std::mem::forget(File::open("/dev/null").expect("opened"));
    }
    println!("{}", outcome());
    for name in ["LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID"] {
        if std::env::var_os(name).is_some() {
            println!("left {name}");
        }
    }
    println!("then {}", outcome());
}

const PASS: &str = "exec 3<<A 4<<B\none\nA\ntwo\nB\n";

fn descriptors_are_taken_once_with_their_names() {
    let script =
        format!("{PASS}LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=first:second exec \"$@\"");
    assert_eq!(said("takes", &script), "first=one second=two \nthen ");
    // for another process
    let script = format!("{PASS}LISTEN_PID=1 LISTEN_FDS=2 exec \"$@\"");
    let other = said("takes", &script);
    assert_eq!(other, "\nleft LISTEN_FDS\nleft LISTEN_PID\nthen ");
}

fn descriptors_that_were_not_passed_on_are_refused() {
    let script = format!("{PASS}LISTEN_PID=$$ LISTEN_FDS=3 exec \"$@\"");
    let refused = said("takes", &script);
    assert!(
        refused.starts_with("descriptor 5 of `LISTEN_FDS` cannot be used"),
        "{refused}"
    );
    let script = "OPEN=1 LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";
    let refused = said("takes", script);
    assert!(
        refused.starts_with("descriptor 3 of `LISTEN_FDS` was not inherited"),
        "{refused}"
    );
    let script = format!("{PASS}LISTEN_PID=$$ LISTEN_FDS=2 exec \"$@\"");
    let late = "2 threads run already, descriptors must be taken before the first";
    assert_eq!(said("late", &script), late);
}

fn close() {
    let mut own = File::open("/proc/self/comm").expect("opened");
    fds::close_inherited().expect("closed");
    let mut text = String::new();
    own.read_to_string(&mut text).expect("still open");
    for fd in 0..6 {
        let there = std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok();
        print!("{}", u8::from(there));
    }
    println!();
}

fn what_was_inherited_is_closed_and_nothing_else() {
    // 3 and 4 are passed on, 5 is the first that is free
    assert_eq!(said("closes", &format!("{PASS}exec \"$@\"")), "111001");
}

/// Fails [`ASKED`] with `EPERM` and allows everything else.
fn denying() -> Program {
    let ret = |verdict: Verdict| Instruction::statement(code::RET_K, verdict.to_raw());
    let nr = u32::try_from(ASKED).expect("a small number");
    Program::new(vec![
        Instruction::statement(code::LD_W_ABS, 0), // seccomp_data.nr
        Instruction::jump(code::JEQ_K, nr, 0, 1),
        ret(Verdict::Errno(libc::EPERM as u16)),
        ret(Verdict::Allow),
    ])
    .expect("a valid filter")
}

fn ask() -> i64 {
    // JUSTIFICATION: std has no wrapper that always makes the call.
    // SAFETY: getppid takes nothing and touches no memory.
    unsafe { libc::syscall(ASKED) }
}

fn no_new_privs() -> bool {
    rustix::thread::no_new_privs().expect("told")
}

fn confine() {
    let confined = Barrier::new(3);
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    confined.wait();
                    (ask(), no_new_privs())
                })
            })
            .collect();
        assert!(ask() > 0);
        let root = rustix::process::geteuid().is_root();
        if root {
            load::confine_self(&denying()).expect("root needs nothing else");
        } else {
            load::set_no_new_privs().expect("set");
            load::confine_self(&denying()).expect("loaded");
        }
        confined.wait();
        for other in others {
            assert_eq!(other.join().expect("ended"), (-1, !root));
        }
        assert_eq!((ask(), no_new_privs()), (-1, !root));
    });
    // asked for, it spreads with the next filter
    let set = Barrier::new(2);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            set.wait();
            no_new_privs()
        });
        load::set_no_new_privs().expect("set");
        load::confine_self(&denying()).expect("loaded");
        set.wait();
        assert!(other.join().expect("ended"));
    });
    println!("confined");
}

fn diverge() {
    let (ready, over) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        let odd = scope.spawn(|| {
            load::set_no_new_privs().expect("set");
            let harmless = Program::new(vec![Instruction::statement(
                code::RET_K,
                Verdict::Allow.to_raw(),
            )]);
            load::load(&harmless.expect("valid")).expect("loaded");
            ready.wait();
            over.wait();
            let tid = rustix::thread::gettid().as_raw_nonzero().get();
            (tid.cast_unsigned(), ask())
        });
        ready.wait();
        load::set_no_new_privs().expect("set");
        let error = load::confine_self(&denying()).expect_err("its filters differ");
        over.wait();
        let (odd, its) = odd.join().expect("ended");
        assert!(
            matches!(error, LoadError::Diverging { tid } if tid == odd),
            "{error}"
        );
        // nothing was loaded anywhere
        assert!(its > 0 && ask() > 0);
        let status = process::status(std::process::id()).expect("own");
        assert_eq!(status.seccomp, process::Seccomp::Disabled);
    });
    println!("diverged");
}

fn a_process_confines_all_of_its_threads_or_none() {
    assert_eq!(said("confines", "exec \"$@\""), "confined");
    assert_eq!(said("diverges", "exec \"$@\""), "diverged");
}
