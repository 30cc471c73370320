//! Receives a seccomp listener from a container runtime.
//!
//! The protocol is the OCI runtime specification's (config-linux.md, "The Container Process State"): the runtime
//! connects to the profile's `listenerPath`, sends one JSON object together with descriptors (`SCM_RIGHTS`), and hangs
//! up. What the object says is believed because the peer is root: the caller must still compare it with what the kernel
//! says of the process, and does (`crate::filters`).

mod peer;

pub use peer::{Peer, PeerError, peer};

use crate::notify::{Listener, NotifyError};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// The longest message, in bytes. runc's has about 600 and the container's annotations.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// Room for so many descriptors; a message with more is refused. The specification names one.
const MAX_DESCRIPTORS: usize = 4;

/// The name of the listener in the message (OCI runtime specification, `SeccompFdName`).
const SECCOMP_FD: &str = "seccompFd";

/// A listener was not handed over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandoverError {
    /// Nobody knows who it is.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// Only root runs containers' runtimes.
    #[error("peer has user id {uid}, only 0 may hand over a listener")]
    NotRoot {
        /// The peer's user id.
        uid: u32,
    },
    /// The socket cannot be given a time limit.
    #[error("cannot limit the time for receiving")]
    Limit(#[source] io::Error),
    /// The peer did not finish in time.
    #[error("runtime sent no complete message within {} ms", limit.as_millis())]
    Timeout {
        /// The limit.
        limit: Duration,
    },
    /// `recvmsg(2)`.
    #[error("cannot receive from the runtime")]
    Receive(#[source] io::Error),
    /// The message does not end.
    #[error("message is longer than {MAX_MESSAGE} bytes")]
    TooLong,
    /// More descriptors than there is room for; the kernel has closed the rest.
    #[error("message carries more than {MAX_DESCRIPTORS} descriptors")]
    TooManyDescriptors,
    /// No JSON object of the specification's form.
    #[error("message is no container process state")]
    Malformed(#[source] serde_json::Error),
    /// As many names as descriptors, or the message cannot be understood.
    #[error("message names {named} descriptors and carries {carried}")]
    Descriptors {
        /// Names in `fds`.
        named: usize,
        /// Descriptors that came.
        carried: usize,
    },
    /// None, or several.
    #[error("message names {found} descriptors `{SECCOMP_FD}`, expected one")]
    Listeners {
        /// How many.
        found: usize,
    },
    /// The descriptor is no listener.
    #[error("descriptor `{SECCOMP_FD}` is of no use")]
    Listener(#[source] NotifyError),
}

/// Where a container is in the runtime's view (OCI runtime specification, "State").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being made: the listener is that of its first process.
    Creating,
    /// Made, not started.
    Created,
    /// Its first process runs: the listener is that of another process put into it.
    Running,
    /// Over.
    Stopped,
    /// Paused (runc's addition).
    Paused,
}

/// The container's state (OCI runtime specification, "State").
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct State {
    /// The container's id.
    pub id: String,
    /// Where it is.
    pub status: Status,
    /// Its first process; 0 when there is none.
    #[serde(default)]
    pub pid: u32,
    /// Its bundle folder.
    pub bundle: String,
    /// Its annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Message {
    fds: Vec<String>,
    pid: u32,
    #[serde(default)]
    metadata: String,
    state: State,
}

/// What a runtime handed over.
#[derive(Debug)]
pub struct Handover {
    /// The listener.
    pub listener: Listener,
    /// The process under the filter, in the runtime's pid namespace.
    pub pid: u32,
    /// `listenerMetadata` of the profile.
    pub metadata: String,
    /// The container it belongs to.
    pub state: State,
}

/// The user id of the process that connected to a Unix socket (`SO_PEERCRED`, `unix(7)`).
///
/// # Errors
/// When the descriptor is no connected Unix socket.
pub fn peer_uid(socket: impl AsFd) -> Result<u32, PeerError> {
    peer::uid(socket)
}

/// Receives one handover from a runtime that has connected. Blocks, for `limit` at most.
///
/// # Flow
/// Peer credentials, then bytes and descriptors until the JSON object is complete, then the object, then the listener.
///
/// # Guarantees
/// Nothing is read from a peer that is not root. At most [`MAX_MESSAGE`] bytes are kept. Every descriptor that came and
/// is not returned is closed; when that is the listener, what the container asks fails with `ENOSYS`.
///
/// # Errors
/// One variant for each step.
pub fn receive(stream: &UnixStream, limit: Duration) -> Result<Handover, HandoverError> {
    let uid = peer_uid(stream)?;
    if uid != 0 {
        return Err(HandoverError::NotRoot { uid });
    }
    stream
        .set_nonblocking(false)
        .map_err(HandoverError::Limit)?;
    let (message, mut descriptors) = read_message(stream, limit)?;

    if message.fds.len() != descriptors.len() {
        return Err(HandoverError::Descriptors {
            named: message.fds.len(),
            carried: descriptors.len(),
        });
    }
    let found = message
        .fds
        .iter()
        .filter(|name| *name == SECCOMP_FD)
        .count();
    let at = message.fds.iter().position(|name| name == SECCOMP_FD);
    let (1, Some(at)) = (found, at) else {
        return Err(HandoverError::Listeners { found });
    };
    // `at` is below fds.len(), which is descriptors.len()
    let listener = Listener::new(descriptors.swap_remove(at)).map_err(HandoverError::Listener)?;
    Ok(Handover {
        listener,
        pid: message.pid,
        metadata: message.metadata,
        state: message.state,
    })
}

fn read_message(
    stream: &UnixStream,
    limit: Duration,
) -> Result<(Message, Vec<OwnedFd>), HandoverError> {
    let begin = Instant::now();
    let mut bytes = Vec::new();
    let mut descriptors = Vec::new();
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let left = limit.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Err(HandoverError::Timeout { limit });
        }
        stream
            .set_read_timeout(Some(left))
            .map_err(HandoverError::Limit)?;
        let received = match receive_once(stream, &mut chunk, &mut descriptors) {
            Ok(received) => received,
            Err(HandoverError::Receive(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        bytes.extend_from_slice(chunk.get(..received).unwrap_or_default());
        if bytes.len() > MAX_MESSAGE {
            return Err(HandoverError::TooLong);
        }
        match serde_json::from_slice(&bytes) {
            Ok(message) => return Ok((message, descriptors)),
            // the rest is still on its way, unless the peer has hung up
            Err(error) if error.is_eof() && received > 0 => {}
            Err(error) => return Err(HandoverError::Malformed(error)),
        }
    }
}

/// One `recvmsg(2)`; its descriptors are appended.
fn receive_once(
    stream: &UnixStream,
    chunk: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> Result<usize, HandoverError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(chunk)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )
    .map_err(|error| HandoverError::Receive(error.into()))?;
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            descriptors.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) || descriptors.len() > MAX_DESCRIPTORS {
        return Err(HandoverError::TooManyDescriptors);
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::io::{IoSlice, Write as _};

    const STATE: &str = r#""pid":7,"metadata":"sha256:x","state":{"ociVersion":"1.0.2","id":"c1","status":"creating","pid":7,"bundle":"/b","annotations":{"a":"b"}}"#;
    const LIMIT: Duration = Duration::from_secs(5);

    fn pair() -> (UnixStream, UnixStream) {
        UnixStream::pair().expect("socket pair")
    }

    fn send(stream: &UnixStream, text: &str, descriptors: usize) {
        let (spare, _other) = pair();
        let fds = vec![spare.as_fd(); descriptors];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
        }
        let sent = sendmsg(
            stream,
            &[IoSlice::new(text.as_bytes())],
            &mut ancillary,
            SendFlags::empty(),
        );
        assert_eq!(sent.ok(), Some(text.len()));
    }

    /// Sends one message and hangs up; only root gets further than the credentials.
    fn outcome(text: &str, descriptors: usize) -> String {
        let (here, there) = pair();
        send(&there, text, descriptors);
        drop(there);
        match receive(&here, LIMIT) {
            Ok(_) => "received".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    fn is_root() -> bool {
        let root = rustix::process::geteuid().is_root();
        if !root {
            println!("SKIP: not root, a handover from this user is refused at once");
        }
        root
    }

    #[test]
    fn what_is_no_handover_is_refused() {
        if !is_root() {
            return;
        }
        for (fds, descriptors, expected) in [
            (r#"["seccompFd"]"#, 1, "descriptor `seccompFd` is of no use"),
            (
                r#"["seccompFd"]"#,
                0,
                "message names 1 descriptors and carries 0",
            ),
            (
                r#"["seccompFd"]"#,
                2,
                "message names 1 descriptors and carries 2",
            ),
            (
                r#"["other"]"#,
                1,
                "message names 0 descriptors `seccompFd`, expected one",
            ),
            (
                r#"["seccompFd","seccompFd"]"#,
                2,
                "message names 2 descriptors `seccompFd`, expected one",
            ),
            (
                r#"["seccompFd"]"#,
                5,
                "message carries more than 4 descriptors",
            ),
            (r#""seccompFd""#, 1, "message is no container process state"),
        ] {
            let text = format!(r#"{{"fds":{fds},{STATE}}}"#);
            assert_eq!(outcome(&text, descriptors), expected, "{fds} {descriptors}");
        }
        let malformed = "message is no container process state";
        for text in ["{", "[]", "nonsense", r#"{"fds":[],"pid":-1}"#] {
            assert_eq!(outcome(text, 0), malformed, "{text}");
        }
    }

    #[test]
    fn a_message_in_pieces_is_put_together() {
        if !is_root() {
            return;
        }
        let (here, there) = pair();
        let text = format!(r#"{{"fds":["other"],{STATE}}}"#);
        let (first, second) = text.split_at(20);
        send(&there, first, 1);
        let rest = second.to_owned();
        let late = std::thread::spawn(move || {
            let mut there = there;
            there.write_all(rest.as_bytes()).map(|()| there)
        });
        // complete, and refused for its contents only
        let error = receive(&here, LIMIT).expect_err("no listener in it");
        assert!(
            matches!(error, HandoverError::Listeners { found: 0 }),
            "{error}"
        );
        assert!(late.join().is_ok_and(|sent| sent.is_ok()));
    }

    #[test]
    fn a_message_without_end_is_cut_off() {
        if !is_root() {
            return;
        }
        let (here, there) = pair();
        let endless = std::thread::spawn(move || {
            let mut there = there;
            let text = format!(r#"{{"fds":[],"x":"{}"#, "y".repeat(MAX_MESSAGE + 1));
            // fails when the reader has seen enough and hangs up
            there.write_all(text.as_bytes()).is_ok()
        });
        let error = receive(&here, LIMIT).expect_err("too long");
        assert!(matches!(error, HandoverError::TooLong), "{error}");
        drop(here);
        assert!(endless.join().is_ok());
    }

    #[test]
    fn a_peer_that_is_not_root_is_refused_unread() {
        if !is_root() {
            return;
        }
        let made = std::thread::spawn(|| {
            let keep = libc::uid_t::MAX;
            // JUSTIFICATION: libc's wrapper changes every thread; this one alone is to be somebody else.
            // SAFETY: setresuid takes numbers only; the thread ends right afterwards.
            let returned = unsafe { libc::syscall(libc::SYS_setresuid, keep, 65534, keep) };
            // the kernel keeps the credentials of whoever makes the pair (unix(7), SO_PEERCRED)
            (returned, UnixStream::pair())
        });
        let (returned, pair) = made.join().expect("ended");
        let (here, there) = pair.expect("socket pair");
        assert_eq!(returned, 0);
        send(&there, &format!(r#"{{"fds":["other"],{STATE}}}"#), 1);
        let error = receive(&here, LIMIT).expect_err("not root");
        assert!(
            matches!(error, HandoverError::NotRoot { uid: 65534 }),
            "{error}"
        );
    }

    #[test]
    fn a_silent_peer_is_given_up() {
        if !is_root() {
            return;
        }
        let (here, _there) = pair();
        let error = receive(&here, Duration::from_millis(30)).expect_err("nothing was sent");
        assert!(matches!(error, HandoverError::Timeout { .. }), "{error}");
    }
}
