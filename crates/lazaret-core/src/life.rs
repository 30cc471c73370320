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
//! | startup, settling | it was ready once; the settle time runs | settle elapsed, stop, by hand |
//! | startup, held | no readiness is asked for: the policy has none, or somebody moved it here by hand | stop, by hand |
//! | serving | the server answers requests | stop, by hand |
//! | stopping | the stop signal was sent, or process 1 is gone | by hand, until process 1 is gone |
//! | exec | a process put in from outside, after its own first `execve` | never |
//! | refused | the papers were not in order; every `execve` fails | never |
//!
//! A listener whose processes are all gone is closed in any state; the caller then drops the `Life`.

use crate::phase::Phase;
use alloc::vec::Vec;

/// What a listener was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// The first fitting answer, and then this long.
    Asked {
        /// Milliseconds between the first fitting answer and serving.
        settle_ms: u64,
    },
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The papers were in order at the first `execve`.
    Admitted(Readiness),
    /// They were not.
    Refused,
    /// The server gave the answer that the policy names.
    Ready,
    /// It gave another answer, or none.
    NotReady,
    /// Time has passed.
    Tick,
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
    /// The server was ready and its settle time is over.
    Readiness,
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
    Asking { settle_ms: u64 },
    Settling { until_ms: u64 },
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
}

impl Life {
    /// A life that begins: the runtime has just handed over the listener.
    #[must_use]
    pub const fn new(kind: Kind) -> Life {
        Life {
            kind,
            state: State::Prelude,
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
            State::Asking { .. } | State::Settling { .. } | State::Held => Phase::Startup,
            State::Serving => Phase::Serving,
            State::Stopping => Phase::Stopping,
            State::Exec => Phase::Exec,
        }
    }

