//! What the options and the configuration file mean together. An option wins over the file.

use crate::args::Args;
use crate::audit;
use crate::confine::Confine;
use crate::events::log::{Limits, LimitsError};
use crate::keep::Choice;
use crate::metrics::Address;
use crate::metrics::address::AddressError;
use crate::roles::Roles;
use lazaret_bundle::read::{self, Guard, ReadError};
use lazaret_image::Roots;
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};

/// Read when it is there and no other is named.
const DEFAULT_FILE: &str = "/etc/lazaret/lazaretd.toml";

/// Seconds for which a gate that is gone is waited for.
const DEFAULT_HOLD_S: u32 = 30;
/// At most.
const MAX_HOLD_S: u32 = 3600;

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
    /// Containers must not hang for hours.
    #[error("`hold-for` is {found} seconds, at most {MAX_HOLD_S} are possible")]
    HoldFor {
        /// Its value.
        found: u32,
    },
    /// The log's limits.
    #[error("event log")]
    Log(#[from] LimitsError),
    /// Where AuditEvents go.
    #[error(transparent)]
    Audit(#[from] audit::SettingsError),
    /// An address for metrics.
    #[error(transparent)]
    Metrics(#[from] AddressError),
    /// No such group.
    #[error("there is no group `{name}`")]
    Group {
        /// Its name.
        name: String,
    },
}

/// A group by its name or number.
fn group(name: Option<String>) -> Result<Option<u32>, ConfigError> {
    let Some(name) = name else {
        return Ok(None);
    };
    if let Ok(gid) = name.parse() {
        return Ok(Some(gid));
    }
    match uzers::get_group_by_name(&name) {
        Some(group) => Ok(Some(group.gid())),
        None => Err(ConfigError::Group { name }),
    }
}

/// The file. Keys are the long options.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    listen: Option<PathBuf>,
    control: Option<PathBuf>,
    store: Option<PathBuf>,
    events: Option<PathBuf>,
    log_max_bytes: Option<u64>,
    log_keep: Option<u32>,
    metrics: Option<String>,
    audit_endpoint: Option<String>,
    audit_queue: Option<PathBuf>,
    audit_queue_max_bytes: Option<u64>,
    audit_token_file: Option<PathBuf>,
    audit_ca_file: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    keeper: Option<Choice>,
    hold_for: Option<u32>,
    confine: Option<Confine>,
    operate_group: Option<String>,
    read_group: Option<String>,
    node: Option<String>,
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
    /// How much of it is kept.
    pub(crate) log: Limits,
    /// Where metrics are served.
    pub(crate) metrics: Option<Address>,
    /// Where AuditEvents go.
    pub(crate) audit: Option<audit::Settings>,
    /// Folder of what the next start must know.
    pub(crate) state_dir: PathBuf,
    /// Who keeps listeners.
    pub(crate) keeper: Choice,
    /// Seconds for which listeners are held for a gate that is gone; zero holds none.
    pub(crate) hold_for_s: u32,
    /// Whether the daemon is held to its own policy.
    pub(crate) confine: Confine,
    /// Who may do what on the control socket.
    pub(crate) roles: Roles,
    /// Name of this host.
    pub(crate) node: String,
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
        let hold_for_s = args.hold_for.or(file.hold_for).unwrap_or(DEFAULT_HOLD_S);
        if hold_for_s > MAX_HOLD_S {
            return Err(ConfigError::HoldFor { found: hold_for_s });
        }
        let roles = Roles {
            operate: group(args.operate_group.or(file.operate_group))?,
            read: group(args.read_group.or(file.read_group))?,
        };
        let node_name = args.node.clone().or(file.node.clone());
        let endpoint = args.audit_endpoint.or(file.audit_endpoint);
        let audit = endpoint.map(|endpoint| {
            audit::Settings::new(audit::Written {
                endpoint,
                queue: args
                    .audit_queue
                    .or(file.audit_queue)
                    .unwrap_or_else(|| audit::DEFAULT_QUEUE.into()),
                max_bytes: args
                    .audit_queue_max_bytes
                    .or(file.audit_queue_max_bytes)
                    .unwrap_or(audit::DEFAULT_MAX_BYTES),
                token_file: args.audit_token_file.or(file.audit_token_file),
                ca_file: args.audit_ca_file.or(file.audit_ca_file),
                node_name,
            })
        });
        let audit = audit.transpose()?;
        let defaults_of_log = Limits::default();
        let log = Limits::new(
            args.log_max_bytes
                .or(file.log_max_bytes)
                .unwrap_or(defaults_of_log.max_bytes()),
            args.log_keep
                .or(file.log_keep)
                .unwrap_or(defaults_of_log.keep()),
        )?;
        let metrics = args.metrics.or(file.metrics);
        let metrics = metrics.map(|text| text.parse()).transpose()?;
        let node = args.node.or(file.node).unwrap_or_else(|| {
            let name = rustix::system::uname();
            name.nodename().to_string_lossy().into_owned()
        });
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
            log,
            metrics,
            audit,
            keeper: args.keeper.or(file.keeper).unwrap_or_default(),
            hold_for_s,
            confine: args.confine.or(file.confine).unwrap_or_default(),
            roles,
            node,
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
