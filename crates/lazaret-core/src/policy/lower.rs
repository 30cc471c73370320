//! What a kernel's filter must mean so that, together with the ask band, a policy holds.
//!
//! Lowering is where the three bands are assigned; it is one function per target because the targets can express
//! different things, and [`Policy::decide`] is the same for all of them.

use super::{Allow, Policy, Scope};
use crate::ceiling::{NAMESPACE_FLAGS, Reach};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
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
    /// Every entry can be expressed by libseccomp: branches allow or ask, `otherwise` is then the default action.
    #[must_use]
    pub fn kernel_table(&self) -> RuleTable {
        // libseccomp kills the thread at an architecture it was not told of (seccomp_init(3), SCMP_FLTATR_ACT_BADARCH)
        self.table(Complement::Default, Verdict::KillThread)
    }

    /// The meaning of the raw BPF: like [`Policy::kernel_table`], but what conditions leave over is asked.
    #[must_use]
    pub fn bpf_table(&self) -> RuleTable {
        self.table(Complement::Ask, Verdict::KillProcess)
    }

    /// One ordinary filter for hosts without the daemon: the union of all phases and the recorded prelude.
    #[must_use]
    pub fn static_table(&self) -> RuleTable {
        let entries = table::calls(self.abi)
            .filter_map(|(nr, _)| {
                let entry = self.static_entry(nr);
                (entry != Entry::always(Verdict::Errno(self.otherwise))).then_some((nr, entry))
            })
            .collect();
        let otherwise = Verdict::Errno(self.otherwise);
        RuleTable::single(
            self.abi,
            Numbers { entries, otherwise },
            Verdict::KillThread,
        )
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

    fn table(&self, complement: Complement, foreign: Verdict) -> RuleTable {
        let otherwise = Verdict::Errno(self.otherwise);
        let entries: BTreeMap<u32, Entry> = table::calls(self.abi)
            .filter_map(|(nr, _)| {
                let entry = self.entry(nr, complement);
                (entry != Entry::always(otherwise)).then_some((nr, entry))
            })
            .collect();
        RuleTable::single(self.abi, Numbers { entries, otherwise }, foreign)
    }

    fn entry(&self, nr: u32, complement: Complement) -> Entry {
        let allows = match self.open(nr) {
            Ok(allows) => allows,
            Err(errno) => return Entry::always(Verdict::Errno(errno)),
        };
        let always: Vec<&Allow> = allows
            .iter()
            .filter(|allow| allow.scope == Scope::ALWAYS)
            .collect();
        let phased = allows.len() > always.len();
        let kernel = if self.is_gate(nr) {
            Entry::always(Verdict::Ask)
        } else if always.iter().any(|allow| allow.conditions.is_empty()) {
            Entry::always(Verdict::Allow)
        } else if always.is_empty() || (phased && complement == Complement::Default) {
            Entry::always(Verdict::Ask)
        } else {
            let otherwise = match complement {
                Complement::Ask => Verdict::Ask,
                Complement::Default => Verdict::Errno(self.otherwise),
            };
            let branches = always
                .iter()
                .map(|allow| Branch {
                    all: allow.conditions.clone(),
                    verdict: Verdict::Allow,
                })
                .collect();
            Entry {
                branches,
                otherwise,
            }
        };
        self.cap(nr, kernel)
    }

    /// What is allowed of a call, or the errno with which all of it is closed: by the ceiling, by a `deny`.
    fn open(&self, nr: u32) -> Result<&[Allow], u16> {
        if self.ceiling.get(&nr) == Some(&Reach::Always) {
            return Err(self.otherwise);
        }
        let Some(rules) = self.call(nr) else {
            return Ok(&[]);
        };
        rules
            .deny
            .map_or(Ok(rules.allows.as_slice()), |(_, errno)| Err(errno))
    }

    /// The calls at which papers are checked: asked whatever the rules say, or a container whose server starts helpers while it
    /// serves could begin unseen.
    fn is_gate(&self, nr: u32) -> bool {
        GATE.iter()
            .any(|name| table::nr_of(self.abi, name) == Some(nr))
    }

    /// Puts a conditional ceiling over an entry.
    fn cap(&self, nr: u32, kernel: Entry) -> Entry {
        let Some(Reach::Unless { arg, mask }) = self.ceiling.get(&nr) else {
            return kernel;
        };
        let below = Condition {
            arg: *arg,
            mask: *mask,
            values: Values::from([0]),
        };
        let above = Verdict::Errno(self.otherwise);
        let mut branches: Vec<Branch> = Vec::new();
        for mut branch in kernel.branches {
            match branch
                .all
                .iter_mut()
                .find(|condition| condition.arg == *arg)
            {
                None => branch.all.push(below.clone()),
                // one argument, two conditions: runtimes turn those into OR, so they become one, with the bits of both
                Some(same) => {
                    same.values = same.values.within(!*mask);
                    same.mask |= mask;
                }
            }
            branch.all.sort();
            if branch
                .all
                .iter()
                .all(|condition| !condition.values.is_empty())
            {
                branches.push(branch);
            }
        }
        if kernel.otherwise.permissiveness() > above.permissiveness() {
            branches.push(Branch {
                all: vec![below],
                verdict: kernel.otherwise,
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
        let entry = if self.prelude.contains(&nr)
            || allows.iter().any(|allow| allow.conditions.is_empty())
        {
            Entry::always(Verdict::Allow)
        } else {
            let conditions: BTreeSet<&Vec<Condition>> =
                allows.iter().map(|allow| &allow.conditions).collect();
            let branches = conditions
                .into_iter()
                .map(|all| Branch {
                    all: all.clone(),
                    verdict: Verdict::Allow,
                })
                .collect();
            Entry {
                branches,
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
        for (nr, _) in table::calls(self.abi) {
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
