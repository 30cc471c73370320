//! Children for the tests: this program again, as its test `child`, in a pid namespace of its own.
//!
//! Nothing but these is ever traced, stopped or confined by a test.

use lazaret_core::filter::program::{Instruction, Program, code};
use lazaret_core::filter::rule::Verdict;
use lazaret_kernel::{process, tasks};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Set for the child only: what it is to do.
pub(crate) const CHILD: &str = "LAZARET_KERNEL_TEST_CHILD";

/// A call that nothing in the child makes by itself.
pub(crate) const ASKED: i64 = libc::SYS_getppid;

/// A filter that gives one verdict for [`ASKED`] and allows everything else.
pub(crate) fn program(asked: Verdict, marker: u32) -> Program {
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

/// A child in its own pid namespace, and the `unshare` that holds it.
pub(crate) struct Confined {
    pub(crate) unshare: Child,
    pub(crate) stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// The child in this program's numbering.
    pub(crate) pid: u32,
    /// Its thread that has the filter.
    pub(crate) tid: u32,
    /// The listener's number in the child, −1 without.
    pub(crate) fd: i32,
}

impl Confined {
    pub(crate) fn start(role: &str, unshare: &[&str]) -> Confined {
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
        confined.tid = thread_named(confined.pid, inner_tid.parse().expect("a number"));
        confined
    }

    pub(crate) fn in_pid_namespace(role: &str) -> Confined {
        Confined::start(role, &["--pid", "--fork", "--kill-child"])
    }

    /// The next line that the child means for us.
    pub(crate) fn hear(&mut self) -> String {
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

    pub(crate) fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("not closed yet");
        // in one write: the child may end after the first byte
        let written = stdin.write_all(format!("{line}\n").as_bytes());
        written.expect("child reads");
    }

    /// Neither stopped (`t`, `T`) nor traced.
    pub(crate) fn runs_free(&self) -> bool {
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

/// The thread of the pid namespace of `pid` whose id there is `inner`.
pub(crate) fn thread_named(pid: u32, inner: u32) -> u32 {
    let namespace = process::pid_namespace(pid).expect("there");
    let inside = |pid: &u32| process::pid_namespace(*pid).is_ok_and(|its| its == namespace);
    let processes = tasks::processes().expect("/proc");
    let threads = processes
        .into_iter()
        .filter(inside)
        .flat_map(|pid| tasks::threads(pid).unwrap_or_default());
    let mut found = threads
        .filter(|&tid| process::status(tid).is_ok_and(|status| status.ids.last() == Some(&inner)));
    found.next().expect("thread")
}

pub(crate) fn skipped() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIP: not root, no pid namespace can be made");
    }
    !root
}
