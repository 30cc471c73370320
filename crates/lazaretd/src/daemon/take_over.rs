//! What the daemon before this one left is taken over.
//!
//! Order: lost calls are asked again, containers come back, then the processes that were put into them. Nothing is answered before
//! its container has its papers, verified anew.

use super::{Daemon, Entry, Unsupervised, ended};
use crate::container::Container;
use crate::gate::Recalled;
use crate::keep::Kept;
use crate::records::{ListenerName, Record};
use crate::serve;
use lazaret_core::event::What;
use lazaret_core::life::{Kind, Life, Readiness};
use lazaret_kernel::notify::Listener;
use lazaret_kernel::process::NamespaceId;
use lazaret_kernel::renotify::{Renotified, renotify_all};
use lazaret_kernel::{pidfd, process};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What the daemon before this one left, with its lost calls asked again; nothing of it is answered yet.
pub(crate) struct TakenBack {
    left: Vec<Left>,
    /// Records without a listener.
    unsupervised: BTreeMap<ListenerName, Record>,
    renotified: BTreeMap<NamespaceId, Renotified>,
}

/// A listener with its record.
struct Left {
    name: ListenerName,
    record: Record,
    listener: Listener,
}

impl Daemon {
    /// Takes back what was left, and makes every thread ask again whose answer was lost. Blocks: ptrace.
    ///
    /// The only part of the daemon that stops threads, so it is done before the daemon is confined ([`crate::confine`]).
    ///
    /// # Guarantees
    /// A listener without a record is let go, so what waits behind it fails.
    pub(crate) fn take_back(
        self: &Arc<Self>,
        mut known: BTreeMap<ListenerName, Record>,
        kept: Vec<Kept>,
    ) -> TakenBack {
        let mut left = Vec::new();
        for Kept { name, fd } in kept {
            let listener = ListenerName::parse(&name)
                .and_then(|name| Some((known.remove(&name)?, name)))
                .map(|(record, name)| (record, name, Listener::new(fd)));
            match listener {
                Some((record, name, Ok(listener))) => left.push(Left {
                    name,
                    record,
                    listener,
                }),
                Some((_, name, Err(error))) => {
                    tracing::error!("{:#}", anyhow::Error::from(error));
                    self.forget_listener(name);
                }
                None => {
                    tracing::warn!("listener {name} has no record: let go");
                    if let Err(error) = self.keeper.remove(&name) {
                        tracing::error!("{:#}", anyhow::Error::from(error));
                    }
                }
            }
        }
        crate::fault::point("taking-over");
        let namespaces: BTreeSet<_> = left.iter().map(|one| one.record.claim.namespace).collect();
        let renotified = match renotify_all(&namespaces) {
            Ok(renotified) => renotified,
            Err(error) => {
                // those that wait for an answer that was lost wait on; the others are served
                tracing::error!("{:#}", anyhow::Error::from(error));
                BTreeMap::new()
            }
        };
        crate::fault::point("asked-again");
        TakenBack {
            left,
            unsupervised: known,
            renotified,
        }
    }

    /// Goes on where the daemon before this one was. Blocks: files, signatures. Everything runs when it returns.
    ///
    /// # Guarantees
    /// A record without a listener is a container that is unsupervised, if it still runs. Papers that are no longer in order open
    /// nothing: every asked call of the container fails.
    pub(crate) fn go_on(self: &Arc<Self>, taken: TakenBack) {
        let TakenBack {
            mut left,
            unsupervised,
            mut renotified,
        } = taken;
        self.report_unsupervised(unsupervised);
        let used = left.iter().flat_map(|one| one.record.bundles()).collect();
        // containers before what was put into them
        left.sort_by_key(|one| one.record.kind != Kind::Container);
        let mut recalled = Recalled::default();
        for one in left {
            let namespace = one.record.claim.namespace;
            let again = renotified.remove(&namespace);
            if let Some(again) = &again {
                for thread in &again.left {
                    tracing::error!("container {}: {thread}", one.record.claim.id);
                }
            }
            let woken = again.map_or(0, |again| u64::from(again.woken));
            self.take_one_over(one, woken, &mut recalled);
            crate::fault::point("one-taken-over");
        }
        self.records.sweep(&used);
        crate::fault::point("taken-over");
    }

