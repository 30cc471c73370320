//! `docs/policy.md` and `docs/policy.schema.json` are what the language is: each example is compiled, each wrong one gives the
//! error shown under it, the lists of the ceiling are complete, and the schema is the one of the wire types.

use jsonschema::Validator;
use lazaret_core::ceiling::{DEFAULT, SPARED};
use lazaret_core::filter::compile::compile;
use lazaret_core::format::policy::schema;
use lazaret_core::phase::Phase;
use lazaret_text::policy::parse;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// What an example that shows single fields stands in; its rules come after the one of this.
const BASE: &str = r#"apiVersion: lazaret.dev/v1
kind: SyscallPolicy
metadata: {name: example, revision: 1}
image: {name: example, digests: ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}
environment: {arch: x86_64, runtimes: [runc 1.1.5], kernel: ">=5.11", noNewPrivileges: true}
mode: enforce
ceiling: default
otherwise: {action: errno, errno: EPERM}
rules:
  - allow: [exit, exit_group, read, restart_syscall, rt_sigreturn, write]
    why: required
"#;

fn doc(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The blocks of the page: what stands behind the three marks, and the lines.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in page.lines() {
        open = match (open, line.strip_prefix("```")) {
            (None, None) => None,
            (None, Some(kind)) => Some((kind.to_owned(), String::new())),
            (Some(block), Some(_)) => {
                blocks.push(block);
                None
            }
            (Some((kind, text)), None) => Some((kind, text + line + "\n")),
        };
    }
    assert!(open.is_none(), "a block without an end");
    blocks
}

/// The whole policy that an example shows a part of.
fn whole(example: &str) -> String {
    if example.starts_with("apiVersion:") {
        return example.to_owned();
    }
    let field = |line: &str| {
        let name = line.split(':').next().unwrap_or_default();
        (!line.starts_with(' ') && !name.is_empty()).then(|| name.to_owned())
    };
    let shown: BTreeSet<String> = example.lines().filter_map(field).collect();
    let rules = example.split("rules:\n").nth(1).map_or("", |rest| {
        let end = rest
            .lines()
            .take_while(|line| line.starts_with(' '))
            .map(|line| line.len() + 1)
            .sum();
        &rest[..end]
    });
    let others =
        example
            .replace("rules:\n", "")
            .replacen(rules, "", usize::from(!rules.is_empty()));
    let kept: Vec<&str> = BASE
        .lines()
        .filter(|line| field(line).is_none_or(|name| name == "rules" || !shown.contains(&name)))
        .collect();
    format!("{}\n{rules}{others}", kept.join("\n"))
}

#[test]
fn every_example_is_right_or_gives_the_error_under_it() {
    let (mut right, mut wrong) = (0, 0);
    let schema = validator();
    let page = doc("docs/policy.md");
    let blocks = blocks(&page);
    let mut blocks = blocks.iter().peekable();
    while let Some((kind, example)) = blocks.next() {
        let text = whole(example);
        match kind.as_str() {
            "yaml" => {
                let policy = parse(&text).unwrap_or_else(|error| panic!("{example}\n{error}"));
                let wire = serde_json::to_value(policy.wire()).expect("a policy is JSON");
                assert!(schema.is_valid(&wire), "{example}");
                compile(&policy.bpf_table()).unwrap_or_else(|error| panic!("{example}\n{error}"));
                right += 1;
            }
            "yaml wrong" => {
                let error = parse(&text)
                    .err()
                    .unwrap_or_else(|| panic!("{example}\nis accepted"))
                    .to_string();
                let told = blocks.next_if(|(kind, _)| kind == "text");
                let (_, told) = told.unwrap_or_else(|| panic!("{example}\nhas no error under it"));
                for line in told.lines() {
                    assert!(error.contains(line), "{example}\n{line}\n{error}");
                }
                assert!(!told.is_empty(), "{example}");
                // the page shows all of it: one caret for each line
                assert_eq!(
                    error.matches("^\n").count() + 1,
                    told.lines().count(),
                    "{example}\n{error}"
                );
                wrong += 1;
            }
            other => panic!("what is a block of {other}?"),
        }
    }
    assert!(right > 8 && wrong > 8, "{right} {wrong}");
}

