//! The reader: `lazaretd read`, a process that reads filters for the daemon and does nothing else.
//!
//! It answers on its standard input, a socket that only the daemon which started it has the other end of. One request at a
//! time. It opens nothing but `/proc`, holds no descriptor of the daemon's, and ends when the daemon does.
//!
//! It has no filter of its own: that is what it is for. What keeps it harmless is how little it takes (a thread's id and a
//! namespace) and `lazaret_kernel::filters`, which refuses every thread of the machine's own pid namespace.

use super::protocol::{MAX_REQUEST, Reply, Request, receive, send};
use lazaret_kernel::filters::{self, ReadError};
use lazaret_kernel::{fds, load, signals};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

/// The reader cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ServeError {
    /// A step of becoming a process of its own.
    #[error("cannot {step}")]
    Detach {
        /// What.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `no_new_privs`.
    #[error(transparent)]
    Privileges(#[from] load::LoadError),
    /// The daemon's messages.
    #[error("cannot talk to the daemon")]
    Talk(#[source] io::Error),
    /// Not a daemon of this version.
    #[error("request was not understood")]
    Nonsense,
}

/// Reads filters until the daemon is gone.
///
/// # Flow
/// Directory, inherited descriptors, signals, `no_new_privs`; then requests from standard input.
///
/// # Guarantees
/// It ends at the end of the daemon, but never within a reading: a thread that it has stopped is let go, and the call that
/// the stop cut short goes on. That is why it asks for no signal at its parent's death. When it is killed itself, the kernel lets
/// go of the thread (ptrace(2), "tracer").
///
/// # Errors
/// One variant for each step.
pub(crate) fn run() -> Result<(), ServeError> {
    let detach = |step| move |source| ServeError::Detach { step, source };
    rustix::process::chdir("/")
        .map_err(io::Error::from)
        .map_err(detach("change directory to /"))?;
    fds::close_inherited().map_err(detach("close what it was given"))?;
    // systemd and terminals send them to the daemon's whole group: the daemon decides when it ends
    signals::ignore_requests_to_end().map_err(detach("ignore SIGTERM and SIGINT"))?;
    load::set_no_new_privs()?;
    let daemon = io::stdin().as_fd().try_clone_to_owned();
    let daemon = daemon.map_err(detach("take standard input"))?;
    serve(&UnixStream::from(daemon))
}

fn serve(daemon: &UnixStream) -> Result<(), ServeError> {
    while let Some(request) = receive(daemon, MAX_REQUEST).map_err(ServeError::Talk)? {
        let request = Request::parse(&request).ok_or(ServeError::Nonsense)?;
        send(daemon, &reply(request).to_bytes()).map_err(ServeError::Talk)?;
    }
    Ok(())
}

fn reply(request: Request) -> Reply {
    match filters::read_chain(request.tid, request.namespace) {
        Ok(programs) => Reply::Chain(programs),
        Err(ReadError::OwnNamespace { .. }) => Reply::OwnNamespace,
        Err(error) => Reply::Failed(crate::gate::whole(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lazaret_kernel::process;

    /// What the reader answers to these bytes, and how it ends.
    fn answered(request: &[u8]) -> (Option<Reply>, Result<(), ServeError>) {
        let (here, there) = UnixStream::pair().expect("pair");
        let reader = std::thread::spawn(move || serve(&there));
        send(&here, request).expect("sent");
        here.shutdown(std::net::Shutdown::Write).expect("open");
        // one that ends before it has read all resets the connection
        let reply = receive(&here, super::super::protocol::MAX_REPLY).unwrap_or_default();
        let reply = reply.map(|reply| Reply::parse(&reply).expect("a reply"));
        (reply, reader.join().expect("no panic"))
    }

    #[test]
    fn a_thread_of_the_machine_is_not_touched() {
        let namespace = process::own_pid_namespace().expect("readable");
        let tid = std::process::id();
        let (reply, end) = answered(&Request { tid, namespace }.to_bytes());
        assert_eq!(reply, Some(Reply::OwnNamespace));
        assert!(end.is_ok(), "{end:?}");
        let (reply, _) = answered(&Request { tid: 0, namespace }.to_bytes());
        assert!(matches!(reply, Some(Reply::Failed(_))), "{reply:?}");
    }

    #[test]
    fn nonsense_ends_it() {
        let (reply, end) = answered(b"hello");
        assert_eq!(reply, None);
        assert!(matches!(end, Err(ServeError::Nonsense)), "{end:?}");
        let (reply, end) = answered(&[b' '; MAX_REQUEST + 1]);
        assert_eq!(reply, None);
        assert!(matches!(end, Err(ServeError::Talk(_))), "{end:?}");
    }
}
