//! The verifier: from untrusted bytes to a [`Verified`] policy, or one named reason why not.

use crate::dsse::{self, PAYLOAD_TYPE};
use crate::key::PrivateKey;
use crate::key::trusted::TrustedKeys;
use crate::signed::{SignedError, Verified, join, open};
use crate::statement::{self, PREDICATE_TYPE, StatementError};
use lazaret_core::digest::Digest;
use lazaret_core::policy::{Policy, PolicyError};
use std::collections::BTreeSet;

/// Why a bundle was refused. [`VerifyError::check`] is the stable name of each.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// Not signed, or another statement.
    #[error("bundle refused")]
    Signed(#[from] SignedError),
    /// A policy that cannot be used, or not in the form that is hashed.
    #[error("bundle holds an unusable policy")]
    Policy(#[source] PolicyError),
    /// Statement and policy name different images.
    #[error("bundle is for {}, its policy for {}", join(statement), join(policy))]
    Subjects {
        /// The statement's subjects.
        statement: BTreeSet<Digest>,
        /// The policy's digests.
        policy: BTreeSet<Digest>,
    },
    /// The papers of another ship.
    #[error(
        "bundle is for {}, the container runs {}",
        join(bundle),
        join(container)
    )]
    Image {
        /// The statement's subjects.
        bundle: BTreeSet<Digest>,
        /// The digests of the image at hand.
        container: BTreeSet<Digest>,
    },
}

impl VerifyError {
    /// Every name that [`VerifyError::check`] gives.
    pub const CHECKS: [&'static str; 10] = [
        "bundle-size",
        "bundle-format",
        "signature",
        "payload-type",
        "statement-format",
        "statement-type",
        "predicate-type",
        "policy",
        "subjects",
        "image",
    ];

    /// Short name of the check that failed. Stable: it stands in events and reports.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            VerifyError::Signed(error) => error.check(),
            VerifyError::Policy(_) => "policy",
            VerifyError::Subjects { .. } => "subjects",
            VerifyError::Image { .. } => "image",
        }
    }
}

/// Checks a bundle for the image that is about to start.
///
/// # Flow
/// Size → envelope → signature → payload type → statement → its types → policy → subjects are the policy's digests →
/// one of the image's digests is among them.
///
/// # Guarantees
/// Nothing but the envelope is parsed before a pinned key's signature over its payload was checked. The policy's
/// canonical bytes are the signed bytes, so [`Policy::digest`] identifies what was signed.
///
/// # Assumptions
/// `image` was resolved by the caller from the engine's state on this host, and every digest in it names the image
/// that runs (index, manifest or configuration), so that one match is a match.
///
/// # Caveats
/// No clock, no revocation, no rollback protection: an older revision that was signed once still verifies here.
///
/// # Errors
/// [`VerifyError`], the first check that failed.
pub fn verify(
    envelope: &[u8],
    keys: &TrustedKeys,
    image: &BTreeSet<Digest>,
) -> Result<Verified<Policy>, VerifyError> {
    let verified = verify_for_any_image(envelope, keys)?;
    let subjects = verified.image_digests();
    if subjects.is_disjoint(image) {
        return Err(VerifyError::Image {
            bundle: subjects.clone(),
            container: image.clone(),
        });
    }
    Ok(verified)
}

/// Checks a bundle when no image is at hand: to install it on a node or to show it. The gate uses [`verify`].
///
/// # Errors
/// [`VerifyError`], any but [`VerifyError::Image`].
pub fn verify_for_any_image(
    envelope: &[u8],
    keys: &TrustedKeys,
) -> Result<Verified<Policy>, VerifyError> {
    open(envelope, keys, PREDICATE_TYPE, |subjects, predicate| {
        let policy = Policy::from_canonical_json(predicate).map_err(VerifyError::Policy)?;
        if &subjects != policy.image_digests() {
            return Err(VerifyError::Subjects {
                statement: subjects,
                policy: policy.image_digests().clone(),
            });
        }
        Ok(policy)
    })
}

/// Why a policy was not signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignPolicyError {
    /// No statement can be made.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// No envelope can be made.
    #[error(transparent)]
    Envelope(#[from] dsse::SignError),
}