#[test]
fn examples_mean_what_the_page_says() {
    // the sets of a rule are those of its condition: a part is really put in
    let part = "rules:\n  - allow: [bind]\n    until: serving\n    why: x\nceiling: [mount]\n";
    let policy = parse(&whole(part)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(policy.wire().rules.len(), 2);
    let bind = lazaret_core::filter::table::nr_of(policy.abi(), "bind").expect("known");
    assert!(policy.allowed_in(Phase::Startup).any(|nr| nr == bind));
    assert!(!policy.allowed_in(Phase::Serving).any(|nr| nr == bind));
    assert_ne!(
        policy.wire().ceiling,
        parse(BASE)
            .unwrap_or_else(|error| panic!("{error}"))
            .wire()
            .ceiling
    );
}

/// Calls and reason of each row of the table under a heading.
fn rows(page: &str, heading: &str) -> BTreeSet<(String, String)> {
    let section = page
        .split(&format!("{heading}\n"))
        .nth(1)
        .unwrap_or_else(|| panic!("no {heading}"));
    let rows = section
        .lines()
        .take_while(|line| !line.starts_with('#'))
        .filter(|line| line.starts_with("| `"));
    rows.flat_map(|row| {
        let mut cells = row.trim_matches('|').split(" | ");
        let (calls, why) = (cells.next().unwrap_or_default(), cells.next());
        let why = why.unwrap_or_default().trim().to_owned();
        calls
            .split('`')
            .skip(1)
            .step_by(2)
            .map(move |call| (call.to_owned(), why.clone()))
            .collect::<Vec<_>>()
    })
    .collect()
}

#[test]
fn the_ceiling_is_listed_whole_with_its_reasons() {
    let page = doc("docs/policy.md");
    let pair = |call: &str, why: &str| (call.to_owned(), why.to_owned());
    let forbidden = DEFAULT.iter().map(|call| pair(call.call, call.why));
    assert_eq!(rows(&page, "## The ceiling `default`"), forbidden.collect());
    let spared = SPARED.iter().map(|call| pair(call.call, call.why));
    assert_eq!(rows(&page, "### What it leaves open"), spared.collect());
}

fn validator() -> Validator {
    let schema: Value = serde_json::from_str(&schema()).expect("JSON");
    jsonschema::validator_for(&schema).expect("a schema")
}

#[test]
fn the_committed_schema_is_the_one_of_the_types() {
    assert_eq!(
        doc("docs/policy.schema.json"),
        schema(),
        "run `cargo run -p lazaret-core --features schema --example policy_schema`"
    );
}

#[test]
fn the_schema_tells_policies_from_other_documents() {
    let good = parse(BASE).unwrap_or_else(|error| panic!("{error}"));
    let mut good = serde_json::to_value(good.wire()).expect("JSON");
    good["phases"] = json!({});
    let schema = validator();
    assert!(schema.is_valid(&good));
    let rule = |rule: Value| json!([rule]);
    let serving = |when: Value| json!({"serving": {"when": when}});
    let condition = |values: Value| json!([{"allow": ["listen"], "when": [{"arg": "backlog", "in": values}], "why": ""}]);
    for (place, right, wrong) in [
        ("/mode", json!("observe"), json!("maybe")),
        (
            "/apiVersion",
            json!("lazaret.dev/v1"),
            json!("lazaret.dev/v2"),
        ),
        ("/metadata/name", json!("a/b.c-d"), json!("A")),
        ("/metadata/revision", json!(1), json!(0)),
        (
            "/image/digests/0",
            good["image"]["digests"][0].clone(),
            json!("sha256:e3"),
        ),
        ("/environment/arch", json!("aarch64"), json!("i386")),
        ("/otherwise/errno", json!("ENOSYS"), json!("EIO")),
        ("/ceiling", json!(["mount", 1000]), json!("open")),
        (
            "/rules",
            rule(json!({"ask": ["open"], "why": ""})),
            rule(json!({"ask": ["opn"], "why": ""})),
        ),
        (
            "/rules",
            rule(json!({"deny": [471], "why": ""})),
            rule(json!({"deny": [-1], "why": ""})),
        ),
        (
            "/rules",
            rule(json!({"allow": [], "why": ""})),
            rule(json!({"allow": []})),
        ),
        (
            "/rules",
            rule(json!({"allow": [], "why": ""})),
            rule(json!({"why": ""})),
        ),
        (
            "/rules",
            rule(json!({"allow": [], "why": ""})),
            rule(json!({"allow": [], "deny": [], "why": ""})),
        ),
        (
            "/rules",
            rule(json!({"allow": [], "until": "serving", "why": ""})),
            rule(json!({"allow": [], "until": "noon", "why": ""})),
        ),
        (
            "/rules",
            rule(json!({"allow": [], "during": ["exec"], "why": ""})),
            rule(json!({"allow": [], "during": ["prelude"], "why": ""})),
        ),
        (
            "/rules",
            condition(json!([{"from": 1, "to": "X"}, 3, "Y"])),
            condition(json!([{"first": 1}])),
        ),
        (
            "/rules",
            condition(json!([{"to": 9}])),
            condition(json!([{}])),
        ),
        ("/rules", condition(json!([0])), condition(json!([]))),
        (
            "/phases",
            serving(json!({"tcp": {"port": 1}, "settle": "1s"})),
            serving(json!({"settle": "1s"})),
        ),
        (
            "/phases",
            serving(json!({"quiet": "20s", "dwell": "5ms"})),
            serving(json!({"quiet": "20s", "tcp": {"port": 1}})),
        ),
        (
            "/phases",
            serving(json!({"health": "engine"})),
            serving(json!({"health": "docker"})),
        ),
        (
            "/phases",
            json!({"startup": {"restarts": 1000}}),
            json!({"startup": {"restarts": 1001}}),
        ),
        (
            "/phases",
            json!({"exec": {"start": "refuse"}}),
            json!({"exec": {"start": "maybe"}}),
        ),
    ] {
        for (value, valid) in [(right, true), (wrong, false)] {
            let mut policy = good.clone();
            *policy.pointer_mut(place).expect("a field of the policy") = value;
            assert_eq!(schema.is_valid(&policy), valid, "{place}: {policy}");
        }
    }
    let mut more = good.clone();
    more["surprise"] = json!(1);
    assert!(!schema.is_valid(&more));
}
