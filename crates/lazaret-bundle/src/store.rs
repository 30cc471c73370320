//! The node's store: for each image digest the bundle and the profile compiled from it.
//!
//! Layout: `<store>/images/<64 hex digits>/{bundle.json, profile.json}` and `<store>/keys/*.pem`
//! ([`TrustedKeys::load`](crate::TrustedKeys::load)).
//!
//! What is read back is untrusted again: the gate verifies the bundle, and compares the filter that the kernel runs
//! with the policy, so a profile that does not belong to its bundle (also one torn apart by a crash between the two
//! renames of an install) stops the container and nothing else.

use crate::dsse::ENVELOPE_LIMIT;
use crate::read::{self, ReadError};
use crate::verify::Verified;
use lazaret_core::digest::Digest;
use lazaret_core::policy::Policy;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Largest profile that is read, in bytes. One naming all 362 calls of x86-64 has about 10 KiB.
pub const PROFILE_LIMIT: usize = 1024 * 1024;

const BUNDLE: &str = "bundle.json";
const PROFILE: &str = "profile.json";

/// Why the store was not read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The profile could not be read back.
    #[error("profile has {found} bytes, at most {PROFILE_LIMIT} are read")]
    ProfileTooLarge {
        /// Its size in bytes.
        found: usize,
    },
    /// An image's directory cannot be made.
    #[error("cannot create directory `{}`", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A new file cannot be filled and flushed; the old one stands.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The temporary file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The new file cannot take the old one's place.
    #[error("cannot replace `{}`", path.display())]
    Replace {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A directory's entries cannot be flushed.
    #[error("cannot flush directory `{}`", path.display())]
    Flush {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A stored file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Two of an image's digests have different files: nobody can say which one rules.
    #[error("`{}` and `{}` are both for this image and differ", first.display(), second.display())]
    Ambiguous {
        /// One.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
}

/// Puts a verified bundle and the profile compiled from its policy into the store, under every digest of its image.
/// `envelope` are the bytes that `policy` was verified from, `profile_json` an OCI `linux.seccomp` object. Gives the
/// directories that were filled.
///
/// # Flow
/// For each digest, profile first: temporary file, fsync, rename; at last the directories are flushed.
///
/// # Guarantees
/// Readers see the old file or the new one, never half of either. Installing twice changes nothing.
///
/// # Errors
/// [`StoreError`]; digests before the failing one are installed.
pub fn install(
    store: &Path,
    policy: &Verified<Policy>,
    envelope: &[u8],
    profile_json: &[u8],
) -> Result<Vec<PathBuf>, StoreError> {
    if profile_json.len() > PROFILE_LIMIT {
        return Err(StoreError::ProfileTooLarge {
            found: profile_json.len(),
        });
    }
    let images = store.join("images");
    let mut installed = Vec::new();
    for digest in policy.image_digests() {
        let folder = images.join(digest.hex());
        std::fs::create_dir_all(&folder).map_err(|source| StoreError::Directory {
            path: folder.clone(),
            source,
        })?;
        replace(&folder, PROFILE, profile_json)?;
        replace(&folder, BUNDLE, envelope)?;
        flush(&folder)?;
        installed.push(folder);
    }
    flush(&images)?;
    Ok(installed)
}

/// The bundle stored for an image, or none. Untrusted: [`verify`](crate::verify()) it.
///
/// # Errors
/// [`StoreError::Read`], [`StoreError::Ambiguous`].
pub fn read_bundle(
    store: &Path,
    digests: &BTreeSet<Digest>,
) -> Result<Option<Vec<u8>>, StoreError> {
    read_stored(store, digests, BUNDLE, ENVELOPE_LIMIT)
}

/// The profile stored for an image, or none.
///
/// # Errors
/// [`StoreError::Read`], [`StoreError::Ambiguous`].
pub fn read_profile(
    store: &Path,
    digests: &BTreeSet<Digest>,
) -> Result<Option<Vec<u8>>, StoreError> {
    read_stored(store, digests, PROFILE, PROFILE_LIMIT)
}

/// Whether the store has a directory for this image, whatever is in it: somebody meant it to be confined.
///
/// # Errors
/// [`StoreError::Read`] when that cannot be found out.
pub fn knows(store: &Path, digests: &BTreeSet<Digest>) -> Result<bool, StoreError> {
    for digest in digests {
        let path = store.join("images").join(digest.hex());
        match path.try_exists() {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(source) => return Err(ReadError::Open { path, source }.into()),
        }
    }
    Ok(false)
}

fn read_stored(
    store: &Path,
    digests: &BTreeSet<Digest>,
    name: &str,
    limit: usize,
) -> Result<Option<Vec<u8>>, StoreError> {
    let mut found: Option<(PathBuf, Vec<u8>)> = None;
    for digest in digests {
        let path = store.join("images").join(digest.hex()).join(name);
        let bytes = match read::bounded(&path, limit as u64) {
            Ok(bytes) => bytes,
            Err(ReadError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        match &found {
            Some((first, other)) if other != &bytes => {
                return Err(StoreError::Ambiguous {
                    first: first.clone(),
                    second: path,
                });
            }
            Some(_) => {}
            None => found = Some((path, bytes)),
        }
    }
    Ok(found.map(|(_, bytes)| bytes))
}

fn replace(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    // one name per process: two installs at once do not write into each other's file
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let path = folder.join(name);
    let written = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(|source| StoreError::Write {
            path: temporary.clone(),
            source,
        });
    written
        .and_then(|()| {
            std::fs::rename(&temporary, &path)
                .map_err(|source| StoreError::Replace { path, source })
        })
        .inspect_err(|_| {
            // the first error is the one to tell
            drop(std::fs::remove_file(&temporary));
        })
}

fn flush(folder: &Path) -> Result<(), StoreError> {
    File::open(folder)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| StoreError::Flush {
            path: folder.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::trusted::TrustedKeys;
    use crate::key::{Algorithm, PrivateKey};
    use crate::verify::{self, tests::policy};

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    fn signed(
        digests: &[Digest],
    ) -> Result<(Verified<Policy>, Vec<u8>), Box<dyn std::error::Error>> {
        let key = PrivateKey::generate(Algorithm::Ed25519)?;
        let bundle = verify::sign(&policy(digests)?, &[&key])?;
        let keys = TrustedKeys::only(key.public().clone());
        Ok((verify::verify_for_any_image(&bundle, &keys)?, bundle))
    }

    #[test]
    fn every_digest_leads_to_what_was_installed() -> Outcome {
        let store = tempfile::tempdir()?;
        let digests = [Digest::of(b"manifest"), Digest::of(b"config")];
        let (policy, bundle) = signed(&digests)?;
        let images = store.path().join("images");
        assert!(!knows(store.path(), &digests.into())?);
        assert_eq!(read_bundle(store.path(), &digests.into())?, None);
        for profile in [b"{}".as_slice(), b"{\"again\":1}"] {
            let folders = install(store.path(), &policy, &bundle, profile)?;
            assert_eq!(folders.len(), 2);
            for digest in digests {
                let image = BTreeSet::from([digest, Digest::of(b"unknown")]);
                assert!(knows(store.path(), &image)?);
                assert_eq!(read_bundle(store.path(), &image)?, Some(bundle.clone()));
                assert_eq!(read_profile(store.path(), &image)?, Some(profile.to_vec()));
                let names: BTreeSet<_> = std::fs::read_dir(images.join(digest.hex()))?
                    .map(|entry| entry.map(|entry| entry.file_name()))
                    .collect::<Result<_, _>>()?;
                assert_eq!(
                    names,
                    [BUNDLE.into(), PROFILE.into()].into(),
                    "nothing left behind"
                );
            }
        }
        assert_eq!(
            read_profile(store.path(), &[Digest::of(b"unknown")].into())?,
            None
        );
        Ok(())
    }

    #[test]
    fn two_policies_for_one_image_are_refused() -> Outcome {
        let store = tempfile::tempdir()?;
        for (digest, profile) in [(b"a", b"{ }"), (b"b", b"{  ")] {
            let (policy, bundle) = signed(&[Digest::of(digest)])?;
            install(store.path(), &policy, &bundle, profile)?;
        }
        let image = [Digest::of(b"a"), Digest::of(b"b")].into();
        for result in [
            read_profile(store.path(), &image),
            read_bundle(store.path(), &image),
        ] {
            assert!(matches!(result, Err(StoreError::Ambiguous { .. })));
        }
        Ok(())
    }

    #[test]
    fn what_could_not_be_read_back_is_not_installed() -> Outcome {
        let store = tempfile::tempdir()?;
        let digest = Digest::of(b"a");
        let (policy, bundle) = signed(&[digest])?;
        let large = vec![b' '; PROFILE_LIMIT + 1];
        assert!(matches!(
            install(store.path(), &policy, &bundle, &large),
            Err(StoreError::ProfileTooLarge { .. })
        ));
        install(store.path(), &policy, &bundle, &large[1..])?;
        assert_eq!(
            read_profile(store.path(), &[digest].into())?.map(|bytes| bytes.len()),
            Some(PROFILE_LIMIT)
        );
        Ok(())
    }

    #[test]
    fn a_failed_install_leaves_the_old_files() -> Outcome {
        let store = tempfile::tempdir()?;
        let digest = Digest::of(b"a");
        let (policy, bundle) = signed(&[digest])?;
        install(store.path(), &policy, &bundle, b"old")?;
        let folder = store.path().join("images").join(digest.hex());
        // a directory in the temporary file's place: it cannot be opened for writing, not even by root
        std::fs::create_dir(folder.join(format!(".{PROFILE}.{}", std::process::id())))?;
        assert!(matches!(
            install(store.path(), &policy, &bundle, b"new"),
            Err(StoreError::Write { .. })
        ));
        assert_eq!(
            read_profile(store.path(), &[digest].into())?,
            Some(b"old".to_vec())
        );
        Ok(())
    }
}
