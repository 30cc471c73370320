//! Which image is behind a container, from the engine's state on this host.
//!
//! The question is asked while the engine waits for a container to be created, so nothing here talks to an engine that
//! could be waiting for us: Docker's answer is read from its files; containerd's from its content store, and three
//! read-only questions through `ctr`, each with a deadline (reads do not wait for a task that is being created:
//! containerd's metadata store serves them from a snapshot of its database).
//!
//! The engine is trusted to start what its state says (DESIGN §3). Content that has a digest is checked against it.
//!
//! Deliberately not here: pulling, registries, layers and binaries of an image, and whether the image may start.
#![forbid(unsafe_code)]

mod command;
pub mod containerd;
pub mod docker;
mod origin;
pub mod storage;

pub use command::CommandError;
pub use origin::{ContainerId, Origin};

use lazaret_bundle::read::ReadError;
use lazaret_core::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Largest engine file or blob that is read, in bytes (containerd's own bound for a manifest is 8 MiB,
/// `remotes/docker/fetcher.go`).
const DOCUMENT_LIMIT: usize = 8 * 1024 * 1024;

/// How long all questions for one container may take together.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The engine that started a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// `dockerd`.
    Docker,
    /// containerd by itself: `ctr`, `nerdctl`, Kubernetes.
    Containerd,
    /// What keeps its containers in `containers/storage`: podman, CRI-O.
    Storage,
}

/// What is known of a container's image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageIdentity {
    /// Every digest that names the image: its configuration, and where the engine keeps them, manifest and index.
    /// Each of them alone determines what runs.
    pub digests: BTreeSet<Digest>,
    /// The container's name as the engine shows it; containerd has none but the id.
    pub name: String,
    /// Who started it.
    pub engine: Engine,
    /// Labels of the image and of the container, the container's winning.
    pub labels: BTreeMap<String, String>,
    /// The signal that asks it to stop, as it was written: `SIGTERM`, `TERM` or `15`. None: the engine's default,
    /// `SIGTERM`.
    pub stop_signal: Option<String>,
}

/// Where the engines keep their state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// Docker's `--data-root`.
    pub docker_data: PathBuf,
    /// containerd's `root`.
    pub containerd: PathBuf,
    /// containerd's socket.
    pub containerd_address: PathBuf,
    /// The `ctr` program.
    pub ctr: PathBuf,
    /// `graphroot` of `containers/storage`: podman and CRI-O.
    pub storage: PathBuf,
    /// `runroot` of `containers/storage`.
    pub storage_run: PathBuf,
}

impl Default for Roots {
    /// As Debian's packages have them.
    fn default() -> Roots {
        Roots {
            docker_data: "/var/lib/docker".into(),
            containerd: "/var/lib/containerd".into(),
            containerd_address: "/run/containerd/containerd.sock".into(),
            ctr: "/usr/bin/ctr".into(),
            storage: "/var/lib/containers/storage".into(),
            storage_run: "/run/containers/storage".into(),
        }
    }
}

