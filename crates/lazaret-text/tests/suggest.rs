//! Suggestions as a change of the policy's own text: what changes, what stays, and that the outcome means what it should.

use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::rule::{Call, Verdict};
use lazaret_core::filter::table::{calls, nr_of};
use lazaret_core::format::policy::CallV1;
use lazaret_core::phase::Phase;
use lazaret_core::policy::Policy;
use lazaret_core::suggest::{Drift, Why};
use lazaret_text::policy::parse;
use lazaret_text::{SuggestError, Suggested, suggest};
use proptest::prelude::*;

const POLICY: &str = r#"# written by a person
apiVersion: lazaret.dev/v1
kind: SyscallPolicy
metadata: {name: fhir, revision: 3} # the third
image:
  name: example/fhir
  digests: ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]
environment: {arch: x86_64, runtimes: [runc 1.1.5], kernel: ">=5.11", noNewPrivileges: true}
mode: observe
phases:
  serving: {when: {tcp: {port: 8080}}}
ceiling: default
otherwise: {action: errno, errno: EPERM}
rules:
  # what nobody can do without
  - allow: [exit, exit_group, read, restart_syscall, rt_sigreturn, write]
    why: required
  - ask: [mkdir]
    until: serving
    why: to see it
  - allow: [socket]
    when: [{arg: domain, in: [AF_INET]}, {arg: type, mask: 0xf, in: [SOCK_STREAM]}]
    why: connections
  - deny: [memfd_create]
    why: "programs that are in no image" # on purpose
  # the end of the rules

# the end of the text
"#;

fn drift(phase: Phase, call: &str, args: &[[u64; 6]]) -> Drift {
    Drift {
        phase,
        call: Drift::call_of(call),
        process: "java".to_owned(),
        args: args.to_vec(),
        times: 12,
        since: "2026-11-22".to_owned(),
    }
}

#[track_caller]
fn suggested(text: &str, drift: &[Drift]) -> Suggested {
    suggest(text, "policy.yaml", drift).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn allows(policy: &Policy, phase: Phase, call: &str, args: [u64; 6]) -> bool {
    let mut made = Call::new(Abi::X86_64, nr_of(Abi::X86_64, call).expect("known"));
    made.args = args;
    policy.decide(phase, &made).verdict == Verdict::Allow
}

#[test]
fn the_change_is_the_rules_the_revision_and_nothing_else() {
    let found = suggested(
        POLICY,
        &[
            drift(Phase::Serving, "openat", &[]),
            drift(Phase::Startup, "bind", &[]),
            drift(Phase::Serving, "mkdir", &[[1, 2, 3, 4, 5, 6]]),
        ],
    );
    let wanted = r#"--- a/policy.yaml
+++ b/policy.yaml
@@ -1,7 +1,7 @@
 # written by a person
 apiVersion: lazaret.dev/v1
 kind: SyscallPolicy
-metadata: {name: fhir, revision: 3} # the third
+metadata: {name: fhir, revision: 4} # the third
 image:
   name: example/fhir
   digests: ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]
@@ -23,6 +23,15 @@
     why: connections
   - deny: [memfd_create]
     why: "programs that are in no image" # on purpose
+  - allow: [bind]
+    until: serving
+    why: "drift: seen 12 times in startup by java since 2026-11-22"
+  - ask: [mkdir]
+    during: [serving]
+    why: "drift: seen 12 times in serving by java since 2026-11-22"
+  - allow: [openat]
+    during: [serving]
+    why: "drift: seen 12 times in serving by java since 2026-11-22"
   # the end of the rules
 
 # the end of the text
"#;
    assert_eq!(found.diff, wanted, "{}", found.diff);
    assert_eq!((found.rules, found.left.len()), (3, 0));
    let policy = parse(&found.patched).expect("a policy");
    assert_eq!(policy.revision(), 4);
    for (phase, call) in [
        (Phase::Serving, "openat"),
        (Phase::Startup, "bind"),
        (Phase::Serving, "mkdir"),
        (Phase::Startup, "mkdir"),
    ] {
        assert!(allows(&policy, phase, call, [0; 6]), "{phase} {call}");
    }
    assert!(!allows(&policy, Phase::Startup, "openat", [0; 6]));
    assert!(!allows(&policy, Phase::Serving, "bind", [0; 6]));
    assert!(!allows(&policy, Phase::Exec, "mkdir", [0; 6]));
}

