//! The policy language by cases: what is refused, where, and what the accepted means. Both sides of each rule.

use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::rule::{Call, Verdict};
use lazaret_core::filter::table::nr_of;
use lazaret_core::format::policy::PolicyV1;
use lazaret_core::phase::Phase;
use lazaret_core::policy::{Policy, PolicyError};

mod common;
use common::{read, refused, text};

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
