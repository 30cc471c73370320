//! Suggested rules as a change of a policy's own text: comments, layout and order stay, the rules come at the end of
//! `rules`, and the revision counts up by one.
//!
//! What is suggested is decided in `lazaret-core`. Nothing is written to a file here: the change is for review.

use crate::error::{Problems, WriteError};
use crate::policy;
use crate::tree::{self, At, Located, Node};
use lazaret_core::format::policy::RuleV1;
use lazaret_core::policy::Policy;
use lazaret_core::suggest::{Drift, LastRevision, Left};
use similar::TextDiff;

/// Lines around a change that the diff shows.
const CONTEXT: usize = 3;

/// A changed policy text, for review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggested {
    /// How many rules are added.
    pub rules: usize,
    /// The whole text; the given one where nothing is added.
    pub patched: String,
    /// The change as a unified diff that `patch` takes; empty where nothing is added.
    pub diff: String,
    /// Drift that gets no rule, each with its reason.
    pub left: Vec<Left>,
}

/// Why no change can be suggested.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuggestError {
    /// The text is no policy.
    #[error("the text is no policy:\n{0}")]
    Text(Problems),
    /// No higher revision.
    #[error("the policy cannot get another revision")]
    Revision(#[from] LastRevision),
    /// With the rules it would be no policy; for example there are too many.
    #[error("with the suggested rules the policy would be wrong: {problems}")]
    Rules {
        /// What is wrong, in one line.
        problems: String,
    },
    /// The writer's own.
    #[error("cannot write the suggested rules")]
    Write(#[from] WriteError),
    /// The text is laid out in a way that takes no further rule.
    #[error("cannot find the end of `rules` in the text: write the list with one rule a line")]
    Layout,
}

/// The change of a policy text that would allow `drift`. `name` is the file's name, for the diff.
///
/// # Guarantees
/// The changed text is read as the given policy with exactly the suggested rules added and its revision raised by one:
/// it was read again and compared. Every other character of it stands as it stood.
///
/// # Errors
/// See [`SuggestError`].
pub fn suggest(text: &str, name: &str, drift: &[Drift]) -> Result<Suggested, SuggestError> {
    let policy = policy::parse(text).map_err(SuggestError::Text)?;
    let suggestion = lazaret_core::suggest::suggest(&policy, drift);
    let patched = if suggestion.rules.is_empty() {
        text.to_owned()
    } else {
        let wanted = Policy::try_from(suggestion.apply(policy.wire())?).map_err(|error| {
            SuggestError::Rules {
                problems: error.to_string(),
            }
        })?;
        patch(text, &suggestion.rules, &wanted)?
    };
    Ok(Suggested {
        rules: suggestion.rules.len(),
        diff: unified(text, &patched, name),
        patched,
        left: suggestion.left,
    })
}

/// The change from one text to another as a unified diff; empty for equal texts.
fn unified(before: &str, after: &str, name: &str) -> String {
    let (a, b) = (format!("a/{name}"), format!("b/{name}"));
    TextDiff::from_lines(before, after)
        .unified_diff()
        .context_radius(CONTEXT)
        .header(&a, &b)
        .to_string()
}

/// Puts the rules and the revision of `wanted` into the text.
fn patch(text: &str, rules: &[RuleV1], wanted: &Policy) -> Result<String, SuggestError> {
    let root = tree::parse(text).map_err(SuggestError::Text)?;
    let revision = root
        .field("metadata")
        .and_then(|metadata| metadata.field("revision"))
        .ok_or(SuggestError::Layout)?;
    let last = root.elements("rules").last().ok_or(SuggestError::Layout)?;
    let list = policy::rules(rules)?;
    let lines = as_lines(text, last, &list);
    let mut in_json = String::new();
    for rule in rules {
        // a rule holds no map and no float: writing it cannot fail (serde_json, "Errors" of to_string)
        in_json.extend([",", &serde_json::to_string(rule).unwrap_or_default()]);
    }
    let flow = in_flow(text, last, &in_json);
    for (at, inserted) in lines.chain(flow) {
        let edits = [
            (revision.at, wanted.revision().to_string()),
            (At { start: at, len: 0 }, inserted),
        ];
        let patched = edited(text, edits).ok_or(SuggestError::Layout)?;
        // a guess at the layout is right exactly when the outcome is read as what it should be
        if policy::parse(&patched).is_ok_and(|found| found == *wanted) {
            return Ok(patched);
        }
    }
    Err(SuggestError::Layout)
}

/// The text with each piece replaced; `None` when they are no pieces of it.
fn edited(text: &str, mut edits: [(At, String); 2]) -> Option<String> {
    edits.sort_by_key(|(at, _)| *at);
    let mut changed = String::with_capacity(text.len() + 256);
    let mut rest = 0;
    for (At { start, len }, new) in &edits {
        changed.push_str(text.get(rest..*start)?);
        changed.push_str(new);
        rest = start + len;
    }
    changed.push_str(text.get(rest..)?);
    Some(changed)
}

/// Guesses for a list with one rule a line: behind the line on which the last rule ends. Where exactly it ends (a bracket, a
/// text over several lines) is tried, line by line.
fn as_lines<'t>(
    text: &'t str,
    last: &Located,
    list: &str,
) -> impl Iterator<Item = (usize, String)> + use<'t> {
    /// The most lines behind the last value that can belong to it.
    const TRIED: usize = 64;

    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let before = text.get(..last.at.start).unwrap_or_default();
    let dash = before.rfind('-').unwrap_or_default();
    let line = before.get(..dash).unwrap_or_default();
    let indent = line.rsplit('\n').next().unwrap_or_default();
    let mut indented = String::new();
    for rule in list.lines() {
        indented.extend([indent, rule, newline]);
    }
    let end = end_of(last);
    let ends = text
        .get(end..)
        .unwrap_or_default()
        .split_inclusive('\n')
        .scan(end, |at, line| {
            *at += line.len();
            Some(*at)
        });
    // a text whose last value ends in its last character has no line behind it
    let none = text.len() == end;
    ends.chain(none.then_some(end)).take(TRIED).map(move |at| {
        let ended = text.get(..at).is_some_and(|before| before.ends_with('\n'));
        let begin = if ended { "" } else { newline };
        (at, format!("{begin}{indented}"))
    })
}

/// Guesses for a list in brackets: behind a closing brace that may be the last rule's. The rules are written as JSON, which
/// is YAML, so a text in JSON stays one.
fn in_flow(text: &str, last: &Located, list: &str) -> impl Iterator<Item = (usize, String)> {
    /// The most braces behind the last value that can belong to it: those of a condition and of a rule, and some to spare.
    const TRIED: usize = 8;

    let end = end_of(last);
    let rest = text.get(end..).unwrap_or_default();
    rest.match_indices('}')
        .take(TRIED)
        .map(move |(brace, _)| (end + brace + 1, list.to_owned()))
}

/// Where the last scalar of a value ends.
fn end_of(value: &Located) -> usize {
    let within = match &value.node {
        Node::List(list) => list.iter().map(end_of).max(),
        Node::Map(fields) => fields.iter().map(|field| end_of(&field.value)).max(),
        _ => Some(value.at.start + value.at.len),
    };
    within.unwrap_or(value.at.start)
}
