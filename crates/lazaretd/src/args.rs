//! What was typed. No IO; what it means is [`crate::config`].

use clap::Parser;
use std::path::PathBuf;

/// The gate: checks the papers of confined containers at their first `execve` and decides their asked system calls.
///
/// Exit codes: 0 stopped by a signal, 1 another gate answers on the socket, 2 usage or configuration,
/// 3 this host or user cannot.
#[derive(Debug, Default, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// Configuration file (TOML, the long options as keys) [default: /etc/lazaret/lazaretd.toml if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Socket on which runtimes hand over listeners [default: /run/lazaret/gate.sock]
    #[arg(long, value_name = "PATH")]
    pub(crate) listen: Option<PathBuf>,
    /// Socket for `lazaret status`, `watch`, `phase` [default: /run/lazaret/control.sock]
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,
    /// Bundles and pinned keys [default: /etc/lazaret]
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Event log, JSON lines [default: /var/log/lazaret/events.jsonl]
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,
    /// What the next start must know [default: /run/lazaret]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Docker's data root [default: /var/lib/docker]
    #[arg(long, value_name = "DIR")]
    pub(crate) docker_root: Option<PathBuf>,
    /// Docker's API socket, asked for the health of containers [default: /run/docker.sock]
    #[arg(long, value_name = "PATH")]
    pub(crate) docker_socket: Option<PathBuf>,
    /// containerd's root [default: /var/lib/containerd]
    #[arg(long, value_name = "DIR")]
    pub(crate) containerd_root: Option<PathBuf>,
    /// containerd's socket [default: /run/containerd/containerd.sock]
    #[arg(long, value_name = "PATH")]
    pub(crate) containerd_address: Option<PathBuf>,
    /// The `ctr` program [default: /usr/bin/ctr]
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) ctr: Option<PathBuf>,
    /// `graphroot` of podman and CRI-O [default: /var/lib/containers/storage]
    #[arg(long, value_name = "DIR")]
    pub(crate) podman_root: Option<PathBuf>,
    /// `runroot` of podman and CRI-O [default: /run/containers/storage]
    #[arg(long, value_name = "DIR")]
    pub(crate) podman_run: Option<PathBuf>,
}
