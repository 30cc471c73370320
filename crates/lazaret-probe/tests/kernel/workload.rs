//! What runs inside: a script of raw system calls.
//!
//! Steps are separated by `;`, and a `|` ends them: what follows is the script of the program that is executed then.
//!
//! | step | does |
//! | --- | --- |
//! | `say` | writes a line to standard output |
//! | `wait` | reads a line from standard input |
//! | `call NR TIMES [ARG…]` | a native call |
//! | `int80 NR TIMES [ARG [ARG]]` | an i386 call |
//! | `each NR N` | a native call N times, with first arguments `0xff00 + 0 … N-1` |
//! | `spawn N STEP` | N children that run the rest at once, and waits for them |
//! | `orphan TIMES` | a grandchild that waits until process 1 is its parent and then calls getpgrp; waits for it |
//! | `forks N` | N children one after the other that call getpgrp once |
//! | `thread TIMES` | waits for a thread that does nothing, then calls getpgrp |
//! | `exec` | executes this program with the next script, from a thread that is not the leader |
//! | `new A B C` | in a process 1 of a new namespace: see [`enter`] |
//! | `join PID A B C` | in a process in PID's namespace: see [`enter`] |

use std::env;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::GETPGRP;

/// What `say` writes.
pub(crate) const SAID: &str = "workload: said";
const SCRIPT: &str = "LAZARET_PROBE_WORKLOAD";
const ARGS: [&str; 3] = ["workload", "--exact", "--nocapture"];

/// `command` followed by this program with the script.
pub(crate) fn command(mut command: Command, script: &str) -> Command {
    command
        .arg(env::current_exe().unwrap())
        .args(ARGS)
        .env(SCRIPT, script);
    command
}

pub(crate) fn run_if_asked() {
    if let Ok(script) = env::var(SCRIPT) {
        let (steps, next) = match script.split_once('|') {
            Some((steps, next)) => (steps, Some(next)),
            None => (&script[..], None),
        };
        for step in steps.split(';') {
            run(step, next);
        }
    }
}

fn number(word: &str) -> u64 {
    match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
        None => word.parse().unwrap(),
    }
}

fn run(step: &str, next: Option<&str>) {
    let words: Vec<&str> = step.split_whitespace().collect();
    let mut args = [0; 6];
    match words[..] {
        ["say"] => {
            let mut stdout = std::io::stdout();
            writeln!(stdout, "\n{SAID}").unwrap();
            stdout.flush().unwrap();
        }
        ["wait"] => std::io::stdin().read_exact(&mut [0]).unwrap(),
        ["call", nr, times, ref rest @ ..] => {
            for (arg, word) in args.iter_mut().zip(rest) {
                *arg = number(word);
            }
            call(number(nr) as u32, number(times), args);
        }
        ["int80", nr, times, ref rest @ ..] => {
            for (arg, word) in args.iter_mut().zip(rest) {
                *arg = number(word);
            }
            for _ in 0..number(times) {
                int80(number(nr) as u32, args[0] as u32, args[1] as u32);
            }
        }
        ["each", nr, n] => {
            for value in 0..number(n) {
                call(number(nr) as u32, 1, [0xff00 + value, 0, 0, 0, 0, 0]);
            }
        }
        ["spawn", n, ref rest @ ..] => {
            let children: Vec<_> = (0..number(n))
                .map(|_| {
                    command(Command::new("env"), &rest.join(" "))
                        .spawn()
                        .unwrap()
                })
                .collect();
            for mut child in children {
                assert!(child.wait().unwrap().success());
            }
        }
        ["orphan", times] => orphan(number(times)),
        ["forks", n] => {
            for _ in 0..number(n) {
                wait_for(fork(|| call(GETPGRP, 1, [0; 6])));
            }
        }
        ["thread", times] => {
            std::thread::spawn(|| ()).join().unwrap();
            call(GETPGRP, number(times), [0; 6]);
        }
        ["exec"] => {
            assert_ne!(
                std::process::id() as i32,
                rustix::thread::gettid().as_raw_nonzero().get()
            );
            let error = command(Command::new("env"), next.unwrap()).exec();
            panic!("{error}");
        }
        ["new", before, child, after] => {
            // JUSTIFICATION: std has no wrapper for unshare(2).
            // SAFETY: no pointers; only later children of this thread are concerned.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWPID) }, 0);
            enter([before, child, after].map(number), next.unwrap());
        }
        ["join", pid, before, child, after] => {
            let namespace = File::open(format!("/proc/{pid}/ns/pid")).unwrap();
            // JUSTIFICATION: std has no wrapper for setns(2).
            // SAFETY: no pointers, and the descriptor is open; only later children of this thread are concerned.
            let rc = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWPID) };
            assert_eq!(rc, 0);
            enter([before, child, after].map(number), next.unwrap());
        }
        _ => panic!("unknown step `{step}`"),
    }
}

