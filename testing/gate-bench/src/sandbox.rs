//! Cheap containers: process 1 of a pid namespace of its own, under a real filter, with a pipe to talk to it. No engine.
//!
//! A container is this program again. It loads the filter, says the listener's number and waits, as a runtime's last stage
//! does; then it executes the program of [`crate::inside`]. Memory of these processes is not what is measured.

use crate::inside::{self, Flood, Latencies};
use anyhow::{Context, bail, ensure};
use lazaret_core::filter::program::Program;
use lazaret_kernel::{load, pidfd};
use rustix::thread::UnshareFlags;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// What a new process waits for before its `execve`.
const GO: &[u8; 3] = b"go\n";

/// The runtime's last stage, in the container: loads the filter in this file, hands out its listener, executes.
///
/// # Errors
/// When a step fails; the `execve` fails when the gate refuses it.
pub(crate) fn enter(filter: &Path) -> anyhow::Result<()> {
    let program = Program::from_bytes(&std::fs::read(filter)?)?;
    let listener = load::load_with_listener(&program)?;
    inside::say(&listener.as_raw_fd().to_string())?;
    let mut go = [0; GO.len()];
    // unbuffered: what follows is for the next program
    File::from(std::io::stdin().as_fd().try_clone_to_owned()?).read_exact(&mut go)?;
    let error = Command::new("/proc/self/exe")
        .arg("inside")
        .env_clear()
        .exec();
    bail!("execve: {error}")
}

/// A container that was made here. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// The engine's id.
    pub(crate) id: String,
    /// In this program's numbering.
    pub(crate) pid: u32,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Sandbox {
    /// Makes one; it waits before its `execve`. Also returns its listener.
    ///
    /// # Errors
    /// When a process, its namespace or its filter cannot be made.
    pub(crate) fn create(id: &str, filter: &Path) -> anyhow::Result<(Sandbox, OwnedFd)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("container").arg(filter).env_clear();
        Sandbox::start(id, || in_new_namespace(&mut command))
    }

    /// Puts another process into this one, as `docker exec` does: a sandbox of its own with the same id.
    ///
    /// # Errors
    /// As [`Sandbox::create`].
    pub(crate) fn exec(&self, filter: &Path) -> anyhow::Result<(Sandbox, OwnedFd)> {
        let namespace = File::open(format!("/proc/{}/ns/pid", self.pid))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("container").arg(filter).env_clear();
        Sandbox::start(&self.id, || {
            on_own_thread(|| {
                let kind = rustix::thread::LinkNameSpaceType::ProcessID;
                rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind))?;
                piped(&mut command)
            })
        })
    }

    fn start(
        id: &str,
        spawn: impl FnOnce() -> anyhow::Result<Child>,
    ) -> anyhow::Result<(Sandbox, OwnedFd)> {
        let mut child = spawn()?;
        let stdin = child.stdin.take().context("no standard input")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut sandbox = Sandbox {
            id: id.to_owned(),
            pid: child.id(),
            child,
            stdin,
            stdout: BufReader::with_capacity(512, stdout),
        };
        let number = sandbox.hear()?.parse().context("no descriptor")?;
        let listener = pidfd::take(sandbox.pid, number)?;
        Ok((sandbox, listener))
    }

    /// Lets it go on to its `execve`. Does not wait.
    pub(crate) fn go(&mut self) -> anyhow::Result<()> {
        self.stdin.write_all(GO).context("the container is gone")
    }

    /// Waits until its own program runs.
    ///
    /// # Errors
    /// When it was refused.
    pub(crate) fn wait_ready(&mut self) -> anyhow::Result<()> {
        let said = self.hear()?;
        ensure!(said == inside::READY, "container {} says {said}", self.id);
        Ok(())
    }

    /// Makes so many asked calls on each of so many threads.
    pub(crate) fn asked(&mut self, threads: usize, calls: usize) -> anyhow::Result<Latencies> {
        self.tell(&format!("asked {threads} {calls}"))
    }

    /// Makes so many calls on each of so many threads, all of which the gate denies.
    pub(crate) fn denied(&mut self, threads: usize, calls: u64) -> anyhow::Result<Flood> {
        self.tell(&format!("denied {threads} {calls}"))
    }

    /// The same calls, which a bare supervisor lets go on.
    pub(crate) fn undenied(&mut self, threads: usize, calls: u64) -> anyhow::Result<Flood> {
        self.tell(&format!("undenied {threads} {calls}"))
    }

    fn tell<T: DeserializeOwned>(&mut self, order: &str) -> anyhow::Result<T> {
        writeln!(self.stdin, "{order}").context("the container is gone")?;
        let said = self.hear()?;
        serde_json::from_str(&said).with_context(|| format!("container {} says {said}", self.id))
    }

    fn hear(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let read = self.stdout.read_line(&mut line)?;
        ensure!(read > 0, "container {} ended", self.id);
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // it may have ended already
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn piped(command: &mut Command) -> anyhow::Result<Child> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().context("cannot start a process")
}

/// Starts a command as process 1 of a new pid namespace.
#[expect(
    deprecated,
    reason = "the replacement is an unsafe function because of UnshareFlags::FILES; a pid namespace for children shares nothing \
              that safe code relies on"
)]
fn in_new_namespace(command: &mut Command) -> anyhow::Result<Child> {
    on_own_thread(|| {
        // for the children of this thread only (pid_namespaces(7))
        rustix::thread::unshare(UnshareFlags::NEWPID).context("cannot make a pid namespace")?;
        piped(command)
    })
}

/// A thread's namespaces end with it, so this one's stay as they are.
fn on_own_thread<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let said = scope.spawn(work).join();
        said.unwrap_or_else(|_| bail!("a thread panicked"))
    })
}
