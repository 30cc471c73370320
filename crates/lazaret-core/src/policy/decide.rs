//! `decide` and `phase_table`: the meaning of a policy, call by call and as a table.

use super::Policy;
use super::lower::branches;
use crate::ceiling::Reach;
use crate::phase::Phase;
use lazaret_filter::abi::{Abi, X32_BIT};
use lazaret_filter::rule::{Call, Entry, Numbers, RuleTable, Verdict};
use lazaret_filter::table;

/// A verdict and the rule that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// `Allow`, `Errno`, or `KillProcess` for a foreign convention.
    pub verdict: Verdict,
    /// Index into `rules` of the canonical text; none for the ceiling, for `otherwise` and in the prelude.
    pub rule: Option<usize>,
}

impl Decision {
    const fn errno(errno: u16, rule: Option<usize>) -> Decision {
        Decision {
            verdict: Verdict::Errno(errno),
            rule,
        }
    }
}

impl Policy {
    /// What happens to `call` in `phase`.
    ///
    /// # Flow
    /// Foreign convention, `deny` rules, ceiling, then `allow` and `ask` rules that hold in the phase; else `otherwise`. A
    /// `deny` comes before the ceiling because it may name the errno that programs cope with best.
    ///
    /// # Guarantees
    /// Total, and it rests on the number and the six registers alone: nothing that another thread can change while the
    /// caller waits (DESIGN §1, "Why *continue* is sound here").
    ///
    /// # Caveats
    /// In the prelude every call outside ceiling and denials is allowed: the runtime makes them, and nothing of the
    /// container has run.
    #[must_use]
    pub fn decide(&self, phase: Phase, call: &Call) -> Decision {
        if call.arch != self.abi.audit_arch() || (self.abi == Abi::X86_64 && call.nr & X32_BIT != 0)
        {
            return Decision {
                verdict: Verdict::KillProcess,
                rule: None,
            };
        }
        let rules = self.calls.get(&call.nr);
        if let Some((rule, errno)) = rules.and_then(|rules| rules.deny) {
            return Decision::errno(errno, Some(rule));
        }
        if self.under_ceiling(call) {
            return Decision::errno(self.ceiling_errno(call.nr), None);
        }
        if phase == Phase::Prelude {
            return Decision {
                verdict: Verdict::Allow,
                rule: None,
            };
        }
        let allows = rules
            .map(|rules| rules.allows.as_slice())
            .unwrap_or_default();
        allows
            .iter()
            .find(|allow| {
                allow.scope.holds(phase)
                    && allow
                        .conditions
                        .iter()
                        .all(|condition| condition.holds(&call.args))
            })
            .map_or(Decision::errno(self.otherwise, None), |allow| Decision {
                verdict: Verdict::Allow,
                rule: Some(allow.rule),
            })
    }

    /// The errno of a call that the ceiling closes. libc takes another call for `clone3` when it hears ENOSYS, and gives up at
    /// every other errno (glibc, `sysdeps/unix/sysv/linux/clone-internal.c`).
    pub(super) fn ceiling_errno(&self, nr: u32) -> u16 {
        const ENOSYS: u16 = 38;
        if table::nr_of(self.abi, "clone3") == Some(nr) {
            ENOSYS
        } else {
            self.otherwise
        }
    }

    fn under_ceiling(&self, call: &Call) -> bool {
        match self.ceiling.get(&call.nr) {
            None => false,
            Some(Reach::Always) => true,
            Some(Reach::Unless { arg, mask }) => call
                .args
                .get(usize::from(*arg))
                .is_none_or(|value| value & mask != 0),
        }
    }

    /// What [`Policy::decide`] says in `phase`, as a table.
    ///
    /// # Guarantees
    /// `phase_table(phase).decide(call) == decide(phase, call).verdict` for every call.
    #[must_use]
    pub fn phase_table(&self, phase: Phase) -> RuleTable {
        let otherwise = match phase {
            Phase::Prelude => Verdict::Allow,
            _ => Verdict::Errno(self.otherwise),
        };
        let entries = self
            .numbers()
            .into_iter()
            .map(|nr| (nr, self.phase_entry(phase, nr, otherwise)))
            .filter(|(_, entry)| *entry != Entry::always(otherwise))
            .collect();
        let numbers = Numbers { entries, otherwise };
        RuleTable::single(self.abi, numbers, Verdict::KillProcess)
    }

    fn phase_entry(&self, phase: Phase, nr: u32, otherwise: Verdict) -> Entry {
        let allows = match self.open(nr) {
            Ok(allows) => allows,
            Err(errno) => return Entry::always(Verdict::Errno(errno)),
        };
        let holding = allows.iter().filter(|allow| allow.scope.holds(phase));
        let entry = if holding.clone().any(|allow| allow.conditions.is_empty()) {
            Entry::always(Verdict::Allow)
        } else {
            Entry {
                branches: branches(holding, Verdict::Allow),
                otherwise,
            }
        };
        self.cap(nr, entry)
    }

    /// Calls that some rule allows in `phase`, whatever its conditions; ascending.
    pub fn allowed_in(&self, phase: Phase) -> impl Iterator<Item = u32> {
        self.calls
            .iter()
            .filter(move |(_, rules)| {
                rules.deny.is_none() && rules.allows.iter().any(|allow| allow.scope.holds(phase))
            })
            .map(|(nr, _)| *nr)
    }
}
