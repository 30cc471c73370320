//! `lazaret doctor`: what this host can do, found by trying, and what to do about what it cannot.

use crate::args::{Doctor, Format};
use crate::engine::Engine;
use crate::exit::{Exit, Outcome};
use crate::record::{kernel_release, native};
use lazaret_probe::probe_support;
use std::path::Path;
use std::process::{Command, Stdio};

/// What needs a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needed {
    Learning,
    Enforcing,
    Both,
}

impl Needed {
    const fn name(self) -> &'static str {
        match self {
            Needed::Learning => "learning",
            Needed::Enforcing => "enforcing",
            Needed::Both => "learning, enforcing",
        }
    }
}

/// One finding.
struct Finding {
    thing: &'static str,
    needed: Needed,
    /// What was found, or why not and what to do.
    result: Result<String, (String, &'static str)>,
}

/// `lazaret doctor`
///
/// # Errors
/// None; the exit code is 3 when something that is needed is missing.
pub fn main(_: &Doctor, format: Format) -> Outcome {
    let findings = [
        root(),
        kernel(),
        architecture(),
        notification(),
        filter_reading(),
        recorder(),
        engine(),
        runtime(),
    ];
    for finding in &findings {
        print(finding, format);
    }
    let well = findings.iter().all(|finding| finding.result.is_ok());
    Ok(if well { Exit::Yes } else { Exit::HostCannot })
}

fn print(finding: &Finding, format: Format) {
    let (ok, found, hint) = match &finding.result {
        Ok(found) => (true, found, None),
        Err((why, hint)) => (false, why, Some(hint)),
    };
    match format {
        Format::Text => {
            println!(
                "{:<4} {:<22} {found}",
                if ok { "ok" } else { "NO" },
                finding.thing
            );
            if let Some(hint) = hint {
                println!(
                    "{:<4} {:<22} needed for {}; {hint}",
                    "",
                    "",
                    finding.needed.name()
                );
            }
        }
        Format::Json => println!(
            "{}",
            serde_json::json!({
                "type": "finding", "v": 1, "thing": finding.thing, "ok": ok, "found": found, "hint": hint,
                "needed_for": finding.needed.name(),
            })
        ),
    }
}

fn root() -> Finding {
    let uid = effective_uid();
    let result = match uid {
        Some(0) => Ok("running as root".to_string()),
        Some(uid) => Err((
            format!("running as uid {uid}"),
            "run it as root: BPF, ptrace and the engine's state need it",
        )),
        None => Err(("own uid unknown".to_string(), "mount /proc")),
    };
    Finding {
        thing: "rights",
        needed: Needed::Both,
        result,
    }
}

/// Effective uid, read where `lazaret doctor` can always read it.
fn effective_uid() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn kernel() -> Finding {
    let hint = "phases need Linux 5.11 or newer; before it use `lazaret compile --static`";
    let result = match kernel_release() {
        Ok(release) => {
            let mut numbers = release
                .split(['.', '-'])
                .map(|part| part.parse::<u32>().unwrap_or(0));
            let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            if version >= (5, 11) {
                Ok(release)
            } else {
                Err((release, hint))
            }
        }
        Err(error) => Err((format!("{error:#}"), "mount /proc")),
    };
    Finding {
        thing: "kernel",
        needed: Needed::Enforcing,
        result,
    }
}

fn architecture() -> Finding {
    let result = native().map(|abi| abi.to_string()).map_err(|error| {
        (
            format!("{error:#}"),
            "policies exist for x86_64 and aarch64",
        )
    });
    Finding {
        thing: "architecture",
        needed: Needed::Both,
        result,
    }
}

fn notification() -> Finding {
    // seccomp(2), "/proc interfaces"
    let result = match std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions)
            if actions
                .split_whitespace()
                .any(|action| action == "user_notif") =>
        {
            Ok("user_notif".to_string())
        }
        Ok(actions) => Err((
            format!("only {}", actions.trim()),
            "the kernel is too old or built without it",
        )),
        Err(error) => Err((
            format!("no seccomp: {error}"),
            "build the kernel with CONFIG_SECCOMP_FILTER",
        )),
    };
    Finding {
        thing: "seccomp notification",
        needed: Needed::Enforcing,
        result,
    }
}

fn filter_reading() -> Finding {
    // ns_last_pid exists exactly with CONFIG_CHECKPOINT_RESTORE (kernel/pid_namespace.c), which PTRACE_SECCOMP_GET_FILTER needs
    let result = if Path::new("/proc/sys/kernel/ns_last_pid").exists() {
        Ok("PTRACE_SECCOMP_GET_FILTER".to_string())
    } else {
        Err((
            "not built in".to_string(),
            "build the kernel with CONFIG_CHECKPOINT_RESTORE: the gate compares what the kernel runs",
        ))
    };
    Finding {
        thing: "reading filters",
        needed: Needed::Enforcing,
        result,
    }
}

fn recorder() -> Finding {
    let result = probe_support()
        .map(|kind| format!("eBPF by {kind}"))
        .map_err(|error| {
            (
                format!("{:#}", anyhow::Error::from(error)),
                "needs root, CONFIG_BPF_SYSCALL and BTF (/sys/kernel/btf/vmlinux)",
            )
        });
    Finding {
        thing: "recorder",
        needed: Needed::Learning,
        result,
    }
}

fn engine() -> Finding {
    let result = Engine
        .version()
        .map(|version| format!("engine {version}"))
        .map_err(|error| {
            (
                format!("{error:#}"),
                "start Docker, or set DOCKER_HOST to its socket",
            )
        });
    Finding {
        thing: "container engine",
        needed: Needed::Learning,
        result,
    }
}

fn runtime() -> Finding {
    let output = Command::new("runc")
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let result = match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            Ok(text.lines().next().unwrap_or("runc").to_string())
        }
        Ok(output) => Err((
            format!("`runc --version` ended with {}", output.status),
            "reinstall runc",
        )),
        Err(error) => Err((
            format!("`runc` cannot be run: {error}"),
            "install runc (Debian: apt-get install runc)",
        )),
    };
    Finding {
        thing: "runtime",
        needed: Needed::Enforcing,
        result,
    }
}
