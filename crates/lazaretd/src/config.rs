//! What the options and the configuration file mean together. An option wins over the file.

use crate::args::Args;
use lazaret_bundle::read::{self, Guard, ReadError};
use lazaret_image::Roots;
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};

/// Read when it is there and no other is named.
const DEFAULT_FILE: &str = "/etc/lazaret/lazaretd.toml";

/// Bytes of a configuration file.
const MAX_FILE: u64 = 64 * 1024;

/// A configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    /// The file cannot be read, or somebody else can write it.
    #[error("cannot read the configuration")]
    Read(#[from] ReadError),
    /// It is no such TOML; the source names line and column.
    #[error("configuration `{}` cannot be used", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// The daemon has no directory that a relative path could mean.
    #[error("`{key}` is `{}`, expected an absolute path", path.display())]
    Relative {
        /// The option or key.
        key: &'static str,
        /// Its value.
        path: PathBuf,
    },
}

/// The file. Keys are the long options.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    listen: Option<PathBuf>,
    control: Option<PathBuf>,
    store: Option<PathBuf>,
    events: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    docker_root: Option<PathBuf>,
    docker_socket: Option<PathBuf>,
    containerd_root: Option<PathBuf>,
    containerd_address: Option<PathBuf>,
    ctr: Option<PathBuf>,
    podman_root: Option<PathBuf>,
    podman_run: Option<PathBuf>,
}

/// Where everything is. Every path is absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// Socket on which runtimes hand over listeners.
    pub(crate) listen: PathBuf,
    /// Socket for clients.
    pub(crate) control: PathBuf,
    /// Bundles and pinned keys.
    pub(crate) store: PathBuf,
    /// Event log.
    pub(crate) events: PathBuf,
    /// Folder of the state file.
    pub(crate) state_dir: PathBuf,
    /// Socket of Docker's API, asked for health checks only.
    pub(crate) docker_socket: PathBuf,
    /// Where the engines keep their state.
    pub(crate) roots: Roots,
}

impl Config {
    /// Joins options, file and defaults.
    ///
    /// # Errors
    /// A file that cannot be read or understood, a relative path.
    pub(crate) fn resolve(args: Args) -> Result<Config, ConfigError> {
        let file = match &args.config {
            Some(path) => parse(path)?,
            None => match parse(Path::new(DEFAULT_FILE)) {
                Err(ConfigError::Read(ReadError::Open { source, .. }))
                    if source.kind() == io::ErrorKind::NotFound =>
                {
                    File::default()
                }
                other => other?,
            },
        };
        let defaults = Roots::default();
        let pick = |key, typed: Option<PathBuf>, written: Option<PathBuf>, default: PathBuf| {
            let path = typed.or(written).unwrap_or(default);
            if path.is_absolute() {
                Ok(path)
            } else {
                Err(ConfigError::Relative { key, path })
            }
        };
        Ok(Config {
            listen: pick(
                "listen",
                args.listen,
                file.listen,
                "/run/lazaret/gate.sock".into(),
            )?,
            control: pick(
                "control",
                args.control,
                file.control,
                "/run/lazaret/control.sock".into(),
            )?,
            docker_socket: pick(
                "docker-socket",
                args.docker_socket,
                file.docker_socket,
                "/run/docker.sock".into(),
            )?,
            store: pick("store", args.store, file.store, "/etc/lazaret".into())?,
            events: pick(
                "events",
                args.events,
                file.events,
                "/var/log/lazaret/events.jsonl".into(),
            )?,
            state_dir: pick(
                "state-dir",
                args.state_dir,
                file.state_dir,
                "/run/lazaret".into(),
            )?,
            roots: Roots {
                docker_data: pick(
                    "docker-root",
                    args.docker_root,
                    file.docker_root,
                    defaults.docker_data,
                )?,
                containerd: pick(
                    "containerd-root",
                    args.containerd_root,
                    file.containerd_root,
                    defaults.containerd,
                )?,
                containerd_address: pick(
                    "containerd-address",
                    args.containerd_address,
                    file.containerd_address,
                    defaults.containerd_address,
                )?,
                ctr: pick("ctr", args.ctr, file.ctr, defaults.ctr)?,
                storage: pick(
                    "podman-root",
                    args.podman_root,
                    file.podman_root,
                    defaults.storage,
                )?,
                storage_run: pick(
                    "podman-run",
                    args.podman_run,
                    file.podman_run,
                    defaults.storage_run,
                )?,
            },
        })
    }
}

fn parse(path: &Path) -> Result<File, ConfigError> {
    let text = read::guarded(path, MAX_FILE, Guard::Pinned)?;
    toml::from_str(&text).map_err(|source| ConfigError::Parse {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str, args: Args) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("lazaretd.toml");
        std::fs::write(&path, text).expect("written");
        Config::resolve(Args {
            config: Some(path),
            ..args
        })
    }

    #[test]
    fn an_option_wins_over_the_file_and_the_file_over_the_default() {
        let args = Args {
            listen: Some("/typed".into()),
            ..Args::default()
        };
        let config = with_file("listen = '/written'\nstate-dir = '/state'", args).expect("good");
        assert_eq!(config.listen, Path::new("/typed"));
        assert_eq!(config.state_dir, Path::new("/state"));
        assert_eq!(config.store, Path::new("/etc/lazaret"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let unknown = with_file("lissten = '/x'", Args::default());
        assert!(matches!(unknown, Err(ConfigError::Parse { .. })));
        let relative = with_file("store = 'x'", Args::default());
        let message = relative.expect_err("relative").to_string();
        assert_eq!(message, "`store` is `x`, expected an absolute path");
        let missing = Args {
            config: Some("/nonexistent/lazaretd.toml".into()),
            ..Args::default()
        };
        assert!(matches!(
            Config::resolve(missing),
            Err(ConfigError::Read(_))
        ));
    }
}
