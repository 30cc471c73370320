//! By what right a thread is stopped, and the refusals.
//!
//! Stopping the wrong process can hang a machine, so nothing is stopped without a [`Road`], and a road is checked twice:
//! before the thread is seized and again after, since a seized thread's id cannot be used again.

use super::ReadError;
use crate::process::{self, Identity, NamespaceId};
use std::collections::BTreeSet;

/// By what right a thread may be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Road {
    /// It is in this pid namespace, and this program is not.
    Container(NamespaceId),
    /// It belongs to this process, which a person named.
    Named(Named),
}

/// A process that a person named: of any pid namespace, but never one that this program's own life hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named(Identity);

/// A named process was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// `/proc` does not answer.
    #[error("cannot tell what process {pid} is")]
    Process {
        /// The process.
        pid: u32,
        /// Why.
        #[source]
        source: process::ProcessError,
    },
    /// A thread's id.
    #[error("{pid} is a thread of process {process}; name the process")]
    Thread {
        /// The number.
        pid: u32,
        /// Its process.
        process: u32,
    },
    /// Everything hangs on it.
    #[error("process 1 is not touched")]
    First,
    /// It cannot stop itself.
    #[error("process {pid} is this program itself")]
    Itself {
        /// The process.
        pid: u32,
    },
    /// The shell, the session, the service manager of this program.
    #[error("process {pid} is a parent of this program, it is not touched")]
    Ancestor {
        /// The process.
        pid: u32,
    },
    /// Seccomp does not apply to it.
    #[error("process {pid} is a thread of the kernel")]
    Kernel {
        /// The process.
        pid: u32,
    },
    /// Another process has that number now.
    #[error("process {pid} ended, and another has its number now")]
    Recycled {
        /// The process.
        pid: u32,
    },
}

impl Named {
    /// The process that has this number now.
    ///
    /// # Errors
    /// This program itself, its parents up to the first, process 1, threads, and the kernel's own.
    pub fn new(pid: u32) -> Result<Named, NameError> {
        let identity =
            process::identity(pid).map_err(|source| NameError::Process { pid, source })?;
        let named = Named(identity);
        named.check().map(|()| named)
    }

    /// Which one it is.
    #[must_use]
    pub fn identity(self) -> Identity {
        self.0
    }

    fn check(self) -> Result<(), NameError> {
        let pid = self.0.pid;
        let failed = |source| NameError::Process { pid, source };
        if pid == 1 {
            return Err(NameError::First);
        }
        if pid == std::process::id() {
            return Err(NameError::Itself { pid });
        }
        let status = process::status(pid).map_err(failed)?;
        if status.process != pid {
            return Err(NameError::Thread {
                pid,
                process: status.process,
            });
        }
        if process::is_kernel_thread(pid).map_err(failed)? {
            return Err(NameError::Kernel { pid });
        }
        if ancestors().map_err(failed)?.contains(&pid) {
            return Err(NameError::Ancestor { pid });
        }
        if process::identity(pid).map_err(failed)? != self.0 {
            return Err(NameError::Recycled { pid });
        }
        Ok(())
    }
}

/// The parents of this program, as far as this pid namespace shows them.
fn ancestors() -> Result<BTreeSet<u32>, process::ProcessError> {
    let mut found = BTreeSet::new();
    let mut pid = std::process::id();
    loop {
        pid = process::status(pid)?.parent;
        // 0: the parent is outside of the namespace. A number seen before: parents ended while we looked.
        if pid == 0 || !found.insert(pid) {
            return Ok(found);
        }
    }
}

impl Road {
    /// Checks that the thread is on it.
    pub(super) fn check(self, tid: u32) -> Result<(), ReadError> {
        match self {
            Road::Container(container) => in_container(tid, container),
            Road::Named(named) => {
                named.check()?;
                let process = process::process_of(tid)
                    .map_err(|source| ReadError::Process { tid, source })?;
                if process == named.0.pid {
                    Ok(())
                } else {
                    Err(ReadError::OtherProcess { tid, process })
                }
            }
        }
    }
}

fn in_container(tid: u32, container: NamespaceId) -> Result<(), ReadError> {
    let failed = |source| ReadError::Namespace { tid, source };
    let own = process::own_pid_namespace().map_err(failed)?;
    let target = process::pid_namespace(tid).map_err(failed)?;
    if target == own {
        Err(ReadError::OwnNamespace { tid })
    } else if target != container {
        Err(ReadError::OtherNamespace { tid })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_number_that_is_used_again_is_not_the_process_that_was_named() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .spawn()
            .expect("cat starts");
        let pid = child.id();
        let named = Named::new(pid).expect("a child");
        assert!(Road::Named(named).check(pid).is_ok());
        // as it looks when the number was used again
        let earlier = Named(Identity {
            start_ticks: named.0.start_ticks - 1,
            ..named.0
        });
        let refused = Road::Named(earlier).check(pid);
        assert!(matches!(
            refused,
            Err(ReadError::Name(NameError::Recycled { .. }))
        ));
        child.kill().expect("ours");
        child.wait().expect("ours");
        assert!(Road::Named(named).check(pid).is_err(), "it has ended");
    }
}
