//! The phase machine of one listener: which phase it is in, and what has to be done next.
//!
//! Pure. It keeps no clock, opens no socket and knows no policy: the daemon passes in what happened and the time, and
//! does what the returned [`Effect`]s say. A container start and an `exec` each have a listener and a [`Life`] of
//! their own.
//!
//! | state | meaning | left by |
//! | --- | --- | --- |
//! | prelude | the runtime's own calls; no instruction of the container has run | first `execve` admitted or refused |
//! | startup, asking | the server starts and is asked whether it is ready | first fitting answer, stop, by hand |
//! | startup, quieting | it starts; every call that serving will deny begins the quiet time again | quiet time elapsed, stop, by hand |
//! | startup, settling | it was ready once; the settle time runs | settle elapsed, stop, by hand |
//! | startup, dwelling | settled; what serving will deny is told and goes on | dwell elapsed, stop, by hand |
//! | startup, held | no readiness is asked for: the policy has none, or somebody moved it here by hand | stop, by hand |
//! | serving | the server answers requests | a restart of the server, stop, by hand |
//! | stopping | the stop signal was sent, or process 1 is gone | by hand, until process 1 is gone |
//! | exec | a process put in from outside, after its own first `execve` | never |
//! | refused | the papers were not in order; every `execve` fails | never |
//!
//! A listener whose processes are all gone is closed in any state; the caller then drops the `Life`.
//!
//! # Time
//! The caller's milliseconds count from any moment and never go back (`CLOCK_MONOTONIC`): a clock that is set does not
//! reach this machine. After every step the caller looks at [`Life::deadline_ms`] and sends [`Input::Tick`] when it is due;
//! a tick that comes too early changes nothing, one that comes late is as good. A deadline may move, later only, while
//! the machine is quieting: whoever wakes up too early sleeps again.

mod saved;

pub use saved::SavedLife;

use crate::phase::Phase;
use crate::policy::{Policy, Trigger};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// What a listener was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The start of a container.
    Container,
    /// A process put into a running container.
    Exec,
}

/// How a container comes to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The policy names no trigger: only by hand.
    ByHand,
    /// The server, or the engine, is asked until the first fitting answer.
    Asked {
        /// Milliseconds between it and the dwell.
        settle_ms: u64,
        /// Milliseconds in which denials are told before they bite.
        dwell_ms: u64,
    },
    /// The calls of the container tell: none that only startup allows, for some time.
    Quiet {
        /// For so many milliseconds.
        quiet_ms: u64,
        /// As in [`Readiness::Asked`].
        settle_ms: u64,
        /// As in [`Readiness::Asked`].
        dwell_ms: u64,
    },
}

impl Readiness {
    /// What a policy says of it.
    #[must_use]
    pub fn of(policy: &Policy) -> Readiness {
        let Some(serving) = policy.serving() else {
            return Readiness::ByHand;
        };
        let (settle_ms, dwell_ms) = (serving.settle_ms, serving.dwell_ms);
        match serving.trigger {
            Trigger::Http(_) | Trigger::Tcp { .. } | Trigger::Health => Readiness::Asked {
                settle_ms,
                dwell_ms,
            },
            Trigger::Quiet { for_ms } => Readiness::Quiet {
                quiet_ms: for_ms,
                settle_ms,
                dwell_ms,
            },
        }
    }

    const fn settle_ms(self) -> u64 {
        match self {
            Readiness::ByHand => 0,
            Readiness::Asked { settle_ms, .. } | Readiness::Quiet { settle_ms, .. } => settle_ms,
        }
    }

    const fn dwell_ms(self) -> u64 {
        match self {
            Readiness::ByHand => 0,
            Readiness::Asked { dwell_ms, .. } | Readiness::Quiet { dwell_ms, .. } => dwell_ms,
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The papers were in order at the first `execve`.
    Admitted {
        /// How it comes to serve; says nothing for an `exec`.
        readiness: Readiness,
        /// How often it may come from serving back to startup.
        restarts: u32,
    },
    /// They were not.
    Refused,
    /// The server gave the answer that the policy names.
    Ready,
    /// It gave another answer, or none.
    NotReady,
    /// A call was made that startup allows and serving does not. Only asked for while [`Life::awaits_quiet`].
    StartupCall,
    /// Time has passed.
    Tick,
    /// The server begins again inside the container, by an `execve` that startup allows and serving does not. The caller
    /// steps before it answers the call: with [`Effect::RestartRefused`] it is decided as any other call of serving.
    Restarted,
    /// The engine sends the stop signal.
    StopSignal,
    /// Somebody asks for this phase.
    ByHand(Phase),
    /// Process 1 of the container is gone.
    ProcessGone,
}

/// Why a phase changed. The names stand in events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The first `execve` was admitted.
    Execve,
    /// The server was ready, and settle and dwell time are over.
    Readiness,
    /// The server began again inside the container.
    Restart,
    /// The engine's stop signal.
    StopSignal,
    /// Process 1 is gone.
    ProcessGone,
    /// A person or a script, over the control socket.
    ByHand,
}

impl Cause {
    /// The name used in events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Cause::Execve => "execve",
            Cause::Readiness => "readiness",
            Cause::Restart => "restart",
            Cause::StopSignal => "stop signal",
            Cause::ProcessGone => "process gone",
            Cause::ByHand => "by hand",
        }
    }
}

