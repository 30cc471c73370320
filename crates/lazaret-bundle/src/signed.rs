//! What every signed paper is before it is a policy or a permit: an envelope with a pinned key's signature over an in-toto
//! statement of the wanted predicate type. What the predicate says is read by the module of each.

use crate::dsse::{Envelope, EnvelopeError, PAYLOAD_TYPE};
use crate::key::KeyId;
use crate::key::trusted::TrustedKeys;
use crate::statement::{STATEMENT_TYPE, Statement};
use core::fmt;
use lazaret_core::digest::Digest;
use std::collections::BTreeSet;

/// Why bytes are no signed statement of the wanted kind. [`SignedError::check`] is the stable name of each.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignedError {
    /// No envelope, or one over its bounds.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Nobody whom this node trusts signed it.
    #[error("no signature by a pinned key; pinned: {}", join(pinned))]
    Signature {
        /// The ids of the pinned keys.
        pinned: BTreeSet<KeyId>,
    },
    /// Signed, but something else than a statement.
    #[error("it holds `{found}`, wanted `{PAYLOAD_TYPE}`")]
    PayloadType {
        /// Its payload type.
        found: String,
    },
    /// Signed, but no statement.
    #[error("it holds no in-toto statement")]
    Statement(#[source] serde_json::Error),
    /// A statement of another version.
    #[error("it holds a statement of type `{found}`, wanted `{STATEMENT_TYPE}`")]
    StatementType {
        /// Its type.
        found: String,
    },
    /// A statement about something else.
    #[error("it holds a predicate of type `{found}`, wanted `{wanted}`")]
    PredicateType {
        /// Its predicate type.
        found: String,
        /// The type that is read here.
        wanted: &'static str,
    },
}

impl SignedError {
    /// Short name of the check that failed. Stable.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            SignedError::Envelope(EnvelopeError::TooLarge { .. }) => "bundle-size",
            SignedError::Envelope(_) => "bundle-format",
            SignedError::Signature { .. } => "signature",
            SignedError::PayloadType { .. } => "payload-type",
            SignedError::Statement(_) => "statement-format",
            SignedError::StatementType { .. } => "statement-type",
            SignedError::PredicateType { .. } => "predicate-type",
        }
    }
}

/// Some things in a sentence.
pub(crate) fn join<T: fmt::Display>(items: &BTreeSet<T>) -> String {
    let texts: Vec<String> = items.iter().map(T::to_string).collect();
    if texts.is_empty() {
        "no digest".to_owned()
    } else {
        texts.join(", ")
    }
}

/// A value that a pinned key signed for the image at hand. Only [`verify`](crate::verify()) and
/// [`verify_permit`](crate::verify_permit()), and those of their kind for any image, make one:
///
/// ```compile_fail,E0451
/// # use lazaret_bundle::Verified;
/// # fn key_id() -> lazaret_bundle::key::KeyId { unimplemented!() }
/// let forged = Verified { value: "policy", key_id: key_id(), statement_digest: "".parse().unwrap() };
/// ```
#[derive(Clone, Debug)]
pub struct Verified<T> {
    value: T,
    key_id: KeyId,
    statement_digest: Digest,
}

impl<T> Verified<T> {
    /// The pinned key that signed it.
    #[must_use]
    pub const fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// Digest of the signed payload.
    #[must_use]
    pub const fn statement_digest(&self) -> Digest {
        self.statement_digest
    }
}

impl<T> core::ops::Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Reads signed bytes: the subjects and the predicate go through `read`, whose value is then verified.
///
/// # Flow
/// Size → envelope → signature → payload type → statement → its types → `read`.
///
/// # Guarantees
/// Nothing but the envelope is parsed before a pinned key's signature over its payload was checked.
///
/// # Errors
/// [`SignedError`], the first check that failed, or the error of `read`.
pub(crate) fn open<T, E: From<SignedError>>(
    envelope: &[u8],
    keys: &TrustedKeys,
    wanted: &'static str,
    read: impl FnOnce(BTreeSet<Digest>, &[u8]) -> Result<T, E>,
) -> Result<Verified<T>, E> {
    let envelope = Envelope::read(envelope).map_err(SignedError::Envelope)?;
    let signed = envelope
        .verify(keys)
        .ok_or_else(|| SignedError::Signature {
            pinned: keys.iter().map(|key| key.id().clone()).collect(),
        })?;
    if signed.payload_type != PAYLOAD_TYPE {
        return Err(E::from(SignedError::PayloadType {
            found: signed.payload_type.to_owned(),
        }));
    }
    let statement: Statement<'_> =
        serde_json::from_slice(signed.payload).map_err(SignedError::Statement)?;
    if statement.statement_type != STATEMENT_TYPE {
        return Err(E::from(SignedError::StatementType {
            found: statement.statement_type,
        }));
    }
    if statement.predicate_type != wanted {
        return Err(E::from(SignedError::PredicateType {
            found: statement.predicate_type,
            wanted,
        }));
    }
    Ok(Verified {
        value: read(statement.digests(), statement.predicate.get().as_bytes())?,
        key_id: signed.key.clone(),
        statement_digest: Digest::of(signed.payload),
    })
}
