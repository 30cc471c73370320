//! Descriptors from process to process: over a Unix socket (`SCM_RIGHTS`), and from the service manager at the start.
//!
//! Knows nothing of what is behind a descriptor, nor of names in messages: a message is bytes, and its meaning the caller's.

use crate::returned::check;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

/// Descriptors in one message at most (`SCM_MAX_FD`, include/net/scm.h); more are several messages.
pub const MAX_IN_MESSAGE: usize = 253;

/// The first descriptor of the service manager (`SD_LISTEN_FDS_START`, sd_listen_fds(3)).
const FIRST_INHERITED: u32 = 3;

/// A message was not sent or not received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FdsError {
    /// The kernel takes no more in one message.
    #[error("message would carry {given} descriptors, the kernel allows {MAX_IN_MESSAGE}")]
    TooMany {
        /// How many were given.
        given: usize,
    },
    /// `sendmsg(2)`.
    #[error("cannot send a message with {descriptors} descriptors")]
    Send {
        /// How many it would have carried.
        descriptors: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Part of a message on a stream is no message.
    #[error("only {sent} of {length} bytes of a message were sent")]
    Partly {
        /// Bytes that were sent; the descriptors go with the first.
        sent: usize,
        /// Bytes of the message.
        length: usize,
    },
    /// `recvmsg(2)`; `WouldBlock` after the socket's time limit.
    #[error("cannot receive a message")]
    Receive(#[source] io::Error),
    /// The rest is lost.
    #[error("message is longer than {limit} bytes")]
    TooLong {
        /// Bytes that the receiver takes.
        limit: usize,
    },
    /// More descriptors than were asked for, or than this process may open (`RLIMIT_NOFILE`); what came is closed.
    #[error(
        "message carries more descriptors than the {limit} expected, or than this process may open"
    )]
    Lost {
        /// How many were asked for.
        limit: usize,
    },
}

/// Sends one message with copies of descriptors. Blocks as the socket does.
///
/// On a socket that keeps messages apart (`SOCK_SEQPACKET`, `SOCK_DGRAM`) it arrives whole or not at all; on a stream the
/// receiver must know its length. Descriptors need at least one byte to go with (unix(7)).
///
/// # Errors
/// More than [`MAX_IN_MESSAGE`] descriptors, or whatever `sendmsg(2)` says; `EPIPE` (and no signal) when the peer is gone.
pub fn send(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), FdsError> {
    let count = descriptors.len();
    if count > MAX_IN_MESSAGE {
        return Err(FdsError::TooMany { given: count });
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_IN_MESSAGE))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if count > 0 && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(FdsError::TooMany { given: count });
    }
    let sent = loop {
        match sendmsg(
            socket.as_fd(),
            &[IoSlice::new(bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other,
        }
    };
    let sent = sent.map_err(|error| FdsError::Send {
        descriptors: count,
        source: error.into(),
    })?;
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(FdsError::Partly {
            sent,
            length: bytes.len(),
        })
    }
}

/// A message as it came.
#[derive(Debug)]
pub struct Message {
    /// Bytes of the buffer that it fills.
    pub length: usize,
    /// Its descriptors, close-on-exec.
    pub descriptors: Vec<OwnedFd>,
}

/// Receives one message with at most `limit` descriptors; nothing when the peer has hung up. Blocks as the socket does.
///
/// An empty message looks like a hang-up (recv(2)); nobody should send one.
///
/// # Guarantees
/// Not more than the buffer and `limit` descriptors are taken; of a message that is refused every descriptor is closed.
///
/// # Errors
/// A message that is longer than the buffer (on a socket that keeps messages apart) or carries more descriptors, and
/// whatever `recvmsg(2)` says.
pub fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
    limit: usize,
) -> Result<Option<Message>, FdsError> {
    let length = buffer.len();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_IN_MESSAGE))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(
            socket.as_fd(),
            &mut [IoSliceMut::new(buffer)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other,
        }
    };
    let received = received.map_err(|error| FdsError::Receive(error.into()))?;
    let mut descriptors = Vec::new();
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            descriptors.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) || descriptors.len() > limit {
        return Err(FdsError::Lost { limit });
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(FdsError::TooLong { limit: length });
    }
    if received.bytes == 0 && descriptors.is_empty() {
        return Ok(None);
    }
    Ok(Some(Message {
        length: received.bytes,
        descriptors,
    }))
}

/// A descriptor that the service manager passed on.
#[derive(Debug)]
pub struct Inherited {
    /// Its name (`FileDescriptorName=` of a socket unit, `FDNAME=` of a stored one); names need not be different.
    pub name: String,
    /// The descriptor, close-on-exec from now on.
    pub fd: OwnedFd,
}

