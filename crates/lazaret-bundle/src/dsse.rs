//! DSSE envelopes (secure-systems-lab/dsse, protocol v1.0): a payload, its type, and signatures over both.
//!
//! Says who signed which bytes. It does not look into the payload. A sigstore bundle v0.3, as cosign 3 pushes it, is
//! read for the envelope inside it; its transparency-log entries and timestamps are not looked at, because a node
//! works offline with pinned keys.

use crate::key::trusted::TrustedKeys;
use crate::key::{KeyId, PrivateKey, PublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::{Deserialize, Serialize, de::IgnoredAny};

/// Largest envelope that is parsed, in bytes. A policy of every system call with a reason each stays below 200 KiB.
pub const ENVELOPE_LIMIT: usize = 4 * 1024 * 1024;

/// Most signatures in one envelope.
pub const SIGNATURES_LIMIT: usize = 16;

/// Payload type of in-toto statements (in-toto attestation framework, "Envelope").
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// Media type of the sigstore bundles that are read.
const SIGSTORE_BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// An envelope whose base64 was decoded; nothing in it is trusted yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    payload: Vec<u8>,
    payload_type: String,
    signatures: Vec<Vec<u8>>,
}

/// A payload whose signature was checked.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'e> {
    /// The bytes that were signed.
    pub payload: &'e [u8],
    /// Their type, signed with them.
    pub payload_type: &'e str,
    /// The first pinned key that signed them.
    pub key: &'e KeyId,
}

