//! The keeper: where descriptors live while the daemon does not.
//!
//! A listener that only the daemon holds dies with it, and its container's asked calls fail. So each is given to a process that
//! lives on: systemd where the unit has a descriptor store, else a holder, a small process that the daemon starts
//! ([`hold`]). The next daemon takes them back by name. The listening sockets are kept as well, so that a runtime that
//! connects meanwhile waits instead of failing.
//!
//! Descriptors and names only: what is known of a container is in its record. Nothing here answers a call.

pub(crate) mod hold;
mod holder;
mod protocol;
pub(crate) mod systemd;

pub(crate) use protocol::Refusal;

use lazaret_kernel::fds::{FdsError, Inherited};
use lazaret_kernel::handover::PeerError;
use protocol::Name;
use serde::Deserialize;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// The gate's listening socket, by the keeper and by `FileDescriptorName=` of its socket unit.
pub(crate) const GATE: &str = "gate";

/// The control socket, in the same way.
pub(crate) const CONTROL: &str = "control";

/// Descriptors that systemd takes when it does not say how many (before systemd 254): its own bound is unknown here, and ours
/// is that of the holder.
const STORE_LIMIT: usize = 65_536;

/// A descriptor was not kept, or what was kept was not found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum KeepError {
    /// Not a name that every keeper takes.
    #[error(
        "`{name}` is no name for a descriptor: 1 to {} letters, digits, `.`, `_`, `-`",
        protocol::MAX_NAME
    )]
    Name {
        /// The name.
        name: String,
    },
    /// `systemd` was asked for.
    #[error("systemd is to keep descriptors, but NOTIFY_SOCKET is not set")]
    NoSystemd,
    /// A descriptor cannot be duplicated.
    #[error("cannot copy a descriptor")]
    Copy(#[source] io::Error),
    /// The holder's or systemd's socket.
    #[error("cannot connect to the keeper of descriptors")]
    Connect(#[source] io::Error),
    /// Who listens on the holder's socket is unknown.
    #[error("cannot tell who holds descriptors")]
    Peer(#[source] PeerError),
    /// Somebody else listens on the holder's socket.
    #[error("holder belongs to user {uid}")]
    Foreign {
        /// Whose it is.
        uid: u32,
    },
    /// It was not started.
    #[error("cannot start the holder")]
    Start(#[source] io::Error),
    /// It ended before it was ready.
    #[error("holder was not ready, {status}")]
    NotReady {
        /// How it ended.
        status: ExitStatus,
    },
    /// Another holder has the lock.
    #[error("another holder has the socket")]
    Taken,
    /// Another daemon holds on to the holder.
    #[error("holder talks to another daemon or does not end, for {} s", limit.as_secs())]
    Busy {
        /// How long it was tried.
        limit: Duration,
    },
    /// The holder is dead.
    #[error("holder has hung up")]
    Gone,
    /// No answer.
    #[error("keeper of descriptors did not answer within {} s", limit.as_secs())]
    Slow {
        /// The limit.
        limit: Duration,
    },
    /// It answers what it was not asked.
    #[error("holder's answer was not understood")]
    Nonsense,
    /// It said no.
    #[error("keeper of descriptors refuses")]
    Refused(#[from] Refusal),
    /// `FileDescriptorStoreMax=`.
    #[error("systemd keeps {limit} descriptors of this service and no more")]
    Full {
        /// The limit.
        limit: usize,
    },
    /// A message was not sent or received.
    #[error("cannot talk to the keeper of descriptors")]
    Message(#[source] FdsError),
    /// No thread or pipe for it.
    #[error("cannot watch the keeper of descriptors")]
    Watch(#[source] io::Error),
}

/// A descriptor that was kept.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Its name; systemd's names need not be different from each other.
    pub(crate) name: String,
    /// The descriptor.
    pub(crate) fd: OwnedFd,
}

impl From<(Name, OwnedFd)> for Kept {
    fn from((name, fd): (Name, OwnedFd)) -> Kept {
        Kept {
            name: name.as_str().to_owned(),
            fd,
        }
    }
}

impl From<Inherited> for Kept {
    fn from(Inherited { name, fd }: Inherited) -> Kept {
        Kept { name, fd }
    }
}

/// Who is to keep descriptors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Choice {
    /// systemd when it offers to, else the holder.
    #[default]
    Auto,
    /// systemd, even if it does not say that it has a store (before systemd 254).
    Systemd,
    /// The holder.
    Holder,
}

/// What the keeper is told.
#[derive(Clone, Debug)]
pub(crate) struct KeepConfig {
    /// Who.
    pub(crate) choice: Choice,
    /// The holder's socket, in a folder that is the daemon's alone. Absolute.
    pub(crate) socket: PathBuf,
    /// How long the holder waits for the next daemon, in seconds; 0: nothing is kept at all.
    pub(crate) hold_for_s: u32,
    /// This program: `/proc/self/exe`, which is right even when its file was replaced.
    pub(crate) program: PathBuf,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper")
            .field("place", &self.place())
            .finish()
    }
}

/// What the service manager says in the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manager {
    /// `NOTIFY_SOCKET`.
    pub(crate) notify: Option<String>,
    /// `FDSTORE`: how many descriptors it stores (from systemd 254 on).
    pub(crate) fdstore: Option<usize>,
}

impl Manager {
    /// From this process's environment.
    pub(crate) fn from_environment() -> Manager {
        Manager {
            notify: std::env::var("NOTIFY_SOCKET").ok(),
            fdstore: std::env::var("FDSTORE")
                .ok()
                .and_then(|value| value.parse().ok()),
        }
    }
}

/// Where descriptors are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// systemd's descriptor store.
    Systemd,
    /// The holder process.
    Holder,
    /// Nowhere: a restart of the daemon loses them.
    Nowhere,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Place::Systemd => "systemd",
            Place::Holder => "a holder process",
            Place::Nowhere => "nobody, they end with the gate",
        })
    }
}

