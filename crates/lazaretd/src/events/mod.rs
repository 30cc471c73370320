//! The event log: one JSON object per line, written by a thread of its own.
//!
//! Telling an event never waits and never touches a file: it goes into a bounded queue. When the queue is full the
//! event is lost, and the loss is counted and written into the log as soon as there is room. The log is turned over
//! at [`MAX_LOG`] bytes (`events.jsonl` → `events.jsonl.1`), so a container that provokes denials without end cannot
//! fill the disk; [`crate::container`] keeps it from crowding out the events of others.

#[cfg_attr(
    not(test),
    expect(dead_code, reason = "sessions begin to use it in the next change")
)]
pub(crate) mod aggregate;

use lazaret_core::event::{Event, What};
use serde::Serialize;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast;

/// Events that may wait for the writer.
const QUEUE: usize = 8192;

/// Events that may wait for one `watch`; a client that is slower misses some and is told.
const WATCH_QUEUE: usize = 4096;

/// Bytes after which the log is turned over; the one before is kept, so the log takes twice this much.
const MAX_LOG: u64 = 64 * 1024 * 1024;

/// How often losses are looked for while no event comes.
const LOSS_INTERVAL: Duration = Duration::from_secs(1);

/// The log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LogError {
    /// Its folder cannot be made.
    #[error("cannot create directory `{}`", path.display())]
    Directory {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be opened for appending.
    #[error("cannot open event log `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No thread for it.
    #[error("cannot start the writer of the event log")]
    Thread(#[source] io::Error),
}

#[derive(Debug)]
enum Line {
    Event(Event),
    Withheld { container: String, lines: u64 },
    End,
}

/// Where events go.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    queue: SyncSender<Line>,
    watchers: broadcast::Sender<Event>,
    lost: Arc<Lost>,
}

/// Events that did not reach the log.
#[derive(Debug, Default)]
struct Lost {
    /// Not yet told in the log.
    untold: AtomicU64,
    /// Since the start.
    total: AtomicU64,
}

impl Lost {
    fn add(&self, lines: u64) {
        self.untold.fetch_add(lines, Ordering::Relaxed);
        self.total.fetch_add(lines, Ordering::Relaxed);
    }
}

/// The writing thread.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: SyncSender<Line>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Waits until everything that was told before is in the log. What is told later is lost.
    pub(crate) fn finish(self) {
        // fails only when the writer is gone already, which join tells
        drop(self.queue.send(Line::End));
        if self.thread.join().is_err() {
            tracing::error!("the writer of the event log panicked");
        }
    }
}

/// Opens the log and starts its writer.
///
/// # Errors
/// When the log cannot be opened.
pub(crate) fn start(path: &Path) -> Result<(Events, Writer), LogError> {
    if let Some(folder) = path.parent()
        && !folder.exists()
    {
        std::fs::DirBuilder::new()
            .recursive(true)
            .create(folder)
            .map_err(|source| LogError::Directory {
                path: folder.to_owned(),
                source,
            })?;
    }
    let log = Log::open(path, MAX_LOG).map_err(|source| LogError::Open {
        path: path.to_owned(),
        source,
    })?;
    let (queue, lines) = sync_channel(QUEUE);
    let lost = Arc::new(Lost::default());
    let told = Arc::clone(&lost);
    let thread = std::thread::Builder::new()
        .name("events".to_owned())
        .spawn(move || write(&lines, log, &told))
        .map_err(LogError::Thread)?;
    let events = Events {
        queue: queue.clone(),
        watchers: broadcast::Sender::new(WATCH_QUEUE),
        lost,
    };
    Ok((events, Writer { queue, thread }))
}

/// Milliseconds since the Unix epoch; 0 before it.
fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX))
}

impl Events {
    /// Tells what happened to a container; an empty id is the daemon itself. Never waits.
    pub(crate) fn tell(&self, container: &str, what: What) {
        let event = Event {
            v: 1,
            time_ms: now_ms(),
            container: container.to_owned(),
            what,
        };
        // no watcher is no loss
        drop(self.watchers.send(event.clone()));
        if self.queue.try_send(Line::Event(event)).is_err() {
            self.lost.add(1);
        }
    }

    /// Tells that so many events of a container were not told one by one.
    pub(crate) fn withheld(&self, container: &str, lines: u64) {
        self.lost.total.fetch_add(lines, Ordering::Relaxed);
        let line = Line::Withheld {
            container: container.to_owned(),
            lines,
        };
        if self.queue.try_send(line).is_err() {
            self.lost.untold.fetch_add(lines, Ordering::Relaxed);
        }
    }

    /// Events from now on.
    pub(crate) fn watch(&self) -> broadcast::Receiver<Event> {
        self.watchers.subscribe()
    }

    /// Events since the start that are not in the log.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.total.load(Ordering::Relaxed)
    }
}

