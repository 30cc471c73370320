//! The systemd units, judged by systemd's own checks: they load, and how much they leave open does not grow.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const UNITS: [&str; 3] = [
    "lazaretd.service",
    "lazaretd.socket",
    "lazaretd-control.socket",
];

/// Most that `systemd-analyze security` may find, in tenths. The filters that would lower it keep the gate from its work.
const EXPOSURE: &str = "70";

fn source(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd");
    fs::read_to_string(folder.join(name)).expect("a unit")
}

/// The units in a folder, with a program that is there.
fn units(change: impl Fn(&str) -> String) -> (TempDir, Vec<PathBuf>) {
    let folder = TempDir::new().expect("a folder");
    let paths = UNITS.map(|name| {
        let text = source(name).replace("/usr/bin/lazaretd", "/bin/true");
        let path = folder.path().join(name);
        fs::write(&path, change(&text)).expect("written");
        path
    });
    (folder, paths.to_vec())
}

/// `systemd-analyze`, which sees the units of that folder and the machine's.
fn analyze(folder: &TempDir, args: &[&str], units: &[PathBuf]) -> Option<Output> {
    let path = format!("{}:", folder.path().display());
    let mut command = Command::new("systemd-analyze");
    command
        .env("SYSTEMD_UNIT_PATH", path)
        .args(args)
        .args(units);
    match command.stdin(Stdio::null()).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("SKIP: no systemd-analyze on this machine");
            None
        }
        other => Some(other.expect("systemd-analyze runs")),
    }
}

#[test]
fn systemd_understands_every_line() {
    let verify = ["verify", "--man=no", "--recursive-errors=no"];
    let (folder, paths) = units(str::to_owned);
    let Some(output) = analyze(&folder, &verify, &paths) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    // the check can fail
    let (folder, paths) = units(|text| text.replace("\nUMask=", "\nUMusk="));
    let output = analyze(&folder, &verify, &paths).expect("it was there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("UMusk"), "{said}");
}

#[test]
fn what_the_service_leaves_open_does_not_grow() {
    let (folder, paths) = units(str::to_owned);
    let threshold = format!("--threshold={EXPOSURE}");
    let security = ["security", "--offline=yes", "--no-pager", &threshold];
    let Some(output) = analyze(&folder, &security, &paths[..1]) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let (folder, paths) = units(|text| text.replace("\nCapabilityBoundingSet=CAP", "\n#"));
    let output = analyze(&folder, &security, &paths[..1]).expect("it was there");
    assert!(!output.status.success(), "all capabilities and still good");
}

/// Settings that systemd turns into a seccomp filter of the service, under which no container's filter can be read
/// (kernel/seccomp.c, seccomp_get_filter).
#[test]
fn nothing_loads_a_filter_into_the_gate() {
    let text = source(UNITS[0]);
    let settings = text.lines().filter(|line| !line.starts_with('#'));
    let names: Vec<&str> = settings
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    assert!(names.contains(&"CapabilityBoundingSet"));
    for filter in [
        "SystemCallFilter",
        "SystemCallArchitectures",
        "SystemCallLog",
        "RestrictAddressFamilies",
        "RestrictNamespaces",
        "RestrictRealtime",
        "RestrictSUIDSGID",
        "LockPersonality",
        "MemoryDenyWriteExecute",
        "PrivateDevices",
        "ProtectClock",
        "ProtectHostname",
        "ProtectKernelLogs",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "DynamicUser",
    ] {
        assert!(!names.contains(&filter), "{filter}");
    }
}

/// One name counts for all sockets of a unit, and the daemon knows its sockets by name.
#[test]
fn each_socket_has_its_name_and_its_path() {
    for (unit, name, path) in [
        (UNITS[1], "gate", "/run/lazaret/gate.sock"),
        (UNITS[2], "control", "/run/lazaret/control.sock"),
    ] {
        let text = source(unit);
        for line in [
            format!("ListenStream={path}"),
            format!("FileDescriptorName={name}"),
            "Service=lazaretd.service".to_owned(),
            "SocketMode=0600".to_owned(),
            "DirectoryMode=0700".to_owned(),
        ] {
            assert_eq!(
                text.lines().filter(|found| **found == line).count(),
                1,
                "{unit}: {line}"
            );
        }
    }
}
