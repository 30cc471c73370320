//! Figures for monitoring systems, as OpenMetrics text on an optional address.
//!
//! Nothing is kept up to date for it: a scrape asks for a [`Snapshot`], which is made from what the daemon counts anyway.
//! Labels are bounded: containers that live now, phases, names of checks. No process, no argument, no path.

pub(crate) mod address;
pub(crate) mod http;
pub(crate) mod latency;
mod text;

pub(crate) use address::Address;
pub(crate) use latency::Latency;

use self::latency::Counted;
use lazaret_core::control::Counts;
use lazaret_core::phase::Phase;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What happened since the daemon began, counted where it happens. All of it only ever grows.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// How long answers take.
    pub(crate) latency: Latency,
    /// Containers and `exec`s whose papers were in order.
    pub(crate) admissions: AtomicU64,
    /// Listeners of the daemon before this one that were taken over.
    pub(crate) taken_over: AtomicU64,
    /// Listeners that were not: containers that run on without supervision.
    pub(crate) unsupervised: AtomicU64,
    refusals: Mutex<BTreeMap<&'static str, u64>>,
}

impl Tally {
    /// Counts a refusal by the short name of its check.
    pub(crate) fn refused(&self, check: &'static str) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        *refusals.entry(check).or_default() += 1;
    }

    /// What was counted until now.
    pub(crate) fn counted(&self) -> Tallied {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        Tallied {
            answers: self.latency.counted(),
            admissions: read(&self.admissions),
            taken_over: read(&self.taken_over),
            unsupervised: read(&self.unsupervised),
            refusals: self
                .refusals
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }
}

/// A [`Tally`] at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tallied {
    /// How long answers took.
    pub(crate) answers: Counted,
    /// Containers and `exec`s whose papers were in order.
    pub(crate) admissions: u64,
    /// Listeners of the daemon before this one that were taken over.
    pub(crate) taken_over: u64,
    /// Listeners that were not.
    pub(crate) unsupervised: u64,
    /// Refusals by the short name of their check.
    pub(crate) refusals: BTreeMap<&'static str, u64>,
}

/// How far the gate holds a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// Its papers are not checked yet.
    Prelude,
    /// Its calls are decided by its policy, and denied.
    Enforced,
    /// Its calls are decided by its policy, and go on all the same.
    Observed,
    /// Its papers are no longer in order: all it asks fails.
    Closed,
    /// Its listener is gone.
    Unsupervised,
}

impl State {
    /// The value of the label.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            State::Prelude => "prelude",
            State::Enforced => "enforced",
            State::Observed => "observed",
            State::Closed => "closed",
            State::Unsupervised => "unsupervised",
        }
    }
}

/// A container that lives now.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    /// The engine's id.
    pub(crate) id: String,
    /// The engine's name; empty when there is none.
    pub(crate) name: String,
    /// How far the gate holds it.
    pub(crate) state: State,
    /// The phase by which its calls are decided; none while there is no supervision.
    pub(crate) phase: Option<Phase>,
    /// How its asked calls were answered, its `exec`s included.
    pub(crate) counts: BTreeMap<Phase, Counts>,
    /// Revisions of its policy, once its papers were in order.
    pub(crate) revisions: Option<Revisions>,
}

/// Revisions of one container's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Revisions {
    /// Decides the ask band.
    pub(crate) in_force: u64,
    /// The filter was made of it.
    pub(crate) in_kernel: u64,
}

/// The export of audit records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    /// Bytes of the records that wait on the disk.
    pub(crate) queue_bytes: u64,
    /// These records.
    pub(crate) queue_records: u64,
    /// Records that the server took.
    pub(crate) sent: u64,
    /// Records that had no room.
    pub(crate) dropped: u64,
    /// Records that the server refused for what they are.
    pub(crate) rejected: u64,
    /// When the server last took something, in milliseconds since the Unix epoch.
    pub(crate) last_sent_ms: Option<u64>,
}

/// Everything that a scrape shows, at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// The program's version.
    pub(crate) version: &'static str,
    /// When the program began, in milliseconds since the Unix epoch.
    pub(crate) began_ms: u64,
    /// What happened since then.
    pub(crate) tallied: Tallied,
    /// Containers that live now.
    pub(crate) containers: Vec<Container>,
    /// The export of audit records, where there is one.
    pub(crate) audit: Option<Audit>,
    /// Events that are not in the log.
    pub(crate) events_lost: u64,
    /// Events that wait for the writer of the log.
    pub(crate) events_waiting: usize,
    /// As many as can wait.
    pub(crate) events_capacity: usize,
}

#[cfg(test)]
mod tests;
