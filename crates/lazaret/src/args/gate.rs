//! The verbs that talk to the gate, or read what it wrote.

use super::phase;
use clap::Args;
use std::path::PathBuf;

/// Where the gate is talked to.
#[derive(Debug, Args)]
pub struct Control {
    /// The gate's control socket.
    #[arg(
        long,
        value_name = "SOCKET",
        default_value = "/run/lazaret/control.sock"
    )]
    pub control: PathBuf,
}

/// `lazaret watch`
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// One line per event, also on a terminal.
    #[arg(long)]
    pub plain: bool,
    /// Where the gate is.
    #[command(flatten)]
    pub control: Control,
}

/// `lazaret phase`
#[derive(Debug, Args)]
pub struct PhaseArgs {
    /// The container's id, the beginning of one that is unique, or its name.
    pub container: String,
    /// The phase to move to: startup, serving or stopping.
    #[arg(value_parser = phase)]
    pub to: lazaret_core::phase::Phase,
    /// Where the gate is.
    #[command(flatten)]
    pub control: Control,
}

/// `lazaret revise`
#[derive(Debug, Args)]
pub struct Revise {
    /// The container's id, the beginning of one that is unique, or its name.
    pub container: String,
    /// The revision, installed on this node and signed for the container's image [default: the highest installed].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub revision: Option<u64>,
    /// Take it also when it denies calls that the filter in the kernel allows: those go on until the container is started
    /// again, and are shown as `until restart`.
    #[arg(long)]
    pub partly: bool,
    /// Where the gate is.
    #[command(flatten)]
    pub control: Control,
}

/// `lazaret suggest`
#[derive(Debug, Args)]
pub struct Suggest {
    /// The policy's text.
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// Only this container: its id, the beginning of one, or (from the gate) its name [default: every container of an image
    /// that the policy names].
    #[arg(long, value_name = "CONTAINER")]
    pub container: Option<String>,
    /// Event logs of the gate instead of the gate itself, oldest first; may be given several files.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "control")]
    pub events: Vec<PathBuf>,
    /// Write the changed policy text to this file, when there is something to suggest.
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The gate's control socket.
    #[arg(
        long,
        value_name = "SOCKET",
        default_value = "/run/lazaret/control.sock"
    )]
    pub control: PathBuf,
}
