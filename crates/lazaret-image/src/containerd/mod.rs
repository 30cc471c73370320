//! containerd's state: three questions through `ctr`, then the content store.
//!
//! A container record names its image, not the image's digest, and a name can be given to another image after the
//! container was made. The link that cannot be moved is the container's snapshot: it lies on the chain of the layers
//! that were unpacked. So the image that the name leads to is only believed when its layers give that chain.
//!
//! What the chain does not cover is the image's configuration (entry point, environment): two images of the same layers
//! are the same to it.

use crate::command::run;
use crate::origin::ContainerId;
use crate::{DOCUMENT_LIMIT, Engine, ImageError, ImageIdentity, Roots, checked, cut};
use lazaret_core::digest::Digest;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::time::Instant;

/// How deep indexes may hold indexes.
const INDEX_DEPTH: usize = 4;

/// The label by which containerd's clients keep the stop signal (containerd `oci`/`container_opts.go`,
/// `WithImageStopSignal`).
const STOP_SIGNAL_LABEL: &str = "io.containerd.image.config.stop-signal";

/// `ctr containers info`: the record, of which the specification is skipped.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    image: String,
    snapshot_key: String,
    snapshotter: String,
}

/// `ctr snapshots info`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Snapshot {
    name: String,
    /// Absent for an image without layers.
    #[serde(default)]
    parent: String,
}

/// An image index or manifest (OCI image specification 1.1; Docker's schema 2 has the same fields).
#[derive(Deserialize)]
struct Node {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Digest,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// An image configuration.
#[derive(Deserialize)]
struct Configuration {
    rootfs: RootFs,
    #[serde(default)]
    config: ProcessConfig,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ProcessConfig {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    stop_signal: Option<String>,
}

fn document<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &str) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|source| ImageError::Document {
        what: what.to_owned(),
        source,
    })
}

/// The digest of `name` in the table that `ctr images ls` prints: reference, media type, digest, …
fn listed(table: &[u8], name: &str) -> Result<Digest, ImageError> {
    let table = String::from_utf8_lossy(table);
    let row = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|row| row.first() == Some(&name))
        .ok_or_else(|| ImageError::ImageGone { name: cut(name) })?;
    let found = row.get(2).copied().unwrap_or_default();
    found.parse().map_err(|_| ImageError::NoDigest {
        what: "`ctr images ls`".to_owned(),
        found: cut(found),
    })
}

/// An image name that means itself inside a containerd filter and in a table of words.
fn plain_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-/:@+".contains(&byte))
}

/// Go's name for the architecture of this build.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What one document of the content store leads to.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Index(Digest),
    Configuration(Digest),
}

fn step(bytes: &[u8], digest: Digest, architecture: &str) -> Result<Step, ImageError> {
    let node: Node = document(bytes, &format!("image document {digest}"))?;
    match (node.manifests, node.config) {
        (None, Some(config)) => Ok(Step::Configuration(config.digest)),
        (Some(manifests), None) => {
            let suitable: Vec<_> = manifests
                .iter()
                .filter(|manifest| {
                    manifest.platform.as_ref().is_some_and(|platform| {
                        platform.os == "linux" && platform.architecture == architecture
                    })
                })
                .collect();
            match suitable.as_slice() {
                [one] => Ok(Step::Index(one.digest)),
                several => Err(ImageError::Platform {
                    index: digest,
                    found: several.len(),
                    platform: format!("linux/{architecture}"),
                }),
            }
        }
        // both at once is how one digest was made to mean two things (CVE-2021-41190)
        _ => Err(ImageError::Kind { digest }),
    }
}

/// The digests on the way from `target` to the image's configuration, and the configuration. `read` gives the content
/// of a digest, already checked against it.
fn walk(
    target: Digest,
    architecture: &str,
    mut read: impl FnMut(Digest) -> Result<Vec<u8>, ImageError>,
) -> Result<(BTreeSet<Digest>, Configuration), ImageError> {
    let mut digests = BTreeSet::new();
    let mut at = target;
    for _ in 0..INDEX_DEPTH {
        digests.insert(at);
        match step(&read(at)?, at, architecture)? {
            Step::Index(next) => at = next,
            Step::Configuration(config) => {
                digests.insert(config);
                let bytes = read(config)?;
                let configuration = document(&bytes, &format!("image configuration {config}"))?;
                return Ok((digests, configuration));
            }
        }
    }
    Err(ImageError::Depth {
        index: target,
        limit: INDEX_DEPTH,
    })
}

