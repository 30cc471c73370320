//! Parse, run, exit code.

#![forbid(unsafe_code)]

use clap::Parser;
use lazaret::args::Cli;
use lazaret::exit::Exit;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = lazaret::cleanup::on_signals() {
        eprintln!("lazaret: cannot handle signals: {error}");
        return Exit::HostCannot.into();
    }
    let outcome = lazaret::run(&cli);
    lazaret::cleanup::before_exit();
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("lazaret: {:#}", failure.error);
            failure.exit.into()
        }
    }
}
