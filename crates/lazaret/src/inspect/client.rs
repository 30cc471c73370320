//! Asks an engine's own client, and waits for it only so long: the engine may be on a machine that does not answer.
//!
//! What the answer means is the caller's matter.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a client may take. Docker and containerd answer within 0.1 s, on a machine under load within a few.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// Bytes of an answer at most: a line of `ctr tasks list` is about 90, so 10 000 containers.
const MAX_ANSWER: u64 = 1 << 20;

/// How often it is looked whether a client that has said everything has ended, too.
const POLL: Duration = Duration::from_millis(2);

/// A client gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum AskError {
    /// Not installed, most often.
    #[error("`{program}` cannot be run")]
    Start {
        /// The client.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Most often it waits for an engine.
    #[error("`{program}` gave no answer within {limit:?}")]
    Silent {
        /// The client.
        program: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// Not the answer that was asked for.
    #[error("`{program}` said more than {MAX_ANSWER} bytes")]
    TooLong {
        /// The client.
        program: String,
    },
    /// Its pipes or its end.
    #[error("cannot read the answer of `{program}`")]
    Read {
        /// The client.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It said no.
    #[error("{said}")]
    Refused {
        /// The last line of its standard error.
        said: String,
    },
}

/// A client that runs. It is killed when nobody waits for it any more.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // it has ended, unless it was waited for in vain
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The standard output of a client that ended well within the limit.
///
/// # Errors
/// It cannot be run, takes longer, says more than a mebibyte, or ends with another code than 0.
pub(super) fn ask(program: &str, args: &[&str], limit: Duration) -> Result<String, AskError> {
    let deadline = Instant::now() + limit;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    let started = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = started.map_err(|source| AskError::Start {
        program: program.to_owned(),
        source,
    })?;
    let mut client = Running(child);
    // both at once: a full pipe would keep the client from filling the other one
    let output = client.0.stdout.take().map(reading);
    let errors = client.0.stderr.take().map(reading);
    let output = received(program, output, deadline, limit)?;
    let errors = received(program, errors, deadline, limit)?;
    let status = ended(program, &mut client.0, deadline, limit)?;
    if status.success() {
        return Ok(output);
    }
    let last = errors.trim().lines().last();
    Err(AskError::Refused {
        said: last.unwrap_or("it gave no reason").to_owned(),
    })
}

/// Reads to the end, or a byte more than is allowed, on a thread of its own.
fn reading(pipe: impl Read + Send + 'static) -> Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = pipe.take(MAX_ANSWER + 1).read_to_end(&mut bytes);
        // nobody listens any more when the client took too long
        sender.send(read.map(|_| bytes)).ok();
    });
    receiver
}

fn received(
    program: &str,
    pipe: Option<Receiver<io::Result<Vec<u8>>>>,
    deadline: Instant,
    limit: Duration,
) -> Result<String, AskError> {
    let program = || program.to_owned();
    let failed = |source| AskError::Read {
        program: program(),
        source,
    };
    let pipe = pipe.ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
    let left = deadline.saturating_duration_since(Instant::now());
    let bytes = match pipe.recv_timeout(left) {
        Ok(read) => read.map_err(failed)?,
        Err(RecvTimeoutError::Timeout) => {
            return Err(AskError::Silent {
                program: program(),
                limit,
            });
        }
        Err(RecvTimeoutError::Disconnected) => {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        }
    };
    // lossless: MAX_ANSWER + 1 bytes at most were read
    if bytes.len() as u64 > MAX_ANSWER {
        return Err(AskError::TooLong { program: program() });
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// How it ended. Its pipes are closed, so it ends at once, or never.
fn ended(
    program: &str,
    child: &mut Child,
    deadline: Instant,
    limit: Duration,
) -> Result<ExitStatus, AskError> {
    loop {
        let status = child.try_wait().map_err(|source| AskError::Read {
            program: program.to_owned(),
            source,
        })?;
        if let Some(status) = status {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            return Err(AskError::Silent {
                program: program.to_owned(),
                limit,
            });
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> Result<String, AskError> {
        ask("sh", &["-c", script], limit)
    }

    #[test]
    fn answers_and_refusals_are_told_apart() {
        assert_eq!(
            sh("echo yes; echo no >&2", LIMIT).expect("an answer"),
            "yes\n"
        );
        let refused = sh("echo part; echo one >&2; echo two >&2; exit 1", LIMIT);
        assert_eq!(refused.expect_err("refused").to_string(), "two");
        let silent = sh("exit 1", LIMIT).expect_err("refused");
        assert_eq!(silent.to_string(), "it gave no reason");
        let absent = ask("lazaret-no-such-client", &[], LIMIT).expect_err("not there");
        assert!(matches!(absent, AskError::Start { .. }), "{absent}");
    }

    #[test]
    fn nothing_is_waited_for_for_ever() {
        let limit = Duration::from_millis(20);
        // one that says nothing, and one that closes its outputs and goes on
        for script in ["exec sleep 3600", "exec sleep 3600 >&- 2>&-"] {
            let silent = sh(script, limit).expect_err("it takes an hour");
            assert_eq!(silent.to_string(), "`sh` gave no answer within 20ms");
        }
    }

    #[test]
    fn an_endless_answer_is_cut_off() {
        let endless = sh("exec cat /dev/zero", LIMIT).expect_err("endless");
        assert!(matches!(endless, AskError::TooLong { .. }), "{endless}");
        let longest = format!("exec head -c {MAX_ANSWER} /dev/zero");
        assert!(sh(&longest, LIMIT).is_ok());
    }
}
