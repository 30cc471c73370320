//! Makes threads notify again whose notification a supervisor received and never answered.
//!
//! A supervisor that dies between receiving and answering leaves the caller waiting for ever while somebody else still holds
//! the listener (a holder process, systemd). A stop makes the wait return a restart code (`seccomp_do_user_notification`,
//! kernel/seccomp.c: `wait_for_completion_interruptible`, `ERESTARTSYS`): the notification is withdrawn, the call is made
//! again and notified with another id. A notification that nobody has received yet comes again in the same way, so which of
//! the two it is need not be known.
//!
//! Answers nothing and reads no filter. Whoever calls this is the new supervisor: it must hold the listeners already, and none
//! of its own answers may be under way for these containers, or a call whose answer was *continue* could be asked about twice
//! (harmless when answers have no side effect).
//!
//! With `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV` a received notification cannot be withdrawn by a stop; such threads are told
//! as left.

use crate::filters::{self, ReadError};
use crate::process::{self, NamespaceId, ProcessError};
use crate::tasks::{self, TasksError};
use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

/// Threads that are stopped at the same time at most.
const AT_ONCE: usize = 32;

/// How long a thread that runs is watched, for it may be on its way into the wait. Longer than a throttled cgroup usually
/// gets no time (`cpu.max` has a period of 100 ms, sched-bwc).
const SETTLE_LIMIT: Duration = Duration::from_secs(1);

/// The way from the notification into the wait is a few µs (kernel/seccomp.c, `seccomp_do_user_notification`): a thread that
/// ran for this long, in nanoseconds, since it was first seen is somewhere else. Twice the longest tick (10 ms, `HZ` 100), by
/// which what `/proc` says may be late (`update_curr`, kernel/sched/fair.c).
const WAY_NS: u64 = 20_000_000;

/// The pass could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenotifyError {
    /// No list of processes.
    #[error("cannot look for threads that wait for a supervisor")]
    List(#[from] TasksError),
    /// `/proc` does not say which namespace this program is in.
    #[error("cannot tell which pid namespace is this program's own")]
    Own(#[from] ProcessError),
}

/// What became of the threads of one pid namespace.
#[derive(Debug, Default)]
pub struct Renotified {
    /// Threads that were stopped and let go; each notifies again.
    pub woken: u32,
    /// Threads that still wait, or may.
    pub left: Vec<Left>,
}

/// A thread that was not made to notify again.
#[derive(Debug, thiserror::Error)]
#[error("thread {tid} was not made to notify again")]
pub struct Left {
    /// The thread, in this program's pid namespace.
    pub tid: u32,
    /// Why.
    #[source]
    pub why: Why,
}

/// Why a thread was left as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// It could not be stopped, or must not be.
    #[error(transparent)]
    Stop(#[from] ReadError),
    /// It was about to run all the time and did not get to: it may still be on its way into the wait.
    #[error(
        "it got no processor time within {} ms, so nobody knows whether it waits",
        SETTLE_LIMIT.as_millis()
    )]
    Unsettled,
}

/// Makes every thread of this pid namespace, and of those below it, that waits for a supervisor notify again.
///
/// # Errors
/// As [`renotify_all`].
pub fn renotify(namespace: NamespaceId) -> Result<Renotified, RenotifyError> {
    let mut all = renotify_all(&BTreeSet::from([namespace]))?;
    Ok(all.remove(&namespace).unwrap_or_default())
}

/// Makes every thread of these pid namespaces, and of those below them, that waits for a supervisor notify again.
///
/// # Flow
/// One pass over `/proc`: which namespace each process is in, and what each of its threads waits in. Threads that run are
/// looked at again until they wait or have run for a while. Each that waits is stopped by ptrace and let go.
///
/// # Guarantees
/// Every thread that waited for an answer when this began notifies again, has ended, was answered, or is in
/// [`Renotified::left`]. What does not wait is not stopped, and nothing of this program's own pid namespace is (it is told
/// as left). What job control has stopped stays stopped. Each namespace asked for has an entry in the result.
///
/// # Assumptions
/// Nothing else in this program waits for arbitrary children (`waitpid(-1)`), as for [`filters::read`].
///
/// # Caveats
/// A thread that begins to wait later is not among them: it notifies a supervisor that is alive.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn renotify_all(
    namespaces: &BTreeSet<NamespaceId>,
) -> Result<BTreeMap<NamespaceId, Renotified>, RenotifyError> {
    let mut result: BTreeMap<NamespaceId, Renotified> = namespaces
        .iter()
        .map(|&namespace| (namespace, Renotified::default()))
        .collect();
    if namespaces.is_empty() {
        return Ok(result);
    }
    let mut unclear = Vec::new();
    let mut waiting = Vec::new();
    for thread in threads(namespaces)? {
        match look(thread.tid) {
            Look::Waits => waiting.push(thread),
            Look::Runs { ran_ns } => unclear.push((thread, ran_ns)),
            Look::Elsewhere => {}
        }
    }
    let unsettled = settle(unclear, &mut waiting);
    for (thread, why) in disturb(waiting) {
        let entry = result.entry(thread.asked).or_default();
        match why {
            Ok(()) => entry.woken += 1,
            Err(error) if error.is_gone() || sleeps_elsewhere(thread.tid) => {}
            Err(error) => entry.left.push(Left {
                tid: thread.tid,
                why: error.into(),
            }),
        }
    }
    for thread in unsettled {
        result.entry(thread.asked).or_default().left.push(Left {
            tid: thread.tid,
            why: Why::Unsettled,
        });
    }
    Ok(result)
}

