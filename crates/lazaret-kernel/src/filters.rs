//! Reads back the filters that the kernel runs for a thread.
//!
//! The thread is stopped for it, by ptrace, for well under a millisecond, and let go at once. A thread that waits in a
//! notification has it withdrawn and makes its call again: the supervisor sees the same call with another id.
//!
//! This stops a process of the machine, so it refuses everything that is not surely a container's: above all, every
//! task of this program's own pid namespace. Consequence: a container that shares the host's pid namespace cannot be
//! read.

use crate::process::{self, NamespaceId, ProcessError};
use crate::returned::check;
use lazaret_core::filter::program::{Instruction, MAX_INSTRUCTIONS, Program, ProgramError};
use std::io;
use std::time::{Duration, Instant};

/// How long a thread may take to stop. One that waits in a notification needs about 0.1 ms (measured); one in
/// uninterruptible sleep may never.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// The longest pause between two looks at a thread that has not stopped yet.
const LONGEST_PAUSE: Duration = Duration::from_millis(2);

/// Filters in one chain at most: the kernel's bound on a chain's length allows no more than 32768 / 5
/// (`MAX_INSNS_PER_PATH`, kernel/seccomp.c), and no runtime installs more than three.
const MAX_FILTERS: u64 = 64;

/// `PTRACE_SECCOMP_GET_FILTER` (`include/uapi/linux/ptrace.h`); libc does not name it.
const PTRACE_SECCOMP_GET_FILTER: libc::c_uint = 0x420c;

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
    #[error("thread {tid} is in the gate's own pid namespace, it is not touched")]
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
    /// 0 or above 2^31 - 1.
    #[error("{tid} is no thread id")]
    NoTid {
        /// The number.
        tid: u32,
    },
    /// No thread to trace from.
    #[error("cannot start a tracing thread")]
    Thread(#[source] io::Error),
    /// The tracing thread panicked; the kernel has detached what it traced.
    #[error("tracing thread panicked")]
    Panicked,
    /// `PTRACE_SEIZE`; `EPERM` also when somebody else traces it.
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
    /// `PTRACE_SECCOMP_GET_FILTER`: `EACCES` without `CAP_SYS_ADMIN` or when this program is under a filter itself,
    /// `EINVAL` when the thread has no filter.
    #[error("cannot read filter {index} of thread {tid}")]
    Filter {
        /// The thread.
        tid: u32,
        /// Which filter, from the first installed.
        index: u64,
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
        index: u64,
        /// Why.
        #[source]
        source: ProgramError,
    },
    /// More than this program reads.
    #[error("thread {tid} has more than {MAX_FILTERS} filters")]
    TooMany {
        /// The thread.
        tid: u32,
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

/// Every filter of a thread, the first installed first.
///
/// # Flow
/// Pid namespace checks; `SEIZE` without options; the same checks again, since a seized thread's id cannot be used
/// again; `INTERRUPT`; wait; read; `DETACH`, with the signal if one had arrived meanwhile.
///
/// # Guarantees
/// Nothing is sent to a thread outside `container`, or inside this program's own pid namespace. The thread is neither
/// stopped nor traced afterwards, whatever failed: all of it runs on a thread that ends here, and the kernel detaches
/// whatever an ending tracer still holds (`exit_ptrace`, kernel/ptrace.c). Returns after two seconds at most.
///
/// # Assumptions
/// Nothing else in this program waits for arbitrary children (`waitpid(-1)`).
///
/// # Errors
/// One variant for each step.
pub fn read_chain(tid: u32, container: NamespaceId) -> Result<Vec<Program>, ReadError> {
    let number = i32::try_from(tid)
        .ok()
        .filter(|number| *number > 0)
        .ok_or(ReadError::NoTid { tid })?;
    // before any thread or ptrace call: the target must be a container's
    check_namespace(tid, container)?;
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("filters".to_owned())
            .spawn_scoped(scope, || trace(tid, number, container))
            .map_err(ReadError::Thread)?
            .join()
            .map_err(|_| ReadError::Panicked)?
    })
}

fn check_namespace(tid: u32, container: NamespaceId) -> Result<(), ReadError> {
    let failed = |source| ReadError::Namespace { tid, source };
    let own = process::own_pid_namespace().map_err(failed)?;
    let target = process::pid_namespace(tid).map_err(failed)?;
    if target == own {
        Err(ReadError::OwnNamespace { tid })
    } else if target != container {
        Err(ReadError::OtherNamespace { tid })
    } else {
        Ok(())
    }
}

fn trace(tid: u32, number: i32, container: NamespaceId) -> Result<Vec<Program>, ReadError> {
    let mut seized = Seized::seize(tid, number)?;
    check_namespace(tid, container)?;
    seized.interrupt()?;
    let programs = read_all(tid, number)?;
    seized.let_go()?;
    Ok(programs)
}

/// A thread that this thread traces.
struct Seized {
    tid: u32,
    number: i32,
    /// Stopped, with the signal to give it when it is let go.
    stopped: Option<i32>,
}

