//! The policy language by cases: what is refused, where, and what the accepted means. Both sides of each rule.

use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::oci::{Listener, OciError, profile};
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
fn a_range_holds_from_its_first_value_to_its_last() {
    let policy = policy(
        r#"{"allow":["listen"],"when":[{"arg":"backlog","in":[{"from":2,"to":5},9,{"from":4294967290}]}],"why":""},
           {"allow":["socket"],"when":[{"arg":"family","in":[{"from":"AF_INET","to":"AF_IPX"}]},{"arg":"type","mask":240,"in":[{"to":32}]}],"why":""}"#,
    );
    let allowed = |name: &str, args: &[u64]| {
        policy.decide(Phase::Serving, &call(name, args)).verdict == Verdict::Allow
    };
    let backlog = |value| allowed("listen", &[3, value]);
    for inside in [2, 3, 5, 9, 0xffff_fffa, 0xffff_ffff, 0xdead_0000_0004] {
        assert!(backlog(inside), "{inside:#x}");
    }
    for outside in [0, 1, 6, 8, 10, 0xffff_fff9, 0x1_0000_0000] {
        assert!(!backlog(outside), "{outside:#x}");
    }
    // the ends may have names, and a mask is put on before the comparison
    for (family, kind, wanted) in [
        (2, 0, true),
        (4, 0x2f, true),
        (1, 0, false),
        (5, 0, false),
        (3, 0x10f, true),
        (3, 0x30, false),
    ] {
        assert_eq!(
            allowed("socket", &[family, kind]),
            wanted,
            "{family} {kind:#x}"
        );
    }
}