fn write(lines: &Receiver<Line>, mut log: Log, lost: &Lost) {
    loop {
        let next = lines.recv_timeout(LOSS_INTERVAL);
        let untold = lost.untold.swap(0, Ordering::Relaxed);
        if untold > 0 && !log.append(&lost_line(String::new(), untold)) {
            lost.untold.fetch_add(untold, Ordering::Relaxed);
        }
        match next {
            Ok(Line::Event(event)) => {
                if !log.append(&event) {
                    lost.add(1);
                }
            }
            Ok(Line::Withheld { container, lines }) => {
                if !log.append(&lost_line(container, lines)) {
                    lost.untold.fetch_add(lines, Ordering::Relaxed);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Line::End) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn lost_line(container: String, lines: u64) -> Event {
    Event {
        v: 1,
        time_ms: now_ms(),
        container,
        what: What::EventsLost { lines },
    }
}

/// The open log.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
    limit: u64,
    /// Whether the last write failed: said once, not for every line.
    failing: bool,
}

impl Log {
    fn open(path: &Path, limit: u64) -> io::Result<Log> {
        let file = Log::append_to(path)?;
        Ok(Log {
            path: path.to_owned(),
            bytes: file.metadata()?.len(),
            file,
            limit,
            failing: false,
        })
    }

    fn append_to(path: &Path) -> io::Result<File> {
        File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
    }

    /// Whether the line is in the log.
    fn append(&mut self, line: &impl Serialize) -> bool {
        match self.try_append(line) {
            Ok(()) => {
                self.failing = false;
                true
            }
            Err(error) => {
                if !self.failing {
                    tracing::error!("cannot write event log `{}`: {error}", self.path.display());
                }
                self.failing = true;
                false
            }
        }
    }

    fn try_append(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        // a Vec's length fits 64 bits
        let length = text.len() as u64;
        if self.bytes > 0 && self.bytes.saturating_add(length) > self.limit {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&self.path, &old)?;
            self.file = Log::append_to(&self.path)?;
            self.bytes = 0;
        }
        // One write: a line is whole or, when the disk is full, cut; then the next one begins with a newline.
        if self.failing && self.bytes > 0 {
            text.insert(0, b'\n');
        }
        self.file.write_all(&text)?;
        self.bytes = self.bytes.saturating_add(length);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started() -> What {
        What::GateStarted {
            version: "0".to_owned(),
        }
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).expect("a JSON line"))
            .collect()
    }

    #[test]
    fn every_event_is_a_line_and_the_log_is_appended_to() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("log/events.jsonl");
        for _ in 0..2 {
            let (events, writer) = start(&path).expect("started");
            events.tell("c1", What::Unsupervised { pid: 7 });
            events.tell("", started());
            events.withheld("c2", 5);
            assert_eq!(events.lost(), 5);
            writer.finish();
        }
        let lines = lines(&path);
        let types: Vec<_> = lines.iter().map(|line| line["type"].as_str()).collect();
        let once = [
            Some("unsupervised"),
            Some("gate_started"),
            Some("events_lost"),
        ];
        assert_eq!(types, [once, once].concat());
        assert_eq!(lines[0]["container"], "c1");
        assert_eq!(lines[0]["v"], 1);
        assert_eq!(
            (&lines[2]["container"], &lines[2]["lines"]),
            (&"c2".into(), &5.into())
        );
    }

    #[test]
    fn a_full_queue_loses_events_and_says_so() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("events.jsonl");
        let (queue, received) = sync_channel(2);
        let lost = Arc::new(Lost::default());
        let events = Events {
            queue,
            watchers: broadcast::Sender::new(1),
            lost: Arc::clone(&lost),
        };
        for _ in 0..5 {
            events.tell("c", started());
        }
        assert_eq!(events.lost(), 3);
        drop(events);
        write(&received, Log::open(&path, MAX_LOG).expect("opened"), &lost);
        let lines = lines(&path);
        assert_eq!(lines.len(), 3);
        let told = lines.iter().find(|line| line["type"] == "events_lost");
        assert_eq!(told.map(|line| line["lines"].as_u64()), Some(Some(3)));
    }

    #[test]
    fn the_log_is_turned_over_at_its_limit() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("events.jsonl");
        let mut log = Log::open(&path, 100).expect("opened");
        for number in 0..10 {
            assert!(log.append(&format!("{number:040}")));
        }
        let kept = lines(&folder.path().join("events.jsonl.1"));
        assert_eq!((kept.len(), lines(&path).len()), (2, 2));
        assert_eq!(lines(&path)[1], format!("{:040}", 9));
    }

    #[test]
    fn a_log_that_cannot_be_written_is_counted() {
        let lost = Lost::default();
        let (queue, received) = sync_channel(4);
        let full = Log {
            path: "/dev/full".into(),
            file: File::options()
                .write(true)
                .open("/dev/full")
                .expect("there"),
            bytes: 0,
            limit: MAX_LOG,
            failing: false,
        };
        let event = Event {
            v: 1,
            time_ms: 0,
            container: String::new(),
            what: started(),
        };
        assert!(queue.try_send(Line::Event(event)).is_ok());
        drop(queue);
        write(&received, full, &lost);
        assert_eq!(lost.total.load(Ordering::Relaxed), 1);
    }
}
