//! What a signed permit opens for an `exec`, at a moment.

use crate::clock::Clock;
use lazaret_bundle::Verified;
use lazaret_bundle::permit::{Calls, Kind, Permit};
use lazaret_core::digest::Digest;
use lazaret_core::event::What;
use std::sync::Arc;

/// A permit under which an `exec` started.
#[derive(Clone, Debug)]
pub(crate) struct Permitted {
    /// The permit.
    pub(crate) permit: Arc<Verified<Permit>>,
    /// Digest of its envelope.
    pub(crate) envelope: Digest,
}

impl Permitted {
    /// The event for its use.
    pub(crate) fn used(&self) -> What {
        let terms = self.permit.terms();
        What::Permitted {
            permit: self.permit.statement_digest().to_string(),
            key: self.permit.key_id().to_string(),
            reason: terms.reason.clone(),
            until_ms: terms.not_after_ms,
        }
    }
}

/// How far a process put into a container is opened now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Opening {
    /// To the rules of phase exec.
    Policy,
    /// To everything that is neither denied nor under the ceiling.
    Ceiling,
}

impl Opening {
    /// What a permit opens now: nothing more once it has ended.
    pub(crate) fn of(permitted: Option<&Permitted>, clock: &Clock) -> Opening {
        match permitted {
            Some(permitted) if permitted.permit.holds_at(clock.now_ms()).is_ok() => {
                Opening::by(&permitted.permit)
            }
            _ => Opening::Policy,
        }
    }

    /// What a permit opens while it holds.
    pub(crate) fn by(permit: &Permit) -> Opening {
        match permit.terms().kind {
            Kind::Exec {
                calls: Calls::Ceiling,
            } => Opening::Ceiling,
            _ => Opening::Policy,
        }
    }
}
