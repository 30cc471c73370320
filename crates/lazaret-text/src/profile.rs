//! Seccomp profiles as text: the JSON that Docker, podman and the OCI runtime specification know, with the place of what is
//! wrong.
//!
//! The forms and their meaning are `lazaret_filter::oci`'s; here are only files and places.

use crate::error::{Finding, Problems, TextError};
use crate::source::Source;
use crate::tree::{At, Located, Node};
use crate::{file, tree};
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
    parse(&text).map_err(|problems| TextError::Problems {
        kind: KIND,
        path: path.to_path_buf(),
        problems,
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
    let offset = match tree::parse(text) {
        Ok(root) => locate(&root, &place).start,
        // a text with a field twice is JSON and no YAML, and the place of the second is what is wanted
        Err(_) => 0,
    };
    source.finding(offset, String::new(), &error.to_string())
}

/// Where a place is, written as `syscalls[3].names`; the nearest place above it, where it is not.
fn locate(root: &Located, place: &str) -> At {
    let mut here = root;
    let mut at = root.at;
    for segment in place
        .split(['.', '['])
        .filter(|segment| !segment.is_empty())
    {
        match &here.node {
            Node::Map(fields) => {
                let Some(field) = fields.iter().find(|field| field.name == segment) else {
                    break;
                };
                (here, at) = (&field.value, field.at);
            }
            Node::List(list) => {
                let index = segment.trim_end_matches(']').parse::<usize>();
                let Some(value) = index.ok().and_then(|index| list.get(index)) else {
                    break;
                };
                (here, at) = (value, value.at);
            }
            _ => break,
        }
    }
    at
}
