//! `suggest`: from the gate's counts and from its logs to a change of the policy's text, which the real `patch` applies.

use crate::fake::{Gate, ID, Play, denied, digest, drift, status};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

/// As a person wrote it: comments stay where they are.
fn policy() -> String {
    format!(
        "# reviewed by two people
apiVersion: lazaret.dev/v1
kind: SyscallPolicy
metadata: {{name: t, revision: 4}}   # counts up
image: {{name: t, digests: [\"{}\"]}}
environment: {{arch: x86_64, runtimes: [runc 1.1.5], kernel: \">=5.11\", noNewPrivileges: true}}
mode: enforce
phases: {{serving: {{when: {{http: {{port: 80, path: /, status: 200}}, settle: 1s}}}}}}
ceiling: default
otherwise: {{action: errno, errno: EPERM}}
rules:
  - allow: [exit, exit_group, read, restart_syscall, rt_sigreturn, write]
    why: required
",
        digest('a')
    )
}

fn gate(entries: Vec<Value>) -> Gate {
    let gate = Gate::plays(vec![
        ("status", vec![Play::Say(vec![status(12)])]),
        (
            "drift",
            vec![Play::Say(vec![
                json!({"type": "drift", "v": 1, "drift": entries}),
            ])],
        ),
    ]);
    fs::write(gate.dir().join("policy.yaml"), policy()).expect("written");
    gate
}

fn admitted() -> Value {
    json!({"v": 1, "time_ms": 1_709_251_180_000_u64, "container": ID, "type": "admitted", "image": digest('a'),
        "policy": digest('b'), "key": "site", "mode": "enforce", "stricter": []})
}

fn log(gate: &Gate, name: &str, events: &[Value], end: &str) {
    let mut text: String = events.iter().map(|event| format!("{event}\n")).collect();
    text.push_str(end);
    fs::write(gate.dir().join(name), text).expect("written");
}

#[test]
fn the_diff_is_applied_by_patch_and_is_the_text_that_is_written() {
    let gate = gate(vec![drift(12, "mkdir", 83), drift(3, "ptrace", 101)]);
    let output = gate.run(&["suggest", "--policy", "policy.yaml", "-o", "next.yaml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains("left out: `ptrace`, 3 times in serving: it is under the ceiling"),
        "{said}"
    );
    let diff = String::from_utf8(output.stdout).expect("text");
    assert!(
        diff.contains("+metadata: {name: t, revision: 5}   # counts up"),
        "{diff}"
    );
    fs::write(gate.dir().join("change.diff"), &diff).expect("written");
    let next = fs::read_to_string(gate.dir().join("next.yaml")).expect("written");
    assert!(next.starts_with("# reviewed by two people"), "{next}");
    let before = fs::read_to_string(gate.dir().join("policy.yaml")).expect("there");
    assert_eq!(before, policy(), "the given text stays");
    match Command::new("patch")
        .args(["-p1", "-i", "change.diff"])
        .current_dir(gate.dir())
        .output()
    {
        Ok(patched) => {
            assert!(patched.status.success(), "{patched:?}");
            let after = fs::read_to_string(gate.dir().join("policy.yaml")).expect("there");
            assert_eq!(after, next);
        }
        Err(error) => println!("SKIP: patch cannot be run: {error}"),
    }
    // and it is a policy that allows the call, in its phase alone
    for (phase, code) in [("serving", 0), ("stopping", 1)] {
        let decide = Command::new(env!("CARGO_BIN_EXE_lazaret"))
            .args(["decide", "next.yaml", "--phase", phase, "--call", "mkdir"])
            .current_dir(gate.dir())
            .status()
            .expect("runs");
        assert_eq!(decide.code(), Some(code), "{phase}");
    }
}

#[test]
fn nothing_to_suggest_is_an_answer() {
    let args = ["suggest", "--policy", "policy.yaml", "-o", "next.yaml"];
    let none = gate(vec![]);
    none.check(
        &args,
        1,
        &["nothing to suggest: no call of this policy's containers was denied"],
    );
    let ceiling = gate(vec![drift(3, "ptrace", 101)]);
    ceiling.check(
        &args,
        1,
        &["nothing to suggest: no call that was denied can be allowed"],
    );
    // a call of another convention has a name that may mean another call
    let mut foreign = drift(7, "mkdir", 39);
    foreign["arch"] = json!("i386");
    let foreign = gate(vec![foreign]);
    foreign.check(&args, 1, &["left out: 7 calls of i386"]);
    for gate in [none, ceiling, foreign] {
        assert!(!gate.dir().join("next.yaml").exists());
    }
}

#[test]
fn containers_of_other_images_are_left_out() {
    let mut other = drift(12, "mkdir", 83);
    other["container"] = json!("9999");
    let gate = gate(vec![other]);
    gate.check(
        &["suggest", "--policy", "policy.yaml"],
        1,
        &["nothing to suggest"],
    );
    let args = ["suggest", "--policy", "policy.yaml", "--container", "9999"];
    gate.check(
        &args,
        2,
        &["`9999` is not of an image that the policy names"],
    );
    let asked = json!({"type": "drift", "v": 1, "container": "9999"});
    assert_eq!(gate.requests().last(), Some(&asked));
}

/// `--control` and `--events` exclude each other.
fn from_logs(gate: &Gate, args: &[&str], code: i32, said: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_lazaret"))
        .args(["suggest", "--policy", "policy.yaml"])
        .args(args)
        .current_dir(gate.dir())
        .output()
        .expect("runs");
    let all = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(code), "{args:?}: {all}");
    for part in said {
        assert!(all.contains(part), "{args:?}: `{part}` is not in: {all}");
    }
    all
}

#[test]
fn logs_are_added_up_over_files_and_a_cut_line_is_told() {
    let gate = gate(vec![]);
    log(
        &gate,
        "old.jsonl",
        &[admitted(), denied(12, "mkdir", 83)],
        "",
    );
    log(
        &gate,
        "new.jsonl",
        &[denied(30, "mkdir", 83)],
        "{\"v\":1,\"time_ms\":17",
    );
    from_logs(
        &gate,
        &["--events", "old.jsonl", "new.jsonl"],
        0,
        &[
            "42 times in serving by java since 2024-02-29",
            "`new.jsonl`: the last line, 2, is cut off",
        ],
    );
    // without its start nobody knows whose it is
    let said = ["30 denials left out", "nothing to suggest"];
    from_logs(&gate, &["--events", "new.jsonl"], 1, &said);
    let one = ["--events", "new.jsonl", "--container", "1111"];
    from_logs(&gate, &one, 0, &["30 times in serving"]);
    let none = ["--events", "new.jsonl", "--container", "77"];
    from_logs(&gate, &none, 2, &["no container in these logs"]);
    let json = Command::new(env!("CARGO_BIN_EXE_lazaret"))
        .args([
            "suggest",
            "--policy",
            "policy.yaml",
            "--format",
            "json",
            "--events",
            "old.jsonl",
        ])
        .current_dir(gate.dir())
        .output()
        .expect("runs")
        .stdout;
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(
        (&json["type"], &json["rules"]),
        (&json!("suggestion"), &json!(1))
    );
}

#[test]
fn what_is_no_log_and_no_policy_is_refused() {
    let gate = gate(vec![]);
    log(&gate, "no.jsonl", &[json!({"weather": "fine"})], "");
    from_logs(&gate, &["--events", "no.jsonl"], 2, &["is no event log"]);
    log(
        &gate,
        "strange.jsonl",
        &[
            admitted(),
            json!({"v": 1, "type": "novel"}),
            denied(2, "mkdir", 83),
        ],
        "",
    );
    from_logs(
        &gate,
        &["--events", "strange.jsonl"],
        0,
        &["1 lines are no events", "the first is line 2"],
    );
    log(&gate, "long.jsonl", &[admitted()], &" ".repeat(1 << 20));
    from_logs(
        &gate,
        &["--events", "long.jsonl"],
        2,
        &["line 2 is longer than 1048576 bytes"],
    );
    from_logs(
        &gate,
        &["--events", "absent.jsonl"],
        2,
        &["cannot open event log `absent.jsonl`"],
    );
    from_logs(
        &gate,
        &["--events", "strange.jsonl", "--control", "x"],
        2,
        &["cannot be used with"],
    );
    fs::write(gate.dir().join("policy.yaml"), "kind: Novel").expect("written");
    from_logs(&gate, &["--events", "strange.jsonl"], 2, &["policy"]);
}
