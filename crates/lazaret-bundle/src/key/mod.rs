//! Signing keys: ECDSA on P-256 (what cosign makes) and Ed25519.
//!
//! Values only; files are in [`mod@file`], a node's pinned keys in [`trusted`]. Encrypted private keys are not read:
//! a signer's key is protected by where it lies (DESIGN §7).

pub mod file;
pub mod trusted;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use core::fmt;
use ed25519_dalek::pkcs8::spki::{DecodePublicKey as _, EncodePublicKey as _};
use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes, spki::der::pem::LineEnding,
};
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::elliptic_curve::Generate as _;
use p256::elliptic_curve::zeroize::Zeroizing;
use sha2::{Digest as _, Sha256};

/// A signature algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on NIST P-256 with SHA-256; deterministic (RFC 6979), signatures in ASN.1 DER as cosign writes them.
    EcdsaP256,
    /// Ed25519 (RFC 8032), signatures of 64 bytes.
    Ed25519,
}

impl Algorithm {
    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::EcdsaP256 => "ecdsa-p256",
            Algorithm::Ed25519 => "ed25519",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a key cannot be made, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The system's random generator failed (`getrandom(2)`).
    #[error("cannot get random bytes for a new {algorithm} key")]
    Random {
        /// The key that was wanted.
        algorithm: Algorithm,
    },
    /// The text is no private key that can be used.
    #[error(
        "no private key: expected an unencrypted PKCS#8 PEM (`-----BEGIN PRIVATE KEY-----`) with an ECDSA P-256 or Ed25519 key"
    )]
    NoPrivateKey,
    /// The text is no public key that can be used.
    #[error(
        "no public key: expected an SPKI PEM (`-----BEGIN PUBLIC KEY-----`) with an ECDSA P-256 or Ed25519 key"
    )]
    NoPublicKey,
    /// An Ed25519 public key of small order: signatures by it prove nothing (RFC 8032 §8.9, "weak keys").
    #[error("weak public key: the Ed25519 point has a small order")]
    WeakPublicKey,
    /// A key that is in memory cannot be written as DER; not seen with keys this crate makes.
    #[error("cannot encode the {algorithm} key")]
    Encode {
        /// The key's algorithm.
        algorithm: Algorithm,
    },
}

/// Which key: base64 of the SHA-256 of its DER-encoded `SubjectPublicKeyInfo` (uncompressed point), 44 characters.
/// The same text as cosign's `verificationMaterial.publicKey.hint`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl KeyId {
    /// The text form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A private key with its public half. Its bytes are wiped when it is dropped (both libraries do so), and it does not
/// print them.
pub struct PrivateKey {
    key: Private,
    public: PublicKey,
}

enum Private {
    EcdsaP256(Box<p256::ecdsa::SigningKey>),
    Ed25519(Box<ed25519_dalek::SigningKey>),
}

impl PrivateKey {
    fn new(key: Private) -> Result<PrivateKey, KeyError> {
        let public = PublicKey::new(match &key {
            Private::EcdsaP256(key) => Public::EcdsaP256(*key.verifying_key()),
            Private::Ed25519(key) => Public::Ed25519(key.verifying_key()),
        })?;
        Ok(PrivateKey { key, public })
    }

    /// A new key from the system's random generator.
    ///
    /// # Errors
    /// [`KeyError::Random`] when the kernel gives no random bytes.
    pub fn generate(algorithm: Algorithm) -> Result<PrivateKey, KeyError> {
        let key =
            match algorithm {
                Algorithm::EcdsaP256 => p256::ecdsa::SigningKey::try_generate()
                    .map(|key| Private::EcdsaP256(Box::new(key))),
                Algorithm::Ed25519 => ed25519_dalek::SigningKey::try_generate()
                    .map(|key| Private::Ed25519(Box::new(key))),
            }
            .map_err(|_| KeyError::Random { algorithm })?;
        PrivateKey::new(key)
    }

    /// Reads an unencrypted PKCS#8 PEM.
    ///
    /// # Errors
    /// [`KeyError::NoPrivateKey`]; what is wrong inside is not told, so that no byte of a key reaches a log.
    pub fn from_pem(text: &str) -> Result<PrivateKey, KeyError> {
        if let Ok(key) = p256::ecdsa::SigningKey::from_pkcs8_pem(text) {
            return PrivateKey::new(Private::EcdsaP256(Box::new(key)));
        }
        let key =
            ed25519_dalek::SigningKey::from_pkcs8_pem(text).map_err(|_| KeyError::NoPrivateKey)?;
        PrivateKey::new(Private::Ed25519(Box::new(key)))
    }

    /// The key as an unencrypted PKCS#8 PEM, wiped when dropped. Ed25519 keys are written in version 1 of the format
    /// (RFC 8410 §7, without the public key): OpenSSL 3.0 reads no other.
    ///
    /// # Errors
    /// [`KeyError::Encode`].
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        match &self.key {
            Private::EcdsaP256(key) => key.to_pkcs8_pem(LineEnding::LF),
            Private::Ed25519(key) => KeypairBytes {
                secret_key: key.to_bytes(),
                public_key: None,
            }
            .to_pkcs8_pem(LineEnding::LF),
        }
        .map_err(|_| KeyError::Encode {
            algorithm: self.public.algorithm(),
        })
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a message; the same key and message give the same signature.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.key {
            Private::EcdsaP256(key) => {
                let signature: p256::ecdsa::DerSignature = key.sign(message);
                signature.as_bytes().to_vec()
            }
            Private::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.public.algorithm())
    }
}

/// A public key and its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    key: Public,
    id: KeyId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Public {
    EcdsaP256(p256::ecdsa::VerifyingKey),
    Ed25519(ed25519_dalek::VerifyingKey),
}

