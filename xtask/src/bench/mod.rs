//! `cargo xtask bench` and `cargo xtask soak`: build and run `testing/filter-bench` and `testing/gate-bench`, optimised.
//!
//! Benchmarks judge nothing: they print medians and ratios, and what was hoped for. A soak fails when something grew.

mod engine;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::programs::{self, Programs, cargo};
use crate::setup::Setup;
use engine::Described;

/// Compiler and prover beside others.
///
/// # Errors
/// When it does not build, or a contender fails on rules that it says it can express.
pub fn filter(setup: &Setup) -> anyhow::Result<()> {
    let status = cargo(&setup.workspace, "run")
        .args(["--release", "--locked", "--quiet", "--package=filter-bench"])
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "the benchmark ended with {status}");
    Ok(())
}

/// The gate beside the least that could do its work. `only` holds parts by their names; empty means all.
///
/// # Errors
/// When it does not build, or a part cannot be measured. A figure that misses its aim is none.
pub fn gate(setup: &Setup, only: &[String]) -> anyhow::Result<()> {
    let built = build(setup)?;
    let needs_engine = only.is_empty() || only.iter().any(|part| part == "start");
    let engine = needs_engine
        .then(|| Described::start(setup, &built))
        .transpose()?;
    let mut bench = Command::new(built.path("gate-bench")?);
    bench.arg("run").arg("--lazaretd");
    bench.arg(built.path("lazaretd")?);
    for part in only {
        bench.arg("--only").arg(part);
    }
    finish(setup, bench, engine.as_ref(), "bench-gate")
}

/// Which containers live in a soak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Containers {
    /// Processes in pid namespaces, without an engine: cheap.
    Cheap,
    /// berth in a private Docker engine.
    Docker,
}

/// So many container lives, with the gate killed and started again in the middle of every `restart_every` (0 for never).
///
/// # Errors
/// When a life goes wrong, or something grew.
pub fn soak(
    setup: &Setup,
    containers: Containers,
    lives: u32,
    restart_every: u32,
) -> anyhow::Result<()> {
    let built = build(setup)?;
    let (engine, name) = match containers {
        Containers::Cheap => (None, "soak"),
        Containers::Docker => (Some(Described::start(setup, &built)?), "soak-docker"),
    };
    let mut bench = Command::new(built.path("gate-bench")?);
    bench.arg("soak").arg("--lazaretd");
    bench.arg(built.path("lazaretd")?);
    bench.arg("--lives").arg(lives.to_string());
    bench.arg("--restart-every").arg(restart_every.to_string());
    finish(setup, bench, engine.as_ref(), name)
}

fn build(setup: &Setup) -> anyhow::Result<Programs> {
    const PROGRAMS: [&str; 3] = ["gate-bench", "lazaretd", "lazaret-runtime"];
    setup.steps.step("build the gate and its benchmark", |_| {
        let packages = PROGRAMS.map(|name| format!("--package={name}"));
        let options = ["--release", "--locked"].into_iter();
        let options: Vec<&str> = options.chain(packages.iter().map(String::as_str)).collect();
        programs::build(&setup.workspace, &options, &PROGRAMS)
    })
}

/// Runs it to its end; its figures also go to `target/NAME.jsonl`.
fn finish(
    setup: &Setup,
    mut bench: Command,
    engine: Option<&Described>,
    name: &str,
) -> anyhow::Result<()> {
    fs::create_dir_all(&setup.target)?;
    let json: PathBuf = setup.target.join(format!("{name}.jsonl"));
    if let Some(engine) = engine {
        bench.arg("--engine").arg(engine.description());
    }
    let status = bench
        .arg("--json")
        .arg(&json)
        .status()
        .context("cannot start gate-bench")?;
    ensure!(status.success(), "gate-bench ended with {status}");
    println!("figures: {}", json.display());
    Ok(())
}
