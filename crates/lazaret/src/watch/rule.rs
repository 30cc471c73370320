//! The rule that a policy lacks for a call that it denied, as one line of its language.
//!
//! A hint for people, from the call alone: whether the policy has a rule that comes near is for `lazaret policy explain` and
//! `lazaret suggest`, which read it. Never allows what the default ceiling forbids, and never says why: the person who signs does.

use lazaret_core::ceiling::{DEFAULT, Reach};
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::{constants, table};
use lazaret_core::phase::Phase;
use std::fmt;

/// What is missing, or why nothing can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// This rule.
    Rule(String),
    /// Nothing: the default ceiling forbids the call, for this reason.
    Ceiling(&'static str),
    /// Nothing: policies allow calls of one convention only, and know them by name.
    NoName { arch: String },
    /// Nothing: the runtime's own calls are not a policy's.
    Prelude,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Rule(rule) => write!(f, "missing: {rule}"),
            Missing::Ceiling(why) => write!(f, "under the default ceiling: {why}"),
            Missing::NoName { arch } => write!(f, "no rule can allow this call of {arch}"),
            Missing::Prelude => f.write_str("no rule: it is the runtime's call"),
        }
    }
}

/// Arguments by which a call does different things: a rule for it names the value.
const TOLD_APART: [(&str, &str); 5] = [
    ("fcntl", "cmd"),
    ("ioctl", "cmd"),
    ("prctl", "option"),
    ("socket", "domain"),
    ("socketpair", "domain"),
];

/// What is missing for one call.
pub(crate) fn missing(phase: Phase, arch: &str, nr: u32, name: &str, args: &[u64; 6]) -> Missing {
    let no_name = || Missing::NoName {
        arch: crate::control::shown(arch),
    };
    if phase == Phase::Prelude {
        return Missing::Prelude;
    }
    let Some(abi @ (Abi::X86_64 | Abi::Aarch64)) = arch.parse().ok() else {
        return no_name();
    };
    if table::name_of(abi, nr) != Some(name) {
        return no_name();
    }
    let forbidden = DEFAULT.iter().find(|forbidden| {
        forbidden.call == name
            && match forbidden.reach {
                Reach::Always => true,
                // positions are 0 to 5
                Reach::Unless { arg, mask } => args
                    .get(usize::from(arg))
                    .is_some_and(|value| value & mask != 0),
            }
    });
    if let Some(forbidden) = forbidden {
        return Missing::Ceiling(forbidden.why);
    }
    let when = match phase {
        // as the language wants startup written
        Phase::Startup => "until: serving".to_string(),
        other => format!("during: [{other}]"),
    };
    Missing::Rule(match condition(name, args) {
        Some(condition) => format!("- {{allow: [{name}], {when}, when: [{condition}]}}"),
        None => format!("- {{allow: [{name}], {when}}}"),
    })
}

