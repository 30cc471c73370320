//! `cargo xtask test`: every check and every test, the ones that need root and an engine included.
//!
//! All stages run, also after one that failed, so that one run says everything. A test that cannot run here says `SKIP:` and
//! why; as this command refuses to begin on a machine that lacks something ([`crate::host`]), a skip is a failure unless
//! [`tally::MAY_BE_MISSING`] has a fact for it. The last line is `N passed, N failed, N skipped`.

mod e2e;
mod tally;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::command::run as run_quietly;
use crate::programs::cargo;
use crate::setup::Setup;
use crate::steps::Step;
use crate::{nostd, tables, tidy};
use tally::{Reader, Said, Tally};

/// The packages whose `#[ignore]`d tests need root, engines and images. Elsewhere `#[ignore]` has other reasons.
const ROOT_TESTS: [&str; 2] = ["xtask", "lazaret"];

/// The end-to-end tests among them, in options of `cargo test`.
const E2E: [&str; 4] = ["--package", "lazaret", "--test", "e2e"];

/// The longest line of a test's output that is kept, in bytes.
const MAX_LINE: u64 = 64 << 10;

/// Runs everything and prints the closing line.
///
/// # Errors
/// When anything failed, or was skipped that should not have been.
pub fn run(setup: &Setup) -> anyhow::Result<()> {
    let mut all = Tally::default();
    let workspace = setup.workspace.as_path();
    let mut check = |name: &str, work: &dyn Fn() -> anyhow::Result<()>| {
        let result = setup.steps.step(name, |_| work());
        all.check(result);
    };
    check("formatting", &|| {
        run_quietly(cargo(workspace, "fmt").args(["--all", "--", "--check"]))
    });
    check("tidy", &|| tidy::run(workspace));
    check("call tables are what the headers give", &|| {
        tables::run(true)
    });
    check("lazaret-filter and lazaret-core need no std", &|| {
        nostd::check(workspace, &setup.target)
    });
    check("clippy", &|| {
        let lints = [
            "--workspace",
            "--all-targets",
            // the programs of the fuzz targets, without linking libFuzzer
            "--features=lazaret-fuzz/libfuzzer",
            "--locked",
            "--quiet",
            "--",
            "--deny",
            "warnings",
        ];
        run_quietly(cargo(workspace, "clippy").args(lints))
    });
    let logs = setup.target.join("logs");
    let tests = setup.steps.step("tests that need nothing", |step| {
        let mut cargo = cargo(workspace, "test");
        cargo.args([
            "--workspace",
            "--locked",
            "--no-fail-fast",
            "--",
            "--show-output",
        ]);
        run_tests(step, &mut cargo, &logs.join("test.log"))
    });
    all.add(tests);
    let packages: Vec<&str> = ROOT_TESTS
        .into_iter()
        .flat_map(|package| ["--package", package])
        .collect();
    all.add(root_tests(
        setup,
        &packages,
        "",
        &logs.join("test-root.log"),
    ));
    report(&all)
}

/// Runs only the end-to-end tests, those whose name contains `name`, and prints the closing line.
///
/// # Errors
/// As [`run`].
pub fn run_e2e(setup: &Setup, name: &str) -> anyhow::Result<()> {
    let mut all = Tally::default();
    let log = setup.target.join("logs/test-e2e.log");
    all.add(root_tests(setup, &E2E, name, &log));
    report(&all)
}

/// Runs the `#[ignore]`d tests among those that `which` of `cargo test` names.
fn root_tests(setup: &Setup, which: &[&str], name: &str, log: &Path) -> anyhow::Result<Tally> {
    let e2e = e2e::prepare(setup)?;
    setup
        .steps
        .step("tests with root, engines and images", |step| {
            let mut cargo = cargo(&setup.workspace, "test");
            cargo.args(["--locked", "--no-fail-fast"]).args(which);
            // One after the other: they have ports and the loop devices in common.
            cargo
                .args(["--", "--ignored", "--show-output", "--test-threads=1"])
                .args([name].into_iter().filter(|name| !name.is_empty()))
                .env(e2e::VARIABLE, e2e.description());
            run_tests(step, &mut cargo, log)
        })
}

/// Runs `cargo test` and counts what its runners say. Both outputs go to the log, in the order they come.
fn run_tests(step: &Step, cargo: &mut Command, log: &Path) -> anyhow::Result<Tally> {
    if let Some(folder) = log.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut log_file =
        std::fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let (output, input) = std::io::pipe()?;
    cargo
        .stdout(input.try_clone()?)
        .stderr(input)
        .env("CARGO_TERM_COLOR", "never");
    let mut child = cargo.spawn().context("cannot start cargo")?;
    // The command holds the pipe's other end open: given up, so that the output ends with the last runner.
    cargo
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut reader = Reader::default();
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A longer line is taken in pieces: nothing that is looked for is that long.
        let read = std::io::Read::take(&mut output, MAX_LINE).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        log_file.write_all(&line)?;
        let text = String::from_utf8_lossy(&line);
        match reader.line(text.trim_end()) {
            Said::Target(target) => step.say(target),
            Said::Verdict(sum) => step.now(sum),
            Said::Other => {}
        }
    }
    let status = child.wait()?;
    let tally = reader.finish();
    if !status.success() && tally.failed.is_empty() {
        bail!(
            "`cargo test` ended with {status} before all tests had run; all it said is in {}",
            log.display()
        );
    }
    Ok(tally)
}

fn report(all: &Tally) -> anyhow::Result<()> {
    let unexpected: Vec<_> = all
        .skipped
        .iter()
        .filter(|skip| !skip.is_excused())
        .collect();
    for skip in &all.skipped {
        let verdict = if skip.is_excused() {
            ""
        } else {
            " (FAILURE: this machine has what it needs)"
        };
        println!("skipped: {}: {}{verdict}", skip.test, skip.reason);
    }
    for failure in &all.failed {
        println!("failed: {failure}");
    }
    println!(
        "{} passed, {} failed, {} skipped",
        all.passed,
        all.failed.len() + unexpected.len(),
        all.skipped.len() - unexpected.len()
    );
    if all.failed.is_empty() && unexpected.is_empty() {
        Ok(())
    } else {
        bail!("not everything passed")
    }
}
