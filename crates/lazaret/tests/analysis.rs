//! What is said about policies, profiles and filters, as a user meets it: text, JSON, exit codes, bad input. Needs nothing but
//! a temporary directory.

use std::fs;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const POLICY: &str = r#"apiVersion: lazaret.dev/v1
kind: SyscallPolicy
metadata: {name: t, revision: 1}
image: {name: t, digests: ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}
environment: {arch: x86_64, runtimes: [runc 1.1.5], kernel: ">=5.11", noNewPrivileges: true}
mode: enforce
phases:
  serving: {when: {http: {port: 8080, path: /metadata, status: 200}, settle: 10s}}
ceiling: default
otherwise: {action: errno, errno: EPERM}
rules:
  - allow: [write, exit, exit_group, restart_syscall, rt_sigreturn, read]
    why: every process needs them
  - allow: [socket]
    when: [{arg: family, in: [AF_UNIX, AF_INET]}]
    why: upstream connections
  - allow: [bind]
    until: serving
    why: start-up only
"#;

const PROFILE: &str = r#"{
  "defaultAction": "SCMP_ACT_ERRNO",
  "architectures": ["SCMP_ARCH_X86_64"],
  "syscalls": [
    {"names": ["exit", "exit_group", "read", "restart_syscall", "rt_sigreturn", "write", "getpid", "ptrace"], "action": "SCMP_ACT_ALLOW"},
    {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]},
    {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
    {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_CHROOT"]}}
  ]
}
"#;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

struct Desk(TempDir);

impl Desk {
    fn new() -> Desk {
        let desk = Desk(TempDir::new().expect("a temporary directory"));
        desk.write("p.yaml", POLICY);
        desk.write("p.json", PROFILE);
        desk
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).expect("written");
    }

    fn run(&self, line: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_lazaret"))
            .args(line.split_whitespace())
            // no engine: nothing here may need one
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .output()
            .expect("lazaret runs")
    }

    /// Runs it; what it says, the exit code checked.
    #[track_caller]
    fn check(&self, line: &str, code: i32, wanted: &[&str]) -> String {
        let output = self.run(line);
        let mut all = String::from_utf8_lossy(&output.stdout).into_owned();
        all.push_str(&String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{line}: {all}");
        for wanted in wanted {
            assert!(all.contains(wanted), "{line}: `{wanted}` is not in: {all}");
        }
        all
    }

    /// The types of the objects that it prints, each one a line.
    #[track_caller]
    fn types(&self, line: &str, wanted: &[&str]) {
        let output = self.run(&format!("--format json {line}"));
        let text = String::from_utf8_lossy(&output.stdout);
        let mut types: Vec<String> = Vec::new();
        for line in text.lines() {
            let value: serde_json::Value =
                serde_json::from_str(line).expect("one JSON object a line");
            assert_eq!(value["v"], 1, "{line}");
            types.push(value["type"].as_str().expect("a type").to_string());
        }
        types.dedup();
        assert_eq!(types, wanted, "{line}: {text}");
    }
}

#[test]
fn policies_are_shown_by_rule() {
    let desk = Desk::new();
    let shown = desk.check(
        "policy show p.yaml",
        0,
        &[
            "t revision 1",
            "serving     port 8080 /metadata answers 200, 10000 ms later",
            "otherwise EPERM",
            "allow    always           exit exit_group read restart_syscall rt_sigreturn write",
            "if family in {AF_UNIX, AF_INET}",
            "ask      until serving    bind",
            "- start-up only",
        ],
    );
    assert!(
        shown.lines().all(|line| line.chars().count() <= 100),
        "{shown}"
    );
    desk.types("policy show p.yaml", &["policy", "call"]);
    desk.check(
        "policy show p.json",
        0,
        &[
            "socket: allow if",
            "ptrace: reads and writes other processes",
            "i386: kill thread",
        ],
    );
    desk.types(
        "policy show p.json",
        &["calls", "conditional", "danger", "calls"],
    );
}

#[test]
fn a_call_is_explained_with_its_rule_and_line() {
    let desk = Desk::new();
    desk.check(
        "policy explain p.yaml bind",
        0,
        &[
            "bind: number 49 of x86_64",
            "rules[2] at line 17: start-up only",
            "during: [serving, stopping, exec]",
        ],
    );
    desk.check(
        "policy explain p.yaml 41",
        0,
        &[
            "family (32 bits)",
            "if family in {AF_UNIX, AF_INET}: allow",
            "EPERM, no rule holds",
        ],
    );
    desk.check(
        "policy explain p.yaml ptrace",
        0,
        &[
            "under it: reads and writes other processes",
            "name the calls of `ceiling` one by one",
        ],
    );
    desk.check(
        "policy explain p.yaml read",
        0,
        &["all of it is allowed in every phase"],
    );
    desk.check(
        "policy explain p.yaml soket",
        2,
        &["unknown system call `soket` for x86_64, did you mean `socket`?"],
    );
    desk.types("policy explain p.yaml socket", &["explanation", "case"]);
}

#[test]
fn findings_have_code_place_and_exit_code() {
    let desk = Desk::new();
    // a note alone is no reason to fail
    desk.check(
        "policy lint p.yaml",
        0,
        &[
            "note L010: line 1 column 1: no evidence",
            "0 warnings, 1 notes",
        ],
    );
    desk.write(
        "bad.yaml",
        &POLICY
            .replace("why: start-up only", "why: TODO")
            .replace("until: serving\n", "until: stopping\n")
            .replace("[bind]", "[bind, futex]"),
    );
    desk.check(
        "policy lint bad.yaml",
        1,
        &[
            "warning L003: line 19 column 10",
            "warning L013: line 17 column 19",
        ],
    );
    desk.types("policy lint bad.yaml", &["finding"]);
}

