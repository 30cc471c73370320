//! Events between those who tell them and the thread that writes them.
//!
//! Bounded, and putting in never waits for the writer. Denials may fill three quarters: what they bring too much stays
//! in their container ([`super::aggregate`]), so a flood of them leaves room for everything else. When that is used up too, an
//! event is lost, and counted.

use lazaret_core::event::Event;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Events that may wait for the writer.
pub(crate) const CAPACITY: usize = 8192;

/// Of these: as many as there can be when a denial is let in.
pub(super) const FOR_DENIALS: usize = CAPACITY / 4 * 3;

/// As many as there can be when the last denials of a container are let in, which nobody can keep.
pub(super) const FOR_LAST: usize = CAPACITY * 4;

/// What the writer is to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// Open the log again.
    Reopen,
    /// Write that so many events are missing.
    Lost(u64),
    /// Write this.
    Line(Event),
    /// Nothing is left, and nothing will come.
    Over,
}

/// What the writer does with a line that the disk refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Try again.
    Again,
    /// Open the log again, then try again.
    Reopen,
    /// Nothing: the daemon ends.
    GiveUp,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Event>,
    /// The writer has taken one more.
    in_hand: bool,
    /// Lost, and the log does not say so yet.
    untold: u64,
    /// Lost since the start.
    lost: u64,
    reopen: bool,
    closing: bool,
    /// The writer has ended.
    closed: bool,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // no code under this lock panics half way through a change
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an event in; when `room` events wait already it comes back.
    pub(super) fn put(&self, event: Event, room: usize) -> Result<(), Box<Event>> {
        let mut state = self.lock();
        if state.closed || state.lines.len() >= room {
            return Err(Box::new(event));
        }
        state.lines.push_back(event);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Whether an event would be let in now.
    pub(super) fn has_room(&self, room: usize) -> bool {
        let state = self.lock();
        !state.closed && state.lines.len() < room
    }

    /// Counts events that nobody will write; the log says so when it can.
    pub(super) fn lose(&self, events: u64) {
        let mut state = self.lock();
        state.untold = state.untold.saturating_add(events);
        state.lost = state.lost.saturating_add(events);
        drop(state);
        self.changed.notify_one();
    }

    /// The writer could not say so: these are not lost once more, but still to be told.
    pub(super) fn not_told(&self, events: u64) {
        let mut state = self.lock();
        state.untold = state.untold.saturating_add(events);
    }

    /// Events lost since the start.
    pub(super) fn lost(&self) -> u64 {
        self.lock().lost
    }

    /// Events that wait, the one that the writer has taken included.
    pub(super) fn len(&self) -> usize {
        let state = self.lock();
        state.lines.len() + usize::from(state.in_hand)
    }

    /// Has the log opened again.
    pub(super) fn reopen(&self) {
        self.lock().reopen = true;
        self.changed.notify_one();
    }

    /// Ends the writer when everything that waits is written, or was tried once.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_one();
    }

    /// For the writer: waits for something to do.
    pub(super) fn next(&self) -> Next {
        let mut state = self.lock();
        state.in_hand = false;
        loop {
            if std::mem::take(&mut state.reopen) {
                return Next::Reopen;
            }
            if state.untold > 0 && !state.closing {
                return Next::Lost(std::mem::take(&mut state.untold));
            }
            if let Some(line) = state.lines.pop_front() {
                state.in_hand = true;
                return Next::Line(line);
            }
            if state.closing {
                // the last word, tried once: nothing can be added after it
                if !state.closed {
                    state.closed = true;
                    if state.untold > 0 {
                        return Next::Lost(std::mem::take(&mut state.untold));
                    }
                }
                return Next::Over;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// For the writer, when the disk refuses: waits until it is worth another attempt.
    pub(super) fn pause(&self, for_so_long: Duration) -> Then {
        let state = self.lock();
        let quiet = |state: &mut State| !state.closing && !state.reopen;
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, for_so_long, quiet)
            .unwrap_or_else(PoisonError::into_inner);
        match (std::mem::take(&mut state.reopen), state.closing) {
            (_, true) => Then::GiveUp,
            (true, false) => Then::Reopen,
            (false, false) => Then::Again,
        }
    }
}
