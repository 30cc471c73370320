//! What the parts of the daemon share: configuration, events, the containers, and the doing of what the phase machine
//! says.

use crate::config::Config;
use crate::container::{Container, asked};
use crate::events::Events;
use crate::readiness::{self, Where};
use crate::state::{Known, KnownContainers, State};
use lazaret_core::control::{ContainerState, ContainerStatus};
use lazaret_core::event::What;
use lazaret_core::life::{Effect, Input};
use lazaret_core::policy::Trigger;
use lazaret_kernel::netns::NetworkNamespace;
use lazaret_kernel::notify::Listener;
use lazaret_kernel::{pidfd, process};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A container by its id.
#[derive(Clone, Debug)]
enum Entry {
    /// Its listener is here.
    Live(Arc<Container>),
    /// Its listener died with the daemon before us.
    Unsupervised(Known),
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

/// The daemon's shared state.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// Where everything is.
    pub(crate) config: Arc<Config>,
    /// Where events go.
    pub(crate) events: Events,
    state: State,
    containers: Mutex<BTreeMap<String, Entry>>,
    began: Instant,
}

impl Daemon {
    /// A daemon without containers.
    pub(crate) fn new(config: Config, events: Events, state: State) -> Arc<Daemon> {
        Arc::new(Daemon {
            config: Arc::new(config),
            events,
            state,
            containers: Mutex::new(BTreeMap::new()),
            began: Instant::now(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // no code under this lock panics half way through a change
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the daemon began.
    pub(crate) fn now_ms(&self) -> u64 {
        // 2^64 ms are 584 million years
        self.began.elapsed().as_millis() as u64
    }

    /// Reports what ran under the daemon before us and still does; forgets what ended.
    pub(crate) fn recall(self: &Arc<Self>, known: KnownContainers) {
        for (id, known) in known {
            if !process::is_alive(known.identity()) {
                continue;
            }
            let pid = known.pid;
            self.events.tell(&id, What::Unsupervised { pid });
            let entry = Entry::Unsupervised(known.clone());
            self.lock().insert(id.clone(), entry);
            tokio::spawn(Arc::clone(self).forget(id, known));
        }
        self.save();
    }

    /// Forgets an unsupervised container when it is gone.
    async fn forget(self: Arc<Self>, id: String, known: Known) {
        match pidfd::open(known.pid) {
            Ok(first) => ended(first).await,
            Err(error) => tracing::debug!("container {id} is gone: {error}"),
        }
        let mut containers = self.lock();
        if matches!(containers.get(&id), Some(Entry::Unsupervised(entry)) if *entry == known) {
            containers.remove(&id);
            drop(containers);
            self.save();
        }
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
            Some(Entry::Unsupervised(known)) => Some(known.identity()),
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
    pub(crate) fn remove(self: &Arc<Self>, container: &Arc<Container>) {
        let mut containers = self.lock();
        // not one that has taken its id meanwhile
        if matches!(containers.get(&container.id), Some(Entry::Live(live)) if Arc::ptr_eq(live, container))
        {
            containers.remove(&container.id);
        }
        drop(containers);
        self.save();
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
                pid: known.pid,
                state: ContainerState::Unsupervised,
            },
        });
        each.collect()
    }

    /// Writes what the next daemon must know, on another thread.
    pub(crate) fn save(self: &Arc<Self>) {
        let daemon = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = daemon.state.save(|| daemon.known()) {
                tracing::error!("{:#}", anyhow::Error::from(error));
            }
        });
    }

    fn known(&self) -> KnownContainers {
        let containers = self.lock();
        let each = containers.iter().filter_map(|(id, entry)| {
            let known = match entry {
                Entry::Unsupervised(known) => known.clone(),
                Entry::Live(container) => Known {
                    // before its papers are checked nothing of it runs
                    name: container.papers()?.name.clone(),
                    pid: container.first.pid,
                    start_ticks: container.first.start_ticks,
                },
            };
            Some((id.clone(), known))
        });
        each.collect()
    }

    /// Moves a container's phase machine and does what it says.
    ///
    /// # Errors
    /// As the phase machine's, for what is asked by hand.
    pub(crate) fn step(
        self: &Arc<Self>,
        container: &Arc<Container>,
        input: Input,
    ) -> Result<(), lazaret_core::life::ByHandError> {
        let stepped = container.step(input, self.now_ms())?;
        let mut ended = stepped.ended;
        if let Some(deadline_ms) = stepped.deadline_ms {
            tokio::spawn(Arc::clone(self).settle(Arc::clone(container), deadline_ms));
        }
        for effect in stepped.effects {
            match effect {
                Effect::Changed { from, to, cause } => {
                    if let Some(calls) = ended.take() {
                        self.events.tell(&container.id, asked(from, calls));
                    }
                    let cause = cause.name().to_owned();
                    let what = What::PhaseChanged { from, to, cause };
                    self.events.tell(&container.id, what);
                }
                Effect::AskReadiness => self.ask_readiness(container),
                Effect::EndReadiness => container.end_readiness(),
                Effect::BeginDwell { .. } | Effect::EndDwell | Effect::RestartRefused => {}
            }
        }
        Ok(())
    }

    /// An input that cannot fail.
    pub(crate) fn happened(self: &Arc<Self>, container: &Arc<Container>, input: Input) {
        if let Err(error) = self.step(container, input) {
            tracing::error!("container {}: {error}", container.id);
        }
    }

    fn ask_readiness(self: &Arc<Self>, container: &Arc<Container>) {
        let Some(papers) = container.papers() else {
            return;
        };
        let Some(serving) = papers.policy.serving() else {
            return;
        };
        match NetworkNamespace::of(container.first.pid) {
            Ok(namespace) => {
                let place = Where {
                    namespace,
                    engine: papers.engine,
                    id: container.id.clone(),
                    docker_socket: self.config.docker_socket.clone(),
                };
                let asking = Arc::clone(self).until_ready(
                    Arc::clone(container),
                    Arc::new(place),
                    serving.trigger.clone(),
                );
                container.keep_readiness(tokio::spawn(asking).abort_handle());
            }
            Err(error) => tracing::error!(
                "container {} stays in startup: {:#}",
                container.id,
                anyhow::Error::from(error)
            ),
        }
    }

    async fn until_ready(
        self: Arc<Self>,
        container: Arc<Container>,
        place: Arc<Where>,
        trigger: Trigger,
    ) {
        let mut interval = tokio::time::interval(readiness::INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let (place, trigger) = (Arc::clone(&place), trigger.clone());
            let asked = tokio::task::spawn_blocking(move || readiness::ask(&trigger, &place));
            match asked.await {
                Ok(Ok(true)) => {
                    // ends this task (Effect::EndReadiness)
                    self.happened(&container, Input::Ready);
                    return;
                }
                Ok(Ok(false)) => self.happened(&container, Input::NotReady),
                Ok(Err(error)) => {
                    let error = anyhow::Error::from(error);
                    tracing::warn!("container {}: {error:#}", container.id);
                }
                Err(error) => tracing::error!("container {}: {error}", container.id),
            }
        }
    }

    async fn settle(self: Arc<Self>, container: Arc<Container>, deadline_ms: u64) {
        let left = deadline_ms.saturating_sub(self.now_ms());
        // rounding: the machine compares whole milliseconds
        tokio::time::sleep(Duration::from_millis(left.saturating_add(1))).await;
        self.happened(&container, Input::Tick);
    }
}

/// Waits until the process behind a pidfd has ended.
pub(crate) async fn ended(process: OwnedFd) {
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
impl WatchedFd for Listener {}
