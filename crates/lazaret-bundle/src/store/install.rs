//! Putting a revision into the store, and taking it out.

use super::revisions::{entries, is_temporary, name, with_old};
use super::write::{directory, flush, lock, make, remove_directory};
use super::{
    BUNDLE, ENTRIES_LIMIT, PROFILE, PROFILE_LIMIT, Revision, StoreError, image_folder, images,
    images_folder, revisions,
};
use crate::dsse::ENVELOPE_LIMIT;
use crate::read;
use crate::signed::Verified;
use lazaret_core::digest::Digest;
use lazaret_core::policy::Policy;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What an install did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The revision's directories, one for each of the image's digests.
    pub folders: Vec<PathBuf>,
    /// The highest revision of the image that is installed now; not this one when a higher one was there.
    pub newest: u64,
}

/// Puts a verified bundle and the profile compiled from its policy into the store, under every digest of its image.
/// `envelope` are the bytes that `policy` was verified from, `profile_json` an OCI `linux.seccomp` object.
///
/// # Flow
/// Lock → is the revision free? → for each digest: a directory is filled under another name, flushed, renamed; then the
/// directories above it are flushed. What a crash or an earlier layout left in the image's directory is removed.
///
/// # Guarantees
/// Readers see the whole revision or none of it, and the old one or the new one where it is replaced. Installing twice
/// changes nothing. Other revisions stay.
///
/// # Errors
/// [`StoreError`]; digests before the failing one are installed. [`StoreError::Taken`] changes nothing.
pub fn install(
    store: &Path,
    policy: &Verified<Policy>,
    envelope: &[u8],
    profile_json: &[u8],
) -> Result<Installed, StoreError> {
    if profile_json.len() > PROFILE_LIMIT {
        return Err(StoreError::ProfileTooLarge {
            found: profile_json.len(),
        });
    }
    let images = images_folder(store);
    make(&images)?;
    let _locked = lock(&images)?;
    let (revision, offered) = (policy.revision(), policy.digest());
    let digests = policy.image_digests();
    for digest in digests {
        clean(&image_folder(store, digest))?;
    }
    let (before, old) = with_old(store, digests)?;
    let same = |other: &&Revision| other.revision == revision && other.policy != offered;
    if let Some(other) = before.iter().find(same) {
        return Err(StoreError::Taken {
            revision,
            installed: other.policy,
            offered,
        });
    }
    let mut folders = Vec::new();
    for digest in digests {
        let image = image_folder(store, digest);
        make(&image)?;
        let folder = image.join(name(revision, &offered));
        if !holds(&folder, envelope, profile_json) {
            if !folder.exists() {
                room(&image)?;
            }
            directory(&folder, &[(BUNDLE, envelope), (PROFILE, profile_json)])?;
        }
        flush(&image)?;
        folders.push(folder);
    }
    for path in old {
        std::fs::remove_file(&path).map_err(|source| StoreError::Remove { path, source })?;
    }
    flush(&images)?;
    let newest = before.last().map_or(revision, |last| last.revision);
    Ok(Installed {
        folders,
        newest: newest.max(revision),
    })
}

/// Takes a revision of an image out of the store, under every digest that it is installed under. The image's directories
/// stay: it is still meant to be confined ([`knows`](super::knows)). Gives the directories that are gone.
///
/// # Errors
/// [`StoreError::NotInstalled`], those of [`revisions`], [`StoreError::Remove`].
pub fn remove(
    store: &Path,
    digests: &BTreeSet<Digest>,
    revision: u64,
) -> Result<Vec<PathBuf>, StoreError> {
    let folder = images_folder(store);
    if !folder.exists() {
        return Err(StoreError::NotInstalled { revision });
    }
    let _locked = lock(&folder)?;
    let wanted: BTreeSet<String> = revisions(store, digests)?
        .iter()
        .filter(|found| found.revision == revision)
        .map(|found| name(found.revision, &found.policy))
        .collect();
    if wanted.is_empty() {
        return Err(StoreError::NotInstalled { revision });
    }
    let mut removed = Vec::new();
    // an image may be known to the caller by one of its digests only
    for image in images(store)? {
        let image = image_folder(store, &image);
        clean(&image)?;
        for path in wanted.iter().map(|name| image.join(name)) {
            if path.exists() {
                remove_directory(&path)?;
                flush(&image)?;
                removed.push(path);
            }
        }
    }
    Ok(removed)
}

/// Whether a revision's directory has exactly these files.
fn holds(folder: &Path, envelope: &[u8], profile_json: &[u8]) -> bool {
    let same = |name: &str, limit: usize, wanted: &[u8]| {
        read::bounded(&folder.join(name), limit as u64).is_ok_and(|bytes| bytes == wanted)
    };
    same(BUNDLE, ENVELOPE_LIMIT, envelope) && same(PROFILE, PROFILE_LIMIT, profile_json)
}

/// Refuses a revision that could not be listed afterwards.
fn room(image: &Path) -> Result<(), StoreError> {
    let found = entries(image, ENTRIES_LIMIT)?.len();
    if found < ENTRIES_LIMIT - 1 {
        return Ok(());
    }
    Err(StoreError::Full {
        path: image.to_owned(),
        found,
    })
}

/// Removes what a crash left in an image's directory. Only under the lock: nobody is filling it.
fn clean(image: &Path) -> Result<(), StoreError> {
    for name in entries(image, ENTRIES_LIMIT)? {
        if is_temporary(&name) {
            let path = image.join(name);
            let removed = if path.is_dir() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
            removed.map_err(|source| StoreError::Remove { path, source })?;
        }
    }
    Ok(())
}
