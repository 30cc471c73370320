//! A container for tests, or a process put into one: a shell in a pid namespace of its own, under a filter.
//!
//! What it says is waited for with a limit, so that a container that hangs is a failure and not a test that never ends.

use crate::node::{FILTER, Ours, PATIENCE};
use lazaret_core::filter::program::Program;
use lazaret_kernel::pidfd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A container, or a process put into one.
pub(crate) struct Sandbox {
    pub(crate) id: String,
    /// In the host's numbering.
    pub(crate) pid: u32,
    pub(crate) outer: Ours,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    stderr: Option<ChildStderr>,
    pub(crate) listener: OwnedFd,
}

impl Sandbox {
    pub(crate) fn start(folder: &Path, id: &str, enter: &[&str], program: &Program) -> Sandbox {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let filter = folder.join(format!("filter{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::write(&filter, program.to_bytes()).expect("filter");
        let (first, rest) = enter.split_first().expect("a command");
        let mut outer = Command::new(first)
            .args(rest)
            .arg(std::env::current_exe().expect("own path"))
            .args(["--exact", "container", "--nocapture", "--test-threads=1"])
            .env(FILTER, &filter)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map(Ours)
            .expect("started");
        let stdin = outer.0.stdin.take();
        let stderr = outer.0.stderr.take();
        let mut stdout = BufReader::new(outer.0.stdout.take().expect("piped"));
        let fd = hear(&mut stdout).parse().expect("a number");
        let parent = outer.0.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let pid = children
            .expect("children")
            .trim()
            .parse()
            .expect("one child");
        Sandbox {
            id: id.to_owned(),
            pid,
            outer,
            stdin,
            stdout,
            stderr,
            listener: pidfd::take(pid, fd).expect("listener"),
        }
    }

    /// Lets go of the listener, as a runtime does, and lets the process go on to its first `execve`.
    pub(crate) fn go(&mut self) {
        self.listener = fs::File::open("/dev/null").expect("there").into();
        self.send("go\n");
    }

    /// Lets its shell do this.
    pub(crate) fn send(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("open");
        match stdin.write_all(text.as_bytes()) {
            // that it has ended is seen by who hears nothing
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            other => other.expect("it reads"),
        }
    }

    /// The answer to a `chdir` that has begun; none when the container has ended, or has said why it does not start.
    pub(crate) fn chdir_outcome(&mut self) -> Option<bool> {
        match heard(&mut self.stdout)?.as_str() {
            "yes" => Some(true),
            "no" => Some(false),
            other => {
                assert!(other.starts_with("exec: "), "{other}");
                None
            }
        }
    }

    /// Whether it still runs its shell.
    pub(crate) fn still_answers(&mut self) -> bool {
        self.send("echo @written\n");
        heard(&mut self.stdout).is_some_and(|said| said == "written")
    }

    /// What the container says next.
    pub(crate) fn hear(&mut self) -> String {
        hear(&mut self.stdout)
    }

    /// Lets the shell change its folder: `chdir`. Returns whether it could.
    pub(crate) fn try_chdir(&mut self) -> bool {
        self.begin_chdir();
        self.ended_chdir()
    }

    /// Lets it begin to.
    pub(crate) fn begin_chdir(&mut self) {
        self.send("cd /tmp && echo @yes || echo @no\n");
    }

    /// Whether it could, once it knows.
    pub(crate) fn ended_chdir(&mut self) -> bool {
        self.hear() == "yes"
    }

    /// Lets the shell do something that only allowed calls are needed for.
    pub(crate) fn try_write(&mut self) -> bool {
        self.send("echo @written\n");
        self.hear() == "written"
    }

    /// Ends the shell, and returns everything that the container wrote on its standard error.
    pub(crate) fn end(mut self) -> String {
        drop(self.stdin.take());
        let mut text = String::new();
        let mut stderr = self.stderr.take().expect("piped");
        stderr.read_to_string(&mut text).expect("text");
        // its descriptors close before it is gone
        self.outer.0.wait().expect("ended");
        text
    }
}

/// What it says next, after an `@`.
pub(crate) fn hear(from: &mut BufReader<ChildStdout>) -> String {
    heard(from).expect("the container is gone")
}

/// The same; none when it has ended.
fn heard(from: &mut BufReader<ChildStdout>) -> Option<String> {
    let limit = Timespec {
        tv_sec: PATIENCE.as_secs().cast_signed(), // 30
        tv_nsec: 0,
    };
    loop {
        if !from.buffer().contains(&b'\n') {
            let mut fds = [PollFd::new(from.get_ref(), PollFlags::IN)];
            let ready = poll(&mut fds, Some(&limit)).expect("poll");
            assert!(ready > 0, "the container hangs");
        }
        let mut line = String::new();
        if from.read_line(&mut line).expect("a line") == 0 {
            return None;
        }
        if let Some(said) = line.trim().strip_prefix('@') {
            return Some(said.to_owned());
        }
    }
}
