//! Rules of STYLE that the compiler does not know: which crate may depend on which, sizes of files, headers of modules,
//! silenced lints, unsafe code.
//!
//! It reads the sources as text: what a macro makes is not seen.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::command::output;
use crate::programs::cargo;

/// Which of our crates each crate may depend on (STYLE §2). A new row or edge is a commit of its own, with its reason.
const EDGES: &[(&str, &[&str])] = &[
    ("lazaret-filter", &[]),
    ("lazaret-core", &["lazaret-filter"]),
    ("lazaret-bundle", &["lazaret-core"]),
    ("lazaret-image", &["lazaret-core", "lazaret-bundle"]),
    ("lazaret-fhir", &["lazaret-core"]),
    ("lazaret-kernel", &["lazaret-core"]),
    ("lazaret-probe", &["lazaret-core", "lazaret-kernel"]),
    ("lazaret-text", &["lazaret-filter", "lazaret-core"]),
    (
        "lazaret-runtime",
        &["lazaret-core", "lazaret-bundle", "lazaret-image"],
    ),
    (
        "lazaretd",
        &[
            "lazaret-core",
            "lazaret-bundle",
            "lazaret-image",
            "lazaret-kernel",
            "lazaret-probe",
            "lazaret-fhir",
        ],
    ),
    (
        "lazaret",
        &[
            "lazaret-filter",
            "lazaret-core",
            "lazaret-bundle",
            "lazaret-image",
            "lazaret-fhir",
            "lazaret-kernel",
            "lazaret-probe",
            "lazaret-text",
        ],
    ),
    ("berth", &[]),
    ("seccomp-judge", &["lazaret-filter"]),
    (
        "filter-bench",
        &["lazaret-core", "lazaret-text", "seccomp-judge"],
    ),
    // its node is made with the crates that the gate reads it with
    (
        "gate-bench",
        &["lazaret-core", "lazaret-bundle", "lazaret-kernel"],
    ),
    (
        "lazaret-fuzz",
        &["lazaret-filter", "lazaret-core", "lazaret-text"],
    ),
    ("xtask", &[]),
];

/// The crates that may use `unsafe`; all others forbid it at their root (STYLE §7). `berth` is a container's content, whose
/// purpose is to make single system calls.
const MAY_BE_UNSAFE: [&str; 3] = ["lazaret-kernel", "lazaret-probe", "berth"];

/// Lines of a file, its tests left out (STYLE §2).
const MAX_LINES: usize = 600;

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    #[serde(default)]
    path: Option<PathBuf>,
}

/// Checks every rule.
///
/// # Errors
/// One line for each breach.
pub fn run(workspace: &Path) -> anyhow::Result<()> {
    let text = output(cargo(workspace, "metadata").args(["--format-version", "1", "--no-deps"]))?;
    let metadata: Metadata =
        serde_json::from_str(&text).context("`cargo metadata` printed something else")?;
    let mut breaches = edges(&metadata);
    for package in &metadata.packages {
        let folder = package
            .manifest_path
            .parent()
            .context("a manifest lies in a folder")?;
        for file in rust_files(folder)? {
            let text = fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let name = file
                .strip_prefix(workspace)
                .unwrap_or(&file)
                .display()
                .to_string();
            let mut found = text_breaches(&text);
            if !file.starts_with(folder.join("tests")) {
                found.extend(size_breach(&text));
            }
            let is_root = ["src/lib.rs", "src/main.rs"]
                .iter()
                .any(|root| file == folder.join(root));
            if is_root && !MAY_BE_UNSAFE.contains(&package.name.as_str()) {
                found.extend(unsafe_breach(&text));
            }
            breaches.extend(found.into_iter().map(|breach| format!("{name}: {breach}")));
        }
    }
    if breaches.is_empty() {
        Ok(())
    } else {
        bail!("{}", breaches.join("\n"))
    }
}

fn edges(metadata: &Metadata) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let mut breaches = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let Some(may) = allowed.get(name) else {
            breaches.push(format!(
                "crate {name} has no row in the table of edges (STYLE §2)"
            ));
            continue;
        };
        for dependency in package
            .dependencies
            .iter()
            .filter(|d| d.path.is_some() && !may.contains(&d.name.as_str()))
        {
            breaches.push(format!(
                "crate {name} may not depend on {} (STYLE §2)",
                dependency.name
            ));
        }
    }
    breaches
}

fn text_breaches(text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    if !text.starts_with("//!") {
        breaches.push(
            "does not begin with `//!`: what it is and what it deliberately does not do".to_owned(),
        );
    }
    // In two parts, so that this file does not find itself.
    let silenced = [concat!("#[", "allow("), concat!("#![", "allow(")];
    for (number, line) in text.lines().enumerate() {
        if silenced.iter().any(|s| line.trim_start().starts_with(s)) {
            breaches.push(format!(
                "line {}: `expect` with a reason, never `allow`",
                number + 1
            ));
        }
    }
    breaches
}

/// Generated files have the size they have.
fn size_breach(text: &str) -> Option<String> {
    let lines = text
        .lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .count();
    let generated = text.lines().take(5).any(|line| line.contains("@generated"));
    (lines > MAX_LINES && !generated)
        .then(|| format!("{lines} lines without tests, the limit is {MAX_LINES}"))
}

fn unsafe_breach(text: &str) -> Option<String> {
    let forbids = text.contains("#![forbid(unsafe_code)]");
    (!forbids).then(|| "its crate may not use `unsafe` and does not forbid it".to_owned())
}

/// The Rust files below a folder.
fn rust_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            found.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_workspace_is_tidy() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("xtask lies in the workspace");
        if let Err(error) = run(workspace) {
            panic!("{error:#}");
        }
    }

    #[test]
    fn each_breach_is_found() {
        let head = "//! What.\n";
        assert_eq!(text_breaches(head), [""; 0]);
        assert_eq!(text_breaches("use std::fs;\n").len(), 1);
        let silenced = text_breaches(&format!("{head}{}dead_code)]\n", concat!("#[", "allow(")));
        assert!(
            silenced.len() == 1 && silenced[0].contains("line 2"),
            "{silenced:?}"
        );

        let long = "\n".repeat(MAX_LINES + 1);
        assert!(size_breach(&long).is_some());
        assert_eq!(size_breach(&format!("#[cfg(test)]\n{long}")), None);
        assert_eq!(
            size_breach(&format!("//! @generated by somebody\n{long}")),
            None
        );

        assert!(unsafe_breach(head).is_some());
        assert_eq!(unsafe_breach("//! What.\n#![forbid(unsafe_code)]\n"), None);
    }

    #[test]
    fn a_forbidden_edge_is_found() {
        let package = |name: &str, on: &str| Package {
            name: name.into(),
            manifest_path: "x/Cargo.toml".into(),
            dependencies: vec![
                Dependency {
                    name: on.into(),
                    path: Some("y".into()),
                },
                Dependency {
                    name: "serde".into(),
                    path: None,
                },
            ],
        };
        let check = |name: &str, on: &str| {
            edges(&Metadata {
                packages: vec![package(name, on)],
            })
        };
        assert_eq!(check("lazaret-core", "lazaret-filter"), [""; 0]);
        assert_eq!(check("lazaret-filter", "lazaret-core").len(), 1);
        assert_eq!(check("lazaret", "lazaretd").len(), 1);
        assert_eq!(check("lazaret-surprise", "lazaret-core").len(), 1);
    }
}