#[test]
fn a_list_is_no_range() {
    let listen = |value: &str| {
        let rule = format!(
            r#"{{"allow":["listen"],"when":[{{"arg":"backlog","in":[{value}]}}],"why":""}}"#
        );
        serde_json::from_str::<PolicyV1>(&text(&rule, &[]))
    };
    assert!(listen(r#"{"from":10}"#).is_ok());
    for slip in ["[10]", "[10,20]", "[]", "null"] {
        assert!(listen(slip).is_err(), "{slip}");
    }
}

#[test]
fn what_is_asked_is_never_the_kernels_to_allow() {
    let policy = policy(
        r#"{"ask":["mkdir"],"why":""},{"ask":["unlink"],"during":["stopping"],"why":""},
           {"allow":["socket"],"when":[{"arg":"family","in":[{"from":1,"to":10}]}],"why":""},
           {"ask":["socket"],"when":[{"arg":"family","in":[2,16]}],"why":""},
           {"allow":["bind"],"until":"serving","why":""},{"ask":["bind"],"why":""}"#,
    );
    let decided = |phase, name: &str, args: &[u64]| policy.decide(phase, &call(name, args)).verdict;
    assert_eq!(decided(Phase::Serving, "mkdir", &[]), Verdict::Allow);
    assert_eq!(decided(Phase::Serving, "unlink", &[]), Verdict::Errno(13));
    assert_eq!(decided(Phase::Stopping, "unlink", &[]), Verdict::Allow);
    assert_eq!(decided(Phase::Serving, "socket", &[16]), Verdict::Allow);
    assert_eq!(decided(Phase::Serving, "socket", &[17]), Verdict::Errno(13));
    let (profile, bpf) = (policy.kernel_table(), policy.bpf_table());
    for (name, args, in_profile, in_bpf) in [
        ("mkdir", &[][..], Verdict::Ask, Verdict::Ask),
        ("unlink", &[], Verdict::Ask, Verdict::Ask),
        ("bind", &[], Verdict::Ask, Verdict::Ask),
        // libseccomp cannot ask about a part of a call
        ("socket", &[1], Verdict::Ask, Verdict::Allow),
        ("socket", &[2], Verdict::Ask, Verdict::Ask),
        ("socket", &[16], Verdict::Ask, Verdict::Ask),
        ("socket", &[17], Verdict::Ask, Verdict::Ask),
    ] {
        assert_eq!(
            profile.decide(&call(name, args)),
            in_profile,
            "{name} {args:?}"
        );
        assert_eq!(bpf.decide(&call(name, args)), in_bpf, "{name} {args:?}");
    }
    assert_eq!(
        policy.static_table().decide(&call("mkdir", &[])),
        Verdict::Allow,
        "static: nobody can be asked"
    );
}

#[test]
fn what_a_profile_cannot_say_is_asked() {
    let ranges = r#"{"allow":["mmap"],"when":[{"arg":"addr","in":[{"from":1,"to":1073741822}]},{"arg":"len","in":[{"from":4097,"to":1073741822}]}],"why":""}"#;
    let many: Vec<String> = (0..40).map(|value| (2 * value).to_string()).collect();
    let many = format!(
        r#"{{"allow":["socket"],"when":[{{"arg":"family","in":[{0}]}},{{"arg":"protocol","in":[{0}]}}],"why":""}}"#,
        many.join(",")
    );
    let flags = r#"{"allow":["clone"],"when":[{"arg":"flags","mask":65535,"in":[{"from":1,"to":65535}]}],"why":""}"#;
    let policy = policy(&format!("{ranges},{many},{flags}"));
    let (profile, bpf) = (policy.kernel_table(), policy.bpf_table());
    for (name, inside, outside) in [
        ("mmap", &[1, 0x2000][..], &[1, 0x4000_0000][..]),
        ("socket", &[78, 1, 78], &[78, 1, 79]),
        ("clone", &[17], &[0]),
    ] {
        assert_eq!(profile.decide(&call(name, inside)), Verdict::Ask, "{name}");
        assert_eq!(profile.decide(&call(name, outside)), Verdict::Ask, "{name}");
        assert_eq!(bpf.decide(&call(name, inside)), Verdict::Allow, "{name}");
        assert_eq!(bpf.decide(&call(name, outside)), Verdict::Ask, "{name}");
    }
    // the ceiling stays the kernel's, also over a call that is asked as a whole
    for table in [profile, bpf] {
        let namespace = table.decide(&call("clone", &[0x1000_0011]));
        assert_eq!(namespace, Verdict::Errno(13));
    }
}

#[test]
fn a_number_without_a_name_is_a_call_like_any_other_but_for_profiles() {
    let policy = policy(
        r#"{"allow":[1000],"why":""},{"ask":[1001],"why":""},{"deny":[1002],"errno":"ENOSYS","why":""}"#,
    );
    let number = |nr| Call::new(Abi::X86_64, nr);
    let bpf = policy.bpf_table();
    for (nr, decided, kernel) in [
        (1000, Verdict::Allow, Verdict::Allow),
        (1001, Verdict::Allow, Verdict::Ask),
        (1002, Verdict::Errno(38), Verdict::Errno(38)),
        (1003, Verdict::Errno(13), Verdict::Errno(13)),
    ] {
        assert_eq!(
            policy.decide(Phase::Serving, &number(nr)).verdict,
            decided,
            "{nr}"
        );
        assert_eq!(bpf.decide(&number(nr)), kernel, "{nr}");
    }
    let listener = Listener {
        path: "/run/gate".to_owned(),
        metadata: String::new(),
    };
    assert_eq!(
        profile(&policy.kernel_table(), Some(&listener)),
        Err(OciError::Nameless {
            nr: 1000,
            abi: Abi::X86_64
        })
    );
    let under = text("", &[("ceiling", "[1000]")]);
    let under = read(&under).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(under.bpf_table().decide(&number(1000)), Verdict::Errno(13));
}

#[test]
fn a_deny_names_the_errno_of_a_call_under_the_ceiling() {
    // without a deny libc must be able to fall back from clone3
    for (rules, bpf, clone3) in [
        (
            r#"{"deny":["clone3","bpf"],"errno":"ENOSYS","why":""}"#,
            38,
            38,
        ),
        (
            r#"{"deny":["clone3","bpf"],"errno":"EPERM","why":""}"#,
            1,
            1,
        ),
        ("", 13, 38),
    ] {
        let policy = policy(rules);
        for (name, errno) in [("bpf", bpf), ("clone3", clone3)] {
            let call = call(name, &[]);
            for phase in Phase::ALL {
                assert_eq!(policy.decide(phase, &call).verdict, Verdict::Errno(errno));
            }
            for table in [
                policy.kernel_table(),
                policy.bpf_table(),
                policy.static_table(),
            ] {
                assert_eq!(table.decide(&call), Verdict::Errno(errno));
            }
        }
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
            "range",
            text(
                r#"{"allow":["listen"],"when":[{"arg":"backlog","in":[{"from":1,"until":2}]}],"why":""}"#,
                &[],
            ),
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
        let wanted = match place {
            // one of several forms: none of them has the field
            "range" => "expected a number, the name of a constant, or a range {from: A, to: B}",
            _ => "unknown field",
        };
        assert!(error.contains(wanted), "{place}: {error}");
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
        &[
            "rules[1].deny[0]: unknown system call `fadvise64_64` for x86_64, did you mean `fadvise64`?",
        ],
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
