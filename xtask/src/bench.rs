//! `cargo xtask bench`: builds and runs `testing/filter-bench`, optimised. Judges nothing: it prints medians and ratios.

use anyhow::{Context, ensure};

use crate::programs::cargo;
use crate::setup::Setup;

/// Runs it.
///
/// # Errors
/// When it does not build, or a contender fails on rules that it says it can express.
pub fn run(setup: &Setup) -> anyhow::Result<()> {
    let status = cargo(&setup.workspace, "run")
        .args(["--release", "--locked", "--quiet", "--package=filter-bench"])
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "the benchmark ended with {status}");
    Ok(())
}
