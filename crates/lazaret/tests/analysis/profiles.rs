//! Seccomp profiles where policies are taken, and `policy import`.

use crate::{DIGEST, Desk, PROFILE};

#[test]
fn profiles_become_policies() {
    let desk = Desk::new();
    desk.check(
        &format!("policy import p.json -o i.yaml --name imported --digest {DIGEST}"),
        0,
        &[
            "imported revision 1: sha256:",
            "the profile allows `ptrace`",
            "compares 64 bits of argument `family` of `socket`",
        ],
    );
    desk.check("policy check i.yaml", 0, &["imported"]);
    desk.check(
        "decide i.yaml --phase serving --call clone3",
        1,
        &["ENOSYS"],
    );
    desk.check(
        "decide i.yaml --phase serving --call socket --args 40",
        1,
        &["EPERM"],
    );
    desk.check(
        "decide i.yaml --phase serving --call socket --args 1",
        0,
        &["allow"],
    );
    // what a profile is depends on the host
    desk.check("decide i.yaml --phase serving --call chroot", 0, &[]);
    desk.check(
        &format!("policy import p.json -o none.yaml --cap none --digest {DIGEST}"),
        0,
        &["CAP_SYS_CHROOT"],
    );
    desk.check(
        "decide none.yaml --phase serving --call chroot",
        1,
        &["EPERM"],
    );
    desk.check("policy import p.json -o x.yaml", 2, &["--digest"]);
    desk.write(
        "allow.json",
        &PROFILE.replacen("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", 1),
    );
    desk.check(
        &format!("policy import allow.json -o x.yaml --digest {DIGEST}"),
        2,
        &["calls without a rule get allow"],
    );
    assert!(!desk.0.path().join("x.yaml").exists());
}

#[test]
fn profiles_are_compiled_and_decided() {
    let desk = Desk::new();
    desk.check("compile p.json --to bpf -o p.bpf", 0, &[]);
    desk.check("compile p.json --to disasm", 0, &["getpid"]);
    desk.check("compile p.json --to oci", 0, &["SCMP_ARCH_X86_64"]);
    desk.check("decide p.json --phase serving --call ptrace", 0, &["allow"]);
    desk.check("decide p.json --phase serving --call bind", 1, &["EPERM"]);
    desk.check(
        "decide p.json --phase serving --call bind --arch i386",
        1,
        &["kill"],
    );
    desk.check("prove p.json --bpf p.bpf", 0, &["equal"]);
}

/// As Docker's default: the row of 64-bit ARM brings 32-bit ARM along, for which there is no call table.
const FOR_ARM: &str = r#"{
  "defaultAction": "SCMP_ACT_ERRNO",
  "archMap": [
    {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
    {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}
  ],
  "syscalls": [
    {"names": ["exit", "exit_group", "read", "restart_syscall", "rt_sigreturn", "write", "getpid"], "action": "SCMP_ACT_ALLOW"}
  ]
}
"#;

#[test]
fn architectures_without_a_table_are_closed_and_never_proved() {
    let desk = Desk::new();
    desk.write("d.json", FOR_ARM);
    let note = "note: there is no call table for SCMP_ARCH_ARM: its calls ";
    let import = format!("policy import d.json --arch aarch64 -o arm.yaml --digest {DIGEST}");
    for (line, becomes) in [
        (
            "compile d.json --arch aarch64 --to bpf -o arm.bpf",
            "are closed",
        ),
        ("compile d.json --arch aarch64 --to disasm", "are closed"),
        (import.as_str(), "are closed by the policy"),
        ("policy show d.json --arch aarch64", "are not shown"),
        ("inspect --oci d.json --arch aarch64", "are not judged"),
    ] {
        desk.check(line, 0, &[&format!("{note}{becomes}")]);
    }
    desk.check(
        "decide arm.yaml --phase serving --call getpid",
        0,
        &["allow"],
    );
    // what was compiled closes it: 0x40000028 is AUDIT_ARCH_ARM
    desk.check("inspect --bpf arm.bpf", 0, &["aarch64", "getpid"]);
    // the runtime gets what was written
    let profile = desk.check(
        "compile d.json --arch aarch64 --to oci",
        0,
        &["SCMP_ARCH_ARM"],
    );
    assert!(!profile.contains(note), "{profile}");

    // the filter that a runtime makes of the profile serves calls that nothing here knows
    let undecided =
        "undecided: the profile serves calls of SCMP_ARCH_ARM, for which there is no call table";
    for line in [
        "prove d.json --arch aarch64 --bpf arm.bpf",
        "prove d.json --arch aarch64 --bpf arm.bpf --at-least-as-strict",
        "prove arm.yaml --static --oci d.json --arch aarch64",
        "policy diff d.json d.json --arch aarch64",
    ] {
        let all = desk.check(line, 1, &[undecided]);
        assert!(
            !all.contains("equal") && !all.contains("mean the same"),
            "{all}"
        );
    }
    desk.types("prove d.json --arch aarch64 --bpf arm.bpf", &["proof"]);
    // a difference is one all the same
    desk.write("less.json", &FOR_ARM.replace(", \"getpid\"", ""));
    desk.check(
        "policy diff d.json less.json --arch aarch64",
        1,
        &["aarch64 calls getpid: allow → ", "are not compared"],
    );

    // on x86-64 all of it is known
    desk.check("compile d.json --to bpf -o x.bpf", 0, &[]);
    desk.check("prove d.json --bpf x.bpf", 0, &["filter: equal"]);
    let all = desk.check("policy diff d.json d.json", 0, &["mean the same"]);
    assert!(!all.contains("no call table"), "{all}");
}
