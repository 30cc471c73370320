//! A newer Docker than Debian's: `dockerd` and `runc`, built from the Go module proxy, whose checksums `go` verifies.
//!
//! Debian's containerd serves it. It takes about 5 minutes once; what is built stays in `newer-docker` of the build folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde::Deserialize;

use crate::command::{command, output, run_logged};
use crate::steps::Steps;

/// Docker's module is older than Go's: its own list of modules is `vendor.mod`.
const DOCKER: (&str, &str) = ("github.com/docker/docker", "28.5.2+incompatible");

/// From 1.3.3 on a module inside it is replaced by a folder that the proxy does not carry.
const RUNC: (&str, &str) = ("github.com/opencontainers/runc", "1.3.2");

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Downloaded {
    dir: PathBuf,
}

/// The folder with both programs; builds what is not there.
///
/// # Errors
/// When `go` cannot fetch or build; its words are in `logs/newer-docker.log` of the build folder.
pub fn programs(steps: &Steps, target: &Path) -> anyhow::Result<PathBuf> {
    let folder = target.join("newer-docker");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let log = target.join("logs/newer-docker.log");
    for (name, module, options, main) in [
        (
            "dockerd",
            DOCKER,
            [
                "-tags=exclude_graphdriver_btrfs",
                "-ldflags=-X github.com/docker/docker/dockerversion.Version=28.5.2",
            ],
            "./cmd/dockerd",
        ),
        (
            "runc",
            RUNC,
            ["-tags=seccomp", "-ldflags=-X main.version=1.3.2"],
            ".",
        ),
    ] {
        let program = folder.join(name);
        if program.is_file() {
            continue;
        }
        steps.step(&format!("build {name} {}", module.1), |_| {
            let source = tempfile::tempdir_in(&folder).context("cannot make a folder")?;
            unpack(module, source.path())?;
            let built = source.path().join("built");
            let mut go = go(source.path(), "build");
            // the module's own list holds; it is not a module of ours to tidy
            go.arg("-mod=mod").args(options).arg("-o").arg(&built);
            run_logged(go.arg(main), &log)?;
            fs::rename(&built, &program)
                .with_context(|| format!("cannot make {}", program.display()))
        })?;
    }
    Ok(folder)
}

fn go(folder: &Path, verb: &str) -> Command {
    let mut go = command("go", [verb]);
    go.current_dir(folder)
        .env("GOFLAGS", "-buildvcs=false")
        .env("GOWORK", "off");
    go
}

/// A module's files, to be written to: those in Go's cache are not.
fn unpack((module, version): (&str, &str), to: &Path) -> anyhow::Result<()> {
    let wanted = format!("{module}@v{version}");
    let mut download = go(to, "mod");
    let said = output(download.args(["download", "-json", &wanted]))?;
    let found: Downloaded =
        serde_json::from_str(&said).context("`go mod download` said something else")?;
    let files = found.dir.join(".");
    output(&mut command(
        "cp",
        [
            "-r".as_ref(),
            "--no-preserve=mode".as_ref(),
            files.as_os_str(),
            to.as_os_str(),
        ],
    ))?;
    for (theirs, gos) in [("vendor.mod", "go.mod"), ("vendor.sum", "go.sum")] {
        let theirs = to.join(theirs);
        if theirs.is_file() {
            fs::copy(&theirs, to.join(gos)).context("cannot copy the list of modules")?;
        }
    }
    Ok(())
}