    fn take_one_over(self: &Arc<Self>, one: Left, asked_again: u64, recalled: &mut Recalled) {
        let Left {
            name,
            record,
            listener,
        } = one;
        let id = record.claim.id.clone();
        let exec = record.kind == Kind::Exec;
        let what = What::TakenOver {
            pid: record.process.pid,
            exec,
            asked_again,
        };
        self.events.tell(&id, what);
        self.tally.taken_over.fetch_add(1, Ordering::Relaxed);
        let container = match record.kind {
            Kind::Container => self.bring_back(&name, &record, recalled),
            Kind::Exec => self
                .live(&id)
                .filter(|container| container.namespace == record.claim.namespace),
        };
        self.runtime.spawn(serve::resume(
            Arc::clone(self),
            name,
            record,
            listener,
            container,
        ));
    }

    /// The container of a record, with its papers if they are still in order.
    fn bring_back(
        self: &Arc<Self>,
        name: &ListenerName,
        record: &Record,
        recalled: &mut Recalled,
    ) -> Option<Arc<Container>> {
        let id = &record.claim.id;
        let papers = record.papers.as_ref();
        let papers = papers.map(|kept| self.gate.recall(kept, recalled));
        let readiness = match &papers {
            Some(Ok(papers)) => Readiness::of(&papers.in_force.policy),
            Some(Err(_)) | None => Readiness::ByHand,
        };
        let (life, effects) = Life::resume(record.kind, record.life, readiness, self.now_ms());
        let container = Arc::new(Container::new(
            id.clone(),
            record.process,
            record.claim.namespace,
            name.clone(),
            life,
        ));
        container.set_tally(record.tally.clone());
        container.set_base(record.clone());
        match papers {
            Some(Ok(papers)) => container.set_papers(Arc::new(papers)),
            Some(Err(refusal)) => {
                let what = What::PapersLost {
                    check: refusal.check.to_owned(),
                    reason: refusal.reason.clone(),
                };
                self.events.tell(id, what);
                container.lose_papers(refusal.reason);
            }
            None => {}
        }
        if let Err(error) = self.register(&container) {
            tracing::error!("{error}");
            return None;
        }
        self.carry_out(&container, &effects);
        if container.deadline_ms().is_some() {
            self.wait_for_deadline(&container);
        }
        Some(container)
    }

    /// Reports what still runs and has no listener any more; forgets what ended.
    fn report_unsupervised(self: &Arc<Self>, known: BTreeMap<ListenerName, Record>) {
        for (name, record) in known {
            self.records.remove(&name);
            let (Kind::Container, Some(papers)) = (record.kind, record.papers) else {
                continue;
            };
            let first = record.process;
            if !process::is_alive(first) {
                continue;
            }
            let id = record.claim.id;
            let unsupervised = Unsupervised {
                name: papers.name,
                first,
            };
            self.tally.unsupervised.fetch_add(1, Ordering::Relaxed);
            self.events.tell(&id, What::Unsupervised { pid: first.pid });
            let entry = Entry::Unsupervised(unsupervised.clone());
            self.lock().insert(id.clone(), entry);
            self.runtime
                .spawn(Arc::clone(self).forget(id, unsupervised));
        }
    }

    /// Forgets an unsupervised container when it is gone.
    async fn forget(self: Arc<Self>, id: String, known: Unsupervised) {
        match pidfd::open(known.first.pid) {
            Ok(first) => ended(first).await,
            Err(error) => tracing::debug!("container {id} is gone: {error}"),
        }
        let mut containers = self.lock();
        if matches!(containers.get(&id), Some(Entry::Unsupervised(entry)) if *entry == known) {
            containers.remove(&id);
        }
    }
}
