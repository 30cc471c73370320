//! Against what containerd 1.6.20 answered (`tests/vectors/engines`), replayed by `tests/ctr.sh`.

use super::*;
use proptest::prelude::*;
use std::path::Path;

type Failure = Box<dyn std::error::Error>;

const CONTAINER: &str = include_str!("../../../../tests/vectors/engines/ctr-container.json");
const IMAGES: &str = include_str!("../../../../tests/vectors/engines/ctr-images.txt");
const SNAPSHOT: &str = include_str!("../../../../tests/vectors/engines/ctr-snapshot.json");
const MANIFEST: &[u8] = include_bytes!("../../../../tests/vectors/engines/manifest.json");
const CONFIGURATION: &[u8] = include_bytes!("../../../../tests/vectors/engines/image-config.json");

/// A host on which `ctr` gives recorded answers, each of which a test may change.
struct Host {
    folder: tempfile::TempDir,
    roots: Roots,
}

impl Host {
    fn new() -> Result<Host, Failure> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        for (name, answer) in [
            ("container", CONTAINER),
            ("images", IMAGES),
            ("snapshot", SNAPSHOT),
        ] {
            std::fs::write(at(name), answer)?;
        }
        let host = Host {
            roots: Roots {
                containerd: at("root"),
                containerd_address: at("c.sock"),
                ctr: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ctr.sh"),
                docker_data: "/nonexistent".into(),
                ..Roots::default()
            },
            folder,
        };
        std::fs::create_dir_all(host.blobs())?;
        host.store(MANIFEST)?;
        host.store(CONFIGURATION)?;
        Ok(host)
    }

    fn blobs(&self) -> std::path::PathBuf {
        self.roots
            .containerd
            .join("io.containerd.content.v1.content/blobs/sha256")
    }

    fn store(&self, blob: &[u8]) -> Result<Digest, std::io::Error> {
        let digest = Digest::of(blob);
        std::fs::write(self.blobs().join(digest.hex()), blob)?;
        Ok(digest)
    }

    fn change(&self, answer: &str, from: &str, to: &str) -> Result<(), Failure> {
        let path = self.folder.path().join(answer);
        let text = std::fs::read_to_string(&path)?;
        assert!(text.contains(from), "{answer} has no `{from}`");
        std::fs::write(path, text.replace(from, to))?;
        Ok(())
    }

    fn resolve(&self) -> Result<ImageIdentity, ImageError> {
        let bundle = Path::new("/run/containerd/io.containerd.runtime.v2.task/test/c1");
        crate::resolve(bundle, "c1", &self.roots)
    }

    fn message(&self) -> String {
        match self.resolve() {
            Ok(identity) => format!("{identity:?}"),
            Err(error) => {
                let source = std::error::Error::source(&error);
                let source = source.map(|source| format!(": {source}"));
                format!("{error}{}", source.unwrap_or_default())
            }
        }
    }
}

/// An index over the recorded manifest, beside one for another platform.
fn index(platform: &str) -> String {
    let other = Digest::of(b"other");
    format!(
        "{{\"schemaVersion\":2,\"manifests\":[\
         {{\"digest\":\"{}\",\"platform\":{{\"architecture\":\"{platform}\",\"os\":\"linux\"}}}},\
         {{\"digest\":\"{other}\",\"platform\":{{\"architecture\":\"s390x\",\"os\":\"linux\"}}}},\
         {{\"digest\":\"{other}\",\"platform\":{{\"architecture\":\"unknown\",\"os\":\"unknown\"}}}}]}}",
        Digest::of(MANIFEST)
    )
}

#[test]
fn recorded_container() -> Result<(), Failure> {
    let host = Host::new()?;
    assert_eq!(
        host.resolve()?,
        ImageIdentity {
            digests: [Digest::of(MANIFEST), Digest::of(CONFIGURATION)].into(),
            name: "c1".into(),
            engine: Engine::Containerd,
            labels: [
                ("dev.example.kind".into(), "test".into()),
                (STOP_SIGNAL_LABEL.into(), "SIGQUIT".into())
            ]
            .into(),
            stop_signal: Some("SIGQUIT".into()),
        }
    );
    let origin = crate::Origin::new("test", "c1")?;
    let timeout = std::time::Duration::from_secs(60);
    assert_eq!(
        crate::stop_signal(&origin, &host.roots, timeout)?.as_deref(),
        Some("SIGQUIT")
    );
    Ok(())
}

#[test]
fn through_an_index() -> Result<(), Failure> {
    let host = Host::new()?;
    let index = host.store(index(architecture()).as_bytes())?;
    host.change(
        "images",
        &Digest::of(MANIFEST).to_string(),
        &index.to_string(),
    )?;
    assert_eq!(
        host.resolve()?.digests,
        [index, Digest::of(MANIFEST), Digest::of(CONFIGURATION)].into()
    );
    Ok(())
}

