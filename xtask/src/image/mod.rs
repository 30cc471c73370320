//! Container images made on this machine, with no registry and no base image.
//!
//! An image is a folder with layers (`SHA256.tar`), a configuration and a `manifest.json`, the "docker archive" that both
//! `docker load` and `ctr images import` read. Layers are sorted tar files with fixed owners and times and the configuration
//! holds no date, so the same files give the same image id. A key over everything that goes in says whether an image that was
//! made before is still the right one. It makes images only; engines load them.

mod berth;
mod hapi;
mod rogue;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::command::{command, output, run};
use crate::steps::Steps;

pub use berth::berth;
pub use hapi::hapi;
pub use rogue::rogue;

/// Modification time of every file in an image, in seconds since 1970. The JVM's class archive is only used when its jars
/// have the times they had when it was made, so files get this time before that.
const MTIME: &str = "@1000000000";

/// An image that is ready to be loaded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Image {
    /// `lazaret/NAME:KIND`.
    reference: String,
    /// `sha256:` and the digest of the configuration: the image's id.
    config_digest: String,
    /// The key it was made from.
    key: String,
    /// Layers, lowest first.
    layers: Vec<Layer>,
    /// Where its files are; known by where this was read from.
    #[serde(skip)]
    folder: PathBuf,
}

/// One layer: an uncompressed tar, named by its digest.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Layer {
    /// 64 hexadecimal digits; as it is not compressed, digest and diff id are the same.
    sha256: String,
}

/// How a container of an image is started.
#[derive(Debug, Clone, Default, Serialize)]
struct StartConfig {
    #[serde(rename = "User")]
    user: String,
    #[serde(rename = "ExposedPorts")]
    exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(rename = "Env")]
    env: Vec<String>,
    #[serde(rename = "Entrypoint")]
    entrypoint: Vec<String>,
    #[serde(rename = "WorkingDir")]
    working_dir: String,
}

impl Image {
    /// The name it is loaded under, as `lazaret/hapi:target`.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// `sha256:…` of its configuration, which Docker calls the image's id.
    pub fn config_digest(&self) -> &str {
        &self.config_digest
    }

    /// A command that writes the docker archive to its standard output, for `docker load` or `ctr images import`.
    pub fn archive(&self) -> Command {
        let mut tar = command(
            "tar",
            ["--create", "--file=-", "--dereference", "--directory"],
        );
        tar.arg(&self.folder).args(["manifest.json", "config.json"]);
        tar.args(self.layers.iter().map(Layer::file))
            .stderr(Stdio::null());
        tar
    }

    /// The image in this folder, when it is there, whole, and made from this key.
    fn made_before(folder: &Path, key: &str) -> Option<Self> {
        let text = fs::read(folder.join("image.json")).ok()?;
        let image = Self {
            folder: folder.to_owned(),
            ..serde_json::from_slice(&text).ok()?
        };
        let whole = image
            .layers
            .iter()
            .all(|layer| folder.join(layer.file()).is_file());
        (whole && image.key == key).then_some(image)
    }

    /// Writes configuration and manifest for layers that are in the folder; `image.json` comes last, so that an image
    /// whose making was interrupted is not taken for whole.
    fn write(
        folder: &Path,
        reference: &str,
        key: String,
        layers: Vec<Layer>,
        start: &StartConfig,
    ) -> anyhow::Result<Self> {
        let diff_ids: Vec<String> = layers
            .iter()
            .map(|l| format!("sha256:{}", l.sha256))
            .collect();
        let config = serde_json::to_vec(&json!({
            "architecture": "amd64",
            "os": "linux",
            "config": start,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        }))?;
        let files: Vec<String> = layers.iter().map(Layer::file).collect();
        let manifest =
            json!([{ "Config": "config.json", "RepoTags": [reference], "Layers": files }]);
        fs::write(folder.join("config.json"), &config)?;
        fs::write(folder.join("manifest.json"), serde_json::to_vec(&manifest)?)?;
        let image = Self {
            reference: reference.to_owned(),
            config_digest: format!("sha256:{}", sha256(&config)?),
            key,
            layers,
            folder: folder.to_owned(),
        };
        fs::write(
            folder.join("image.json"),
            serde_json::to_vec_pretty(&image)?,
        )?;
        Ok(image)
    }
}

impl Layer {
    fn file(&self) -> String {
        format!("{}.tar", self.sha256)
    }

    /// Packs a folder's contents into a layer in `into`.
    fn pack(root: &Path, into: &Path) -> anyhow::Result<Self> {
        let fresh = into.join("layer.new");
        let mut tar = command(
            "tar",
            [
                "--create",
                "--sort=name",
                "--owner=0",
                "--group=0",
                "--numeric-owner",
            ],
        );
        tar.arg(format!("--mtime={MTIME}"))
            .arg("--file")
            .arg(&fresh)
            .arg("--directory")
            .arg(root)
            .arg(".");
        run(&mut tar)?;
        let sums = output(command("sha256sum", ["--"]).arg(&fresh))?;
        let sha256 = sums
            .split_ascii_whitespace()
            .next()
            .context("sha256sum said nothing")?
            .to_owned();
        let layer = Self { sha256 };
        fs::rename(&fresh, into.join(layer.file()))?;
        Ok(layer)
    }

