//! The machine as a table: every state with every input.

use super::*;
use crate::phase::Phase::{Prelude, Serving, Startup, Stopping};
use alloc::vec;

/// Every state; the times are those of [`ASKED`] and [`QUIET`] at 100 ms.
const STATES: [State; 10] = [
    State::Prelude,
    State::Asking,
    State::Quieting { until_ms: 120 },
    State::Settling { until_ms: 110 },
    State::Dwelling { until_ms: 130 },
    State::Held,
    State::Serving,
    State::Stopping,
    State::Exec,
    State::Refused,
];

const ASKED: Readiness = Readiness::Asked {
    settle_ms: 10,
    dwell_ms: 30,
};

const QUIET: Readiness = Readiness::Quiet {
    quiet_ms: 20,
    settle_ms: 10,
    dwell_ms: 30,
};

type Row = Option<(State, Vec<Effect>)>;

fn changed(from: Phase, to: Phase, cause: Cause) -> Effect {
    Effect::Changed { from, to, cause }
}

fn admitted(readiness: Readiness, restarts: u32) -> Input {
    Input::Admitted {
        readiness,
        restarts,
    }
}

fn life(state: State, readiness: Readiness, restarts_left: u32) -> Life {
    Life {
        kind: match state {
            State::Exec => Kind::Exec,
            _ => Kind::Container,
        },
        state,
        readiness,
        restarts_left,
    }
}

/// Every state with one input: where it goes and what is to be done. States that are not named: nothing happens.
fn check(readiness: Readiness, input: Input, now_ms: u64, named: &[(State, State, Vec<Effect>)]) {
    for state in STATES {
        let row: Row = named
            .iter()
            .find(|(from, _, _)| *from == state)
            .map(|(_, to, effects)| (*to, effects.clone()));
        let mut life = life(state, readiness, 2);
        let effects = life.step(input, now_ms);
        let (after, todo) = row.unwrap_or((state, vec![]));
        assert_eq!(
            (life.state, effects),
            (after, Ok(todo)),
            "{state:?} {input:?} {readiness:?}"
        );
    }
}

#[test]
fn admitted_leaves_the_prelude_and_nothing_else() {
    let begin = || changed(Prelude, Startup, Cause::Execve);
    for (readiness, to, effects) in [
        (ASKED, State::Asking, vec![begin(), Effect::AskReadiness]),
        (QUIET, State::Quieting { until_ms: 120 }, vec![begin()]),
        (Readiness::ByHand, State::Held, vec![begin()]),
    ] {
        let input = admitted(readiness, 7);
        check(readiness, input, 100, &[(State::Prelude, to, effects)]);
        let mut life = Life::new(Kind::Container);
        assert!(life.step(input, 100).is_ok());
        assert_eq!(life.restarts_left(), 7);
        // a second decision at a first `execve` brings no restarts either
        assert_eq!(life.step(admitted(readiness, 9), 100), Ok(vec![]));
        assert_eq!(life.restarts_left(), 7);
    }
}

#[test]
fn refused_stays_in_the_prelude_for_ever() {
    check(
        ASKED,
        Input::Refused,
        100,
        &[(State::Prelude, State::Refused, vec![])],
    );

    let mut life = Life::new(Kind::Container);
    assert_eq!(life.step(Input::Refused, 0), Ok(vec![]));
    for input in [
        admitted(ASKED, 1),
        Input::Ready,
        Input::StartupCall,
        Input::Tick,
        Input::StopSignal,
        Input::ProcessGone,
    ] {
        assert_eq!(life.step(input, u64::MAX), Ok(vec![]));
        assert_eq!(life.phase(), Prelude);
    }
}

#[test]
fn first_fitting_answer_ends_the_asking_and_begins_to_settle() {
    let settling = State::Settling { until_ms: 110 };
    let ends = vec![Effect::EndReadiness];
    check(ASKED, Input::Ready, 100, &[(State::Asking, settling, ends)]);
    check(ASKED, Input::NotReady, 100, &[]);
}

