//! Docker's state: `<data-root>/containers/<id>/config.v2.json` and the image store beside it.
//!
//! Docker writes the file when the container is created, before any runtime sees it (`container/container.go`,
//! `CheckpointTo`). Its fields are not a stable interface: those that are needed must be there, others may come and go.
//! Written for Docker's own image store; with containerd's (Docker 23 and later, optional) the image's configuration is
//! not where it is looked for, and that is refused.

use crate::origin::ContainerId;
use crate::{DOCUMENT_LIMIT, Engine, ImageError, ImageIdentity, Roots, checked, cut};
use lazaret_core::digest::Digest;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The fields of `config.v2.json` that are used (`container.Container` in Docker's sources).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerFile {
    #[serde(rename = "ID")]
    id: String,
    image: String,
    name: String,
    driver: String,
    config: ContainerConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerConfig {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    stop_signal: Option<String>,
}

/// What `config.v2.json` says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Container {
    image: Digest,
    name: String,
    driver: String,
    labels: BTreeMap<String, String>,
    stop_signal: Option<String>,
}

fn parse(bytes: &[u8], id: &ContainerId) -> Result<Container, ImageError> {
    let what = || format!("config.v2.json of container {id}");
    let file: ContainerFile =
        serde_json::from_slice(bytes).map_err(|source| ImageError::Document {
            what: what(),
            source,
        })?;
    if file.id != id.as_str() {
        return Err(ImageError::ContainerId { id: cut(&file.id) });
    }
    let image = file.image.parse().map_err(|_| ImageError::NoDigest {
        what: what(),
        found: cut(&file.image),
    })?;
    // it becomes a directory name: `overlay2`, `fuse-overlayfs`, `vfs` …
    if ContainerId::new(&file.driver).is_err() {
        return Err(ImageError::Driver {
            found: cut(&file.driver),
        });
    }
    Ok(Container {
        image,
        name: file.name.trim_start_matches('/').to_owned(),
        driver: file.driver,
        labels: file.config.labels.unwrap_or_default(),
        stop_signal: file.config.stop_signal.filter(|text| !text.is_empty()),
    })
}

fn read(id: &ContainerId, roots: &Roots) -> Result<Container, ImageError> {
    let path = roots
        .docker_data
        .join("containers")
        .join(id.as_str())
        .join("config.v2.json");
    parse(
        &lazaret_bundle::read::bounded(&path, DOCUMENT_LIMIT as u64)?,
        id,
    )
}

/// The image of a container of Docker's. Its only digest is that of the image's configuration, which Docker keeps and
/// shows as the image's id; the configuration lists the layers by digest.
///
/// # Errors
/// [`ImageError`]; [`ImageError::Damaged`] when the stored configuration does not have its digest.
pub fn resolve(id: &ContainerId, roots: &Roots) -> Result<ImageIdentity, ImageError> {
    let container = read(id, roots)?;
    let configuration = roots
        .docker_data
        .join("image")
        .join(&container.driver)
        .join("imagedb/content/sha256")
        .join(container.image.hex());
    checked(&configuration, container.image)?;
    Ok(ImageIdentity {
        digests: BTreeSet::from([container.image]),
        name: container.name,
        engine: Engine::Docker,
        labels: container.labels,
        stop_signal: container.stop_signal,
    })
}

/// The container's stop signal alone: one small file is read.
///
/// # Errors
/// [`ImageError`].
pub fn stop_signal(id: &ContainerId, roots: &Roots) -> Result<Option<String>, ImageError> {
    Ok(read(id, roots)?.stop_signal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::PathBuf;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    const RECORDED: &str = include_str!("../../../tests/vectors/engines/docker-config.v2.json");
    const IMAGE: &[u8] = include_bytes!("../../../tests/vectors/engines/image-config.json");
    const ID: &str = "1f0a23d70766c7302ccf646d56f5ea5412af8365e479b55a756e43dd22ba0730";

    /// A data root as Docker 20.10 leaves it.
    fn data_root() -> Result<(tempfile::TempDir, Roots, PathBuf), std::io::Error> {
        let folder = tempfile::tempdir()?;
        let container = folder.path().join("containers").join(ID);
        let store = folder.path().join("image/overlay2/imagedb/content/sha256");
        std::fs::create_dir_all(&container)?;
        std::fs::create_dir_all(&store)?;
        std::fs::write(container.join("config.v2.json"), RECORDED)?;
        let image = store.join(Digest::of(IMAGE).hex());
        std::fs::write(&image, IMAGE)?;
        let roots = Roots {
            docker_data: folder.path().to_owned(),
            ..Roots::default()
        };
        Ok((folder, roots, image))
    }

    #[test]
    fn recorded_container() -> Outcome {
        let (_folder, roots, _) = data_root()?;
        let bundle = format!("/run/containerd/io.containerd.runtime.v2.task/moby/{ID}");
        assert_eq!(
            crate::resolve(bundle.as_ref(), ID, &roots)?,
            ImageIdentity {
                digests: [Digest::of(IMAGE)].into(),
                name: "h1".into(),
                engine: Engine::Docker,
                labels: [
                    ("dev.example.kind".into(), "test".into()),
                    ("own".into(), "1".into())
                ]
                .into(),
                stop_signal: Some("SIGQUIT".into()),
            }
        );
        Ok(())
    }

    #[test]
    fn damaged_store_is_refused() -> Outcome {
        let (_folder, roots, image) = data_root()?;
        let id = ContainerId::docker(ID)?;
        std::fs::write(&image, [IMAGE, b" "].concat())?;
        let error = resolve(&id, &roots).err().map(|error| error.to_string());
        assert!(
            error.is_some_and(|text| text.starts_with("image store is damaged: ")),
            "changed"
        );
        std::fs::remove_file(&image)?;
        assert!(
            matches!(resolve(&id, &roots), Err(ImageError::Read(_))),
            "gone"
        );
        Ok(())
    }

    #[test]
    fn refusals() -> Outcome {
        let id = ContainerId::docker(ID)?;
        let check = |from: &str, to: &str, expected: &str| {
            assert!(RECORDED.contains(from), "{from}");
            let found = parse(RECORDED.replace(from, to).as_bytes(), &id).err();
            assert_eq!(
                found.map(|error| error.to_string()).as_deref(),
                Some(expected)
            );
        };
        let other = ID.replace('1', "2");
        check(ID, &other, &format!("`{other}` is no container id"));
        let image = Digest::of(IMAGE).to_string();
        check(
            &format!("\"Image\":\"{image}\""),
            "\"Image\":\"example/hello\"",
            &format!(
                "config.v2.json of container {ID} names the image `example/hello`, which is no sha256 digest"
            ),
        );
        check(
            "\"Driver\":\"overlay2\"",
            "\"Driver\":\"../../etc\"",
            "storage driver `../../etc` of the container is not one",
        );
        check(
            "\"Driver\":",
            "\"driver\":",
            &format!("cannot understand config.v2.json of container {ID}"),
        );
        Ok(())
    }

    #[test]
    fn fields_may_be_absent() -> Outcome {
        let text = format!(
            "{{\"ID\":\"{ID}\",\"Image\":\"{}\",\"Name\":\"/x\",\"Driver\":\"vfs\",\"Config\":{{\"Labels\":null}}}}",
            Digest::of(b"")
        );
        let container = parse(text.as_bytes(), &ContainerId::docker(ID)?)?;
        assert_eq!((container.stop_signal, container.labels.len()), (None, 0));
        Ok(())
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let id = ContainerId::docker(ID).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert!(parse(&bytes, &id).is_err());
        }
    }
}