fn condition(name: &str, args: &[u64; 6]) -> Option<String> {
    if name == "clone" {
        // what the ceiling demands of every rule for it
        return Some(format!(
            "{{arg: clone_flags, mask: {:#x}, in: [0]}}",
            lazaret_core::ceiling::NAMESPACE_FLAGS
        ));
    }
    let (_, argument) = TOLD_APART.iter().find(|(call, _)| *call == name)?;
    let (position, definition) = table::arg(name, argument)?;
    let value = args.get(usize::from(position))? & definition.width.mask();
    let value = match constants::name(name, argument, value) {
        Some(constant) => constant.to_string(),
        None => format!("{value:#x}"),
    };
    Some(format!("{{arg: {argument}, in: [{value}]}}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lazaret_core::policy::Policy;

    fn on(phase: Phase, name: &str, args: [u64; 6]) -> Missing {
        let nr = table::nr_of(Abi::X86_64, name).expect("a call");
        missing(phase, "x86_64", nr, name, &args)
    }

    /// The rule stands in a policy and allows the call, in its phase alone.
    fn check(phase: Phase, name: &str, args: [u64; 6], expected: &str) {
        let Missing::Rule(rule) = on(phase, name, args) else {
            panic!("{name}: {:?}", on(phase, name, args));
        };
        assert_eq!(rule, expected);
        let (open, _) = rule.rsplit_once('}').expect("a closing brace");
        let rule = format!("{open}, why: seen}}");
        let text = format!(
            "apiVersion: lazaret.dev/v1\nkind: SyscallPolicy\nmetadata: {{name: t, revision: 1}}\n\
             image: {{name: t, digests: [\"{}\"]}}\n\
             environment: {{arch: x86_64, runtimes: [runc 1.1.5], kernel: \">=5.11\", noNewPrivileges: true}}\n\
             mode: enforce\nphases: {{serving: {{when: {{http: {{port: 80, path: /, status: 200}}, settle: 1s}}}}}}\n\
             ceiling: default\notherwise: {{action: errno, errno: EPERM}}\nrules:\n  \
             - {{allow: [exit, exit_group, read, restart_syscall, rt_sigreturn, write], why: required}}\n  {rule}\n",
            lazaret_core::digest::Digest::of(b"image")
        );
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("policy.yaml");
        std::fs::write(&path, &text).expect("written");
        let policy: Policy = match lazaret_text::any::read(&path) {
            Ok(lazaret_text::any::Input::Policy(policy)) => *policy,
            other => panic!("{other:?}\n{text}"),
        };
        let nr = table::nr_of(Abi::X86_64, name).expect("a call");
        let mut call = lazaret_core::filter::rule::Call::new(Abi::X86_64, nr);
        call.args = args;
        for other in [Phase::Startup, Phase::Serving, Phase::Stopping, Phase::Exec] {
            let verdict = policy.decide(other, &call).verdict;
            let allowed = verdict == lazaret_core::filter::rule::Verdict::Allow;
            assert_eq!(allowed, other == phase, "{name} in {other}: {verdict:?}");
        }
    }

    #[test]
    fn rules_allow_the_call_in_its_phase_alone() {
        let none = [0; 6];
        check(
            Phase::Serving,
            "mkdir",
            none,
            "- {allow: [mkdir], during: [serving]}",
        );
        check(
            Phase::Exec,
            "execve",
            none,
            "- {allow: [execve], during: [exec]}",
        );
        check(
            Phase::Stopping,
            "socket",
            [10, 1, 0, 0, 0, 0],
            "- {allow: [socket], during: [stopping], when: [{arg: domain, in: [AF_INET6]}]}",
        );
        check(
            Phase::Startup,
            "ioctl",
            [1, 0x4321, 0, 0, 0, 0],
            "- {allow: [ioctl], until: serving, when: [{arg: cmd, in: [0x4321]}]}",
        );
        check(
            Phase::Startup,
            "clone",
            [0x11, 0, 0, 0, 0, 0],
            "- {allow: [clone], until: serving, when: [{arg: clone_flags, mask: 0x7e020000, in: [0]}]}",
        );
    }

    #[test]
    fn nothing_is_missing_that_no_policy_may_say() {
        let none = [0; 6];
        assert!(matches!(
            on(Phase::Serving, "ptrace", none),
            Missing::Ceiling(_)
        ));
        let flags = [0x1000_0000, 0, 0, 0, 0, 0];
        assert!(matches!(
            on(Phase::Startup, "clone", flags),
            Missing::Ceiling(_)
        ));
        assert_eq!(on(Phase::Prelude, "mkdir", none), Missing::Prelude);
        for (arch, nr, name) in [
            ("i386", 39, "mkdir"),
            ("x86_64", 9999, "9999"),
            ("x86_64", 83, "rm"),
        ] {
            let missing = missing(Phase::Serving, arch, nr, name, &none);
            assert!(matches!(missing, Missing::NoName { .. }), "{arch} {name}");
        }
    }
}
