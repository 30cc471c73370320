//! What Docker's or podman's loader hands to the runtime on a host.
//!
//! Follows moby `profiles/seccomp/seccomp_linux.go`, `setupSeccomp`, and containers/common `pkg/seccomp/seccomp_linux.go`;
//! where one of the two lacks a field, it counts here, and a [`Note`] says who ignores it.

use super::note::Note;
use super::read::{Document, Filter};
use super::{Architecture, OciSeccomp};
use crate::abi::Abi;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Where and with what rights a container is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host<'a> {
    /// The engine's own convention.
    pub abi: Abi,
    /// Version and revision of the kernel, as in 6.12.
    pub kernel: (u16, u16),
    /// The container's bounding set, as `CAP_SYS_ADMIN`.
    pub capabilities: &'a BTreeSet<String>,
}

/// A profile for one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What the runtime gets.
    pub profile: OciSeccomp,
    /// What was left out, and what not every engine does.
    pub notes: Vec<Note>,
}

impl Document {
    /// The profile that the runtime gets on this host.
    #[must_use]
    pub fn resolve(&self, host: &Host<'_>) -> Resolved {
        let mut notes = self.notes.clone();
        let mut architectures = self.architectures.clone();
        let native = Architecture::of(host.abi);
        match self.arch_map.iter().find(|row| row.architecture == native) {
            Some(row) => {
                architectures.push(row.architecture);
                architectures.extend(&row.sub_architectures);
            }
            None if self.arch_map.is_empty() => {}
            None => notes.push(Note::NoArchitectureRow),
        }
        let mut syscalls = Vec::new();
        for (rule, written) in self.rules.iter().enumerate() {
            match reason_against(&written.includes, &written.excludes, host) {
                None => syscalls.push(written.syscall.clone()),
                Some(because) => notes.push(Note::LeftOut { rule, because }),
            }
        }
        Resolved {
            profile: OciSeccomp {
                default_action: self.default_action,
                default_errno_ret: self.default_errno,
                architectures,
                flags: self.flags.clone(),
                listener_path: self.listener_path.clone(),
                listener_metadata: self.listener_metadata.clone(),
                syscalls,
            },
            notes,
        }
    }
}

/// What Go calls the architecture in Docker's and podman's filters (moby, `goToNative`; libseccomp-golang, `ScmpArch.String`).
const fn go_name(abi: Abi) -> &'static str {
    match abi {
        Abi::X86_64 => "amd64",
        Abi::I386 => "x86",
        Abi::X32 => "x32",
        Abi::Aarch64 => "arm64",
    }
}

/// Excluded by any, included by all.
fn reason_against(includes: &Filter, excludes: &Filter, host: &Host<'_>) -> Option<String> {
    let go = go_name(host.abi);
    let (version, revision) = host.kernel;
    let here = |architectures: &Vec<String>| architectures.iter().any(|name| name == go);
    let held = |capability: &&String| host.capabilities.contains(*capability);
    if here(&excludes.architectures) {
        return Some(format!("not on {go}"));
    }
    if let Some(capability) = excludes.capabilities.iter().find(held) {
        return Some(format!("not with {capability}"));
    }
    if let Some((since, since_revision)) = excludes.min_kernel.filter(|min| host.kernel >= *min) {
        return Some(format!(
            "not from Linux {since}.{since_revision} on, this is {version}.{revision}"
        ));
    }
    if !includes.architectures.is_empty() && !here(&includes.architectures) {
        return Some(format!("only on {}", includes.architectures.join(", ")));
    }
    if let Some(capability) = includes.capabilities.iter().find(|it| !held(it)) {
        return Some(format!("only with {capability}"));
    }
    if let Some((since, since_revision)) = includes.min_kernel.filter(|min| host.kernel < *min) {
        return Some(format!(
            "only from Linux {since}.{since_revision} on, this is {version}.{revision}"
        ));
    }
    None
}
