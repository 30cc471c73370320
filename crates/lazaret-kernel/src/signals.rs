//! What this process does at a signal. Only what std and tokio do not offer.

use crate::returned::check;
use std::io;

/// Ignores `SIGTERM`, `SIGINT` and `SIGHUP`: for a helper process that ends with its parent, while such a signal is sent to the whole
/// process group or cgroup. `SIGKILL` ends it all the same. What it executes later inherits this (execve(2)).
///
/// # Errors
/// When the kernel refuses, which it does for none of these.
pub fn ignore_requests_to_end() -> io::Result<()> {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // JUSTIFICATION: std and rustix have no way to ignore a signal.
        // SAFETY: SIG_IGN runs no code in this process (signal(2)).
        let before = unsafe { libc::signal(signal, libc::SIG_IGN) };
        // SIG_ERR is -1
        check(before as libc::c_long)?;
    }
    Ok(())
}
