//! Generates `lazaret-filter`'s system call tables, which are committed: building Lazaret needs nothing of this.
//!
//! | table | from | checked by |
//! | --- | --- | --- |
//! | numbers and names | headers of Debian's `linux-libc-dev` | `cargo xtask tables --check` |
//! | releases | syscalls(2) of Debian's `manpages-dev` | `cargo xtask tables --check` |
//! | arguments | Debian's `linux-source-6.1` and `linux-source-6.12` | `cargo xtask tables --arguments --check` |
//!
//! The last needs 300 MB of packages and is not part of `cargo xtask test`; a test of `lazaret-filter` compares the
//! committed arguments with what the running kernel says of its own calls.

mod arguments;
mod debian;
mod newer;
mod numbers;
mod since;
mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::{command, output};
use crate::setup::Setup;
use debian::Package;

/// Writes numbers and releases, or with `check` only compares the committed ones.
///
/// # Errors
/// No C preprocessor, no package, a header or page that does not look as expected, a call without a release, or, with
/// `check`, a table that differs.
pub fn run(check: bool) -> Result<()> {
    let setup = Setup::without_packages()?;
    let tables = numbers::read()?;
    let folder = folder(&setup);
    let mut files = Vec::new();
    for table in &tables {
        files.push((
            folder.join(format!("{}.rs", table.abi())),
            table.render(&numbers::package_version()?)?,
        ));
    }
    let names: BTreeSet<&str> = tables.iter().flat_map(numbers::Table::names).collect();
    let package = Package::get(since::PACKAGE, &setup.target)?;
    let unpacked = package.unpack()?;
    let page = output(command("gzip", ["-dc"]).arg(unpacked.path().join(since::PAGE)))?;
    let releases = since::releases(&page, &names)?;
    files.push((
        folder.join("since.rs"),
        since::render(&releases, &package.version)?,
    ));
    write_or_compare(&files, check)
}

/// The same for the arguments, from kernel sources: 300 MB to download at the first time, and a minute of work.
///
/// # Errors
/// No package, a source that does not look as expected, a type of unknown width, two sources that contradict each other,
/// or, with `check`, a table that differs.
pub fn run_arguments(check: bool) -> Result<()> {
    let setup = Setup::without_packages()?;
    let tables = numbers::read()?;
    let text = arguments::generate(&tables, &setup.target)?;
    write_or_compare(&[(folder(&setup).join("args.rs"), text)], check)
}

fn folder(setup: &Setup) -> PathBuf {
    setup.workspace.join("crates/lazaret-filter/src/table")
}

fn write_or_compare(files: &[(PathBuf, String)], check: bool) -> Result<()> {
    let mut stale = Vec::new();
    for (path, text) in files {
        if check {
            let committed = fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            // A package's version may move without a change of any number.
            if !code_lines(&committed).eq(code_lines(text)) {
                stale.push(path.as_path());
            }
        } else {
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    if !stale.is_empty() {
        bail!(
            "system call tables are not what their sources give, run `cargo xtask tables`: {}",
            list(&stale)
        );
    }
    Ok(())
}

fn list(paths: &[&Path]) -> String {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with("//!"))
}
