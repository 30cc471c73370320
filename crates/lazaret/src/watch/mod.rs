//! `lazaret watch`: a live table on a terminal, else one line per event.
//!
//! What is known is [`state`], how it looks is [`draw`]; both are pure. This file joins them with the gate ([`feed`]), the
//! terminal ([`screen`]) and its keys.

mod columns;
mod details;
mod draw;
mod feed;
mod lines;
pub(crate) mod rule;
pub(crate) mod screen;
mod state;
#[cfg(test)]
mod tests;

use crate::args::{Format, WatchArgs};
use crate::exit::{Exit, OrExit, Outcome, fail};
use anyhow::Context as _;
use crossterm::event::{self, Event as Input, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use state::{Colour, Key, State, Then};
use std::io::IsTerminal as _;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

/// How long a key waits at most for news, and news for a key.
const TURN: Duration = Duration::from_millis(100);

/// How many pieces of news are taken in before the next drawing.
const AT_ONCE: usize = 4_096;

/// `lazaret watch`
///
/// # Errors
/// Exit 3 when the gate cannot be reached or (lines) hangs up, or the terminal cannot be used.
pub fn main(args: &WatchArgs, format: Format) -> Outcome {
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if args.plain || format == Format::Json || !terminal {
        return lines::main(&args.control, format);
    }
    table(args)
        .context("live table")
        .or_exit(Exit::HostCannot)?
        .map_or_else(
            || fail(Exit::HostCannot, "live table: its threads ended"),
            Ok,
        )
}

/// Until a key ends it; `None` when nothing feeds it any more.
fn table(args: &WatchArgs) -> anyhow::Result<Option<Exit>> {
    let colour = match std::env::var_os("NO_COLOR") {
        Some(value) if !value.is_empty() => Colour::No,
        _ => Colour::Yes,
    };
    let began = Instant::now();
    // a session is far shorter than 2^64 milliseconds
    let now_ms = || began.elapsed().as_millis() as u64;
    let asked = feed::Asked::default();
    let feeds = feed::start(args.control.control.clone(), asked.clone())?;
    let mut state = State::new(colour);
    let mut screen = screen::Screen::take()?;
    loop {
        state.tick(now_ms());
        screen.draw(|frame| draw::draw(&state, frame))?;
        if event::poll(TURN)?
            && let Some(key) = key(&event::read()?)
        {
            match state.press(key) {
                Then::Stay => asked.set(state.asks_about()),
                Then::Quit => return Ok(Some(Exit::Yes)),
                Then::Interrupted => return Ok(Some(Exit::Interrupted)),
            }
        }
        for _ in 0..AT_ONCE {
            match feeds.try_recv() {
                Ok(feed) => state.apply(feed, now_ms()),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(None),
            }
        }
    }
}

/// What a key means; none for releases, and for a change of size, which the next drawing finds by itself.
fn key(input: &Input) -> Option<Key> {
    let Input::Key(KeyEvent {
        code,
        modifiers,
        kind,
        ..
    }) = input
    else {
        return None;
    };
    if *kind == KeyEventKind::Release {
        return None;
    }
    if modifiers.contains(KeyModifiers::CONTROL) {
        return (*code == KeyCode::Char('c')).then_some(Key::Interrupt);
    }
    Some(match code {
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::First,
        KeyCode::End => Key::Last,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Char(one) => Key::Char(*one),
        _ => return None,
    })
}
