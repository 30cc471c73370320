//! A workload and the pipes to it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use lazaret_probe::PidNamespace;

use crate::workload;

pub(crate) struct Container {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// Process 1 in the host's numbering; the child itself for a workload that runs outside.
    pub(crate) pid: u32,
    pub(crate) namespace: PidNamespace,
}

impl Container {
    /// Runs the script as process 1 of a new pid namespace, up to its first `say`.
    pub(crate) fn start(script: &str) -> Container {
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        let mut container = Self::spawn(workload::command(unshare, script));
        container.hear();
        container.pid = child_of(container.child.id());
        container.namespace = PidNamespace::of_pid(container.pid).unwrap();
        container
    }

    /// Runs the script in the test's own pid namespace; it enters others by itself.
    pub(crate) fn outside(script: &str) -> Container {
        Self::spawn(workload::command(Command::new("env"), script))
    }

    fn spawn(mut command: Command) -> Container {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Container {
            stdin: child.stdin.take().unwrap(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            pid: child.id(),
            namespace: PidNamespace::of_pid(child.id()).unwrap(),
            child,
        }
    }

    /// Hears the script's next `say`, and takes the namespace of the workload's child for the container's.
    pub(crate) fn adopt_grandchild(&mut self) {
        self.hear();
        self.pid = child_of(self.child.id());
        self.namespace = PidNamespace::of_pid(self.pid).unwrap();
    }

    /// Reads up to the script's next `say`.
    pub(crate) fn hear(&mut self) {
        let mut line = String::new();
        while line.trim_end() != workload::SAID {
            line.clear();
            assert_ne!(
                self.stdout.read_line(&mut line).unwrap(),
                0,
                "the workload ended early"
            );
        }
    }

    /// Lets the script's `wait` end.
    fn go_on(&mut self) {
        self.stdin.write_all(b"\n").unwrap();
    }

    /// From one `say;wait` to the next.
    pub(crate) fn step(&mut self) {
        self.go_on();
        self.hear();
    }

    /// Lets the last `wait` end, and waits for the end. The namespace stays held.
    pub(crate) fn end(mut self) -> PidNamespace {
        self.go_on();
        self.wait();
        self.namespace
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

/// The one child of a process.
fn child_of(pid: u32) -> u32 {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .find(|candidate: &u32| {
            // the parent is the second field after the name, which may hold anything but ends with the last `)`
            fs::read_to_string(format!("/proc/{candidate}/stat"))
                .ok()
                .and_then(|stat| stat.rsplit_once(')')?.1.split(' ').nth(2)?.parse().ok())
                == Some(pid)
        })
        .unwrap_or_else(|| panic!("process {pid} has no child"))
}