#[test]
fn a_name_that_was_given_to_another_image_is_refused() -> Result<(), Failure> {
    let host = Host::new()?;
    let layer = "sha256:af5a8adb3185f1049f2aad0d3793543d96964218bafc29b04b30a291566b3c9d";
    let other = Digest::of(b"another layer");
    host.change("snapshot", layer, &other.to_string())?;
    assert_eq!(
        host.message(),
        format!(
            "container c1 was not made from what `docker.io/example/hello:1` names now: its snapshot is on `{other}`, \
             the image is `{layer}`"
        )
    );
    Ok(())
}

#[test]
fn damaged_content_is_refused() -> Result<(), Failure> {
    for blob in [MANIFEST, CONFIGURATION] {
        let host = Host::new()?;
        let path = host.blobs().join(Digest::of(blob).hex());
        std::fs::write(&path, [blob, b" "].concat())?;
        let message = host.message();
        assert!(message.starts_with("image store is damaged: "), "{message}");
        std::fs::remove_file(path)?;
        assert!(matches!(host.resolve(), Err(ImageError::Read(_))));
    }
    Ok(())
}

#[test]
fn refusals() -> Result<(), Failure> {
    let check = |answer: &str, from: &str, to: &str, expected: &str| -> Result<(), Failure> {
        let host = Host::new()?;
        host.change(answer, from, to)?;
        let message = host.message();
        assert!(message.starts_with(expected), "{message}");
        Ok(())
    };
    let image = "\"Image\": \"docker.io/example/hello:1\"";
    check(
        "container",
        image,
        "\"Image\": \"\"",
        "container c1 has no image",
    )?;
    check(
        "container",
        image,
        "\"Image\": \"a,labels.x\"",
        "container c1 has no image",
    )?;
    check(
        "container",
        "\"SnapshotKey\": \"c1\"",
        "\"SnapshotKey\": \"--all\"",
        "container c1 has no image",
    )?;
    check(
        "container",
        "\"ID\": \"c1\"",
        "\"ID\": \"c2\"",
        "`c2` is no container id",
    )?;
    check(
        "images",
        "docker.io/example/hello:1",
        "docker.io/example/hello:2",
        "containerd has no image `docker.io/example/hello:1` any more",
    )?;
    check(
        "images",
        "sha256:",
        "sha512:",
        "`ctr images ls` names the image `sha512:0f17",
    )?;
    check(
        "container",
        "\"Labels\"",
        "",
        "cannot understand containerd's record of c1",
    )?;
    let host = Host::new()?;
    std::fs::remove_file(host.folder.path().join("container"))?;
    let message = host.message();
    assert!(message.starts_with("cannot ask containerd: `"), "{message}");
    assert!(message.contains("No such file"), "{message}");
    Ok(())
}

#[test]
fn indexes() {
    let digest = Digest::of(b"index");
    let check = |document: &str, expected: &str| {
        let found = match step(document.as_bytes(), digest, "amd64") {
            Ok(step) => format!("{step:?}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected, "{document}");
    };
    check(&index("amd64"), &format!("Index({})", Digest::of(MANIFEST)));
    check(
        &index("arm64"),
        &format!("index {digest} has 0 manifests for linux/amd64, wanted one"),
    );
    check(
        &index("amd64").replace("s390x", "amd64"),
        &format!("index {digest} has 2 manifests for linux/amd64, wanted one"),
    );
    let neither = format!("{digest} is neither an image index nor an image manifest");
    check("{}", &neither);
    check(
        &index("amd64").replacen(
            '{',
            &format!("{{\"config\":{{\"digest\":\"{digest}\"}},"),
            1,
        ),
        &neither,
    );
}

#[test]
fn indexes_without_end() {
    // every document is an index over the same one more
    let result = walk(Digest::of(b"0"), "amd64", |_| {
        Ok(index("amd64").into_bytes())
    });
    assert!(matches!(
        result.map(|_| ()),
        Err(ImageError::Depth {
            limit: INDEX_DEPTH,
            ..
        })
    ));
}

#[test]
fn chains() {
    let layers = [b"a", b"b", b"c"].map(|layer| Digest::of(layer));
    assert_eq!(chain_id(&[]), "");
    assert_eq!(chain_id(&layers[..1]), layers[0].to_string());
    let two = Digest::of(format!("{} {}", layers[0], layers[1]).as_bytes());
    assert_eq!(chain_id(&layers[..2]), two.to_string());
    let three = Digest::of(format!("{two} {}", layers[2]).as_bytes());
    assert_eq!(chain_id(&layers), three.to_string());
}

proptest! {
    #[test]
    fn arbitrary_answers_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(listed(&bytes, "docker.io/example/hello:1").is_err());
        prop_assert!(step(&bytes, Digest::of(b""), "amd64").is_err());
        prop_assert!(document::<Container>(&bytes, "").is_err());
    }
}
