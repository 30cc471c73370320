//! The policy text: YAML in, with every problem at its line and column, and YAML out.
//!
//! Reading goes through the strict wire types; places of problems in the *meaning* are found in a second pass over the
//! same text, which only a wrong policy pays for.

use crate::error::{Problems, TextError, WriteError};
use lazaret_core::format::policy::{
    CeilingV1, ConditionV1, EnvironmentV1, EvidenceV1, ImageV1, MetadataV1, ModeV1, OtherwiseV1,
    PhasesV1, PolicyV1, RuleV1, ValueV1,
};
use lazaret_core::policy::{MAX_BYTES, Place, Policy, PolicyError, Problem, Segment};
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{FlowMap, FlowSeq, Location, Options, Spanned};
use std::fmt;
use std::io::Read;
use std::path::Path;

/// What the errors call such a file.
const KIND: &str = "policy";

/// Reads and checks a policy text.
///
/// # Errors
/// The file; what is wrong with the text, each problem with its line, column, text and a caret. Larger than
/// [`MAX_BYTES`] is refused before it is read to its end.
pub fn read(path: &Path) -> Result<Policy, TextError> {
    let text = read_bounded(path)?;
    parse(&text).map_err(|problems| TextError::Problems {
        kind: KIND,
        path: path.to_path_buf(),
        problems,
    })
}

fn read_bounded(path: &Path) -> Result<String, TextError> {
    let file = std::fs::File::open(path).map_err(|source| TextError::Open {
        kind: KIND,
        path: path.to_path_buf(),
        source,
    })?;
    let mut text = String::new();
    // one byte more than allowed tells a policy of the size from one over it
    let bound = MAX_BYTES as u64 + 1;
    file.take(bound)
        .read_to_string(&mut text)
        .map_err(|source| TextError::Read {
            kind: KIND,
            path: path.to_path_buf(),
            source,
        })?;
    if text.len() > MAX_BYTES {
        return Err(TextError::TooLarge {
            kind: KIND,
            path: path.to_path_buf(),
            limit: MAX_BYTES,
        });
    }
    Ok(text)
}

/// Parses and checks a policy text.
///
/// # Errors
/// All problems that were found.
pub fn parse(text: &str) -> Result<Policy, Problems> {
    let wire: PolicyV1 = serde_saphyr::from_str_with_options(text, options())
        .map_err(|error| Problems(vec![error.to_string()]))?;
    Policy::try_from(wire).map_err(|error| match error {
        PolicyError::Problems { problems } => {
            Problems(problems.iter().map(|problem| show(text, problem)).collect())
        }
        other => Problems(vec![other.to_string()]),
    })
}

/// Bounds for hostile text: a policy needs no anchors, and is small and flat.
fn options() -> Options {
    let mut budget = serde_saphyr::Budget::default();
    budget.max_reader_input_bytes = Some(MAX_BYTES);
    budget.max_anchors = 0;
    budget.max_aliases = 0;
    budget.max_depth = 16;
    budget.max_documents = 1;
    budget.max_merge_keys = 0;
    let mut options = Options::default();
    options.budget = Some(budget);
    options.strict_booleans = true;
    options
}

/// One problem with its line and a caret under it.
fn show(text: &str, problem: &Problem) -> String {
    let Some(at) = locate(text, &problem.place) else {
        return problem.to_string();
    };
    let (line, column) = (at.line(), at.column());
    let number = line.to_string();
    let gutter = " ".repeat(number.len());
    let source = usize::try_from(line)
        .ok()
        .and_then(|line| text.lines().nth(line.saturating_sub(1)))
        .unwrap_or_default();
    let caret = " ".repeat(usize::try_from(column.saturating_sub(1)).unwrap_or(0));
    let Problem { place, what } = problem;
    format!(
        "line {line} column {column}: {what}\n{gutter} |  ({place})\n{number} | {source}\n{gutter} | {caret}^"
    )
}

/// A document with nothing but places.
enum Node {
    Leaf,
    List(Vec<Spanned<Node>>),
    Map(Vec<(String, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        struct Nodes;

        impl<'de> Visitor<'de> for Nodes {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any YAML")
            }
            fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
            fn visit_str<E>(self, _: &str) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(node) = seq.next_element()? {
                    list.push(node);
                }
                Ok(Node::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut fields = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    fields.push((key, map.next_value()?));
                }
                Ok(Node::Map(fields))
            }
        }

        deserializer.deserialize_any(Nodes)
    }
}

/// Where a place is in the text; the nearest place above it that is there, where it is not (an absent field).
fn locate(text: &str, place: &Place) -> Option<Location> {
    // a text that was read once is read again: an error here only costs the position
    let root: Spanned<Node> = serde_saphyr::from_str_with_options(text, options()).ok()?;
    let mut here = &root;
    for segment in &place.0 {
        let below = match (segment, &here.value) {
            (Segment::Field(name), Node::Map(fields)) => fields
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, node)| node),
            (Segment::Index(index), Node::List(list)) => list.get(*index),
            _ => None,
        };
        match below {
            Some(node) => here = node,
            None => break,
        }
    }
    Some(here.referenced)
}

