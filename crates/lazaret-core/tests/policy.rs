//! The policy language by cases: what is refused, where, and what the accepted means. Both sides of each rule.

use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::rule::{Call, Verdict};
use lazaret_core::filter::table::nr_of;
use lazaret_core::format::policy::PolicyV1;
use lazaret_core::phase::Phase;
use lazaret_core::policy::{Policy, PolicyError};

/// A policy in JSON with these rules beside the required ones; `extra` replaces top-level fields.
fn text(rules: &str, extra: &[(&str, &str)]) -> String {
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let rules = format!(
        r#"[{{"allow":["exit","exit_group","restart_syscall","rt_sigreturn","write"],"why":"required"}}{}{rules}]"#,
        if rules.is_empty() { "" } else { "," }
    );
    let image = format!(r#"{{"name":"t","digests":["{digest}"]}}"#);
    let mut fields = vec![
        ("apiVersion", r#""lazaret.dev/v1""#),
        ("ceiling", r#""default""#),
        (
            "environment",
            r#"{"arch":"x86_64","kernel":">=5.11","noNewPrivileges":true,"runtimes":["runc 1.1.5"]}"#,
        ),
        ("image", image.as_str()),
        ("kind", r#""SyscallPolicy""#),
        ("metadata", r#"{"name":"t","revision":1}"#),
        ("mode", r#""enforce""#),
        ("otherwise", r#"{"action":"errno","errno":"EACCES"}"#),
        ("rules", rules.as_str()),
    ];
    for (name, value) in extra {
        fields.retain(|(field, _)| field != name);
        fields.push((name, value));
    }
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    format!("{{{}}}", fields.join(","))
}

fn read(json: &str) -> Result<Policy, PolicyError> {
    Policy::try_from(serde_json::from_str::<PolicyV1>(json).expect("the test's JSON has the shape"))
}

fn policy(rules: &str) -> Policy {
    read(&text(rules, &[])).unwrap_or_else(|error| panic!("{rules}: {error}"))
}

fn call(name: &str, args: &[u64]) -> Call {
    let mut call = Call::new(
        Abi::X86_64,
        nr_of(Abi::X86_64, name).expect("a call of the table"),
    );
    call.args[..args.len()].copy_from_slice(args);
    call
}

#[track_caller]
fn refused(json: &str, wanted: &[&str]) {
    match read(json) {
        Err(PolicyError::Problems { problems }) => {
            let found: Vec<String> = problems.iter().map(ToString::to_string).collect();
            assert_eq!(found, wanted, "{json}");
        }
        other => panic!("{json}: {other:?}"),
    }
}

#[test]
fn rules_hold_in_their_phases() {
    use Phase::{Exec, Prelude, Serving, Startup, Stopping};
    let policy = policy(
        r#"{"allow":["getpid"],"why":""},{"allow":["bind"],"until":"serving","why":""},
           {"allow":["sync"],"during":["stopping"],"why":""},{"allow":["listen"],"until":"stopping","why":""},
           {"allow":["uname"],"during":["exec"],"why":""},{"deny":["clone3"],"errno":"ENOSYS","why":""}"#,
    );
    let cases: [(&str, &[Phase]); 8] = [
        ("getpid", &[Prelude, Startup, Serving, Stopping, Exec]),
        ("bind", &[Prelude, Startup]),
        ("sync", &[Prelude, Stopping]),
        ("listen", &[Prelude, Startup, Serving]),
        ("uname", &[Prelude, Exec]),
        ("clone3", &[]),
        ("mount", &[]),
        ("getppid", &[Prelude]),
    ];
    for (name, phases) in cases {
        for phase in Phase::ALL {
            let denied = if name == "clone3" {
                Verdict::Errno(38)
            } else {
                Verdict::Errno(13)
            };
            let wanted = if phases.contains(&phase) {
                Verdict::Allow
            } else {
                denied
            };
            assert_eq!(
                policy.decide(phase, &call(name, &[])).verdict,
                wanted,
                "{name} in {phase}"
            );
        }
    }
    // foreign conventions are closed, whatever their number means here
    for foreign in [
        Call::new(Abi::I386, 20),
        Call::new(Abi::X32, 39),
        Call::new(Abi::Aarch64, 172),
    ] {
        assert_eq!(
            policy.decide(Phase::Serving, &foreign).verdict,
            Verdict::KillProcess
        );
    }
}

#[test]
fn conditions_compare_the_masked_width() {
    let policy = policy(
        r#"{"allow":["socket"],"when":[{"arg":"domain","in":["AF_INET","AF_UNIX"]},{"arg":"type","mask":15,"in":["SOCK_STREAM"]}],"why":""},
           {"allow":["clone"],"why":""}"#,
    );
    let verdict =
        |name: &str, args: &[u64]| policy.decide(Phase::Serving, &call(name, args)).verdict;
    assert_eq!(verdict("socket", &[2, 1]), Verdict::Allow);
    assert_eq!(
        verdict("socket", &[1, 0x80801]),
        Verdict::Allow,
        "type flags are outside the mask"
    );
    // the kernel reads 32 bits of `family`: what the upper half holds means nothing (CVE-2019-9893)
    assert_eq!(
        verdict("socket", &[0xdead_beef_0000_0002, 1]),
        Verdict::Allow
    );
    assert_eq!(verdict("socket", &[16, 1]), Verdict::Errno(13));
    assert_eq!(verdict("socket", &[2, 2]), Verdict::Errno(13));
    // the ceiling over clone's namespace flags holds under an unconditional allow
    assert_eq!(verdict("clone", &[0x11]), Verdict::Allow);
    assert_eq!(verdict("clone", &[0x1000_0011]), Verdict::Errno(13));
}

#[test]
fn bands_follow_the_rules() {
    let policy = policy(
        r#"{"allow":["read"],"why":""},{"allow":["bind"],"until":"serving","why":""},
           {"allow":["clone"],"when":[{"arg":"clone_flags","mask":2114060288,"in":[0]}],"why":""},
           {"allow":["socket"],"when":[{"arg":"family","in":["AF_UNIX"]}],"why":""},
           {"allow":["socketpair"],"when":[{"arg":"family","in":["AF_UNIX"]}],"why":""},
           {"allow":["socketpair"],"until":"serving","why":""},
           {"allow":["execve"],"why":"starts helpers"}"#,
    );
    let table = policy.kernel_table();
    let kernel = |name: &str, args: &[u64]| table.decide(&call(name, args));
    assert_eq!(
        kernel("execve", &[]),
        Verdict::Ask,
        "papers are checked at it"
    );
    assert_eq!(
        policy.decide(Phase::Serving, &call("execve", &[])).verdict,
        Verdict::Allow
    );
    assert_eq!(kernel("read", &[]), Verdict::Allow);
    assert_eq!(kernel("bind", &[]), Verdict::Ask, "start-up only: asked");
    assert_eq!(
        kernel("getppid", &[]),
        Verdict::Ask,
        "unknown but not dangerous: asked"
    );
    assert_eq!(kernel("mount", &[]), Verdict::Errno(13), "ceiling: final");
    assert_eq!(kernel("clone", &[0x11]), Verdict::Allow);
    assert_eq!(
        kernel("clone", &[0x1000_0000]),
        Verdict::Errno(13),
        "final, not asked"
    );
    assert_eq!(kernel("socket", &[1]), Verdict::Allow);
    assert_eq!(
        kernel("socket", &[2]),
        Verdict::Errno(13),
        "libseccomp has no `else ask`"
    );
    assert_eq!(
        kernel("socketpair", &[1]),
        Verdict::Ask,
        "phases decide the rest, so all of it is asked"
    );
    assert_eq!(
        policy.bpf_table().decide(&call("socket", &[2])),
        Verdict::Ask,
        "our own BPF has"
    );
    assert_eq!(table.decide(&Call::new(Abi::I386, 1)), Verdict::KillThread);
    let unseen: Vec<u32> = policy
        .unseen()
        .into_iter()
        .map(|unseen| unseen.nr)
        .collect();
    assert_eq!(
        unseen,
        ["socket", "clone"].map(|name| nr_of(Abi::X86_64, name).expect("known"))
    );
    let fixed = policy.static_table();
    assert_eq!(
        fixed.decide(&call("bind", &[])),
        Verdict::Allow,
        "static: the union of the phases"
    );
    assert_eq!(
        fixed.decide(&call("getppid", &[])),
        Verdict::Errno(13),
        "static: nothing is asked"
    );
}

#[test]
fn every_problem_is_told_with_its_place() {
    let rule = |rule: &str| text(rule, &[]);
    let cases = [
        (
            rule(r#"{"allow":["open","reed","open"],"why":""}"#),
            vec![
                "rules[1].allow[1]: unknown system call `reed` for x86_64",
                "rules[1].allow[2]: `open` stands here twice",
            ],
        ),
        (
            rule(r#"{"deny":["reed"],"why":""}"#),
            vec!["rules[1].deny[0]: unknown system call `reed` for x86_64"],
        ),
        (
            rule(r#"{"allow":["mount"],"why":""}"#),
            vec!["rules[1].allow[0]: `mount` is under the ceiling: no rule can allow it"],
        ),
        (
            rule(r#"{"allow":["write"],"why":""},{"deny":["read","write"],"why":""}"#),
            vec![
                "rules[0].allow[4]: `write` is denied by rules[2] and allowed here",
                "rules[1].allow[0]: `write` is denied by rules[2] and allowed here",
            ],
        ),
        (
            rule(r#"{"deny":["read"],"why":""},{"deny":["read"],"why":""}"#),
            vec!["rules[2].deny[0]: `read` is denied already by rules[1]"],
        ),
        (
            rule(r#"{"why":""}"#),
            vec!["rules[1]: a rule has exactly one of `allow` and `deny`"],
        ),
        (
            rule(r#"{"allow":["read"],"errno":"EPERM","why":""}"#),
            vec!["rules[1].errno: `errno` does not go with `allow`"],
        ),
        (
            rule(r#"{"deny":["read"],"until":"serving","why":""}"#),
            vec!["rules[1].until: `until` does not go with `deny`"],
        ),
        (
            rule(r#"{"deny":["read"],"errno":"EIO","why":""}"#),
            vec!["rules[1].errno: unknown errno `EIO`, expected EPERM, EACCES or ENOSYS"],
        ),
        (
            rule(r#"{"allow":[],"why":""}"#),
            vec!["rules[1].allow: the list is empty"],
        ),
        (
            rule(r#"{"allow":["read"],"until":"noon","why":""}"#),
            vec!["rules[1].until: `noon` cannot stand here, expected serving or stopping"],
        ),
        (
            rule(r#"{"allow":["read"],"during":["startup"],"why":""}"#),
            vec!["rules[1].during: write `until: serving` instead"],
        ),
        (
            rule(r#"{"allow":["read"],"during":["prelude"],"why":""}"#),
            vec![
                "rules[1].during[0]: `prelude` cannot stand here, expected startup, serving, stopping or exec",
                "rules[1].during: the list is empty",
            ],
        ),
        (
            rule(r#"{"allow":["read"],"when":[{"arg":"fd","in":[1]}],"why":""}"#),
            vec![
                "rules[1].when[0].arg: `read` has no argument `fd`, its arguments are not in the table",
            ],
        ),
        (
            rule(r#"{"allow":["socket"],"when":[{"arg":"family","in":["AF_NOWHERE"]}],"why":""}"#),
            vec![
                "rules[1].when[0].in[0]: unknown constant `AF_NOWHERE` for argument `family` of `socket`",
            ],
        ),
        (
            rule(r#"{"allow":["socket"],"when":[{"arg":"type","mask":15,"in":[16]}],"why":""}"#),
            vec![
                "rules[1].when[0].in[0]: value 0x10 has bits outside the mask 0xf, the condition could never hold",
            ],
        ),
        (
            rule(
                r#"{"allow":["socket"],"when":[{"arg":"type","mask":4294967296,"in":[0]}],"why":""}"#,
            ),
            vec!["rules[1].when[0].mask: mask 0x100000000 does not fit an argument of 32 bits"],
        ),
        (
            rule(
                r#"{"allow":["socket"],"when":[{"arg":"type","in":[1]},{"arg":"type","in":[2]}],"why":""}"#,
            ),
            vec![
                "rules[1].when[1].arg: two conditions on argument `type`: join them in one mask and list",
            ],
        ),
        (
            text("", &[("ceiling", r#""open""#)]),
            vec!["ceiling: unknown ceiling `open`, the named one is `default`"],
        ),
        (
            text("", &[("kind", r#""Pod""#)]),
            vec!["kind: `Pod` is not supported, expected SyscallPolicy"],
        ),
        (
            text("", &[("metadata", r#"{"name":"Ä","revision":0}"#)]),
            vec![
                "metadata.name: `Ä` is no name: 1 to 128 characters of a-z, 0-9, `-`, `.` and `/`, beginning with a letter or digit",
                "metadata.revision: revision 0, revisions count from 1",
            ],
        ),
        (
            text(
                "",
                &[(
                    "environment",
                    r#"{"arch":"i386","kernel":">=5.11","noNewPrivileges":true,"runtimes":[]}"#,
                )],
            ),
            vec!["environment.arch: `i386` is not supported, expected x86_64 or aarch64"],
        ),
        (
            text(
                "",
                &[(
                    "environment",
                    r#"{"arch":"x86_64","kernel":">=5.4","noNewPrivileges":true,"runtimes":[]}"#,
                )],
            ),
            vec![
                "environment.kernel: `>=5.4` is no kernel bound, expected `>=MAJOR.MINOR` of at least 5.11",
            ],
        ),
        (
            text(
                "",
                &[(
                    "phases",
                    r#"{"serving":{"when":{"http":{"path":"x y","port":0,"status":20},"settle":"2h"}}}"#,
                )],
            ),
            vec![
                "phases.serving.when.http.port: 0 is no TCP port",
                "phases.serving.when.http.status: 20 is no HTTP status",
                "phases.serving.when.http.path: `x y` is no path of at most 1024 characters beginning with `/`",
                "phases.serving.when.settle: `2h` is no duration from 0s to 1h, as `10s` or `500ms`",
            ],
        ),
        (
            text(
                "",
                &[(
                    "rules",
                    r#"[{"allow":["exit","restart_syscall","rt_sigreturn","write"],"why":""}]"#,
                )],
            ),
            vec![
                "rules: `exit_group` must be allowed in every phase without conditions: processes end through it",
            ],
        ),
    ];
    for (json, wanted) in &cases {
        refused(json, wanted);
    }
}

#[test]
fn unknown_fields_are_errors() {
    for (place, json) in [
        ("top", text("", &[("surprise", "1")])),
        (
            "rule",
            text(r#"{"allow":["read"],"why":"","log":true}"#, &[]),
        ),
        (
            "environment",
            text(
                "",
                &[(
                    "environment",
                    r#"{"arch":"x86_64","kernel":">=5.11","noNewPrivileges":true,"runtimes":[],"x":1}"#,
                )],
            ),
        ),
    ] {
        let error = serde_json::from_str::<PolicyV1>(&json)
            .expect_err(place)
            .to_string();
        assert!(error.contains("unknown field"), "{place}: {error}");
    }
}

#[test]
fn a_name_of_another_architecture_is_a_warning_under_allow_and_an_error_under_deny() {
    // fadvise64_64 exists on i386 only
    assert_eq!(
        policy(r#"{"allow":["read","fadvise64_64"],"why":""}"#)
            .unresolved()
            .len(),
        1
    );
    refused(
        &text(r#"{"deny":["fadvise64_64"],"why":""}"#, &[]),
        &["rules[1].deny[0]: unknown system call `fadvise64_64` for x86_64"],
    );
}

#[test]
fn the_canonical_form_does_not_depend_on_order_and_is_exact() {
    let one = policy(
        r#"{"allow":["read","open"],"why":"a"},{"allow":["bind"],"until":"serving","why":"b"}"#,
    );
    let two = policy(
        r#"{"allow":["bind"],"until":"serving","why":"b"},{"allow":["open","read"],"why":"a"}"#,
    );
    assert_eq!(one.canonical_json(), two.canonical_json());
    assert_eq!(one.digest(), two.digest());
    assert_eq!(
        Policy::from_canonical_json(&one.canonical_json()).as_ref(),
        Ok(&one)
    );
    let mut spaced = one.canonical_json();
    spaced.push(b' ');
    assert_eq!(
        Policy::from_canonical_json(&spaced),
        Err(PolicyError::NotCanonical)
    );
    assert!(matches!(
        Policy::from_canonical_json(&vec![b' '; 2 << 20]),
        Err(PolicyError::TooLarge { .. })
    ));
    // sorted keys: what another implementation of canonical JSON would write
    let text = String::from_utf8(one.canonical_json()).expect("JSON is UTF-8");
    let keys: Vec<usize> = [
        "apiVersion",
        "ceiling",
        "environment",
        "image",
        "kind",
        "metadata",
        "mode",
        "otherwise",
        "rules",
    ]
    .iter()
    .map(|key| text.find(&format!("\"{key}\":")).expect("present"))
    .collect();
    assert!(keys.is_sorted(), "{text}");
}

#[test]
fn another_host_is_told_apart() {
    let policy = policy("");
    assert_eq!(
        policy.environment_mismatch(Abi::X86_64, "6.18.44-fc-v669"),
        None
    );
    assert_eq!(policy.environment_mismatch(Abi::X86_64, "5.11"), None);
    assert!(
        policy
            .environment_mismatch(Abi::X86_64, "5.10.200")
            .is_some()
    );
    assert!(policy.environment_mismatch(Abi::Aarch64, "6.1.0").is_some());
    assert!(
        policy
            .environment_mismatch(Abi::X86_64, "unknown")
            .is_some()
    );
}
