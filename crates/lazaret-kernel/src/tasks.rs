//! Which threads there are: of a process, of a pid namespace, and in which cgroups.
//!
//! Lists are of one moment: threads end and begin while they are made. Nothing is touched.

use crate::process::{self, NamespaceId, ProcessError};
use crate::returned::check;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;

/// Pid namespaces inside each other at most (`MAX_PID_NS_LEVEL`, include/linux/pid_namespace.h).
const MAX_LEVELS: u32 = 32;

/// A list was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TasksError {
    /// `/proc` does not answer.
    #[error("cannot list {path}")]
    List {
        /// The folder.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Every process of this pid namespace and those below it, by number.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn processes() -> Result<BTreeSet<u32>, TasksError> {
    numbers("/proc")
}

/// The threads of a process, by number; the first one (whose number is the process's) may have ended before the others.
///
/// # Errors
/// When the process is gone.
pub fn threads(pid: u32) -> Result<BTreeSet<u32>, TasksError> {
    numbers(&format!("/proc/{pid}/task"))
}

fn numbers(path: &str) -> Result<BTreeSet<u32>, TasksError> {
    let failed = |source| TasksError::List {
        path: path.to_owned(),
        source,
    };
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        // the others are no tasks
        found.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(found)
}

/// Whether a process is in this pid namespace or in one below it.
///
/// # Errors
/// When the process is gone or may not be inspected.
pub fn is_within(pid: u32, namespace: NamespaceId) -> Result<bool, ProcessError> {
    Ok(enclosing(pid, &BTreeSet::from([namespace]))?.is_some())
}

/// The innermost of these pid namespaces that a process is in, or is in one below of.
///
/// # Errors
/// When the process is gone or may not be inspected.
pub(crate) fn enclosing(
    pid: u32,
    namespaces: &BTreeSet<NamespaceId>,
) -> Result<Option<NamespaceId>, ProcessError> {
    let failed = |source| process::failed(pid, "ns/pid")(source);
    let own = process::own_pid_namespace()?;
    let mut file = File::open(format!("/proc/{pid}/ns/pid")).map_err(failed)?;
    for _ in 0..MAX_LEVELS {
        let here = NamespaceId(file.metadata().map_err(failed)?.ino());
        if namespaces.contains(&here) {
            return Ok(Some(here));
        }
        // nothing above our own can be below another one that we see
        if here == own {
            return Ok(None);
        }
        file = parent(&file).map_err(failed)?;
    }
    Ok(None)
}

/// The pid namespace above this one.
fn parent(namespace: &File) -> io::Result<File> {
    /// `_IO(NSIO, 0x2)` (`include/uapi/linux/nsfs.h`, ioctl_ns(2)); libc has it for few targets.
    const NS_GET_PARENT: libc::Ioctl = 0xb702;
    // JUSTIFICATION: rustix does not wrap ioctl_ns(2).
    // SAFETY: the request takes no argument and touches no memory of ours.
    let returned = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_PARENT) };
    let fd = check(returned.into())?;
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the request returns a new descriptor (close-on-exec) that nothing else in this process knows.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// The names of every cgroup that a process is in, and of those around them, in any hierarchy.
///
/// Asks a thread that has not ended: the kernel says `/`, the whole machine, for one that has (`cgroup_task_dead`, kernel/cgroup/cgroup.c).
/// Nothing for the root cgroup: it names nobody.
///
/// # Errors
/// When the process is gone.
pub fn cgroups(pid: u32) -> Result<BTreeSet<String>, ProcessError> {
    let threads = threads(pid).unwrap_or_default();
    let mut last = ProcessError::Malformed {
        pid,
        file: "cgroup",
    };
    for tid in threads {
        let content = match process::read(tid, "cgroup") {
            Ok(content) => content,
            Err(error) => {
                last = error;
                continue;
            }
        };
        // afterwards: if it had not ended now, it had not when it was asked
        match process::status(tid) {
            Ok(status) if !status.is_over() => return Ok(names(&content)),
            Ok(_) => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn names(content: &[u8]) -> BTreeSet<String> {
    String::from_utf8_lossy(content)
        .lines()
        // hierarchy, controllers, path (cgroups(7)); a path may hold colons
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .flat_map(|path| path.split('/'))
        // `..`: outside of our cgroup namespace
        .filter(|name| !name.is_empty() && *name != "..")
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_threads_and_processes_are_listed() {
        let pid = std::process::id();
        assert!(processes().is_ok_and(|all| all.contains(&pid)));
        let threads = threads(pid).expect("own threads");
        assert!(threads.contains(&pid));
        assert!(threads.len() > 1, "the test runs on a thread of its own");
        let own = process::own_pid_namespace().expect("own namespace");
        assert_eq!(is_within(pid, own).ok(), Some(true));
        assert_eq!(is_within(pid, NamespaceId(1)).ok(), Some(false));
        assert!(super::threads(1 << 23).is_err());
    }

    #[test]
    fn cgroups_are_names_not_paths() {
        let content = b"5:memory:/docker/abc\n1:name=systemd:/../a.slice/x:y-abc.scope\n0::/\n";
        let expected = ["a.slice", "abc", "docker", "x:y-abc.scope"];
        assert_eq!(names(content), expected.map(str::to_owned).into());
        assert!(names(b"3:cpu:/\n0::/\n").is_empty());
        assert!(names(b"").is_empty());
    }
}