/// What the daemon has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell that the phase changed, and by what.
    Changed {
        /// From here.
        from: Phase,
        /// To here.
        to: Phase,
        /// Why.
        cause: Cause,
    },
    /// Begin to ask the server whether it is ready.
    AskReadiness,
    /// Stop asking; an answer that comes later is ignored.
    EndReadiness,
    /// Tell that the dwell begins: what [`Life::preview`] denies is told, and goes on.
    BeginDwell {
        /// For so many milliseconds.
        dwell_ms: u64,
    },
    /// The dwell is over.
    EndDwell,
    /// The server may not begin again: no restart is left, or the container does not serve. Nothing has changed.
    RestartRefused,
}

/// A phase that cannot be entered by hand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ByHandError {
    /// The papers have not been checked.
    #[error("container is in its prelude, its papers are not checked yet")]
    NotAdmitted,
    /// The papers were not in order.
    #[error("container was refused, it has no phases")]
    Refused,
    /// An `exec` has one phase only.
    #[error("an exec stays in phase exec")]
    Exec,
    /// These are entered by events alone.
    #[error("phase {to} cannot be entered by hand, only startup, serving and stopping can")]
    NotByHand {
        /// The phase asked for.
        to: Phase,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Prelude,
    Asking,
    Quieting { until_ms: u64 },
    Settling { until_ms: u64 },
    Dwelling { until_ms: u64 },
    Held,
    Serving,
    Stopping,
    Exec,
    Refused,
}

/// The life of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    kind: Kind,
    state: State,
    /// How it comes to serve, from its admission on.
    readiness: Readiness,
    restarts_left: u32,
}

impl Life {
    /// A life that begins: the runtime has just handed over the listener.
    #[must_use]
    pub const fn new(kind: Kind) -> Life {
        Life {
            kind,
            state: State::Prelude,
            readiness: Readiness::ByHand,
            restarts_left: 0,
        }
    }

