//! A revision on a container that runs.

use super::Daemon;
use crate::container::Container;
use crate::gate::{ReviseError, Revision};
use lazaret_core::control::{Reply, V1};
use lazaret_core::event::What;
use std::sync::Arc;

/// Why a revision is not in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PutInForceError {
    /// The container has no papers that could be revised.
    #[error("container {id} has no papers in order, nothing can be revised")]
    NoPapers {
        /// Its id.
        id: String,
    },
    /// The revision is refused.
    #[error(transparent)]
    Revise(#[from] ReviseError),
    /// A daemon after this one would not know; what was in force before is again.
    #[error("revision cannot be kept, nothing has changed")]
    Keep(#[from] crate::records::RecordsError),
}

impl Daemon {
    /// Puts an installed revision in force. Blocks: run it on a thread for that.
    ///
    /// # Flow
    /// Checks, then the record, then the table by which calls are decided: what is acknowledged outlives this daemon.
    ///
    /// # Errors
    /// [`PutInForceError`]; what was in force before still is.
    pub(crate) fn put_in_force(
        self: &Arc<Self>,
        container: &Arc<Container>,
        wanted: Revision,
    ) -> Result<Reply, PutInForceError> {
        // one at a time: two would each start from the papers before both
        let _one = container.revising();
        let before = container
            .papers()
            .ok_or_else(|| PutInForceError::NoPapers {
                id: container.id.clone(),
            })?;
        let after = Arc::new(self.gate.revise(&before, wanted)?);
        crate::fault::point("revision-checked");
        container.set_papers(Arc::clone(&after));
        if let Err(error) = self.save_now(container) {
            container.set_papers(before);
            return Err(error.into());
        }
        crate::fault::point("revised");
        let paper = &after.in_force;
        let what = What::Revised {
            from: before.in_force.digest.to_string(),
            to: paper.digest.to_string(),
            revision: paper.policy.revision(),
            key: paper.policy.key_id().to_string(),
            until_restart: after.until_restart.clone(),
        };
        self.events.tell(&container.id, what);
        Ok(Reply::Revised {
            v: V1,
            container: container.id.clone(),
            from: before.in_force.shown(),
            to: paper.shown(),
            until_restart: after.until_restart.clone(),
        })
    }
}
