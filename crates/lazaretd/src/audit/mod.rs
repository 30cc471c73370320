//! Exports the event log to a FHIR server as `AuditEvent` resources.
//!
//! ```text
//! event log ──follow──► audit_event ──► queue on disk ──post──► FHIR server
//!            `audit-read`                              `audit-post`
//! ```
//!
//! It reads the log and not the daemon's channel of events: the log is there after a crash, it is the buffer when the queue's disk is full,
//! and nobody who answers a system call ever waits for the export or is slowed by it. Two threads, so that a server that does not answer
//! does not keep events out of the queue; one connection.
//!
//! Each resource has an id made of what it says and where it stands in the log: whatever is sent twice is the same resource. The order
//! of the log is the order of posting as long as the server takes everything; time stamps decide nothing, so a clock that jumps does not matter.
//!
//! What cannot arrive is counted exactly (dropped, rejected) and told by an event, which is exported like any other.
//!
//! It checks no event, changes none and removes nothing from the log.

mod backoff;
mod follow;
mod post;
mod queue;
mod settings;

use backoff::Backoff;
use lazaret_core::event::What;
use lazaret_fhir::audit::{MAX_ENTRIES, Node, audit_event};
use post::{Outcome, Poster};
use queue::{Name, Queue};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) use post::PostError;
pub(crate) use queue::QueueError;
pub(crate) use settings::{DEFAULT_MAX_BYTES, DEFAULT_QUEUE, Settings, SettingsError, Written};

/// Bytes of the resources of one batch: a resource has about 2 KiB, 16 KiB at most.
const MAX_BATCH: usize = 1 << 20;

/// The export cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AuditError {
    /// The queue cannot be used.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// Nothing could be posted.
    #[error(transparent)]
    Post(#[from] PostError),
    /// No thread for it.
    #[error("cannot start a thread of the audit export")]
    Thread(#[source] std::io::Error),
}

/// How fast; other values are for tests.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// How often the log is looked at.
    poll: Duration,
    /// The wait after the first failure.
    first_wait: Duration,
    /// The longest wait after a failure.
    longest_wait: Duration,
    /// For one request.
    request: Duration,
    /// Between two events about what was lost, while nothing is delivered.
    tell: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            poll: Duration::from_millis(500),
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(300),
            request: Duration::from_secs(30),
            tell: Duration::from_secs(600),
        }
    }
}

/// How the export fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metrics {
    /// Batches that wait.
    pub(crate) queued_files: u64,
    /// What they take on disk, in bytes.
    pub(crate) queued_bytes: u64,
    /// Resources in them.
    pub(crate) queued_events: u64,
    /// Resources that the server took since the start.
    pub(crate) posted: u64,
    /// Resources dropped because the queue was full, since it was made.
    pub(crate) dropped: u64,
    /// Resources that the server refused for what they are, since the queue was made.
    pub(crate) rejected: u64,
    /// How often the log was turned over before it was read, since the queue was made.
    pub(crate) gaps: u64,
    /// Lines of the log that are no events, since the start.
    pub(crate) unreadable: u64,
    /// When the server last took something, in milliseconds since the Unix epoch.
    pub(crate) last_success_ms: Option<u64>,
    /// Why nothing is delivered or queued at present.
    pub(crate) failing: Option<String>,
}

#[derive(Debug)]
struct Inner {
    queue: Queue,
    stop: bool,
    posted: u64,
    unreadable: u64,
    last_success_ms: Option<u64>,
    post_failing: Option<String>,
    read_failing: Option<String>,
    /// Something was delivered since losses were told.
    delivered_since_told: bool,
    last_told: Option<Instant>,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic of one thread leaves plain data behind, and on disk nothing that a crash would not.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is told to stop; true then.
    fn stopped_within(&self, limit: Duration) -> bool {
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), limit, |inner| !inner.stop);
        waited.unwrap_or_else(PoisonError::into_inner).0.stop
    }
}

/// The running export. Dropping it changes nothing: the threads end with the process, and what they leave on disk is always good.
#[derive(Debug)]
pub(crate) struct Handle {
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
    poster: JoinHandle<()>,
}

