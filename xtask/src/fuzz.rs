//! `cargo xtask fuzz`: builds the fuzz targets with coverage counters and runs them under libFuzzer.
//!
//! Works with the workspace's stable compiler: the flags are those of cargo-fuzz 0.13 with `--sanitizer none`
//! (`src/project.rs` there). No address sanitizer: nothing that is fuzzed has `unsafe` code. Findings fail the run and are
//! put where `cargo test -p lazaret-fuzz` replays them; mending is not this command's.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, bail, ensure};

use crate::command::command;
use crate::programs::{self, Programs, cargo};
use crate::setup::Setup;
use crate::steps::Step;

/// The targets: the programs of `testing/fuzz`.
pub const TARGETS: [&str; 3] = ["policy_text", "oci_json", "bpf"];

/// What the compiler adds for libFuzzer: a counter for each edge, and what is compared with what.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";

/// The longest input, in bytes: no finding needs more, and longer ones cost speed.
const MAX_INPUT: usize = 4096;
/// The longest that one input may take, in seconds; a busy machine takes several times as long as an idle one.
const INPUT_LIMIT_S: u32 = 60;
/// The most memory that a target may have, in MiB.
const MEMORY_LIMIT_MIB: u32 = 1024;

/// Where a log's closing figures are: in its last so many bytes.
const CLOSING: u64 = 16 << 10;

/// Runs targets, as many at a time as there are processors.
///
/// # Errors
/// When a target does not build, or has a finding; the error says where the input is.
pub fn run(setup: &Setup, targets: &[&str], minutes: u32) -> anyhow::Result<()> {
    let programs = setup
        .steps
        .step("build the fuzz targets", |_| build(setup))?;
    let at_a_time = std::thread::available_parallelism().map_or(1, usize::from);
    let mut findings = Vec::new();
    for some in targets.chunks(at_a_time) {
        let name = format!("fuzz {} for {minutes} min", some.join(", "));
        setup.steps.step(&name, |step| {
            let mut runs = some
                .iter()
                .map(|target| Run::start(setup, &programs, target, minutes))
                .collect::<anyhow::Result<Vec<_>>>()?;
            for run in &mut runs {
                findings.extend(run.finish(step)?);
            }
            Ok(())
        })?;
    }
    if findings.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = findings
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    bail!(
        "findings, replayed from now on by `cargo test -p lazaret-fuzz`:\n{}",
        shown.join("\n")
    )
}

fn build(setup: &Setup) -> anyhow::Result<Programs> {
    let folder = setup.target.join("fuzz/build");
    let mut cargo = cargo(&setup.workspace, "build");
    cargo
        .args([
            "--package=lazaret-fuzz",
            "--bins",
            "--features=link",
            "--locked",
            "--release",
        ])
        // with a target given, the flags do not reach build scripts and macros
        .args(["--target=host-tuple", "--target-dir"])
        .arg(folder)
        .env("RUSTFLAGS", FLAGS)
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true")
        // libFuzzer is C++; clang, which the recorder needs, brings its compiler
        .env("CXX", "clang++");
    programs::built(&mut cargo, &TARGETS)
}

/// A target that is running.
struct Run {
    target: String,
    child: Child,
    log: PathBuf,
    corpus: PathBuf,
    findings: PathBuf,
    regressions: PathBuf,
}

