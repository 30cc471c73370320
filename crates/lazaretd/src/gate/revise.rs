//! Another revision for a container that runs.

use super::{Gate, Refusal, check_environment, filters, named_digest};
use crate::papers::Papers;
use lazaret_bundle::store;
use lazaret_core::control::Kernel;
use std::sync::Arc;

/// Which revision is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Revision {
    /// Its number; none is the highest that is installed.
    pub(crate) wanted: Option<u64>,
    /// What may be left to the next start.
    pub(crate) kernel: Kernel,
}

/// Why a revision is not put in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ReviseError {
    /// None is installed, or not this one.
    #[error("{}", missing(*wanted, installed))]
    NotInstalled {
        /// The number asked for.
        wanted: Option<u64>,
        /// Numbers that are installed.
        installed: Vec<u64>,
    },
    /// Two policies have this number.
    #[error("revision {wanted} is installed twice, with different policies")]
    Twice {
        /// The number.
        wanted: u64,
    },
    /// It is in force already.
    #[error("revision {revision} is in force already")]
    Already {
        /// Its number.
        revision: u64,
    },
    /// Its papers are not in order.
    #[error("revision refused ({}): {}", refusal.check, refusal.reason)]
    Refused {
        /// Which check, and why.
        refusal: Refusal,
    },
    /// A part of it could not be held.
    #[error(
        "the kernel's filter allows what revision {revision} denies or asks about, until the container is started again: \
         {} (hint: --partly puts the rest in force now)",
        calls.join(" ")
    )]
    KernelLooser {
        /// Its number.
        revision: u64,
        /// The calls.
        calls: Vec<String>,
    },
}

fn missing(wanted: Option<u64>, installed: &[u64]) -> String {
    let installed = match installed {
        [] => "none is".to_owned(),
        some => {
            let texts: Vec<String> = some.iter().map(u64::to_string).collect();
            format!("installed: {}", texts.join(", "))
        }
    };
    match wanted {
        Some(wanted) => {
            format!("revision {wanted} is not installed for the container's image, {installed}")
        }
        None => format!("no revision is installed for the container's image, {installed}"),
    }
}

impl Gate {
    /// The papers of a container with another installed revision in force.
    ///
    /// # Flow
    /// Revision, from the store by the image's digests → pinned keys → signature, statement, policy, image → environment → what the
    /// kernel's filter allows is compared with it → the bundle is kept for the next daemon.
    ///
    /// # Guarantees
    /// Nothing has changed yet: the caller puts the papers in force.
    ///
    /// # Errors
    /// [`ReviseError`].
    pub(crate) fn revise(&self, papers: &Papers, wanted: Revision) -> Result<Papers, ReviseError> {
        let refused = |refusal| ReviseError::Refused { refusal };
        let unread = |error| refused(Refusal::because("store", &error));
        let store = &self.config.store;
        let installed = store::revisions(store, &papers.digests).map_err(unread)?;
        let highest = installed.iter().map(|one| one.revision).max();
        let number = wanted.wanted.or(highest);
        let mut fitting = installed
            .iter()
            .filter(|one| Some(one.revision) == number)
            .map(|one| one.policy);
        let (policy, number) = match (fitting.next(), fitting.next(), number) {
            (Some(policy), None, Some(number)) => (policy, number),
            (Some(_), Some(_), Some(wanted)) => return Err(ReviseError::Twice { wanted }),
            _ => {
                return Err(ReviseError::NotInstalled {
                    wanted: wanted.wanted,
                    installed: installed.iter().map(|one| one.revision).collect(),
                });
            }
        };
        if policy == papers.in_force.digest {
            return Err(ReviseError::Already { revision: number });
        }
        let envelope = store::read_bundle(store, &papers.digests, &policy)
            .map_err(unread)?
            .ok_or(ReviseError::NotInstalled {
                wanted: Some(number),
                installed: Vec::new(),
            })?;
        let paper = self.verified(&envelope, &papers.digests).map_err(refused)?;
        if paper.digest != policy || paper.policy.revision() != number {
            // the store's names are not signed
            return Err(refused(Refusal::new(
                "store",
                &format!(
                    "the bundle under revision {number} ({policy}) is revision {} ({})",
                    paper.policy.revision(),
                    paper.digest
                ),
            )));
        }
        check_environment(&paper.policy).map_err(refused)?;
        let held = filters::held(&paper.policy, &papers.in_kernel.policy).map_err(refused)?;
        if wanted.kernel == Kernel::Whole && !held.looser.is_empty() {
            return Err(ReviseError::KernelLooser {
                revision: number,
                calls: held.looser,
            });
        }
        self.records
            .keep_paper(&envelope)
            .map_err(|error| refused(Refusal::because("state", &error)))?;
        Ok(Papers {
            image: named_digest(&paper.policy, &papers.digests).map_err(refused)?,
            in_kernel: Arc::clone(&papers.in_kernel),
            in_force: paper,
            digests: papers.digests.clone(),
            name: papers.name.clone(),
            engine: papers.engine,
            stricter: held.stricter,
            until_restart: held.looser,
        })
    }
}
