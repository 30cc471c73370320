//! Where profiles are wrong, and what tells them from policies.

use lazaret_text::any::{self, Input};
use lazaret_text::{policy, profile};

fn check(text: &str, wanted: &str) {
    let problems = profile::parse(text).expect_err("refused");
    assert_eq!(problems.to_string(), wanted, "{text}");
}

#[test]
fn problems_have_line_column_and_caret() {
    check(
        "{\n  \"defaultAction\": \"SCMP_ACT_MAYBE\"\n}\n",
        "line 2 column 20: defaultAction: `SCMP_ACT_MAYBE` is not known\n2 |   \"defaultAction\": \"SCMP_ACT_MAYBE\"\n  |                    ^",
    );
    check(
        "{\"defaultAction\": \"SCMP_ACT_ERRNO\",\n\t\"syscalls\": [{\"names\": [\"é\"], \"action\": 7}]}",
        "line 2 column 42: syscalls[0].action is a number, expected a string\n2 |     \"syscalls\": [{\"names\": [\"é\"], \"action\": 7}]}\n  |                                             ^",
    );
    check(
        "{\"defaultAction\": \"SCMP_ACT_ERRNO\",\r\n \"é\": }",
        "line 2 column 7: expected value\n2 |  \"é\": }\n  |       ^",
    );
    check(
        "",
        "line 1 column 1: EOF while parsing a value\n1 | \n  | ^",
    );
}

#[test]
fn the_content_decides_what_a_file_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("input");
    let read = |text: &str| {
        std::fs::write(&path, text).expect("the folder can be written");
        any::read(&path)
    };
    let small = " {\"defaultAction\": \"SCMP_ACT_ALLOW\"}";
    assert!(matches!(read(small), Ok(Input::Profile(_))));
    assert_eq!(profile::read(&path).ok(), profile::parse(small).ok());

    let text = include_str!("../../../testing/fuzz/seeds/policy_text/small.yaml");
    let text = text.replace("why: x", "why: not a \"defaultAction\"");
    let Ok(Input::Policy(policy)) = read(&text) else {
        panic!("no policy");
    };
    let canonical = String::from_utf8(policy.canonical_json()).expect("JSON is UTF-8");
    assert_eq!(read(&canonical).ok(), Some(Input::Policy(policy.clone())));
    assert_eq!(policy::read(&path).ok(), Some(*policy));

    let error = read("{\"defaultAction\": 1}")
        .expect_err("refused")
        .to_string();
    assert!(
        error.starts_with("profile `") && error.contains("line 1 column 19: "),
        "{error}"
    );
    let error = read("{}").expect_err("refused").to_string();
    assert!(
        error.starts_with("policy `") && error.contains("missing field `apiVersion`"),
        "{error}"
    );
}

#[test]
fn the_other_kind_of_file_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("input");
    let write = |text: &str| std::fs::write(&path, text).expect("the folder can be written");
    let text = include_str!("../../../testing/fuzz/seeds/policy_text/small.yaml");
    write("{\"defaultAction\": \"SCMP_ACT_ALLOW\"}");
    let read = [
        policy::read(&path).map(drop),
        policy::Text::read(&path).map(drop),
    ];
    for error in read {
        let error = error.expect_err("no policy").to_string();
        assert!(error.ends_with("it is a seccomp profile"), "{error}");
    }
    for policy in [text.to_owned(), text.replace("kind:", "kin:")] {
        write(&policy);
        let error = profile::read(&path).expect_err("no profile").to_string();
        assert!(error.ends_with("it is a policy"), "{error}");
    }
    // neither: what is wrong with it as what was asked for
    write("{}");
    for error in [
        policy::read(&path).expect_err("no policy").to_string(),
        profile::read(&path).expect_err("no profile").to_string(),
    ] {
        assert!(error.contains("line 1 column "), "{error}");
    }
}
