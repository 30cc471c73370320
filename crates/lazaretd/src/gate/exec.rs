//! A process that is put into an admitted container: its filters, and whether the policy or a permit lets it start.

use super::{Claim, Gate, Refusal};
use crate::papers::Papers;
use crate::permit::{Opening, Permitted};
use lazaret_bundle::store::{self, StoredPermit};
use lazaret_bundle::{TrustedKeys, verify_permit};
use lazaret_core::digest::Digest;
use lazaret_core::policy::ExecStart;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Permits that did not fit and are named in a refusal.
const NAMED: usize = 3;

impl Gate {
    /// Checks a process that is put into an admitted container, at its first `execve`.
    ///
    /// # Flow
    /// `listenerMetadata` and filters, as for the container → installed permits: signature, image, container, node, time → if there
    /// is none: does the policy refuse execs?
    ///
    /// # Errors
    /// The first check that failed.
    pub(crate) fn admit_exec(
        &self,
        papers: &Papers,
        claim: &Claim,
        tid: u32,
    ) -> Result<Option<Permitted>, Refusal> {
        self.admit_again(papers, claim, tid)?;
        let (permit, others) = self.permit_for(papers, claim);
        match (papers.in_force.policy.exec_start(), permit) {
            (ExecStart::Refuse, None) => {
                let others = match others.as_slice() {
                    [] => "no permit is installed".to_owned(),
                    others => others.join("; "),
                };
                Err(Refusal::new(
                    "exec-refused",
                    &format!("the policy refuses processes from outside, and {others}"),
                ))
            }
            (_, permit) => Ok(permit),
        }
    }

    /// The widest permit that holds here and now, or why the first ones do not.
    fn permit_for(&self, papers: &Papers, claim: &Claim) -> (Option<Permitted>, Vec<String>) {
        let stored = match store::permits(&self.config.store) {
            Ok(stored) => stored,
            Err(error) => return (None, vec![super::whole(&error)]),
        };
        if stored.is_empty() {
            return (None, Vec::new());
        }
        let keys = match TrustedKeys::load(&self.config.store.join("keys")) {
            Ok(keys) => keys,
            Err(error) => return (None, vec![super::whole(&error)]),
        };
        let mut best: Option<Permitted> = None;
        let mut others = Vec::new();
        for one in &stored {
            match self.holds(one, &keys, papers, claim) {
                Ok(permitted) => {
                    let wider = best.as_ref().is_none_or(|best| {
                        Opening::by(&permitted.permit) > Opening::by(&best.permit)
                    });
                    if wider {
                        best = Some(permitted);
                    }
                }
                Err(reason) if others.len() < NAMED => others.push(reason),
                Err(_) => {}
            }
        }
        if let Some(best) = &best
            && let Some(envelope) = stored
                .iter()
                .find(|one| Digest::of(&one.envelope) == best.envelope)
        {
            self.keep(&envelope.envelope);
            crate::fault::point("permit-kept");
        }
        (best, others)
    }

    fn holds(
        &self,
        stored: &StoredPermit,
        keys: &TrustedKeys,
        papers: &Papers,
        claim: &Claim,
    ) -> Result<Permitted, String> {
        let named = |reason: String| format!("permit {}: {reason}", short(&stored.digest));
        let permit = verify_permit(&stored.envelope, keys, &papers.digests)
            .map_err(|error| named(super::whole(&error)))?;
        permit
            .applies_to(&claim.id, &papers.name, &self.config.node)
            .and_then(|()| permit.holds_at(self.clock.now_ms()))
            .map_err(|error| named(super::whole(&error)))?;
        Ok(Permitted {
            permit: Arc::new(permit),
            envelope: Digest::of(&stored.envelope),
        })
    }

    /// The permit of an `exec` that the daemon before this one let start; none when it is no longer in order, which leaves the
    /// `exec` to the policy.
    pub(crate) fn recall_permit(
        &self,
        envelope: &Digest,
        image: &BTreeSet<Digest>,
    ) -> Option<Permitted> {
        let bytes = self.records.paper(envelope).ok()?;
        let keys = TrustedKeys::load(&self.config.store.join("keys")).ok()?;
        let permit = verify_permit(&bytes, &keys, image).ok()?;
        Some(Permitted {
            permit: Arc::new(permit),
            envelope: *envelope,
        })
    }
}

fn short(digest: &Digest) -> String {
    digest.hex().chars().take(12).collect()
}