    /// What the listener was made for.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The phase by which a call is decided now. A refused listener stays in its prelude: nothing of it runs.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match self.state {
            State::Prelude | State::Refused => Phase::Prelude,
            State::Asking
            | State::Quieting { .. }
            | State::Settling { .. }
            | State::Dwelling { .. }
            | State::Held => Phase::Startup,
            State::Serving => Phase::Serving,
            State::Stopping => Phase::Stopping,
            State::Exec => Phase::Exec,
        }
    }

    /// While it dwells: the phase whose denials are told and not enforced.
    #[must_use]
    pub const fn preview(&self) -> Option<Phase> {
        match self.state {
            State::Dwelling { .. } => Some(Phase::Serving),
            _ => None,
        }
    }

    /// Whether it waits for a quiet time: only then [`Input::StartupCall`] means anything.
    #[must_use]
    pub const fn awaits_quiet(&self) -> bool {
        matches!(self.state, State::Quieting { .. })
    }

    /// How often the server may still begin again.
    #[must_use]
    pub const fn restarts_left(&self) -> u32 {
        self.restarts_left
    }

    /// When [`Input::Tick`] is due, in the caller's milliseconds.
    #[must_use]
    pub const fn deadline_ms(&self) -> Option<u64> {
        match self.state {
            State::Quieting { until_ms }
            | State::Settling { until_ms }
            | State::Dwelling { until_ms } => Some(until_ms),
            _ => None,
        }
    }

    /// Takes in what happened at `now_ms` and says what to do, in this order.
    ///
    /// An input that means nothing in the present state changes nothing: a second readiness answer, a stop signal
    /// during the prelude (the papers are checked all the same), a second decision at the first `execve`.
    ///
    /// # Errors
    /// Only for [`Input::ByHand`], when the phase cannot be entered; nothing has changed then.
    pub fn step(&mut self, input: Input, now_ms: u64) -> Result<Vec<Effect>, ByHandError> {
        use Input::{
            Admitted, NotReady, ProcessGone, Ready, Refused, Restarted, StartupCall, StopSignal,
            Tick,
        };
        let before = self.state;
        let (after, cause) = match (before, input) {
            (_, Input::ByHand(to)) => (by_hand(before, to)?, Cause::ByHand),
            (
                State::Prelude,
                Admitted {
                    readiness,
                    restarts,
                },
            ) => {
                let next = match self.kind {
                    Kind::Exec => State::Exec,
                    Kind::Container => {
                        self.readiness = readiness;
                        self.restarts_left = restarts;
                        self.start(now_ms)
                    }
                };
                (next, Cause::Execve)
            }
            (State::Prelude, Refused) => (State::Refused, Cause::Execve),
            (State::Asking, Ready) => (self.settle(now_ms), Cause::Readiness),
            (State::Quieting { .. }, StartupCall) => (self.start(now_ms), Cause::Readiness),
            (State::Quieting { until_ms }, Tick) if now_ms >= until_ms => {
                (self.settle(now_ms), Cause::Readiness)
            }
            (State::Settling { until_ms }, Tick) if now_ms >= until_ms => {
                (self.dwell(now_ms), Cause::Readiness)
            }
            (State::Dwelling { until_ms }, Tick) if now_ms >= until_ms => {
                (State::Serving, Cause::Readiness)
            }
            // a startup that only a person could end is no state to come back to by oneself
            (State::Serving, Restarted)
                if self.restarts_left > 0 && self.readiness != Readiness::ByHand =>
            {
                self.restarts_left -= 1; // above 0
                (self.start(now_ms), Cause::Restart)
            }
            (_, Restarted) => return Ok(Vec::from([Effect::RestartRefused])),
            (
                State::Asking
                | State::Quieting { .. }
                | State::Settling { .. }
                | State::Dwelling { .. }
                | State::Held
                | State::Serving,
                StopSignal | ProcessGone,
            ) => {
                let cause = match input {
                    StopSignal => Cause::StopSignal,
                    _ => Cause::ProcessGone,
                };
                (State::Stopping, cause)
            }
            (_, Admitted { .. } | Refused | Ready | NotReady | StartupCall | Tick) => {
                return Ok(Vec::new());
            }
            (
                State::Prelude | State::Stopping | State::Exec | State::Refused,
                StopSignal | ProcessGone,
            ) => return Ok(Vec::new()),
        };
        Ok(self.go(after, cause))
    }

    /// Where a startup begins.
    const fn start(&self, now_ms: u64) -> State {
        match self.readiness {
            Readiness::ByHand => State::Held,
            Readiness::Asked { .. } => State::Asking,
            Readiness::Quiet { quiet_ms, .. } => State::Quieting {
                until_ms: now_ms.saturating_add(quiet_ms),
            },
        }
    }

    /// Where it goes when the trigger has fired.
    const fn settle(&self, now_ms: u64) -> State {
        match self.readiness.settle_ms() {
            0 => self.dwell(now_ms),
            settle_ms => State::Settling {
                until_ms: now_ms.saturating_add(settle_ms),
            },
        }
    }

    /// Where it goes when the settle time is over.
    const fn dwell(&self, now_ms: u64) -> State {
        match self.readiness.dwell_ms() {
            0 => State::Serving,
            dwell_ms => State::Dwelling {
                until_ms: now_ms.saturating_add(dwell_ms),
            },
        }
    }

    /// Enters a state. Questions and dwell end before the phase changes, and begin after it.
    fn go(&mut self, after: State, cause: Cause) -> Vec<Effect> {
        let (before, from) = (self.state, self.phase());
        self.state = after;
        let to = self.phase();
        let dwells = |state| matches!(state, State::Dwelling { .. });
        let mut effects = Vec::new();
        if before == State::Asking && after != State::Asking {
            effects.push(Effect::EndReadiness);
        }
        if dwells(before) && !dwells(after) {
            effects.push(Effect::EndDwell);
        }
        if from != to {
            effects.push(Effect::Changed { from, to, cause });
        }
        if after == State::Asking && before != State::Asking {
            effects.push(Effect::AskReadiness);
        }
        if dwells(after) && !dwells(before) {
            let dwell_ms = self.readiness.dwell_ms();
            effects.push(Effect::BeginDwell { dwell_ms });
        }
        effects
    }
}

fn by_hand(state: State, to: Phase) -> Result<State, ByHandError> {
    match state {
        State::Prelude => Err(ByHandError::NotAdmitted),
        State::Refused => Err(ByHandError::Refused),
        State::Exec => Err(ByHandError::Exec),
        _ => match to {
            Phase::Startup => Ok(State::Held),
            Phase::Serving => Ok(State::Serving),
            Phase::Stopping => Ok(State::Stopping),
            Phase::Prelude | Phase::Exec => Err(ByHandError::NotByHand { to }),
        },
    }
}

#[cfg(test)]
mod tests;
