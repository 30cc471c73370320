//! Processes named so that a recycled pid is never mistaken for the one that was meant.
//!
//! A process is a pid together with the time it started (field 22 of `/proc/PID/stat`, in clock ticks since boot,
//! proc(5)). Signals go through a pidfd that was opened *before* the start time was compared, so the process that was
//! compared is the process that is signalled (pidfd_open(2)). It does not start processes.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// Which process: its pid and when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id in the pid namespace of xtask.
    pub pid: u32,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
}

impl ProcessId {
    /// The process that has this pid now; `None` when there is none.
    pub fn of(pid: u32) -> Option<Self> {
        let start_ticks = Stat::read(pid)?.field(22)?;
        Some(Self { pid, start_ticks })
    }

    /// This process.
    pub fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// Whether exactly this process still exists. A zombie counts as gone: it does nothing any more.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid) == Some(*self) && !is_zombie(self.pid)
    }

    /// Opens it for signals; `None` when it is gone.
    pub fn open(&self) -> Option<Process> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        let fd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        (Self::of(self.pid) == Some(*self)).then_some(Process { fd })
    }
}

/// A process that cannot be mixed up any more.
#[derive(Debug)]
pub struct Process {
    fd: OwnedFd,
}

impl Process {
    /// Asks it to end (SIGTERM). A process that is gone already is no error.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends it (SIGKILL). A process that is gone already is no error.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // The only failures for root and a valid pidfd are ESRCH (gone, which is what is wanted) and EINVAL (no such
        // signal); pidfd_send_signal(2).
        pidfd_send_signal(&self.fd, signal).ok();
    }

    /// Waits until it has ended, at most `limit`; whether it has.
    pub fn wait_gone(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
            let timeout = Timespec::try_from(left).ok();
            match poll(&mut fds, timeout.as_ref()) {
                Ok(1..) => return true,
                Ok(0) => return false,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

fn is_zombie(pid: u32) -> bool {
    Stat::read(pid)
        .and_then(|stat| stat.field(3))
        .is_none_or(|state: char| state == 'Z' || state == 'X')
}

/// Whether a filesystem with this source is mounted in the process's mount namespace.
pub fn sees_mount(pid: u32, source: &str) -> bool {
    // proc(5), mountinfo: after the separator come type and source.
    fs::read_to_string(format!("/proc/{pid}/mountinfo")).is_ok_and(|text| {
        text.lines()
            .filter_map(|line| line.split_once(" - ")?.1.split(' ').nth(1))
            .any(|found| found == source)
    })
}

/// The living processes in mount namespaces with a filesystem of this source, and those that share a network namespace
/// with one of them. xtask itself is never among them.
///
/// A namespace's inode number may be used again when it has gone, so it is only taken from a process that was seen to be in
/// the right mount namespace, and is used while that process is held.
pub fn in_namespaces_of(mount_source: &str) -> Vec<ProcessId> {
    let own_network = network(std::process::id());
    let marked: Vec<ProcessId> = others()
        .filter(|id| sees_mount(id.pid, mount_source))
        .filter(ProcessId::is_alive)
        .collect();
    let networks: Vec<PathBuf> = marked
        .iter()
        .filter_map(|id| network(id.pid))
        .filter(|found| Some(found) != own_network.as_ref())
        .collect();
    others()
        .filter(|id| {
            marked.contains(id) || network(id.pid).is_some_and(|found| networks.contains(&found))
        })
        .filter(ProcessId::is_alive)
        .collect()
}

fn network(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/net")).ok()
}

fn others() -> impl Iterator<Item = ProcessId> {
    every_pid()
        .filter(|pid| *pid != std::process::id())
        .filter_map(ProcessId::of)
}

/// Every living process that was started by xtask, or by one that was.
pub fn descendants() -> Vec<ProcessId> {
    // Parent and start time come from one read: a pid that is used again meanwhile does not become ours.
    let all: Vec<(ProcessId, u32)> = every_pid()
        .filter_map(|pid| {
            let stat = Stat::read(pid)?;
            Some((
                ProcessId {
                    pid,
                    start_ticks: stat.field(22)?,
                },
                stat.field(4)?,
            ))
        })
        .collect();
    let mut found: Vec<ProcessId> = Vec::new();
    let mut parents = vec![std::process::id()];
    while let Some(parent) = parents.pop() {
        let children = all
            .iter()
            .filter(|(_, of)| *of == parent)
            .map(|(id, _)| *id);
        parents.extend(children.clone().map(|id| id.pid));
        found.extend(children);
    }
    found.retain(ProcessId::is_alive);
    found
}

/// `/proc/PID/stat`, read once.
struct Stat(String);

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        fs::read_to_string(format!("/proc/{pid}/stat"))
            .ok()
            .map(Self)
    }

    /// A field after the second, numbered as in proc(5). The name in field 2 may hold anything, brackets and spaces too:
    /// counted from the last `)`, which ends it.
    fn field<T: std::str::FromStr>(&self, number: usize) -> Option<T> {
        let after_name = self.0.get(self.0.rfind(')')? + 1..)?;
        after_name
            .split_ascii_whitespace()
            .nth(number.checked_sub(3)?)?
            .parse()
            .ok()
    }
}

fn every_pid() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_recycled_pid_is_not_the_same_process() {
        let own = ProcessId::own().expect("the test runs");
        assert!(own.is_alive());
        let other = ProcessId {
            start_ticks: own.start_ticks + 1,
            ..own
        };
        assert!(!other.is_alive());
        assert!(other.open().is_none());
    }

    #[test]
    fn a_killed_child_is_seen_to_end() {
        let mut child = Command::new("sleep")
            .arg("600")
            .spawn()
            .expect("sleep is in coreutils");
        let id = ProcessId::of(child.id()).expect("just started");
        let process = id.open().expect("just started");
        assert!(!process.wait_gone(Duration::ZERO));
        process.kill();
        assert!(process.wait_gone(Duration::from_secs(10)));
        child.wait().expect("it is our child");
        assert!(!id.is_alive());
        assert!(id.open().is_none());
    }

    #[test]
    fn children_of_children_are_descendants() {
        let script = "sleep 600 & wait";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .spawn()
            .expect("there is a shell");
        let end = Instant::now() + Duration::from_secs(10);
        let found = loop {
            let found: Vec<ProcessId> = descendants()
                .into_iter()
                .filter(|id| {
                    id.pid == child.id()
                        || Stat::read(id.pid).and_then(|stat| stat.field(4)) == Some(child.id())
                })
                .collect();
            if found.len() == 2 {
                break found;
            }
            assert!(
                Instant::now() < end,
                "the shell does not start its child: {found:?}"
            );
        };
        found
            .iter()
            .filter_map(ProcessId::open)
            .for_each(|p| p.kill());
        child.wait().expect("it is our child");
    }

    #[test]
    fn mounts_are_told_by_their_source() {
        let own = std::process::id();
        assert!(sees_mount(own, "proc"));
        assert!(!sees_mount(own, "lazaret-no-such-source"));
        assert!(in_namespaces_of("lazaret-no-such-source").is_empty());
    }
}