/// Why bytes are no envelope.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Over the bound; nothing was parsed.
    #[error("envelope has {found} bytes, at most {ENVELOPE_LIMIT} are read")]
    TooLarge {
        /// Its size in bytes.
        found: usize,
    },
    /// No JSON, not the fields of an envelope, or others besides.
    #[error("no DSSE envelope")]
    Json(#[source] serde_json::Error),
    /// A field that is not base64.
    #[error("`{field}` of the envelope is not base64")]
    Base64 {
        /// `payload` or `sig`.
        field: &'static str,
        /// Where.
        source: base64::DecodeError,
    },
    /// No signature at all.
    #[error("envelope has no signature")]
    Unsigned,
    /// More signatures than are checked.
    #[error("envelope has {found} signatures, at most {SIGNATURES_LIMIT} are checked")]
    TooManySignatures {
        /// How many.
        found: usize,
    },
    /// A sigstore bundle of another version.
    #[error("sigstore bundle has media type `{found}`, known is `{SIGSTORE_BUNDLE}`")]
    BundleVersion {
        /// Its media type.
        found: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireEnvelope {
    payload: String,
    payload_type: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSignature {
    /// A hint that is not authenticated (DSSE protocol, "keyid"): written for people, never read by the verifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keyid: Option<String>,
    sig: String,
}

/// The part of a sigstore bundle that is used. `verificationMaterial` is named so that a file without it is refused.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireBundle {
    media_type: String,
    #[serde(rename = "verificationMaterial")]
    _verification_material: IgnoredAny,
    dsse_envelope: WireEnvelope,
}

/// The bytes that are signed: `DSSEv1 LEN(type) type LEN(payload) payload` (DSSE protocol, "PAE").
#[must_use]
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    )
    .into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// No key was given.
    #[error("no key to sign with")]
    NoKey,
    /// The envelope cannot be written as JSON.
    #[error("cannot write the envelope")]
    Encode(#[source] serde_json::Error),
    /// The verifier would not read it.
    #[error("envelope would have {found} bytes, at most {ENVELOPE_LIMIT} are read")]
    TooLarge {
        /// Its size in bytes.
        found: usize,
    },
}

/// Signs a payload with each of the keys and gives the envelope's JSON. Same keys and payload, same bytes.
///
/// # Errors
/// [`SignError`].
pub fn sign(
    payload_type: &str,
    payload: &[u8],
    keys: &[&PrivateKey],
) -> Result<Vec<u8>, SignError> {
    if keys.is_empty() {
        return Err(SignError::NoKey);
    }
    let message = pre_authentication_encoding(payload_type, payload);
    let envelope = WireEnvelope {
        payload: STANDARD.encode(payload),
        payload_type: payload_type.to_owned(),
        signatures: keys
            .iter()
            .map(|key| WireSignature {
                keyid: Some(key.public().id().to_string()),
                sig: STANDARD.encode(key.sign(&message)),
            })
            .collect(),
    };
    let bytes = serde_json::to_vec(&envelope).map_err(SignError::Encode)?;
    if bytes.len() > ENVELOPE_LIMIT {
        return Err(SignError::TooLarge { found: bytes.len() });
    }
    Ok(bytes)
}

impl Envelope {
    /// Reads a DSSE envelope, or the one inside a sigstore bundle v0.3.
    ///
    /// # Errors
    /// [`EnvelopeError`]; unknown fields are errors.
    pub fn read(bytes: &[u8]) -> Result<Envelope, EnvelopeError> {
        if bytes.len() > ENVELOPE_LIMIT {
            return Err(EnvelopeError::TooLarge { found: bytes.len() });
        }
        let wire = match serde_json::from_slice::<WireEnvelope>(bytes) {
            Ok(wire) => wire,
            // the error of the plain form is the one to tell when it is neither
            Err(plain) => match serde_json::from_slice::<WireBundle>(bytes) {
                Err(_) => return Err(EnvelopeError::Json(plain)),
                Ok(bundle) if bundle.media_type == SIGSTORE_BUNDLE => bundle.dsse_envelope,
                Ok(bundle) => {
                    return Err(EnvelopeError::BundleVersion {
                        found: bundle.media_type,
                    });
                }
            },
        };
        match wire.signatures.len() {
            0 => return Err(EnvelopeError::Unsigned),
            1..=SIGNATURES_LIMIT => {}
            found => return Err(EnvelopeError::TooManySignatures { found }),
        }
        Ok(Envelope {
            payload: decode("payload", &wire.payload)?,
            payload_type: wire.payload_type,
            signatures: wire
                .signatures
                .iter()
                .map(|signature| decode("sig", &signature.sig))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The payload, if at least one signature over it is by one of these keys.
    ///
    /// # Flow
    /// Every signature is tried with every key; `keyid` is not looked at, because nobody signed it.
    ///
    /// # Guarantees
    /// The returned payload and type are the bytes that the returned key signed.
    #[must_use]
    pub fn verify<'e>(&'e self, keys: &'e TrustedKeys) -> Option<Signed<'e>> {
        let message = pre_authentication_encoding(&self.payload_type, &self.payload);
        keys.iter()
            .find(|key| {
                self.signatures
                    .iter()
                    .any(|signature| key.verifies(&message, signature))
            })
            .map(|key: &PublicKey| Signed {
                payload: &self.payload,
                payload_type: &self.payload_type,
                key: key.id(),
            })
    }
}

/// Either alphabet, as the DSSE protocol asks for; padding and zero trailing bits are required, so each byte string
/// has one spelling per alphabet.
fn decode(field: &'static str, text: &str) -> Result<Vec<u8>, EnvelopeError> {
    STANDARD
        .decode(text)
        .or_else(|source| URL_SAFE.decode(text).map_err(|_| source))
        .map_err(|source| EnvelopeError::Base64 { field, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Algorithm;
    use proptest::prelude::*;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    const LEGACY: &[u8] = include_bytes!("../../../tests/vectors/cosign/legacy-dsse.json");
    const V3: &[u8] = include_bytes!("../../../tests/vectors/cosign/v3-bundle.json");

    fn cosign() -> Result<TrustedKeys, crate::key::KeyError> {
        let pem = include_str!("../../../tests/vectors/cosign/cosign.pub");
        Ok(TrustedKeys::only(PublicKey::from_pem(pem)?))
    }

    fn verifies(bytes: &[u8], keys: &TrustedKeys) -> bool {
        Envelope::read(bytes).is_ok_and(|envelope| envelope.verify(keys).is_some())
    }

    #[test]
    fn encoding_is_the_protocols_example() {
        // DSSE protocol v1.0, "Test vectors"
        assert_eq!(
            pre_authentication_encoding("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn cosigns_envelopes_verify() -> Outcome {
        let keys = cosign()?;
        let statement = include_bytes!("../../../tests/vectors/cosign/v3-statement.json");
        for bytes in [LEGACY, V3] {
            let envelope = Envelope::read(bytes)?;
            let signed = envelope.verify(&keys).ok_or("does not verify")?;
            assert_eq!(signed.payload_type, PAYLOAD_TYPE);
            assert_eq!(
                signed.key.as_str(),
                "f8qYdmFxUw0kh7Rl5m1s5CRICKKTW8HSvPOTTmVGTfg="
            );
            let payload: serde_json::Value = serde_json::from_slice(signed.payload)?;
            assert_eq!(
                payload,
                serde_json::from_slice::<serde_json::Value>(statement)?
            );
        }
        Ok(())
    }

    /// Every byte of `payload`, `payloadType` and `sig`, changed by one bit.
    #[test]
    fn cosigns_envelopes_with_one_changed_byte_do_not() -> Outcome {
        let keys = cosign()?;
        for bytes in [LEGACY, V3] {
            let text = std::str::from_utf8(bytes)?;
            for value in ["eyJf", "application/vnd.in-toto", "MEUC"] {
                let start = text.find(value).ok_or("value")?;
                let end = start + text[start..].find('"').ok_or("end")?;
                for at in start..end {
                    let mut changed = bytes.to_vec();
                    changed[at] ^= 1 << (at % 6);
                    assert!(!verifies(&changed, &keys), "byte {at}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn one_pinned_signature_of_several_is_enough() -> Outcome {
        let [a, b, c] = [
            Algorithm::EcdsaP256,
            Algorithm::Ed25519,
            Algorithm::EcdsaP256,
        ]
        .map(PrivateKey::generate);
        let (a, b, c) = (a?, b?, c?);
        let bytes = sign("t", b"payload", &[&a, &b])?;
        assert_eq!(bytes, sign("t", b"payload", &[&a, &b])?);
        for (key, expected) in [(&a, true), (&b, true), (&c, false)] {
            assert_eq!(
                verifies(&bytes, &TrustedKeys::only(key.public().clone())),
                expected
            );
        }
        Ok(())
    }

    #[test]
    fn refusals() -> Outcome {
        let key = PrivateKey::generate(Algorithm::Ed25519)?;
        let text = String::from_utf8(sign("t", b"payload", &[&key])?)?;
        let check = |input: &str, expected: &str| {
            let found = Envelope::read(input.as_bytes())
                .err()
                .map(|error| error.to_string());
            assert_eq!(found.as_deref(), Some(expected), "{input:.80}");
        };
        check("", "no DSSE envelope");
        check(&text.replacen('{', "{\"extra\":1,", 1), "no DSSE envelope");
        check(
            &text.replacen('{', "{\"payloadType\":\"u\",", 1),
            "no DSSE envelope",
        );
        check(
            &text.replace("cGF5bG9hZA==", "cGF5bG9hZA"),
            "`payload` of the envelope is not base64",
        );
        check(
            &text.replace("cGF5bG9hZA==", "cGF5bG9hZB=="),
            "`payload` of the envelope is not base64",
        );
        check(
            r#"{"payload":"","payloadType":"","signatures":[]}"#,
            "envelope has no signature",
        );
        check(
            &format!(
                r#"{{"payload":"","payloadType":"","signatures":[{}]}}"#,
                [r#"{"sig":""}"#; 17].join(",")
            ),
            "envelope has 17 signatures, at most 16 are checked",
        );
        check(
            &" ".repeat(ENVELOPE_LIMIT + 1),
            "envelope has 4194305 bytes, at most 4194304 are read",
        );
        check(
            &String::from_utf8(V3.to_vec())?.replace("v0.3", "v0.4"),
            "sigstore bundle has media type `application/vnd.dev.sigstore.bundle.v0.4+json`, known is \
             `application/vnd.dev.sigstore.bundle.v0.3+json`",
        );
        assert!(matches!(sign("t", b"", &[]), Err(SignError::NoKey)));
        Ok(())
    }

    proptest! {
        /// Whatever is done to an envelope's bytes: if it still verifies, it says the same.
        #[test]
        fn mutations_never_change_what_is_signed(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..4),
        ) {
            let keys = cosign().map_err(|error| TestCaseError::fail(error.to_string()))?;
            for original in [LEGACY, V3] {
                let mut bytes = original.to_vec();
                for (at, byte, kind) in &edits {
                    let at = at.index(bytes.len());
                    match kind {
                        0 => bytes[at] = *byte,
                        1 => bytes.insert(at, *byte),
                        _ => drop(bytes.remove(at)),
                    }
                }
                let meaning = |bytes: &[u8]| {
                    Envelope::read(bytes).ok().and_then(|envelope| {
                        envelope
                            .verify(&keys)
                            .map(|signed| (signed.payload.to_vec(), signed.payload_type.to_owned()))
                    })
                };
                if let Some(found) = meaning(&bytes) {
                    prop_assert_eq!(Some(found), meaning(original));
                }
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Envelope::read(&bytes).is_err());
        }
    }
}
