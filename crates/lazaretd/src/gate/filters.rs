//! What the kernel's filters of a thread mean, against what they should: asked at a container's start and at each `exec`.

use super::{Claim, Gate, HOST, Refusal};
use crate::call;
use crate::papers::Paper;
use crate::reader::ChainError;
use lazaret_core::digest::Digest;
use lazaret_core::filter::abi::{Abi, X32_BIT};
use lazaret_core::filter::compile::compile;
use lazaret_core::filter::program::Program;
use lazaret_core::filter::prove::{Comparison, Difference, prove};
use lazaret_core::filter::rule::{Call, Entry, Numbers, RuleTable, Verdict};
use lazaret_core::filter::table;
use lazaret_core::policy::Policy;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

impl Gate {
    /// Checks that the filters of a thread ask about `execve` (or deny it), so that its first one will be seen here.
    ///
    /// Early, before anything is answered: a filter that lets it pass would start the container unchecked.
    ///
    /// # Errors
    /// When they do not, or cannot be read.
    pub(crate) fn asks_about_execve(&self, claim: &Claim, tid: u32) -> Result<(), Refusal> {
        let chain = self.chain(claim, tid)?;
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

    /// The filters that the kernel runs for a thread of a container.
    pub(super) fn chain(&self, claim: &Claim, tid: u32) -> Result<Vec<Program>, Refusal> {
        let read = self.reader.read_chain(tid, claim.namespace);
        read.map_err(|error| match error {
            ChainError::OwnNamespace => Refusal::new(
                "pid-namespace",
                "the container shares the host's pid namespace, so its filters cannot be read safely",
            ),
            error => Refusal::because("filter-unread", &error),
        })
    }
}

/// Proofs that were found, so that the next container under the same policy and filters needs none: the policy's digest and that of
/// the filters → the calls that the kernel holds more strictly. Only what was found in order is remembered.
#[derive(Debug, Default)]
pub(crate) struct Proofs(Mutex<BTreeMap<(Digest, Digest), Vec<String>>>);

/// Proofs that are remembered. A host runs a handful of policies under one or two runtimes.
const MAX_PROOFS: usize = 256;

impl Proofs {
    /// Proves that filters of the kernel are at least as strict as a policy, for every call there can be; returns
    /// the calls that the kernel holds more strictly.
    ///
    /// # Errors
    /// When they are looser, and when that cannot be decided.
    pub(super) fn check(&self, paper: &Paper, chain: &[Program]) -> Result<Vec<String>, Refusal> {
        let key = (paper.digest, digest_of(chain));
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stricter) = lock().get(&key) {
            return Ok(stricter.clone());
        }
        let comparison = prove(&paper.policy.kernel_table(), chain)
            .map_err(|error| Refusal::because("filter-undecided", &error))?;
        if !comparison.is_at_least_as_strict() {
            return Err(Refusal::new("filter-looser", &looser(&comparison)));
        }
        let stricter = stricter(&comparison);
        let mut proofs = lock();
        if proofs.len() >= MAX_PROOFS {
            proofs.clear();
        }
        proofs.insert(key, stricter.clone());
        Ok(stricter)
    }
}

/// Of the filters, each with its length before it.
fn digest_of(chain: &[Program]) -> Digest {
    let mut bytes = Vec::new();
    for program in chain {
        let program = program.to_bytes();
        // a usize fits 64 bits
        bytes.extend((program.len() as u64).to_ne_bytes());
        bytes.extend(program);
    }
    Digest::of(&bytes)
}

/// How a revision differs from what the kernel holds since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Calls that the kernel holds more strictly.
    pub(crate) stricter: Vec<String>,
    /// Calls that the kernel allows and the revision denies, or asks about.
    pub(crate) looser: Vec<String>,
}

/// Compares a revision with the policy that the kernel's filter was made from.
///
/// The filter itself was proved to be at least as strict as that policy at the start, so this errs on the safe side: it may
/// name a call that the filter holds after all.
///
/// # Errors
/// When it cannot be decided.
pub(super) fn held(revision: &Policy, in_kernel: &Policy) -> Result<Held, Refusal> {
    let undecided = |error: &dyn std::error::Error| Refusal::because("filter-undecided", error);
    let program = compile(&in_kernel.kernel_table()).map_err(|error| undecided(&error))?;
    let comparison =
        prove(&revision.kernel_table(), &[program]).map_err(|error| undecided(&error))?;
    let mut looser = names(comparison.looser.iter());
    if comparison.omitted.looser > 0 {
        looser.push(format!("and {} more", comparison.omitted.looser));
    }
    Ok(Held {
        stricter: stricter(&comparison),
        looser,
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

fn stricter(comparison: &Comparison) -> Vec<String> {
    let errnos = comparison.other.iter().filter(|other| other.matters());
    names(comparison.stricter.iter().chain(errnos))
}

/// The calls by name; of numbers that no table names only the smallest is told. A runtime's libseccomp answers those that are
/// newer than itself with `ENOSYS`, all of them.
fn names<'a>(differences: impl Iterator<Item = &'a Difference>) -> Vec<String> {
    let mut names = Vec::new();
    let mut unnamed: Option<u32> = None;
    for difference in differences {
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

#[cfg(test)]
mod tests {
    use super::*;
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
}