#[test]
fn a_startup_call_begins_the_quiet_time_again_and_matters_to_nobody_else() {
    let again = State::Quieting { until_ms: 139 };
    let from = State::Quieting { until_ms: 120 };
    check(QUIET, Input::StartupCall, 119, &[(from, again, vec![])]);
    for state in STATES {
        assert_eq!(
            life(state, QUIET, 0).awaits_quiet(),
            state == from,
            "{state:?}"
        );
    }
}

#[test]
fn times_end_when_they_are_over_and_not_before() {
    let begins = Effect::BeginDwell { dwell_ms: 30 };
    let serving = vec![
        Effect::EndDwell,
        changed(Startup, Serving, Cause::Readiness),
    ];
    let settled = |now: u64| {
        (
            State::Settling { until_ms: 110 },
            State::Dwelling { until_ms: now + 30 },
            vec![begins],
        )
    };
    let quiet = |now: u64| {
        (
            State::Quieting { until_ms: 120 },
            State::Settling { until_ms: now + 10 },
            vec![],
        )
    };
    let dwelt = (
        State::Dwelling { until_ms: 130 },
        State::Serving,
        serving.clone(),
    );
    for (now, rows) in [
        (0, vec![]),
        (109, vec![]),
        (110, vec![settled(110)]),
        (119, vec![settled(119)]),
        (120, vec![settled(120), quiet(120)]),
        (129, vec![settled(129), quiet(129)]),
        (130, vec![settled(130), quiet(130), dwelt.clone()]),
        (9999, vec![settled(9999), quiet(9999), dwelt.clone()]),
    ] {
        check(QUIET, Input::Tick, now, &rows);
    }
}

#[test]
fn times_of_zero_are_skipped() {
    let through = changed(Startup, Serving, Cause::Readiness);
    for (settle_ms, dwell_ms, state, effects) in [
        (0, 0, State::Serving, vec![Effect::EndReadiness, through]),
        (
            0,
            5,
            State::Dwelling { until_ms: 11 },
            vec![Effect::EndReadiness, Effect::BeginDwell { dwell_ms: 5 }],
        ),
        (
            7,
            0,
            State::Settling { until_ms: 13 },
            vec![Effect::EndReadiness],
        ),
    ] {
        let readiness = Readiness::Asked {
            settle_ms,
            dwell_ms,
        };
        let mut life = life(State::Asking, readiness, 0);
        assert_eq!(life.step(Input::Ready, 6), Ok(effects));
        assert_eq!(life.state, state);
    }
    let readiness = Readiness::Asked {
        settle_ms: 7,
        dwell_ms: 0,
    };
    let mut life = life(State::Settling { until_ms: 13 }, readiness, 0);
    assert_eq!(life.step(Input::Tick, 13), Ok(vec![through]));
}

#[test]
fn while_it_dwells_startup_decides_and_serving_is_shown() {
    for state in STATES {
        let life = life(state, ASKED, 0);
        let dwells = matches!(state, State::Dwelling { .. });
        assert_eq!(life.preview().is_some(), dwells, "{state:?}");
        if dwells {
            assert_eq!((life.phase(), life.preview()), (Startup, Some(Serving)));
        }
    }
}

#[test]
fn stop_signal_and_the_end_of_process_1_lead_to_stopping() {
    for (input, cause) in [
        (Input::StopSignal, Cause::StopSignal),
        (Input::ProcessGone, Cause::ProcessGone),
    ] {
        let stops = changed(Startup, Stopping, cause);
        let rows = [
            (State::Asking, vec![Effect::EndReadiness, stops]),
            (State::Quieting { until_ms: 120 }, vec![stops]),
            (State::Settling { until_ms: 110 }, vec![stops]),
            (
                State::Dwelling { until_ms: 130 },
                vec![Effect::EndDwell, stops],
            ),
            (State::Held, vec![stops]),
            (State::Serving, vec![changed(Serving, Stopping, cause)]),
        ];
        let rows = rows.map(|(from, effects)| (from, State::Stopping, effects));
        check(ASKED, input, 100, &rows);
    }
}

