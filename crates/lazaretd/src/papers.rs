//! The papers of a container: the policy that its kernel filter was made from, and the one in force.

use crate::records::KeptPapers;
use lazaret_bundle::Verified;
use lazaret_core::control::InForce;
use lazaret_core::digest::Digest;
use lazaret_core::policy::{Mode, Policy};
use lazaret_image::Engine;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A policy, signed by a pinned key.
#[derive(Debug)]
pub(crate) struct Paper {
    /// The policy.
    pub(crate) policy: Verified<Policy>,
    /// Its digest.
    pub(crate) digest: Digest,
    /// Digest of the bundle that it came in.
    pub(crate) bundle: Digest,
}

impl Paper {
    /// For `lazaret status`.
    pub(crate) fn shown(&self) -> InForce {
        InForce {
            policy: self.policy.name().to_owned(),
            revision: self.policy.revision(),
            digest: self.digest,
            key: self.policy.key_id().to_string(),
            mode: mode_name(self.policy.mode()).to_owned(),
        }
    }
}

/// What was found in order at the first `execve`, and what a revision made of it.
#[derive(Clone, Debug)]
pub(crate) struct Papers {
    /// What the kernel's filter was made from.
    pub(crate) in_kernel: Arc<Paper>,
    /// What decides the ask band.
    pub(crate) in_force: Arc<Paper>,
    /// The digest of the container's image that the policy names.
    pub(crate) image: Digest,
    /// Every digest of the container's image.
    pub(crate) digests: BTreeSet<Digest>,
    /// The container's name, as the engine shows it.
    pub(crate) name: String,
    /// The engine that started it.
    pub(crate) engine: Engine,
    /// Calls that the kernel holds more strictly than the policy in force.
    pub(crate) stricter: Vec<String>,
    /// Calls that the policy in force denies and the kernel's filter allows.
    pub(crate) until_restart: Vec<String>,
}

impl Papers {
    /// Without their bundles.
    pub(crate) fn kept(&self) -> KeptPapers {
        KeptPapers {
            name: self.name.clone(),
            engine: self.engine,
            digests: self.digests.clone(),
            in_kernel: self.in_kernel.bundle,
            in_force: self.in_force.bundle,
            stricter: self.stricter.clone(),
            until_restart: self.until_restart.clone(),
        }
    }
}

/// The mode's name in policies, events and status.
pub(crate) const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Observe => "observe",
    }
}
