//! What a file that was given means: a policy, or a seccomp profile read for one host.

use crate::args::ProfileHost;
use crate::exit::{Exit, OrExit, Outcome};
use crate::record::kernel_release;
use anyhow::Context;
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::oci::{Document, Engine, Host, OciSeccomp, meaning};
use lazaret_core::filter::rule::RuleTable;
use lazaret_core::policy::Policy;
use lazaret_text::any::{self, Input};
use std::collections::BTreeSet;
use std::path::Path;

/// The bounding set that Docker gives a container by default (moby, `oci/caps/defaults.go`).
const DOCKERS_CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What was given.
#[derive(Debug)]
pub enum Given {
    /// A policy.
    Policy(Box<Policy>),
    /// A profile.
    Profile(Box<Profile>),
}

/// A profile on one host.
#[derive(Debug)]
pub struct Profile {
    /// The host's native convention.
    pub abi: Abi,
    /// What the engine hands to the runtime.
    pub resolved: OciSeccomp,
    /// What the runtime's filter means.
    pub table: RuleTable,
    /// What engine, runtime and libseccomp ignore or bend.
    pub notes: Vec<String>,
}

/// Reads a policy or a profile, whichever it is; notes on a profile go to standard error.
///
/// # Errors
/// Exit 2 for a file that is neither, or a profile that no runtime takes.
pub fn read(path: &Path, host: &ProfileHost) -> Outcome<Given> {
    match any::read(path).or_exit(Exit::Usage)? {
        Input::Policy(policy) => Ok(Given::Policy(policy)),
        Input::Profile(document) => {
            let profile = on_host(path, &document, host)?;
            tell(&profile.notes);
            Ok(Given::Profile(Box::new(profile)))
        }
    }
}

/// Reads a profile; its notes are for the caller to tell.
///
/// # Errors
/// As [`read`], and for a policy.
pub fn profile(path: &Path, host: &ProfileHost) -> Outcome<Profile> {
    let document = lazaret_text::profile::read(path).or_exit(Exit::Usage)?;
    on_host(path, &document, host)
}

fn on_host(path: &Path, document: &Document, given: &ProfileHost) -> Outcome<Profile> {
    let abi = given.arch.unwrap_or(Abi::X86_64);
    let kernel = match given.kernel {
        Some(kernel) => kernel,
        None => running_kernel().or_exit(Exit::HostCannot)?,
    };
    let capabilities: BTreeSet<String> = if given.capabilities.is_empty() {
        DOCKERS_CAPABILITIES.map(String::from).into()
    } else {
        // `none` became an empty name
        let named = given.capabilities.iter().filter(|name| !name.is_empty());
        named.cloned().collect()
    };
    let resolved = document.resolve(&Host {
        abi,
        kernel,
        capabilities: &capabilities,
    });
    let (table, made) = meaning(&resolved.profile, &Engine::debian12().on(abi))
        .with_context(|| format!("profile `{}`", path.display()))
        .or_exit(Exit::Usage)?;
    let notes = resolved.notes.iter().chain(&made);
    Ok(Profile {
        abi,
        notes: notes.map(ToString::to_string).collect(),
        resolved: resolved.profile,
        table,
    })
}

/// Notes for people.
pub fn tell(notes: &[String]) {
    for note in notes {
        eprintln!("note: {note}");
    }
}

/// Major and minor number of the kernel that runs here.
fn running_kernel() -> anyhow::Result<(u16, u16)> {
    let release = kernel_release()?;
    let mut numbers = release.split(['.', '-', '+']);
    let mut next = || numbers.next()?.parse().ok();
    let found: Option<(u16, u16)> = next().zip(next());
    found.with_context(|| format!("`{release}` is no release of a kernel"))
}
