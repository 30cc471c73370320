//! Seccomp profiles as text: the JSON that Docker, podman and the OCI runtime specification know, with the place of what is
//! wrong.
//!
//! The forms and their meaning are `lazaret_filter::oci`'s; here are only files and places.

use crate::error::{Finding, Problems, TextError};
use crate::source::Source;
use crate::tree::{At, Located, Node};
use crate::{any, file, tree};
use lazaret_filter::oci::{Document, MAX_PROFILE_BYTES, OciReadError, read as oci};
use std::path::Path;

/// What the errors call such a file.
pub(crate) const KIND: &str = "profile";

/// Reads a profile, in any of the forms.
///
/// # Errors
/// What keeps the file from being read; the first thing that is wrong with the text, with its line, column and a caret. More
/// than [`MAX_PROFILE_BYTES`] are refused before they are read to their end.
pub fn read(path: &Path) -> Result<Document, TextError> {
    let text = file::read(path, KIND, MAX_PROFILE_BYTES)?;
    parse(&text).map_err(|problems| {
        let path = path.to_path_buf();
        if any::is_policy(&text) {
            return TextError::OtherKind {
                kind: KIND,
                path,
                found: "policy",
            };
        }
        TextError::Problems {
            kind: KIND,
            path,
            problems,
        }
    })
}

/// Parses a profile, in any of the forms.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse(text: &str) -> Result<Document, Problems> {
    oci::parse(text.as_bytes()).map_err(|error| finding(text, &error).into())
}

/// Shows where a profile is wrong: what [`parse`] found, or what `lazaret_filter::oci::meaning` finds in a profile that was
/// read from this text.
#[must_use]
pub fn finding(text: &str, error: &OciReadError) -> Finding {
    let source = Source::new(text);
    let rule = |rule: &usize| format!("syscalls[{rule}]");
    let place = match error {
        OciReadError::Json { line, column, what } => {
            // serde_json counts bytes, names the last one that it took, and column 0 where that is a line break
            let bytes = column.saturating_sub(1);
            let offset = source.offset(line.saturating_sub(1), bytes);
            let what = what
                .rsplit_once(" at line ")
                .map_or(what.as_str(), |(what, _)| what);
            return source.finding(offset, String::new(), what);
        }
        OciReadError::Unknown { place }
        | OciReadError::Twice { place }
        | OciReadError::Missing { place }
        | OciReadError::Kind { place, .. }
        | OciReadError::Number { place, .. }
        | OciReadError::Word { place, .. }
        | OciReadError::Errno { place } => place.clone(),
        OciReadError::Both { first, .. } => first.clone(),
        OciReadError::EmptyName { rule: at }
        | OciReadError::Argument { rule: at, .. }
        | OciReadError::Conflict { rule: at, .. }
        | OciReadError::Tangled { rule: at, .. } => rule(at),
        OciReadError::DefaultAsk => "defaultAction".to_owned(),
        _ => String::new(),
    };
    let what = error.to_string();
    match (tree::parse(text), error) {
        (Ok(root), OciReadError::Unknown { .. }) => {
            source.finding(locate(&root, &place).0.start, String::new(), &what)
        }
        (Ok(root), _) => source.finding(locate(&root, &place).1.start, String::new(), &what),
        // as YAML the text is refused for the same reason, at the second of the two
        (Err(problems), OciReadError::Twice { .. }) => problems.first().saying(&what),
        // JSON that is no YAML, above all texts with surrogates: the place is in the words only
        (Err(_), _) => source.finding(0, String::new(), &what),
    }
}

/// Where the field or element of a place stands, written as `syscalls[3].names`, and where its value; the nearest place above
/// it, where it is not.
fn locate(root: &Located, place: &str) -> (At, At) {
    let mut here = root;
    let mut at = root.at;
    let segments = place.split(['.', '[']);
    for segment in segments.filter(|segment| !segment.is_empty()) {
        let below = match &here.node {
            Node::Map(fields) => fields
                .iter()
                .find(|field| field.name == segment)
                .map(|field| (field.at, &field.value)),
            Node::List(list) => {
                let index = segment.trim_end_matches(']').parse::<usize>();
                let value = index.ok().and_then(|index| list.get(index));
                value.map(|value| (value.at, value))
            }
            _ => None,
        };
        let Some(below) = below else {
            return (here.at, here.at);
        };
        (at, here) = below;
    }
    (at, here.at)
}