/// Decides where. `stored`: something that systemd passed on can only have come from its store.
fn place(config: &KeepConfig, manager: &Manager, stored: bool) -> Result<Place, KeepError> {
    let notified = manager.notify.is_some();
    let offered = manager.fdstore.map_or(stored, |limit| limit > 0);
    match config.choice {
        _ if config.hold_for_s == 0 => Ok(Place::Nowhere),
        Choice::Systemd if notified => Ok(Place::Systemd),
        Choice::Systemd => Err(KeepError::NoSystemd),
        Choice::Auto if notified && offered => Ok(Place::Systemd),
        Choice::Auto | Choice::Holder => Ok(Place::Holder),
    }
}

enum Inner {
    Systemd(systemd::Store),
    Holder(holder::Holder),
    Nowhere,
}

/// Keeps descriptors for the next daemon.
///
/// Everything here blocks, for one round trip: about 20 µs to the holder, some ms to systemd; when the holder has to be replaced
/// meanwhile, for its start; when it or systemd hangs, for 2 s, 5 s and 10 s. So call it from `spawn_blocking` or a thread.
/// Calls of several threads wait for each other.
pub(crate) struct Keeper {
    inner: Inner,
}

impl Keeper {
    /// Finds who keeps descriptors, and takes back what the last daemon had kept there and what the service manager passed on.
    ///
    /// # Flow
    /// Decide where. If that is not the holder and one runs, take what it holds and end it (what it held is put where it
    /// belongs now). Else find it or start it.
    ///
    /// # Guarantees
    /// What is returned is kept on, under the same name, except for the sockets of socket units while the holder keeps: systemd
    /// has those itself.
    ///
    /// # Errors
    /// One variant for each step.
    pub(crate) fn open(
        config: &KeepConfig,
        manager: &Manager,
        inherited: Vec<Inherited>,
    ) -> Result<(Keeper, Vec<Kept>), KeepError> {
        let mut kept: Vec<Kept> = inherited.into_iter().map(Kept::from).collect();
        let stored = kept
            .iter()
            .any(|kept| kept.name != GATE && kept.name != CONTROL);
        let settings = holder::Settings {
            socket: config.socket.clone(),
            hold_for_s: config.hold_for_s,
            program: config.program.clone(),
        };
        let inner = match place(config, manager, stored)? {
            Place::Nowhere => {
                kept.extend(holder::dissolve(&settings)?);
                Inner::Nowhere
            }
            Place::Holder => {
                let (holder, held) = holder::Holder::open(settings)?;
                if stored {
                    move_to(&holder, manager, &kept)?;
                }
                kept.extend(held);
                Inner::Holder(holder)
            }
            Place::Systemd => {
                let notify = manager.notify.as_deref().ok_or(KeepError::NoSystemd)?;
                let limit = manager.fdstore.unwrap_or(STORE_LIMIT);
                let store = systemd::Store::open(notify, limit, &kept)?;
                for held in holder::dissolve(&settings)? {
                    if let Some(name) = Name::new(&held.name)
                        && kept.iter().all(|kept| kept.name != held.name)
                    {
                        store.put(name, &held.fd)?;
                        kept.push(held);
                    }
                }
                Inner::Systemd(store)
            }
        };
        Ok((Keeper { inner }, kept))
    }