/// The descriptors of the service manager cannot be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InheritedError {
    /// `/proc` is not mounted.
    #[error("cannot count this program's threads")]
    Threads(#[from] crate::tasks::TasksError),
    /// Another thread could read the environment at the same time.
    #[error("{count} threads run already, descriptors must be taken before the first")]
    TooLate {
        /// How many.
        count: usize,
    },
    /// Not as sd_listen_fds(3) says.
    #[error("variable `{name}` is `{value}`, which sd_listen_fds(3) does not allow")]
    Variable {
        /// Which.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// As many names as descriptors.
    #[error("variable `LISTEN_FDNAMES` has {names} names for {descriptors} descriptors")]
    Names {
        /// Names.
        names: usize,
        /// `LISTEN_FDS`.
        descriptors: usize,
    },
    /// Not open.
    #[error("descriptor {fd} of `LISTEN_FDS` cannot be used")]
    Descriptor {
        /// Which.
        fd: RawFd,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It would not have come through `execve`: this program opened it itself.
    #[error("descriptor {fd} of `LISTEN_FDS` was not inherited")]
    NotInherited {
        /// Which.
        fd: RawFd,
    },
}

/// Takes what the service manager passed on (`LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES`; sd_listen_fds(3)), once: the
/// variables are removed, so a second call finds nothing, and no child takes them for its own.
///
/// # Assumptions
/// It is called at the start, before another thread runs and before anything without close-on-exec was opened.
///
/// # Errors
/// Variables that contradict each other or sd_listen_fds(3), a descriptor that is not open or was not inherited. Nothing is
/// taken then. Variables for another process are no error: nothing was passed to this one.
pub fn inherited() -> Result<Vec<Inherited>, InheritedError> {
    let Some(named) = announced(|name| std::env::var(name).ok(), std::process::id())? else {
        return Ok(Vec::new());
    };
    // std's lock protects from std only, not from a `getenv` of the C library elsewhere
    let count = crate::tasks::threads(std::process::id())?.len();
    if count != 1 {
        return Err(InheritedError::TooLate { count });
    }
    for &(fd, _) in &named {
        let flags =
            descriptor_flags(fd).map_err(|source| InheritedError::Descriptor { fd, source })?;
        if flags & libc::FD_CLOEXEC != 0 {
            return Err(InheritedError::NotInherited { fd });
        }
    }
    for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        // JUSTIFICATION: edition 2024 has no safe way to change the environment.
        // SAFETY: no other thread runs (counted above), so nothing reads the environment meanwhile.
        unsafe { std::env::remove_var(name) };
    }
    named
        .into_iter()
        .map(|(fd, name)| {
            // JUSTIFICATION: descriptors from the parent have numbers only.
            // SAFETY: it is open, and came through `execve`, since it is not close-on-exec while everything that std and
            // rustix open is. So nothing in this process owns it; and with the variables gone nobody gets it again here.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            close_on_exec(&fd)?;
            Ok(Inherited { name, fd })
        })
        .collect()
}

/// Closes every descriptor above the standard ones that came through `execve`, for a process that outlives whoever started it
/// and is to hold on to nothing of theirs.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn close_inherited() -> io::Result<()> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    for fd in numbers {
        // the one that lists the folder is closed by now
        let inherited = descriptor_flags(fd).is_ok_and(|flags| flags & libc::FD_CLOEXEC == 0);
        if fd >= FIRST_INHERITED.cast_signed() && inherited {
            // JUSTIFICATION: descriptors from the parent have numbers only.
            // SAFETY: it is open and not close-on-exec, while everything that std and rustix open is, so nothing in this
            // process owns it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    Ok(())
}

/// Numbers and names of what the variables announce to this process.
fn announced(
    variable: impl Fn(&str) -> Option<String>,
    own: u32,
) -> Result<Option<Vec<(RawFd, String)>>, InheritedError> {
    let number = |name| match variable(name) {
        None => Ok(None),
        Some(value) => match value.parse::<u32>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(InheritedError::Variable { name, value }),
        },
    };
    let (Some(pid), Some(count)) = (number("LISTEN_PID")?, number("LISTEN_FDS")?) else {
        return Ok(None);
    };
    if pid != own {
        return Ok(None);
    }
    let numbers = FIRST_INHERITED
        .checked_add(count)
        .and_then(|end| RawFd::try_from(end).ok())
        .map(|end| FIRST_INHERITED.cast_signed()..end)
        .ok_or_else(|| InheritedError::Variable {
            name: "LISTEN_FDS",
            value: count.to_string(),
        })?;
    // `unknown` is what sd_listen_fds_with_names(3) says
    let names: Vec<String> = match variable("LISTEN_FDNAMES") {
        Some(names) => names.split(':').map(str::to_owned).collect(),
        None => numbers.clone().map(|_| "unknown".to_owned()).collect(),
    };
    if names.len() != numbers.len() {
        return Err(InheritedError::Names {
            names: names.len(),
            descriptors: numbers.len(),
        });
    }
    Ok(Some(numbers.zip(names).collect()))
}

fn descriptor_flags(fd: RawFd) -> io::Result<i32> {
    // JUSTIFICATION: rustix wants a descriptor that is known to be open.
    // SAFETY: F_GETFD takes a number and touches no memory.
    let returned = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    // flags are an int
    check(returned.into()).map(|flags| flags as i32)
}

