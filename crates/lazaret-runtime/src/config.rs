//! `runtime.toml`: where things are on this node, and which containers are confined.

use anyhow::{Context as _, ensure};
use lazaret_bundle::read::{self, Guard};
use lazaret_core::digest::Digest;
use lazaret_image::Roots;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where the file is unless `--lazaret-config` says otherwise.
pub(crate) const DEFAULT_PATH: &str = "/etc/lazaret/runtime.toml";

/// Largest configuration that is read, in bytes.
const LIMIT: u64 = 1024 * 1024;

/// The file. Unknown fields are errors.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The real runtime, an absolute path.
    pub(crate) runtime: PathBuf,
    /// The node's store of bundles and profiles.
    #[serde(default = "store")]
    pub(crate) store: PathBuf,
    /// The gate's listener socket: a profile that hands its listener to any other is refused.
    #[serde(default = "listener_socket")]
    pub(crate) listener_socket: PathBuf,
    /// The gate's control socket.
    #[serde(default = "control_socket")]
    pub(crate) control_socket: PathBuf,
    /// Docker's `--data-root`.
    #[serde(default)]
    docker_data_root: Option<PathBuf>,
    /// containerd's `root`.
    #[serde(default)]
    containerd_root: Option<PathBuf>,
    /// containerd's socket.
    #[serde(default)]
    containerd_address: Option<PathBuf>,
    /// The `ctr` program.
    #[serde(default)]
    ctr: Option<PathBuf>,
    /// `graphroot` of podman and CRI-O.
    #[serde(default)]
    podman_root: Option<PathBuf>,
    /// Their `runroot`.
    #[serde(default)]
    podman_run: Option<PathBuf>,
    /// Which containers are confined besides those whose image is in the store.
    #[serde(default)]
    pub(crate) select: Select,
}

/// Which containers are confined besides those whose image is in the store.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Select {
    /// Images, by any of their digests.
    pub(crate) images: BTreeSet<Digest>,
    /// A label or annotation that confines a container when its value is `required`.
    pub(crate) label: String,
}

impl Default for Select {
    fn default() -> Select {
        Select {
            images: BTreeSet::new(),
            label: "dev.lazaret.confine".to_owned(),
        }
    }
}

fn store() -> PathBuf {
    "/etc/lazaret".into()
}

fn listener_socket() -> PathBuf {
    "/run/lazaret/gate.sock".into()
}

fn control_socket() -> PathBuf {
    "/run/lazaret/control.sock".into()
}

impl Config {
    /// Reads a file that nobody but its owner can write.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Config> {
        let text = read::guarded(path, LIMIT, Guard::Pinned)?;
        let config: Config =
            toml::from_str(&text).with_context(|| format!("cannot use `{}`", path.display()))?;
        ensure!(
            config.runtime.is_absolute(),
            "`runtime` in `{}` is `{}`, wanted an absolute path",
            path.display(),
            config.runtime.display()
        );
        Ok(config)
    }

    /// Where the engines keep their state.
    pub(crate) fn roots(&self) -> Roots {
        let usual = Roots::default();
        let or = |given: &Option<PathBuf>, usual| given.clone().unwrap_or(usual);
        Roots {
            docker_data: or(&self.docker_data_root, usual.docker_data),
            containerd: or(&self.containerd_root, usual.containerd),
            containerd_address: or(&self.containerd_address, usual.containerd_address),
            ctr: or(&self.ctr, usual.ctr),
            storage: or(&self.podman_root, usual.storage),
            storage_run: or(&self.podman_run, usual.storage_run),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Config> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("runtime.toml");
        std::fs::write(&path, text)?;
        Config::read(&path)
    }

    #[test]
    fn defaults() -> anyhow::Result<()> {
        let config = read("runtime = '/usr/sbin/runc'")?;
        assert_eq!(config.store, Path::new("/etc/lazaret"));
        assert_eq!(config.select.label, "dev.lazaret.confine");
        assert_eq!(config.roots(), Roots::default());
        let config = read("runtime = '/r'\ndocker_data_root = '/d'\n[select]\nlabel = 'l'")?;
        assert_eq!(config.roots().docker_data, Path::new("/d"));
        assert_eq!(config.select.label, "l");
        assert!(config.select.images.is_empty());
        Ok(())
    }

    #[test]
    fn refusals() {
        for text in [
            "",
            "runtime = 'runc'",
            "runtime = '/r'\nmore = 1",
            "runtime = '/r'\n[select]\nimages = ['sha256:00']",
            "runtime = '/r'\n[select]\nimage = []",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
