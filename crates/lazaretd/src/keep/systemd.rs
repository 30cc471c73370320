//! systemd as keeper of descriptors (its *file descriptor store*, systemd.service(5), `FileDescriptorStoreMax=`), and what it
//! wants to know of a service (sd_notify(3)).
//!
//! systemd passes everything in the store to the next start of the service (`LISTEN_FDS`), after a crash as well, and forgets it
//! when the unit is stopped for good. A descriptor that hangs up leaves the store by itself, which for a listener means that
//! every task behind it is gone.

use super::protocol::Name;
use super::{KeepError, Kept};
use lazaret_kernel::fds;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sd_notify::NotifyState;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long systemd may take to read what it was sent.
const LIMIT: Duration = Duration::from_secs(5);

/// The store of this service.
pub(super) struct Store {
    socket: UnixDatagram,
    /// How many systemd takes; it drops what is more without a word to us.
    limit: usize,
    names: Mutex<BTreeSet<Name>>,
}

impl Store {
    /// Connects to `NOTIFY_SOCKET`.
    pub(super) fn open(notify: &str, limit: usize, stored: &[Kept]) -> Result<Store, KeepError> {
        let socket = UnixDatagram::unbound().map_err(KeepError::Connect)?;
        let address = match notify.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(notify),
        };
        address
            .and_then(|address| socket.connect_addr(&address))
            .and_then(|()| socket.set_write_timeout(Some(LIMIT)))
            .map_err(KeepError::Connect)?;
        let names = stored.iter().filter_map(|kept| Name::new(&kept.name));
        Ok(Store {
            socket,
            limit,
            names: Mutex::new(names.collect()),
        })
    }

    pub(super) fn put(&self, name: Name, fd: &OwnedFd) -> Result<(), KeepError> {
        {
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            if names.len() >= self.limit {
                return Err(KeepError::Full { limit: self.limit });
            }
            if !names.insert(name.clone()) {
                return Err(KeepError::Refused(super::Refusal::Exists));
            }
        }
        let stored = self
            .send(&format!("FDSTORE=1\nFDNAME={name}\n"), Some(fd))
            .and_then(|()| self.barrier());
        if stored.is_err() {
            self.forget(&name);
        }
        stored
    }

    pub(super) fn remove(&self, name: &Name) -> Result<(), KeepError> {
        if self.forget(name) {
            self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"), None)
        } else {
            Ok(())
        }
    }

    pub(super) fn count(&self) -> usize {
        self.names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    fn forget(&self, name: &Name) -> bool {
        self.names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name)
    }

    fn send(&self, text: &str, fd: Option<&OwnedFd>) -> Result<(), KeepError> {
        let fd: Vec<_> = fd.map(|fd| fd.as_fd()).into_iter().collect();
        fds::send(&self.socket, text.as_bytes(), &fd).map_err(KeepError::Message)
    }

    /// Waits until systemd has read everything that was sent before: it closes the descriptor that comes with
    /// `BARRIER=1` then (sd_notify_barrier(3)).
    fn barrier(&self) -> Result<(), KeepError> {
        let (reader, writer) = io::pipe().map_err(KeepError::Copy)?;
        self.send("BARRIER=1", Some(&writer.into()))?;
        let begin = Instant::now();
        loop {
            let left = LIMIT.saturating_sub(begin.elapsed());
            let timeout = Timespec {
                tv_sec: left.as_secs().cast_signed(), // five at most
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut fds = [PollFd::new(&reader, PollFlags::empty())];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => return Err(KeepError::Slow { limit: LIMIT }),
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(KeepError::Watch(error.into())),
            }
        }
    }
}

/// Tells the service manager that the daemon answers; nothing without one.
///
/// # Errors
/// When it cannot be told.
pub(crate) fn ready() -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Ready])
}

/// Tells the service manager that the daemon stops.
///
/// # Errors
/// When it cannot be told.
pub(crate) fn stopping() -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Stopping])
}

/// Tells the service manager that the daemon reads its configuration again; [`ready`] says that it has.
///
/// # Errors
/// When it cannot be told.
pub(crate) fn reloading() -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?])
}

/// How often [`alive`] is wanted (half of `WatchdogSec=`), if at all.
pub(crate) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// Tells the service manager that the daemon is alive.
///
/// # Errors
/// When it cannot be told.
pub(crate) fn alive() -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Watchdog])
}