    /// Makes another image's layer part of the image in `into`.
    fn share(&self, from: &Path, into: &Path) -> anyhow::Result<()> {
        let there = into.join(self.file());
        if !there.exists() {
            fs::hard_link(from.join(self.file()), &there)
                .with_context(|| format!("cannot link {}", there.display()))?;
        }
        Ok(())
    }
}

/// An empty folder, whatever was there before.
fn fresh_folder(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))
}

/// SHA-256 as 64 hexadecimal digits. coreutils computes it: a crate built without optimisation takes a minute for an image.
fn sha256(bytes: &[u8]) -> anyhow::Result<String> {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    // Dropped at the end of the statement, which ends the input. sha256sum writes only after it has read everything.
    child
        .stdin
        .take()
        .context("sha256sum has no input")?
        .write_all(bytes)?;
    let result = child.wait_with_output()?;
    match String::from_utf8_lossy(&result.stdout)
        .split_ascii_whitespace()
        .next()
    {
        Some(sum) if result.status.success() && sum.len() == 64 => Ok(sum.to_owned()),
        _ => bail!("sha256sum failed"),
    }
}

/// A key over named inputs: it changes when any of them does.
fn key<'a>(inputs: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> anyhow::Result<String> {
    let mut all = Vec::new();
    for (name, bytes) in inputs {
        // Lengths in front: no two different lists run together to the same bytes.
        all.extend_from_slice(format!("{name} {}\n", bytes.len()).as_bytes());
        all.extend_from_slice(&bytes);
    }
    sha256(&all)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Copies what these programs and libraries are linked to into `root`, at the paths where they look for it.
///
/// Libraries that lie in `root` already, or that are not found, are left out: the caller checks that the program starts.
fn copy_libraries(programs: &[PathBuf], root: &Path) -> anyhow::Result<()> {
    let mut needed = std::collections::BTreeSet::new();
    for program in programs {
        let text = output(command("ldd", ["--"]).arg(program)).unwrap_or_default();
        for word in text
            .split_ascii_whitespace()
            .filter(|word| word.starts_with('/'))
        {
            let path = PathBuf::from(word);
            if !path.starts_with(root) {
                needed.insert(path);
            }
        }
    }
    for library in needed {
        // `/lib64/ld-linux…` and `/lib/…` are links on Debian: the file is copied to where the program looks for it.
        let there = root.join(library.strip_prefix("/").unwrap_or(&library));
        if let Some(folder) = there.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(&library, &there).with_context(|| format!("cannot copy {}", library.display()))?;
    }
    Ok(())
}

/// Shared prefix of every image's step: says when an image made before is used.
fn reuse(steps: &Steps, folder: &Path, key: &str) -> Option<Image> {
    let image = Image::made_before(folder, key)?;
    steps.say(format_args!(
        "image {}: made before, unchanged",
        image.reference
    ));
    Some(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(folder: &Path, content: &str) -> Image {
        let root = folder.join("root");
        fresh_folder(&root).expect("temporary");
        fs::write(root.join("file"), content).expect("temporary");
        let layer = Layer::pack(&root, folder).expect("tar is there");
        Image::write(
            folder,
            "lazaret/test:x",
            "key".into(),
            vec![layer],
            &StartConfig::default(),
        )
        .expect("temporary")
    }

    #[test]
    fn same_files_give_the_same_image_and_others_another() {
        let (a, b) = (
            tempfile::tempdir().expect("temporary"),
            tempfile::tempdir().expect("temporary"),
        );
        let first = make(a.path(), "content");
        assert_eq!(
            first.config_digest(),
            make(b.path(), "content").config_digest()
        );
        assert_ne!(
            first.config_digest(),
            make(b.path(), "Content").config_digest()
        );
    }

    #[test]
    fn an_image_is_used_again_only_when_whole_and_of_the_same_key() {
        let folder = tempfile::tempdir().expect("temporary");
        let image = make(folder.path(), "content");
        assert!(Image::made_before(folder.path(), "key").is_some());
        assert!(Image::made_before(folder.path(), "other").is_none());
        fs::remove_file(folder.path().join(image.layers[0].file())).expect("it was written");
        assert!(Image::made_before(folder.path(), "key").is_none());
    }

    #[test]
    fn key_tells_where_one_input_ends() {
        let one = key([("a", b"xy".to_vec()), ("b", b"".to_vec())]).expect("sha256sum is there");
        let other = key([("a", b"x".to_vec()), ("b", b"y".to_vec())]).expect("sha256sum is there");
        assert_ne!(one, other);
        assert_eq!(
            sha256(b"").expect("sha256sum"),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
