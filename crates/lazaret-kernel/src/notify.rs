//! A seccomp listener: receive the calls that a filter asks about, and answer them.
//!
//! Two answers exist, *continue* and an errno, so an answer with both (which the kernel refuses, leaving the caller
//! waiting) cannot be written. Values are never injected and descriptors never added. Nothing here looks behind a
//! pointer argument: see `seccomp_unotify(2)` on why a decision must not rest on what stands there.
//!
//! `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV` is not set by anything in this project: with it, a caller whose supervisor
//! died between receiving and answering could not be freed by a stop (measured).

use crate::returned::check;
use lazaret_core::filter::rule::Call;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The largest `struct seccomp_notif` this program accepts, in 8-byte words. Linux 6.18 has 10; the structure may grow.
const MAX_NOTIFICATION_WORDS: usize = 128;

/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP` (include/uapi/linux/seccomp.h); libc does not have it.
const FD_SYNC_WAKE_UP: u64 = 1;

/// Something went wrong with a listener as a whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotifyError {
    /// `seccomp(SECCOMP_GET_NOTIF_SIZES)`.
    #[error("cannot ask the kernel for the sizes of seccomp notifications")]
    Sizes(#[source] io::Error),
    /// A kernel whose structures are not those of `include/uapi/linux/seccomp.h`.
    #[error(
        "kernel's seccomp notification has {notification} bytes and its answer {response}, \
         expected {} to {} and {}",
        size_of::<libc::seccomp_notif>(), MAX_NOTIFICATION_WORDS * 8, size_of::<libc::seccomp_notif_resp>()
    )]
    UnknownSizes {
        /// Bytes of `struct seccomp_notif`.
        notification: usize,
        /// Bytes of `struct seccomp_notif_resp`.
        response: usize,
    },
    /// The descriptor is something else.
    #[error("descriptor is not a seccomp listener")]
    NotAListener(#[source] io::Error),
    /// `poll(2)`.
    #[error("cannot wait for seccomp notifications")]
    Poll(#[source] io::Error),
    /// `SECCOMP_IOCTL_NOTIF_RECV`.
    #[error("cannot receive a seccomp notification")]
    Receive(#[source] io::Error),
    /// `SECCOMP_IOCTL_NOTIF_SET_FLAGS`.
    #[error("cannot set the flags of a seccomp listener")]
    Flags(#[source] io::Error),
    /// `SECCOMP_IOCTL_NOTIF_SEND`; the caller is left waiting.
    #[error("cannot answer seccomp notification {id:#x}")]
    Respond {
        /// The notification.
        id: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// One call that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The kernel's number for it; the ids of one listener are consecutive.
    pub id: u64,
    /// The calling *thread* in the receiver's pid namespace; 0 when it is not visible there.
    pub tid: u32,
    /// Flags, 0 so far.
    pub flags: u32,
    /// The call, as the filter saw it.
    pub call: Call,
    /// Where the call instruction stands in the caller.
    pub instruction_pointer: u64,
}

/// What the caller gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The call is executed (`SECCOMP_USER_NOTIF_FLAG_CONTINUE`).
    Continue,
    /// The call fails with this errno; 0 makes it return 0 without being executed.
    Errno(u16),
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// The kernel took it.
    Delivered,
    /// The caller no longer waits: a signal interrupted it (then the call is notified again, with another id), or it
    /// is gone.
    Withdrawn,
}

/// What [`Listener::poll`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// A notification waits: [`Listener::recv`] does not block.
    Waiting,
    /// Every task under the filter is gone; nothing will come any more.
    HungUp,
    /// Nothing happened in the time given.
    Nothing,
}

/// The supervising end of a filter that asks.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    notification_words: usize,
}

impl Listener {
    /// Takes over a descriptor that should be a seccomp listener.
    ///
    /// # Errors
    /// When it is none, or when the kernel's structures are not those that this program knows.
    pub fn new(fd: OwnedFd) -> Result<Listener, NotifyError> {
        let mut sizes = libc::seccomp_notif_sizes {
            seccomp_notif: 0,
            seccomp_notif_resp: 0,
            seccomp_data: 0,
        };
        // JUSTIFICATION: neither std nor rustix wraps seccomp(2).
        // SAFETY: SECCOMP_GET_NOTIF_SIZES writes one `struct seccomp_notif_sizes` to the pointer, which is exclusively
        // borrowed from a live local of that type (seccomp(2)).
        let returned = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_GET_NOTIF_SIZES,
                0,
                &raw mut sizes,
            )
        };
        check(returned).map_err(NotifyError::Sizes)?;
        let notification = usize::from(sizes.seccomp_notif);
        let response = usize::from(sizes.seccomp_notif_resp);
        let notification_words = notification.div_ceil(8);
        if notification < size_of::<libc::seccomp_notif>()
            || notification_words > MAX_NOTIFICATION_WORDS
            || response != size_of::<libc::seccomp_notif_resp>()
        {
            return Err(NotifyError::UnknownSizes {
                notification,
                response,
            });
        }
        let listener = Listener {
            fd,
            notification_words,
        };
        // Id 0 belongs to no notification (ids begin at a random 63-bit number, kernel/seccomp.c, init_listener): a
        // listener says ENOENT, any other descriptor refuses the request.
        match listener.id_valid(0) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(NotifyError::NotAListener(error)),
        }
        Ok(listener)
    }

    /// Tells the kernel that whoever sends an answer soon waits for the next call, so that the caller may run at once on the
    /// same CPU, and the other way round. It is a hint about scheduling: kernels before 6.6 do not know it, and nothing changes there
    /// (`SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`, include/uapi/linux/seccomp.h).
    ///
    /// # Errors
    /// When the kernel refuses otherwise.
    pub fn wake_synchronously(&self) -> Result<(), NotifyError> {
        // JUSTIFICATION: neither std nor rustix wraps the seccomp listener's ioctls.
        // SAFETY: the request takes its argument by value and touches no memory (kernel/seccomp.c, seccomp_notify_set_flags).
        let returned = unsafe {
            libc::ioctl(
                self.fd.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS,
                FD_SYNC_WAKE_UP,
            )
        };
        match check(returned.into()) {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            Err(error) => Err(NotifyError::Flags(error)),
        }
    }

    /// Waits until something happens, at most `timeout_ms` milliseconds; a signal counts as nothing.
    ///
    /// A notification that waits is reported before the hang-up.
    ///
    /// # Errors
    /// When `poll(2)` fails otherwise.
    pub fn poll(&self, timeout_ms: u32) -> Result<Polled, NotifyError> {
        let timeout = Timespec {
            tv_sec: i64::from(timeout_ms / 1000),
            // below 1e9
            tv_nsec: i64::from(timeout_ms % 1000) * 1_000_000,
        };
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Polled::Nothing),
            Err(error) => return Err(NotifyError::Poll(error.into())),
        }
        let seen = fds[0].revents(); // an array of one
        if seen.contains(PollFlags::IN) {
            Ok(Polled::Waiting)
        } else if seen.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            Ok(Polled::HungUp)
        } else {
            Ok(Polled::Nothing)
        }
    }

    /// Receives one notification; blocks unless [`Listener::poll`] has just said [`Polled::Waiting`].
    ///
    /// `None`: the call was withdrawn meanwhile, or every task is gone. Only [`Listener::poll`] tells which, so never
    /// retry without it: a listener without tasks returns `None` at once, for ever.
    ///
    /// # Errors
    /// When the kernel refuses otherwise.
    pub fn recv(&self) -> Result<Option<Notification>, NotifyError> {
        // The kernel refuses a buffer that is not zero (kernel/seccomp.c, seccomp_notify_recv, check_zeroed_user) and
        // writes as many bytes as SECCOMP_GET_NOTIF_SIZES told, which may be more than our structure has.
        let mut buffer = [0u64; MAX_NOTIFICATION_WORDS];
        let Some(buffer) = buffer.get_mut(..self.notification_words) else {
            unreachable!("Listener::new keeps notification_words within MAX_NOTIFICATION_WORDS")
        };
        // JUSTIFICATION: neither std nor rustix wraps the seccomp listener's ioctls.
        // SAFETY: the kernel writes sizeof(struct seccomp_notif) bytes, and `buffer` has at least as many (checked
        // against SECCOMP_GET_NOTIF_SIZES in `new`), is aligned to 8 and exclusively borrowed for the call.
        let returned = unsafe {
            libc::ioctl(
                self.fd.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_RECV,
                buffer.as_mut_ptr(),
            )
        };
        match check(returned.into()) {
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {
                return Ok(None);
            }
            Err(error) => return Err(NotifyError::Receive(error)),
        }
        // JUSTIFICATION: the structure is read out of the larger buffer.
        // SAFETY: `buffer` holds at least size_of::<seccomp_notif>() initialised bytes (checked in `new`), a pointer
        // to u64 is aligned enough for it, and every bit pattern is a value of its integer fields.
        let raw = unsafe { buffer.as_ptr().cast::<libc::seccomp_notif>().read() };
        Ok(Some(Notification {
            id: raw.id,
            tid: raw.pid,
            flags: raw.flags,
            call: Call {
                arch: raw.data.arch,
                // x32's bit and numbers that are none: the same 32 bits
                nr: raw.data.nr.cast_unsigned(),
                args: raw.data.args,
            },
            instruction_pointer: raw.data.instruction_pointer,
        }))
    }

    /// Answers a notification.
    ///
    /// # Errors
    /// When the kernel does not take the answer although the caller waits; it then waits on.
    pub fn respond(&self, id: u64, answer: Answer) -> Result<Answered, NotifyError> {
        let (error, flags) = match answer {
            // the flag is 1
            Answer::Continue => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
            Answer::Errno(errno) => (-i32::from(errno), 0),
        };
        let mut response = libc::seccomp_notif_resp {
            id,
            val: 0,
            error,
            flags,
        };
        // JUSTIFICATION: neither std nor rustix wraps the seccomp listener's ioctls.
        // SAFETY: the kernel reads one `struct seccomp_notif_resp`, whose size was compared with ours in `new`, from a
        // live local.
        let returned = unsafe {
            libc::ioctl(
                self.fd.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SEND,
                &raw mut response,
            )
        };
        match check(returned.into()) {
            Ok(_) => Ok(Answered::Delivered),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Answered::Withdrawn),
            Err(source) => Err(NotifyError::Respond { id, source }),
        }
    }

    /// Whether the caller of a received notification still waits for its answer.
    #[must_use]
    pub fn is_valid(&self, id: u64) -> bool {
        self.id_valid(id).is_ok()
    }

    fn id_valid(&self, id: u64) -> io::Result<()> {
        let mut id = id;
        // JUSTIFICATION: neither std nor rustix wraps the seccomp listener's ioctls.
        // SAFETY: the request reads one u64 from a live local.
        let returned = unsafe {
            libc::ioctl(
                self.fd.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
                &raw mut id,
            )
        };
        check(returned.into()).map(drop)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