/// The name that containerd gives the snapshot of these layers (OCI image specification, "Layer ChainID"); empty
/// without layers.
fn chain_id(layers: &[Digest]) -> String {
    layers
        .iter()
        .copied()
        .reduce(|below, layer| Digest::of(format!("{below} {layer}").as_bytes()))
        .map_or_else(String::new, |chain| chain.to_string())
}

/// A question to containerd.
struct Client<'a> {
    roots: &'a Roots,
    namespace: &'a ContainerId,
    deadline: Instant,
}

impl Client<'_> {
    fn ask(&self, question: &[&str]) -> Result<Vec<u8>, ImageError> {
        let mut arguments: Vec<&OsStr> = vec![
            "--address".as_ref(),
            self.roots.containerd_address.as_ref(),
            "--namespace".as_ref(),
            self.namespace.as_str().as_ref(),
        ];
        arguments.extend(question.iter().map(OsStr::new));
        Ok(run(
            &self.roots.ctr,
            &arguments,
            DOCUMENT_LIMIT,
            self.deadline,
        )?)
    }

    fn container(&self, id: &ContainerId) -> Result<Container, ImageError> {
        let answer = self.ask(&["containers", "info", id.as_str()])?;
        let container: Container = document(&answer, &format!("containerd's record of {id}"))?;
        if container.id == id.as_str() {
            Ok(container)
        } else {
            Err(ImageError::ContainerId {
                id: cut(&container.id),
            })
        }
    }
}

/// The image of a container of containerd's: the digests of the index (if there is one), the manifest for this host's
/// platform and the configuration.
///
/// # Flow
/// Container record → image name → target digest → content store down to the configuration, every document checked
/// against its digest → the layers' chain is the parent of the container's snapshot.
///
/// # Errors
/// [`ImageError`]; [`ImageError::Snapshot`] when the name leads to other layers than the container's.
pub fn resolve(
    namespace: &ContainerId,
    id: &ContainerId,
    roots: &Roots,
    deadline: Instant,
) -> Result<ImageIdentity, ImageError> {
    let client = Client {
        roots,
        namespace,
        deadline,
    };
    let container = client.container(id)?;
    let name = container.image;
    if !plain_name(&name) || ContainerId::new(&container.snapshotter).is_err() {
        return Err(ImageError::NoImage { id: id.to_string() });
    }
    let target = listed(
        &client.ask(&["images", "ls", &format!("name=={name}")])?,
        &name,
    )?;
    let blobs = roots
        .containerd
        .join("io.containerd.content.v1.content/blobs/sha256");
    let (digests, configuration) = walk(target, architecture(), |digest| {
        checked(&blobs.join(digest.hex()), digest)
    })?;

    let key = ContainerId::new(&container.snapshot_key)
        .map_err(|_| ImageError::NoImage { id: id.to_string() })?;
    let answer = client.ask(&[
        "snapshots",
        "--snapshotter",
        &container.snapshotter,
        "info",
        key.as_str(),
    ])?;
    let snapshot: Snapshot = document(&answer, &format!("containerd's snapshot of {id}"))?;
    let wanted = chain_id(&configuration.rootfs.diff_ids);
    if snapshot.parent != wanted || snapshot.name != key.as_str() {
        return Err(ImageError::Snapshot {
            id: id.to_string(),
            name: cut(&name),
            found: cut(&snapshot.parent),
            wanted,
        });
    }

    let mut labels = configuration.config.labels.unwrap_or_default();
    labels.extend(container.labels.unwrap_or_default());
    let stop_signal = labels
        .get(STOP_SIGNAL_LABEL)
        .cloned()
        .or(configuration.config.stop_signal)
        .filter(|text| !text.is_empty());
    Ok(ImageIdentity {
        digests,
        name: id.to_string(),
        engine: Engine::Containerd,
        labels,
        stop_signal,
    })
}

/// The container's stop signal alone, as containerd's clients label it: one question.
///
/// # Errors
/// [`ImageError`].
pub fn stop_signal(
    namespace: &ContainerId,
    id: &ContainerId,
    roots: &Roots,
    deadline: Instant,
) -> Result<Option<String>, ImageError> {
    let client = Client {
        roots,
        namespace,
        deadline,
    };
    let labels = client.container(id)?.labels.unwrap_or_default();
    Ok(labels
        .get(STOP_SIGNAL_LABEL)
        .filter(|text| !text.is_empty())
        .cloned())
}

#[cfg(test)]
mod tests;
