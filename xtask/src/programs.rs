//! Our own programs, built by the cargo that runs xtask.
//!
//! Where cargo puts them is asked of cargo, so a target folder of one's own works.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::command::{command, output};
use crate::steps::Steps;

/// The programs that are run, by name.
#[derive(Debug, Clone)]
pub struct Programs {
    paths: BTreeMap<String, PathBuf>,
}

/// The one kind of message of `cargo build --message-format=json` that is of interest.
#[derive(Debug, Deserialize)]
struct Message {
    #[serde(default)]
    target: Option<TargetName>,
    #[serde(default)]
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct TargetName {
    name: String,
}

impl Programs {
    /// Builds `lazaret`, `lazaretd` and `lazaret-runtime`, optimised.
    ///
    /// # Errors
    /// When one does not build; the error carries the compiler's last words.
    pub fn build(steps: &Steps, workspace: &Path) -> anyhow::Result<Self> {
        steps.step("build lazaret, lazaretd and lazaret-runtime", |_| {
            let packages = [
                "--package=lazaret",
                "--package=lazaretd",
                "--package=lazaret-runtime",
            ];
            let options: Vec<&str> = ["--release"].into_iter().chain(packages).collect();
            build(
                workspace,
                &options,
                &["lazaret", "lazaretd", "lazaret-runtime"],
            )
        })
    }

    /// Where a program is.
    ///
    /// # Errors
    /// When it was not among those built.
    pub fn path(&self, name: &str) -> anyhow::Result<&Path> {
        self.paths
            .get(name)
            .map(PathBuf::as_path)
            .with_context(|| format!("cargo built no program `{name}`"))
    }
}

/// Builds with these options of `cargo build`, among them which packages, and finds the programs of these names.
pub(crate) fn build(
    workspace: &Path,
    options: &[&str],
    names: &[&str],
) -> anyhow::Result<Programs> {
    built(cargo(workspace, "build").args(options), names)
}

/// Builds with this `cargo build`, and finds the programs of these names.
pub(crate) fn built(cargo: &mut Command, names: &[&str]) -> anyhow::Result<Programs> {
    cargo.arg("--message-format=json-render-diagnostics");
    let paths: BTreeMap<String, PathBuf> = output(cargo)?
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter_map(|message| Some((message.target?.name, message.executable?)))
        .collect();
    for name in names {
        ensure!(paths.contains_key(*name), "cargo built no program `{name}`");
    }
    Ok(Programs { paths })
}

/// The cargo that runs xtask, in the workspace.
pub(crate) fn cargo(workspace: &Path, verb: &str) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = command(program, [verb]);
    cargo.current_dir(workspace);
    cargo
}
