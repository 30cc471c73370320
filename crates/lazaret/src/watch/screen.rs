//! The terminal while the live table has it: raw, on its alternate screen, without a cursor. And as it was, afterwards, however
//! the program ends: by a key, an error, a panic or a signal ([`crate::cleanup`]). SIGKILL apart: `reset` helps then.

use crate::cleanup::Guard;
use crossterm::cursor::Show;
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use std::io::{self, Stdout, stdout};
use std::sync::{Mutex, PoisonError, TryLockError};

/// Whether the terminal is ours. Held while it is drawn on, so that nothing is drawn after it was given back.
static OURS: Mutex<bool> = Mutex::new(false);

/// The terminal, until it is dropped.
pub(crate) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    _guard: Guard,
}

impl Screen {
    /// Takes it.
    pub(crate) fn take() -> io::Result<Screen> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // so that the message is seen
            give_back();
            before(panic);
        }));
        *OURS.lock().unwrap_or_else(PoisonError::into_inner) = true;
        let guard = Guard::terminal();
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen)?;
        Ok(Screen {
            terminal: Terminal::new(CrosstermBackend::new(stdout()))?,
            _guard: guard,
        })
    }

    /// Draws once.
    pub(crate) fn draw(&mut self, draw: impl FnOnce(&mut ratatui::Frame<'_>)) -> io::Result<()> {
        let ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
        if *ours {
            self.terminal.draw(draw)?;
        }
        Ok(())
    }
}

/// Gives the terminal back; does nothing when it is not ours.
pub(crate) fn give_back() {
    let mut ours = match OURS.try_lock() {
        Ok(ours) => ours,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => {
            // it is being drawn on: by the thread that panics here, which cannot wait for itself
            if std::thread::panicking() {
                return restore();
            }
            OURS.lock().unwrap_or_else(PoisonError::into_inner)
        }
    };
    if std::mem::replace(&mut *ours, false) {
        restore();
    }
}

fn restore() {
    // a terminal that is gone needs nothing
    let raw = disable_raw_mode();
    let screen = execute!(stdout(), LeaveAlternateScreen, Show);
    if let Err(error) = raw.and(screen)
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        eprintln!("lazaret: cannot give the terminal back: {error}");
    }
}
