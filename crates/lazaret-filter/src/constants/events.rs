//! Vocabularies of waiting: futexes, event descriptors, clocks. Values are those of the headers in the comments; a test compares them.

use super::Names;

/// `include/uapi/linux/futex.h`. The operation shares its argument with two flags: mask 0x7f cuts them off.
pub(super) const FUTEX: Names = &[
    ("FUTEX_WAIT", 0),
    ("FUTEX_WAKE", 1),
    ("FUTEX_FD", 2),
    ("FUTEX_REQUEUE", 3),
    ("FUTEX_CMP_REQUEUE", 4),
    ("FUTEX_WAKE_OP", 5),
    ("FUTEX_LOCK_PI", 6),
    ("FUTEX_UNLOCK_PI", 7),
    ("FUTEX_TRYLOCK_PI", 8),
    ("FUTEX_WAIT_BITSET", 9),
    ("FUTEX_WAKE_BITSET", 10),
    ("FUTEX_WAIT_REQUEUE_PI", 11),
    ("FUTEX_CMP_REQUEUE_PI", 12),
    ("FUTEX_LOCK_PI2", 13),
    ("FUTEX_PRIVATE_FLAG", 128),
    ("FUTEX_CLOCK_REALTIME", 0x100),
];

/// `include/uapi/linux/eventpoll.h`.
pub(super) const EPOLL_CTL: Names = &[
    ("EPOLL_CTL_ADD", 1),
    ("EPOLL_CTL_DEL", 2),
    ("EPOLL_CTL_MOD", 3),
];

/// `include/uapi/linux/eventpoll.h`.
pub(super) const EPOLL_CREATE: Names = &[("EPOLL_CLOEXEC", 0x8_0000)];

/// `include/uapi/linux/eventfd.h` (before 6.10 `include/linux/eventfd.h`).
pub(super) const EVENTFD: Names = &[
    ("EFD_SEMAPHORE", 1),
    ("EFD_NONBLOCK", 0x800),
    ("EFD_CLOEXEC", 0x8_0000),
];

/// `include/uapi/linux/signalfd.h`.
pub(super) const SIGNALFD: Names = &[("SFD_NONBLOCK", 0x800), ("SFD_CLOEXEC", 0x8_0000)];

/// `include/uapi/linux/inotify.h`.
pub(super) const INOTIFY: Names = &[("IN_NONBLOCK", 0x800), ("IN_CLOEXEC", 0x8_0000)];

/// `include/uapi/linux/timerfd.h`.
pub(super) const TIMERFD: Names = &[("TFD_NONBLOCK", 0x800), ("TFD_CLOEXEC", 0x8_0000)];

/// `include/uapi/linux/time.h`.
pub(super) const CLOCKS: Names = &[
    ("CLOCK_REALTIME", 0),
    ("CLOCK_MONOTONIC", 1),
    ("CLOCK_PROCESS_CPUTIME_ID", 2),
    ("CLOCK_THREAD_CPUTIME_ID", 3),
    ("CLOCK_MONOTONIC_RAW", 4),
    ("CLOCK_REALTIME_COARSE", 5),
    ("CLOCK_MONOTONIC_COARSE", 6),
    ("CLOCK_BOOTTIME", 7),
    ("CLOCK_REALTIME_ALARM", 8),
    ("CLOCK_BOOTTIME_ALARM", 9),
    ("CLOCK_TAI", 11),
];

/// `include/uapi/linux/random.h`.
pub(super) const GETRANDOM: Names = &[
    ("GRND_NONBLOCK", 1),
    ("GRND_RANDOM", 2),
    ("GRND_INSECURE", 4),
];
