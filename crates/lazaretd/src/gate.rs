//! The check at the first `execve`: nothing of the container has run yet, and nothing will unless every paper is in
//! order.
//!
//! Blocking work (files, signatures, ptrace, `ctr`): run it on a thread for such work, never on the answer path.
//! Pinned keys and bundles are read anew for each admission, so a changed store takes effect at the next start.

use crate::call;
use crate::config::Config;
use crate::container::Papers;
use lazaret_bundle::{TrustedKeys, store, verify};
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::compare::{Comparison, Difference, compare};
use lazaret_core::filter::program::Program;
use lazaret_core::filter::rule::{Entry, Numbers, RuleTable, Verdict};
use lazaret_core::filter::table;
use lazaret_core::policy::Policy;
use lazaret_kernel::filters::{self, ReadError};
use lazaret_kernel::process::NamespaceId;
use std::fmt::Display;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

#[cfg(target_arch = "x86_64")]
const HOST: Abi = Abi::X86_64;
#[cfg(target_arch = "aarch64")]
const HOST: Abi = Abi::Aarch64;

/// Characters of a refusal's reason; a pipe takes 4096 bytes at once.
const MAX_REASON: usize = 1000;

/// What a runtime said of the process, and where it really is.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// The container's id.
    pub(crate) id: String,
    /// Its bundle folder.
    pub(crate) bundle: PathBuf,
    /// `listenerMetadata` of its profile.
    pub(crate) metadata: String,
    /// The pid namespace that the process is in.
    pub(crate) namespace: NamespaceId,
}

/// Why a container does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Short name of the check that failed, stable: it stands in events and reports. Those of the bundle are
    /// `lazaret_bundle::VerifyError::CHECKS`.
    pub(crate) check: &'static str,
    /// One sentence without a full stop, on one line.
    pub(crate) reason: String,
}

impl Refusal {
    /// A refusal with this sentence.
    pub(crate) fn new(check: &'static str, reason: &str) -> Refusal {
        let line = reason.chars().map(|c| if c.is_control() { ' ' } else { c });
        Refusal {
            check,
            reason: line.take(MAX_REASON).collect(),
        }
    }

    /// A refusal because of this error and everything behind it.
    fn because(check: &'static str, error: &dyn std::error::Error) -> Refusal {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(source) = next {
            text.push_str(": ");
            text.push_str(&source.to_string());
            next = source.source();
        }
        Refusal::new(check, &text)
    }
}

/// Checks that the filters of a thread ask about `execve` (or deny it), so that its first one will be seen here.
///
/// Early, before anything is answered: a filter that lets it pass would start the container unchecked.
///
/// # Errors
/// When they do not, or cannot be read.
pub(crate) fn asks_about_execve(claim: &Claim, tid: u32) -> Result<(), Refusal> {
    let chain = read_chain(tid, claim.namespace)?;
    let numbers = ["execve", "execveat"].map(|name| table::nr_of(HOST, name));
    let entries = numbers.into_iter().flatten();
    let numbers = Numbers {
        entries: entries
            .map(|nr| (nr, Entry::always(Verdict::Ask)))
            .collect(),
        otherwise: Verdict::Allow,
    };
    let asked = RuleTable::single(HOST, numbers, Verdict::Allow);
    let comparison =
        compare(&asked, &chain).map_err(|error| Refusal::because("filter-compare", &error))?;
    if comparison.looser.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(
        "execve-unasked",
        "the kernel's filter does not ask about execve, so its papers could not be checked before it begins",
    ))
}

