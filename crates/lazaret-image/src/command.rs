//! Runs a program that answers on its standard output, with a deadline and a bound.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// How much of a program's complaint goes into a message, in bytes.
const COMPLAINT_LIMIT: usize = 400;

/// Why a program gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// It cannot be started.
    #[error("cannot run `{}`", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Its output cannot be read, or its end cannot be waited for.
    #[error("cannot read from `{}`", program.display())]
    Read {
        /// The program.
        program: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It took too long and was killed.
    #[error("`{}` did not answer in time", program.display())]
    Deadline {
        /// The program.
        program: PathBuf,
    },
    /// It wrote too much and was killed.
    #[error("`{}` wrote more than {limit} bytes", program.display())]
    TooLarge {
        /// The program.
        program: PathBuf,
        /// The bound in bytes.
        limit: usize,
    },
    /// It failed.
    #[error("`{}` failed: {complaint}", program.display())]
    Failed {
        /// The program.
        program: PathBuf,
        /// The beginning of its standard error, or how it ended.
        complaint: String,
    },
}

/// A child that does not outlive us.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // both fail only when it has ended already
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// One of the child's outputs.
struct Output {
    /// None after its end.
    pipe: Option<File>,
    /// What was kept, at most one byte more than `limit`.
    bytes: Vec<u8>,
    limit: usize,
}

impl Output {
    fn new(pipe: Option<impl Into<OwnedFd>>, limit: usize) -> Output {
        Output {
            pipe: pipe.map(|pipe| File::from(pipe.into())),
            bytes: Vec::new(),
            limit,
        }
    }

    fn too_large(&self) -> bool {
        self.bytes.len() > self.limit
    }

    /// Reads what is there; called when `poll` said so, so it does not block.
    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 8192];
        let Some(pipe) = &mut self.pipe else {
            return Ok(());
        };
        let count = pipe.read(&mut buffer)?;
        if count == 0 {
            self.pipe = None;
        }
        // `len <= limit + 1` always holds, and limits are far below usize::MAX
        let room = (self.limit + 1).saturating_sub(self.bytes.len());
        self.bytes.extend(buffer.iter().take(count.min(room)));
        Ok(())
    }
}

/// Runs `program` without environment and input, and gives its standard output.
///
/// # Errors
/// [`CommandError`]; the child never outlives the call.
pub(crate) fn run(
    program: &Path,
    arguments: &[&OsStr],
    limit: usize,
    deadline: Instant,
) -> Result<Vec<u8>, CommandError> {
    let read = |source: io::Error| CommandError::Read {
        program: program.to_owned(),
        source,
    };
    let mut running = Command::new(program)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map(Running)
        .map_err(|source| CommandError::Spawn {
            program: program.to_owned(),
            source,
        })?;
    let child = &mut running.0;
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty())
        .map_err(|errno| read(errno.into()))?;
    let mut outputs = [
        Output::new(child.stdout.take(), limit),
        Output::new(child.stderr.take(), COMPLAINT_LIMIT),
    ];
    while outputs.iter().any(|output| output.pipe.is_some()) {
        let mut pipes: Vec<_> = outputs
            .iter()
            .filter_map(|output| output.pipe.as_ref())
            .map(|pipe| PollFd::new(pipe, PollFlags::IN))
            .collect();
        wait(program, &mut pipes, deadline)?;
        let ready: Vec<_> = pipes
            .iter()
            .map(|pipe| !pipe.revents().is_empty())
            .collect();
        let open = outputs.iter_mut().filter(|output| output.pipe.is_some());
        for (output, ready) in open.zip(ready) {
            if ready {
                output.read().map_err(read)?;
            }
        }
        if outputs[0].too_large() {
            return Err(CommandError::TooLarge {
                program: program.to_owned(),
                limit,
            });
        }
    }
    wait(program, &mut [PollFd::new(&ended, PollFlags::IN)], deadline)?;
    let status = child.wait().map_err(read)?;
    let [answer, complaint] = outputs.map(|output| output.bytes);
    if status.success() {
        return Ok(answer);
    }
    let complaint = String::from_utf8_lossy(&complaint);
    Err(CommandError::Failed {
        program: program.to_owned(),
        complaint: match complaint.trim() {
            "" => status.to_string(),
            text => text.to_owned(),
        },
    })
}

/// Waits until one of `what` is ready.
fn wait(program: &Path, what: &mut [PollFd<'_>], deadline: Instant) -> Result<(), CommandError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let late = || CommandError::Deadline {
            program: program.to_owned(),
        };
        if left.is_zero() {
            return Err(late());
        }
        // deadlines are seconds away
        let timeout = Timespec::try_from(left).map_err(|_| late())?;
        match poll(what, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => {
                return Err(CommandError::Read {
                    program: program.to_owned(),
                    source: errno.into(),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn shell(script: &str, limit: usize, milliseconds: u64) -> Result<Vec<u8>, CommandError> {
        run(
            Path::new("/bin/sh"),
            &["-c".as_ref(), script.as_ref()],
            limit,
            Instant::now() + Duration::from_millis(milliseconds),
        )
    }

    #[test]
    fn answers() -> Result<(), CommandError> {
        assert_eq!(
            shell("echo answer; echo noise >&2", 100, 60_000)?,
            b"answer\n"
        );
        assert_eq!(shell("printf %08192d 1", 8192, 60_000)?.len(), 8192);
        assert_eq!(
            shell("printf %s \"$HOME\"; read x; exit 0", 9, 60_000)?,
            b"",
            "no environment, no input"
        );
        Ok(())
    }

    #[test]
    fn failures() {
        let message =
            |result: Result<Vec<u8>, CommandError>| result.err().map(|error| error.to_string());
        assert_eq!(
            message(shell("echo out; echo why >&2; exit 3", 100, 60_000)).as_deref(),
            Some("`/bin/sh` failed: why")
        );
        assert_eq!(
            message(shell("exit 3", 100, 60_000)).as_deref(),
            Some("`/bin/sh` failed: exit status: 3")
        );
        assert!(matches!(
            shell("yes", 10_000, 60_000),
            Err(CommandError::TooLarge { limit: 10_000, .. })
        ));
        assert!(matches!(
            run(Path::new("/nonexistent"), &[], 1, Instant::now()),
            Err(CommandError::Spawn { .. })
        ));
    }

    #[test]
    fn a_silent_program_is_killed() {
        let started = Instant::now();
        // both a program that keeps its outputs open and one that closed them
        for script in ["exec sleep 600", "exec sleep 600 >&- 2>&-"] {
            assert!(matches!(
                shell(script, 100, 50),
                Err(CommandError::Deadline { .. })
            ));
        }
        assert!(started.elapsed() < Duration::from_secs(60));
    }
}
