//! What the parts of the daemon share: configuration, events, the containers.

mod denials;
mod figures;
mod keeping;
mod phases;
mod revise;
mod take_over;

use crate::answers::Answers;
use crate::audit;
use crate::clock::{Clock, unix_ms};
use crate::config::Config;
use crate::container::Container;
use crate::events::Events;
use crate::gate::Gate;
use crate::keep::Keeper;
use crate::metrics::Tally;
use crate::reader::Reader;
use crate::records::Records;
use lazaret_core::control::{ContainerState, ContainerStatus};
use lazaret_kernel::notify::Listener;
use lazaret_kernel::process::{self, Identity};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// A container by its id.
#[derive(Clone, Debug)]
enum Entry {
    /// Its listener is here.
    Live(Arc<Container>),
    /// It runs, and nobody kept its listener.
    Unsupervised(Unsupervised),
}

/// What is known of a container whose listener is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Unsupervised {
    name: String,
    first: Identity,
}

/// Why no container was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FindError {
    /// Nothing fits.
    #[error("no container `{wanted}` is known")]
    Unknown {
        /// What was asked for.
        wanted: String,
    },
    /// Too much fits.
    #[error("`{wanted}` fits {found} containers")]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// How many.
        found: usize,
    },
    /// It runs on without us.
    #[error("container {id} is not supervised: this gate started after it")]
    Unsupervised {
        /// Its id.
        id: String,
    },
}

/// An id that is taken.
#[derive(Debug, thiserror::Error)]
#[error("another container with the id {id} runs")]
pub(crate) struct TakenId {
    /// The id.
    id: String,
}

/// What the daemon's parts are made of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Where everything is.
    pub(crate) config: Arc<Config>,
    /// Where events go.
    pub(crate) events: Events,
    /// What the next daemon must know.
    pub(crate) records: Arc<Records>,
    /// Where listeners outlive the daemon.
    pub(crate) keeper: Arc<Keeper>,
    /// Who reads containers' filters.
    pub(crate) reader: Arc<Reader>,
    /// The wall clock.
    pub(crate) clock: Arc<Clock>,
    /// Threads that answer.
    pub(crate) answers: Answers,
    /// Where tasks run.
    pub(crate) runtime: Handle,
}

/// Questions for readiness at a time, so that many containers that start leave threads for checks.
const QUESTIONS: usize = 32;

/// The daemon's shared state.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// Where everything is.
    pub(crate) config: Arc<Config>,
    /// Where events go.
    pub(crate) events: Events,
    /// What the next daemon must know.
    pub(crate) records: Arc<Records>,
    /// The checks.
    pub(crate) gate: Gate,
    /// Threads that answer.
    pub(crate) answers: Answers,
    /// The wall clock.
    pub(crate) clock: Arc<Clock>,
    /// What happened since the beginning.
    pub(crate) tally: Tally,
    /// The export of AuditEvents, once it runs.
    audit: Mutex<Option<audit::Handle>>,
    began_unix_ms: u64,
    /// Where listeners outlive the daemon.
    pub(crate) keeper: Arc<Keeper>,
    runtime: Handle,
    containers: Mutex<BTreeMap<String, Entry>>,
    questions: Arc<Semaphore>,
    began: Instant,
    numbers: AtomicU64,
}

impl Daemon {
    /// A daemon without containers.
    pub(crate) fn new(parts: Parts) -> Arc<Daemon> {
        let Parts {
            config,
            events,
            records,
            keeper,
            reader,
            clock,
            answers,
            runtime,
        } = parts;
        let began_unix_ms = unix_ms();
        Arc::new(Daemon {
            gate: Gate::new(
                Arc::clone(&config),
                Arc::clone(&records),
                Arc::clone(&clock),
                reader,
            ),
            config,
            events,
            records,
            answers,
            clock,
            keeper,
            tally: Tally::default(),
            audit: Mutex::new(None),
            began_unix_ms,
            runtime,
            containers: Mutex::new(BTreeMap::new()),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            began: Instant::now(),
            numbers: AtomicU64::new(0),
        })
    }

    /// A number that no other session of this daemon has.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // no code under this lock panics half way through a change
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The export of AuditEvents, while it runs.
    pub(crate) fn audit(&self) -> MutexGuard<'_, Option<audit::Handle>> {
        self.audit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the daemon began.
    pub(crate) fn now_ms(&self) -> u64 {
        self.ms_at(Instant::now())
    }

    /// The same, of a moment that was looked at before.
    pub(crate) fn ms_at(&self, moment: Instant) -> u64 {
        // 2^64 ms are 584 million years
        moment.saturating_duration_since(self.began).as_millis() as u64
    }

