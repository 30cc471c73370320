//! The policy language as text: YAML in, with every problem at its line and column, and YAML out.
//!
//! Three stages, each with all the problems it can find: the tree of values (`tree`), the wire types
//! (`shape`), the meaning (`lazaret-core`).

mod write;
mod written;

pub(crate) use write::rules;
pub use write::write;
pub use written::Text;

use crate::error::{Finding, Problems, TextError};
use crate::shape;
use crate::source::Source;
use crate::tree::{At, Located, Node};
use crate::{any, file, tree};
use lazaret_core::format::policy::PolicyV1;
use lazaret_core::policy::{MAX_BYTES, Place, Policy, PolicyError, Problem, Segment};
use std::path::Path;

/// What the errors call such a file.
pub(crate) const KIND: &str = "policy";

/// Reads and checks a policy text: YAML, or the canonical JSON, which is YAML too.
///
/// # Errors
/// What keeps the file from being read; what is wrong with the text, each problem with its line, column and a caret.
/// More than [`MAX_BYTES`] are refused before they are read to their end.
pub fn read(path: &Path) -> Result<Policy, TextError> {
    let text = file::read(path, KIND, MAX_BYTES)?;
    parse(&text).map_err(|problems| refused(path, &text, problems))
}

/// Why the text of a file is no policy.
fn refused(path: &Path, text: &str, problems: Problems) -> TextError {
    let path = path.to_path_buf();
    if any::is_profile(text) {
        return TextError::OtherKind {
            kind: KIND,
            path,
            found: "seccomp profile",
        };
    }
    TextError::Problems {
        kind: KIND,
        path,
        problems,
    }
}

/// Parses and checks a policy text.
///
/// # Errors
/// The problems of the first stage that has any: the syntax, the form, the meaning.
pub fn parse(text: &str) -> Result<Policy, Problems> {
    let source = Source::new(text);
    if text.len() > MAX_BYTES {
        let what = format!(
            "the text has {} bytes, at most {MAX_BYTES} are read",
            text.len()
        );
        return Err(source.finding(0, String::new(), &what).into());
    }
    let root = tree::parse(text)?;
    let wire: PolicyV1 = shape::value(source, &root).map_err(|wrongs| {
        let shown = wrongs.iter().take(Problems::LIMIT);
        let found = shown
            .map(|(at, what)| source.finding(at.start, place_of(&root, *at), &what.to_string()));
        problems(found.collect(), wrongs.len())
    })?;
    Policy::try_from(wire).map_err(|error| match error {
        PolicyError::Problems { problems: all } => {
            let mut placed: Vec<(At, &Problem)> = all
                .iter()
                .map(|problem| (locate(&root, &problem.place), problem))
                .collect();
            placed.sort_by_key(|(at, _)| *at);
            let shown = placed.iter().take(Problems::LIMIT);
            let found = shown.map(|(at, Problem { place, what })| {
                source.finding(at.start, place.to_string(), &what.to_string())
            });
            problems(found.collect(), placed.len())
        }
        other => source.finding(0, String::new(), &other.to_string()).into(),
    })
}

fn problems(found: Vec<Finding>, all: usize) -> Problems {
    let more = all - found.len(); // `found` is made of some of them
    Problems::new(found, more)
}

/// Where a place is in the text; the nearest place above it that is there, where it is not (an absent field).
fn locate(root: &Located, place: &Place) -> At {
    let mut here = root;
    for segment in &place.0 {
        let below = match (segment, &here.node) {
            (Segment::Field(name), _) => here.field(name),
            (Segment::Index(index), Node::List(list)) => list.get(*index),
            _ => None,
        };
        match below {
            Some(value) => here = value,
            None => break,
        }
    }
    here.at
}

/// The path to the value or field that stands there; empty for the document.
fn place_of(root: &Located, at: At) -> String {
    fn below(here: &Located, at: At, path: &mut Vec<String>) -> bool {
        if here.at == at {
            return true;
        }
        match &here.node {
            Node::List(list) => list.iter().enumerate().any(|(index, value)| {
                path.push(format!("[{index}]"));
                let found = below(value, at, path);
                if !found {
                    path.pop();
                }
                found
            }),
            Node::Map(fields) => fields.iter().any(|field| {
                let dot = if path.is_empty() { "" } else { "." };
                path.push(format!("{dot}{}", field.name));
                let found = field.at == at || below(&field.value, at, path);
                if !found {
                    path.pop();
                }
                found
            }),
            _ => false,
        }
    }
    let mut path = Vec::new();
    below(root, at, &mut path);
    path.concat()
}

#[cfg(test)]
mod tests;
