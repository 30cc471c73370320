//! The check at the first `execve`: nothing of the container has run yet, and nothing will unless every paper is in
//! order.
//!
//! Blocking work (files, signatures, ptrace, `ctr`): run it on a thread for such work, never on the answer path.
//! Pinned keys and bundles are read anew for each admission, so a changed store takes effect at the next start.

use crate::call;
use crate::config::Config;
use crate::container::Papers;
use lazaret_bundle::store::{self, StoreError};
use lazaret_bundle::{TrustedKeys, verify};
use lazaret_core::digest::Digest;
use lazaret_core::filter::abi::{Abi, X32_BIT};
use lazaret_core::filter::program::Program;
use lazaret_core::filter::prove::{Comparison, Difference, prove};
use lazaret_core::filter::rule::{Call, Entry, Numbers, RuleTable, Verdict};
use lazaret_core::filter::table;
use lazaret_core::policy::Policy;
use lazaret_kernel::filters::{self, ReadError};
use lazaret_kernel::process::NamespaceId;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

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
        prove(&asked, &chain).map_err(|error| Refusal::because("filter-undecided", &error))?;
    if comparison.is_at_least_as_strict() {
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
/// Image, from the engine's state → bundle, from the store by the image's digests and `listenerMetadata` → pinned keys → signature, statement,
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
    let envelope = named_bundle(&config.store, &image.digests, &claim.metadata)?;
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
        engine: image.engine,
        stricter,
    })
}