    /// Takes in a container. One with the same id that is over (its end may not have been seen yet) gives way.
    ///
    /// # Errors
    /// When it still runs.
    pub(crate) fn register(&self, container: &Arc<Container>) -> Result<(), TakenId> {
        let mut containers = self.lock();
        let before = match containers.get(&container.id) {
            None => None,
            Some(Entry::Live(live)) => Some(live.first),
            Some(Entry::Unsupervised(known)) => Some(known.first),
        };
        if before.is_some_and(process::is_alive) {
            return Err(TakenId {
                id: container.id.clone(),
            });
        }
        containers.insert(container.id.clone(), Entry::Live(Arc::clone(container)));
        Ok(())
    }

    /// Takes out a container whose processes are all gone.
    pub(crate) fn remove(&self, container: &Arc<Container>) {
        let mut containers = self.lock();
        // not one that has taken its id meanwhile
        if matches!(containers.get(&container.id), Some(Entry::Live(live)) if Arc::ptr_eq(live, container))
        {
            containers.remove(&container.id);
        }
    }

    /// Every container that is supervised.
    pub(crate) fn all_live(&self) -> Vec<Arc<Container>> {
        let containers = self.lock();
        let live = containers.values().filter_map(|entry| match entry {
            Entry::Live(container) => Some(Arc::clone(container)),
            Entry::Unsupervised(_) => None,
        });
        live.collect()
    }

    /// The container with this id, if its listener is here.
    pub(crate) fn live(&self, id: &str) -> Option<Arc<Container>> {
        match self.lock().get(id) {
            Some(Entry::Live(container)) => Some(Arc::clone(container)),
            Some(Entry::Unsupervised(_)) | None => None,
        }
    }

    /// The one container that a person means: by id, by name, or by the beginning of its id.
    ///
    /// # Errors
    /// None, several, or one that is not supervised.
    pub(crate) fn find(&self, wanted: &str) -> Result<Arc<Container>, FindError> {
        let containers = self.lock();
        let fits = |(id, entry): &(&String, &Entry)| {
            let name = match entry {
                Entry::Live(container) => container.papers().map(|papers| papers.name.clone()),
                Entry::Unsupervised(known) => Some(known.name.clone()),
            };
            !wanted.is_empty() && (id.starts_with(wanted) || name.as_deref() == Some(wanted))
        };
        let exact = containers.get_key_value(wanted);
        let mut found = match exact {
            Some(exact) => vec![exact],
            None => containers.iter().filter(fits).collect(),
        };
        match (found.len(), found.pop()) {
            (1, Some((_, Entry::Live(container)))) => Ok(Arc::clone(container)),
            (1, Some((id, Entry::Unsupervised(_)))) => {
                Err(FindError::Unsupervised { id: id.clone() })
            }
            (_, None) => Err(FindError::Unknown {
                wanted: wanted.to_owned(),
            }),
            (found, Some(_)) => Err(FindError::Ambiguous {
                wanted: wanted.to_owned(),
                found,
            }),
        }
    }

    /// Every container, by id.
    pub(crate) fn status(&self) -> Vec<ContainerStatus> {
        let containers = self.lock();
        let each = containers.iter().map(|(id, entry)| match entry {
            Entry::Live(container) => container.status(),
            Entry::Unsupervised(known) => ContainerStatus {
                id: id.clone(),
                name: known.name.clone(),
                pid: known.first.pid,
                state: ContainerState::Unsupervised,
            },
        });
        each.collect()
    }
}

/// Waits until the process behind a pidfd has ended.
pub(crate) async fn ended<T: WatchedFd>(process: T) {
    match watched(process) {
        // a pidfd becomes readable when its process ends (pidfd_open(2))
        Ok(process) => {
            if let Err(error) = process.readable().await {
                tracing::error!("cannot wait for a process: {error}");
            }
        }
        Err(error) => tracing::error!("cannot wait for a process: {error}"),
    }
}

/// A descriptor whose readiness can be waited for.
///
/// # Errors
/// When `epoll(7)` does not take it.
#[expect(
    deprecated,
    reason = "the replacement is an unsafe function, and this program has no unsafe code; what it asks for (one open \
              descriptor, owned by the value and never exchanged) holds for the types in WatchedFd"
)]
pub(crate) fn watched<T: WatchedFd>(owner: T) -> std::io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(owner, Interest::READABLE)
}

/// Types that own one descriptor from their beginning to their end.
pub(crate) trait WatchedFd: AsRawFd {}
impl WatchedFd for OwnedFd {}
impl WatchedFd for Arc<OwnedFd> {}
impl WatchedFd for Listener {}