fn close_on_exec(fd: &OwnedFd) -> Result<(), InheritedError> {
    use std::os::fd::AsRawFd as _;
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC).map_err(|error| {
        InheritedError::Descriptor {
            fd: fd.as_raw_fd(),
            source: error.into(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::fs::File;
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("socket pair")
    }

    #[test]
    fn as_many_descriptors_as_the_kernel_takes_arrive_in_their_order() {
        let (here, there) = pair();
        let pipes: Vec<_> = (0..MAX_IN_MESSAGE)
            .map(|_| std::io::pipe().expect("pipe"))
            .collect();
        let writers: Vec<_> = pipes.iter().map(|(_, writer)| writer.as_fd()).collect();
        send(&there, b"all", &writers).expect("sent");
        drop(writers);
        let mut buffer = [0; 8];
        let message = receive(&here, &mut buffer, MAX_IN_MESSAGE)
            .expect("received")
            .expect("a message");
        assert_eq!(&buffer[..message.length], b"all");
        assert_eq!(message.descriptors.len(), MAX_IN_MESSAGE);
        for (index, fd) in message.descriptors.into_iter().enumerate() {
            let flags = rustix::io::fcntl_getfd(&fd).expect("open");
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            std::io::Write::write_all(&mut File::from(fd), &[index as u8]).expect("written");
        }
        for (index, (mut reader, writer)) in pipes.into_iter().enumerate() {
            drop(writer);
            let mut read = Vec::new();
            reader.read_to_end(&mut read).expect("read");
            assert_eq!(read, [index as u8]);
        }
    }

    #[test]
    fn more_than_allowed_is_refused_on_both_sides_and_closed() {
        let (here, there) = pair();
        let (mut reader, writer) = std::io::pipe().expect("pipe");
        let many = vec![writer.as_fd(); MAX_IN_MESSAGE + 1];
        let error = send(&there, b"x", &many).expect_err("one too many");
        assert!(matches!(error, FdsError::TooMany { given: 254 }), "{error}");

        let mut buffer = [0; 4];
        send(&there, b"x", &[writer.as_fd(); 3]).expect("sent");
        let error = receive(&here, &mut buffer, 2).expect_err("one too many");
        assert!(matches!(error, FdsError::Lost { limit: 2 }), "{error}");
        send(&there, b"12345", &[writer.as_fd()]).expect("sent");
        let error = receive(&here, &mut buffer, 2).expect_err("too long");
        assert!(matches!(error, FdsError::TooLong { limit: 4 }), "{error}");
        // nothing of what was refused stays open
        drop(many);
        drop(writer);
        assert_eq!(reader.read(&mut buffer).ok(), Some(0));
    }

    #[test]
    fn a_peer_that_has_hung_up_is_told() {
        let (here, there) = pair();
        drop(there);
        let end = receive(&here, &mut [0; 4], 1).expect("no error");
        assert!(end.is_none());
        let error = send(&here, b"x", &[]).expect_err("nobody reads");
        assert!(
            matches!(&error, FdsError::Send { source, .. } if source.kind() == io::ErrorKind::BrokenPipe),
            "{error}"
        );
        let (here, there) = UnixStream::pair().expect("socket pair");
        send(&there, b"on a stream", &[here.as_fd()]).expect("sent");
        let message = receive(&here, &mut [0; 64], 1).expect("received");
        assert_eq!(
            message.map(|it| (it.length, it.descriptors.len())),
            Some((11, 1))
        );
    }

    #[test]
    fn announcements_are_understood_or_refused() {
        let check = |pid: &str, count: &str, names: &str, expected: &str| {
            let variable = |name: &str| {
                let value = match name {
                    "LISTEN_PID" => pid,
                    "LISTEN_FDS" => count,
                    _ => names,
                };
                (value != "-").then(|| value.to_owned())
            };
            let found = match announced(variable, 7) {
                Ok(None) => "nothing".to_owned(),
                Ok(Some(all)) => format!("{all:?}"),
                Err(error) => error.to_string(),
            };
            assert_eq!(found, expected, "{pid} {count} {names}");
        };
        check("7", "2", "a:b", r#"[(3, "a"), (4, "b")]"#);
        check("7", "1", "-", r#"[(3, "unknown")]"#);
        check("7", "0", "-", "[]");
        check("8", "2", "a:b", "nothing");
        check("-", "2", "a:b", "nothing");
        check("7", "-", "-", "nothing");
        let names = "variable `LISTEN_FDNAMES` has 1 names for 2 descriptors";
        check("7", "2", "a", names);
        for count in ["x", "-1", "", "4294967295", "2147483646"] {
            let refused = format!(
                "variable `LISTEN_FDS` is `{count}`, which sd_listen_fds(3) does not allow"
            );
            check("7", count, "-", &refused);
        }
        let refused = "variable `LISTEN_PID` is `x`, which sd_listen_fds(3) does not allow";
        check("x", "1", "a", refused);
    }
}
