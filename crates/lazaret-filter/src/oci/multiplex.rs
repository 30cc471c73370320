//! The calls that i386 also has behind `socketcall` and `ipc`.
//!
//! libseccomp adds a rule for such a call twice: for the call itself, where i386 has it, and for the multiplexer, with the
//! first argument's condition replaced by the call's number there (`abi_rule_add`, `src/syscalls.c`). What the rule says of
//! other arguments is then compared with the multiplexer's, which mean something else.

/// The multiplexer of a call on i386, and the call's number there (`include/uapi/linux/net.h`, `ipc.h`).
pub(super) fn multiplexed(call: &str) -> Option<(&'static str, u64)> {
    let (_, multiplexer, number) = CALLS.iter().find(|(name, ..)| *name == call)?;
    Some((multiplexer, *number))
}

const SOCKETCALL: &str = "socketcall";
const IPC: &str = "ipc";

const CALLS: [(&str, &str, u64); 32] = [
    ("socket", SOCKETCALL, 1),
    ("bind", SOCKETCALL, 2),
    ("connect", SOCKETCALL, 3),
    ("listen", SOCKETCALL, 4),
    ("accept", SOCKETCALL, 5),
    ("getsockname", SOCKETCALL, 6),
    ("getpeername", SOCKETCALL, 7),
    ("socketpair", SOCKETCALL, 8),
    ("send", SOCKETCALL, 9),
    ("recv", SOCKETCALL, 10),
    ("sendto", SOCKETCALL, 11),
    ("recvfrom", SOCKETCALL, 12),
    ("shutdown", SOCKETCALL, 13),
    ("setsockopt", SOCKETCALL, 14),
    ("getsockopt", SOCKETCALL, 15),
    ("sendmsg", SOCKETCALL, 16),
    ("recvmsg", SOCKETCALL, 17),
    ("accept4", SOCKETCALL, 18),
    ("recvmmsg", SOCKETCALL, 19),
    ("sendmmsg", SOCKETCALL, 20),
    ("semop", IPC, 1),
    ("semget", IPC, 2),
    ("semctl", IPC, 3),
    ("semtimedop", IPC, 4),
    ("msgsnd", IPC, 11),
    ("msgrcv", IPC, 12),
    ("msgget", IPC, 13),
    ("msgctl", IPC, 14),
    ("shmat", IPC, 21),
    ("shmdt", IPC, 22),
    ("shmget", IPC, 23),
    ("shmctl", IPC, 24),
];