#[test]
fn a_server_begins_again_from_serving_as_often_as_it_may() {
    let again = changed(Serving, Startup, Cause::Restart);
    for (readiness, to, effects) in [
        (ASKED, State::Asking, vec![again, Effect::AskReadiness]),
        (QUIET, State::Quieting { until_ms: 120 }, vec![again]),
    ] {
        for state in STATES {
            let mut life = life(state, readiness, 2);
            let outcome = life.step(Input::Restarted, 100);
            if state == State::Serving {
                assert_eq!((outcome, life.state), (Ok(effects.clone()), to));
                assert_eq!(life.restarts_left(), 1);
            } else {
                let refused = Ok(vec![Effect::RestartRefused]);
                assert_eq!((outcome, life.state), (refused, state), "{state:?}");
                assert_eq!(life.restarts_left(), 2);
            }
        }
    }
    let mut life = life(State::Serving, ASKED, 1);
    for (input, now_ms) in [
        (Input::Restarted, 0),
        (Input::Ready, 0),
        (Input::Tick, 10),
        (Input::Tick, 40),
    ] {
        assert!(life.step(input, now_ms).is_ok());
    }
    assert_eq!((life.phase(), life.restarts_left()), (Serving, 0));
    let refused = Ok(vec![Effect::RestartRefused]);
    assert_eq!(life.step(Input::Restarted, 50), refused);
    assert_eq!(life.phase(), Serving);
}

#[test]
fn without_a_trigger_nothing_comes_back_to_startup_by_itself() {
    let mut life = life(State::Serving, Readiness::ByHand, 5);
    let refused = Ok(vec![Effect::RestartRefused]);
    assert_eq!(life.step(Input::Restarted, 0), refused);
    assert_eq!((life.phase(), life.restarts_left()), (Serving, 5));
}

