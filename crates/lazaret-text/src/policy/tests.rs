//! What people see of wrong policies, and that right ones come back.

use super::*;

const GOOD: &str = r#"apiVersion: lazaret.dev/v1
kind: SyscallPolicy
metadata: {name: t, revision: 3}
image: {name: t, digests: ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}
environment: {arch: x86_64, libc: [], runtimes: [runc 1.1.5], kernel: ">=5.11", noNewPrivileges: true}
mode: enforce
phases:
  serving: {when: {http: {port: 8080, path: /metadata, status: 200}, settle: 10s}}
ceiling: default
otherwise: {action: errno, errno: EPERM}
rules:
  - allow: [exit, exit_group, read, restart_syscall, rt_sigreturn, write]
    why: required
  - allow: [socket]
    when: [{arg: family, in: [AF_INET, 10]}, {arg: type, mask: 0xf, in: [SOCK_STREAM]}]
    why: "two: conditions"
"#;

fn policy(text: &str) -> Policy {
    parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(text: &str) -> Problems {
    match parse(text) {
        Ok(_) => panic!("not refused: {text}"),
        Err(problems) => problems,
    }
}

/// Replaces in the good policy, and compares what is seen with `wanted`, one line for each problem.
fn check(changes: &[(&str, &str)], wanted: &[&str]) {
    let mut text = GOOD.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let seen: Vec<String> = refused(&text)
        .found()
        .iter()
        .map(|finding| {
            let Finding {
                line,
                column,
                what,
                place,
                ..
            } = finding;
            assert!(finding.to_string().ends_with('^'), "{finding}");
            format!("{line}:{column} {place}: {what}")
        })
        .collect();
    assert_eq!(seen, wanted);
}

#[test]
fn text_comes_back_as_the_same_policy() {
    let policy = policy(GOOD);
    let written = write(policy.wire()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(parse(&written), Ok(policy), "{written}");
    assert!(
        written.contains("{arg: type, mask: 0xf, in: [SOCK_STREAM]}"),
        "{written}"
    );
    assert!(written.contains("in: [10, AF_INET]"), "{written}");
}

#[test]
fn the_canonical_form_is_read_too() {
    let policy = policy(GOOD);
    let json = String::from_utf8(policy.canonical_json()).expect("JSON is UTF-8");
    assert_eq!(parse(&json), Ok(policy));
}

#[test]
fn line_breaks_of_other_systems_change_nothing() {
    let policy = policy(GOOD);
    assert_eq!(parse(&GOOD.replace('\n', "\r\n")), Ok(policy));
    let wrong = GOOD.replace("10s", "soon").replace('\n', "\r\n");
    let seen = refused(&wrong).to_string();
    assert!(seen.starts_with("line 8 column 78: `soon`"), "{seen}");
    assert!(!seen.contains('\r'), "{seen:?}");
}

#[test]
fn problems_of_meaning_have_line_column_and_caret() {
    let seen = refused(&GOOD.replace("AF_INET", "AF_INTER")).to_string();
    let line =
        "    when: [{arg: family, in: [AF_INTER, 10]}, {arg: type, mask: 0xf, in: [SOCK_STREAM]}]";
    let caret = " ".repeat(line.find("AF_INTER").expect("it is there"));
    assert_eq!(
        seen,
        format!(
            "line 15 column 31: unknown constant `AF_INTER` for argument `family` of `socket`, did you mean `AF_INET`?\n   |  \
             (rules[1].when[0].in[0])\n15 | {line}\n   | {caret}^"
        )
    );
    check(
        &[("revision: 3", "revision: 0"), ("10s", "soon")],
        &[
            "3:31 metadata.revision: revision 0, revisions count from 1",
            "8:78 phases.serving.when.settle: `soon` is no duration from 0s to 86400s, as `10s` or `500ms`",
        ],
    );
}

#[test]
fn problems_of_form_are_all_found() {
    check(
        &[
            ("mode: enforce", "mode: enforce\nsurprise: 1"),
            (
                "{name: t, revision: 3}",
                "{name: t, revison: 3, revision: 3}",
            ),
            ("port: 8080", "port: http"),
            ("arg: type, ", "argument: type, arg: type, "),
            ("noNewPrivileges: true", "noNewPrivileges: yes"),
            ("errno: EPERM}", "errno: [EPERM]}"),
            ("why: required", "wy: required\n    why: required"),
        ],
        &[
            "3:21 metadata.revison: unknown field `revison`, did you mean `revision`?",
            "5:98 environment.noNewPrivileges: expected `true` or `false`, found the text `yes`",
            "7:1 surprise: unknown field `surprise`, known are apiVersion, ceiling, environment, evidence, image, kind, \
             metadata, mode, otherwise, phases, rules",
            "9:33 phases.serving.when.http.port: expected a whole number from 0 to 65535, found the text `http`",
            "11:35 otherwise.errno: expected a text, found a list",
            "14:5 rules[0].wy: unknown field `wy`, did you mean `why`?",
            "17:47 rules[1].when[1].argument: unknown field `argument`, known are arg, in, mask",
        ],
    );
}

#[test]
fn a_bad_rule_does_not_hide_the_next() {
    check(
        &[
            ("    why: required\n", ""),
            ("    why: \"two: conditions\"\n", ""),
        ],
        &[
            "12:5 rules[0]: missing field `why`",
            "13:5 rules[1]: missing field `why`",
        ],
    );
}

#[test]
fn each_kind_of_value_is_told_from_the_others() {
    check(
        &[("mode: enforce", "mode: enforced")],
        &["6:7 mode: unknown value `enforced`, did you mean `enforce`?"],
    );
    check(
        &[("rules:\n", "rules: 7\nx:\n")],
        &[
            "11:8 rules: expected a list, found `7`",
            "12:1 x: unknown field `x`, known are apiVersion, ceiling, environment, evidence, image, kind, metadata, \
             mode, otherwise, phases, rules",
        ],
    );
    check(
        &[("metadata: {name: t, revision: 3}", "metadata: x")],
        &["3:11 metadata: expected fields, found the text `x`"],
    );
    check(
        &[("status: 200", "status: 70000")],
        &[
            "8:64 phases.serving.when.http.status: expected a whole number from 0 to 65535, found `70000`",
        ],
    );
    check(
        &[("revision: 3", "revision: -1")],
        &[
            "3:31 metadata.revision: expected a whole number from 0 to 18446744073709551615, found `-1`",
        ],
    );
    check(
        &[("revision: 3", "revision: 99999999999999999999")],
        &[
            "3:31 metadata.revision: expected a whole number from 0 to 18446744073709551615, found `99999999999999999999`",
        ],
    );
    check(
        &[("[AF_INET, 10]", "[AF_INET, [10]]")],
        &[
            "15:40 rules[1].when[0].in[1]: expected a number, the name of a constant, or a range {from: A, to: B}",
        ],
    );
    // a field that is there and empty is a slip: without it the rule would be wider
    check(
        &[("    why: required", "    until:\n    why: required")],
        &["13:10 rules[0].until: expected a text, found nothing"],
    );
    check(
        &[("    why: required", "    when:\n    why: required")],
        &["13:9 rules[0].when: expected a list, found nothing"],
    );
}

#[test]
fn texts_that_look_like_numbers_are_texts() {
    let policy = policy(&GOOD.replace("metadata: {name: t,", "metadata: {name: 1.10,"));
    assert_eq!(policy.name(), "1.10");
}

#[test]
fn problems_of_syntax_have_a_place_too() {
    check(
        &[(
            "kind: SyscallPolicy",
            "kind: SyscallPolicy\nkind: SyscallPolicy",
        )],
        &["3:1 : duplicate mapping key `kind` is not allowed here"],
    );
    check(
        &[("mode: enforce", "mode: *other")],
        &["6:7 : anchors and aliases are not allowed"],
    );
    check(
        &[("mode: enforce", "mode: &other enforce")],
        &["6:14 : anchors and aliases are not allowed"],
    );
    check(
        &[("mode: enforce", "<<: {mode: enforce}")],
        &["6:1 : merge keys are not allowed"],
    );
    for text in [
        "metadata: [",
        "",
        "a:\n\tb: c",
        "a: \"\n",
        "{",
        "- x\ny",
        "\0",
        "a: b: c",
    ] {
        let problems = refused(text);
        let finding = problems.found().first().expect("a problem");
        assert!(finding.line > 0 && finding.column > 0, "{finding}");
        println!("{finding}\n");
    }
}

#[test]
fn more_problems_than_anybody_reads_are_counted() {
    let many = "  - allow: [nosuchcall]\n    why: x\n".repeat(100);
    let problems = refused(&format!("{GOOD}{many}"));
    assert_eq!(problems.found().len(), 32);
    assert_eq!(problems.more(), 68);
    assert!(problems.to_string().ends_with("and 68 more"));
}