    /// Where descriptors are kept.
    pub(crate) fn place(&self) -> Place {
        match self.inner {
            Inner::Systemd(_) => Place::Systemd,
            Inner::Holder(_) => Place::Holder,
            Inner::Nowhere => Place::Nowhere,
        }
    }

    /// How many descriptors are kept; 0 when nothing is kept anywhere.
    pub(crate) fn count(&self) -> usize {
        match &self.inner {
            Inner::Systemd(store) => store.count(),
            Inner::Holder(holder) => holder.count(),
            Inner::Nowhere => 0,
        }
    }

    /// Keeps a copy of a descriptor under a name that is not in use. When it returns, the next daemon will get it.
    ///
    /// # Errors
    /// A name that is in use or is none, a keeper that has no room or does not answer. It is not kept then.
    pub(crate) fn put(&self, name: &str, fd: BorrowedFd<'_>) -> Result<(), KeepError> {
        let name = parse(name)?;
        let copy = || fd.try_clone_to_owned().map_err(KeepError::Copy);
        match &self.inner {
            Inner::Systemd(store) => store.put(name, &copy()?),
            Inner::Holder(holder) => holder.put(name, copy()?),
            Inner::Nowhere => Ok(()),
        }
    }

    /// Keeps it no longer. A name that is not in use is no error.
    ///
    /// # Errors
    /// No name at all, or a keeper that does not answer; the next daemon may get it back then.
    pub(crate) fn remove(&self, name: &str) -> Result<(), KeepError> {
        let name = parse(name)?;
        match &self.inner {
            Inner::Systemd(store) => store.remove(&name),
            Inner::Holder(holder) => holder.remove(&name),
            Inner::Nowhere => Ok(()),
        }
    }
}

/// What systemd had stored goes to the holder, and out of the store: with two keepers a call could wait for ever.
fn move_to(holder: &holder::Holder, manager: &Manager, kept: &[Kept]) -> Result<(), KeepError> {
    let notify = manager.notify.as_deref();
    let store = notify.map(|notify| systemd::Store::open(notify, STORE_LIMIT, kept));
    let store = store.transpose()?;
    for kept in kept {
        if let Some(name) = Name::new(&kept.name)
            && kept.name != GATE
            && kept.name != CONTROL
        {
            holder.put(name.clone(), kept.fd.try_clone().map_err(KeepError::Copy)?)?;
            if let Some(store) = &store {
                store.remove(&name)?;
            }
        }
    }
    Ok(())
}

fn parse(name: &str) -> Result<Name, KeepError> {
    Name::new(name).ok_or_else(|| KeepError::Name {
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_keeps_when_it_offers_to() {
        let config = |choice, hold_for_s| KeepConfig {
            choice,
            socket: "/s".into(),
            hold_for_s,
            program: "/p".into(),
        };
        let manager = |notify: bool, fdstore| Manager {
            notify: notify.then(|| "/n".to_owned()),
            fdstore,
        };
        for (choice, notify, fdstore, stored, expected) in [
            (Choice::Auto, false, None, false, Some(Place::Holder)),
            (Choice::Auto, true, None, false, Some(Place::Holder)),
            (Choice::Auto, true, Some(0), false, Some(Place::Holder)),
            (Choice::Auto, true, Some(9), false, Some(Place::Systemd)),
            (Choice::Auto, true, None, true, Some(Place::Systemd)),
            (Choice::Auto, false, Some(9), true, Some(Place::Holder)),
            (Choice::Systemd, true, None, false, Some(Place::Systemd)),
            (Choice::Systemd, false, Some(9), true, None),
            (Choice::Holder, true, Some(9), true, Some(Place::Holder)),
        ] {
            let case = format!("{choice:?} {notify} {fdstore:?} {stored}");
            let manager = manager(notify, fdstore);
            let found = place(&config(choice, 30), &manager, stored).ok();
            assert_eq!(found, expected, "{case}");
            let nowhere = place(&config(choice, 0), &manager, stored).ok();
            assert_eq!(nowhere, Some(Place::Nowhere), "{case}");
        }
    }
}
