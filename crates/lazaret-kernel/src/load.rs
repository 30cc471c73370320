//! Loads a filter into the calling thread, or into every thread of the calling process.
//!
//! Only for oneself, and for good: a filter cannot be removed. Runtimes do it for containers. A process that did it to itself
//! can no longer read other processes' filters (`PTRACE_SECCOMP_GET_FILTER` says `EACCES`: `seccomp_get_filter`,
//! kernel/seccomp.c), so a gate that confines itself must leave that to a process that is not confined.

use crate::returned::check;
use lazaret_core::filter::program::Program;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Converted instructions of all filters of a thread at most: `MAX_INSNS_PER_PATH`, `(1 << 18) / sizeof(struct
/// sock_filter)` (kernel/seccomp.c).
const MAX_CHAIN: u32 = 32_768;

/// A filter was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// `prctl(PR_SET_NO_NEW_PRIVS)`.
    #[error("cannot set no_new_privs")]
    NoNewPrivs(#[source] io::Error),
    /// `seccomp(SECCOMP_SET_MODE_FILTER)` said `ENOMEM`: together with the filters that are there it would be longer than the
    /// kernel runs (`MAX_INSNS_PER_PATH`, kernel/seccomp.c: instructions as the kernel converts them, and 4 more for each
    /// filter that is there), or there is no memory left.
    #[error(
        "filter of {instructions} instructions does not fit on top of the thread's filters: the kernel allows \
         {MAX_CHAIN} converted instructions together (or has no memory)"
    )]
    Chain {
        /// Instructions of the filter, before the kernel converts them.
        instructions: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A thread loaded filters of its own (`SECCOMP_FILTER_FLAG_TSYNC`, seccomp(2)).
    #[error(
        "filters of thread {tid} differ from those of the thread that loads, nothing was loaded"
    )]
    Diverging {
        /// The thread, in the process's own pid namespace.
        tid: u32,
    },
    /// `seccomp(SECCOMP_SET_MODE_FILTER)`.
    #[error("cannot load the filter")]
    Load(#[source] io::Error),
}

/// Sets `no_new_privs` on the calling thread, so that it may load filters without `CAP_SYS_ADMIN`. Cannot be undone.
///
/// # Errors
/// When the kernel refuses.
pub fn set_no_new_privs() -> Result<(), LoadError> {
    rustix::thread::set_no_new_privs(true).map_err(|error| LoadError::NoNewPrivs(error.into()))
}

/// Loads `program` on top of the calling thread's filters.
///
/// # Errors
/// When the kernel refuses: without `no_new_privs` it wants `CAP_SYS_ADMIN`, and a chain of filters has a limit.
pub fn load(program: &Program) -> Result<(), LoadError> {
    set_filter(program, 0).map(drop)
}

/// Loads `program` on top of the calling thread's filters and returns the listener for what it asks.
///
/// # Errors
/// As [`load`]; `EBUSY` when the thread's chain has a listener already.
pub fn load_with_listener(program: &Program) -> Result<OwnedFd, LoadError> {
    let fd = set_filter(program, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    // a descriptor is an int (seccomp(2), "RETURN VALUE")
    let fd = RawFd::try_from(fd).map_err(|_| LoadError::Load(io::ErrorKind::InvalidData.into()))?;
    // SAFETY: with SECCOMP_FILTER_FLAG_NEW_LISTENER the call returns a new descriptor (close-on-exec) that nothing
    // else in this process knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Loads `program` on top of the filters of every thread of the calling process, now and for threads to come.
///
/// # Guarantees
/// All threads get it, or none. `no_new_privs` is not set by it: without `CAP_SYS_ADMIN` call [`set_no_new_privs`] before,
/// which this then spreads to every thread (`seccomp_sync_threads`, kernel/seccomp.c).
///
/// # Errors
/// As [`load`], and [`LoadError::Diverging`] when a thread's filters are not an ancestor of this thread's.
pub fn confine_self(program: &Program) -> Result<(), LoadError> {
    match set_filter(program, libc::SECCOMP_FILTER_FLAG_TSYNC)? {
        0 => Ok(()),
        // a thread id (seccomp(2), "RETURN VALUE")
        tid => Err(LoadError::Diverging { tid: tid as u32 }),
    }
}

fn set_filter(program: &Program, flags: libc::c_ulong) -> Result<libc::c_long, LoadError> {
    let mut instructions: Vec<libc::sock_filter> = program
        .instructions()
        .iter()
        .map(|instruction| libc::sock_filter {
            code: instruction.code,
            jt: instruction.jt,
            jf: instruction.jf,
            k: instruction.k,
        })
        .collect();
    let header = libc::sock_fprog {
        // Program::new keeps at most 4096 instructions
        len: instructions.len() as u16,
        filter: instructions.as_mut_ptr(),
    };
    // JUSTIFICATION: neither std nor rustix wraps seccomp(2).
    // SAFETY: `header` points at `len` instructions in `instructions`, which lives until the call is over; the kernel
    // copies them before it returns (seccomp(2)). A filter that denies calls cannot break memory safety: a denied call
    // is an error return or a signal.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const header,
        )
    };
    check(returned).map_err(|source| match source.raw_os_error() {
        Some(libc::ENOMEM) => LoadError::Chain {
            instructions: instructions.len(),
            source,
        },
        _ => LoadError::Load(source),
    })
}
