//! The public keys that a node pins.

use super::file::{self, KeyFileError};
use super::{KeyId, PublicKey};
use crate::read::{self, ReadError};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Most keys that a node pins, so that checking an envelope stays cheap (at most this times
/// [`SIGNATURES_LIMIT`](crate::dsse::SIGNATURES_LIMIT) signature checks).
pub const KEYS_LIMIT: usize = 64;

/// Public keys that a signature is accepted from; never empty.
#[derive(Clone, Debug)]
pub struct TrustedKeys(BTreeMap<KeyId, PublicKey>);

/// Why a directory of pinned keys was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustedKeysError {
    /// The directory cannot be opened or somebody else can change it.
    #[error(transparent)]
    Directory(#[from] ReadError),
    /// Its entries cannot be listed.
    #[error("cannot list `{}`", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// One of its keys cannot be used. A key that is skipped silently would be missed when it is needed.
    #[error("pinned key refused")]
    Key(#[from] KeyFileError),
    /// No key: then nothing could ever be verified.
    #[error("no pinned key: `{}` holds no file `*.pem`", path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// Too many keys.
    #[error("`{}` holds more than {KEYS_LIMIT} keys", path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
}

impl TrustedKeys {
    /// Trust in one key, as `lazaret verify --key` states it.
    #[must_use]
    pub fn only(key: PublicKey) -> TrustedKeys {
        TrustedKeys(BTreeMap::from([(key.id().clone(), key)]))
    }

    /// Reads every `*.pem` of a directory. The directory and each key must belong to this user or root and be writable
    /// by nobody else.
    ///
    /// # Errors
    /// [`TrustedKeysError`]; one bad key refuses them all.
    pub fn load(directory: &Path) -> Result<TrustedKeys, TrustedKeysError> {
        read::guarded_directory(directory)?;
        let list = |source| TrustedKeysError::List {
            path: directory.to_owned(),
            source,
        };
        let mut keys = BTreeMap::new();
        for entry in std::fs::read_dir(directory).map_err(list)? {
            let path = entry.map_err(list)?.path();
            if path.extension().is_none_or(|extension| extension != "pem") {
                continue;
            }
            if keys.len() == KEYS_LIMIT {
                return Err(TrustedKeysError::TooMany {
                    path: directory.to_owned(),
                });
            }
            let key = file::read_public(&path)?;
            keys.insert(key.id().clone(), key);
        }
        if keys.is_empty() {
            return Err(TrustedKeysError::Empty {
                path: directory.to_owned(),
            });
        }
        Ok(TrustedKeys(keys))
    }

    /// The keys, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &PublicKey> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Algorithm, PrivateKey};
    use std::os::unix::fs::PermissionsExt as _;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn reads_every_pem() -> Outcome {
        let folder = tempfile::tempdir()?;
        let load = || TrustedKeys::load(folder.path());
        assert!(matches!(load(), Err(TrustedKeysError::Empty { .. })));
        let mut ids = Vec::new();
        for (name, algorithm) in [
            ("a.pem", Algorithm::EcdsaP256),
            ("b.pem", Algorithm::Ed25519),
        ] {
            let key = PrivateKey::generate(algorithm)?;
            file::create_public(&folder.path().join(name), key.public())?;
            ids.push(key.public().id().clone());
        }
        std::fs::write(folder.path().join("README"), "no key")?;
        ids.sort();
        assert_eq!(
            load()?
                .iter()
                .map(|key| key.id().clone())
                .collect::<Vec<_>>(),
            ids
        );
        std::fs::write(folder.path().join("c.pem"), "no key either")?;
        assert!(matches!(
            load(),
            Err(TrustedKeysError::Key(KeyFileError::Key { .. }))
        ));
        Ok(())
    }

    #[test]
    fn writable_directory_is_refused() -> Outcome {
        let folder = tempfile::tempdir()?;
        let key = PrivateKey::generate(Algorithm::Ed25519)?;
        file::create_public(&folder.path().join("a.pem"), key.public())?;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o775))?;
        assert!(matches!(
            TrustedKeys::load(folder.path()),
            Err(TrustedKeysError::Directory(ReadError::Mode {
                found: 0o775,
                ..
            }))
        ));
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        TrustedKeys::load(folder.path())?;
        Ok(())
    }
}