/// Checks a container at its first `execve`, which waits in thread `tid`.
///
/// # Flow
/// Image, from the engine's state → bundle, from the store by the image's digests → pinned keys → signature, statement,
/// policy, image → environment → `listenerMetadata` is the policy's digest → the filters that the kernel runs for the
/// thread are at least as strict as the policy.
///
/// # Guarantees
/// [`Papers`] are made here only, from a `Verified<Policy>`.
///
/// # Assumptions
/// The engine and the runtime say the truth about the container's id and bundle (DESIGN §3).
///
/// # Caveats
/// Reading the filters withdraws the waiting notification; the `execve` is notified again with another id.
///
/// # Errors
/// The first check that failed.
pub(crate) fn admit(config: &Config, claim: &Claim, tid: u32) -> Result<Papers, Refusal> {
    let image = lazaret_image::resolve(&claim.bundle, &claim.id, &config.roots)
        .map_err(|error| Refusal::because("image-unknown", &error))?;
    let envelope = store::read_bundle(&config.store, &image.digests)
        .map_err(|error| Refusal::because("store", &error))?
        .ok_or_else(|| {
            let digests = joined(&image.digests);
            Refusal::new(
                "no-bundle",
                &format!("no policy is installed for image {digests}"),
            )
        })?;
    let keys = TrustedKeys::load(&config.store.join("keys"))
        .map_err(|error| Refusal::because("keys", &error))?;
    let policy = verify(&envelope, &keys, &image.digests)
        .map_err(|error| Refusal::because(error.check(), &error))?;
    if let Some(mismatch) = policy.environment_mismatch(HOST, &kernel_release()) {
        return Err(Refusal::new("environment", &mismatch));
    }
    let digest = policy.digest();
    check_metadata(&claim.metadata, &digest)?;
    let stricter = check_filters(&policy, tid, claim.namespace)?;
    let mut named = image.digests.intersection(policy.image_digests());
    // verify() has found that there is one
    let image_digest = *named
        .next()
        .ok_or_else(|| Refusal::new("image", "policy is for another image"))?;
    Ok(Papers {
        policy,
        digest,
        image: image_digest,
        name: image.name,
        stricter,
    })
}

/// Checks another thread of an admitted container, or a process put into it: same profile, same strictness.
///
/// # Errors
/// The first check that failed.
pub(crate) fn admit_again(papers: &Papers, claim: &Claim, tid: u32) -> Result<(), Refusal> {
    check_metadata(&claim.metadata, &papers.digest)?;
    check_filters(&papers.policy, tid, claim.namespace).map(drop)
}

fn check_metadata(found: &str, digest: &impl Display) -> Result<(), Refusal> {
    let expected = digest.to_string();
    if found == expected {
        return Ok(());
    }
    let found = if found.is_empty() { "none" } else { found };
    Err(Refusal::new(
        "metadata",
        &format!("the container's profile is for policy {found}, the signed policy is {expected}"),
    ))
}

/// Compares the kernel's filters for a thread with a policy; returns the calls that the kernel holds more strictly.
fn check_filters(
    policy: &Policy,
    tid: u32,
    namespace: NamespaceId,
) -> Result<Vec<String>, Refusal> {
    let chain = read_chain(tid, namespace)?;
    let comparison = compare(&policy.kernel_table(), &chain)
        .map_err(|error| Refusal::because("filter-compare", &error))?;
    if comparison.looser.is_empty() {
        Ok(stricter(&comparison))
    } else {
        Err(Refusal::new("filter-looser", &looser(&comparison)))
    }
}

fn read_chain(tid: u32, namespace: NamespaceId) -> Result<Vec<Program>, Refusal> {
    filters::read_chain(tid, namespace).map_err(|error| match error {
        ReadError::OwnNamespace { .. } => Refusal::new(
            "pid-namespace",
            "the container shares the host's pid namespace, so its filters cannot be read safely",
        ),
        error => Refusal::because("filter-unread", &error),
    })
}

fn looser(comparison: &Comparison) -> String {
    let Some(first) = comparison.looser.first() else {
        return String::new();
    };
    let more = match comparison.looser.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    format!(
        "the kernel's filter is looser than the policy: {} is {} instead of {}{more}",
        called(first),
        verdict(first.found),
        verdict(first.expected),
    )
}

