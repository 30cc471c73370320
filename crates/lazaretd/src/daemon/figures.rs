//! What a scrape shows.

use super::{Daemon, Entry};
use crate::metrics::{Audit, Container, Revisions, Snapshot, State};
use crate::{audit, events};
use lazaret_core::control::{ContainerState, ContainerStatus};

impl Daemon {
    /// Every figure at this moment.
    pub(crate) fn figures(&self) -> Snapshot {
        let containers = self.lock();
        let containers = containers
            .iter()
            .map(|(id, entry)| match entry {
                Entry::Live(container) => figures(container.status()),
                Entry::Unsupervised(known) => Container {
                    id: id.clone(),
                    name: known.name.clone(),
                    state: State::Unsupervised,
                    phase: None,
                    counts: [].into(),
                    revisions: None,
                },
            })
            .collect();
        Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            began_ms: self.began_unix_ms,
            tallied: self.tally.counted(),
            containers,
            audit: self
                .audit()
                .as_ref()
                .map(|export| audited(&export.metrics())),
            events_lost: self.events.lost(),
            events_waiting: self.events.waiting(),
            events_capacity: events::CAPACITY,
        }
    }
}

fn audited(export: &audit::Metrics) -> Audit {
    Audit {
        queue_bytes: export.queued_bytes,
        queue_records: export.queued_events,
        sent: export.posted,
        dropped: export.dropped,
        rejected: export.rejected,
        last_sent_ms: export.last_success_ms,
    }
}

fn figures(status: ContainerStatus) -> Container {
    let ContainerStatus {
        id, name, state, ..
    } = status;
    let (state, phase, counts, revisions) = match state {
        ContainerState::Admitted(admitted) => {
            let state = if admitted.in_force.mode == "observe" {
                State::Observed
            } else {
                State::Enforced
            };
            let revisions = Revisions {
                in_force: admitted.in_force.revision,
                in_kernel: admitted.in_kernel.revision,
            };
            (
                state,
                Some(admitted.phase),
                admitted.counts,
                Some(revisions),
            )
        }
        ContainerState::Prelude => (State::Prelude, None, [].into(), None),
        ContainerState::PapersLost { .. } => (State::Closed, None, [].into(), None),
        ContainerState::Unsupervised => (State::Unsupervised, None, [].into(), None),
    };
    Container {
        id,
        name,
        state,
        phase,
        counts,
        revisions,
    }
}