impl Handle {
    /// How it fares.
    pub(crate) fn metrics(&self) -> Metrics {
        let inner = self.shared.lock();
        let (filling, counts) = (inner.queue.filling(), inner.queue.counts());
        Metrics {
            queued_files: filling.files,
            queued_bytes: filling.bytes,
            queued_events: filling.events,
            posted: inner.posted,
            dropped: counts.dropped,
            rejected: counts.rejected,
            gaps: counts.gaps,
            unreadable: inner.unreadable,
            last_success_ms: inner.last_success_ms,
            failing: inner
                .read_failing
                .clone()
                .or_else(|| inner.post_failing.clone()),
        }
    }

    /// Ends it, and waits at most `limit` for a request that is under way. What is in the log and the queue then is posted by the
    /// next start.
    pub(crate) fn stop(self, limit: Duration) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        let until = Instant::now() + limit;
        for thread in [self.reader, self.poster] {
            while !thread.is_finished() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            if thread.is_finished() && thread.join().is_err() {
                tracing::error!("a thread of the audit export panicked");
            }
        }
    }
}

/// Starts the export of `log`. `tell` puts an event of the daemon itself into that log.
///
/// # Errors
/// The queue cannot be opened, the authorities cannot be read, or there is no thread.
pub(crate) fn spawn(
    settings: &Settings,
    log: &Path,
    tell: impl Fn(What) + Send + 'static,
) -> Result<Handle, AuditError> {
    spawn_at(Pace::default(), settings, log, tell)
}

fn spawn_at(
    pace: Pace,
    settings: &Settings,
    log: &Path,
    tell: impl Fn(What) + Send + 'static,
) -> Result<Handle, AuditError> {
    let poster = Poster::new(settings, pace.request)?;
    let queue = Queue::open(&settings.queue, settings.max_bytes)?;
    let shared = Arc::new(Shared {
        inner: Mutex::new(Inner {
            queue,
            stop: false,
            posted: 0,
            unreadable: 0,
            last_success_ms: None,
            post_failing: None,
            read_failing: None,
            delivered_since_told: false,
            last_told: None,
        }),
        changed: Condvar::new(),
    });
    let thread = |name: &str, work: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .map_err(AuditError::Thread)
    };
    let reader = Reader {
        shared: Arc::clone(&shared),
        node: settings.node.clone(),
        log: log.to_owned(),
        pace,
    };
    let of_poster = Arc::clone(&shared);
    Ok(Handle {
        reader: thread("audit-read", Box::new(move || reader.run(&tell)))?,
        poster: thread(
            "audit-post",
            Box::new(move || run_poster(&of_poster, &poster, pace)),
        )?,
        shared,
    })
}

/// From the log into the queue.
struct Reader {
    shared: Arc<Shared>,
    node: Node,
    log: PathBuf,
    pace: Pace,
}

impl Reader {
    fn run(&self, tell: &dyn Fn(What)) {
        loop {
            let step = self.step();
            let more = {
                let mut inner = self.shared.lock();
                match step {
                    Ok(more) => {
                        inner.read_failing = None;
                        more
                    }
                    Err(why) => {
                        if inner.read_failing.is_none() {
                            tracing::error!("audit export: {why}");
                        }
                        inner.read_failing = Some(why);
                        false
                    }
                }
            };
            self.tell_losses(tell);
            let wait = if more { Duration::ZERO } else { self.pace.poll };
            if self.shared.stopped_within(wait) {
                return;
            }
        }
    }

    /// One batch at most; whether there may be more at once.
    fn step(&self) -> Result<bool, String> {
        let cursor = self.shared.lock().queue.cursor();
        let found = follow::read(&self.log, cursor, MAX_ENTRIES)
            .map_err(|error| format!("cannot read event log `{}`: {error}", self.log.display()))?;
        let moved = found.cursor != cursor;
        let mut entries: Vec<Value> = Vec::new();
        let (mut bytes, mut next) = (0_usize, found.cursor);
        for (event, cursor) in &found.events {
            let Some(resource) = audit_event(event, &self.node, &cursor.place()) else {
                continue;
            };
            bytes = bytes.saturating_add(resource.to_string().len());
            if bytes > MAX_BATCH && !entries.is_empty() {
                // The rest is read again.
                next = Some(*cursor);
                break;
            }
            entries.push(resource);
        }
        let mut inner = self.shared.lock();
        if found.gap {
            // counted with the place from which it goes on, so that it is counted once
            inner.queue.add_gap(found.start).map_err(chain)?;
        }
        inner.unreadable = inner.unreadable.saturating_add(found.unreadable);
        if entries.is_empty() {
            inner.queue.pass(next);
        } else {
            inner.queue.push(entries, next).map_err(chain)?;
            self.shared.changed.notify_all();
        }
        Ok(moved)
    }