/// The calls by name; numbers that no table names are only counted. A runtime's libseccomp answers those that are newer
/// than itself with `ENOSYS`, hundreds of them.
fn stricter(comparison: &Comparison) -> Vec<String> {
    let (named, unnamed): (Vec<&Difference>, Vec<&Difference>) = comparison
        .stricter
        .iter()
        .partition(|difference| call::name(&difference.call).is_some());
    let mut names: Vec<String> = named.into_iter().map(called).collect();
    names.sort();
    names.dedup();
    if !unnamed.is_empty() {
        names.push(format!("{} numbers without a name", unnamed.len()));
    }
    names
}

/// The call of a difference by name; by number, and convention where it is not the host's, when there is none.
fn called(difference: &Difference) -> String {
    let call = &difference.call;
    let text = call::name(call).map_or_else(|| format!("call {:#x}", call.nr), str::to_owned);
    match call::convention(call) {
        Some(abi) if abi == HOST => text,
        Some(abi) => format!("{text} ({abi})"),
        None => format!("{text} (architecture {:#x})", call.arch),
    }
}

fn verdict(verdict: Verdict) -> String {
    match verdict {
        Verdict::KillProcess | Verdict::KillThread => "killed".to_owned(),
        Verdict::Trap(_) => "trapped".to_owned(),
        Verdict::Errno(errno) => format!("denied with errno {errno}"),
        Verdict::Ask => "asked".to_owned(),
        Verdict::Trace(_) => "traced".to_owned(),
        Verdict::Log => "allowed and logged".to_owned(),
        Verdict::Allow => "allowed".to_owned(),
    }
}

/// `uname -r`; empty, which no policy accepts, when it cannot be read.
fn kernel_release() -> String {
    let mut text = String::new();
    let read = File::open("/proc/sys/kernel/osrelease")
        .and_then(|file| file.take(256).read_to_string(&mut text));
    match read {
        Ok(_) => text.trim().to_owned(),
        Err(_) => String::new(),
    }
}

fn joined(items: impl IntoIterator<Item = impl Display>) -> String {
    let texts: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lazaret_core::filter::rule::Call;

    fn difference(abi: Abi, nr: u32) -> Difference {
        Difference {
            call: Call::new(abi, nr),
            expected: Verdict::Errno(1),
            found: Verdict::Allow,
        }
    }

    #[test]
    fn differences_are_named() {
        for (abi, nr, expected) in [
            (HOST, 0xffff, "call 0xffff"),
            (Abi::I386, 21, "mount (i386)"),
            (Abi::X32, 165, "mount (x32)"),
        ] {
            assert_eq!(called(&difference(abi, nr)), expected);
        }
        let comparison = Comparison {
            looser: vec![difference(Abi::I386, 21), difference(HOST, 0xffff)],
            ..Comparison::default()
        };
        assert_eq!(
            looser(&comparison),
            "the kernel's filter is looser than the policy: mount (i386) is allowed instead of denied with errno 1, \
             and 1 more"
        );
    }

    #[test]
    fn stricter_calls_are_listed_by_name_and_the_rest_is_counted() {
        let comparison = Comparison {
            stricter: vec![
                difference(Abi::I386, 21),
                difference(HOST, 0xffff),
                difference(HOST, 0xfffe),
                difference(Abi::I386, 21),
            ],
            ..Comparison::default()
        };
        assert_eq!(
            stricter(&comparison),
            ["mount (i386)", "2 numbers without a name"]
        );
    }

    #[test]
    fn a_reason_is_one_line_and_bounded() {
        let refusal = Refusal::new("check", &format!("a\nb\u{7}{}", "c".repeat(5000)));
        assert!(refusal.reason.starts_with("a b c"));
        assert_eq!(refusal.reason.chars().count(), MAX_REASON);
    }
}
