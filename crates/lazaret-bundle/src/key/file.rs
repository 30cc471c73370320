//! Key files: the shell that creates and reads them.
//!
//! A file is never overwritten: a key that signed something is worth keeping, and a path typed twice must not lose it.

use super::{KeyError, PrivateKey, PublicKey};
use crate::read::{self, Guard, ReadError};
use p256::elliptic_curve::zeroize::Zeroizing;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Largest key file that is read, in bytes. A P-256 PEM has about 240.
pub const KEY_FILE_LIMIT: u64 = 16 * 1024;

/// Why a key file was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file cannot be read or must not be trusted.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file holds no usable key.
    #[error("cannot use `{}`", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
    /// The new file cannot be created; an existing one is never overwritten.
    #[error("cannot create `{}`", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The new file cannot be filled; it was removed again.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Creates a private key file that only its owner can read (mode 0600 from its creation on).
///
/// # Errors
/// [`KeyFileError::Create`] when the path exists, [`KeyFileError::Write`].
pub fn create_private(path: &Path, key: &PrivateKey) -> Result<(), KeyFileError> {
    let pem = key.to_pem().map_err(|source| unusable(path, source))?;
    create(path, pem.as_bytes(), 0o600)
}

/// Creates a public key file (mode 0644).
///
/// # Errors
/// [`KeyFileError::Create`] when the path exists, [`KeyFileError::Write`].
pub fn create_public(path: &Path, key: &PublicKey) -> Result<(), KeyFileError> {
    let pem = key.to_pem().map_err(|source| unusable(path, source))?;
    create(path, pem.as_bytes(), 0o644)
}

/// Reads a private key from a file that nobody but its owner can read.
///
/// # Errors
/// [`KeyFileError::Read`] also for a wrong owner or mode, [`KeyFileError::Key`].
pub fn read_private(path: &Path) -> Result<PrivateKey, KeyFileError> {
    let pem = Zeroizing::new(read::guarded(path, KEY_FILE_LIMIT, Guard::Secret)?);
    PrivateKey::from_pem(&pem).map_err(|source| unusable(path, source))
}

/// Reads a public key from a file that nobody but its owner can write.
///
/// # Errors
/// [`KeyFileError::Read`] also for a wrong owner or mode, [`KeyFileError::Key`].
pub fn read_public(path: &Path) -> Result<PublicKey, KeyFileError> {
    let pem = read::guarded(path, KEY_FILE_LIMIT, Guard::Pinned)?;
    PublicKey::from_pem(&pem).map_err(|source| unusable(path, source))
}

fn unusable(path: &Path, source: KeyError) -> KeyFileError {
    KeyFileError::Key {
        path: path.to_owned(),
        source,
    }
}

fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeyFileError> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(|source| KeyFileError::Create {
            path: path.to_owned(),
            source,
        })?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(|source| {
            // half a key is worse than none; the write's error is the one to tell
            drop(std::fs::remove_file(path));
            KeyFileError::Write {
                path: path.to_owned(),
                source,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Algorithm;
    use std::os::unix::fs::PermissionsExt as _;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn round_trip_and_modes() -> Outcome {
        let folder = tempfile::tempdir()?;
        for algorithm in [Algorithm::EcdsaP256, Algorithm::Ed25519] {
            let private = folder.path().join(format!("{algorithm}.key"));
            let public = folder.path().join(format!("{algorithm}.pem"));
            let key = PrivateKey::generate(algorithm)?;
            create_private(&private, &key)?;
            create_public(&public, key.public())?;
            let mode = |path: &Path| path.metadata().map(|m| m.permissions().mode() & 0o7777);
            assert_eq!(mode(&private)?, 0o600);
            assert_eq!(mode(&public)?, 0o644);
            let again = read_private(&private)?;
            assert_eq!(again.public(), key.public());
            assert_eq!(&read_public(&public)?, key.public());
            assert!(
                read_public(&public)?.verifies(b"message", &again.sign(b"message")),
                "{algorithm}"
            );
        }
        Ok(())
    }

    #[test]
    fn never_overwrites() -> Outcome {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("k");
        std::fs::write(&path, "precious")?;
        let key = PrivateKey::generate(Algorithm::Ed25519)?;
        for result in [
            create_private(&path, &key),
            create_public(&path, key.public()),
        ] {
            assert!(matches!(result, Err(KeyFileError::Create { .. })));
        }
        assert_eq!(std::fs::read(&path)?, b"precious");
        Ok(())
    }

    #[test]
    fn readable_private_key_is_refused() -> Outcome {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("k");
        create_private(&path, &PrivateKey::generate(Algorithm::EcdsaP256)?)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640))?;
        let error = read_private(&path).err().map(|error| error.to_string());
        assert_eq!(
            error,
            Some(format!(
                "`{}` has mode 0640, wanted none of the bits 0077",
                path.display()
            ))
        );
        Ok(())
    }

    #[test]
    fn writable_public_key_is_refused() -> Outcome {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("k");
        create_public(&path, PrivateKey::generate(Algorithm::EcdsaP256)?.public())?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o664))?;
        assert!(matches!(
            read_public(&path),
            Err(KeyFileError::Read(ReadError::Mode { found: 0o664, .. }))
        ));
        Ok(())
    }
}
