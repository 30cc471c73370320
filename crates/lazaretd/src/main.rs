//! `lazaretd`, the gate.
//!
//! Runtimes hand it one seccomp listener per container start and per `exec`. At the first `execve` it checks the
//! container's papers ([`gate`]); afterwards it decides the calls that the kernel asks about, by the container's signed
//! policy and its phase ([`serve`], [`answers`]). It never loads a filter into a container, never writes to one but one sentence
//! when it is refused, and never looks behind a pointer for a decision. It is held to a policy itself ([`confine`]), so a small
//! process reads the filters of containers for it ([`reader`]).
//!
//! If it dies, listeners wait with their keeper ([`keep`]) for the next one, which goes on where this one was
//! ([`records`]). If none comes, asked calls fail with `ENOSYS` and allowed calls go on.

#![forbid(unsafe_code)]

mod accept;
mod answers;
mod args;
mod audit;
mod call;
mod clock;
mod config;
mod confine;
mod container;
mod control;
mod daemon;
mod events;
mod fault;
mod gate;
mod keep;
mod metrics;
mod papers;
mod permit;
mod prelude;
mod reader;
mod readiness;
mod records;
mod roles;
mod run;
mod serve;
mod socket;

use crate::args::{Args, Command};
use crate::config::Config;
use crate::keep::hold::HoldError;
use crate::socket::SocketError;
use clap::Parser as _;
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// Another gate answers on the socket.
const EXIT_NO: u8 = 1;
/// The configuration cannot be used; clap exits with the same for the command line.
const EXIT_USAGE: u8 = 2;
/// This host or user cannot.
const EXIT_HOST: u8 = 3;

fn main() -> ExitCode {
    let args = Args::parse();
    end_at_panic();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
    if let Some(Command::Hold(hold)) = &args.command {
        return match keep::hold::run(&hold.socket, Duration::from_secs(hold.seconds.into())) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let taken = matches!(error, HoldError::Taken { .. });
                failed(if taken { EXIT_NO } else { EXIT_HOST }, &error.into())
            }
        };
    }
    if let Some(Command::Read) = &args.command {
        return match reader::serve::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(
                EXIT_HOST,
                &anyhow::Error::from(error).context("reader of filters"),
            ),
        };
    }
    let config = match Config::resolve(args) {
        Ok(config) => config,
        Err(error) => return failed(EXIT_USAGE, &error.into()),
    };
    match run::run(config) {
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

/// A thread that panics takes the program with it: half a gate would leave calls hanging that nobody answers, while a crash is a
/// restart, which takes every listener over.
fn end_at_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        std::process::abort();
    }));
}
