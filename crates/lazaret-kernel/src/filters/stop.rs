//! Stops a thread by ptrace and lets it go; it never stays stopped or traced.
//!
//! Reads and changes nothing of it.

use super::ReadError;
use crate::returned::check;
use std::io;
use std::time::{Duration, Instant};

/// How long a thread may take to stop. One that waits in a notification needs about 0.1 ms (measured); one in
/// uninterruptible sleep may never.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(2);

/// The longest pause between two looks at a thread that has not stopped yet.
const LONGEST_PAUSE: Duration = Duration::from_millis(2);

/// A thread that this thread traces.
pub(super) struct Seized {
    tid: u32,
    number: i32,
    /// Stopped, with the signal to give it when it is let go.
    stopped: Option<i32>,
}

impl Seized {
    /// Traces the thread. It runs on, unless job control had stopped it; it is then in the same stop, but ours.
    pub(super) fn seize(tid: u32, number: i32) -> Result<Seized, ReadError> {
        request(libc::PTRACE_SEIZE, number, 0)
            .map_err(|source| ReadError::Seize { tid, source })?;
        Ok(Seized {
            tid,
            number,
            stopped: None,
        })
    }

    pub(super) fn tid(&self) -> u32 {
        self.tid
    }

    /// The same as [`Seized::tid`], as ptrace(2) takes it.
    pub(super) fn number(&self) -> i32 {
        self.number
    }

    /// Stops the thread and waits until it has.
    pub(super) fn interrupt(&mut self) -> Result<(), ReadError> {
        let tid = self.tid;
        request(libc::PTRACE_INTERRUPT, self.number, 0)
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

    /// Lets the thread go on as it was: with the signal it was about to receive, back in the stop of job control where that
    /// had stopped it (`__ptrace_unlink`, kernel/ptrace.c, which tells the parent nothing).
    pub(super) fn let_go(mut self) -> Result<(), ReadError> {
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
        // does it (`super::read`), as it does when this fails.
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
    request(libc::PTRACE_DETACH, number, signal as libc::c_long).map(drop)
}

/// A ptrace request whose address is 0 and whose data is a number.
fn request(request: libc::c_uint, number: i32, data: libc::c_long) -> io::Result<libc::c_long> {
    // JUSTIFICATION: rustix has no ptrace.
    // SAFETY: SEIZE, INTERRUPT and DETACH read and write no memory of this process (ptrace(2)).
    let returned = unsafe { libc::ptrace(request, number, 0 as libc::c_long, data) };
    check(returned)
}
