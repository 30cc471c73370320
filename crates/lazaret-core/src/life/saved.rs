//! What of a life outlives the daemon, and how it goes on under the next one.
//!
//! Times are not kept: they counted from the start of a daemon that is gone. What was half over begins again.

use super::{Effect, Kind, Life, Readiness, State};
use crate::phase::Phase;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// A life as it is written down. Holds no time and no version; the record it stands in has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedLife {
    state: SavedState,
    restarts_left: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SavedState {
    Prelude,
    Asking,
    Quieting,
    Settling,
    Dwelling,
    Held,
    Serving,
    Stopping,
    Exec,
    Refused,
}

impl SavedLife {
    /// The phase in which it was written down.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match self.state {
            SavedState::Prelude | SavedState::Refused => Phase::Prelude,
            SavedState::Asking
            | SavedState::Quieting
            | SavedState::Settling
            | SavedState::Dwelling
            | SavedState::Held => Phase::Startup,
            SavedState::Serving => Phase::Serving,
            SavedState::Stopping => Phase::Stopping,
            SavedState::Exec => Phase::Exec,
        }
    }
}

impl Life {
    /// What the next daemon must know.
    #[must_use]
    pub const fn save(&self) -> SavedLife {
        SavedLife {
            state: match self.state {
                State::Prelude => SavedState::Prelude,
                State::Asking => SavedState::Asking,
                State::Quieting { .. } => SavedState::Quieting,
                State::Settling { .. } => SavedState::Settling,
                State::Dwelling { .. } => SavedState::Dwelling,
                State::Held => SavedState::Held,
                State::Serving => SavedState::Serving,
                State::Stopping => SavedState::Stopping,
                State::Exec => SavedState::Exec,
                State::Refused => SavedState::Refused,
            },
            restarts_left: self.restarts_left,
        }
    }

    /// A life that goes on under another daemon, and what that daemon has to do. `readiness` is that of the policy in
    /// force, whatever it was before.
    ///
    /// # Flow
    /// Asking, quieting and settling: the trigger is waited for again. Dwelling: the dwell begins again, since nobody
    /// knows what was left of it. Everything else goes on as it was.
    ///
    /// # Guarantees
    /// The phase is that of the saved life, or serving after a dwell that the policy no longer has. Whoever waits gets an
    /// effect or a deadline that ends the wait; held stays held until somebody moves it.
    ///
    /// # Caveats
    /// A saved state that this kind of listener cannot have is a damaged record. A container is then held to serving, the
    /// strictest phase of its running; an `exec` to its one phase.
    #[must_use]
    pub fn resume(
        kind: Kind,
        saved: SavedLife,
        readiness: Readiness,
        now_ms: u64,
    ) -> (Life, Vec<Effect>) {
        let mut life = Life {
            kind,
            state: State::Held,
            readiness,
            restarts_left: saved.restarts_left,
        };
        let asks = Effect::AskReadiness;
        life.state = match (kind, saved.state) {
            (_, SavedState::Prelude) => State::Prelude,
            (_, SavedState::Refused) => State::Refused,
            (Kind::Exec, _) => State::Exec,
            (Kind::Container, SavedState::Exec | SavedState::Serving) => State::Serving,
            (Kind::Container, SavedState::Stopping) => State::Stopping,
            (Kind::Container, SavedState::Held) => State::Held,
            (Kind::Container, SavedState::Asking | SavedState::Quieting | SavedState::Settling) => {
                life.start(now_ms)
            }
            (Kind::Container, SavedState::Dwelling) => life.dwell(now_ms),
        };
        let effects = match (life.state, saved.state) {
            (State::Asking, _) => Vec::from([asks]),
            (State::Dwelling { .. }, _) => Vec::from([Effect::BeginDwell {
                dwell_ms: readiness.dwell_ms(),
            }]),
            (State::Serving, SavedState::Dwelling) => Vec::from([Effect::Changed {
                from: Phase::Startup,
                to: Phase::Serving,
                cause: super::Cause::Readiness,
            }]),
            _ => Vec::new(),
        };
        (life, effects)
    }
}
