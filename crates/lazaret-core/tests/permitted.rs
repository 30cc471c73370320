//! What a permit opens: everything but denials, the ceiling and foreign conventions, whatever the arguments.

use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::rule::{Call, Verdict};
use lazaret_core::filter::table::nr_of;
use lazaret_core::format::policy::PolicyV1;
use lazaret_core::phase::Phase;
use lazaret_core::policy::Policy;

const POLICY: &str = r#"{
    "apiVersion": "lazaret.dev/v1", "kind": "SyscallPolicy", "metadata": {"name": "t", "revision": 1},
    "image": {"name": "t", "digests": ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},
    "environment": {"arch": "x86_64", "kernel": ">=5.11", "noNewPrivileges": true, "runtimes": ["runc 1.1.5"]},
    "mode": "enforce", "ceiling": "default", "otherwise": {"action": "errno", "errno": "EACCES"},
    "rules": [
        {"allow": ["exit", "exit_group", "read", "restart_syscall", "rt_sigreturn", "write"], "why": "required"},
        {"allow": ["getpid"], "during": ["exec"], "why": "exec"},
        {"allow": ["bind"], "until": "serving", "why": "start"},
        {"deny": ["clone3"], "errno": "ENOSYS", "why": "libc takes clone"},
        {"deny": ["getsid"], "errno": "EPERM", "why": "never"}
    ]
}"#;

fn policy() -> Policy {
    let wire: PolicyV1 = serde_json::from_str(POLICY).expect("the language");
    Policy::try_from(wire).expect("a good policy")
}

fn call(abi: Abi, name: &str) -> Call {
    Call::new(abi, nr_of(abi, name).expect("a call of the table"))
}

#[test]
fn denials_and_ceiling_win_and_everything_else_is_open() {
    let policy = policy();
    let verdict = |abi, name| policy.decide_permitted(&call(abi, name)).verdict;
    for (name, expected) in [
        ("getpid", Verdict::Allow),
        // of other phases, and of none
        ("bind", Verdict::Allow),
        ("getppid", Verdict::Allow),
        // denied by rules, each with its errno
        ("clone3", Verdict::Errno(38)),
        ("getsid", Verdict::Errno(1)),
        // under the ceiling
        ("mount", Verdict::Errno(13)),
        ("ptrace", Verdict::Errno(13)),
    ] {
        assert_eq!(verdict(Abi::X86_64, name), expected, "{name}");
    }
    assert_eq!(verdict(Abi::I386, "getpid"), Verdict::KillProcess);
    // the policy's own rule is told, the permit has none
    let rule = |name| policy.decide_permitted(&call(Abi::X86_64, name)).rule;
    assert!(rule("getpid").is_some() && rule("bind").is_none() && rule("getsid").is_some());
}

#[test]
fn it_is_the_exec_phase_or_open_and_never_opens_what_is_closed_everywhere() {
    let policy = policy();
    let arguments = [0, 1, 0x1000_0000, 0x7e02_0000, u64::MAX];
    let mut opened = 0;
    for abi in [Abi::X86_64, Abi::I386, Abi::X32] {
        for nr in 0..1000 {
            for argument in arguments {
                let mut call = Call::new(abi, nr);
                call.args = [argument; 6];
                let own = policy.decide(Phase::Exec, &call);
                let found = policy.decide_permitted(&call);
                let closed = policy.decide(Phase::Prelude, &call).verdict != Verdict::Allow;
                if own.verdict == Verdict::Allow || closed {
                    assert_eq!(found, own, "{call:?}");
                } else {
                    assert_eq!(
                        (found.verdict, found.rule),
                        (Verdict::Allow, None),
                        "{call:?}"
                    );
                    opened += 1;
                }
            }
        }
    }
    assert!(opened > 0);
}