    /// When [`Input::Tick`] is due, in the caller's milliseconds.
    #[must_use]
    pub const fn deadline_ms(&self) -> Option<u64> {
        match self.state {
            State::Settling { until_ms } => Some(until_ms),
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
        let before = self.state;
        let (after, cause) = match (before, input) {
            (_, Input::ByHand(to)) => (by_hand(before, to)?, Cause::ByHand),
            (State::Prelude, Input::Admitted(readiness)) => {
                let next = match (self.kind, readiness) {
                    (Kind::Exec, _) => State::Exec,
                    (Kind::Container, Readiness::ByHand) => State::Held,
                    (Kind::Container, Readiness::Asked { settle_ms }) => {
                        State::Asking { settle_ms }
                    }
                };
                (next, Cause::Execve)
            }
            (State::Prelude, Input::Refused) => (State::Refused, Cause::Execve),
            (State::Asking { settle_ms: 0 }, Input::Ready) => (State::Serving, Cause::Readiness),
            (State::Asking { settle_ms }, Input::Ready) => {
                let until_ms = now_ms.saturating_add(settle_ms);
                (State::Settling { until_ms }, Cause::Readiness)
            }
            (State::Settling { until_ms }, Input::Tick) if now_ms >= until_ms => {
                (State::Serving, Cause::Readiness)
            }
            (
                State::Asking { .. } | State::Settling { .. } | State::Held | State::Serving,
                Input::StopSignal,
            ) => (State::Stopping, Cause::StopSignal),
            (
                State::Asking { .. } | State::Settling { .. } | State::Held | State::Serving,
                Input::ProcessGone,
            ) => (State::Stopping, Cause::ProcessGone),
            _ => return Ok(Vec::new()),
        };

        let from = self.phase();
        self.state = after;
        let to = self.phase();
        let mut effects = Vec::new();
        let asked = matches!(before, State::Asking { .. });
        let asks = matches!(after, State::Asking { .. });
        if asked && !asks {
            effects.push(Effect::EndReadiness);
        }
        if from != to {
            effects.push(Effect::Changed { from, to, cause });
        }
        if asks && !asked {
            effects.push(Effect::AskReadiness);
        }
        Ok(effects)
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
mod tests {
    use super::*;
    use alloc::vec;

    const STATES: [State; 8] = [
        State::Prelude,
        State::Asking { settle_ms: 10 },
        State::Settling { until_ms: 110 },
        State::Held,
        State::Serving,
        State::Stopping,
        State::Exec,
        State::Refused,
    ];

    fn changed(from: Phase, to: Phase, cause: Cause) -> Effect {
        Effect::Changed { from, to, cause }
    }

    /// Every state with one input: where it goes and what is to be done. `None`: nothing happens.
    fn check(input: Input, now_ms: u64, expected: [Option<(State, Vec<Effect>)>; 8]) {
        for (state, expected) in STATES.into_iter().zip(expected) {
            let kind = match state {
                State::Exec => Kind::Exec,
                _ => Kind::Container,
            };
            let mut life = Life { kind, state };
            let effects = life.step(input, now_ms);
            let (after, todo) = expected.unwrap_or((state, vec![]));
            assert_eq!(
                (life.state, effects),
                (after, Ok(todo)),
                "{state:?} {input:?}"
            );
        }
    }

    #[test]
    fn admitted_leaves_the_prelude_and_nothing_else() {
        use Phase::{Prelude, Startup};
        let asked = Readiness::Asked { settle_ms: 10 };
        let begin = vec![
            changed(Prelude, Startup, Cause::Execve),
            Effect::AskReadiness,
        ];
        let mut expected = [const { None }; 8];
        expected[0] = Some((State::Asking { settle_ms: 10 }, begin));
        check(Input::Admitted(asked), 100, expected);

        let mut expected = [const { None }; 8];
        expected[0] = Some((State::Held, vec![changed(Prelude, Startup, Cause::Execve)]));
        check(Input::Admitted(Readiness::ByHand), 100, expected);
    }

    #[test]
    fn refused_stays_in_the_prelude_for_ever() {
        let mut expected = [const { None }; 8];
        expected[0] = Some((State::Refused, vec![]));
        check(Input::Refused, 100, expected);

        let mut life = Life::new(Kind::Container);
        assert_eq!(life.step(Input::Refused, 0), Ok(vec![]));
        for input in [
            Input::Admitted(Readiness::ByHand),
            Input::Ready,
            Input::Tick,
            Input::StopSignal,
            Input::ProcessGone,
        ] {
            assert_eq!(life.step(input, u64::MAX), Ok(vec![]));
            assert_eq!(life.phase(), Phase::Prelude);
        }
    }

    #[test]
    fn first_fitting_answer_ends_the_asking_and_begins_to_settle() {
        let mut expected = [const { None }; 8];
        expected[1] = Some((
            State::Settling { until_ms: 110 },
            vec![Effect::EndReadiness],
        ));
        check(Input::Ready, 100, expected);
        check(Input::NotReady, 100, [const { None }; 8]);
    }

    #[test]
    fn serving_begins_when_the_settle_time_is_over_and_not_before() {
        check(Input::Tick, 109, [const { None }; 8]);
        let mut expected = [const { None }; 8];
        let effects = vec![changed(Phase::Startup, Phase::Serving, Cause::Readiness)];
        expected[2] = Some((State::Serving, effects));
        check(Input::Tick, 110, expected);
    }

    #[test]
    fn without_a_settle_time_the_first_answer_is_enough() {
        let mut life = Life::new(Kind::Container);
        let readiness = Readiness::Asked { settle_ms: 0 };
        assert!(life.step(Input::Admitted(readiness), 5).is_ok());
        let effects = vec![
            Effect::EndReadiness,
            changed(Phase::Startup, Phase::Serving, Cause::Readiness),
        ];
        assert_eq!(life.step(Input::Ready, 6), Ok(effects));
        assert_eq!(life.deadline_ms(), None);
    }

    #[test]
    fn stop_signal_and_the_end_of_process_1_lead_to_stopping() {
        use Phase::{Serving, Startup, Stopping};
        for (input, cause) in [
            (Input::StopSignal, Cause::StopSignal),
            (Input::ProcessGone, Cause::ProcessGone),
        ] {
            let startup = changed(Startup, Stopping, cause);
            let expected = [
                None,
                Some((State::Stopping, vec![Effect::EndReadiness, startup])),
                Some((State::Stopping, vec![startup])),
                Some((State::Stopping, vec![startup])),
                Some((State::Stopping, vec![changed(Serving, Stopping, cause)])),
                None,
                None,
                None,
            ];
            check(input, 100, expected);
        }
    }

    #[test]
    fn by_hand_moves_between_the_phases_of_an_admitted_container_only() {
        for state in STATES {
            for to in Phase::ALL {
                let mut life = Life {
                    kind: Kind::Container,
                    state,
                };
                let from = life.phase();
                let outcome = life.step(Input::ByHand(to), 100);
                let refused = match (state, to) {
                    (State::Prelude, _) => Some(ByHandError::NotAdmitted),
                    (State::Refused, _) => Some(ByHandError::Refused),
                    (State::Exec, _) => Some(ByHandError::Exec),
                    (_, Phase::Prelude | Phase::Exec) => Some(ByHandError::NotByHand { to }),
                    _ => None,
                };
                if let Some(error) = refused {
                    assert_eq!((outcome, life.state), (Err(error), state), "{state:?} {to}");
                    continue;
                }
                let mut expected = vec![];
                if matches!(state, State::Asking { .. }) {
                    expected.push(Effect::EndReadiness);
                }
                if from != to {
                    expected.push(changed(from, to, Cause::ByHand));
                }
                assert_eq!(
                    (outcome, life.phase()),
                    (Ok(expected), to),
                    "{state:?} {to}"
                );
                assert_eq!(life.deadline_ms(), None, "moved by hand, it stays there");
            }
        }
    }

    #[test]
    fn exec_has_a_prelude_and_one_phase() {
        let mut life = Life::new(Kind::Exec);
        assert_eq!(life.phase(), Phase::Prelude);
        let readiness = Readiness::Asked { settle_ms: 1 };
        let effects = vec![changed(Phase::Prelude, Phase::Exec, Cause::Execve)];
        assert_eq!(life.step(Input::Admitted(readiness), 0), Ok(effects));
        for input in [
            Input::Ready,
            Input::Tick,
            Input::StopSignal,
            Input::ProcessGone,
        ] {
            assert_eq!(life.step(input, u64::MAX), Ok(vec![]));
            assert_eq!(life.phase(), Phase::Exec);
        }
    }

    #[test]
    fn a_settle_time_at_the_end_of_time_does_not_wrap() {
        let mut life = Life::new(Kind::Container);
        let readiness = Readiness::Asked {
            settle_ms: u64::MAX,
        };
        assert!(life.step(Input::Admitted(readiness), 7).is_ok());
        assert_eq!(life.step(Input::Ready, 7), Ok(vec![Effect::EndReadiness]));
        assert_eq!(life.deadline_ms(), Some(u64::MAX));
    }
}