#[test]
fn conditions_are_widened_by_what_was_seen_only() {
    let args = |domain, kind| [domain, kind, 0, 0, 0, 0];
    let found = suggested(
        POLICY,
        &[drift(
            Phase::Serving,
            "socket",
            // AF_NETLINK SOCK_RAW|SOCK_CLOEXEC, AF_UNIX SOCK_STREAM and SOCK_DGRAM; the last one is allowed already
            &[args(16, 0x8_0003), args(1, 1), args(1, 2), args(2, 1)],
        )],
    );
    let policy = parse(&found.patched).expect("a policy");
    assert_eq!((found.rules, found.left.len()), (2, 0), "{}", found.diff);
    assert!(found.diff.contains(
        "+  - allow: [socket]\n+    during: [serving]\n+    when:\n+    - {arg: family, in: [AF_UNIX]}\n+    - {arg: type, mask: 0xf, in: [SOCK_STREAM, SOCK_DGRAM]}\n"
    ), "{}", found.diff);
    for (domain, kind, wanted) in [
        (16, 3, true),
        (1, 1, true),
        (1, 2, true),
        (2, 1, true),
        (16, 1, false),
        (16, 2, false),
        (1, 3, false),
        (2, 2, false),
        (10, 1, false),
    ] {
        let found = allows(&policy, Phase::Serving, "socket", args(domain, kind));
        assert_eq!(found, wanted, "{domain} {kind}");
    }
    assert!(!allows(&policy, Phase::Startup, "socket", args(1, 1)));

    let many: Vec<[u64; 6]> = (20..37).map(|domain| args(domain, 1)).collect();
    for (given, why) in [
        (
            many,
            Why::TooManyValues {
                found: 17,
                limit: 16,
            },
        ),
        (vec![], Why::NoArguments),
        (vec![args(2, 1)], Why::Allowed),
    ] {
        let found = suggested(POLICY, &[drift(Phase::Serving, "socket", &given)]);
        assert_eq!(found.rules, 0);
        assert_eq!(found.left.first().map(|left| &left.why), Some(&why));
    }
}

#[test]
fn what_is_closed_on_purpose_is_named_and_never_proposed() {
    let namespace = [0x2000_0000, 0, 0, 0, 0, 0];
    let drifts = [
        drift(Phase::Serving, "mount", &[]),
        drift(Phase::Serving, "memfd_create", &[]),
        drift(Phase::Serving, "clone", &[namespace]),
        drift(Phase::Prelude, "capset", &[]),
        drift(Phase::Serving, "quux", &[]),
        drift(Phase::Serving, "read", &[]),
    ];
    let found = suggested(POLICY, &drifts);
    assert_eq!(
        (found.patched.as_str(), found.diff.as_str(), found.rules),
        (POLICY, "", 0)
    );
    let mut told: Vec<String> = found.left.iter().map(ToString::to_string).collect();
    told.sort();
    assert_eq!(
        told,
        [
            "`capset`, 12 times in prelude: no rule speaks of the prelude",
            "`clone`, 12 times in serving: it is under the ceiling, no rule can allow it",
            "`memfd_create`, 12 times in serving: the policy denies it: \"programs that are in no image\"",
            "`mount`, 12 times in serving: it is under the ceiling, no rule can allow it",
            "`quux`, 12 times in serving: it is no call of the policy's architecture",
            "`read`, 12 times in serving: this policy allows it",
        ]
    );
    // beside what can be allowed of the same call
    let both = [namespace, [0x3d_0f00, 0, 0, 0, 0, 0]];
    let found = suggested(POLICY, &[drift(Phase::Serving, "clone", &both)]);
    let policy = parse(&found.patched).expect("a policy");
    assert!(allows(&policy, Phase::Serving, "clone", both[1]));
    assert!(!allows(&policy, Phase::Serving, "clone", namespace));
}

#[test]
fn an_execve_that_tells_a_restart_is_not_opened() {
    let text = POLICY
        .replace("phases:\n", "phases:\n  startup: {restarts: 1}\n")
        .replace("ask: [mkdir]", "allow: [execve]");
    let found = suggested(&text, &[drift(Phase::Serving, "execve", &[])]);
    assert_eq!(
        found.left.first().map(|left| &left.why),
        Some(&Why::Restart)
    );
    let found = suggested(POLICY, &[drift(Phase::Serving, "execve", &[])]);
    assert_eq!(found.rules, 1);
}

