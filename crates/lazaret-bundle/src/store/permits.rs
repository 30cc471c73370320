//! Permits on this node, each in a file that is named by the digest of what was signed.

use super::revisions::{entries, is_temporary};
use super::write::{file, flush, lock, make};
use super::{PERMITS_LIMIT, StoreError};
use crate::permit::{PERMIT_LIMIT, Permit};
use crate::read::{self, ReadError};
use crate::signed::Verified;
use lazaret_core::digest::Digest;
use std::io;
use std::path::{Path, PathBuf};

/// A permit's file. Untrusted: [`verify_permit`](crate::verify_permit()) it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPermit {
    /// The digest that the file is named by.
    pub digest: Digest,
    /// The file.
    pub path: PathBuf,
    /// The envelope.
    pub envelope: Vec<u8>,
}

fn folder(store: &Path) -> PathBuf {
    store.join("permits")
}

fn path(store: &Path, digest: &Digest) -> PathBuf {
    folder(store).join(format!("{}.json", digest.hex()))
}

/// The digest of a file's name, if it is written as [`path`] writes it.
fn parse(name: &str) -> Option<Digest> {
    let hex = name.strip_suffix(".json")?;
    format!("sha256:{hex}").parse().ok()
}

/// Puts a verified permit into the store; `envelope` are the bytes that it was verified from. Gives its file.
///
/// # Flow
/// Lock → is there room? → temporary file, flush, rename, flush the directory.
///
/// # Guarantees
/// Readers see the whole permit or none. Installing twice changes nothing but signatures.
///
/// # Errors
/// [`StoreError`].
pub fn install_permit(
    store: &Path,
    permit: &Verified<Permit>,
    envelope: &[u8],
) -> Result<PathBuf, StoreError> {
    if envelope.len() > PERMIT_LIMIT {
        return Err(StoreError::PermitTooLarge {
            found: envelope.len(),
        });
    }
    let folder = folder(store);
    make(&folder)?;
    let _locked = lock(&folder)?;
    let path = path(store, &permit.statement_digest());
    clean(&folder)?;
    if !path.exists() && entries(&folder, PERMITS_LIMIT)?.len() == PERMITS_LIMIT {
        return Err(StoreError::PermitsFull { path: folder });
    }
    let temporary = super::write::temporary(&path);
    file(&temporary, envelope)
        .and_then(|()| {
            std::fs::rename(&temporary, &path).map_err(|source| StoreError::Replace {
                path: path.clone(),
                source,
            })
        })
        .inspect_err(|_| {
            // the first error is the one to tell
            drop(std::fs::remove_file(&temporary));
        })?;
    flush(&folder)?;
    Ok(path)
}

