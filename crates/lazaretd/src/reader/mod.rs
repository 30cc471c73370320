//! Who reads containers' filters: a small process of its own, [`serve`], and here the daemon's side of it.
//!
//! The kernel lets no process read filters that is under one itself (`EACCES`: `seccomp_get_filter`, kernel/seccomp.c), and
//! the daemon is, once it runs ([`crate::confine`]). So the reading is left to a process that was started before, and that
//! takes nothing but a thread's id and a namespace.
//!
//! A daemon under a filter cannot start another reader: filters are inherited. So when the reader is gone, nothing new is
//! admitted any more, while everything that was goes on; and where the service manager starts the daemon again and
//! keeps its listeners meanwhile, it ends itself.

mod protocol;
pub(crate) mod serve;

use lazaret_core::filter::program::Program;
use lazaret_kernel::process::{self, NamespaceId, ProcessError};
use protocol::{MAX_REPLY, Reply, Request};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long one reading may take. It takes 1 ms; 200 ms when the thread does not stop, and more on a machine under load.
const PATIENCE: Duration = Duration::from_secs(10);

/// The reader was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StartError {
    /// No sockets.
    #[error("cannot make a socket for the reader of filters")]
    Socket(#[source] io::Error),
    /// The program.
    #[error("cannot start the reader of filters")]
    Start(#[source] io::Error),
    /// `/proc`.
    #[error("cannot tell the own pid namespace")]
    Namespace(#[from] ProcessError),
    /// It should refuse to touch this very process.
    #[error("reader of filters does not work: asked for this program's own, it answers `{answer}`")]
    Test {
        /// What it said.
        answer: String,
    },
    /// No thread.
    #[error("cannot watch the reader of filters")]
    Watch(#[source] io::Error),
}

/// Filters were not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ChainError {
    /// It may be a process of the machine.
    #[error("thread is in the daemon's own pid namespace")]
    OwnNamespace,
    /// Why, in the reader's words.
    #[error("{0}")]
    Read(String),
    /// It is gone.
    #[error(
        "the process that reads filters is gone, until lazaretd is started again no container can be admitted"
    )]
    Gone,
    /// It was given up.
    #[error("the process that reads filters does not answer as it should and was given up")]
    Talk(#[source] io::Error),
}

/// What is done when the reader is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// The daemon ends: who keeps its listeners starts it again.
    End,
    /// It goes on for what it has admitted.
    GoOn,
}

/// The reader, as the daemon knows it.
#[derive(Debug)]
pub(crate) struct Reader {
    /// `None`: it is gone, or was given up.
    link: Mutex<Option<UnixStream>>,
    /// The daemon ends, and so does the reader.
    ending: AtomicBool,
    watch: Mutex<Option<JoinHandle<()>>>,
}

impl Reader {
    fn on(link: UnixStream) -> Reader {
        Reader {
            link: Mutex::new(Some(link)),
            ending: AtomicBool::new(false),
            watch: Mutex::new(None),
        }
    }

