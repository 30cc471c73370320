//! `lazaretd`, the gate.
//!
//! Runtimes hand it one seccomp listener per container start and per `exec`. At the first `execve` it checks the
//! container's papers ([`gate`]); afterwards it decides the calls that the kernel asks about, by the container's signed
//! policy and its phase ([`serve`]). It never loads a filter, never writes to a container but one sentence when it is
//! refused, and never looks behind a pointer for a decision.
//!
//! If it dies, asked calls fail with `ENOSYS` and allowed calls go on; the next start reports such containers.

#![forbid(unsafe_code)]

mod accept;
mod args;
#[expect(
    dead_code,
    unused_imports,
    reason = "started by `run` when the configuration names a server"
)]
mod audit;
mod call;
mod config;
mod container;
mod control;
mod daemon;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "sessions fold denials in a change to come")
)]
mod events;
mod gate;
#[cfg_attr(
    not(test),
    expect(
        dead_code,
        unused_imports,
        reason = "served when the configuration names an address, in the next change"
    )
)]
mod metrics;
mod prelude;
mod readiness;
mod serve;
mod socket;
mod state;

use crate::args::Args;
use crate::config::Config;
use crate::daemon::Daemon;
use crate::socket::SocketError;
use anyhow::Context as _;
use clap::Parser as _;
use lazaret_core::event::What;
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Another gate answers on the socket.
const EXIT_NO: u8 = 1;
/// The configuration cannot be used; clap exits with the same for the command line.
const EXIT_USAGE: u8 = 2;
/// This host or user cannot.
const EXIT_HOST: u8 = 3;

/// How long work on other threads may go on after the signal to stop.
const SHUTDOWN: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
    let config = match Config::resolve(args) {
        Ok(config) => config,
        Err(error) => return failed(EXIT_USAGE, &error.into()),
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let taken = matches!(error.downcast_ref(), Some(SocketError::Taken { .. }));
            failed(if taken { EXIT_NO } else { EXIT_HOST }, &error)
        }
    }
}

fn failed(code: u8, error: &anyhow::Error) -> ExitCode {
    eprintln!("lazaretd: {error:#}");
    ExitCode::from(code)
}

fn run(config: Config) -> anyhow::Result<()> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "must run as root: it reads the filters of other users' processes"
    );
    // sockets and files of this program are for root alone, from their first moment on
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    raise_descriptor_limit();
    let (gate, gate_claim) = socket::claim(&config.listen)?;
    let (control, control_claim) = socket::claim(&config.control)?;
    let (state, known) = state::State::open(&config.state_dir)?;
    let (events, writer) = events::start(&config.events, events::log::Limits::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let listen = config.listen.display().to_string();
    let daemon = Daemon::new(config, events.clone(), state);
    let stopped = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        let gate = UnixListener::from_std(gate).context("cannot use the gate's socket")?;
        let control = UnixListener::from_std(control).context("cannot use the control socket")?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        events.tell("", What::GateStarted { version });
        daemon.recall(known);
        tokio::spawn(accept::runtimes(Arc::clone(&daemon), gate));
        tokio::spawn(accept::clients(Arc::clone(&daemon), control));
        tracing::info!("listening on {listen}");
        tokio::select! {
            _ = terminate.recv() => tracing::info!("stopping: SIGTERM"),
            _ = interrupt.recv() => tracing::info!("stopping: SIGINT"),
        }
        anyhow::Ok(())
    });
    // Nobody new; then what runs is dropped with its listeners: what containers ask from now on fails.
    drop((gate_claim, control_claim));
    runtime.shutdown_timeout(SHUTDOWN);
    writer.finish();
    stopped
}

/// Two to five descriptors per container add up; the default soft limit of 1024 is for programs that use `select`.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::warn!("cannot raise the limit of open descriptors: {error}");
    }
}