#[derive(Clone, Copy)]
struct Thread {
    tid: u32,
    /// The namespace it is in itself.
    inner: NamespaceId,
    /// The one of those asked for that this is, or is below.
    asked: NamespaceId,
}

/// Every thread in these namespaces and below.
fn threads(namespaces: &BTreeSet<NamespaceId>) -> Result<Vec<Thread>, RenotifyError> {
    let mut found = Vec::new();
    let own = process::own_pid_namespace()?;
    // what a namespace is below of does not change; a number that is used again during the pass is refused at the stop
    let mut below: BTreeMap<NamespaceId, Option<NamespaceId>> = BTreeMap::new();
    for pid in tasks::processes()? {
        // whoever ends meanwhile waits for nothing
        let Ok(inner) = process::pid_namespace(pid) else {
            continue;
        };
        let asked = match below.get(&inner) {
            Some(asked) => *asked,
            None => {
                let Ok(asked) = tasks::enclosing(pid, namespaces) else {
                    continue;
                };
                below.insert(inner, asked);
                asked
            }
        };
        // what is below our own namespace is all containers of the machine, and nobody means those
        let Some(asked) = asked.filter(|&asked| asked != own || inner == own) else {
            continue;
        };
        let threads = tasks::threads(pid).unwrap_or_default();
        found.extend(threads.into_iter().map(|tid| Thread { tid, inner, asked }));
    }
    Ok(found)
}

enum Look {
    /// For a supervisor.
    Waits,
    /// It runs, is about to, or has not left the processor yet; so long it has run, in nanoseconds.
    Runs { ran_ns: u64 },
    /// It sleeps in something else, is stopped, has no filter, or has ended.
    Elsewhere,
}

fn look(tid: u32) -> Look {
    match process::waits_in(tid) {
        Ok(process::Wait::Notification) => return Look::Waits,
        Ok(process::Wait::Nothing) => {}
        Ok(process::Wait::Other) | Err(_) => return Look::Elsewhere,
    }
    match (process::status(tid), process::ran_ns(tid)) {
        // `S` and `D` as well: a thread is in that state for some time before it leaves the processor, and so long the kernel
        // names no place (get_wchan, kernel/sched/core.c)
        (Ok(status), Ok(ran_ns))
            if matches!(status.state, 'R' | 'S' | 'D')
                && matches!(status.seccomp, process::Seccomp::Filters(_)) =>
        {
            Look::Runs { ran_ns }
        }
        _ => Look::Elsewhere,
    }
}

fn sleeps_elsewhere(tid: u32) -> bool {
    matches!(process::waits_in(tid), Ok(process::Wait::Other))
}

/// Looks at threads that run until it is clear where they go; returns those that it stays unclear of.
fn settle(mut unclear: Vec<(Thread, u64)>, waiting: &mut Vec<Thread>) -> Vec<Thread> {
    let begin = Instant::now();
    let mut pause = Duration::from_micros(200);
    while !unclear.is_empty() && begin.elapsed() < SETTLE_LIMIT {
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
        unclear.retain(|&(thread, first_ns)| match look(thread.tid) {
            Look::Waits => {
                waiting.push(thread);
                false
            }
            Look::Runs { ran_ns } => ran_ns.saturating_sub(first_ns) < WAY_NS,
            Look::Elsewhere => false,
        });
    }
    unclear.into_iter().map(|(thread, _)| thread).collect()
}

/// Stops and lets go each of them, several at a time; each by a thread that ends, so that nothing stays traced.
fn disturb(waiting: Vec<Thread>) -> Vec<(Thread, Result<(), ReadError>)> {
    let mut done = Vec::with_capacity(waiting.len());
    for some in waiting.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let tracers: Vec<_> = some
                .iter()
                .map(|&Thread { tid, inner, .. }| {
                    thread::Builder::new()
                        .name("renotify".to_owned())
                        .spawn_scoped(scope, move || filters::disturb(tid, inner))
                })
                .collect();
            for (thread, tracer) in some.iter().zip(tracers) {
                let result = match tracer {
                    Ok(tracer) => tracer.join().unwrap_or(Err(ReadError::Panicked)),
                    Err(error) => Err(ReadError::Thread(error)),
                };
                done.push((*thread, result));
            }
        });
    }
    done
}