impl Public {
    const fn algorithm(&self) -> Algorithm {
        match self {
            Public::EcdsaP256(_) => Algorithm::EcdsaP256,
            Public::Ed25519(_) => Algorithm::Ed25519,
        }
    }
}

impl PublicKey {
    fn new(key: Public) -> Result<PublicKey, KeyError> {
        let algorithm = key.algorithm();
        let der = match &key {
            Public::EcdsaP256(key) => key.to_public_key_der(),
            Public::Ed25519(key) => key.to_public_key_der(),
        }
        .map_err(|_| KeyError::Encode { algorithm })?;
        let id = KeyId(STANDARD.encode(Sha256::digest(der.as_bytes())));
        Ok(PublicKey { key, id })
    }

    /// Reads an SPKI PEM.
    ///
    /// # Errors
    /// [`KeyError::NoPublicKey`], [`KeyError::WeakPublicKey`].
    pub fn from_pem(text: &str) -> Result<PublicKey, KeyError> {
        if let Ok(key) = p256::ecdsa::VerifyingKey::from_public_key_pem(text) {
            return PublicKey::new(Public::EcdsaP256(key));
        }
        let key = ed25519_dalek::VerifyingKey::from_public_key_pem(text)
            .map_err(|_| KeyError::NoPublicKey)?;
        if key.is_weak() {
            return Err(KeyError::WeakPublicKey);
        }
        PublicKey::new(Public::Ed25519(key))
    }

    /// The key as an SPKI PEM.
    ///
    /// # Errors
    /// [`KeyError::Encode`].
    pub fn to_pem(&self) -> Result<String, KeyError> {
        match &self.key {
            Public::EcdsaP256(key) => key.to_public_key_pem(LineEnding::LF),
            Public::Ed25519(key) => key.to_public_key_pem(LineEnding::LF),
        }
        .map_err(|_| KeyError::Encode {
            algorithm: self.algorithm(),
        })
    }

    /// The key's id.
    #[must_use]
    pub const fn id(&self) -> &KeyId {
        &self.id
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    /// Whether `signature` is this key's over `message`. A signature in another algorithm's form is simply none.
    /// Ed25519 is checked by the strict rules (no small-order points), so a signature is bound to one message.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.key {
            Public::EcdsaP256(key) => p256::ecdsa::DerSignature::from_bytes(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            Public::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    const COSIGN: &str = include_str!("../../../../tests/vectors/cosign/cosign.pub");
    const OPENSSL_ED25519: &str = include_str!("../../../../tests/vectors/keys/ed25519.key");
    const OPENSSL_ED25519_PUBLIC: &str = include_str!("../../../../tests/vectors/keys/ed25519.pem");
    const OPENSSL_P256: &str = include_str!("../../../../tests/vectors/keys/p256.key");
    const OPENSSL_P256_PUBLIC: &str = include_str!("../../../../tests/vectors/keys/p256.pem");

    #[test]
    fn id_is_cosigns_hint() -> Outcome {
        // the hint in tests/vectors/cosign/v3-bundle.json
        assert_eq!(
            PublicKey::from_pem(COSIGN)?.id().as_str(),
            "f8qYdmFxUw0kh7Rl5m1s5CRICKKTW8HSvPOTTmVGTfg="
        );
        Ok(())
    }

    #[test]
    fn reads_and_writes_what_openssl_does() -> Outcome {
        for (private, public) in [
            (OPENSSL_ED25519, OPENSSL_ED25519_PUBLIC),
            (OPENSSL_P256, OPENSSL_P256_PUBLIC),
        ] {
            let key = PrivateKey::from_pem(private)?;
            assert_eq!(key.public(), &PublicKey::from_pem(public)?);
            assert_eq!(key.to_pem()?.as_str(), private);
            assert_eq!(key.public().to_pem()?, public);
        }
        Ok(())
    }

    #[test]
    fn signatures_bind_key_and_message() -> Outcome {
        for algorithm in [Algorithm::EcdsaP256, Algorithm::Ed25519] {
            let key = PrivateKey::generate(algorithm)?;
            let signature = key.sign(b"message");
            assert_eq!(signature, key.sign(b"message"), "deterministic");
            assert!(key.public().verifies(b"message", &signature));
            assert!(!key.public().verifies(b"Message", &signature));
            let other = PrivateKey::generate(algorithm)?;
            assert!(!other.public().verifies(b"message", &signature));
        }
        Ok(())
    }

    #[test]
    fn refuses_what_is_no_key() {
        for text in [
            "",
            "-----BEGIN PUBLIC KEY-----",
            COSIGN,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            assert!(matches!(
                PrivateKey::from_pem(text),
                Err(KeyError::NoPrivateKey)
            ));
        }
        for text in ["", OPENSSL_P256, &COSIGN.replace("Euh53", "Euh54")] {
            assert!(matches!(
                PublicKey::from_pem(text),
                Err(KeyError::NoPublicKey)
            ));
        }
    }

    #[test]
    fn weak_ed25519_key_is_refused() {
        // the identity element, y = 1: any message verifies under it by the lax rules
        let pem = "-----BEGIN PUBLIC KEY-----\n\
                   MCowBQYDK2VwAyEAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\
                   -----END PUBLIC KEY-----\n";
        assert!(matches!(
            PublicKey::from_pem(pem),
            Err(KeyError::WeakPublicKey)
        ));
    }

    #[test]
    fn debug_shows_no_secret() -> Outcome {
        let key = PrivateKey::from_pem(OPENSSL_ED25519)?;
        assert_eq!(format!("{key:?}"), "PrivateKey(ed25519)");
        Ok(())
    }
}
