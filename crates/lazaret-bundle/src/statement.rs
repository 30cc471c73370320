//! The in-toto Statement v1 that carries a policy or a permit: subjects are the image's digests, the predicate of a policy is
//! its canonical JSON, byte for byte.
//!
//! Statement v0.1 (what `cosign attest` writes by itself) is refused: the predicate must be the canonical bytes, and
//! cosign rewrites them.

use lazaret_core::digest::Digest;
use lazaret_core::policy::Policy;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeSet;

/// `_type` of a statement (in-toto attestation framework, "Statement", v1).
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// `predicateType` of a policy.
pub const PREDICATE_TYPE: &str = "https://lazaret.dev/policy/v1";

/// Why a policy cannot be put into a statement. Not seen with policies that passed their own checks.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the statement")]
pub struct StatementError(#[from] serde_json::Error);

/// The fields of a statement; which types they name is the verifier's question.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Statement<'a> {
    #[serde(rename = "_type")]
    pub(crate) statement_type: String,
    pub(crate) subject: Vec<Subject>,
    pub(crate) predicate_type: String,
    /// Not parsed here, so that the verifier sees the bytes that were signed.
    #[serde(borrow)]
    pub(crate) predicate: &'a RawValue,
}

/// One subject: a `ResourceDescriptor` of which only these two fields are accepted.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subject {
    /// For people; identity is the digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    digest: DigestSet,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DigestSet {
    #[serde(with = "bare_hex")]
    sha256: Digest,
}

/// A digest without `sha256:`, as in-toto's `DigestSet` has it.
mod bare_hex {
    use lazaret_core::digest::{Digest, DigestError};
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(digest: &Digest, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&digest.hex())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
        let hex = String::deserialize(from)?;
        format!("sha256:{hex}")
            .parse()
            .map_err(|error: DigestError| de::Error::custom(error))
    }
}

impl Statement<'_> {
    pub(crate) fn digests(&self) -> BTreeSet<Digest> {
        self.subject
            .iter()
            .map(|subject| subject.digest.sha256)
            .collect()
    }
}

/// The statement's bytes for a policy. Same policy, same bytes.
///
/// # Errors
/// [`StatementError`].
pub fn statement(policy: &Policy) -> Result<Vec<u8>, StatementError> {
    let name = &policy.wire().image.name;
    let subjects = subjects(policy.image_digests()).map(|subject| Subject {
        name: Some(name.clone()),
        ..subject
    });
    write(subjects.collect(), PREDICATE_TYPE, &policy.canonical_json())
}

/// The statement's bytes for a predicate about an image, which has no name there.
///
/// # Errors
/// [`StatementError`].
pub(crate) fn about(
    image: &BTreeSet<Digest>,
    predicate_type: &str,
    predicate: &[u8],
) -> Result<Vec<u8>, StatementError> {
    write(subjects(image).collect(), predicate_type, predicate)
}

fn subjects(image: &BTreeSet<Digest>) -> impl Iterator<Item = Subject> {
    image.iter().map(|digest| Subject {
        name: None,
        digest: DigestSet { sha256: *digest },
    })
}

fn write(
    subject: Vec<Subject>,
    predicate_type: &str,
    predicate: &[u8],
) -> Result<Vec<u8>, StatementError> {
    let statement = Statement {
        statement_type: STATEMENT_TYPE.to_owned(),
        subject,
        predicate_type: predicate_type.to_owned(),
        predicate: serde_json::from_slice(predicate)?,
    };
    Ok(serde_json::to_vec(&statement)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::tests::policy;

    #[test]
    fn bytes_are_these() -> Result<(), Box<dyn std::error::Error>> {
        let digests = [Digest::of(b"manifest"), Digest::of(b"config")];
        let policy = policy(&digests)?;
        let text = String::from_utf8(statement(&policy)?)?;
        let [first, second] = BTreeSet::from(digests)
            .into_iter()
            .map(|digest| digest.hex())
            .collect::<Vec<_>>()
            .try_into()
            .map_err(|_| "two digests")?;
        let canonical = String::from_utf8(policy.canonical_json())?;
        assert_eq!(
            text,
            format!(
                "{{\"_type\":\"https://in-toto.io/Statement/v1\",\"subject\":[\
                 {{\"name\":\"example/fhir\",\"digest\":{{\"sha256\":\"{first}\"}}}},\
                 {{\"name\":\"example/fhir\",\"digest\":{{\"sha256\":\"{second}\"}}}}],\
                 \"predicateType\":\"https://lazaret.dev/policy/v1\",\"predicate\":{canonical}}}"
            )
        );
        Ok(())
    }
}
