//! Which version of an engine is installed, and what that means for the gate.

use crate::args::InstallEngine;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long an engine may take to say its version.
const PATIENCE: Duration = Duration::from_secs(5);

/// Major and minor version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The version that the installed program says, or none.
pub(crate) fn installed(engine: InstallEngine) -> Option<Version> {
    let program = match engine {
        InstallEngine::Docker => "dockerd",
        InstallEngine::Containerd => "containerd",
        InstallEngine::Podman => "podman",
    };
    let folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];
    let mut paths = folders.iter().map(|folder| Path::new(folder).join(program));
    parse(&said(&paths.find(|path| path.is_file())?)?)
}

/// What `PROGRAM --version` prints.
fn said(program: &Path) -> Option<String> {
    let mut child = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let began = Instant::now();
    while child.try_wait().ok()?.is_none() {
        if began.elapsed() > PATIENCE {
            drop(child.kill());
            drop(child.wait());
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut text = String::new();
    child
        .stdout
        .take()?
        .take(4096)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

/// The first word that begins like a version: `20.10.24+dfsg1,`, `v2.1.0`, `4.3.1`.
fn parse(text: &str) -> Option<Version> {
    text.split_whitespace().find_map(|word| {
        let mut numbers = word.trim_start_matches('v').splitn(3, '.');
        let major = numbers.next()?.parse().ok()?;
        let minor: String = numbers
            .next()?
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        Some(Version(major, minor.parse().ok()?))
    })
}

/// What makes an engine forget the runtime.
pub(crate) const fn after_removal(engine: InstallEngine) -> &'static str {
    match engine {
        // a reload takes no notice of keys that are gone (seen with 20.10.24 and 28.5.2)
        InstallEngine::Docker => {
            "next: `systemctl restart docker`; a reload adds runtimes and never forgets one"
        }
        InstallEngine::Containerd => {
            "next: `systemctl restart containerd`; running containers are not touched"
        }
        InstallEngine::Podman => {
            "next: nothing; `podman system service` reads it at its next start"
        }
    }
}

/// What a person does next, and what this version can do.
pub(crate) fn advice(engine: InstallEngine, version: Option<Version>) -> Vec<String> {
    let mut lines = Vec::new();
    let known = version.map_or_else(|| "version unknown".to_owned(), |found| found.to_string());
    match engine {
        InstallEngine::Docker => {
            lines.push("next: `systemctl reload docker` (SIGHUP); no restart is needed, running containers are not touched".to_owned());
            lines.push("use: docker run --runtime=lazaret IMAGE".to_owned());
            let profile =
                "--security-opt seccomp=/etc/lazaret/images/IMAGE/REVISION-POLICY/profile.json";
            lines.push(match version {
                Some(version) if version < Version(23, 0) => {
                    format!("Docker {known} drops `listenerPath` from profiles: only this runtime brings containers to the gate")
                }
                _ => format!("Docker {known}: from 23.0 on also without this runtime, by {profile}"),
            });
            if version.is_none_or(|version| version >= Version(23, 0)) {
                lines.push("check: dockerd --validate --config-file=FILE".to_owned());
            }
        }
        InstallEngine::Containerd => {
            lines.push(
                "next: `systemctl restart containerd`; running containers are not touched"
                    .to_owned(),
            );
            lines.push("use: a Kubernetes RuntimeClass with `handler: lazaret`".to_owned());
            lines.push("use: ctr run --runc-binary=/usr/bin/lazaret-runtime; `ctr` does not read this part of the file".to_owned());
            lines.push(format!("containerd {known}: also without this runtime, by a profile that names the gate (`seccompProfile: {{type: Localhost}}`, `ctr run --seccomp-profile`)"));
        }
        InstallEngine::Podman => {
            lines.push(
                "next: nothing; `podman system service` reads it at its next start".to_owned(),
            );
            lines.push("use: podman --runtime=lazaret run IMAGE".to_owned());
            lines.push(format!("podman {known}: also without this runtime, by --security-opt seccomp=PROFILE; only root's containers reach the gate"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_programs_say_them() {
        for (text, expected) in [
            (
                "Docker version 20.10.24+dfsg1, build 5d6db84",
                Some(Version(20, 10)),
            ),
            (
                "Docker version 28.5.2, build library-import",
                Some(Version(28, 5)),
            ),
            (
                "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u2",
                Some(Version(1, 6)),
            ),
            (
                "containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7",
                Some(Version(2, 1)),
            ),
            ("podman version 4.3.1", Some(Version(4, 3))),
            ("podman version 5", None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn docker_before_23_has_the_wrapper_only() {
        let said = |version| advice(InstallEngine::Docker, version).join("\n");
        for old in [Version(20, 10), Version(22, 99)] {
            assert!(said(Some(old)).contains("drops `listenerPath`"), "{old}");
            assert!(!said(Some(old)).contains("--validate"), "{old}");
        }
        for new in [None, Some(Version(23, 0)), Some(Version(28, 5))] {
            assert!(!said(new).contains("drops"), "{new:?}");
            assert!(
                said(new).contains("--security-opt seccomp=") && said(new).contains("--validate")
            );
        }
    }
}
