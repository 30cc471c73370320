//! What a kernel's filter must mean so that, together with the ask band, a policy holds.
//!
//! Lowering is where the three bands are assigned; it is one function per target because the targets can express
//! different things, and [`Policy::decide`] is the same for all of them.

use super::{Allow, Policy};
use crate::ceiling::{NAMESPACE_FLAGS, Reach};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use lazaret_filter::oci::{self, MAX_RULES_PER_CALL};
use lazaret_filter::rule::{Branch, Condition, Entry, Numbers, RuleTable, Values, Verdict};
use lazaret_filter::table;

/// The calls by which a container's program begins.
const GATE: [&str; 2] = ["execve", "execveat"];

/// Calls whose denials the kernel decides without notification under an OCI profile, and which the gate therefore does
/// not see: libseccomp has no "else ask" beside a condition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unseen {
    /// The call's number.
    pub nr: u32,
}

/// What a target's filter can say of a call that is allowed under conditions only.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Complement {
    /// "else ask" (our own BPF).
    Ask,
    /// Only the table's default (libseccomp).
    Default,
}

impl Policy {
    /// The meaning of the filter that a runtime builds from the OCI profile (runc and crun with libseccomp).
    ///
    /// # Guarantees
    /// Every entry of a call with a name can be expressed by libseccomp; where its conditions could not, the whole call is
    /// asked and the gate decides exactly.
    ///
    /// # Caveats
    /// A profile has names only, and a runtime refuses to ask by default: a policy with numbers has a table, but
    /// [`lazaret_filter::oci::profile`] refuses it and names the number.
    #[must_use]
    pub fn kernel_table(&self) -> RuleTable {
        // libseccomp kills the thread at an architecture it was not told of (seccomp_init(3), SCMP_FLTATR_ACT_BADARCH)
        self.table(Complement::Default, Verdict::KillThread)
    }

    /// The meaning of the raw BPF: like [`Policy::kernel_table`], but all conditions are the kernel's, and what they leave
    /// over is asked.
    #[must_use]
    pub fn bpf_table(&self) -> RuleTable {
        self.table(Complement::Ask, Verdict::KillProcess)
    }

    /// One ordinary filter for hosts without the daemon: the union of all phases and the recorded prelude. An `ask` is an
    /// `allow` here, as nobody can be asked.
    #[must_use]
    pub fn static_table(&self) -> RuleTable {
        let mut numbers = self.numbers();
        numbers.extend(&self.prelude);
        self.table_of(numbers, Verdict::KillThread, |nr| self.static_entry(nr))
    }

    /// Calls of [`Policy::kernel_table`] whose denials are not seen.
    #[must_use]
    pub fn unseen(&self) -> BTreeSet<Unseen> {
        let table = self.kernel_table();
        let conditional = table
            .abis
            .values()
            .flat_map(|numbers| &numbers.entries)
            .filter(|(_, entry)| !entry.branches.is_empty());
        conditional.map(|(nr, _)| Unseen { nr: *nr }).collect()
    }

    /// Every number that has a name or a rule, or is under the ceiling. A number with none of them is closed, also to the
    /// runtime: a profile could not ask about it.
    pub(super) fn numbers(&self) -> BTreeSet<u32> {
        let named = table::calls(self.abi).map(|(nr, _)| nr);
        let spoken_of = self.calls.keys().chain(self.ceiling.keys());
        named.chain(spoken_of.copied()).collect()
    }

    fn table(&self, complement: Complement, foreign: Verdict) -> RuleTable {
        self.table_of(self.numbers(), foreign, |nr| self.entry(nr, complement))
    }

    fn table_of(
        &self,
        numbers: BTreeSet<u32>,
        foreign: Verdict,
        entry: impl Fn(u32) -> Entry,
    ) -> RuleTable {
        let otherwise = Verdict::Errno(self.otherwise);
        let entries: BTreeMap<u32, Entry> = numbers
            .into_iter()
            .map(|nr| (nr, entry(nr)))
            .filter(|(_, entry)| *entry != Entry::always(otherwise))
            .collect();
        RuleTable::single(self.abi, Numbers { entries, otherwise }, foreign)
    }

    fn entry(&self, nr: u32, complement: Complement) -> Entry {
        let allows = match self.open(nr) {
            Ok(allows) => allows,
            Err(errno) => return Entry::always(Verdict::Errno(errno)),
        };
        let asked = || self.cap(nr, Entry::always(Verdict::Ask));
        if self.is_gate(nr) {
            return asked();
        }
        if allows.iter().any(Allow::by_number) {
            return self.cap(nr, Entry::always(Verdict::Allow));
        }
        if !allows.iter().any(Allow::by_kernel) {
            return asked();
        }
        match complement {
            Complement::Ask => self.cap(nr, with_asking(allows)),
            // phases or the gate's eye on some of it: libseccomp has no "else ask", so all of it is asked
            Complement::Default if !allows.iter().all(Allow::by_kernel) => asked(),
            Complement::Default => {
                let entry = self.cap(
                    nr,
                    Entry {
                        branches: branches(allows.iter(), Verdict::Allow),
                        otherwise: Verdict::Errno(self.otherwise),
                    },
                );
                if self.expressible(nr, &entry) {
                    entry
                } else {
                    asked()
                }
            }
        }
    }

    /// Whether libseccomp can express an entry that asks nothing: the writer of profiles itself is asked, so the two agree.
    fn expressible(&self, nr: u32, entry: &Entry) -> bool {
        let numbers = Numbers {
            entries: BTreeMap::from([(nr, entry.clone())]),
            otherwise: Verdict::Errno(self.otherwise),
        };
        let table = RuleTable::single(self.abi, numbers, Verdict::KillThread);
        oci::profile(&table, None).is_ok()
    }

