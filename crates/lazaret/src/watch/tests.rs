//! The live table as text: recorded answers go in, buffers of a screen come out.

use super::draw::draw;
use super::state::{Colour, Feed, Key, State, Then};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};

/// Answers of a gate, in their order.
const SESSION: &str = include_str!("data/session.jsonl");

/// Its answer about `hapi`'s denials.
const DRIFT: &str = include_str!("data/drift.json");

fn feed(line: &str) -> Feed {
    Feed::Reply(serde_json::from_str(line).expect("an answer"))
}

/// The session, whose two status answers are two seconds apart.
fn session(colour: Colour) -> State {
    let mut state = State::new(colour);
    let last = SESSION.lines().count() - 1;
    for (at, line) in SESSION.lines().enumerate() {
        state.apply(feed(line), if at == last { 3_000 } else { 1_000 });
    }
    state
}

fn screen(state: &State, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen");
    terminal.draw(|frame| draw(state, frame)).expect("drawn");
    terminal.backend().buffer().clone()
}

fn text(state: &State, width: u16, height: u16) -> String {
    let buffer = screen(state, width, height);
    let mut text = String::new();
    for y in 0..height {
        let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[track_caller]
fn check(state: &State, width: u16, height: u16, expected: &str) {
    let text = text(state, width, height);
    assert_eq!(text, expected.trim_start_matches('\n'), "it is\n{text}");
}

fn press(state: &mut State, keys: &[Key]) {
    for key in keys {
        assert_eq!(state.press(*key), Then::Stay);
    }
}

#[test]
fn a_wide_screen_shows_all() {
    let expected = "
lazaret watch  lazaretd 0.1.0  4 containers
container                    id           phase             mode    revision       asked/s allowed/s denied/s     asked   allowed   denied permits execs
555555555555                 555555555555 unsupervised
hapi                         111111111111 serving           enforce 4 kernel 3 +2       15         9        6       230       208       22       1     1
imaging                      777777777777 papers lost
lab-gateway                  333333333333 startup → serving observe 3                    0         0        0         5         5        0       0     0
Denials since this table was opened (UTC)
23:59:53 lab-gateway would deny 2× socket(family = AF_INET6, type = SOCK_STREAM)  nginx in serving
    missing: - {allow: [socket], during: [serving], when: [{arg: domain, in: [AF_INET6]}]}
23:59:51 hapi denied 12× mkdir(pathname = 0x1000, mode = 493)  java in serving
    missing: - {allow: [mkdir], during: [serving]}




? help  q quit  ⏎ details  / filter  s sort (name)
";
    check(&session(Colour::Yes), 152, 16, expected);
}

#[test]
fn a_usual_screen_shows_what_matters_most() {
    let expected = "
lazaret watch  lazaretd 0.1.0  4 containers
container     phase             mode    revision       asked/s denied/s   denied
555555555555  unsupervised
hapi          serving           enforce 4 kernel 3 +2       15        6       22
imaging       papers lost
lab-gateway   startup → serving observe 3                    0        0        0
Denials since this table was opened (UTC)
23:59:53 lab-gateway would deny 2× socket(family = AF_INET6, type = SOCK_STREAM)
    missing: - {allow: [socket], during: [serving], when: [{arg: domain, in: [AF
23:59:51 hapi denied 12× mkdir(pathname = 0x1000, mode = 493)  java in serving
    missing: - {allow: [mkdir], during: [serving]}
? help  q quit  ⏎ details  / filter  s sort (name)
";
    check(&session(Colour::Yes), 80, 12, expected);
}

#[test]
fn a_tiny_screen_shows_the_table() {
    let expected = "
lazaret watch  lazaretd 0.1.0  4 contain
container     phase             denied/s
555555555555  unsupervised
hapi          serving                  6
imaging       papers lost
lab-gateway   startup → serving        0



? help  q quit  ⏎ details  / filter  s s
";
    check(&session(Colour::Yes), 40, 10, expected);
}

#[test]
fn no_size_of_screen_and_no_key_is_too_much() {
    use Key::{Backspace, Char, Down, Enter, Escape, First, Last, PageDown, PageUp, Up};
    let keys = [
        Down,
        Char('?'),
        Escape,
        Char('/'),
        Char('é'),
        Backspace,
        Enter,
        Char('s'),
        Last,
        Enter,
        PageDown,
        Down,
        Last,
        Char(' '),
        Up,
        PageUp,
        First,
        Escape,
        Char(' '),
        Escape,
        Char('s'),
        Char('s'),
        Char('s'),
        Char('s'),
        Down,
        Enter,
    ];
    let mut state = session(Colour::Yes);
    for key in keys {
        assert_eq!(state.press(key), Then::Stay);
        for width in [1, 2, 5, 12, 40, 80, 300] {
            for height in [1, 2, 3, 4, 8, 10, 24, 100] {
                screen(&state, width, height);
            }
        }
    }
    screen(&State::new(Colour::No), 40, 10);
}

#[test]
fn details_are_the_status_and_every_denial_since_the_gate_began() {
    let mut state = session(Colour::Yes);
    press(&mut state, &[Key::Down, Key::Down, Key::Enter]);
    assert_eq!(state.asks_about().as_deref(), Some("1111111111112222"));
    assert!(text(&state, 120, 40).contains("the gate has not told yet"));
    state.apply(feed(DRIFT), 4_000);
    let shown = text(&state, 120, 40);
    for part in [
        "hapi (111111111111)",
        "in kernel  fhir revision 3",
        "until restart: kill mkdir",
        "permits    sha256:9999",
        "denied 12× mkdir(pathname = 0x1000, mode = 493)  java in serving",
        "missing: - {allow: [mkdir], during: [serving]}",
        "revision 4 in force",
    ] {
        assert!(shown.contains(part), "`{part}` is not in\n{shown}");
    }
    // an answer about another container is none about this
    state.apply(feed(&DRIFT.replace("1111111111112222", "33")), 4_000);
    assert!(text(&state, 120, 40).contains("12× mkdir"));
    press(&mut state, &[Key::Last]);
    assert!(
        !text(&state, 120, 40).contains("hapi (111111111111)"),
        "it scrolls"
    );
    press(&mut state, &[Key::Escape]);
    assert_eq!(state.asks_about(), None);
}

#[test]
fn a_gate_that_is_away_leaves_its_last_state_dimmed() {
    let mut state = session(Colour::Yes);
    state.apply(Feed::Away("the gate hung up".to_string()), 4_000);
    state.apply(Feed::Away("cannot reach the gate".to_string()), 5_000);
    state.tick(9_000);
    let shown = text(&state, 80, 12);
    assert!(
        shown.contains("GATE AWAY for 5 s: cannot reach the gate"),
        "{shown}"
    );
    assert!(shown.contains("hapi "), "{shown}");
    let buffer = screen(&state, 80, 12);
    let dim = |y: u16| buffer[(0, y)].modifier.contains(Modifier::DIM);
    assert!((1..6).all(dim), "rows are dimmed");
    // rates of the time in between would be wrong
    state.apply(feed(SESSION.lines().next().expect("a line")), 9_500);
    let shown = text(&state, 80, 12);
    assert!(!shown.contains("AWAY"), "{shown}");
    assert!(
        shown.contains("4 kernel 3 +2        -        -       10"),
        "{shown}"
    );
    assert!(
        !screen(&state, 80, 12)[(0, 3)]
            .modifier
            .contains(Modifier::DIM)
    );
}

#[test]
fn counts_that_begin_anew_have_no_rate() {
    let mut state = session(Colour::Yes);
    state.apply(feed(SESSION.lines().next().expect("a line")), 4_000);
    assert!(text(&state, 80, 12).contains("4 kernel 3 +2        -        -       10"));
    // the same moment: nothing to divide by
    state.apply(feed(SESSION.lines().last().expect("a line")), 4_000);
    assert!(text(&state, 80, 12).contains("4 kernel 3 +2        -        -       22"));
}

#[test]
fn a_pause_holds_the_picture_and_nothing_is_lost_by_it() {
    let mut state = session(Colour::Yes);
    press(&mut state, &[Key::Char(' ')]);
    state.apply(feed(SESSION.lines().nth(1).expect("a line")), 4_000);
    let shown = text(&state, 80, 12);
    assert!(
        shown.contains("PAUSED") && shown.contains("denied 12× mkdir"),
        "{shown}"
    );
    press(&mut state, &[Key::Char(' ')]);
    let shown = text(&state, 80, 12);
    assert!(
        !shown.contains("PAUSED") && shown.contains("denied 13× mkdir"),
        "{shown}"
    );
}

#[test]
fn rows_are_filtered_and_sorted() {
    let names = |state: &State| -> Vec<String> {
        state
            .rows()
            .iter()
            .map(|row| row.status.name.clone())
            .collect()
    };
    let mut state = session(Colour::Yes);
    assert_eq!(names(&state), ["", "hapi", "imaging", "lab-gateway"]);
    press(&mut state, &[Key::Char('s'), Key::Char('s')]);
    assert_eq!(names(&state)[0], "hapi", "by denials in a second");
    for (typed, expected) in [
        ("LAB", vec!["lab-gateway"]),
        ("observe", vec!["lab-gateway"]),
        ("unsup", vec![""]),
        ("7777", vec!["imaging"]),
        ("serving", vec!["hapi"]),
        ("none such", vec![]),
    ] {
        press(&mut state, &[Key::Char('/')]);
        for one in typed.chars() {
            press(&mut state, &[Key::Char(one)]);
        }
        press(&mut state, &[Key::Enter]);
        assert_eq!(names(&state), expected, "{typed}");
        press(&mut state, &[Key::Escape]);
    }
    assert_eq!(names(&state).len(), 4);
    assert_eq!(state.press(Key::Char('q')), Then::Quit);
    press(&mut state, &[Key::Char('/'), Key::Char('q')]);
    assert_eq!(
        state.press(Key::Interrupt),
        Then::Interrupted,
        "also while typing"
    );
}

#[test]
fn there_is_no_colour_where_none_is_wanted() {
    let colours = |colour| {
        let buffer = screen(&session(colour), 80, 24);
        buffer
            .content
            .iter()
            .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(colours(Colour::Yes));
    assert!(!colours(Colour::No));
}

#[test]
fn names_from_containers_steer_no_terminal() {
    let mut state = State::new(Colour::Yes);
    let hostile = SESSION
        .replace("\"java\"", "\"a\\u001b[2J\\u202e\"")
        .replace("\"hapi\"", "\"b\\u0007\\n\"");
    for line in hostile.lines() {
        state.apply(feed(line), 1_000);
    }
    let shown = text(&state, 120, 24);
    assert!(shown.contains("a\\u{1b}[2J\\u{202e} in serving"), "{shown}");
    assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{shown}");
}

#[test]
fn many_kinds_of_denials_stay_within_bounds() {
    let mut state = State::new(Colour::Yes);
    let denied = SESSION.lines().nth(1).expect("a line");
    for at in 0..2_000 {
        state.apply(
            feed(&denied.replace("\"java\"", &format!("\"p{at}\""))),
            1_000,
        );
    }
    assert_eq!(state.model().denials.len(), 512);
    assert!(
        text(&state, 120, 24).contains("p1999 in serving"),
        "the last one is first"
    );
}