/// A child that calls getpgrp `before` times, forks one that calls it `child` times and executes true(1), itself fails to
/// execute a program, calls `after` times and executes this program with the next script. Waits for it.
fn enter([before, child, after]: [u64; 3], next: &str) {
    let exe = CString::new(env::current_exe().unwrap().to_str().unwrap()).unwrap();
    let args = ARGS.map(|arg| CString::new(arg).unwrap());
    let script = CString::new(format!("{SCRIPT}={next}")).unwrap();
    let path = CString::new(format!("PATH={}", env::var("PATH").unwrap())).unwrap();
    let missing = c"/nonexistent/program";
    let argv = [
        exe.as_ptr(),
        args[0].as_ptr(),
        args[1].as_ptr(),
        args[2].as_ptr(),
        std::ptr::null(),
    ];
    let envp = [script.as_ptr(), path.as_ptr(), std::ptr::null()];
    let inside = fork(|| {
        call(GETPGRP, before, [0; 6]);
        wait_for(fork(|| {
            call(GETPGRP, child, [0; 6]);
            // JUSTIFICATION and SAFETY: as below.
            unsafe { libc::execve(c"/bin/true".as_ptr(), argv.as_ptr(), envp.as_ptr()) };
        }));
        for program in [missing.as_ptr(), exe.as_ptr()] {
            // JUSTIFICATION: std's exec() allocates, and this is a fork of a program with threads.
            // SAFETY: all three are or hold null-terminated strings that live in the frame below; the arrays end with null.
            unsafe { libc::execve(program, argv.as_ptr(), envp.as_ptr()) };
            if program == missing.as_ptr() {
                call(GETPGRP, after, [0; 6]);
            }
        }
    });
    wait_for(inside);
}

/// Leaves a grandchild behind; it goes on when process 1 is its parent.
fn orphan(times: u64) {
    let (mut finished, writer) = std::io::pipe().unwrap();
    wait_for(fork(|| {
        fork(|| {
            while std::os::unix::process::parent_id() != 1 {
                std::hint::spin_loop();
            }
            call(GETPGRP, times, [0; 6]);
        });
    }));
    drop(writer);
    // ends when the grandchild, the last to hold the other end, is gone
    finished.read_to_end(&mut Vec::new()).unwrap();
}

/// Runs `child` in a forked child, which then leaves. `child` must not allocate: another thread may have held the lock.
fn fork(child: impl FnOnce()) -> libc::pid_t {
    // JUSTIFICATION: std cannot fork without executing a program, and what happens before that is what is tested.
    // SAFETY: the child makes raw system calls only and leaves by _exit(2).
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        child();
        // JUSTIFICATION: exit(3) would run the handlers of a program with threads.
        // SAFETY: always sound.
        unsafe { libc::_exit(0) };
    }
    pid
}

fn wait_for(pid: libc::pid_t) {
    let mut status = -1;
    // JUSTIFICATION: the child is not std's.
    // SAFETY: `status` outlives the call.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0);
}

/// A native call, whatever it returns.
pub(crate) fn call(nr: u32, times: u64, [a, b, c, d, e, f]: [u64; 6]) {
    for _ in 0..times {
        // JUSTIFICATION: the exact number and registers are what is tested.
        // SAFETY: the scripts name only calls that take no pointers.
        unsafe { libc::syscall(libc::c_long::from(nr), a, b, c, d, e, f) };
    }
}

/// A call by the i386 convention.
fn int80(nr: u32, first: u32, second: u32) {
    // JUSTIFICATION: there is no other way to make such a call from 64-bit code.
    // SAFETY: the scripts name only calls that take no pointers. rbx, which the compiler keeps for itself, is given back;
    // the kernel clears r8 to r11 on the way (arch/x86/entry/entry_64_compat.S).
    unsafe {
        std::arch::asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) u64::from(first) => _,
            inout("eax") nr => _,
            in("ecx") second,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
}