/// The bundle that the container's profile names; several revisions of an image's policy may be installed.
fn named_bundle(
    store: &Path,
    image: &BTreeSet<Digest>,
    metadata: &str,
) -> Result<Vec<u8>, Refusal> {
    let unread = |error: StoreError| Refusal::because("store", &error);
    let installed = store::revisions(store, image).map_err(unread)?;
    if installed.is_empty() {
        let reason = format!("no policy is installed for image {}", joined(image));
        return Err(Refusal::new("no-bundle", &reason));
    }
    let named = metadata.parse().ok();
    let Some(policy) = named.filter(|named| installed.iter().any(|one| one.policy == *named))
    else {
        let metadata = if metadata.is_empty() {
            "none"
        } else {
            metadata
        };
        let revisions = installed
            .iter()
            .map(|one| format!("{} ({})", one.revision, one.policy));
        let reason = format!(
            "the container's profile is for policy {}, installed are revisions {}",
            metadata.chars().take(80).collect::<String>(),
            joined(revisions)
        );
        return Err(Refusal::new("metadata", &reason));
    };
    let bundle = store::read_bundle(store, image, &policy).map_err(unread)?;
    bundle.ok_or_else(|| {
        let reason = format!(
            "policy {policy} is installed for image {} without its bundle",
            joined(image)
        );
        Refusal::new("no-bundle", &reason)
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

/// Proves that the kernel's filters for a thread are at least as strict as a policy, for every call there can be; returns the
/// calls that the kernel holds more strictly.
///
/// # Errors
/// When they are looser, and when that cannot be decided.
fn check_filters(
    policy: &Policy,
    tid: u32,
    namespace: NamespaceId,
) -> Result<Vec<String>, Refusal> {
    let chain = read_chain(tid, namespace)?;
    let comparison = prove(&policy.kernel_table(), &chain)
        .map_err(|error| Refusal::because("filter-undecided", &error))?;
    if comparison.is_at_least_as_strict() {
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
    // the first is there
    let more = match comparison.looser.len() - 1 + comparison.omitted.looser {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let when = if first.when.is_everything() {
        String::new()
    } else {
        format!(" when {}", first.when)
    };
    format!(
        "the kernel's filter is looser than the policy: {} is {} instead of {}{when}{more}",
        called(first),
        verdict(first.found),
        verdict(first.expected),
    )
}

/// The calls by name; of numbers that no table names only the smallest is told. A runtime's libseccomp answers those that are
/// newer than itself with `ENOSYS`, all of them.
fn stricter(comparison: &Comparison) -> Vec<String> {
    let mut names = Vec::new();
    let mut unnamed: Option<u32> = None;
    let errnos = comparison.other.iter().filter(|other| other.matters());
    for difference in comparison.stricter.iter().chain(errnos) {
        let numbers = &difference.numbers;
        let Some(abi) = difference.abi else {
            names.push(called(difference));
            continue;
        };
        let bit = if abi == Abi::X32 { X32_BIT } else { 0 };
        let mut named = 0;
        let listed = table::calls(abi).filter(|&(nr, _)| numbers.contains(&(nr | bit)));
        for (_, name) in listed {
            names.push(foreign(name, abi));
            named += 1;
        }
        if abi == HOST && named <= numbers.end() - numbers.start() {
            let first = numbers
                .clone()
                .find(|&nr| table::name_of(abi, nr).is_none());
            unnamed = unnamed.into_iter().chain(first).min();
        }
    }
    names.sort();
    names.dedup();
    if let Some(first) = unnamed {
        names.push(format!("numbers without a name from {first}"));
    }
    names
}

/// The calls of a difference by name; by number where they have none, and with the convention where it is not the host's.
fn called(difference: &Difference) -> String {
    let one = |nr: u32| {
        let call = Call {
            nr,
            ..difference.call
        };
        call::name(&call).map_or_else(|| format!("call {nr:#x}"), str::to_owned)
    };
    let (first, last) = (*difference.numbers.start(), *difference.numbers.end());
    let text = if first == last {
        one(first)
    } else {
        format!("{} to {}", one(first), one(last))
    };
    match difference.abi {
        Some(abi) => foreign(&text, abi),
        None => format!("{text} (architecture {:#x})", difference.call.arch),
    }
}

/// With the convention, where it is not the host's.
fn foreign(text: &str, abi: Abi) -> String {
    if abi == HOST {
        text.to_owned()
    } else {
        format!("{text} ({abi})")
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
    use lazaret_core::filter::compile::compile;
    use lazaret_core::filter::rule::{Branch, Condition};

    /// The table with one change, against the filter of the table without it.
    fn judge(from: &RuleTable, to: &RuleTable) -> Comparison {
        prove(from, &[compile(to).expect("fits")]).expect("decided")
    }

    fn all(otherwise: Verdict) -> RuleTable {
        let numbers = Numbers {
            entries: [].into(),
            otherwise,
        };
        let mut table = RuleTable::single(HOST, numbers.clone(), otherwise);
        table.abis.insert(Abi::I386, numbers.clone());
        table.abis.insert(Abi::X32, numbers);
        table
    }

    fn with(table: &RuleTable, abi: Abi, nr: u32, entry: Entry) -> RuleTable {
        let mut table = table.clone();
        let numbers = table.abis.get_mut(&abi).expect("served");
        numbers.entries.insert(nr, entry);
        table
    }

    #[test]
    fn what_is_looser_is_said_in_a_sentence() {
        let denied = all(Verdict::Errno(1));
        let allowed = |abi, nr| with(&denied, abi, nr, Entry::always(Verdict::Allow));
        let condition = Condition {
            arg: 1,
            mask: 0xf,
            values: [2].into(),
        };
        let some = Entry {
            branches: vec![Branch {
                all: vec![condition],
                verdict: Verdict::Allow,
            }],
            otherwise: Verdict::Errno(1),
        };
        let mount = table::nr_of(HOST, "mount").expect("known");
        let two = with(&allowed(Abi::I386, 21), HOST, 0xffff, some.clone());
        for (table, expected) in [
            (
                allowed(HOST, mount),
                "mount is allowed instead of denied with errno 1",
            ),
            (
                allowed(HOST, 0xffff),
                "call 0xffff is allowed instead of denied with errno 1",
            ),
            (
                allowed(Abi::X32, 165),
                "mount (x32) is allowed instead of denied with errno 1",
            ),
            (
                two,
                "mount (i386) is allowed instead of denied with errno 1, and 1 more",
            ),
            (
                with(&denied, HOST, 0xffff, some),
                "call 0xffff is allowed instead of denied with errno 1 when arg1 & 0xf == 2",
            ),
        ] {
            let said = looser(&judge(&denied, &table));
            let prefix = "the kernel's filter is looser than the policy: ";
            assert_eq!(said.strip_prefix(prefix), Some(expected));
        }
    }

    #[test]
    fn stricter_calls_are_listed_by_name() {
        let asked = all(Verdict::Ask);
        let enosys = Entry::always(Verdict::Errno(38));
        let mut found = asked.clone();
        for (abi, nr) in [
            (Abi::I386, 21),
            (HOST, 0xffff),
            (HOST, 0xfffe),
            (Abi::I386, 40_000),
        ] {
            found = with(&found, abi, nr, enosys.clone());
        }
        assert_eq!(
            stricter(&judge(&asked, &found)),
            ["mount (i386)", "numbers without a name from 65534"]
        );
        // an errno for another is listed when one is ENOSYS
        let denied = all(Verdict::Errno(1));
        let nr = table::nr_of(HOST, "clone3").expect("known");
        for (errno, expected) in [(38, &["clone3"][..]), (13, &[])] {
            let other = with(&denied, HOST, nr, Entry::always(Verdict::Errno(errno)));
            assert_eq!(stricter(&judge(&denied, &other)), expected);
        }
    }

    #[test]
    fn a_reason_is_one_line_and_bounded() {
        let refusal = Refusal::new("check", &format!("a\nb\u{7}{}", "c".repeat(5000)));
        assert!(refusal.reason.starts_with("a b c"));
        assert_eq!(refusal.reason.chars().count(), MAX_REASON);
    }
}