/// The permits in the store, in the order of their digests; none when it has no directory for them.
///
/// # Errors
/// [`StoreError::List`], [`StoreError::TooMany`], [`StoreError::Foreign`], [`StoreError::Read`]: one bad entry refuses them all.
pub fn permits(store: &Path) -> Result<Vec<StoredPermit>, StoreError> {
    let folder = folder(store);
    let mut found = Vec::new();
    // one more: a permit that is being put in
    for name in entries(&folder, PERMITS_LIMIT + 1)? {
        if is_temporary(&name) {
            continue;
        }
        let path = folder.join(&name);
        let Some(digest) = name.to_str().and_then(parse) else {
            return Err(StoreError::Foreign { path });
        };
        match read::bounded(&path, PERMIT_LIMIT as u64) {
            Ok(envelope) => found.push(StoredPermit {
                digest,
                path,
                envelope,
            }),
            // removed meanwhile
            Err(ReadError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// Takes a permit out of the store. What runs under it already is not ended. Gives the file that is gone.
///
/// # Errors
/// [`StoreError::NoPermit`], [`StoreError::Remove`], [`StoreError::Flush`].
pub fn remove_permit(store: &Path, digest: &Digest) -> Result<PathBuf, StoreError> {
    let path = path(store, digest);
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::NoPermit { permit: *digest });
        }
        Err(source) => return Err(StoreError::Remove { path, source }),
    }
    flush(&folder(store))?;
    Ok(path)
}

/// Removes what a crash left. Only under the lock.
fn clean(folder: &Path) -> Result<(), StoreError> {
    for name in entries(folder, PERMITS_LIMIT + 1)? {
        if is_temporary(&name) {
            let path = folder.join(name);
            std::fs::remove_file(&path).map_err(|source| StoreError::Remove { path, source })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::trusted::TrustedKeys;
    use crate::key::{Algorithm, PrivateKey};
    use crate::permit::{Calls, Kind, Terms, sign_permit, verify_permit_for_any_image};

    type Failure = Box<dyn std::error::Error>;

    fn signed(key: &PrivateKey, reason: &str) -> Result<(Verified<Permit>, Vec<u8>), Failure> {
        let permit = Permit::new(Terms {
            images: [Digest::of(b"config")].into(),
            kind: Kind::Exec {
                calls: Calls::Ceiling,
            },
            reason: reason.to_owned(),
            not_before_ms: 0,
            not_after_ms: 1000,
            container: None,
            node: None,
        })?;
        let envelope = sign_permit(&permit, &[key])?;
        let keys = TrustedKeys::only(key.public().clone());
        Ok((verify_permit_for_any_image(&envelope, &keys)?, envelope))
    }

    #[test]
    fn permits_are_put_in_listed_and_taken_out() -> Result<(), Failure> {
        let folder = tempfile::tempdir()?;
        let store = folder.path();
        let key = PrivateKey::generate(Algorithm::Ed25519)?;
        assert_eq!(permits(store)?, []);
        let (one, envelope_one) = signed(&key, "one")?;
        let (two, envelope_two) = signed(&key, "two")?;
        for (permit, envelope) in [(&one, &envelope_one), (&two, &envelope_two)] {
            install_permit(store, permit, envelope)?;
            install_permit(store, permit, envelope)?;
        }
        // left by a crash: not read, and gone with the next install
        let left = super::folder(store).join(".x.json");
        std::fs::write(&left, "half")?;
        let found = permits(store)?;
        assert_eq!(found.len(), 2);
        for permit in found {
            let expected = if permit.digest == one.statement_digest() {
                &envelope_one
            } else {
                &envelope_two
            };
            assert_eq!(&permit.envelope, expected);
        }
        install_permit(store, &one, &envelope_one)?;
        assert!(!left.exists());
        remove_permit(store, &one.statement_digest())?;
        assert!(matches!(
            remove_permit(store, &one.statement_digest()),
            Err(StoreError::NoPermit { .. })
        ));
        assert_eq!(permits(store)?.len(), 1);
        Ok(())
    }

    #[test]
    fn bounds_and_what_does_not_belong_there() -> Result<(), Failure> {
        let folder = tempfile::tempdir()?;
        let store = folder.path();
        let key = PrivateKey::generate(Algorithm::Ed25519)?;
        let (permit, envelope) = signed(&key, "one")?;
        let large = vec![b' '; PERMIT_LIMIT + 1];
        assert!(matches!(
            install_permit(store, &permit, &large),
            Err(StoreError::PermitTooLarge { .. })
        ));
        let path = |number: usize| super::path(store, &Digest::of(&number.to_le_bytes()));
        std::fs::create_dir(super::folder(store))?;
        for number in 1..PERMITS_LIMIT {
            std::fs::write(path(number), "{}")?;
        }
        let (last, envelope_last) = signed(&key, "last")?;
        install_permit(store, &permit, &envelope)?;
        assert!(matches!(
            install_permit(store, &last, &envelope_last),
            Err(StoreError::PermitsFull { .. })
        ));
        // one that is there may be installed again
        install_permit(store, &permit, &envelope)?;
        assert_eq!(permits(store)?.len(), PERMITS_LIMIT);
        std::fs::write(path(1), vec![b' '; PERMIT_LIMIT])?;
        assert!(permits(store).is_ok());
        std::fs::write(path(1), vec![b' '; PERMIT_LIMIT + 1])?;
        assert!(matches!(permits(store), Err(StoreError::Read(_))));
        std::fs::remove_file(path(1))?;
        std::fs::write(super::folder(store).join("permit.txt"), "")?;
        assert!(matches!(permits(store), Err(StoreError::Foreign { .. })));
        Ok(())
    }
}