#[test]
fn by_hand_moves_between_the_phases_of_an_admitted_container_only() {
    for state in STATES {
        for to in Phase::ALL {
            let mut life = life(state, ASKED, 2);
            let from = life.phase();
            let outcome = life.step(Input::ByHand(to), 100);
            let refused = match (state, to) {
                (State::Prelude, _) => Some(ByHandError::NotAdmitted),
                (State::Refused, _) => Some(ByHandError::Refused),
                (State::Exec, _) => Some(ByHandError::Exec),
                (_, Prelude | Phase::Exec) => Some(ByHandError::NotByHand { to }),
                _ => None,
            };
            if let Some(error) = refused {
                assert_eq!((outcome, life.state), (Err(error), state), "{state:?} {to}");
                continue;
            }
            let mut expected = vec![];
            if state == State::Asking {
                expected.push(Effect::EndReadiness);
            }
            if matches!(state, State::Dwelling { .. }) {
                expected.push(Effect::EndDwell);
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
            assert_eq!(life.preview(), None);
        }
    }
}

#[test]
fn exec_has_a_prelude_and_one_phase() {
    let mut life = Life::new(Kind::Exec);
    assert_eq!(life.phase(), Prelude);
    let effects = vec![changed(Prelude, Phase::Exec, Cause::Execve)];
    assert_eq!(life.step(admitted(ASKED, 3), 0), Ok(effects));
    for input in [
        Input::Ready,
        Input::StartupCall,
        Input::Tick,
        Input::StopSignal,
        Input::ProcessGone,
    ] {
        assert_eq!(life.step(input, u64::MAX), Ok(vec![]));
        assert_eq!(life.phase(), Phase::Exec);
    }
    assert_eq!(life.restarts_left(), 0);
}

#[test]
fn times_at_the_end_of_time_do_not_wrap() {
    let readiness = Readiness::Quiet {
        quiet_ms: u64::MAX,
        settle_ms: u64::MAX,
        dwell_ms: u64::MAX,
    };
    let mut life = Life::new(Kind::Container);
    assert!(life.step(admitted(readiness, 0), 7).is_ok());
    for input in [Input::StartupCall, Input::Tick, Input::Tick] {
        assert_eq!(life.deadline_ms(), Some(u64::MAX));
        assert!(life.step(input, u64::MAX).is_ok());
    }
    assert_eq!(life.preview(), Some(Serving));
    assert_eq!(life.deadline_ms(), Some(u64::MAX));
}

#[test]
fn a_life_goes_on_under_the_next_daemon() {
    let begins = Effect::BeginDwell { dwell_ms: 30 };
    let asks = vec![Effect::AskReadiness];
    let quieting = State::Quieting { until_ms: 27 };
    for (readiness, state, to, effects) in [
        (ASKED, State::Prelude, State::Prelude, vec![]),
        (ASKED, State::Asking, State::Asking, asks.clone()),
        (ASKED, STATES[3], State::Asking, asks.clone()),
        (
            ASKED,
            STATES[4],
            State::Dwelling { until_ms: 37 },
            vec![begins],
        ),
        (ASKED, State::Held, State::Held, vec![]),
        (ASKED, State::Serving, State::Serving, vec![]),
        (ASKED, State::Stopping, State::Stopping, vec![]),
        (ASKED, State::Exec, State::Exec, vec![]),
        (ASKED, State::Refused, State::Refused, vec![]),
        (QUIET, STATES[2], quieting, vec![]),
        (QUIET, STATES[3], quieting, vec![]),
        // the policy in force is another one than that of before
        (QUIET, State::Asking, quieting, vec![]),
        (ASKED, STATES[2], State::Asking, asks),
        (Readiness::ByHand, State::Asking, State::Held, vec![]),
        (
            Readiness::ByHand,
            STATES[4],
            State::Serving,
            vec![changed(Startup, Serving, Cause::Readiness)],
        ),
    ] {
        let before = life(state, readiness, 3);
        let line = serde_json::to_string(&before.save()).expect("JSON");
        let saved: SavedLife = serde_json::from_str(&line).expect("as it was written");
        let (after, todo) = Life::resume(before.kind, saved, readiness, 7);
        assert_eq!(
            (after.state, todo),
            (to, effects),
            "{state:?} {readiness:?}"
        );
        assert_eq!(after.restarts_left(), 3);
        assert_eq!(saved.phase(), before.phase());
        assert!(
            after.phase() == before.phase() || after.phase() == Serving,
            "{state:?}: never laxer"
        );
    }
}

#[test]
fn a_saved_life_is_these_words() {
    for (state, line) in STATES.into_iter().zip([
        r#"{"state":"prelude","restarts_left":2}"#,
        r#"{"state":"asking","restarts_left":2}"#,
        r#"{"state":"quieting","restarts_left":2}"#,
        r#"{"state":"settling","restarts_left":2}"#,
        r#"{"state":"dwelling","restarts_left":2}"#,
        r#"{"state":"held","restarts_left":2}"#,
        r#"{"state":"serving","restarts_left":2}"#,
        r#"{"state":"stopping","restarts_left":2}"#,
        r#"{"state":"exec","restarts_left":2}"#,
        r#"{"state":"refused","restarts_left":2}"#,
    ]) {
        let saved = life(state, ASKED, 2).save();
        assert_eq!(serde_json::to_string(&saved).ok().as_deref(), Some(line));
        assert_eq!(serde_json::from_str(line).ok(), Some(saved));
    }
    for line in [
        "{}",
        r#"{"state":"serving"}"#,
        r#"{"state":"running","restarts_left":2}"#,
        r#"{"state":"serving","restarts_left":2,"more":1}"#,
    ] {
        assert!(serde_json::from_str::<SavedLife>(line).is_err(), "{line}");
    }
}

#[test]
fn a_damaged_record_is_held_to_the_strictest() {
    let exec = life(State::Exec, ASKED, 0).save();
    let (container, effects) = Life::resume(Kind::Container, exec, ASKED, 0);
    assert_eq!((container.phase(), effects), (Serving, vec![]));
    for state in [State::Asking, State::Dwelling { until_ms: 1 }, State::Held] {
        let saved = life(state, ASKED, 0).save();
        let (exec, effects) = Life::resume(Kind::Exec, saved, ASKED, 0);
        assert_eq!((exec.phase(), effects), (Phase::Exec, vec![]));
    }
}
