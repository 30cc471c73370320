//! The one place where a kernel return becomes a [`io::Result`]; nothing else in this crate reads `errno`.

use std::io;

/// A return value of `libc::syscall` or of a libc wrapper: −1 means that `errno` says why.
pub(crate) fn check(returned: libc::c_long) -> io::Result<libc::c_long> {
    if returned == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(returned)
    }
}