/// The same policy in other layouts, each of which takes another rule.
fn layouts() -> Vec<String> {
    let json = parse(POLICY).expect("a policy").canonical_json();
    let json = String::from_utf8(json).expect("text");
    let rules = POLICY.find("rules:\n").expect("there");
    let short = "rules:\n- allow: [exit, exit_group, read, restart_syscall, rt_sigreturn, write]\n  why: required";
    let head = POLICY.get(..rules).expect("text");
    let last_first = short.replace("rules:", "rules: # first").replacen(
        "- allow",
        "-\n    why: >-\n      folded\n      text\n    allow",
        1,
    );
    let last_first = last_first.replace("\n  why: required", "");
    let (before, after) = head.split_at(head.find("mode:").expect("there"));
    let moved = format!("{before}{short}\n\n# then the rest\n{after}");
    vec![
        POLICY.to_owned(),
        POLICY.replace('\n', "\r\n"),
        POLICY.trim_end().to_owned(),
        format!("{head}{short}"),
        format!("{head}{short}   # the reason\n"),
        format!(
            "{head}{}",
            short.replace("required", ">-\n    two\n    lines\n")
        ),
        format!("{head}{}", short.replace("required", "\"two\n    lines\"")),
        format!("{head}{last_first}\n"),
        format!("{head}{last_first}"),
        moved,
        POLICY.replace("revision: 3", "revision: 0x3"),
        POLICY.replace(
            "metadata: {name: fhir, revision: 3}",
            "metadata:\n  revision:   3\n  name: fhir",
        ),
        format!("{json}\n"),
        json.replace("},{", "},\n {"),
        json,
        format!(
            "{head}rules: [{{allow: [exit, exit_group, read, restart_syscall, rt_sigreturn, write], why: required}}]"
        ),
        format!(
            "{head}rules: [\n  {{allow: [exit, exit_group, read, restart_syscall, rt_sigreturn, write], why: required}}, # one\n]\n"
        ),
        format!(
            "{head}rules:\n  - why: required\n    allow: [\n      exit, exit_group, read, # these\n      restart_syscall, rt_sigreturn, write\n    ]\n"
        ),
    ]
}

#[test]
fn every_layout_takes_the_rules_and_keeps_its_lines() {
    let drifts = [
        drift(Phase::Serving, "openat", &[]),
        drift(Phase::Stopping, "unlink", &[]),
    ];
    for text in layouts() {
        let before = parse(&text).unwrap_or_else(|error| panic!("{text}\n{error}"));
        let found = suggested(&text, &drifts);
        let policy = parse(&found.patched).expect("a policy");
        assert_eq!(found.rules, 2);
        assert_eq!(policy.revision(), before.revision() + 1);
        assert_eq!(
            policy.wire().rules.len(),
            before.wire().rules.len() + 2,
            "{}",
            found.patched
        );
        for comment in [
            "# written",
            "# the third",
            "# on purpose",
            "# the end",
            "# one",
            "# these",
            "# the reason",
        ] {
            assert_eq!(
                found.patched.matches(comment).count(),
                text.matches(comment).count(),
                "{comment}"
            );
        }
        let all = found.patched.matches('\n').count();
        if text.contains("\r\n") {
            assert_eq!(found.patched.matches("\r\n").count(), all);
        }
        // a second round finds its place too
        let again = suggested(&found.patched, &[drift(Phase::Exec, "kill", &[])]);
        let last = parse(&again.patched).expect("a policy");
        assert_eq!(last.revision(), before.revision() + 2);
    }
}

#[test]
fn what_cannot_be_changed_is_an_error() {
    let drifts = [drift(Phase::Serving, "openat", &[])];
    let last = POLICY.replace("revision: 3", "revision: 18446744073709551615");
    assert!(matches!(
        suggest(&last, "x", &drifts),
        Err(SuggestError::Revision(_))
    ));
    assert!(matches!(
        suggest("rules: []", "x", &drifts),
        Err(SuggestError::Text(_))
    ));
    let rule = "  - allow: [getpid]\n    why: x\n";
    let full = POLICY.replace("  # the end of the rules\n", &rule.repeat(1020));
    assert!(suggest(&full, "x", &[]).is_ok());
    let error = suggest(&full, "x", &drifts)
        .err()
        .map(|error| error.to_string());
    let error = error.unwrap_or_default();
    assert!(error.contains("1025 elements, at most 1024"), "{error}");
}

