//! The check at the first `execve`: nothing of the container has run yet, and nothing will unless every paper is in
//! order. Also what comes later: another thread, an `exec`, a take-over, a revision.
//!
//! Blocking work (files, signatures, ptrace, `ctr`): run it on a thread for such work, never on the answer path.
//! Pinned keys and bundles are read anew each time, so a changed store takes effect at the next start.

mod exec;
mod filters;
mod revise;

pub(crate) use revise::{ReviseError, Revision};

use crate::clock::Clock;
use crate::config::Config;
use crate::papers::{Paper, Papers};
use crate::reader::Reader;
use crate::records::{KeptPapers, Records};
use filters::Proofs;
use lazaret_bundle::store::{self, StoreError};
use lazaret_bundle::{TrustedKeys, Verified, verify};
use lazaret_core::digest::Digest;
use lazaret_core::filter::abi::Abi;
use lazaret_core::policy::Policy;
use lazaret_kernel::process::NamespaceId;
use serde::{Deserialize, Serialize};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

#[cfg(target_arch = "x86_64")]
const HOST: Abi = Abi::X86_64;
#[cfg(target_arch = "aarch64")]
const HOST: Abi = Abi::Aarch64;

/// Characters of a refusal's reason; a pipe takes 4096 bytes at once.
const MAX_REASON: usize = 1000;

/// What a runtime said of the process, and where it really is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claim {
    /// The container's id.
    pub(crate) id: String,
    /// Its bundle folder.
    pub(crate) bundle: PathBuf,
    /// `listenerMetadata` of its profile.
    pub(crate) metadata: String,
    /// The pid namespace that the process is in.
    pub(crate) namespace: NamespaceId,
}

/// Why a container does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Short name of the check that failed, stable: it stands in events and reports. Those of the bundle are
    /// `lazaret_bundle::VerifyError::CHECKS`.
    pub(crate) check: &'static str,
    /// One sentence without a full stop, on one line.
    pub(crate) reason: String,
}

impl Refusal {
    /// A refusal with this sentence.
    pub(crate) fn new(check: &'static str, reason: &str) -> Refusal {
        let line = reason.chars().map(|c| if c.is_control() { ' ' } else { c });
        Refusal {
            check,
            reason: line.take(MAX_REASON).collect(),
        }
    }

    /// A refusal because of this error and everything behind it.
    fn because(check: &'static str, error: &dyn std::error::Error) -> Refusal {
        Refusal::new(check, &whole(error))
    }
}

/// An error and everything behind it, in one line.
pub(crate) fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

/// The checks, and what they remember.
#[derive(Debug)]
pub(crate) struct Gate {
    config: Arc<Config>,
    records: Arc<Records>,
    clock: Arc<Clock>,
    reader: Arc<Reader>,
    proofs: Proofs,
    /// Papers in use by their bundle's digest, so that many containers under one policy hold it once.
    papers: Mutex<BTreeMap<Digest, Weak<Paper>>>,
}

/// What one take-over has verified: the bundle and the digests of the image. Only what was found in order.
#[derive(Debug, Default)]
pub(crate) struct Recalled(BTreeMap<(Digest, BTreeSet<Digest>), Arc<Paper>>);

impl Gate {
    /// Checks that remember nothing yet.
    pub(crate) fn new(
        config: Arc<Config>,
        records: Arc<Records>,
        clock: Arc<Clock>,
        reader: Arc<Reader>,
    ) -> Gate {
        Gate {
            config,
            records,
            clock,
            reader,
            proofs: Proofs::default(),
            papers: Mutex::default(),
        }
    }

