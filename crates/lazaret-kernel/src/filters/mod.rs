//! Reads back the filters that the kernel runs for a thread.
//!
//! A thread that has filters is stopped for it, by ptrace, for well under a millisecond, and let go at once. It does not
//! notice: a call that the stop cut short goes on ([`repair`]), a notification it waits in is withdrawn and comes again
//! with another id, a signal that arrives meanwhile reaches it, and job control finds it as it was. What cannot be hidden:
//! a restarted call waits its whole timeout once more, `/proc/TID/status` shows a tracer for that time, and a signal that
//! the process ignores may wake *another* of its threads, since the kernel keeps ignored signals of a traced thread
//! (`sig_ignored`, kernel/signal.c). A restartable sequence is begun again as after any preemption: the thread's registers
//! are not moved (`rseq(2)`).
//!
//! Nothing is changed here and no filter is put in. This stops a process of the machine, so it refuses everything that is
//! on no [`Road`]: the gate goes by [`Road::Container`] only, which refuses every task of this program's own pid
//! namespace, and so containers that share the host's.

mod guard;
mod read;
mod repair;
mod stop;

pub use guard::{NameError, Named, Road};

use crate::process::{self, Identity, NamespaceId, ProcessError, Seccomp};
use lazaret_core::filter::program::{Program, ProgramError};
use std::io;
use std::time::{Duration, Instant};
use stop::{STOP_LIMIT, Seized};

/// How long a thread may sleep uninterruptibly before it is left alone. Disk reads take a few ms; a parent in `vfork` sleeps
/// so until its child executes or ends, a container that is paused (cgroup v1) until it is let go.
const SLEEP_LIMIT: Duration = Duration::from_millis(100);

/// What seccomp holds a thread to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chain {
    /// Nothing: every call is allowed.
    Unfiltered,
    /// Strict mode: `read`, `write`, `_exit` and `rt_sigreturn`, everything else kills (`__secure_computing_strict`,
    /// kernel/seccomp.c). Only a thread itself can choose it.
    Strict,
    /// These filters, the first installed first; never empty.
    Filters(Vec<Program>),
}