#[test]
fn a_process_cannot_write_into_the_policy() {
    let mut one = drift(Phase::Serving, "openat", &[]);
    one.process = "a\n  - allow: [kill]'\"\u{1b}[31m #{}".to_owned();
    let mut drifts = vec![one.clone()];
    for nr in 0..300 {
        one.process = format!("{nr}{}", "ä".repeat(500));
        drifts.push(one.clone());
    }
    let found = suggested(POLICY, &drifts);
    assert_eq!(found.rules, 1);
    let policy = parse(&found.patched).expect("a policy");
    assert!(!allows(&policy, Phase::Serving, "kill", [0; 6]));
    assert!(found.diff.contains("and others"), "{}", found.diff);
}

fn any_drift() -> impl Strategy<Value = Drift> {
    let names: Vec<&'static str> = calls(Abi::X86_64).map(|(_, name)| name).collect();
    let call = prop_oneof![
        8 => prop::sample::select(names).prop_map(CallV1::from),
        4 => prop::sample::select(vec!["socket", "clone", "mkdir", "execve"]).prop_map(CallV1::from),
        1 => (900u32..1000).prop_map(CallV1::Number),
    ];
    let args = prop::collection::vec(
        prop::array::uniform6(prop_oneof![0u64..20, any::<u64>()]),
        0..4,
    );
    (
        prop::sample::select(Phase::ALL.to_vec()),
        call,
        ".{0,20}",
        args,
        1u64..1000,
    )
        .prop_map(|(phase, call, process, args, times)| Drift {
            phase,
            call,
            process,
            times: times.max(args.len() as u64),
            args,
            since: "2026-11-22".to_owned(),
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    /// Old policy and exactly these rules; each drifted call that was not left is allowed in its phase, and nothing else that
    /// was denied is, but for the calls of the rules.
    #[test]
    fn the_patched_text_is_the_old_policy_and_the_rules(
        drifts in prop::collection::vec(any_drift(), 0..12),
        layout in prop::sample::select(layouts()),
        probes in prop::collection::vec((0u32..480, prop::array::uniform6(0u64..20)), 16),
    ) {
        let before = parse(&layout).expect("a policy");
        let found = suggest(&layout, "p", &drifts).expect("a suggestion");
        let after = parse(&found.patched).expect("a policy");
        let core = lazaret_core::suggest::suggest(&before, &drifts);
        let wanted = Policy::try_from(core.apply(before.wire()).expect("a revision")).expect("a policy");
        prop_assert_eq!(&after, &wanted);
        prop_assert_eq!(core.rules.len(), found.rules);

        let nr = |call: &CallV1| match call {
            CallV1::Name(name) => nr_of(Abi::X86_64, name).expect("known"),
            CallV1::Number(nr) => *nr,
        };
        for drift in &drifts {
            let left = core.left.iter().any(|left| nr(&left.call) == nr(&drift.call) && left.phase == drift.phase);
            for args in &drift.args {
                let mut call = Call::new(Abi::X86_64, nr(&drift.call));
                call.args = *args;
                let decision = after.decide(drift.phase, &call).verdict;
                let was = before.decide(drift.phase, &call).verdict;
                let capped = before.cases(drift.phase, call.nr).iter().any(|case| {
                    case.cause == lazaret_core::policy::explain::Cause::Ceiling
                        && case.when.iter().all(|condition| condition.holds(args))
                });
                prop_assert!(decision == Verdict::Allow || left || capped, "{:?} {:?}", drift, was);
            }
            if !left && drift.args.is_empty() && drift.phase != Phase::Prelude {
                let open = after.cases(drift.phase, nr(&drift.call)).iter().any(|case| case.verdict == Verdict::Allow);
                prop_assert!(open, "{:?}", drift);
            }
        }
        for (number, args) in probes {
            let mut call = Call::new(Abi::X86_64, number);
            call.args = args;
            for phase in Phase::ALL {
                let was = before.decide(phase, &call).verdict;
                let is = after.decide(phase, &call).verdict;
                let drifted = drifts.iter().any(|drift| nr(&drift.call) == number && drift.phase == phase);
                prop_assert!(is == was || drifted, "{:?} {:?}", phase, call);
            }
        }
        // the order of the drift does not matter
        let mut turned = drifts.clone();
        turned.reverse();
        prop_assert_eq!(lazaret_core::suggest::suggest(&before, &turned), core);
    }
}
