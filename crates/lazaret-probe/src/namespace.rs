//! Pid namespaces by their inode number, held so that the number stays theirs.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use lazaret_core::phase::Phase;

use crate::error::NamespaceError;

/// `PROC_PID_INIT_INO`, `include/linux/proc_ns.h`; since Linux 6.18 in `include/uapi/linux/nsfs.h`.
const INITIAL: u64 = 0xEFFF_FFFC;

/// A pid namespace.
///
/// The kernel gives a dead namespace's inode number to the next one at once. As long as this value lives, the namespace is
/// held by an open file, and the number is its own even when all its processes are gone: take it while the container runs
/// and keep it until the recording is read.
#[derive(Debug)]
pub struct PidNamespace {
    inum: u32,
    _held: File,
}

impl PidNamespace {
    /// The namespace that the process is in.
    ///
    /// # Errors
    /// When `/proc/PID/ns/pid` cannot be opened: no such process, or not allowed to look at it.
    pub fn of_pid(pid: u32) -> Result<PidNamespace, NamespaceError> {
        Self::open(&format!("/proc/{pid}/ns/pid"))
    }

    /// The namespace of the calling process.
    pub(crate) fn own() -> Result<PidNamespace, NamespaceError> {
        Self::open("/proc/self/ns/pid")
    }

    fn open(path: &str) -> Result<PidNamespace, NamespaceError> {
        let failed = |source: io::Error| NamespaceError {
            path: path.to_owned(),
            source,
        };
        let held = File::open(path).map_err(failed)?;
        let ino = held.metadata().map_err(failed)?.ino();
        // `struct ns_common`, include/linux/ns_common.h: an unsigned int
        let inum = u32::try_from(ino).map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
        Ok(PidNamespace { inum, _held: held })
    }

    /// The inode number, as `readlink /proc/PID/ns/pid` shows it.
    #[must_use]
    pub fn inum(&self) -> u32 {
        self.inum
    }

    /// Whether it is the one the system started with.
    pub(crate) fn is_initial(&self) -> bool {
        u64::from(self.inum) == INITIAL
    }
}

/// A namespace that the probe has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its inode number; another namespace may have it by now.
    pub inum: u32,
    /// The phase of its native processes.
    pub phase: Phase,
    /// Its process 1 was seen being forked, so nothing of it is missing.
    pub from_start: bool,
}
