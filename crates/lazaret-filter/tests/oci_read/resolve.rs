//! What each host gets, by moby's and podman's rules.

use lazaret_filter::abi::Abi;
use lazaret_filter::oci::read::parse;
use lazaret_filter::oci::{Action, Architecture, Host, Note, OciSyscall, Resolved};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn resolve(profile: &Value, abi: Abi, kernel: (u16, u16), capabilities: &[&str]) -> Resolved {
    let capabilities: BTreeSet<String> = capabilities.iter().map(|it| (*it).to_owned()).collect();
    let document = parse(profile.to_string().as_bytes()).expect("readable");
    document.resolve(&Host {
        abi,
        kernel,
        capabilities: &capabilities,
    })
}

fn file(name: &str) -> Value {
    let path = format!(
        "{}/tests/data/profiles/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_slice(&std::fs::read(path).expect("fixture")).expect("JSON")
}

fn allows(resolved: &Resolved, call: &str) -> usize {
    let named = |names: &Vec<String>| names.iter().any(|name| name == call);
    resolved
        .profile
        .syscalls
        .iter()
        .filter(|rule| named(&rule.names))
        .count()
}

#[test]
fn filters_of_rules() {
    let with = |includes: Value, excludes: Value| {
        json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": includes, "excludes": excludes}]})
    };
    let none = || json!({});
    let (amd, arm) = (Abi::X86_64, Abi::Aarch64);
    let caps = ["CAP_A", "CAP_B"];
    let cases = [
        (
            json!({"caps": ["CAP_A", "CAP_B"]}),
            none(),
            amd,
            (6, 1),
            true,
        ),
        (
            json!({"caps": ["CAP_A", "CAP_C"]}),
            none(),
            amd,
            (6, 1),
            false,
        ),
        (json!({"caps": ["cap_a"]}), none(), amd, (6, 1), false),
        (none(), json!({"caps": ["CAP_C"]}), amd, (6, 1), true),
        (
            none(),
            json!({"caps": ["CAP_C", "CAP_A"]}),
            amd,
            (6, 1),
            false,
        ),
        (
            json!({"arches": ["amd64", "x32"]}),
            none(),
            amd,
            (6, 1),
            true,
        ),
        (
            json!({"arches": ["amd64", "x32"]}),
            none(),
            arm,
            (6, 1),
            false,
        ),
        (none(), json!({"arches": ["arm64"]}), amd, (6, 1), true),
        (none(), json!({"arches": ["arm64"]}), arm, (6, 1), false),
        (json!({"minKernel": "4.8"}), none(), amd, (4, 8), true),
        (json!({"minKernel": "4.8"}), none(), amd, (4, 7), false),
        (json!({"minKernel": "4.8"}), none(), amd, (5, 0), true),
        (none(), json!({"minKernel": "4.8"}), amd, (4, 7), true),
        (none(), json!({"minKernel": "4.8"}), amd, (4, 8), false),
        (json!({"minKernel": ""}), none(), amd, (2, 6), true),
        (
            json!({"caps": ["CAP_A"]}),
            json!({"arches": ["amd64"]}),
            amd,
            (6, 1),
            false,
        ),
    ];
    for (includes, excludes, abi, kernel, expected) in cases {
        let resolved = resolve(
            &with(includes.clone(), excludes.clone()),
            abi,
            kernel,
            &caps,
        );
        let found = allows(&resolved, "read") == 1;
        assert_eq!(found, expected, "{includes} {excludes} {abi} {kernel:?}");
        let left_out = resolved
            .notes
            .iter()
            .any(|note| matches!(note, Note::LeftOut { rule: 0, .. }));
        assert_eq!(left_out, !expected);
    }
}

#[test]
fn architectures_of_hosts() {
    let docker = file("moby-20.10.24");
    let of = |abi| resolve(&docker, abi, (6, 1), &[]);
    let (x86, x32) = (Architecture::X86, Architecture::X32);
    assert_eq!(
        of(Abi::X86_64).profile.architectures,
        [Architecture::X86_64, x86, x32]
    );
    assert_eq!(
        of(Abi::Aarch64).profile.architectures,
        [Architecture::Aarch64, Architecture::Arm]
    );
    // no row: libseccomp serves the host's own
    let i386 = of(Abi::I386);
    assert_eq!(i386.profile.architectures, []);
    assert!(i386.notes.contains(&Note::NoArchitectureRow));
    assert!(!of(Abi::X86_64).notes.contains(&Note::NoArchitectureRow));
}

#[test]
fn dockers_profile_depends_on_the_host() {
    let docker = file("moby-20.10.24");
    let on = |kernel, caps: &[&str]| resolve(&docker, Abi::X86_64, kernel, caps);
    assert_eq!(allows(&on((4, 7), &[]), "ptrace"), 0);
    assert_eq!(allows(&on((4, 8), &[]), "ptrace"), 1);
    assert_eq!(allows(&on((4, 7), &["CAP_SYS_PTRACE"]), "ptrace"), 1);
    assert_eq!(allows(&on((6, 1), &[]), "mount"), 0);
    assert_eq!(allows(&on((6, 1), &["CAP_SYS_ADMIN"]), "mount"), 1);
    assert_eq!(allows(&on((6, 1), &[]), "arch_prctl"), 1);
    assert_eq!(
        allows(&resolve(&docker, Abi::Aarch64, (6, 1), &[]), "arch_prctl"),
        0
    );
    // ENOSYS for clone3, and conditions on clone, only without the capability
    let clone3 = |caps: &[&str]| {
        let resolved = on((6, 1), caps);
        let rules = resolved.profile.syscalls.into_iter();
        let named = |rule: &OciSyscall| rule.names.iter().any(|name| name == "clone3");
        rules
            .filter(named)
            .map(|rule| rule.action)
            .collect::<Vec<_>>()
    };
    assert_eq!(clone3(&[]), [Action::Errno]);
    assert_eq!(clone3(&["CAP_SYS_ADMIN"]), [Action::Allow]);
    let clone = on((6, 1), &["CAP_SYS_ADMIN"]);
    let rule = clone
        .profile
        .syscalls
        .iter()
        .find(|rule| rule.names.iter().any(|name| name == "clone"));
    assert!(rule.expect("allowed").args.is_empty());
}

#[test]
fn podmans_names_of_errnos() {
    let podman = resolve(&file("containers-common-0.50.1"), Abi::X86_64, (6, 1), &[]);
    assert_eq!(podman.profile.default_errno_ret, Some(38));
    assert!(podman.notes.contains(&Note::NewerDocker {
        place: "defaultErrnoRet".to_owned()
    }));
    let name_only = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "ENOSYS"});
    let resolved = resolve(&name_only, Abi::X86_64, (6, 1), &[]);
    assert_eq!(resolved.profile.default_errno_ret, Some(38));
    let place = "defaultErrno".to_owned();
    assert_eq!(resolved.notes, [Note::PodmanOnly { place }]);
}

#[test]
fn listener_and_flags_arrive() {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x", "listenerMetadata": "y",
        "flags": ["SECCOMP_FILTER_FLAG_LOG"], "architectures": ["SCMP_ARCH_X86_64"]});
    let resolved = resolve(&profile, Abi::X86_64, (6, 1), &[]).profile;
    assert_eq!(resolved.listener_path.as_deref(), Some("/run/x"));
    assert_eq!(resolved.listener_metadata.as_deref(), Some("y"));
    assert_eq!(resolved.flags, ["SECCOMP_FILTER_FLAG_LOG"]);
    assert_eq!(resolved.architectures, [Architecture::X86_64]);
}
