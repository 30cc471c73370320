//! The state of `containers/storage`, which podman and CRI-O keep: `<root>/<driver>-containers/containers.json` and the image's
//! configuration under `<root>/<driver>-images/<id>/`.
//!
//! The container is filed there before any runtime sees it (containers/storage `store.go`, `CreateContainer`). Containers that
//! go with their end are filed in `volatile-containers.json` below the run root by newer versions (`containers.go`).
//!
//! Not here: labels and the stop signal given to one container. podman keeps them in its own database; the image's count.

use crate::origin::ContainerId;
use crate::{DOCUMENT_LIMIT, Engine, ImageError, ImageIdentity, Roots, checked, cut};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lazaret_bundle::read::{self, ReadError};
use lazaret_core::digest::Digest;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// An entry of `containers.json` (containers/storage `containers.go`, `Container`).
#[derive(Debug, Deserialize)]
struct Container {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    /// The image's id, 64 hexadecimal digits; empty for a container without an image.
    #[serde(default)]
    image: String,
}

/// What is used of an image's configuration (OCI image specification 1.1).
#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    config: Process,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Process {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    stop_signal: Option<String>,
}

/// What is used of an image's manifest.
#[derive(Deserialize)]
struct Manifest {
    config: Option<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Digest,
}

fn document<'a, T: Deserialize<'a>>(bytes: &'a [u8], path: &Path) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|source| ImageError::Document {
        what: format!("`{}`", path.display()),
        source,
    })
}

/// The entry of a container, from the first file that has one.
fn find(driver: &ContainerId, id: &ContainerId, roots: &Roots) -> Result<Container, ImageError> {
    let folder = format!("{driver}-containers");
    let files = [
        roots.storage.join(&folder).join("containers.json"),
        roots
            .storage_run
            .join(&folder)
            .join("volatile-containers.json"),
    ];
    for path in &files {
        let bytes = match read::bounded(path, DOCUMENT_LIMIT as u64) {
            Err(ReadError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                continue;
            }
            other => other?,
        };
        let containers: Vec<Container> = document(&bytes, path)?;
        if let Some(found) = containers.into_iter().find(|one| one.id == id.as_str()) {
            return Ok(found);
        }
    }
    Err(ImageError::NotFiled {
        id: id.to_string(),
        root: roots.storage.clone(),
    })
}

struct Image {
    digest: Digest,
    folder: PathBuf,
    configuration: Configuration,
}

/// The image of an entry. Its id is its configuration's digest (containers/image `storage_dest.go`, `computeID`), and the
/// configuration is filed under `=` and the base64 of its digest (containers/storage `images.go`, `makeBigDataBaseName`).
fn image(container: &Container, driver: &ContainerId, roots: &Roots) -> Result<Image, ImageError> {
    if container.image.is_empty() {
        return Err(ImageError::NoImage {
            id: cut(&container.id),
        });
    }
    let named = format!("sha256:{}", container.image);
    let digest: Digest = named.parse().map_err(|_| ImageError::NoDigest {
        what: format!("containers.json of container {}", cut(&container.id)),
        found: cut(&container.image),
    })?;
    let folder = roots
        .storage
        .join(format!("{driver}-images"))
        .join(digest.hex());
    let path = folder.join(format!("={}", BASE64_STANDARD.encode(&named)));
    let configuration = document(&checked(&path, digest)?, &path)?;
    Ok(Image {
        digest,
        folder,
        configuration,
    })
}