/// Signs a policy with each of the keys: the bundle's bytes, which [`verify`] reads. Same policy and keys, same bytes.
///
/// # Errors
/// [`SignPolicyError`].
pub fn sign(policy: &Policy, keys: &[&PrivateKey]) -> Result<Vec<u8>, SignPolicyError> {
    let statement = statement::statement(policy)?;
    Ok(dsse::sign(PAYLOAD_TYPE, &statement, keys)?)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::key::Algorithm;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    type Failure = Box<dyn std::error::Error>;

    /// A small policy for these digests.
    pub(crate) fn policy(digests: &[Digest]) -> Result<Policy, PolicyError> {
        policy_revision(digests, 1)
    }

    /// The same with this revision.
    pub(crate) fn policy_revision(
        digests: &[Digest],
        revision: u64,
    ) -> Result<Policy, PolicyError> {
        let digests: BTreeSet<_> = digests
            .iter()
            .map(|digest| format!("\"{digest}\""))
            .collect();
        let digests = digests.into_iter().collect::<Vec<_>>().join(",");
        Policy::from_canonical_json(
            format!(
                "{{\"apiVersion\":\"lazaret.dev/v1\",\"ceiling\":\"default\",\"environment\":{{\"arch\":\"x86_64\",\
                 \"kernel\":\">=5.11\",\"noNewPrivileges\":false,\"runtimes\":[\"runc 1.1.5\"]}},\"image\":{{\
                 \"digests\":[{digests}],\"name\":\"example/fhir\"}},\"kind\":\"SyscallPolicy\",\"metadata\":{{\
                 \"name\":\"fhir\",\"revision\":{revision}}},\"mode\":\"enforce\",\"otherwise\":{{\"action\":\"errno\",\
                 \"errno\":\"EPERM\"}},\"rules\":[{{\"allow\":[\"exit\",\"exit_group\",\"read\",\
                 \"restart_syscall\",\"rt_sigreturn\",\"write\"],\"why\":\"seen\"}}]}}"
            )
            .as_bytes(),
        )
    }

    struct Case {
        keys: TrustedKeys,
        policy: Policy,
        image: BTreeSet<Digest>,
        bundle: Vec<u8>,
    }

    fn case() -> Result<Case, Failure> {
        let key = PrivateKey::generate(Algorithm::EcdsaP256)?;
        let policy = policy(&[Digest::of(b"manifest"), Digest::of(b"config")])?;
        Ok(Case {
            keys: TrustedKeys::only(key.public().clone()),
            image: BTreeSet::from([Digest::of(b"config")]),
            bundle: sign(&policy, &[&key])?,
            policy,
        })
    }

    #[test]
    fn a_signed_policy_verifies_for_its_image_only() -> Result<(), Failure> {
        let case = case()?;
        let verified = verify(&case.bundle, &case.keys, &case.image)?;
        assert_eq!(verified.digest(), case.policy.digest());
        assert_eq!(
            Some(verified.key_id()),
            case.keys.iter().next().map(|key| key.id())
        );
        assert_eq!(
            verified.statement_digest(),
            Digest::of(&statement::statement(&case.policy)?)
        );
        let other = BTreeSet::from([Digest::of(b"other")]);
        let error = verify(&case.bundle, &case.keys, &other)
            .err()
            .ok_or("accepted")?;
        assert_eq!(error.check(), "image");
        assert_eq!(
            error.to_string(),
            format!(
                "bundle is for {}, the container runs {}",
                join(case.policy.image_digests()),
                Digest::of(b"other")
            )
        );
        let error = verify(&case.bundle, &case.keys, &BTreeSet::new()).err();
        assert_eq!(error.map(|error| error.check()), Some("image"));
        Ok(())
    }

    #[test]
    fn another_key_does_not_sign_for_a_pinned_one() -> Result<(), Failure> {
        let case = case()?;
        let other = PrivateKey::generate(Algorithm::EcdsaP256)?;
        let error = verify(&sign(&case.policy, &[&other])?, &case.keys, &case.image).err();
        assert_eq!(error.map(|error| error.check()), Some("signature"));
        Ok(())
    }

    static CASE: LazyLock<Option<Case>> = LazyLock::new(|| case().ok());

    proptest! {
        /// Whatever is done to a bundle's bytes: if it still verifies, it is the same policy.
        #[test]
        fn mutations_never_verify_as_another_policy(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..4),
        ) {
            let case = CASE.as_ref().ok_or(TestCaseError::fail("no case"))?;
            let mut bytes = case.bundle.clone();
            for (at, byte, kind) in edits {
                let at = at.index(bytes.len());
                match kind {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => drop(bytes.remove(at)),
                }
            }
            if let Ok(verified) = verify(&bytes, &case.keys, &case.image) {
                prop_assert_eq!(verified.digest(), case.policy.digest());
            }
        }
    }
}
