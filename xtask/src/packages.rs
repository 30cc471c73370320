//! Debian packages that are missing, installed without starting a service of the machine.
//!
//! Packages that are there are left as they are, in whatever version. Nothing is removed again.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::cleanup::{self, Undo};
use crate::command::{command, exists, output, run_logged};
use crate::host::HostCannot;
use crate::steps::{Step, Steps};

/// What the build, the engines, the target image and the attacks need, each with its reason. The first name of a row is
/// what is installed; any name of the row will do.
const NEEDED: &[(&[&str], &str)] = &[
    (
        &["docker.io", "docker-ce", "moby-engine"],
        "the private dockerd, and its client",
    ),
    (
        &["containerd", "containerd.io"],
        "the private containerd, and ctr",
    ),
    (&["runc", "containerd.io"], "starts the containers"),
    (
        &["crun"],
        "the runtime that podman uses: profiles are loaded under it too",
    ),
    (
        &["podman"],
        "loads profiles as well; with its state in a test's folder",
    ),
    (
        &["clang"],
        "compiles the recorder's eBPF programs and the attacks' native part",
    ),
    (
        &["gcc"],
        "links, and preprocesses the kernel's headers for the call tables",
    ),
    (&["libc6-dev"], "static programs"),
    (&["linux-libc-dev"], "the kernel's call numbers"),
    (&["make"], "builds libbpf"),
    (&["pkg-config", "pkgconf"], "builds libbpf"),
    (&["libelf-dev"], "libbpf"),
    (&["zlib1g-dev"], "libbpf"),
    (
        &["libseccomp-dev"],
        "judges what profiles mean to the library that runtimes use",
    ),
    (
        &["openjdk-17-jdk-headless"],
        "compiles the target server and makes its Java runtime",
    ),
    (&["maven"], "gets the target server's jars"),
    (
        &["busybox-static"],
        "the shell that the attacks try to start",
    ),
    (&["e2fsprogs"], "makes the sacrificial disk"),
    (
        &["faketime"],
        "lets the gate's clock jump in a test, and nobody else's",
    ),
    (
        &["patch"],
        "applies what `lazaret suggest` writes, as a person would",
    ),
    (
        &["python3-prometheus-client"],
        "OpenMetrics' official parser, which judges the gate's metrics",
    ),
    (&["mount"], "losetup"),
    (&["util-linux"], "unshare, nsenter"),
    (&["iproute2"], "ip"),
    (
        &["systemd"],
        "starts the service whose filters a test reads; never the machine's",
    ),
];

const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Says 101, "action forbidden by policy", to whoever wants to start a service (invoke-rc.d(8)).
const POLICY_TEXT: &str =
    "#!/bin/sh\n# put here by lazaret's xtask while it installs packages\nexit 101\n";

/// Installs what is missing.
///
/// # Errors
/// [`HostCannot`] where there is no dpkg; otherwise when apt-get fails, with the path of its log.
pub fn install(steps: &Steps, logs: &Path) -> anyhow::Result<()> {
    if !exists("dpkg-query") || !exists("apt-get") {
        let names: Vec<&str> = NEEDED
            .iter()
            .filter_map(|(names, _)| names.first().copied())
            .collect();
        return Err(HostCannot(format!(
            "this is not Debian; it needs what these packages hold: {}",
            names.join(" ")
        ))
        .into());
    }
    let missing = missing(&installed()?);
    if missing.is_empty() {
        steps.say("Debian packages: all there");
        return Ok(());
    }
    let name = format!("Debian packages: installing {} missing ones", missing.len());
    steps.step(&name, |step| {
        for (package, why) in &missing {
            step.line(format_args!("{package}: {why}"));
        }
        let names: Vec<&str> = missing.iter().map(|(package, _)| *package).collect();
        let _services_stay_off = forbid_services()?;
        apt_install(step, &names, logs)
    })
}

fn missing(installed: &BTreeSet<String>) -> Vec<(&'static str, &'static str)> {
    NEEDED
        .iter()
        .filter(|(names, _)| !names.iter().any(|name| installed.contains(*name)))
        .filter_map(|(names, why)| Some((*names.first()?, *why)))
        .collect()
}

/// Names of the packages that are fully installed.
fn installed() -> anyhow::Result<BTreeSet<String>> {
    let list = output(&mut command(
        "dpkg-query",
        ["--show", "--showformat", "${Package} ${db:Status-Status}\n"],
    ))?;
    Ok(list
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .map(str::to_owned)
        .collect())
}

fn apt_install(step: &Step, names: &[&str], logs: &Path) -> anyhow::Result<()> {
    let install = || {
        let mut apt = apt();
        apt.args(["install", "--no-install-recommends"]).args(names);
        run_logged(&mut apt, &logs.join("apt-get-install.log"))
    };
    // With no lists, or lists that name versions the mirror no longer has, the first try fails at once.
    if install().is_ok() {
        return Ok(());
    }
    step.line("apt-get update, then once more");
    run_logged(apt().arg("update"), &logs.join("apt-get-update.log"))?;
    install()
}

fn apt() -> Command {
    let mut apt = command(
        "apt-get",
        ["--yes", "--quiet", "--option", "DPkg::Lock::Timeout=300"],
    );
    apt.env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C.UTF-8");
    apt
}

/// Keeps package scripts from starting services, unless the machine has a policy of its own. The result takes exactly what
/// was put there away again.
fn forbid_services() -> anyhow::Result<Option<Undo>> {
    match fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(POLICY)
    {
        Ok(mut file) => {
            let undo = cleanup::register(|| {
                if fs::read(POLICY).is_ok_and(|text| text == POLICY_TEXT.as_bytes()) {
                    fs::remove_file(POLICY).ok();
                }
            });
            file.write_all(POLICY_TEXT.as_bytes())
                .with_context(|| format!("cannot write {POLICY}"))?;
            Ok(Some(undo))
        }
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot create {POLICY}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(installed: &[&str]) -> Vec<&'static str> {
        missing(&installed.iter().map(|s| (*s).to_owned()).collect())
            .into_iter()
            .map(|(name, _)| name)
            .collect()
    }

    #[test]
    fn a_newer_engine_is_left_alone() {
        let all: Vec<&str> = NEEDED
            .iter()
            .filter_map(|(names, _)| names.first().copied())
            .collect();
        assert_eq!(names(&all), [""; 0]);
        assert_eq!(names(&[]), all);
        let found = names(&["docker-ce", "containerd.io"]);
        assert!(
            !found.contains(&"docker.io") && !found.contains(&"runc") && found.contains(&"clang"),
            "{found:?}"
        );
    }
}