#[test]
fn differences_are_by_meaning() {
    let desk = Desk::new();
    desk.write(
        "same.yaml",
        &POLICY
            .replace("start-up only", "another reason")
            .replace("[AF_UNIX, AF_INET]", "[AF_INET, 1]"),
    );
    desk.check("policy diff p.yaml same.yaml", 0, &["both mean the same"]);
    desk.write(
        "other.yaml",
        &POLICY
            .replace("AF_INET]", "AF_INET6]")
            .replace("mode: enforce", "mode: observe"),
    );
    desk.check(
        "policy diff p.yaml other.yaml",
        1,
        &[
            "socket if family = AF_INET6: EPERM → allow",
            "socket if family = AF_INET: allow → EPERM",
            "mode: `enforce` in A, `observe` in B",
        ],
    );
    desk.types("policy diff p.yaml other.yaml", &["difference", "field"]);
    desk.check("policy diff p.json p.json", 0, &["both mean the same"]);
    desk.check(
        "policy diff p.yaml p.json",
        1,
        &["startup, serving, stopping, exec", "getpid"],
    );
}

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

#[test]
fn filters_are_inspected_and_proved() {
    let desk = Desk::new();
    desk.check("compile p.yaml --to bpf -o p.bpf", 0, &[]);
    desk.check(
        "inspect --bpf p.bpf",
        0,
        &[
            "1 filters of",
            "x86_64: 6 of 6 calls",
            "under conditions",
            "i386: kill process",
        ],
    );
    desk.check("inspect --bpf p.bpf --filter 1", 0, &["socket"]);
    desk.check(
        "inspect --bpf p.bpf --filter 2",
        2,
        &["filter 2 is not there, the chain has 1"],
    );
    desk.types(
        "inspect --bpf p.bpf",
        &["chain", "calls", "conditional", "calls"],
    );
    desk.check("inspect --oci p.json", 0, &["ptrace: reads and writes"]);
    desk.check("prove p.yaml --bpf p.bpf", 0, &["filter: equal"]);
    desk.types("prove p.yaml --bpf p.bpf", &["proof"]);

    desk.write(
        "narrow.yaml",
        &POLICY.replace("[AF_UNIX, AF_INET]", "[AF_UNIX]"),
    );
    // the filter is looser than the narrower policy, and stricter than the wider one
    desk.check(
        "prove narrow.yaml --bpf p.bpf",
        1,
        &["filter: looser", "socket if family = AF_INET: ask → allow"],
    );
    desk.check(
        "prove narrow.yaml --bpf p.bpf --at-least-as-strict",
        1,
        &["looser"],
    );
    desk.check("compile narrow.yaml --to bpf -o n.bpf", 0, &[]);
    desk.check(
        "prove p.yaml --bpf n.bpf",
        1,
        &["filter: at least as strict"],
    );
    desk.check(
        "prove p.yaml --bpf n.bpf --at-least-as-strict",
        0,
        &["filter: at least as strict"],
    );
    // the static filter is another one
    desk.check("compile p.yaml --to bpf --static -o s.bpf", 0, &[]);
    desk.check("prove p.yaml --bpf s.bpf", 1, &["bind"]);
    desk.check("prove p.yaml --bpf s.bpf --static", 0, &["equal"]);
    desk.check("compile p.yaml --to oci --static -o s.json", 0, &[]);
    desk.check(
        "prove p.yaml --oci s.json --static --at-least-as-strict",
        0,
        &[],
    );
}

#[test]
fn bad_input_is_two() {
    let desk = Desk::new();
    desk.write(
        "broken.json",
        "{\"defaultAction\": \"SCMP_ACT_ERRNO\", \"syscalls\": 7}",
    );
    desk.write("half.bpf", "1234567");
    for (line, said) in [
        ("policy show absent.yaml", "absent.yaml"),
        ("policy show broken.json", "syscalls"),
        ("policy explain absent.yaml read", "absent.yaml"),
        ("policy explain p.json read", "p.json"),
        ("policy lint absent.yaml", "absent.yaml"),
        ("policy diff p.yaml absent.yaml", "absent.yaml"),
        ("policy diff p.yaml broken.json", "syscalls"),
        (
            "policy import absent.json -o x --digest sha256:0",
            "--digest",
        ),
        (
            "policy import p.yaml -o x.yaml --digest sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "p.yaml",
        ),
        ("compile broken.json --to bpf", "syscalls"),
        ("compile p.json --to bpf --kernel six", "MAJOR.MINOR"),
        ("compile p.json --to bpf --arch i386", "x86_64 or aarch64"),
        ("compile p.json --to bpf --cap 7", "CAP_SYS_ADMIN"),
        ("inspect", "--container"),
        ("inspect --pid 5 --bpf half.bpf", "cannot be used with"),
        ("inspect --bpf half.bpf", "half.bpf"),
        ("inspect --bpf absent.bpf", "absent.bpf"),
        ("inspect --pid 1", "1"),
        ("prove p.yaml", "--container"),
        ("prove p.yaml --oci p.json --pid 5", "cannot be used with"),
        ("prove absent.yaml --oci p.json", "absent.yaml"),
        ("prove p.yaml --oci broken.json", "syscalls"),
    ] {
        desk.check(line, 2, &[said]);
    }
}