/// Filters were not read; the thread runs on as before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// `/proc` does not answer for the thread or for us.
    #[error("cannot tell which pid namespace thread {tid} is in")]
    Namespace {
        /// The thread.
        tid: u32,
        /// Why.
        #[source]
        source: ProcessError,
    },
    /// Perhaps a process of the machine itself.
    #[error("thread {tid} is in this program's own pid namespace, it is not touched")]
    OwnNamespace {
        /// The thread.
        tid: u32,
    },
    /// Not the container it was taken for.
    #[error("thread {tid} is not in the container's pid namespace")]
    OtherNamespace {
        /// The thread.
        tid: u32,
    },
    /// Not a process that may be named.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Not the process that was named.
    #[error("thread {tid} belongs to process {process}, which was not named")]
    OtherProcess {
        /// The thread.
        tid: u32,
        /// Its process.
        process: u32,
    },
    /// `/proc` does not answer for the thread.
    #[error("cannot tell how thread {tid} is confined")]
    Process {
        /// The thread.
        tid: u32,
        /// Why.
        #[source]
        source: ProcessError,
    },
    /// 0 or above 2^31 - 1.
    #[error("{tid} is no thread id")]
    NoTid {
        /// The number.
        tid: u32,
    },
    /// There is nothing to read.
    #[error("thread {tid} has no filter")]
    NoFilter {
        /// The thread.
        tid: u32,
    },
    /// A debugger, `strace`, another inspector.
    #[error("thread {tid} is traced by thread {tracer} already")]
    Traced {
        /// The thread.
        tid: u32,
        /// Who.
        tracer: u32,
    },
    /// It could not be stopped.
    #[error(
        "thread {tid} takes no signal (state D): it waits for a device or a vfork child, or its container is paused"
    )]
    Uninterruptible {
        /// The thread.
        tid: u32,
    },
    /// No way is known here to make a call go on that the stop cut short.
    #[error(
        "thread {tid} cannot be stopped unnoticed on this architecture unless it waits for a supervisor"
    )]
    Architecture {
        /// The thread.
        tid: u32,
    },
    /// No thread to trace from.
    #[error("cannot start a tracing thread")]
    Thread(#[source] io::Error),
    /// The tracing thread panicked; the kernel has detached what it traced.
    #[error("tracing thread panicked")]
    Panicked,
    /// `PTRACE_SEIZE`; `EPERM` without `CAP_SYS_PTRACE` over it.
    #[error("cannot seize thread {tid}")]
    Seize {
        /// The thread.
        tid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `PTRACE_INTERRUPT`.
    #[error("cannot interrupt thread {tid}")]
    Interrupt {
        /// The thread.
        tid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `waitpid(2)`.
    #[error("cannot wait for thread {tid}")]
    Wait {
        /// The thread.
        tid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended.
    #[error("thread {tid} ended while it was looked at")]
    Gone {
        /// The thread.
        tid: u32,
    },
    /// It did not stop in time.
    #[error("thread {tid} did not stop within {} ms", STOP_LIMIT.as_millis())]
    NotStopped {
        /// The thread.
        tid: u32,
    },
    /// `PTRACE_GETREGSET` or `PTRACE_SETREGSET`: its call may fail with `EINTR`.
    #[error("cannot make the call of thread {tid} go on")]
    Repair {
        /// The thread.
        tid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `PTRACE_SECCOMP_GET_FILTER`: `EACCES` without `CAP_SYS_ADMIN` or when this program is under a filter itself.
    #[error("cannot read filter {index} of thread {tid}")]
    Filter {
        /// The thread.
        tid: u32,
        /// Which filter, from the first installed.
        index: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not a filter the kernel would take; cannot happen.
    #[error("filter {index} of thread {tid} is not valid")]
    Program {
        /// The thread.
        tid: u32,
        /// Which filter, from the first installed.
        index: u32,
        /// Why.
        #[source]
        source: ProgramError,
    },
    /// More than this program reads.
    #[error("thread {tid} has more than {limit} filters")]
    TooMany {
        /// The thread.
        tid: u32,
        /// The limit.
        limit: u32,
    },
    /// Filters were added all the while, or are hidden.
    #[error("read {found} filters of thread {tid}, /proc counts {told}")]
    Count {
        /// The thread.
        tid: u32,
        /// Filters read.
        found: u32,
        /// `Seccomp_filters`.
        told: u32,
    },
    /// `PTRACE_DETACH`.
    #[error("cannot let go of thread {tid}")]
    Detach {
        /// The thread.
        tid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ReadError {
    /// Whether the thread does not exist any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match self {
            ReadError::Gone { .. } => true,
            ReadError::Namespace { source, .. } | ReadError::Process { source, .. } => {
                source.is_gone()
            }
            // between the look at /proc and the seizing
            ReadError::Seize { source, .. } => source.raw_os_error() == Some(libc::ESRCH),
            _ => false,
        }
    }
}

/// Every filter of a thread of a container, the first installed first; never empty.
///
/// # Errors
/// As [`read`], and [`ReadError::NoFilter`] for a thread without one.
pub fn read_chain(tid: u32, container: NamespaceId) -> Result<Vec<Program>, ReadError> {
    match read(tid, Road::Container(container))? {
        Chain::Filters(programs) => Ok(programs),
        Chain::Unfiltered | Chain::Strict => Err(ReadError::NoFilter { tid }),
    }
}

/// What seccomp holds a thread to.
///
/// # Flow
/// Road, state and number of filters from `/proc`; a thread without filters is not touched. Else `SEIZE` without options;
/// identity and road again, since a seized thread's id cannot be used again; `INTERRUPT`; wait; make the call that was cut
/// short go on; read; compare with the number in `/proc`; `DETACH`, with the signal if one had arrived meanwhile.
///
/// # Guarantees
/// Nothing is stopped that is on no road. The thread is neither stopped nor traced afterwards, whatever failed: all of it
/// runs on a thread that ends here, and the kernel detaches whatever an ending tracer still holds (`exit_ptrace`,
/// kernel/ptrace.c). No call of it fails with `EINTR` that would not have. Returns after little more than two seconds at
/// most.
///
/// # Assumptions
/// Nothing else in this program waits for arbitrary children (`waitpid(-1)`).
///
/// # Caveats
/// What is said at the head of this module. A thread that does not stop in time may find its call interrupted later.
///
/// # Errors
/// One variant for each step.
pub fn read(tid: u32, road: Road) -> Result<Chain, ReadError> {
    let target = Target::new(tid, road)?;
    match readable(tid)? {
        Seccomp::Disabled => return Ok(Chain::Unfiltered),
        Seccomp::Strict => return Ok(Chain::Strict),
        Seccomp::Filters(_) => repair::check(tid)?,
    }
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("filters".to_owned())
            .spawn_scoped(scope, || target.trace(read::chain))
            .map_err(ReadError::Thread)?
            .join()
            .map_err(|_| ReadError::Panicked)?
    })
    .map(Chain::Filters)
}

/// Stops a thread of a container that waits for a supervisor and lets it go: it notifies again.
///
/// The calling thread must end soon afterwards: if this fails, the kernel may detach the thread only then.
pub(crate) fn disturb(tid: u32, container: NamespaceId) -> Result<(), ReadError> {
    let target = Target::new(tid, Road::Container(container))?;
    match readable(tid)? {
        Seccomp::Disabled | Seccomp::Strict => return Err(ReadError::NoFilter { tid }),
        Seccomp::Filters(_) => repair::check(tid)?,
    }
    target.trace(|_| Ok(()))
}

/// How the thread is confined, once it is in a state in which it can be stopped.
fn readable(tid: u32) -> Result<Seccomp, ReadError> {
    let begin = Instant::now();
    loop {
        let status = process::status(tid).map_err(|source| ReadError::Process { tid, source })?;
        if status.is_over() {
            return Err(ReadError::Gone { tid });
        }
        if !matches!(status.seccomp, Seccomp::Filters(_)) {
            return Ok(status.seccomp);
        }
        if let Some(tracer) = status.tracer {
            return Err(ReadError::Traced { tid, tracer });
        }
        if status.state != 'D' {
            return Ok(status.seccomp);
        }
        if begin.elapsed() > SLEEP_LIMIT {
            return Err(ReadError::Uninterruptible { tid });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A thread that may be stopped.
struct Target {
    identity: Identity,
    /// Its id, as ptrace(2) takes it.
    number: i32,
    road: Road,
}

impl Target {
    fn new(tid: u32, road: Road) -> Result<Target, ReadError> {
        let number = i32::try_from(tid)
            .ok()
            .filter(|number| *number > 0)
            .ok_or(ReadError::NoTid { tid })?;
        // before any thread or ptrace call
        road.check(tid)?;
        let identity =
            process::identity(tid).map_err(|source| ReadError::Process { tid, source })?;
        Ok(Target {
            identity,
            number,
            road,
        })
    }

    /// Stops the thread, does the work, lets it go. Whatever a failure leaves traced, the end of the calling thread frees.
    fn trace<T>(&self, work: impl FnOnce(&Seized) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let tid = self.identity.pid;
        let mut seized = Seized::seize(tid, self.number)?;
        self.road.check(tid)?;
        match process::identity(tid) {
            Ok(now) if now == self.identity => {}
            Ok(_) => return Err(ReadError::Gone { tid }),
            Err(source) => return Err(ReadError::Process { tid, source }),
        }
        seized.interrupt()?;
        repair::repair(self.number).map_err(|source| ReadError::Repair { tid, source })?;
        let done = work(&seized)?;
        seized.let_go()?;
        Ok(done)
    }
}
