//! What was typed. No IO; what it means is [`crate::config`].

use crate::confine::Confine;
use crate::keep::Choice;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// The gate: checks the papers of confined containers at their first `execve` and decides their asked system calls.
///
/// Exit codes: 0 stopped by a signal, 1 another gate answers on the socket, 2 usage or configuration,
/// 3 this host or user cannot.
#[derive(Debug, Default, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// Something else than the gate.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
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
    /// Bytes after which the event log is turned over [default: 67108864]
    #[arg(long, value_name = "BYTES")]
    pub(crate) log_max_bytes: Option<u64>,
    /// Turned over event logs that are kept [default: 4]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) log_keep: Option<u32>,
    /// Where metrics are served, as `127.0.0.1:9464` or `unix:/run/lazaret/metrics.sock` [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics: Option<String>,
    /// What the next start must know [default: /run/lazaret]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Base URL of the FHIR server that gets the event log as AuditEvents [default: none]
    #[arg(long, value_name = "URL")]
    pub(crate) audit_endpoint: Option<String>,
    /// Folder of AuditEvents that wait for it [default: /var/lib/lazaret/audit]
    #[arg(long, value_name = "DIR")]
    pub(crate) audit_queue: Option<PathBuf>,
    /// Bytes that may wait [default: 67108864]
    #[arg(long, value_name = "BYTES")]
    pub(crate) audit_queue_max_bytes: Option<u64>,
    /// File with the bearer token for it [default: none is sent]
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_token_file: Option<PathBuf>,
    /// File with the certificate authorities that may vouch for it [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_ca_file: Option<PathBuf>,
    /// Who keeps listeners while no gate runs: systemd's descriptor store, or a holder process that the gate starts
    #[arg(long, value_enum)]
    pub(crate) keeper: Option<Choice>,
    /// Seconds for which running containers wait for the gate when it is gone; then what they ask fails. 0: they do not
    /// wait, and no listener outlives the gate [default: 30]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) hold_for: Option<u32>,
    /// Whether the gate is held to its own policy: `enforce`; `observe`, the kernel only logs; `off` [default: enforce]
    #[arg(long, value_enum)]
    pub(crate) confine: Option<Confine>,
    /// Group whose members may do everything on the control socket that root may [default: none]
    #[arg(long, value_name = "GROUP")]
    pub(crate) operate_group: Option<String>,
    /// Group whose members may look: status, watch, drift [default: none]
    #[arg(long, value_name = "GROUP")]
    pub(crate) read_group: Option<String>,
    /// Name of this host, for permits and audit events [default: the kernel's]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
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

/// What this program does besides being the gate.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Holds descriptors while daemons come and go; the gate starts it itself.
    ///
    /// Exit codes: 0 nobody needed it any more, 1 another one has the socket, 3 this host or user cannot.
    #[command(hide = true)]
    Hold(Hold),
    /// Reads the filters of containers' threads for the gate, on its standard input; the gate starts it itself.
    ///
    /// Exit codes: 0 the gate is gone, 3 this host or user cannot.
    #[command(hide = true)]
    Read,
}

/// The holder's options.
#[derive(Debug, clap::Args)]
pub(crate) struct Hold {
    /// Socket on which the gate finds it.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: PathBuf,
    /// How long it waits for a gate.
    #[arg(long = "for", value_name = "SECONDS")]
    pub(crate) seconds: u32,
}
