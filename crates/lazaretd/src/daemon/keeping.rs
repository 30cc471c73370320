//! What the next daemon gets: listeners with the keeper, records on disk.
//!
//! Work on files is done on threads for it, never on the answer path.

use super::Daemon;
use crate::container::Container;
use crate::prelude::Checked;
use crate::records::{ListenerName, Record, RecordsError};
use crate::serve::{EXEC_ADMITTED, admission};
use lazaret_core::life::{Input, Kind, Life, SavedLife};
use lazaret_kernel::notify::Listener;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

/// How often records and the floor of the clock are looked after; a crash forgets no more of the clock than this.
const KEEP_UP: Duration = Duration::from_secs(1);

impl Daemon {
    /// Writes the record of a new listener and gives the listener to the keeper, before any of its calls is answered; gives
    /// it back. What cannot be kept ends with this daemon: that is said in its log, and the container starts all the same.
    pub(crate) async fn keep(
        self: &Arc<Self>,
        name: ListenerName,
        record: Record,
        listener: Listener,
    ) -> Option<Listener> {
        let daemon = Arc::clone(self);
        let kept = tokio::task::spawn_blocking(move || {
            crate::fault::point("handed-over");
            match daemon.records.write(&name, || Some(record)) {
                Ok(()) => {
                    crate::fault::point("recorded");
                    if let Err(error) = daemon.keeper.put(name.as_str(), listener.as_fd()) {
                        tracing::error!(
                            "listener {name} ends with this daemon: {:#}",
                            anyhow::Error::from(error)
                        );
                        daemon.records.remove(&name);
                    }
                    crate::fault::point("kept");
                }
                Err(error) => tracing::error!(
                    "listener {name} ends with this daemon: {:#}",
                    anyhow::Error::from(error)
                ),
            }
            listener
        });
        match kept.await {
            Ok(listener) => Some(listener),
            Err(error) => {
                tracing::error!("a listener is lost: {error}");
                None
            }
        }
    }

    /// Writes down that a check found everything in order, before the `execve` that waits for it is answered. Blocks a little.
    pub(crate) fn write_admitted(
        &self,
        name: &ListenerName,
        mut record: Record,
        container: Option<&Container>,
        checked: &Checked,
    ) {
        match checked {
            Checked::Papers(papers) => {
                record.life = after(Kind::Container, admission(&papers.in_force.policy));
                record.papers = Some(papers.kept());
                if let Some(container) = container {
                    record.tally = container.tally();
                }
            }
            Checked::Exec(permit) => {
                record.life = after(Kind::Exec, EXEC_ADMITTED);
                record.permit = permit.as_ref().map(|permit| permit.envelope);
            }
            Checked::Filters | Checked::Asks => return,
        }
        if let Err(error) = self.records.write(name, || Some(record)) {
            // A take-over before it is written finds no papers: what the container asks fails then.
            if let Some(container) = container {
                container.set_unsaved();
            }
            tracing::error!("{:#}", anyhow::Error::from(error));
        }
    }

    /// Writes down how a container is, on another thread.
    pub(crate) fn save(self: &Arc<Self>, container: &Arc<Container>) {
        let (daemon, container) = (Arc::clone(self), Arc::clone(container));
        self.runtime.spawn_blocking(move || {
            if let Err(error) = daemon.save_now(&container) {
                tracing::error!("{:#}", anyhow::Error::from(error));
            }
        });
    }

    /// Writes down how a container is. Blocks a little.
    ///
    /// # Errors
    /// When it cannot be written; the next daemon knows how it was before.
    pub(crate) fn save_now(&self, container: &Container) -> Result<(), RecordsError> {
        let written = self
            .records
            .write(&container.listener, || container.record());
        if written.is_err() {
            container.set_unsaved();
        }
        written
    }

    /// Keeps what the next daemon must know up to date, for ever: the floor of the clock, and records that could not be written
    /// when there was something to write.
    pub(crate) async fn keep_up(self: Arc<Self>) {
        let mut interval = tokio::time::interval(KEEP_UP);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let daemon = Arc::clone(&self);
            let kept = tokio::task::spawn_blocking(move || {
                daemon.clock.now_ms();
                daemon.clock.save();
                for container in daemon.all_live() {
                    // the failure was said when it happened
                    if container.take_unsaved() && daemon.save_now(&container).is_ok() {
                        tracing::info!("container {}: its record is written again", container.id);
                    }
                }
            });
            if let Err(error) = kept.await {
                tracing::error!("cannot keep records up to date: {error}");
            }
        }
    }

    /// Forgets a listener whose processes are gone, or that cannot be answered any more: what still waits behind it fails with
    /// `ENOSYS`.
    pub(crate) fn forget_listener(self: &Arc<Self>, name: ListenerName) {
        let daemon = Arc::clone(self);
        self.runtime.spawn_blocking(move || {
            // first the keeper: a record without a listener is harmless
            if let Err(error) = daemon.keeper.remove(name.as_str()) {
                tracing::error!("{:#}", anyhow::Error::from(error));
            }
            crate::fault::point("unkept");
            daemon.records.remove(&name);
            crate::fault::point("forgotten");
            daemon.clock.save();
        });
    }
}

fn after(kind: Kind, input: Input) -> SavedLife {
    let mut life = Life::new(kind);
    // only what is asked by hand fails
    drop(life.step(input, 0));
    life.save()
}
