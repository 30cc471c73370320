//! System calls by name, each with arguments that do no harm: most fail in the kernel's own checks.
//!
//! The kernel is called directly, so that a filter sees exactly the call that was named and no libc stands between.
//! The table is for x86-64, which is what the tests run on.

use std::ffi::CStr;
use std::io;

use libc::{c_long, sigset_t};

/// Arguments of a call.
#[derive(Debug, Clone, Copy)]
enum Args {
    /// Numbers only (no pointers): a request may replace them.
    Numbers(&'static [u64]),
    /// A path first, then numbers.
    Path(&'static CStr, &'static [u64]),
    /// A number, then a path, then numbers.
    AtPath(u64, &'static CStr, &'static [u64]),
    /// One buffer of 512 bytes for the kernel to write into.
    Buffer,
}

/// `AT_FDCWD` as the kernel reads it.
const CWD: u64 = libc::AT_FDCWD as u64;

/// A name in `/tmp`, which is a tmpfs in the tests' containers.
const SCRATCH: &CStr = c"/tmp/berth";
/// No further arguments.
const NONE: &[u64] = &[];

const NOWHERE: &CStr = c"/nonexistent";

use Args::{AtPath, Buffer, Numbers, Path};

const CALLS: &[(&str, c_long, Args)] = &[
    ("acct", libc::SYS_acct, Path(NOWHERE, &[])),
    ("add_key", libc::SYS_add_key, Numbers(&[0, 0, 0, 0, 0])),
    ("alarm", libc::SYS_alarm, Numbers(&[0])),
    ("bpf", libc::SYS_bpf, Numbers(&[0, 0, 0])),
    ("chroot", libc::SYS_chroot, Path(c"/", &[])),
    ("clone3", libc::SYS_clone3, Numbers(&[0, 0])),
    (
        "delete_module",
        libc::SYS_delete_module,
        Path(c"lazaret_no_such_module", &[0]),
    ),
    ("eventfd2", libc::SYS_eventfd2, Numbers(&[0, 0])),
    ("execve", libc::SYS_execve, Path(NOWHERE, &[0, 0])),
    ("getpid", libc::SYS_getpid, Numbers(&[])),
    ("getppid", libc::SYS_getppid, Numbers(&[])),
    ("getpriority", libc::SYS_getpriority, Numbers(&[0, 0])),
    ("getsid", libc::SYS_getsid, Numbers(&[0])),
    ("inotify_init1", libc::SYS_inotify_init1, Numbers(&[0])),
    ("io_uring_setup", libc::SYS_io_uring_setup, Numbers(&[0, 0])),
    (
        "keyctl",
        libc::SYS_keyctl,
        Numbers(&[u32::MAX as u64, 0, 0, 0, 0]),
    ),
    ("memfd_create", libc::SYS_memfd_create, Path(c"berth", &[0])),
    ("mkdir", libc::SYS_mkdir, Path(SCRATCH, &[0o700])),
    ("mkdirat", libc::SYS_mkdirat, AtPath(CWD, SCRATCH, &[0o700])),
    ("mount", libc::SYS_mount, Numbers(&[0, 0, 0, 0, 0])),
    ("openat2", libc::SYS_openat2, AtPath(CWD, NOWHERE, &[0, 0])),
    (
        "personality",
        libc::SYS_personality,
        Numbers(&[0xffff_ffff]),
    ),
    ("pivot_root", libc::SYS_pivot_root, Path(NOWHERE, &[0])),
    (
        "prctl",
        libc::SYS_prctl,
        Numbers(&[libc::PR_GET_DUMPABLE as u64, 0, 0, 0, 0]),
    ),
    // PTRACE_ATTACH to a pid that cannot be: ESRCH.
    (
        "ptrace",
        libc::SYS_ptrace,
        Numbers(&[libc::PTRACE_ATTACH as u64, i32::MAX as u64, 0, 0]),
    ),
    ("rmdir", libc::SYS_rmdir, Path(SCRATCH, &[])),
    ("sched_yield", libc::SYS_sched_yield, Numbers(&[])),
    ("sethostname", libc::SYS_sethostname, Path(c"berth", &[5])),
    ("setns", libc::SYS_setns, Numbers(&[u32::MAX as u64, 0])),
    (
        "socket",
        libc::SYS_socket,
        Numbers(&[libc::AF_NETLINK as u64, libc::SOCK_RAW as u64, 0]),
    ),
    ("swapoff", libc::SYS_swapoff, Path(NOWHERE, &[])),
    (
        "timerfd_create",
        libc::SYS_timerfd_create,
        Numbers(&[libc::CLOCK_MONOTONIC as u64, 0]),
    ),
    ("umask", libc::SYS_umask, Numbers(&[0o022])),
    ("umount2", libc::SYS_umount2, Path(NOWHERE, &[0])),
    ("uname", libc::SYS_uname, Buffer),
    ("unlink", libc::SYS_unlink, Path(c"/tmp/berth.stop", &[])),
    // CLONE_FS: concerns only the calling thread's umask, root and working directory.
    (
        "unshare",
        libc::SYS_unshare,
        Numbers(&[libc::CLONE_FS as u64]),
    ),
    (
        "userfaultfd",
        libc::SYS_userfaultfd,
        Numbers(&[u32::MAX as u64]),
    ),
];

/// Calls whose result is a file descriptor, which is closed again.
const GIVE_A_FILE: &[&str] = &[
    "eventfd2",
    "inotify_init1",
    "memfd_create",
    "openat2",
    "socket",
    "timerfd_create",
    "userfaultfd",
];

/// What the kernel answered.
#[derive(Debug)]
pub(crate) struct Outcome {
    result: i64,
    errno: i32,
}

impl Outcome {
    /// One line of JSON; `errno` is 0 when the call worked.
    pub(crate) fn json(&self, name: &str) -> String {
        format!(
            "{{\"call\": \"{name}\", \"result\": {}, \"errno\": {}}}",
            self.result, self.errno
        )
    }

