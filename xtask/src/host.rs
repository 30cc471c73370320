//! Whether this machine can do what xtask is about to do; nothing is changed.
//!
//! Only what is needed to begin: `lazaret doctor` looks at everything and says what can be done about it.

use std::fmt;
use std::fs;
use std::path::Path;

/// The machine cannot do it, and no step of ours can change that: exit code 3.
#[derive(Debug)]
pub struct HostCannot(pub String);

impl fmt::Display for HostCannot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for HostCannot {}

/// The oldest kernel with the allow bitmap that makes the kernel's band free of cost (Linux 5.11, commit f9d480b6ffbe).
const OLDEST_KERNEL: (u32, u32) = (5, 11);

/// Checks processor, user and kernel.
///
/// # Errors
/// [`HostCannot`] with one sentence that names the first thing that is missing.
pub fn check() -> anyhow::Result<()> {
    let facts = Facts::of_this_machine();
    match facts.missing() {
        Some(sentence) => Err(HostCannot(sentence).into()),
        None => Ok(()),
    }
}

/// What is looked at; a value, so that each refusal can be tested.
#[derive(Debug, Clone)]
struct Facts {
    arch: String,
    root: bool,
    kernel: String,
    seccomp_actions: String,
    filesystems: String,
    btf: bool,
    loop_control: bool,
    cgroups: bool,
}

impl Facts {
    fn of_this_machine() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            arch: std::env::consts::ARCH.to_owned(),
            root: rustix::process::geteuid().is_root(),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            seccomp_actions: text("/proc/sys/kernel/seccomp/actions_avail"),
            filesystems: text("/proc/filesystems"),
            btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            loop_control: Path::new("/dev/loop-control").exists(),
            cgroups: text("/proc/self/mountinfo").contains(" - cgroup"),
        }
    }

    fn missing(&self) -> Option<String> {
        if self.arch != "x86_64" {
            return Some(format!("this needs an x86-64 machine, not {}", self.arch));
        }
        if !self.root {
            return Some("this needs root: it installs Debian packages and starts containers in namespaces of its own".into());
        }
        if version(&self.kernel).is_none_or(|found| found < OLDEST_KERNEL) {
            return Some(format!(
                "this needs Linux {}.{}, not {:?}",
                OLDEST_KERNEL.0, OLDEST_KERNEL.1, self.kernel
            ));
        }
        if !self
            .seccomp_actions
            .split_ascii_whitespace()
            .any(|action| action == "user_notif")
        {
            return Some(
                "this kernel has no seccomp user notification (CONFIG_SECCOMP_FILTER)".into(),
            );
        }
        if !self.btf {
            return Some(
                "this kernel has no type information in /sys/kernel/btf/vmlinux (CONFIG_DEBUG_INFO_BTF), which the recorder needs"
                    .into(),
            );
        }
        if !self
            .filesystems
            .lines()
            .any(|line| line.ends_with("\toverlay"))
            && !Path::new("/lib/modules").is_dir()
        {
            return Some("this kernel has no overlay filesystem (CONFIG_OVERLAY_FS)".into());
        }
        if !self.cgroups {
            return Some("no cgroup hierarchy is mounted (/sys/fs/cgroup)".into());
        }
        if !self.loop_control {
            return Some("this machine has no loop devices (/dev/loop-control)".into());
        }
        None
    }
}

/// Major and minor number of a kernel release such as `6.1.0-13-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            arch: "x86_64".into(),
            root: true,
            kernel: "6.1.0-13-amd64".into(),
            seccomp_actions: "kill_process kill_thread trap errno user_notif trace log allow\n"
                .into(),
            filesystems: "nodev\tproc\nnodev\toverlay\n".into(),
            btf: true,
            loop_control: true,
            cgroups: true,
        }
    }

    #[test]
    fn each_lack_has_its_sentence() {
        assert_eq!(good().missing(), None);
        type Break = fn(&mut Facts);
        let cases: [(Break, &str); 6] = [
            (|f| f.root = false, "root"),
            (|f| f.arch = "aarch64".into(), "x86-64"),
            (|f| f.kernel = "5.10.0".into(), "5.11"),
            (
                |f| f.seccomp_actions = "kill_process errno allow".into(),
                "user notification",
            ),
            (|f| f.btf = false, "BTF"),
            (|f| f.cgroups = false, "cgroup"),
        ];
        for (break_it, word) in cases {
            let mut facts = good();
            break_it(&mut facts);
            let sentence = facts.missing().expect("something is missing");
            assert!(
                sentence.contains(word) && !sentence.contains('\n'),
                "{sentence}"
            );
        }
    }

    #[test]
    fn kernel_versions_are_compared_as_numbers() {
        assert_eq!(version("5.4.0-1-amd64"), Some((5, 4)));
        assert!(
            version("5.4.0") < Some(OLDEST_KERNEL) && version("5.11-rc1") >= Some(OLDEST_KERNEL)
        );
        assert_eq!(version("unknown"), None);
    }
}
