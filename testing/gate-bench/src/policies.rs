//! The policies that are measured under: one for the cheap containers of [`crate::sandbox`], one for berth in an engine.

use lazaret_core::digest::Digest;
use lazaret_core::format::policy::PolicyV1;
use lazaret_core::policy::Policy;
use serde_json::{Value, json};

/// What programs need while they come up, besides what they go on needing.
const COMING_UP: [&str; 13] = [
    "access",
    "arch_prctl",
    "execve",
    "fstat",
    "fcntl",
    "ioctl",
    "newfstatat",
    "openat",
    "poll",
    "pread64",
    "prlimit64",
    "readlink",
    "set_tid_address",
];

/// `getppid` is asked about and allowed, `getsid` asked about and denied; what else the program of a cheap container needs
/// the kernel allows by number.
///
/// # Errors
/// When the language does not take it.
pub(crate) fn cheap(image: Digest) -> anyhow::Result<Policy> {
    policy(
        "gate-bench",
        image,
        json!({}),
        json!([
            {
                "allow": ["brk", "clock_gettime", "clone", "close", "exit", "exit_group", "futex", "getrandom", "gettid",
                          "madvise", "mmap", "mprotect", "munmap", "read", "restart_syscall", "rseq", "rt_sigaction",
                          "rt_sigprocmask", "rt_sigreturn", "sched_getaffinity", "sched_yield", "set_robust_list",
                          "sigaltstack", "write"],
                "why": "a program with threads that makes calls and times them"
            },
            {"allow": COMING_UP, "until": "serving", "why": "the same while it comes up"},
            {"allow": COMING_UP, "during": ["exec"], "why": "the same put into the container"},
            {"ask": ["getppid"], "why": "the call that is timed"},
        ]),
    )
}

/// For berth (`testing/berth`), ready by its own answer: what serves is the kernel's, what comes up is asked about.
///
/// # Errors
/// When the language does not take it.
pub(crate) fn berth(image: Digest, port: u16) -> anyhow::Result<Policy> {
    policy(
        "berth",
        image,
        json!({"serving": {"when": {"http": {"path": "/ready", "port": port, "status": 200}, "settle": "100ms"}}}),
        json!([
            {
                "allow": ["accept4", "clock_gettime", "close", "exit", "exit_group", "fcntl", "futex", "getppid", "madvise",
                          "mmap", "mprotect", "munmap", "read", "recvfrom", "restart_syscall", "rt_sigprocmask",
                          "rt_sigreturn", "rt_sigtimedwait", "sched_yield", "sendto", "setsockopt", "shutdown",
                          "sigaltstack", "write", "writev"],
                "why": "an HTTP server with a few threads"
            },
            {
                "allow": ["arch_prctl", "bind", "brk", "clone", "execve", "fstat", "getrandom", "gettid", "listen",
                          "newfstatat", "openat", "poll", "prlimit64", "readlink", "readlinkat", "rseq", "rt_sigaction",
                          "sched_getaffinity", "set_robust_list", "set_tid_address", "socket", "uname"],
                "until": "serving",
                "why": "the same while it comes up"
            },
            {
                "allow": ["arch_prctl", "brk", "clone", "connect", "execve", "fstat", "getrandom", "gettid", "newfstatat",
                          "openat", "poll", "prlimit64", "readlink", "readlinkat", "rseq", "rt_sigaction",
                          "sched_getaffinity", "set_robust_list", "set_tid_address", "socket", "uname"],
                "during": ["exec"],
                "why": "its probe"
            },
            {"allow": ["unlink"], "during": ["stopping"], "why": "what it does at its end"},
        ]),
    )
}

fn policy(name: &str, image: Digest, phases: Value, rules: Value) -> anyhow::Result<Policy> {
    let mut text = json!({
        "apiVersion": "lazaret.dev/v1",
        "kind": "SyscallPolicy",
        "metadata": {"name": name, "revision": 1},
        "image": {"name": format!("example/{name}"), "digests": [image]},
        "environment": {
            "arch": "x86_64", "kernel": ">=5.11", "noNewPrivileges": false, "runtimes": ["gate-bench 1"]
        },
        "mode": "enforce",
        "ceiling": "default",
        "otherwise": {"action": "errno", "errno": "EPERM"},
        "rules": rules,
    });
    if phases != json!({}) {
        text["phases"] = phases;
    }
    let wire: PolicyV1 = serde_json::from_value(text)?;
    Ok(Policy::try_from(wire)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_takes_them() {
        let image = Digest::of(b"image");
        assert_eq!(cheap(image).expect("good").name(), "gate-bench");
        assert_eq!(berth(image, 8080).expect("good").name(), "berth");
    }
}
