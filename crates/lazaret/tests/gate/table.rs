//! The live table in a real terminal: keys, a gate that goes and comes back, and the terminal as it was afterwards.

use crate::fake::{Gate, ID, Play, denied, drift, event, status};
use crate::pty::Terminal;
use rustix::process::Signal;
use serde_json::json;

fn scenario() -> Vec<(&'static str, Vec<Play>)> {
    vec![
        (
            "status",
            vec![Play::Say(vec![status(10)]), Play::Say(vec![status(22)])],
        ),
        (
            "watch",
            vec![Play::Say(vec![
                json!({"type": "watching", "v": 1}),
                event(&denied(12, "mkdir", 83)),
            ])],
        ),
        (
            "drift",
            vec![Play::Say(vec![
                json!({"type": "drift", "v": 1, "drift": [drift(34, "rmdir", 84)]}),
            ])],
        ),
    ]
}

fn table(gate: &Gate) -> Terminal {
    Terminal::run(gate.command(&["watch"]), 100, 30)
}

#[test]
fn keys_do_what_the_help_says_and_q_gives_the_terminal_back() {
    let gate = Gate::plays(scenario());
    let mut terminal = table(&gate);
    terminal.until("hapi");
    terminal.until("12× mkdir(pathname = 0x1000, mode = 493)");
    let shown = terminal.until("missing: - {allow: [mkdir], during: [serving]}");
    assert!(shown.contains("4 kernel 3 +1"), "{shown}");
    assert!(terminal.is_taken());
    // twelve more in a second
    terminal.until(" 22 ");
    terminal.press("?");
    terminal.until("choose a container");
    terminal.press("x");
    terminal.press("/zzz\r");
    terminal.until("0 of 1 containers");
    terminal.press("\x1b");
    // an Escape and what follows at once would be one key
    terminal.until("0.0.9  1 containers");
    terminal.press("\r");
    terminal.until("34× rmdir(");
    let asked = json!({"type": "drift", "v": 1, "container": ID});
    assert!(gate.requests().contains(&asked));
    terminal.press("\x1b");
    terminal.until("s sort (name)");
    terminal.press("s ");
    terminal.until("s sort (phase)");
    terminal.until("PAUSED");
    terminal.resize(40, 10);
    // the last line was cut off with the others: it is drawn anew, ten lines high
    terminal.until("? help");
    terminal.press("q");
    assert_eq!(terminal.end().code(), Some(0));
    terminal.check_as_before();
    assert!(
        !terminal.shown().contains("hapi"),
        "nothing stays on the screen"
    );
}

#[test]
fn ctrl_c_and_signals_give_the_terminal_back() {
    for signal in [
        None,
        Some(Signal::TERM),
        Some(Signal::HUP),
        Some(Signal::INT),
    ] {
        let gate = Gate::plays(scenario());
        let mut terminal = table(&gate);
        terminal.until("hapi");
        assert!(terminal.is_taken());
        match signal {
            None => terminal.press("\x03"),
            Some(signal) => terminal.signal(signal),
        }
        assert_eq!(terminal.end().code(), Some(130), "{signal:?}");
        terminal.check_as_before();
    }
}

#[test]
fn a_gate_that_is_restarted_comes_back() {
    let gate = Gate::plays(scenario());
    let mut terminal = table(&gate);
    terminal.until("hapi");
    gate.goes();
    let shown = terminal.until("GATE AWAY");
    assert!(
        shown.contains("hapi"),
        "the last known state stays:\n{shown}"
    );
    let mut newer = status(30);
    newer["version"] = json!("0.1.7");
    let mut scenario = scenario();
    scenario[0] = ("status", vec![Play::Say(vec![newer])]);
    gate.listen(scenario);
    let shown = terminal.until("lazaretd 0.1.7");
    assert!(!shown.contains("GATE AWAY"), "{shown}");
    // its events too
    terminal.until("24×");
    terminal.press("q");
    assert_eq!(terminal.end().code(), Some(0));
}

#[test]
fn no_gate_is_waited_for_on_a_terminal() {
    let gate = Gate::plays(scenario());
    gate.goes();
    let mut terminal = table(&gate);
    terminal.until("GATE AWAY");
    gate.listen(scenario());
    terminal.until("hapi");
    terminal.press("q");
    assert_eq!(terminal.end().code(), Some(0));
}

#[test]
fn lines_are_wanted_on_a_terminal_too() {
    let gate = Gate::plays(scenario());
    let mut terminal = Terminal::run(gate.command(&["watch", "--plain"]), 200, 10);
    terminal.until("denied mkdir(");
    assert!(!terminal.is_taken());
    terminal.signal(Signal::INT);
    assert_eq!(terminal.end().code(), Some(130));
}

#[test]
fn colours_are_used_unless_unwanted() {
    // how crossterm writes the foreground colours of a palette (38 of SGR, ISO 8613-6)
    let coloured = |raw: &str| raw.contains("\x1b[38;5;");
    let gate = Gate::plays(scenario());
    let mut terminal = table(&gate);
    terminal.until("12× mkdir");
    assert!(coloured(&terminal.raw()), "{:?}", terminal.raw());
    let mut command = gate.command(&["watch"]);
    command.env("NO_COLOR", "1");
    let mut terminal = Terminal::run(command, 100, 30);
    terminal.until("12× mkdir");
    assert!(!coloured(&terminal.raw()), "{:?}", terminal.raw());
}

#[test]
fn a_key_that_comes_with_a_change_of_size_is_not_lost() {
    let gate = Gate::plays(scenario());
    let mut terminal = table(&gate);
    terminal.until("hapi");
    for (turn, (key, opens)) in [("?", true), ("x", false)]
        .repeat(200)
        .into_iter()
        .enumerate()
    {
        terminal.resize(if turn % 2 == 0 { 90 } else { 91 }, 30);
        terminal.press(key);
        if opens {
            terminal.until("choose a container");
        } else {
            terminal.until_not("choose a container");
        }
    }
    terminal.press("q");
    assert_eq!(terminal.end().code(), Some(0));
}
