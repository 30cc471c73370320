//! What happens to an asked call.
//!
//! Pure. The verdict rests on the number, the phase and register values: nothing behind a pointer is looked at, which is what
//! makes *continue* sound (ARCHITECTURE.md).

use lazaret_core::filter::rule::{Call, Verdict};
use lazaret_core::phase::Phase;
use lazaret_core::policy::{Mode, Policy};
use lazaret_kernel::notify::Answer;

/// `EPERM` (`include/uapi/asm-generic/errno-base.h`).
pub(crate) const EPERM: u16 = 1;

/// How an asked call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decided {
    /// By the rules of this phase.
    pub(crate) phase: Phase,
    /// What the policy says.
    pub(crate) outcome: Outcome,
}

/// What a policy says of an asked call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is allowed.
    Allowed,
    /// It is denied, and fails with this errno.
    Denied {
        /// The errno.
        errno: u16,
    },
    /// It would be denied, were the mode not observe: it goes on.
    Observed,
    /// It is allowed, and the phase to come will deny it: it goes on and is told.
    Previewed {
        /// The phase to come.
        by: Phase,
    },
}

/// A denial to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    /// By the rules of this phase.
    pub(crate) phase: Phase,
    /// False when the call went on all the same.
    pub(crate) enforced: bool,
}

impl Decided {
    /// The answer for the kernel.
    pub(crate) const fn answer(self) -> Answer {
        match self.outcome {
            Outcome::Allowed | Outcome::Observed | Outcome::Previewed { .. } => Answer::Continue,
            Outcome::Denied { errno } => Answer::Errno(errno),
        }
    }

    /// What is to be told of it.
    pub(crate) const fn denial(self) -> Option<Denial> {
        match self.outcome {
            Outcome::Allowed => None,
            Outcome::Denied { .. } => Some(Denial {
                phase: self.phase,
                enforced: true,
            }),
            Outcome::Observed => Some(Denial {
                phase: self.phase,
                enforced: false,
            }),
            Outcome::Previewed { by } => Some(Denial {
                phase: by,
                enforced: false,
            }),
        }
    }
}

/// What a policy says of a call in a phase; `preview` is the phase to come, while it dwells.
pub(super) fn decide(
    policy: &Policy,
    phase: Phase,
    preview: Option<Phase>,
    call: &Call,
) -> Decided {
    let outcome = match (judge(policy, phase, call), policy.mode()) {
        (Err(errno), Mode::Enforce) => Outcome::Denied { errno },
        (Err(_), Mode::Observe) => Outcome::Observed,
        (Ok(()), _) => match preview {
            Some(by) if judge(policy, by, call).is_err() => Outcome::Previewed { by },
            _ => Outcome::Allowed,
        },
    };
    Decided { phase, outcome }
}

/// Whether a phase allows a call; the errno that it fails with otherwise.
pub(super) fn judge(policy: &Policy, phase: Phase, call: &Call) -> Result<(), u16> {
    verdict(policy.decide(phase, call).verdict)
}

/// A verdict as an answer.
pub(super) fn verdict(verdict: Verdict) -> Result<(), u16> {
    match verdict {
        Verdict::Allow | Verdict::Log => Ok(()),
        Verdict::Errno(errno) => Err(errno),
        // A foreign convention, which the kernel's filter kills before it asks. Asked all the same: deny.
        _ => Err(EPERM),
    }
}
