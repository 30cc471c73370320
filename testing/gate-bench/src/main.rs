//! What `lazaretd` costs, measured beside the least that could do its work, in one run; and whether it leaks.
//!
//! `cargo xtask bench gate` and `cargo xtask soak` do the set-up and run this. It prints medians, quartiles and ratios, and
//! says of each aim whether it is met. Nothing here passes or fails by a time; a soak fails when something grew.

#![forbid(unsafe_code)]

mod admission;
mod asked;
mod bare;
mod burst;
mod engine;
mod inside;
mod listeners;
mod node;
mod policies;
mod report;
mod sandbox;
mod soak;
mod start;
mod stats;
mod usage;

use anyhow::ensure;
use clap::{Parser, Subcommand, ValueEnum};
use engine::Engine;
use node::Node;
use report::Report;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Benchmarks of the gate.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures, and prints a table
    Run(Wanted),
    /// Lets containers live and end, and fails when something of the gate grew
    Soak(Soak),
    /// A container before its `execve`
    #[command(hide = true)]
    Container { filter: PathBuf },
    /// A container's program
    #[command(hide = true)]
    Inside,
}

/// What is measured.
#[derive(Debug, clap::Args)]
struct Wanted {
    /// The `lazaretd` to measure
    #[arg(long, value_name = "PROGRAM")]
    lazaretd: PathBuf,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Rounds of the asked call
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Asked calls in each round
    #[arg(long, default_value_t = 8000)]
    calls: usize,
    /// Containers at once
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    listeners: u32,
    /// Denied calls of the burst
    #[arg(long, default_value_t = 100_000)]
    denied: u64,
    /// A private Docker engine, as `cargo xtask` describes it; without one `start` is left out
    #[arg(long, value_name = "FILE")]
    engine: Option<PathBuf>,
    /// Where the figures go, one JSON object per line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How long it is soaked.
#[derive(Debug, clap::Args)]
struct Soak {
    /// The `lazaretd` to look at
    #[arg(long, value_name = "PROGRAM")]
    lazaretd: PathBuf,
    /// Lives
    #[arg(long, default_value_t = 1000)]
    lives: u32,
    /// Kill and start the gate in the middle of every so many lives; 0 for never
    #[arg(long, default_value_t = 50)]
    restart_every: u32,
    /// A private Docker engine, as `cargo xtask` describes it; without one the containers are cheap
    #[arg(long, value_name = "FILE")]
    engine: Option<PathBuf>,
    /// Where the figures go, one JSON object per line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What an asked call costs
    Asked,
    /// From the handover of a listener to the container's program
    Admission,
    /// A flood of denied calls
    Burst,
    /// Memory and time with thousands of containers, and a restart beside them
    Listeners,
    /// `docker run` to the first answer, with and without the gate
    Start,
}

fn main() -> ExitCode {
    let said = match Args::parse().command {
        Command::Run(wanted) => measure(&wanted),
        Command::Soak(wanted) => soak(&wanted),
        Command::Container { filter } => sandbox::enter(&filter),
        Command::Inside => inside::run(),
    };
    match said {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gate-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures each part; one that fails does not keep the others from being measured.
fn measure(wanted: &Wanted) -> anyhow::Result<()> {
    let mut report = Report::default();
    let mut failed = 0;
    for part in Part::value_variants() {
        if !wanted.only.is_empty() && !wanted.only.contains(part) {
            continue;
        }
        if let Err(error) = measure_part(*part, wanted, &mut report) {
            println!("  FAILED     {error:#}");
            failed += 1;
        }
    }
    report.print_aims();
    if let Some(path) = &wanted.json {
        report.write(path)?;
    }
    ensure!(
        failed == 0,
        "{failed} parts could not be measured to their end"
    );
    Ok(())
}

fn measure_part(part: Part, wanted: &Wanted, report: &mut Report) -> anyhow::Result<()> {
    let lazaretd = &wanted.lazaretd;
    match part {
        Part::Asked => asked::run(&mut started(lazaretd)?, wanted.rounds, wanted.calls, report),
        Part::Admission => admission::run(lazaretd, report),
        Part::Burst => burst::run(&mut started(lazaretd)?, wanted.denied, report),
        // 10,000 at most
        Part::Listeners => {
            listeners::run(&mut started(lazaretd)?, wanted.listeners as usize, report)
        }
        Part::Start => match &wanted.engine {
            Some(engine) => start::run(&Engine::read(engine)?, lazaretd, report),
            None => {
                println!("  start      left out: no engine was given");
                Ok(())
            }
        },
    }
}

fn started(lazaretd: &Path) -> anyhow::Result<Node> {
    let mut node = Node::new(lazaretd)?;
    node.start()?;
    Ok(node)
}

/// Lives one after the other; fails when something grew.
fn soak(wanted: &Soak) -> anyhow::Result<()> {
    let plan = soak::Plan {
        lives: wanted.lives,
        restart_every: wanted.restart_every,
    };
    let json = wanted.json.as_deref();
    match &wanted.engine {
        None => soak::cheap(&mut started(&wanted.lazaretd)?, plan, json),
        Some(engine) => soak::in_engine(&Engine::read(engine)?, &wanted.lazaretd, plan, json),
    }
}