impl Seized {
    fn seize(tid: u32, number: i32) -> Result<Seized, ReadError> {
        ptrace(libc::PTRACE_SEIZE, number, 0).map_err(|source| ReadError::Seize { tid, source })?;
        Ok(Seized {
            tid,
            number,
            stopped: None,
        })
    }

    /// Stops the thread and waits until it has.
    fn interrupt(&mut self) -> Result<(), ReadError> {
        let tid = self.tid;
        ptrace(libc::PTRACE_INTERRUPT, self.number, 0)
            .map_err(|source| ReadError::Interrupt { tid, source })?;
        let begin = Instant::now();
        let mut pause = Duration::from_micros(20);
        loop {
            let mut status = 0;
            // JUSTIFICATION: rustix's waitpid has no __WALL, which threads that are not group leaders need.
            // SAFETY: writes one int to a live local.
            let returned = unsafe {
                libc::waitpid(self.number, &raw mut status, libc::__WALL | libc::WNOHANG)
            };
            match check(returned.into()) {
                Ok(0) => {}
                Ok(_) if libc::WIFSTOPPED(status) => {
                    self.stopped = Some(signal_of(status));
                    return Ok(());
                }
                Ok(_) => return Err(ReadError::Gone { tid }),
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(ReadError::Wait { tid, source }),
            }
            if begin.elapsed() > STOP_LIMIT {
                return Err(ReadError::NotStopped { tid });
            }
            // there is no wait with a time limit for a traced thread; a stop takes about 0.1 ms
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn let_go(mut self) -> Result<(), ReadError> {
        let tid = self.tid;
        match self.stopped.take() {
            Some(signal) => {
                detach(self.number, signal).map_err(|source| ReadError::Detach { tid, source })
            }
            None => Ok(()),
        }
    }
}

impl Drop for Seized {
    fn drop(&mut self) {
        // On the way out of an error. A thread that has not stopped cannot be detached; the end of this tracing thread
        // does it (see `read_chain`), as it does when this fails.
        if let Some(signal) = self.stopped.take() {
            drop(detach(self.number, signal));
        }
    }
}

/// The signal that a stopped thread was about to receive; 0 for a stop of ptrace's own.
///
/// A signal may arrive before the interrupt takes effect; then the thread stops for that (ptrace(2), "Signal-delivery-
/// stop") and the signal must be handed on.
fn signal_of(status: i32) -> i32 {
    // PTRACE_EVENT_STOP is 128 (include/uapi/linux/ptrace.h); the stops of a seized thread's own carry it here
    if status >> 16 == 0 {
        libc::WSTOPSIG(status)
    } else {
        0
    }
}

fn detach(number: i32, signal: i32) -> io::Result<()> {
    // signals are 1 to 64
    ptrace(libc::PTRACE_DETACH, number, signal as libc::c_long).map(drop)
}

fn read_all(tid: u32, number: i32) -> Result<Vec<Program>, ReadError> {
    let mut programs = Vec::new();
    for index in 0..=MAX_FILTERS {
        match read_one(number, index) {
            Ok(instructions) => programs.push(
                Program::new(instructions).map_err(|source| ReadError::Program {
                    tid,
                    index,
                    source,
                })?,
            ),
            // past the last one (kernel/seccomp.c, get_nth_filter)
            Err(error) if index > 0 && error.raw_os_error() == Some(libc::ENOENT) => {
                return Ok(programs);
            }
            Err(source) => return Err(ReadError::Filter { tid, index, source }),
        }
    }
    Err(ReadError::TooMany { tid })
}

fn read_one(number: i32, index: u64) -> io::Result<Vec<Instruction>> {
    let mut instructions = vec![
        libc::sock_filter {
            code: 0,
            jt: 0,
            jf: 0,
            k: 0,
        };
        MAX_INSTRUCTIONS
    ];
    // JUSTIFICATION: rustix has no ptrace.
    // SAFETY: the kernel writes the filter's instructions, at most BPF_MAXINSNS (bpf_check_basics_ok), to the pointer,
    // behind which exactly so many are exclusively borrowed.
    let returned = unsafe {
        libc::ptrace(
            PTRACE_SECCOMP_GET_FILTER,
            number,
            index,
            instructions.as_mut_ptr(),
        )
    };
    let length = usize::try_from(check(returned)?).unwrap_or_default();
    Ok(instructions
        .iter()
        .take(length)
        .map(|read| Instruction {
            code: read.code,
            jt: read.jt,
            jf: read.jf,
            k: read.k,
        })
        .collect())
}

/// A ptrace request whose address is 0 and whose data is a number.
fn ptrace(request: libc::c_uint, number: i32, data: libc::c_long) -> io::Result<libc::c_long> {
    // JUSTIFICATION: rustix has no ptrace.
    // SAFETY: SEIZE, INTERRUPT and DETACH read and write no memory of this process (ptrace(2)).
    let returned = unsafe { libc::ptrace(request, number, 0 as libc::c_long, data) };
    check(returned)
}
