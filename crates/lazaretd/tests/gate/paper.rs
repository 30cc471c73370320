//! Policies for tests, as they are written and as the daemon reads them.

use lazaret_core::digest::Digest;
use lazaret_core::format::policy::PolicyV1;
use lazaret_core::policy::Policy;
use serde_json::{Value, json};

/// The configuration of the image that containers are made from.
pub(crate) const IMAGE: &[u8] =
    include_bytes!("../../../../tests/vectors/engines/image-config.json");

/// What a shell needs to come up. `chdir` is the call to try: a builtin of the shell makes it.
pub(crate) const STARTUP: &[&str] = &[
    "access",
    "arch_prctl",
    "brk",
    "chdir",
    "execve",
    "faccessat",
    "faccessat2",
    "fstat",
    "getcwd",
    "getegid",
    "geteuid",
    "getgid",
    "getpid",
    "getppid",
    "getrandom",
    "getuid",
    "ioctl",
    "mmap",
    "mprotect",
    "munmap",
    "openat",
    "poll",
    "pread64",
    "prlimit64",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "set_robust_list",
    "set_tid_address",
    "uname",
];

/// When a policy allows `chdir`, which is the call to try.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chdir {
    /// Until serving.
    Startup,
    /// Never.
    Never,
}

/// What a policy for a test says.
pub(crate) struct Paper {
    pub(crate) revision: u64,
    pub(crate) chdir: Chdir,
    /// Whether processes from outside may start without a permit.
    pub(crate) exec_start: &'static str,
    pub(crate) mode: &'static str,
    pub(crate) serving_port: Option<u16>,
    pub(crate) image: Digest,
    pub(crate) kernel: &'static str,
}

impl Default for Paper {
    fn default() -> Paper {
        Paper {
            revision: 3,
            chdir: Chdir::Startup,
            exec_start: "admit",
            mode: "enforce",
            serving_port: None,
            image: Digest::of(IMAGE),
            kernel: ">=5.11",
        }
    }
}

impl Paper {
    pub(crate) fn policy(&self) -> Policy {
        policy_of(self.text())
    }

    /// The policy as it is written, for tests that say more.
    pub(crate) fn text(&self) -> Value {
        let exec: Vec<_> = STARTUP.iter().filter(|name| **name != "chdir").collect();
        let startup = match self.chdir {
            Chdir::Startup => STARTUP.iter().collect(),
            Chdir::Never => exec.clone(),
        };
        let mut policy = json!({
            "apiVersion": "lazaret.dev/v1",
            "kind": "SyscallPolicy",
            "metadata": {"name": "test", "revision": self.revision},
            "image": {"name": "example/test", "digests": [self.image]},
            "environment": {
                "arch": "x86_64", "kernel": self.kernel, "noNewPrivileges": false, "runtimes": ["test 1"]
            },
            "mode": self.mode,
            "ceiling": "default",
            "otherwise": {"action": "errno", "errno": "EPERM"},
            "rules": [
                {
                    "allow": ["close", "dup2", "exit", "exit_group", "fcntl", "newfstatat", "read", "restart_syscall",
                              "rt_sigreturn", "write"],
                    "why": "a shell that reads commands"
                },
                {"allow": startup, "until": "serving", "why": "a shell that comes up"},
                {"allow": exec, "during": ["exec"], "why": "another shell, which may not go elsewhere"},
            ],
        });
        if let Some(port) = self.serving_port {
            let http = json!({"path": "/metadata", "port": port, "status": 200});
            policy["phases"] = json!({"serving": {"when": {"http": http, "settle": "50ms"}}});
        }
        if self.exec_start != "admit" {
            policy["phases"]["exec"] = json!({"start": self.exec_start});
        }
        policy
    }
}

/// The policy that a text says.
pub(crate) fn policy_of(text: Value) -> Policy {
    let wire: PolicyV1 = serde_json::from_value(text).expect("the language");
    Policy::try_from(wire).expect("a good policy")
}
