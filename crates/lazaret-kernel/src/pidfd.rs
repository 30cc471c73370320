//! Descriptors for processes: hold on to one, and borrow one of its own descriptors.
//!
//! A pidfd names the same process for ever, unlike its number. It becomes readable when the process ends.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// A sentence longer than this is cut: a pipe that is writable takes so much at once (`PIPE_BUF`, `pipe(7)`).
const MAX_SENTENCE: usize = 4096;

/// How long a full standard error may keep us, in milliseconds.
const PATIENCE_MS: i64 = 200;

/// Something with a process's descriptor went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PidfdError {
    /// 0 or above 2^31 - 1.
    #[error("{pid} is no process id")]
    NoPid {
        /// The number.
        pid: u32,
    },
    /// `pidfd_open(2)`.
    #[error("cannot open process {pid}")]
    Open {
        /// The process.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `pidfd_getfd(2)`.
    #[error("cannot take descriptor {wanted} of process {pid}")]
    Take {
        /// The process.
        pid: u32,
        /// Its descriptor.
        wanted: i32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `pidfd_send_signal(2)`.
    #[error("cannot kill a process")]
    Kill(#[source] io::Error),
    /// The reader of its standard error does not read.
    #[error("standard error of process {pid} took nothing for {PATIENCE_MS} ms")]
    Full {
        /// The process.
        pid: u32,
    },
    /// `poll(2)` or `write(2)`.
    #[error("cannot write to standard error of process {pid}")]
    Write {
        /// The process.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A descriptor for this process.
///
/// # Errors
/// When there is no such process; a thread that leads no process is refused (`EINVAL`).
pub fn open(pid: u32) -> Result<OwnedFd, PidfdError> {
    let number = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(PidfdError::NoPid { pid })?;
    rustix::process::pidfd_open(number, PidfdFlags::empty()).map_err(|error| PidfdError::Open {
        pid,
        source: error.into(),
    })
}

/// Kills the process behind a pidfd; one that has ended already is no error.
///
/// # Errors
/// When the kernel refuses.
pub fn kill(process: impl AsFd) -> Result<(), PidfdError> {
    match rustix::process::pidfd_send_signal(process, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(PidfdError::Kill(error.into())),
    }
}

/// A copy of descriptor `wanted` of this process.
///
/// # Errors
/// When the process is gone, has no such descriptor, or may not be inspected.
pub fn take(pid: u32, wanted: i32) -> Result<OwnedFd, PidfdError> {
    let process = open(pid)?;
    rustix::process::pidfd_getfd(process, wanted, PidfdGetfdFlags::empty()).map_err(|error| {
        PidfdError::Take {
            pid,
            wanted,
            source: error.into(),
        }
    })
}

/// Writes one sentence to the standard error of a process, without ever blocking for long and without touching the
/// flags of the (shared) open file.
///
/// # Errors
/// When there is no standard error, or nobody reads it; the sentence is lost then.
pub fn say(pid: u32, sentence: &str) -> Result<(), PidfdError> {
    let stderr = take(pid, 2)?;
    let failed = |error: rustix::io::Errno| PidfdError::Write {
        pid,
        source: error.into(),
    };
    let patience = Timespec {
        tv_sec: 0,
        tv_nsec: PATIENCE_MS * 1_000_000,
    };
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    if poll(&mut fds, Some(&patience)).map_err(failed)? == 0 {
        return Err(PidfdError::Full { pid });
    }
    let bytes = sentence.as_bytes();
    let bytes = bytes.get(..MAX_SENTENCE).unwrap_or(bytes);
    rustix::io::write(&stderr, bytes).map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::process::{Command, Stdio};

    #[test]
    fn a_sentence_reaches_the_standard_error_of_another_process() {
        // `cat` waits for its standard input, so it is there as long as we want
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cat starts");
        say(child.id(), "lazaret: no\n").expect("written");
        drop(child.stdin.take());
        let mut text = String::new();
        let mut stderr = child.stderr.take().expect("piped above");
        stderr.read_to_string(&mut text).expect("text");
        assert_eq!(text, "lazaret: no\n");
        let pid = child.id();
        assert!(child.wait().expect("ended").success());
        assert!(matches!(
            say(pid, "nobody\n"),
            Err(PidfdError::Open { .. } | PidfdError::Take { .. })
        ));
    }

    #[test]
    fn a_full_pipe_does_not_keep_us() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cat starts");
        let mut refused = None;
        for _ in 0..64 {
            // 64 x 4096 is more than a pipe's 65536 bytes (pipe(7))
            if let Err(error) = say(child.id(), &"x".repeat(4096)) {
                refused = Some(error);
                break;
            }
        }
        assert!(matches!(refused, Some(PidfdError::Full { .. })));
        child.kill().expect("killed");
        child.wait().expect("ended");
    }

    #[test]
    fn a_process_is_killed_and_a_dead_one_is_no_error() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .spawn()
            .expect("cat starts");
        let process = open(child.id()).expect("opened");
        kill(&process).expect("killed");
        let status = child.wait().expect("ended");
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9)
        );
        kill(&process).expect("no error");
    }

    #[test]
    fn numbers_that_are_no_pids_are_refused() {
        for pid in [0, 1 << 31, u32::MAX] {
            assert!(matches!(open(pid), Err(PidfdError::NoPid { .. })), "{pid}");
        }
    }
}
