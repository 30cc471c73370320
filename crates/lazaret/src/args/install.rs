//! What was typed for `lazaret install`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// `lazaret install`
#[derive(Debug, Args)]
pub struct Install {
    /// Whose configuration.
    #[arg(value_enum)]
    pub engine: InstallEngine,
    /// Take out what was put in, and nothing else.
    #[arg(long)]
    pub remove: bool,
    /// Show the change as a unified diff and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Also make it the runtime of containers that name none; with --remove, also take that out.
    #[arg(long)]
    pub default: bool,
    /// Where the system's files are, for images and tests; what is written there names paths below it.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// The file to change [default: /etc/docker/daemon.json, /etc/containerd/config.toml,
    /// /etc/containers/containers.conf.d/50-lazaret.conf].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The wrapper as the engine starts it, an absolute path.
    #[arg(
        long,
        value_name = "PROGRAM",
        default_value = "/usr/bin/lazaret-runtime"
    )]
    pub runtime: PathBuf,
}

/// Engines with a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InstallEngine {
    /// `runtimes` in daemon.json.
    Docker,
    /// A runtime of the CRI plugin in config.toml, for Kubernetes; `ctr` and `nerdctl` name the wrapper themselves.
    Containerd,
    /// A file of our own in containers.conf.d.
    Podman,
}

impl InstallEngine {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            InstallEngine::Docker => "docker",
            InstallEngine::Containerd => "containerd",
            InstallEngine::Podman => "podman",
        }
    }
}
