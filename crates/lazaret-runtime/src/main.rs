//! An OCI runtime that is runc with one difference: containers that are to be confined get Lazaret's profile.
//!
//! Engines that pass `listenerPath` on in a profile (containerd, podman, a kubelet) do not need it; Docker 20.10 drops
//! that field, so there it is put into `config.json` here. Every command ends in `exec` of the real runtime with the
//! same words, environment, files and working directory: output, exit codes and signals are the runtime's own.
//!
//! It does not verify anything and holds no state: the gate does that. A container that is selected and has no profile is
//! not created.
#![forbid(unsafe_code)]

mod command_line;
mod config;
mod config_json;
mod confine;
mod report;
mod stop;

use anyhow::{Context as _, ensure};
use command_line::{Action, CommandLine};
use config::Config;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let line = match command_line::parse(std::env::args_os().skip(1).collect()) {
        Ok(line) => line,
        Err(error) => return refuse(&error.into(), &CommandLine::default()),
    };
    match run(&line) {
        Ok(never) => match never {},
        Err(error) => refuse(&error, &line),
    }
}

/// Does what is ours to do and becomes the runtime.
fn run(line: &CommandLine) -> anyhow::Result<std::convert::Infallible> {
    let path = line
        .config
        .as_deref()
        .unwrap_or(Path::new(config::DEFAULT_PATH));
    let config = Config::read(path)?;
    refuse_to_be_the_runtime(&config)?;
    match &line.action {
        Action::Create(new) => confine::create(&config, new)?,
        Action::Restore(new) => confine::restore(&config, new)?,
        Action::Kill { id, signal } => {
            stop::announce(&config, line.root.as_deref(), id, signal);
        }
        Action::Other => {}
    }
    Err(Command::new(&config.runtime)
        .args(&line.runtime_arguments)
        .exec())
    .with_context(|| format!("cannot run `{}`", config.runtime.display()))
}

/// A configuration that names the wrapper as its runtime would never end.
fn refuse_to_be_the_runtime(config: &Config) -> anyhow::Result<()> {
    let runtime = config
        .runtime
        .metadata()
        .with_context(|| format!("cannot find the runtime `{}`", config.runtime.display()))?;
    let own = Path::new("/proc/self/exe")
        .metadata()
        .context("cannot find this program")?;
    ensure!(
        (runtime.dev(), runtime.ino()) != (own.dev(), own.ino()),
        "`runtime` is `{}`, which is this wrapper itself",
        config.runtime.display()
    );
    Ok(())
}

/// Exit code 1 is what runc gives for every failure of its own (`utils.go`, `fatal`).
fn refuse(error: &anyhow::Error, line: &CommandLine) -> ExitCode {
    let json = line
        .log_format
        .as_deref()
        .is_some_and(|format| format == "json");
    report::refusal(&format!("lazaret: {error:#}"), line.log.as_deref(), json);
    ExitCode::FAILURE
}