/// The image of a container of podman's or CRI-O's. Its digests are that of its configuration and, where it is kept, that of
/// the manifest that names this configuration.
///
/// # Errors
/// [`ImageError`]; [`ImageError::NotFiled`] when the storage root is another than the one that is configured.
pub fn resolve(
    driver: &ContainerId,
    id: &ContainerId,
    roots: &Roots,
) -> Result<ImageIdentity, ImageError> {
    let container = find(driver, id, roots)?;
    let image = image(&container, driver, roots)?;
    let mut digests = BTreeSet::from([image.digest]);
    let manifest = image.folder.join("manifest");
    match read::bounded(&manifest, DOCUMENT_LIMIT as u64) {
        Ok(bytes) => {
            let named: Manifest = document(&bytes, &manifest)?;
            if named
                .config
                .is_some_and(|config| config.digest == image.digest)
            {
                digests.insert(Digest::of(&bytes));
            }
        }
        Err(ReadError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let process = image.configuration.config;
    Ok(ImageIdentity {
        digests,
        name: container.names.into_iter().next().unwrap_or_default(),
        engine: Engine::Storage,
        labels: process.labels.unwrap_or_default(),
        stop_signal: process.stop_signal.filter(|text| !text.is_empty()),
    })
}

/// What is used of a container's `config.json` (OCI runtime specification 1.0.2).
#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// podman writes here what it will send, whether the image or somebody's `--stop-signal` says so (podman
/// `libpod/container_internal_common.go`, `generateSpec`; OCI image specification, "Annotation Keys").
const STOP_SIGNAL: &str = "org.opencontainers.image.stopSignal";

/// The container's stop signal: as its bundle is annotated, else as its image asks for.
///
/// # Errors
/// [`ImageError`].
pub fn stop_signal(
    driver: &ContainerId,
    id: &ContainerId,
    roots: &Roots,
) -> Result<Option<String>, ImageError> {
    let folder = format!("{driver}-containers");
    // podman's bundle is in the one, CRI-O's in the other
    for root in [&roots.storage, &roots.storage_run] {
        let path = root.join(&folder).join(id.as_str());
        let path = path.join("userdata/config.json");
        let bytes = match read::bounded(&path, DOCUMENT_LIMIT as u64) {
            Err(ReadError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                continue;
            }
            other => other?,
        };
        let mut bundle: Bundle = document(&bytes, &path)?;
        let signal = bundle.annotations.remove(STOP_SIGNAL);
        if signal.as_ref().is_some_and(|signal| !signal.is_empty()) {
            return Ok(signal);
        }
    }
    Ok(resolve(driver, id, roots)?.stop_signal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    const ID: &str = "58cf2507c9220eeeab28eb3f932358ebcdfa51a1f0179be3745208c407c2d38e";

    /// As podman 4.3.1 wrote them for an image of busybox (`podman import`, `podman run --name n1`).
    const CONFIG: &[u8] = br#"{"created":"2026-11-22T23:37:33.637408945Z","architecture":"amd64","os":"linux","config":{"Cmd":["/sh"],"Labels":{"a":"b"},"StopSignal":"3"},"rootfs":{"type":"layers","diff_ids":["sha256:91637b94cb994916eec7504cfbcd2ec57118c53897ec4d5355167b491aee6e5c"]},"history":[{"created":"2026-11-22T23:37:33.637408945Z","created_by":"/bin/sh -c #(nop) ADD file:91637b94cb994916eec7504cfbcd2ec57118c53897ec4d5355167b491aee6e5c in /","comment":"imported from tarball"}]}"#;
    const IMAGE: &str = "d75b06d8ed114883f130a3ce564dc55d1d263c3e6037dbea24504834baa6f4e3";
    const IMAGE_FILE: &str = "=c2hhMjU2OmQ3NWIwNmQ4ZWQxMTQ4ODNmMTMwYTNjZTU2NGRjNTVkMWQyNjNjM2U2MDM3ZGJlYTI0NTA0ODM0YmFhNmY0ZTM=";
    const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:d75b06d8ed114883f130a3ce564dc55d1d263c3e6037dbea24504834baa6f4e3","size":458},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:91637b94cb994916eec7504cfbcd2ec57118c53897ec4d5355167b491aee6e5c","size":1986560}]}"#;
    const MANIFEST_DIGEST: &str =
        "sha256:dce9fa7a7f69b9cbb60ea83da751a61d67fdf93ea877d2fc9a25966fb1b471db";

    fn containers(image: &str) -> String {
        format!(
            r#"[{{"id":"{}","image":"x"}},{{"id":"{ID}","names":["n1"],"image":"{image}","layer":"a074","metadata":"{{}}","created":"2026-11-22T23:37:33.955840692Z","flags":{{"MountLabel":"","ProcessLabel":""}}}}]"#,
            ID.replace('5', "6")
        )
    }

    struct Storage {
        _folder: tempfile::TempDir,
        roots: Roots,
        bundle: PathBuf,
    }

    impl Storage {
        fn new() -> io::Result<Storage> {
            let folder = tempfile::tempdir()?;
            let (root, run) = (folder.path().join("root"), folder.path().join("run"));
            let image = root.join("vfs-images").join(IMAGE);
            fs::create_dir_all(&image)?;
            fs::create_dir_all(run.join("vfs-containers"))?;
            let bundle = root.join("vfs-containers").join(ID).join("userdata");
            fs::create_dir_all(&bundle)?;
            fs::write(image.join(IMAGE_FILE), CONFIG)?;
            fs::write(image.join("manifest"), MANIFEST)?;
            let storage = Storage {
                roots: Roots {
                    storage: root,
                    storage_run: run,
                    ..Roots::default()
                },
                bundle,
                _folder: folder,
            };
            fs::write(storage.filed(), containers(IMAGE))?;
            Ok(storage)
        }

        fn filed(&self) -> PathBuf {
            self.roots.storage.join("vfs-containers/containers.json")
        }

        fn image(&self, name: &str) -> PathBuf {
            self.roots.storage.join("vfs-images").join(IMAGE).join(name)
        }

        fn resolve(&self) -> Result<ImageIdentity, ImageError> {
            crate::resolve(&self.bundle, ID, &self.roots)
        }
    }

    #[test]
    fn recorded_container() -> Outcome {
        let storage = Storage::new()?;
        let expected = ImageIdentity {
            digests: [Digest::of(CONFIG), MANIFEST_DIGEST.parse()?].into(),
            name: "n1".into(),
            engine: Engine::Storage,
            labels: [("a".into(), "b".into())].into(),
            stop_signal: Some("3".into()),
        };
        assert_eq!(Digest::of(CONFIG).hex().to_string(), IMAGE);
        assert_eq!(storage.resolve()?, expected);
        // as newer versions file containers that go with their end
        let volatile = "vfs-containers/volatile-containers.json";
        fs::rename(storage.filed(), storage.roots.storage_run.join(volatile))?;
        assert_eq!(storage.resolve()?, expected);
        Ok(())
    }

    /// CRI-O's bundles are below the run root (cri-o `server/container_create.go`, `containerInfo.RunDir`); its containers are
    /// filed as podman's are. From reading: no CRI-O has been run here.
    #[test]
    fn a_bundle_below_the_run_root() -> Outcome {
        let storage = Storage::new()?;
        let below = Path::new("vfs-containers").join(ID).join("userdata");
        let bundle = storage.roots.storage_run.join(below);
        let found = crate::resolve(&bundle, ID, &storage.roots)?;
        assert_eq!(found, storage.resolve()?);
        Ok(())
    }

    #[test]
    fn a_manifest_of_another_image_does_not_name_this_one() -> Outcome {
        let storage = Storage::new()?;
        let other = String::from_utf8(MANIFEST.to_vec())?.replace(IMAGE, &IMAGE.replace('d', "e"));
        fs::write(storage.image("manifest"), other)?;
        assert_eq!(storage.resolve()?.digests, [Digest::of(CONFIG)].into());
        fs::remove_file(storage.image("manifest"))?;
        assert_eq!(storage.resolve()?.digests, [Digest::of(CONFIG)].into());
        Ok(())
    }

    #[test]
    fn the_stop_signal_of_the_bundle_comes_before_the_images() -> Outcome {
        let storage = Storage::new()?;
        let origin = crate::Origin::in_storage(&storage.roots, ID).ok_or("not found")?;
        let signal = || {
            let limit = std::time::Duration::from_secs(9);
            crate::stop_signal(&origin, &storage.roots, limit)
        };
        assert_eq!(signal()?.as_deref(), Some("3"), "no bundle yet");
        let bundle = storage.bundle.join("config.json");
        fs::write(&bundle, r#"{"ociVersion": "1.0.2"}"#)?;
        assert_eq!(signal()?.as_deref(), Some("3"), "nothing in it");
        fs::write(
            &bundle,
            format!(r#"{{"annotations": {{"{STOP_SIGNAL}": "10"}}}}"#),
        )?;
        assert_eq!(signal()?.as_deref(), Some("10"));
        fs::write(&bundle, "[")?;
        assert!(matches!(signal(), Err(ImageError::Document { .. })));
        let unknown = ID.replace('5', "6");
        assert_eq!(crate::Origin::in_storage(&storage.roots, &unknown), None);
        assert_eq!(crate::Origin::in_storage(&storage.roots, ".."), None);
        Ok(())
    }

    #[test]
    fn refusals() -> Outcome {
        let storage = Storage::new()?;
        fs::write(storage.image(IMAGE_FILE), [CONFIG, b" "].concat())?;
        assert!(matches!(storage.resolve(), Err(ImageError::Damaged { .. })));
        fs::remove_file(storage.image(IMAGE_FILE))?;
        assert!(matches!(storage.resolve(), Err(ImageError::Read(_))));
        fs::write(storage.filed(), containers(""))?;
        assert!(matches!(storage.resolve(), Err(ImageError::NoImage { .. })));
        fs::write(storage.filed(), containers("../../etc"))?;
        assert!(matches!(
            storage.resolve(),
            Err(ImageError::NoDigest { .. })
        ));
        fs::write(storage.filed(), "[]")?;
        assert!(matches!(
            storage.resolve(),
            Err(ImageError::NotFiled { .. })
        ));
        fs::write(storage.filed(), "{}")?;
        assert!(matches!(
            storage.resolve(),
            Err(ImageError::Document { .. })
        ));
        Ok(())
    }
}