    /// Checks a container at its first `execve`, which waits in thread `tid`.
    ///
    /// # Flow
    /// Image, from the engine's state → bundle, from the store by the image's digests and `listenerMetadata` → pinned keys →
    /// signature, statement, policy, image → environment → `listenerMetadata` is the policy's digest → the filters that the
    /// kernel runs for the thread are at least as strict as the policy → the bundle is kept for the next daemon.
    ///
    /// # Guarantees
    /// [`Papers`] rest on a `Verified<Policy>`, here as in [`Gate::recall`] and [`Gate::revise`].
    ///
    /// # Assumptions
    /// The engine and the runtime say the truth about the container's id and bundle (DESIGN §3).
    ///
    /// # Caveats
    /// Reading the filters withdraws the waiting notification; the `execve` is notified again with another id.
    ///
    /// # Errors
    /// The first check that failed.
    pub(crate) fn admit(&self, claim: &Claim, tid: u32) -> Result<Papers, Refusal> {
        crate::fault::point("admit");
        let image = lazaret_image::resolve(&claim.bundle, &claim.id, &self.config.roots)
            .map_err(|error| Refusal::because("image-unknown", &error))?;
        crate::fault::point("image-resolved");
        let envelope = self.named_bundle(&image.digests, &claim.metadata)?;
        let paper = self.verified(&envelope, &image.digests)?;
        crate::fault::point("verified");
        check_environment(&paper.policy)?;
        check_metadata(&claim.metadata, &paper.digest)?;
        let stricter = self.held_to(&paper, claim, tid)?;
        crate::fault::point("filters-proved");
        self.keep(&envelope);
        Ok(Papers {
            image: named_digest(&paper.policy, &image.digests)?,
            in_force: Arc::clone(&paper),
            in_kernel: paper,
            digests: image.digests,
            name: image.name,
            engine: image.engine,
            stricter,
            until_restart: Vec::new(),
        })
    }

    /// Checks another thread of an admitted container, or a process put into it: same profile, same strictness.
    ///
    /// # Errors
    /// The first check that failed.
    pub(crate) fn admit_again(
        &self,
        papers: &Papers,
        claim: &Claim,
        tid: u32,
    ) -> Result<(), Refusal> {
        check_metadata(&claim.metadata, &papers.in_kernel.digest)?;
        self.held_to(&papers.in_kernel, claim, tid).map(drop)
    }

    /// Proves that the kernel holds a thread to a policy at least; returns the calls that it holds more strictly.
    fn held_to(&self, paper: &Paper, claim: &Claim, tid: u32) -> Result<Vec<String>, Refusal> {
        let chain = self.chain(claim, tid)?;
        self.proofs.check(paper, &chain)
    }

    /// Papers of a container that runs, from what the daemon before us kept: verified again, with the keys pinned now.
    /// The same bundle for the same image is verified once in a take-over.
    ///
    /// # Errors
    /// The first check that failed.
    pub(crate) fn recall(
        &self,
        kept: &KeptPapers,
        recalled: &mut Recalled,
    ) -> Result<Papers, Refusal> {
        let mut paper = |bundle: &Digest| {
            let verified = recalled.0.entry((*bundle, kept.digests.clone()));
            match verified {
                Entry::Occupied(verified) => Ok(Arc::clone(verified.get())),
                Entry::Vacant(vacant) => {
                    let envelope = self
                        .records
                        .paper(bundle)
                        .map_err(|error| Refusal::because("state", &error))?;
                    let paper = self.verified(&envelope, &kept.digests)?;
                    Ok(Arc::clone(vacant.insert(paper)))
                }
            }
        };
        let in_kernel = paper(&kept.in_kernel)?;
        let in_force = paper(&kept.in_force)?;
        Ok(Papers {
            image: named_digest(&in_force.policy, &kept.digests)?,
            in_kernel,
            in_force,
            digests: kept.digests.clone(),
            name: kept.name.clone(),
            engine: kept.engine,
            stricter: kept.stricter.clone(),
            until_restart: kept.until_restart.clone(),
        })
    }

    /// Verifies a bundle for an image, with the keys pinned now.
    fn verified(&self, envelope: &[u8], image: &BTreeSet<Digest>) -> Result<Arc<Paper>, Refusal> {
        let keys = TrustedKeys::load(&self.config.store.join("keys"))
            .map_err(|error| Refusal::because("keys", &error))?;
        let policy = verify(envelope, &keys, image)
            .map_err(|error| Refusal::because(error.check(), &error))?;
        Ok(self.shared(policy, Digest::of(envelope)))
    }