    /// Starts it and tries it out. `program` is this program.
    ///
    /// # Guarantees
    /// What is returned refuses threads of the daemon's own pid namespace: it was asked for one.
    ///
    /// # Errors
    /// One variant for each step.
    pub(crate) fn start(program: &Path) -> Result<(Reader, Child), StartError> {
        let (here, there) = UnixStream::pair().map_err(StartError::Socket)?;
        here.set_read_timeout(Some(PATIENCE))
            .and_then(|()| here.set_write_timeout(Some(PATIENCE)))
            .map_err(StartError::Socket)?;
        let child = Command::new(program)
            .arg0("lazaretd")
            .arg("read")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(there)))
            .stdout(Stdio::null())
            // what it says at its end belongs into the daemon's log
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(StartError::Start)?;
        let reader = Reader::on(here);
        let own = process::own_pid_namespace()?;
        match reader.read_chain(std::process::id(), own) {
            Err(ChainError::OwnNamespace) => Ok((reader, child)),
            Ok(_) => Err(StartError::Test {
                answer: "filters".to_owned(),
            }),
            Err(error) => Err(StartError::Test {
                answer: crate::gate::whole(&error),
            }),
        }
    }

    /// Watches for its end, on a thread of its own.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub(crate) fn watch(self: &Arc<Reader>, child: Child, then: Gone) -> Result<(), StartError> {
        let Some(socket) = self.lock().as_ref().map(UnixStream::try_clone) else {
            return Err(StartError::Watch(io::ErrorKind::NotConnected.into()));
        };
        let socket = socket.map_err(StartError::Watch)?;
        let reader = Arc::clone(self);
        let watch = std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || reader.until_gone(&socket, child, then))
            .map_err(StartError::Watch)?;
        *self.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(watch);
        Ok(())
    }

    /// Lets the reader end and waits for it, so that the daemon is the last of its processes: under cgroups v1 within a namespace
    /// systemd is not told when another one ends, and takes the stop for hanging. A reading that is under way is finished, within
    /// seconds.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::Release);
        if let Some(stream) = self.lock().take() {
            // it is gone already then
            stream.shutdown(std::net::Shutdown::Both).ok();
        }
        let watch = self
            .watch
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(watch) = watch {
            // it panics nowhere, and there is nobody to tell
            drop(watch.join());
        }
    }

    fn until_gone(&self, socket: &UnixStream, mut child: Child, then: Gone) {
        loop {
            match poll(&mut [PollFd::new(socket, PollFlags::empty())], None) {
                Ok(1..) => break,
                Ok(0) | Err(Errno::INTR) => {}
                // out of memory; a question to the reader will tell
                Err(error) => {
                    tracing::error!("cannot watch the reader of filters: {error}");
                    return;
                }
            }
        }
        if self.ending.load(Ordering::Acquire) {
            if let Err(error) = child.wait() {
                tracing::error!("cannot wait for the reader of filters: {error}");
            }
            return;
        }
        *self.lock() = None;
        // ours, and it has no socket to be asked by any more: it must not be left half alive
        let killed = child.kill();
        match killed.and_then(|()| child.wait()) {
            Ok(status) => tracing::error!("the reader of filters is gone: {status}"),
            Err(error) => tracing::error!("the reader of filters is gone: {error}"),
        }
        match then {
            Gone::End => {
                tracing::error!("ending, to be started again with a new one");
                std::process::abort();
            }
            Gone::GoOn => tracing::error!(
                "no container is admitted until lazaretd is started again; those that run go on"
            ),
        }
    }

    /// Every filter of a thread of a container, the first installed first; never empty. Blocks, for about 1 ms; calls of several
    /// threads wait for each other.
    ///
    /// # Guarantees
    /// Those of `lazaret_kernel::filters::read_chain`: the thread is in `container`, and that is not the namespace of this
    /// program.
    ///
    /// # Errors
    /// When it refuses, fails or is gone.
    pub(crate) fn read_chain(
        &self,
        tid: u32,
        container: NamespaceId,
    ) -> Result<Vec<Program>, ChainError> {
        let mut link = self.lock();
        let Some(stream) = link.as_ref() else {
            return Err(ChainError::Gone);
        };
        let namespace = container;
        match ask(stream, Request { tid, namespace }) {
            Ok(Reply::Chain(programs)) => Ok(programs),
            Ok(Reply::OwnNamespace) => Err(ChainError::OwnNamespace),
            Ok(Reply::Failed(why)) => Err(ChainError::Read(why)),
            Err(error) => {
                // a late answer must never be taken for the next one's; the watch sees this and ends what is left of it
                if let Some(stream) = link.take() {
                    // it is gone already then
                    stream.shutdown(std::net::Shutdown::Both).ok();
                }
                Err(ChainError::Talk(error))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<UnixStream>> {
        // every change is one statement
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ask(stream: &UnixStream, request: Request) -> io::Result<Reply> {
    protocol::send(stream, &request.to_bytes())?;
    let reply = protocol::receive(stream, MAX_REPLY)?;
    let reply = reply.ok_or(io::ErrorKind::UnexpectedEof)?;
    Reply::parse(&reply).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that answers each question with these bytes.
    fn answering(bytes: &'static [u8]) -> Reader {
        let (here, there) = UnixStream::pair().expect("pair");
        std::thread::spawn(move || {
            while let Ok(Some(_)) = protocol::receive(&there, 1000) {
                protocol::send(&there, bytes).expect("sent");
            }
        });
        Reader::on(here)
    }

    #[test]
    fn an_answer_that_is_none_gives_the_reader_up() {
        let own = process::own_pid_namespace().expect("readable");
        let reader = answering(&[2, b'n', b'o']);
        for _ in 0..2 {
            let error = reader.read_chain(7, own).expect_err("it says no");
            assert_eq!(error.to_string(), "no");
        }
        // no filter at all would be everything allowed
        let reader = answering(&[0]);
        let error = reader.read_chain(7, own).expect_err("nonsense");
        assert!(matches!(error, ChainError::Talk(_)), "{error:?}");
        let error = reader.read_chain(7, own).expect_err("given up");
        assert!(matches!(error, ChainError::Gone), "{error:?}");
    }
}