    /// Told as totals, so that telling twice after a crash says nothing wrong; at once when events arrive again, else now and then, so
    /// that a server that is away for days does not fill the queue with news of its absence.
    fn tell_losses(&self, tell: &dyn Fn(What)) {
        let mut inner = self.shared.lock();
        let counts = inner.queue.counts();
        let due = inner.delivered_since_told
            || inner
                .last_told
                .is_none_or(|at| at.elapsed() >= self.pace.tell);
        if counts == inner.queue.told() || !due {
            return;
        }
        tell(What::AuditLost {
            dropped: counts.dropped,
            rejected: counts.rejected,
            gaps: counts.gaps,
        });
        inner.delivered_since_told = false;
        inner.last_told = Some(Instant::now());
        if let Err(error) = inner.queue.set_told(counts) {
            tracing::warn!("audit export: {}", chain(error));
        }
    }
}

fn run_poster(shared: &Shared, poster: &Poster, pace: Pace) {
    let mut backoff = Backoff::new(pace.first_wait, pace.longest_wait);
    loop {
        let taken = shared.lock().queue.take();
        let wait = match taken {
            Ok(None) => {
                let idle = shared.changed.wait_while(shared.lock(), |inner| {
                    !inner.stop && inner.queue.filling().files == 0
                });
                if idle.unwrap_or_else(PoisonError::into_inner).stop {
                    return;
                }
                continue;
            }
            Ok(Some((name, entries))) => {
                let outcome = poster.post(&entries);
                settle(
                    &mut shared.lock(),
                    name,
                    entries.len(),
                    outcome,
                    &mut backoff,
                )
            }
            Err(error) => {
                let why = chain(error);
                tracing::error!("audit export: {why}");
                shared.lock().post_failing = Some(why);
                backoff.wait(None, backoff::chance())
            }
        };
        if shared.stopped_within(wait) {
            return;
        }
    }
}

/// Writes down what became of a batch; how long to wait before the next.
fn settle(
    inner: &mut Inner,
    name: Name,
    count: usize,
    outcome: Outcome,
    backoff: &mut Backoff,
) -> Duration {
    let delivered = outcome.delivered.len();
    let rejected = outcome.rejected.len();
    if rejected > 0 {
        tracing::error!(
            "audit export: the server refuses {rejected} resources for what they are; they are in `rejected`"
        );
    }
    let written = if delivered == count {
        inner.queue.delivered(name)
    } else if delivered > 0 || rejected > 0 || outcome.dealt_with {
        inner
            .queue
            .settle(name, outcome.delivered, outcome.rejected)
    } else {
        inner.queue.again();
        Ok(())
    };
    if delivered > 0 {
        backoff.reset();
        inner.posted = inner.posted.saturating_add(delivered as u64);
        inner.last_success_ms = Some(now_ms());
        inner.delivered_since_told = true;
    }
    let problem = match (written, outcome.later) {
        (Err(error), later) => Some((chain(error), later.and_then(|later| later.wait))),
        (Ok(()), Some(later)) => Some((later.why, later.wait)),
        (Ok(()), None) => None,
    };
    let Some((why, asked)) = problem else {
        inner.post_failing = None;
        return Duration::ZERO;
    };
    let wait = backoff.wait(asked, backoff::chance());
    if inner.post_failing.is_none() {
        tracing::warn!("audit export: {why}; tried again in {wait:?}");
    }
    inner.post_failing = Some(why);
    wait
}

/// An error with all its sources on one line.
fn chain(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
