//! What a file that was given means: a policy, or a seccomp profile read for one host.

use crate::args::ProfileHost;
use crate::exit::{Exit, OrExit, Outcome, fail};
use crate::record::kernel_release;
use anyhow::Context;
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::oci::{Architecture, Document, Engine, Host, Note, OciSeccomp, meaning};
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
    /// Architectures that the profile serves and that have no call table: `table` closes them, the runtime's filter does not.
    pub without_table: BTreeSet<String>,
    /// What engine, runtime and libseccomp ignore or bend.
    pub notes: Vec<String>,
}

impl Profile {
    /// Tells what becomes of calls of architectures without a table.
    pub fn tell_without_table(&self, becomes: &str) {
        for architecture in &self.without_table {
            eprintln!("note: there is no call table for {architecture}: its calls {becomes}");
        }
    }

    /// Why no answer can be about all calls, if so: the profile serves an architecture without a call table.
    #[must_use]
    pub fn undecided(&self) -> Option<String> {
        let architecture = self.without_table.first()?;
        Some(format!(
            "undecided: the profile serves calls of {architecture}, for which there is no call table"
        ))
    }
}

impl Given {
    /// Whether its meaning depends on the host.
    #[must_use]
    pub fn is_profile(&self) -> bool {
        matches!(self, Given::Profile(_))
    }

    /// As [`Profile::undecided`]; a policy closes every convention but its own.
    #[must_use]
    pub fn undecided(&self) -> Option<String> {
        match self {
            Given::Policy(_) => None,
            Given::Profile(profile) => profile.undecided(),
        }
    }
}

/// Refuses a host where nothing depends on one: whoever typed it expects something of it.
///
/// # Errors
/// Exit 2 when a host was typed and there is no profile.
pub fn host_for(profile: bool, host: &ProfileHost) -> Outcome<()> {
    if host.is_given() && !profile {
        return fail(
            Exit::Usage,
            "--cap, --arch and --kernel say for which host a profile is read, and there is no profile",
        );
    }
    Ok(())
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
    let mut known = resolved.profile.clone();
    known.architectures.retain(|one| one.abi().is_some());
    let without_table: BTreeSet<String> = resolved
        .profile
        .architectures
        .iter()
        .filter(|one| one.abi().is_none())
        .map(|one| named(*one))
        .collect();
    let (table, made) = meaning(&known, &Engine::debian12().on(abi))
        .with_context(|| format!("profile `{}`", path.display()))
        .or_exit(Exit::Usage)?;
    let (left_out, others): (Vec<&Note>, Vec<&Note>) = resolved
        .notes
        .iter()
        .chain(&made)
        .partition(|note| matches!(note, Note::LeftOut { .. }));
    let notes = left_out_here(&left_out).into_iter();
    Ok(Profile {
        abi,
        without_table,
        notes: notes
            .chain(others.into_iter().map(ToString::to_string))
            .collect(),
        resolved: resolved.profile,
        table,
    })
}

/// One line for all rules that the engine leaves out on this host: most profiles have more than ten.
fn left_out_here(notes: &[&Note]) -> Option<String> {
    let rules: Vec<String> = notes
        .iter()
        .filter_map(|note| match note {
            Note::LeftOut { rule, because } => Some(format!("syscalls[{rule}] ({because})")),
            _ => None,
        })
        .collect();
    (!rules.is_empty()).then(|| format!("left out on this host: {}", rules.join(", ")))
}

/// As profiles write it, `SCMP_ARCH_ARM`.
fn named(architecture: Architecture) -> String {
    // a name without fields is a JSON string
    let value = serde_json::to_value(architecture).unwrap_or_default();
    value.as_str().unwrap_or_default().to_string()
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