    /// What is allowed of a call, or the errno with which all of it is closed: by a `deny`, by the ceiling.
    pub(super) fn open(&self, nr: u32) -> Result<&[Allow], u16> {
        let rules = self.call(nr);
        if let Some((_, errno)) = rules.and_then(|rules| rules.deny) {
            return Err(errno);
        }
        if self.ceiling.get(&nr) == Some(&Reach::Always) {
            return Err(self.ceiling_errno(nr));
        }
        Ok(rules.map_or(&[], |rules| rules.allows.as_slice()))
    }

    /// The calls at which papers are checked: asked whatever the rules say, or a container whose server starts helpers while it
    /// serves could begin unseen.
    fn is_gate(&self, nr: u32) -> bool {
        GATE.iter()
            .any(|name| table::nr_of(self.abi, name) == Some(nr))
    }

    /// Puts a conditional ceiling over an entry.
    pub(super) fn cap(&self, nr: u32, entry: Entry) -> Entry {
        let Some(Reach::Unless { arg, mask }) = self.ceiling.get(&nr) else {
            return entry;
        };
        let below = Condition {
            arg: *arg,
            mask: *mask,
            values: Values::from([0]),
        };
        let above = Verdict::Errno(self.otherwise);
        let mut branches: Vec<Branch> = entry
            .branches
            .into_iter()
            .filter_map(|branch| under(&below, branch))
            .collect();
        if entry.otherwise.permissiveness() > above.permissiveness() {
            branches.push(Branch {
                all: vec![below],
                verdict: entry.otherwise,
            });
        }
        Entry {
            branches,
            otherwise: above,
        }
    }

    fn static_entry(&self, nr: u32) -> Entry {
        let allows = match self.open(nr) {
            Ok(allows) => allows,
            Err(errno) => return Entry::always(Verdict::Errno(errno)),
        };
        let otherwise = Verdict::Errno(self.otherwise);
        let whole =
            self.prelude.contains(&nr) || allows.iter().any(|allow| allow.conditions.is_empty());
        let entry = if whole {
            Entry::always(Verdict::Allow)
        } else {
            Entry {
                branches: branches(allows.iter(), Verdict::Allow),
                otherwise,
            }
        };
        self.cap(nr, entry)
    }

    /// The calls a policy lets through by phase: what `policy show` and reports count.
    #[must_use]
    pub fn bands(&self) -> Bands {
        let table = self.kernel_table();
        let mut bands = Bands::default();
        for nr in self.numbers() {
            let widest = table
                .abis
                .get(&self.abi)
                .map_or(table.foreign, |numbers| numbers.widest(nr));
            match widest {
                Verdict::Allow => bands.allow.insert(nr),
                Verdict::Ask => bands.ask.insert(nr),
                _ => bands.deny.insert(nr),
            };
        }
        bands
    }
}

/// What our own BPF says of a call that the kernel may allow in part: what an `ask` rule covers is asked even where an
/// `allow` covers it too, then the conditions of the `allow`s, and the rest is asked.
fn with_asking(allows: &[Allow]) -> Entry {
    let (asked, allowed): (Vec<&Allow>, Vec<&Allow>) = allows
        .iter()
        .filter(|allow| allow.asked || allow.by_kernel())
        .partition(|allow| allow.asked);
    if asked.iter().any(|allow| allow.conditions.is_empty()) {
        return Entry::always(Verdict::Ask);
    }
    let mut all = branches(asked, Verdict::Ask);
    all.extend(branches(allowed, Verdict::Allow));
    Entry {
        branches: all,
        otherwise: Verdict::Ask,
    }
}

/// A branch for each distinct set of conditions, in their order.
pub(super) fn branches<'a>(
    allows: impl IntoIterator<Item = &'a Allow>,
    verdict: Verdict,
) -> Vec<Branch> {
    let conditions: BTreeSet<&Vec<Condition>> =
        allows.into_iter().map(|allow| &allow.conditions).collect();
    let branch = |all: &Vec<Condition>| Branch {
        all: all.clone(),
        verdict,
    };
    conditions.into_iter().map(branch).collect()
}

/// `branch`, where `below` holds too; `None` when nothing is left of it.
fn under(below: &Condition, mut branch: Branch) -> Option<Branch> {
    let same = branch
        .all
        .iter_mut()
        .find(|condition| condition.arg == below.arg);
    match same.map(|same| (same.values.singles(MAX_RULES_PER_CALL), same)) {
        // one argument, two conditions: runtimes turn those into OR, so single values become one condition with the bits of
        // both
        Some((Some(values), same)) => {
            let (left, mask) = (same.mask & !below.mask, same.mask | below.mask);
            same.values = values
                .into_iter()
                .filter(|value| value & !left == 0)
                .collect();
            same.mask = mask;
            if same.values.is_empty() {
                return None;
            }
        }
        // a range has no such form; where two conditions cannot be said, the whole call is asked
        Some((None, _)) | None => branch.all.push(below.clone()),
    }
    branch.all.sort();
    Some(branch)
}

/// The three bands of a policy in the kernel, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bands {
    /// Allowed by the kernel, some under conditions.
    pub allow: BTreeSet<u32>,
    /// Asked.
    pub ask: BTreeSet<u32>,
    /// Denied by the kernel.
    pub deny: BTreeSet<u32>,
}

// clone(2) takes the exit signal in the low byte of its flags: a namespace bit there would be no namespace bit
const _: () = assert!(NAMESPACE_FLAGS & 0xff == 0);
