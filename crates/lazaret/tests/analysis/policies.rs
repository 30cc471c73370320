//! `policy show`, `explain`, `lint`, `diff`.

use crate::{Desk, POLICY};

#[test]
fn policies_are_shown_by_rule() {
    let desk = Desk::new();
    let shown = desk.check(
        "policy show p.yaml",
        0,
        &[
            "t revision 1",
            "serving     port 8080 /metadata answers 200, 10000 ms later",
            "exec        may start, under the rules of phase exec",
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

/// What `learn` writes is not warned of: a warning that nobody can help teaches people to look away.
#[test]
fn what_was_learnt_has_no_warnings() {
    let desk = Desk::new();
    desk.write(
        "hapi.yaml",
        include_str!("../../../../testing/filter-bench/data/hapi-policy.yaml"),
    );
    desk.write(
        "r.json",
        include_str!("../../../../testing/filter-bench/data/hapi-recording.json"),
    );
    let mut policies = vec!["hapi.yaml".to_string()];
    for stability in ["exact", "equivalent"] {
        let policy = format!("{stability}.yaml");
        let line =
            format!("synth r.json -o {policy} --ready 8080/fhir/metadata --stability {stability}");
        desk.check(&line, 0, &[]);
        policies.push(policy);
    }
    for policy in policies {
        let output = desk.run(&format!("--format json policy lint {policy}"));
        assert_eq!(output.status.code(), Some(0), "{policy}");
        let text = String::from_utf8(output.stdout).expect("text");
        // a just-in-time compiler makes memory executable: true, and worth a note
        let findings: Vec<&str> = text.lines().collect();
        assert_eq!(findings.len(), 2, "{policy}: {text}");
        for (finding, call) in findings.iter().zip(["mmap", "mprotect"]) {
            assert!(
                finding.contains("L004") && finding.contains(&format!("`{call}` is allowed")),
                "{finding}"
            );
        }
    }
}