    /// The same paper for every container under it.
    fn shared(&self, policy: Verified<Policy>, bundle: Digest) -> Arc<Paper> {
        let mut papers = self.papers.lock().unwrap_or_else(PoisonError::into_inner);
        papers.retain(|_, paper| paper.strong_count() > 0);
        if let Some(paper) = papers.get(&bundle).and_then(Weak::upgrade)
            && paper.policy.key_id() == policy.key_id()
        {
            return paper;
        }
        let paper = Arc::new(Paper {
            digest: policy.digest(),
            policy,
            bundle,
        });
        papers.insert(bundle, Arc::downgrade(&paper));
        paper
    }

    /// Keeps a bundle for the next daemon. Without it a take-over finds no papers, and what the container asks fails then.
    fn keep(&self, envelope: &[u8]) {
        if let Err(error) = self.records.keep_paper(envelope) {
            tracing::error!("{:#}", anyhow::Error::from(error));
        }
    }

    /// The bundle that the container's profile names; several revisions of an image's policy may be installed.
    fn named_bundle(&self, image: &BTreeSet<Digest>, metadata: &str) -> Result<Vec<u8>, Refusal> {
        let unread = |error: StoreError| Refusal::because("store", &error);
        let installed = store::revisions(&self.config.store, image).map_err(unread)?;
        if installed.is_empty() {
            let reason = format!("no policy is installed for image {}", joined(image));
            return Err(Refusal::new("no-bundle", &reason));
        }
        let named = metadata.parse().ok();
        let Some(policy) = named.filter(|named| installed.iter().any(|one| one.policy == *named))
        else {
            let metadata = if metadata.is_empty() {
                "none"
            } else {
                metadata
            };
            let revisions = installed
                .iter()
                .map(|one| format!("{} ({})", one.revision, one.policy));
            let reason = format!(
                "the container's profile is for policy {}, installed are revisions {}",
                metadata.chars().take(80).collect::<String>(),
                joined(revisions)
            );
            return Err(Refusal::new("metadata", &reason));
        };
        let bundle = store::read_bundle(&self.config.store, image, &policy).map_err(unread)?;
        bundle.ok_or_else(|| {
            let reason = format!(
                "policy {policy} is installed for image {} without its bundle",
                joined(image)
            );
            Refusal::new("no-bundle", &reason)
        })
    }
}

fn check_environment(policy: &Policy) -> Result<(), Refusal> {
    match policy.environment_mismatch(HOST, &kernel_release()) {
        Some(mismatch) => Err(Refusal::new("environment", &mismatch)),
        None => Ok(()),
    }
}

/// The image's digest that the policy names.
fn named_digest(policy: &Policy, image: &BTreeSet<Digest>) -> Result<Digest, Refusal> {
    // verify() has found that there is one
    let mut named = image.intersection(policy.image_digests());
    let named = named.next().copied();
    named.ok_or_else(|| Refusal::new("image", "policy is for another image"))
}

fn check_metadata(found: &str, digest: &impl Display) -> Result<(), Refusal> {
    let expected = digest.to_string();
    if found == expected {
        return Ok(());
    }
    let found = if found.is_empty() { "none" } else { found };
    Err(Refusal::new(
        "metadata",
        &format!("the container's profile is for policy {found}, the signed policy is {expected}"),
    ))
}

/// `uname -r`; empty, which no policy accepts, when it cannot be read.
fn kernel_release() -> String {
    let mut text = String::new();
    let read = File::open("/proc/sys/kernel/osrelease")
        .and_then(|file| file.take(256).read_to_string(&mut text));
    match read {
        Ok(_) => text.trim().to_owned(),
        Err(_) => String::new(),
    }
}

fn joined(items: impl IntoIterator<Item = impl Display>) -> String {
    let texts: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_and_bounded() {
        let refusal = Refusal::new("check", &format!("a\nb\u{7}{}", "c".repeat(5000)));
        assert!(refusal.reason.starts_with("a b c"));
        assert_eq!(refusal.reason.chars().count(), MAX_REASON);
    }
}