/// The text of a policy, in the order in which people read one.
///
/// # Errors
/// None that a policy can cause; the writer's own.
pub fn write(wire: &PolicyV1) -> Result<String, WriteError> {
    Ok(serde_saphyr::to_string(&Text {
        api_version: &wire.api_version,
        kind: &wire.kind,
        metadata: FlowMap(&wire.metadata),
        image: &wire.image,
        environment: &wire.environment,
        mode: &wire.mode,
        phases: &wire.phases,
        ceiling: &wire.ceiling,
        otherwise: FlowMap(&wire.otherwise),
        rules: wire.rules.iter().map(RuleText::from).collect(),
        evidence: wire.evidence.as_ref(),
    })?)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Text<'p> {
    api_version: &'p str,
    kind: &'p str,
    metadata: FlowMap<&'p MetadataV1>,
    image: &'p ImageV1,
    environment: &'p EnvironmentV1,
    mode: &'p ModeV1,
    phases: &'p PhasesV1,
    ceiling: &'p CeilingV1,
    otherwise: FlowMap<&'p OtherwiseV1>,
    rules: Vec<RuleText<'p>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<&'p EvidenceV1>,
}

#[derive(Serialize)]
struct RuleText<'p> {
    #[serde(skip_serializing_if = "Option::is_none")]
    allow: Option<FlowSeq<&'p Vec<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deny: Option<FlowSeq<&'p Vec<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    during: Option<FlowSeq<&'p Vec<String>>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    when: Vec<FlowMap<ConditionText<'p>>>,
    why: &'p str,
}

#[derive(Serialize)]
struct ConditionText<'p> {
    arg: &'p str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask: Option<u64>,
    #[serde(rename = "in")]
    values: FlowSeq<&'p Vec<ValueV1>>,
}

impl<'p> From<&'p RuleV1> for RuleText<'p> {
    fn from(rule: &'p RuleV1) -> RuleText<'p> {
        let condition = |condition: &'p ConditionV1| {
            FlowMap(ConditionText {
                arg: &condition.arg,
                mask: condition.mask,
                values: FlowSeq(&condition.values),
            })
        };
        RuleText {
            allow: rule.allow.as_ref().map(FlowSeq),
            deny: rule.deny.as_ref().map(FlowSeq),
            errno: rule.errno.as_deref(),
            until: rule.until.as_deref(),
            during: rule.during.as_ref().map(FlowSeq),
            when: rule.when.iter().map(condition).collect(),
            why: &rule.why,
        }
    }
}

#[cfg(test)]
mod tests {
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
  - allow: [exit, exit_group, restart_syscall, rt_sigreturn, write]
    why: required
  - allow: [socket]
    when: [{arg: family, in: [AF_INET, 10]}, {arg: type, mask: 0xf, in: [SOCK_STREAM]}]
    why: "two: conditions"
"#;

    #[test]
    fn text_comes_back_as_the_same_policy() {
        let policy = parse(GOOD).unwrap_or_else(|error| panic!("{error}"));
        let written = write(policy.wire()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(parse(&written), Ok(policy), "{written}");
    }

    #[test]
    fn problems_have_line_column_and_caret() {
        let cases = [
            (
                GOOD.replace("[socket]", "[soket]"),
                "line 14 column 13: unknown system call `soket` for x86_64",
            ),
            (
                GOOD.replace("AF_INET", "AF_INTER"),
                "line 15 column 31: unknown constant `AF_INTER`",
            ),
            (
                GOOD.replace("revision: 3", "revision: 0"),
                "line 3 column 31: revision 0",
            ),
            (
                GOOD.replace("settle: 10s", "settle: soon"),
                "line 8 column 78: `soon` is no duration",
            ),
        ];
        for (text, wanted) in cases {
            let error = parse(&text).expect_err("refused").to_string();
            assert!(error.starts_with(wanted), "{error}");
            assert!(error.ends_with('^'), "{error}");
        }
        let two = GOOD
            .replace("[socket]", "[soket]")
            .replace("AF_INET", "AF_INTER");
        assert_eq!(
            parse(&two)
                .expect_err("refused")
                .to_string()
                .matches('^')
                .count(),
            1,
            "an unknown call has no arguments to check"
        );
        let two = GOOD
            .replace("revision: 3", "revision: 0")
            .replace("10s", "soon");
        assert_eq!(
            parse(&two)
                .expect_err("refused")
                .to_string()
                .matches('^')
                .count(),
            2
        );
    }

    #[test]
    fn shape_problems_have_a_line_too() {
        for (text, wanted) in [
            (
                GOOD.replace("mode: enforce", "mode: enforce\nsurprise: 1"),
                "surprise",
            ),
            (GOOD.replace("mode: enforce", "mode: maybe"), "maybe"),
            (GOOD.replace("rules:\n", "rules: 7\nx:\n"), "rules"),
            ("metadata: [".to_string(), "line"),
            (String::new(), ""),
        ] {
            let error = parse(&text).expect_err("refused").to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn hostile_text_is_refused_cheaply() {
        let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n";
        assert!(parse(bomb).is_err());
        let deep = "[".repeat(100_000);
        assert!(parse(&deep).is_err());
    }
}
