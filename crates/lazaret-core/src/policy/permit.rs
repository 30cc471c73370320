//! What a permit opens for one exec, beside what the policy allows. Whether there is a permit, who signed it and until when it
//! holds is not asked here.

use super::{Decision, Policy};
use crate::phase::Phase;
use lazaret_filter::rule::{Call, Verdict};

impl Policy {
    /// What happens to a call of an exec that a signed permit opens up to the ceiling.
    ///
    /// # Flow
    /// Foreign convention, `deny` rules, ceiling, as for every exec; everything else is allowed.
    ///
    /// # Guarantees
    /// Equal to [`Policy::decide`] in the phase exec for what that allows, what a rule denies and what lies under the ceiling;
    /// `Allow` without a rule for every other call.
    ///
    /// # Caveats
    /// For calls that are asked about: what the kernel's filter denies by itself stays denied.
    #[must_use]
    pub fn decide_permitted(&self, call: &Call) -> Decision {
        let own = self.decide(Phase::Exec, call);
        if own.verdict == Verdict::Allow {
            return own;
        }
        // the prelude's verdict is that of foreign conventions, denials and ceiling alone: they hold in every phase
        self.decide(Phase::Prelude, call)
    }
}