    fn of(result: i64) -> Self {
        let errno = if result == -1 {
            io::Error::last_os_error().raw_os_error().unwrap_or(0)
        } else {
            0
        };
        Self { result, errno }
    }
}

/// The names that [`make`] knows.
pub(crate) fn names() -> Vec<&'static str> {
    CALLS.iter().map(|(name, ..)| *name).collect()
}

/// Makes the call of this name; `None` when it is not in the table. Numbers replace the table's arguments where the call
/// takes numbers only.
pub(crate) fn make(name: &str, numbers: &[Option<u64>]) -> Option<Outcome> {
    let (name, nr, args) = CALLS.iter().find(|(known, ..)| *known == name)?;
    let mut registers = [0_u64; 6];
    let mut buffer = [0_u8; 512];
    let (skip, rest) = match args {
        Numbers(rest) => (0, rest),
        Path(path, rest) => {
            registers[0] = path.as_ptr() as u64;
            (1, rest)
        }
        AtPath(at, path, rest) => {
            registers[0] = *at;
            registers[1] = path.as_ptr() as u64;
            (2, rest)
        }
        Buffer => {
            registers[0] = buffer.as_mut_ptr() as u64;
            (1, &NONE)
        }
    };
    for (register, value) in registers.iter_mut().skip(skip).zip(rest.iter()) {
        *register = *value;
    }
    if matches!(args, Numbers(_)) {
        for (register, asked) in registers.iter_mut().zip(numbers) {
            *register = asked.unwrap_or(*register);
        }
    }
    let [a, b, c, d, e, f] = registers;
    // JUSTIFICATION: the point of this program is to make one named call and nothing else.
    // SAFETY: the pointers in the table are to constants that end in NUL and are only read, and `buffer`, which outlives the
    // call, is larger than struct utsname, the only thing written. The calls that take numbers pass null where the kernel
    // expects a pointer; a test that asks for another address gets EFAULT or spoils this server's memory, and nothing else.
    let result = unsafe { libc::syscall(*nr, a, b, c, d, e, f) };
    let outcome = Outcome::of(result);
    if result >= 0 && GIVE_A_FILE.contains(name) {
        // SAFETY: the call has just given us this descriptor and nobody else knows it.
        unsafe { libc::close(result as i32) };
    }
    Some(outcome)
}

/// Forks a child that ends at once, and waits for it.
pub(crate) fn fork_once() -> Outcome {
    // JUSTIFICATION: std can only fork to execute a program.
    // SAFETY: the child makes one async-signal-safe call and nothing else (fork(2), signal-safety(7)).
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: _exit(2) runs no handlers and does not return.
        unsafe { libc::_exit(0) };
    }
    let outcome = Outcome::of(child.into());
    if child > 0 {
        let mut status = 0;
        // SAFETY: `status` is ours and lives until waitpid(2) has returned.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
    }
    outcome
}

/// SIGTERM, blocked in every thread that is made from now on.
#[derive(Debug)]
pub(crate) struct Terminate {
    signals: sigset_t,
}

/// Blocks SIGTERM, so that [`Terminate::wait`] gets it. Without this, process 1 of a container ignores it.
pub(crate) fn on_terminate() -> io::Result<Terminate> {
    let mut signals = std::mem::MaybeUninit::<sigset_t>::uninit();
    // SAFETY: sigemptyset(3) initialises the whole set.
    unsafe { libc::sigemptyset(signals.as_mut_ptr()) };
    // SAFETY: initialised by the line above.
    let mut signals = unsafe { signals.assume_init() };
    // SAFETY: the set is initialised and ours.
    unsafe { libc::sigaddset(&raw mut signals, libc::SIGTERM) };
    // SAFETY: the set is initialised; the old mask is not asked for.
    let failed =
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut()) };
    if failed == 0 {
        Ok(Terminate { signals })
    } else {
        Err(io::Error::from_raw_os_error(failed))
    }
}

impl Terminate {
    /// Waits for SIGTERM.
    pub(crate) fn wait(&self) {
        let mut signal = 0;
        // SAFETY: the set is initialised and `signal` ours. The only failure is an invalid set (sigwait(3)).
        unsafe { libc::sigwait(&raw const self.signals, &raw mut signal) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers() {
        let works = make("getppid", &[]).expect("it is in the table");
        assert!(works.result > 0 && works.errno == 0, "{works:?}");
        let fails = make("execve", &[]).expect("it is in the table");
        assert_eq!(fails.errno, libc::ENOENT);
        assert!(make("no_such_call", &[]).is_none());
    }

    #[test]
    fn numbers_replace_arguments() {
        let bad_domain = make("socket", &[Some(9999)]).expect("it is in the table");
        assert_eq!(bad_domain.errno, libc::EAFNOSUPPORT);
        assert_eq!(
            make("umask", &[Some(0o027)])
                .expect("it is in the table")
                .errno,
            0
        );
        assert_eq!(
            make("umask", &[]).expect("it is in the table").result,
            0o027
        );
    }

    #[test]
    fn a_forked_child_ends() {
        assert_eq!(fork_once().errno, 0);
    }

    #[test]
    fn names_are_sorted_and_used_once() {
        let names = names();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
        assert!(GIVE_A_FILE.iter().all(|name| names.contains(name)));
    }
}