/// Why the image of a container is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// An id that no engine gives, or that could be mistaken for something else in a path or command line.
    #[error("`{id}` is no container id")]
    ContainerId {
        /// The id, cut to 80 characters.
        id: String,
    },
    /// No engine that is known made this bundle.
    #[error(
        "bundle `{}` is neither `io.containerd.runtime.v2.task/<namespace>/<id>` nor `<driver>-containers/<id>/userdata`: no \
         engine that is known made it",
        bundle.display()
    )]
    UnknownEngine {
        /// The bundle's directory.
        bundle: PathBuf,
    },
    /// The runtime was given the bundle of another container.
    #[error("bundle `{}` is not that of container {id}", bundle.display())]
    OtherBundle {
        /// The bundle's directory.
        bundle: PathBuf,
        /// The container's id.
        id: String,
    },
    /// A file of the engine cannot be read.
    #[error("cannot read the engine's state")]
    Read(#[from] ReadError),
    /// A document of the engine is not what it should be.
    #[error("cannot understand {what}")]
    Document {
        /// Which document.
        what: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A field of the engine that must be a digest.
    #[error("{what} names the image `{found}`, which is no sha256 digest")]
    NoDigest {
        /// Which document.
        what: String,
        /// What stands there, cut to 80 characters.
        found: String,
    },
    /// Docker's storage driver has a name that is no directory name.
    #[error("storage driver `{found}` of the container is not one")]
    Driver {
        /// The name, cut to 80 characters.
        found: String,
    },
    /// Content does not have the digest it is filed under.
    #[error("image store is damaged: `{}` has digest {found}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its content's digest.
        found: Digest,
    },
    /// `ctr` gave no answer.
    #[error("cannot ask containerd")]
    Ctr(#[from] CommandError),
    /// The storage does not know a container whose bundle looks like one of its own.
    #[error("container {id} is not filed in the container storage `{}`", root.display())]
    NotFiled {
        /// The container's id.
        id: String,
        /// The storage's root.
        root: PathBuf,
    },
    /// The container was made from a directory, not from an image.
    #[error("container {id} has no image")]
    NoImage {
        /// The container's id.
        id: String,
    },
    /// containerd has no image of the name that the container was made from.
    #[error("containerd has no image `{name}` any more")]
    ImageGone {
        /// The image's name.
        name: String,
    },
    /// An index without exactly one manifest for this host.
    #[error("index {index} has {found} manifests for {platform}, wanted one")]
    Platform {
        /// The index.
        index: Digest,
        /// How many.
        found: usize,
        /// The host's platform.
        platform: String,
    },
    /// A document that claims to be an index and a manifest, or neither.
    #[error("{digest} is neither an image index nor an image manifest")]
    Kind {
        /// The document.
        digest: Digest,
    },
    /// Indexes in indexes without end.
    #[error("index {index} holds indexes more than {limit} deep")]
    Depth {
        /// The outermost.
        index: Digest,
        /// The bound.
        limit: usize,
    },
    /// The image's name means something else now than when the container was made.
    #[error(
        "container {id} was not made from what `{name}` names now: its snapshot is on `{found}`, the image is `{wanted}`"
    )]
    Snapshot {
        /// The container's id.
        id: String,
        /// The image's name.
        name: String,
        /// The snapshot's parent.
        found: String,
        /// The chain id of the image's layers.
        wanted: String,
    },
}

/// The image behind the container that is being created from `bundle`.
///
/// # Flow
/// The bundle's path says which engine made it and in which containerd namespace: `moby` is Docker's. Then
/// [`docker::resolve`], [`containerd::resolve`] or [`storage::resolve`].
///
/// # Guarantees
/// Every returned digest names the image that the engine's state gives for this container.
///
/// # Assumptions
/// The engine's directories can only be written by root and the engine.
///
/// # Errors
/// [`ImageError`]; [`ImageError::UnknownEngine`] when none of the engines made the bundle (`runc run` by hand, BuildKit).
pub fn resolve(bundle: &Path, id: &str, roots: &Roots) -> Result<ImageIdentity, ImageError> {
    match Origin::of_bundle(bundle, id)? {
        Origin::Docker(id) => docker::resolve(&id, roots),
        Origin::Storage { driver, id } => storage::resolve(&driver, &id, roots),
        Origin::Containerd { namespace, id } => {
            // Instant plus seconds: overflow is centuries away
            containerd::resolve(&namespace, &id, roots, Instant::now() + RESOLVE_TIMEOUT)
        }
    }
}

/// The signal that asks a container to stop, by what its engine recorded, within `timeout`.
///
/// # Errors
/// [`ImageError`].
pub fn stop_signal(
    origin: &Origin,
    roots: &Roots,
    timeout: Duration,
) -> Result<Option<String>, ImageError> {
    match origin {
        Origin::Docker(id) => docker::stop_signal(id, roots),
        Origin::Storage { driver, id } => storage::stop_signal(driver, id, roots),
        Origin::Containerd { namespace, id } => {
            containerd::stop_signal(namespace, id, roots, Instant::now() + timeout)
        }
    }
}

/// Checks content against the digest it is filed under.
fn checked(path: &Path, digest: Digest) -> Result<Vec<u8>, ImageError> {
    let bytes = lazaret_bundle::read::bounded(path, DOCUMENT_LIMIT as u64)?;
    let found = Digest::of(&bytes);
    if found == digest {
        Ok(bytes)
    } else {
        Err(ImageError::Damaged {
            path: path.to_owned(),
            found,
        })
    }
}

/// The beginning of a text that goes into a message.
fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