impl Run {
    fn start(
        setup: &Setup,
        programs: &Programs,
        target: &str,
        minutes: u32,
    ) -> anyhow::Result<Run> {
        let sources = setup.workspace.join("testing/fuzz");
        let corpus = setup.target.join("fuzz/corpus").join(target);
        let findings = setup.target.join("fuzz/findings").join(target);
        let regressions = sources.join("regressions").join(target);
        for folder in [&corpus, &findings] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let log = setup.target.join(format!("logs/fuzz-{target}.log"));
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let output =
            fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut fuzzer = command(
            programs.path(target)?,
            [
                format!("-max_total_time={}", u64::from(minutes) * 60),
                format!("-max_len={MAX_INPUT}"),
                format!("-timeout={INPUT_LIMIT_S}"),
                format!("-rss_limit_mb={MEMORY_LIMIT_MIB}"),
                format!("-artifact_prefix={}/", findings.display()),
                "-print_final_stats=1".to_owned(),
            ],
        );
        let words = sources
            .join("dictionaries")
            .join(target)
            .with_extension("dict");
        if words.is_file() {
            fuzzer.arg(format!("-dict={}", words.display()));
        }
        // the first folder is where new inputs go, the others are only read
        fuzzer.args([&corpus, &sources.join("seeds").join(target), &regressions]);
        fuzzer.args(shared_seeds(&setup.workspace, target));
        let child = Command::stdout(&mut fuzzer, output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start the fuzz target {target}"))?;
        Ok(Run {
            target: target.to_owned(),
            child,
            log,
            corpus,
            findings,
            regressions,
        })
    }

    /// Waits for its end, says what it did, and gives back its findings where they are replayed.
    fn finish(&mut self, step: &Step) -> anyhow::Result<Vec<PathBuf>> {
        let status = self.child.wait()?;
        let mut kept = Vec::new();
        for found in files(&self.findings)? {
            let name = found.file_name().context("a file has a name")?;
            let to = self.regressions.join(name);
            fs::copy(&found, &to).with_context(|| format!("cannot write {}", to.display()))?;
            fs::remove_file(&found)
                .with_context(|| format!("cannot remove {}", found.display()))?;
            kept.push(to);
        }
        ensure!(
            status.success() || !kept.is_empty(),
            "{} ended with {status} and no finding; all it said is in {}",
            self.target,
            self.log.display()
        );
        let runs = executed(&end_of(&self.log)?);
        step.line(format_args!(
            "{}: {} inputs, {} in the corpus, {} findings; all it said is in {}",
            self.target,
            runs.map_or_else(
                || "an unknown number of".to_owned(),
                |runs| runs.to_string()
            ),
            files(&self.corpus)?.len(),
            kept.len(),
            self.log.display()
        ));
        Ok(kept)
    }
}

impl Drop for Run {
    /// A run whose neighbour failed is not left behind.
    fn drop(&mut self) {
        // the only failure is that it has ended, which is what is wanted
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Inputs that other tests keep.
fn shared_seeds(workspace: &Path, target: &str) -> Option<PathBuf> {
    let data = workspace.join("crates/lazaret-filter/tests/data");
    let folder = match target {
        "bpf" => data,
        "oci_json" => data.join("profiles"),
        _ => return None,
    };
    folder.is_dir().then_some(folder)
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The last of a log, where the closing figures are; a log of hours is long.
fn end_of(log: &Path) -> anyhow::Result<String> {
    let read = || {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(CLOSING)))?;
        let mut end = Vec::new();
        file.take(CLOSING).read_to_end(&mut end)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&end).into_owned())
    };
    read().with_context(|| format!("cannot read {}", log.display()))
}

/// What libFuzzer says at the end of how many inputs it has run.
fn executed(log: &str) -> Option<u64> {
    let says = log
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
    says.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_those_of_the_crate() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for target in TARGETS {
            let program = workspace.join(format!("testing/fuzz/targets/{target}.rs"));
            assert!(program.is_file(), "{}", program.display());
        }
        let programs = files(&workspace.join("testing/fuzz/targets")).expect("it can be read");
        assert_eq!(programs.len(), TARGETS.len());
    }

    #[test]
    fn the_closing_figures_are_read() {
        let log =
            "Done 12 runs in 1 second(s)\nstat::number_of_executed_units: 12\nstat::average: 3\n";
        assert_eq!(executed(log), Some(12));
        assert_eq!(executed("killed"), None);
    }
}
