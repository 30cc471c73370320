//! What is installed, from the names of the directories. Nothing of it is trusted: whoever can write the store can name them.

use super::write::TEMPORARY;
use super::{
    BUNDLE, ENTRIES_LIMIT, IMAGES_LIMIT, PROFILE, PROFILE_LIMIT, StoreError, image_folder,
    images_folder,
};
use crate::dsse::ENVELOPE_LIMIT;
use crate::read::{self, ReadError};
use lazaret_core::digest::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// A revision in the store, as its directory is named. What it says is only true once its bundle is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Its number.
    pub revision: u64,
    /// Digest of its policy.
    pub policy: Digest,
    /// Its directories, one for each of the image's digests that it is installed under; never empty.
    pub paths: Vec<PathBuf>,
}

/// The directory's name of a revision.
pub(super) fn name(revision: u64, policy: &Digest) -> String {
    format!("{revision}-{}", policy.hex())
}

/// The revision of a directory's name, if it is written as [`name`] writes it.
fn parse(text: &str) -> Option<(u64, Digest)> {
    let (number, hex) = text.split_once('-')?;
    let revision: u64 = number.parse().ok()?;
    let policy = format!("sha256:{hex}").parse().ok()?;
    (name(revision, &policy) == text).then_some((revision, policy))
}

/// Names in a directory, at most `limit`; none when there is no such directory.
pub(super) fn entries(path: &Path, limit: usize) -> Result<Vec<OsString>, StoreError> {
    let list = |source| StoreError::List {
        path: path.to_owned(),
        source,
    };
    let mut names = Vec::new();
    let read = match std::fs::read_dir(path) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
        Err(error) => return Err(list(error)),
    };
    for entry in read {
        if names.len() == limit {
            return Err(StoreError::TooMany {
                path: path.to_owned(),
                limit,
            });
        }
        names.push(entry.map_err(list)?.file_name());
    }
    names.sort();
    Ok(names)
}

/// Whether this is the name of something that is being put in or taken out.
pub(super) fn is_temporary(name: &OsString) -> bool {
    name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes())
}

/// The digests of the images that the store has a directory for, in their order.
///
/// # Errors
/// [`StoreError::List`], [`StoreError::TooMany`], [`StoreError::Foreign`].
pub fn images(store: &Path) -> Result<Vec<Digest>, StoreError> {
    let folder = images_folder(store);
    let names = entries(&folder, IMAGES_LIMIT)?;
    let names = names.iter().filter(|name| !is_temporary(name));
    names
        .map(|name| {
            let hex = name.to_str().unwrap_or_default();
            format!("sha256:{hex}")
                .parse()
                .map_err(|_| StoreError::Foreign {
                    path: folder.join(name),
                })
        })
        .collect()
}

/// The revisions that are installed for an image, by number, then by policy.
///
/// # Guarantees
/// From the directories' names only; untrusted until the bundle is verified. At most [`ENTRIES_LIMIT`] for each digest.
///
/// # Errors
/// [`StoreError::List`], [`StoreError::TooMany`]; [`StoreError::OldLayout`] and [`StoreError::Foreign`] for anything else
/// that lies there.
pub fn revisions(store: &Path, digests: &BTreeSet<Digest>) -> Result<Vec<Revision>, StoreError> {
    let (revisions, old) = with_old(store, digests)?;
    match old.into_iter().next() {
        Some(path) => Err(StoreError::OldLayout { path }),
        None => Ok(revisions),
    }
}

/// As [`revisions`], with the files of an earlier layout beside them.
pub(super) fn with_old(
    store: &Path,
    digests: &BTreeSet<Digest>,
) -> Result<(Vec<Revision>, Vec<PathBuf>), StoreError> {
    let mut found: BTreeMap<(u64, Digest), Vec<PathBuf>> = BTreeMap::new();
    let mut old = Vec::new();
    for digest in digests {
        let folder = image_folder(store, digest);
        for name in entries(&folder, ENTRIES_LIMIT)? {
            let path = folder.join(&name);
            if is_temporary(&name) {
                continue;
            }
            match name.to_str().and_then(parse) {
                Some(key) => found.entry(key).or_default().push(path),
                None if name == BUNDLE || name == PROFILE => old.push(path),
                None => return Err(StoreError::Foreign { path }),
            }
        }
    }
    let revisions = found.into_iter();
    let revisions = revisions.map(|((revision, policy), paths)| Revision {
        revision,
        policy,
        paths,
    });
    Ok((revisions.collect(), old))
}

/// The bundle of exactly this policy, stored for an image, or none. Untrusted: [`verify`](crate::verify()) it, and compare
/// the verified policy's digest with the one that was asked for.
///
/// # Errors
/// Those of [`revisions`], [`StoreError::Read`], [`StoreError::Ambiguous`].
pub fn read_bundle(
    store: &Path,
    digests: &BTreeSet<Digest>,
    policy: &Digest,
) -> Result<Option<Vec<u8>>, StoreError> {
    let mut folders = Vec::new();
    for revision in revisions(store, digests)? {
        if revision.policy == *policy {
            folders.extend(revision.paths);
        }
    }
    read_same(&folders, BUNDLE, ENVELOPE_LIMIT)
}

/// The highest revision that is installed for an image, with its profile; none when none is.
///
/// # Errors
/// Those of [`revisions`], [`StoreError::Read`]; [`StoreError::Ambiguous`] when two policies have the highest number, or one
/// has two profiles; [`StoreError::Incomplete`] when it has none: a lower revision never takes its place.
pub fn read_profile_newest(
    store: &Path,
    digests: &BTreeSet<Digest>,
) -> Result<Option<(Revision, Vec<u8>)>, StoreError> {
    let mut revisions = revisions(store, digests)?;
    let Some(newest) = revisions.pop() else {
        return Ok(None);
    };
    if let Some(other) = revisions.pop()
        && other.revision == newest.revision
    {
        return Err(StoreError::Ambiguous {
            first: first(&other),
            second: first(&newest),
        });
    }
    match read_same(&newest.paths, PROFILE, PROFILE_LIMIT)? {
        Some(profile) => Ok(Some((newest, profile))),
        None => Err(StoreError::Incomplete {
            path: first(&newest).join(PROFILE),
        }),
    }
}

fn first(revision: &Revision) -> PathBuf {
    revision.paths.first().cloned().unwrap_or_default()
}

/// Whether the store has a directory for this image, whatever is in it: somebody meant it to be confined.
///
/// # Errors
/// [`StoreError::Read`] when that cannot be found out.
pub fn knows(store: &Path, digests: &BTreeSet<Digest>) -> Result<bool, StoreError> {
    for digest in digests {
        let path = image_folder(store, digest);
        match path.try_exists() {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(source) => return Err(ReadError::Open { path, source }.into()),
        }
    }
    Ok(false)
}

/// A file that has to be the same in all of these directories that have it.
fn read_same(folders: &[PathBuf], name: &str, limit: usize) -> Result<Option<Vec<u8>>, StoreError> {
    let mut found: Option<(PathBuf, Vec<u8>)> = None;
    for folder in folders {
        let path = folder.join(name);
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
