//! One connection to the gate's control socket: a request, its answer, the events that follow.
//!
//! Every read has a bound and, but for events, a time limit. An answer that this program does not know is an error that names
//! both versions: gate and client are updated one after the other.

use crate::exit::{Exit, Failure};
use lazaret_core::control::{Reply, Request, V1};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest line that is read from the gate, in bytes with its newline.
pub(crate) const MAX_REPLY: u64 = 16 << 20;

/// How long the gate may take for an answer. A revision is verified before it is answered.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// What can go wrong with the gate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum GateError {
    /// Nobody listens, or the socket may not be used.
    #[error("cannot reach the gate on `{}` (hint: is lazaretd running?)", socket.display())]
    Unreachable {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The request did not go out.
    #[error("cannot write to the gate")]
    Write(#[source] io::Error),
    /// The answer could not be read.
    #[error("cannot read from the gate")]
    Read(#[source] io::Error),
    /// It is there, and does not answer.
    #[error("the gate gave no answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// It closed the connection before it answered, or while events were read.
    #[error("the gate hung up")]
    HungUp,
    /// It closed the connection within a line.
    #[error("the gate hung up in the middle of an answer")]
    CutOff,
    /// A line without an end.
    #[error("the gate's answer is longer than {MAX_REPLY} bytes")]
    TooLong,
    /// A line that is no answer of protocol version 1 as this program knows it.
    #[error(
        "lazaret {own} does not understand what {gate} answered (hint: use gate and client of one version)",
        own = env!("CARGO_PKG_VERSION")
    )]
    NotUnderstood {
        gate: String,
        #[source]
        source: serde_json::Error,
    },
    /// An answer to another question.
    #[error("the gate answered `{answer}` to another question")]
    Unfit { answer: String },
    /// It does not know the request.
    #[error(
        "{gate} does not understand `{request}` of lazaret {own}: {reason} (hint: use gate and client of one version)",
        own = env!("CARGO_PKG_VERSION")
    )]
    NotSpoken {
        gate: String,
        request: String,
        reason: String,
    },
    /// It says no.
    #[error("{reason}")]
    Refused { reason: String },
    /// A request could not be put into JSON.
    #[error("cannot write the request")]
    Request(#[source] serde_json::Error),
}

impl From<GateError> for Failure {
    fn from(error: GateError) -> Failure {
        let exit = match error {
            GateError::Refused { .. } => Exit::No,
            _ => Exit::HostCannot,
        };
        Failure {
            exit,
            error: error.into(),
        }
    }
}

/// A connection.
pub(crate) struct Gate {
    lines: BufReader<UnixStream>,
    socket: PathBuf,
    answer_within: Duration,
}

impl Gate {
    /// Connects; answers may take half a minute.
    pub(crate) fn connect(socket: &Path) -> Result<Gate, GateError> {
        Gate::connect_for(socket, ANSWER_WITHIN)
    }

    /// Connects; each answer may take so long.
    pub(crate) fn connect_for(socket: &Path, answer_within: Duration) -> Result<Gate, GateError> {
        let stream = UnixStream::connect(socket).map_err(|source| GateError::Unreachable {
            socket: socket.to_owned(),
            source,
        })?;
        stream
            .set_read_timeout(Some(answer_within))
            .map_err(GateError::Read)?;
        stream
            .set_write_timeout(Some(answer_within))
            .map_err(GateError::Write)?;
        Ok(Gate {
            lines: BufReader::new(stream),
            socket: socket.to_owned(),
            answer_within,
        })
    }

    /// Sends a request and reads its answer; [`Reply::Error`] is an error.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Reply, GateError> {
        let mut line = serde_json::to_vec(request).map_err(GateError::Request)?;
        line.push(b'\n');
        let stream = self.lines.get_mut();
        stream.write_all(&line).map_err(GateError::Write)?;
        match self.reply()? {
            Some(Reply::Error { reason, .. }) if tells_of_another_version(&reason) => {
                Err(GateError::NotSpoken {
                    gate: named(version(&self.socket)),
                    request: kind(&line),
                    reason,
                })
            }
            Some(Reply::Error { reason, .. }) => Err(GateError::Refused { reason }),
            Some(reply) => Ok(reply),
            None => Err(GateError::HungUp),
        }
    }

    /// Events from now on, which may be a long time apart.
    pub(crate) fn watch(mut self) -> Result<Gate, GateError> {
        match self.ask(&Request::Watch { v: V1 })? {
            Reply::Watching { .. } => {}
            other => return Err(self.unfit(&other)),
        }
        let stream = self.lines.get_mut();
        stream.set_read_timeout(None).map_err(GateError::Read)?;
        Ok(self)
    }

    /// The next line; `None` when the gate has closed the connection.
    pub(crate) fn reply(&mut self) -> Result<Option<Reply>, GateError> {
        let line = match bounded_line(&mut self.lines) {
            Err(GateError::Read(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(GateError::Silent(self.answer_within));
            }
            other => other?,
        };
        let Some(line) = line else { return Ok(None) };
        serde_json::from_slice(&line).map(Some).map_err(|source| {
            let told = version_in(&line).or_else(|| version(&self.socket));
            GateError::NotUnderstood {
                gate: named(told),
                source,
            }
        })
    }

    /// The error for an answer that is in order, and not to what was asked.
    pub(crate) fn unfit(&self, reply: &Reply) -> GateError {
        let line = serde_json::to_vec(reply).unwrap_or_default();
        GateError::Unfit {
            answer: kind(&line),
        }
    }
}

/// A line without its newline; `None` at the end.
fn bounded_line(lines: &mut BufReader<UnixStream>) -> Result<Option<Vec<u8>>, GateError> {
    let mut line = Vec::new();
    let mut bounded = lines.take(MAX_REPLY);
    bounded
        .read_until(b'\n', &mut line)
        .map_err(GateError::Read)?;
    // at most MAX_REPLY bytes, which fit
    let whole = line.len() as u64 == MAX_REPLY;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if whole => Err(GateError::TooLong),
        Some(_) => Err(GateError::CutOff),
    }
}

/// What serde says of a request that the gate's types do not have. A gate that is older than this program says so; one of this
/// version has no reason to.
fn tells_of_another_version(reason: &str) -> bool {
    [
        "unknown variant `",
        "unknown field `",
        "missing field `",
        "control protocol version ",
    ]
    .iter()
    .any(|begin| reason.starts_with(begin))
}

/// The `type` of a line.
fn kind(line: &[u8]) -> String {
    field(line, "type").unwrap_or_else(|| "something without a type".to_string())
}

fn version_in(line: &[u8]) -> Option<String> {
    field(line, "version")
}

fn field(line: &[u8], name: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(line).ok()?;
    let text = value.get(name)?.as_str()?;
    Some(super::shown(text).chars().take(64).collect())
}

fn named(version: Option<String>) -> String {
    version.map_or_else(
        || "a gate of unknown version".to_string(),
        |version| format!("lazaretd {version}"),
    )
}

/// The gate's version, whatever else its status says: asked on a connection of its own, in what all versions have in common.
fn version(socket: &Path) -> Option<String> {
    let mut gate = Gate::connect_for(socket, Duration::from_secs(2)).ok()?;
    let stream = gate.lines.get_mut();
    stream.write_all(b"{\"type\":\"status\",\"v\":1}\n").ok()?;
    version_in(&bounded_line(&mut gate.lines).ok()??)
}
