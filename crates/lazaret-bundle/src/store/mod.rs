//! The node's store: for each image digest the revisions of its policy that are installed, each with the profile compiled
//! from it.
//!
//! Layout: `<store>/images/<64 hex digits>/<revision>-<64 hex digits of the policy's digest>/{bundle.json, profile.json}`
//! and `<store>/keys/*.pem` ([`TrustedKeys::load`](crate::TrustedKeys::load)); `<store>/permits/<64 hex digits of the signed
//! payload's digest>.json`. Several revisions stand side by side: a
//! container that started under one of them still needs it when the next is installed.
//!
//! What is read back is untrusted again, the names of the directories too: the gate verifies the bundle of the policy that
//! the container's profile names, and compares the filter that the kernel runs with it. Deliberately not here: which
//! revision ought to be used, and a memory of the highest that was ever seen.

mod install;
mod permits;
mod revisions;
#[cfg(test)]
mod tests;
mod write;

pub use install::{Installed, install, remove};
pub use permits::{StoredPermit, install_permit, permits, remove_permit};
pub use revisions::{Revision, images, knows, read_bundle, read_profile_newest, revisions};

use crate::read::ReadError;
use lazaret_core::digest::Digest;
use std::io;
use std::path::{Path, PathBuf};

/// Largest profile that is read, in bytes. One naming all 362 calls of x86-64 has about 10 KiB.
pub const PROFILE_LIMIT: usize = 1024 * 1024;

/// Most entries of an image's directory: its revisions, and one that is being put in or taken out.
pub const ENTRIES_LIMIT: usize = 256;

/// Most images of a store.
pub const IMAGES_LIMIT: usize = 65_536;

/// Most permits of a store.
pub const PERMITS_LIMIT: usize = 256;

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
    /// A directory cannot be made.
    #[error("cannot create directory `{}`", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Nobody else can be kept from changing the store meanwhile.
    #[error("cannot lock `{}`", path.display())]
    Lock {
        /// The locked directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A directory's entries cannot be read.
    #[error("cannot list `{}`", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// More entries than are read.
    #[error("`{}` has more than {limit} entries", path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
        /// The bound.
        limit: usize,
    },
    /// No room for another revision.
    #[error("`{}` holds {found} revisions, at most {} are kept: remove one", path.display(), ENTRIES_LIMIT - 1)]
    Full {
        /// The image's directory.
        path: PathBuf,
        /// How many there are.
        found: usize,
    },
    /// Files where earlier versions had them: nobody looks there any more.
    #[error("`{}` is of the layout before revisions: install the image's bundle again", path.display())]
    OldLayout {
        /// The file.
        path: PathBuf,
    },
    /// Something that the store does not put there.
    #[error("`{}` is not named as the store names things", path.display())]
    Foreign {
        /// The entry.
        path: PathBuf,
    },
    /// The number is another policy's already.
    #[error(
        "revision {revision} is installed as policy {installed}, the bundle holds policy {offered}: raise its revision"
    )]
    Taken {
        /// The number.
        revision: u64,
        /// The policy that has it.
        installed: Digest,
        /// The policy that wants it.
        offered: Digest,
    },
    /// Nothing has this number.
    #[error("revision {revision} is not installed for this image")]
    NotInstalled {
        /// The number.
        revision: u64,
    },
    /// No such permit.
    #[error("permit {permit} is not installed")]
    NoPermit {
        /// Its digest.
        permit: Digest,
    },
    /// No room for another permit.
    #[error("`{}` holds {PERMITS_LIMIT} permits, no more are kept: remove those that have expired", path.display())]
    PermitsFull {
        /// The permits' directory.
        path: PathBuf,
    },
    /// A permit that could not be read back.
    #[error(
        "permit has {found} bytes, at most {} are read",
        crate::permit::PERMIT_LIMIT
    )]
    PermitTooLarge {
        /// Its size in bytes.
        found: usize,
    },
    /// A revision without one of its two files.
    #[error("`{}` is missing: install the revision's bundle again", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
    },
    /// A new file cannot be filled and flushed; what was there stands.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The temporary file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The new directory or file cannot take its place; what was there stands.
    #[error("cannot put `{}` into its place", path.display())]
    Replace {
        /// The place.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Something cannot be taken away.
    #[error("cannot remove `{}`", path.display())]
    Remove {
        /// What.
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
    /// Two entries for one image that ought to be the same and differ: nobody can say which one rules.
    #[error("`{}` and `{}` are both for this image and differ", first.display(), second.display())]
    Ambiguous {
        /// One.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
}

fn images_folder(store: &Path) -> PathBuf {
    store.join("images")
}

fn image_folder(store: &Path, image: &Digest) -> PathBuf {
    images_folder(store).join(image.hex())
}
