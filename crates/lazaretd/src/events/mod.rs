//! The event log: one JSON object per line, written by a thread of its own.
//!
//! Telling an event never waits and never touches a file: it goes into a bounded [`queue`], from which the writer appends it
//! to the [`log`]. While the disk refuses, the writer keeps its line and tries again, and the queue fills. Denials are
//! folded before ([`aggregate`]) and go back to their container when the queue has no room for them, so none is ever
//! lost; any other event that finds the queue full is lost, is counted, and the log says how many as soon as it can.

pub(crate) mod aggregate;
pub(crate) mod caller;
pub(crate) mod log;
mod queue;

pub(crate) use queue::CAPACITY;

use self::aggregate::{CallId, Told};
use self::log::{Limits, Log, LogError};
use self::queue::{FOR_DENIALS, FOR_LAST, Next, Queue, Then};
use crate::call;
use lazaret_core::event::{Event, What};
use lazaret_core::filter::rule::Call;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast;

/// Events that may wait for one `watch`; a client that is slower misses some and is told.
const WATCH_QUEUE: usize = 4096;

/// How long the writer waits before it tries again what the disk refused.
const RETRY: Duration = Duration::from_millis(250);

/// There is no thread for the log.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the writer of the event log")]
pub(crate) struct StartError(#[from] io::Error);

/// Where events go.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    queue: Arc<Queue>,
    watchers: broadcast::Sender<Event>,
}

/// The writing thread.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: Arc<Queue>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Waits until everything that was told before is in the log, or the disk has refused it once more. What is told later
    /// is lost.
    pub(crate) fn finish(self) {
        self.queue.close();
        if self.thread.join().is_err() {
            tracing::error!("the writer of the event log panicked");
        }
        match self.queue.lost() {
            0 => {}
            lost => tracing::warn!("{lost} events are not in the log"),
        }
    }
}

/// Opens the log and starts its writer.
///
/// A log that cannot be opened does not keep the gate from its work: that is said, and tried again with every event.
///
/// # Errors
/// When there is no thread for it.
pub(crate) fn start(path: &Path, limits: Limits) -> Result<(Events, Writer), StartError> {
    let mut log = Log::new(path, limits);
    if let Err(error) = log.reopen() {
        say(error);
    }
    let queue = Arc::new(Queue::default());
    let lines = Arc::clone(&queue);
    let thread = std::thread::Builder::new()
        .name("events".to_owned())
        .spawn(move || write(&lines, log))?;
    let events = Events {
        queue: Arc::clone(&queue),
        watchers: broadcast::Sender::new(WATCH_QUEUE),
    };
    Ok((events, Writer { queue, thread }))
}

fn say(error: LogError) {
    tracing::error!("{:#}", anyhow::Error::from(error));
}

/// Milliseconds since the Unix epoch; 0 before it.
fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX))
}

fn event(container: &str, what: What) -> Event {
    Event {
        v: 1,
        time_ms: now_ms(),
        container: container.to_owned(),
        what,
    }
}

impl Events {
    /// Tells what happened to a container; an empty id is the daemon itself. Never waits.
    pub(crate) fn tell(&self, container: &str, what: What) {
        let event = event(container, what);
        self.show(&event);
        if self.queue.put(event, CAPACITY).is_err() {
            self.queue.lose(1);
        }
    }

    /// Tells denials; gives them back when there is no room for them, to be told later ([`aggregate::Aggregate::give_back`]).
    /// Never waits.
    ///
    /// # Errors
    /// When too much waits for the writer already.
    pub(crate) fn offer(&self, container: &str, told: Told) -> Result<(), Told> {
        // without the cost of an event that has no room
        if !self.queue.has_room(FOR_DENIALS) {
            return Err(told);
        }
        let event = event(container, what(&told));
        let shown = (self.watchers.receiver_count() > 0).then(|| event.clone());
        // somebody else may have taken the last place
        self.queue.put(event, FOR_DENIALS).map_err(|_| told)?;
        if let Some(event) = shown {
            self.show(&event);
        }
        Ok(())
    }

    /// Tells the last denials of a container that nobody will keep any longer. Never waits.
    pub(crate) fn leave(&self, container: &str, denials: Vec<Told>) {
        for told in denials {
            let event = event(container, what(&told));
            self.show(&event);
            if self.queue.put(event, FOR_LAST).is_err() {
                self.queue.lose(1);
            }
        }
    }

    fn show(&self, event: &Event) {
        if self.watchers.receiver_count() > 0 {
            // the last watcher may leave at this moment: no loss
            drop(self.watchers.send(event.clone()));
        }
    }

    /// Events from now on.
    pub(crate) fn watch(&self) -> broadcast::Receiver<Event> {
        self.watchers.subscribe()
    }

    /// Opens the log at its path again, for `logrotate(8)`: what is told afterwards is in the new file.
    pub(crate) fn reopen(&self) {
        self.queue.reopen();
    }

    /// Events since the start that are not in the log.
    pub(crate) fn lost(&self) -> u64 {
        self.queue.lost()
    }

    /// Events that wait for the writer, of [`CAPACITY`].
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }
}

/// The line for denials.
pub(crate) fn what(told: &Told) -> What {
    let CallId { arch, nr } = told.last.call;
    let last = Call {
        nr,
        arch,
        args: told.last.args,
    };
    let named = || call::name(&last).map_or_else(|| nr.to_string(), str::to_owned);
    What::Denied {
        times: told.times,
        pid: told.last.pid,
        process: told.key.kind.process().to_owned(),
        nr,
        arch: call::convention(&last)
            .map_or_else(|| format!("{arch:#x}"), |abi| abi.name().to_owned()),
        call: match told.key.kind.call() {
            Some(_) => named(),
            // several calls: number, convention and arguments are those of the last one
            None => aggregate::MORE.to_owned(),
        },
        args: last.args,
        phase: told.key.phase,
        enforced: told.key.enforced,
    }
}

/// The writer, until the queue is closed.
fn write(queue: &Queue, mut log: Log) {
    let mut failing = false;
    loop {
        let (event, lost) = match queue.next() {
            Next::Over => return,
            Next::Reopen => {
                if let Err(error) = log.reopen() {
                    say(error);
                }
                continue;
            }
            Next::Lost(lines) => (event("", What::EventsLost { lines }), Some(lines)),
            Next::Line(event) => (event, None),
        };
        if put_down(queue, &mut log, &event, &mut failing) {
            continue;
        }
        match lost {
            Some(lines) => queue.not_told(lines),
            None => queue.lose(1),
        }
    }
}

/// Whether the event is in the log in the end.
fn put_down(queue: &Queue, log: &mut Log, event: &Event, failing: &mut bool) -> bool {
    let line = match serde_json::to_vec(event) {
        Ok(line) => line,
        Err(error) => {
            tracing::error!("cannot write an event: {error}");
            return false;
        }
    };
    loop {
        match log.append(&line) {
            Ok(()) => {
                if std::mem::take(failing) {
                    tracing::info!("the event log can be written again");
                }
                return true;
            }
            Err(error) => {
                // once, not for every attempt
                if !std::mem::replace(failing, true) {
                    say(error);
                }
            }
        }
        match queue.pause(RETRY) {
            Then::Again => {}
            Then::Reopen => {
                if let Err(error) = log.reopen() {
                    say(error);
                }
            }
            Then::GiveUp => return false,
        }
    }
}

#[cfg(test)]
mod tests;
