//! Run something inside the network namespace of a process.
//!
//! On a thread of its own, which ends afterwards: no other thread of this program ever changes its namespace.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

/// A network namespace was not entered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetnsError {
    /// `/proc/PID/ns/net` cannot be opened.
    #[error("cannot open the network namespace of process {pid}")]
    Open {
        /// The process.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No thread for it.
    #[error("cannot start a thread for another network namespace")]
    Thread(#[source] io::Error),
    /// `setns(2)`.
    #[error("cannot enter the network namespace")]
    Enter(#[source] io::Error),
    /// What was to run there panicked.
    #[error("work inside the network namespace panicked")]
    Panicked,
}

/// A network namespace, held open: it stays the same one even when its process is gone and its pid used again.
#[derive(Debug)]
pub struct NetworkNamespace {
    file: File,
}

impl NetworkNamespace {
    /// The network namespace of this process.
    ///
    /// # Errors
    /// When the process is gone or may not be inspected.
    pub fn of(pid: u32) -> Result<NetworkNamespace, NetnsError> {
        File::open(format!("/proc/{pid}/ns/net"))
            .map(|file| NetworkNamespace { file })
            .map_err(|source| NetnsError::Open { pid, source })
    }

    /// Runs `work` on a thread inside the namespace and waits for it.
    ///
    /// # Errors
    /// When the namespace cannot be entered (`CAP_SYS_ADMIN`), then `work` has not run; or when `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        std::thread::scope(|scope| {
            let inside = || {
                move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                    .map_err(|error| NetnsError::Enter(error.into()))?;
                Ok(work())
            };
            std::thread::Builder::new()
                .name("netns".to_owned())
                .spawn_scoped(scope, inside)
                .map_err(NetnsError::Thread)?
                .join()
                .map_err(|_| NetnsError::Panicked)?
        })
    }
}
