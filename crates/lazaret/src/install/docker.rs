//! `daemon.json`: `runtimes.lazaret`, and `default-runtime`. Everything else stays as it is, spaces and order included; only an
//! object that stood on one line is broken into lines.
//!
//! Docker reads strict JSON (`daemon/config/config.go`, `getConflictFreeConfiguration`), an empty file as an empty object.

use super::edit::{Change, EditError, Edited, NAME, Scope, default_was, is_ours};
use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstObject, CstRootNode};
use jsonc_parser::json;

const RUNTIMES: &str = "runtimes";
const DEFAULT: &str = "default-runtime";

/// The file with the change made.
///
/// # Errors
/// [`EditError`].
pub(crate) fn edit(text: Option<&str>, change: Change<'_>) -> Result<Edited, EditError> {
    let text = text.unwrap_or_default();
    let (root, object) = parse(text)?;
    let mut notes = Vec::new();
    let default = default_runtime(&object)?;
    let runtimes = match single(&object, RUNTIMES)? {
        Some(property) => Some(property.object_value().ok_or(EditError::Shape {
            key: RUNTIMES.to_owned(),
            wanted: "an object",
        })?),
        None => None,
    };
    let ours = match &runtimes {
        Some(runtimes) => ours(runtimes)?,
        None => None,
    };
    match change {
        Change::Put(program, scope) => {
            match ours {
                Some((entry, _)) => {
                    // other keys of the entry, as `runtimeArgs`, are a person's
                    if let Some(path) = entry.get("path")
                        && string(&path, "runtimes.lazaret.path")? != program
                    {
                        path.set_value(json!(program));
                    }
                }
                None => {
                    let runtimes = object.object_value_or_set(RUNTIMES);
                    runtimes.append(NAME, json!({ "path": program }));
                }
            }
            if scope == Scope::Default && default.as_deref() != Some(NAME) {
                if let Some(before) = default {
                    notes.push(default_was(DEFAULT, &before));
                }
                match object.get(DEFAULT) {
                    Some(property) => property.set_value(json!(NAME)),
                    None => drop(object.append(DEFAULT, json!(NAME))),
                }
            }
        }
        Change::TakeOut(scope) => {
            if default.as_deref() == Some(NAME) {
                if scope == Scope::Named {
                    return Err(EditError::IsDefault);
                }
                if let Some(property) = object.get(DEFAULT) {
                    property.remove();
                }
            }
            if let (Some(runtimes), Some(_)) = (&runtimes, &ours) {
                if let Some(property) = runtimes.get(NAME) {
                    property.remove();
                }
                if runtimes.properties().is_empty()
                    && let Some(property) = object.get(RUNTIMES)
                {
                    property.remove();
                }
                notes.push(
                    "containers that were made with this runtime do not start any more: make them again"
                        .to_owned(),
                );
            }
        }
    }
    let empty = object.properties().is_empty();
    let mut new = root.to_string();
    if text.trim().is_empty() && !new.ends_with('\n') {
        new.push('\n');
    }
    if text.trim().is_empty() && empty {
        new = text.to_owned();
    }
    parse(&new)?;
    Ok(Edited {
        text: new,
        empty,
        notes,
    })
}

/// Strict JSON with an object, which can be changed in place.
fn parse(text: &str) -> Result<(CstRootNode, CstObject), EditError> {
    let text = if text.trim().is_empty() { "{}" } else { text };
    let strict = |error: &serde_json::Error| EditError::Syntax {
        line: error.line(),
        column: error.column(),
        what: error.to_string(),
    };
    serde_json::from_str::<serde_json::Value>(text).map_err(|error| strict(&error))?;
    let root =
        CstRootNode::parse(text, &ParseOptions::default()).map_err(|error| EditError::Syntax {
            line: error.line_display(),
            column: error.column_display(),
            what: error.kind().to_string(),
        })?;
    let object = root.object_value().ok_or(EditError::Shape {
        key: "daemon.json".to_owned(),
        wanted: "an object",
    })?;
    Ok((root, object))
}

/// A property that may be there once.
fn single(
    object: &CstObject,
    name: &str,
) -> Result<Option<jsonc_parser::cst::CstObjectProp>, EditError> {
    let named = |property: &jsonc_parser::cst::CstObjectProp| {
        property.decoded_name().is_some_and(|found| found == name)
    };
    let times = object.properties().iter().filter(|one| named(one)).count();
    if times > 1 {
        return Err(EditError::Repeated {
            key: name.to_owned(),
            times,
        });
    }
    Ok(object.get(name))
}

fn string(property: &jsonc_parser::cst::CstObjectProp, key: &str) -> Result<String, EditError> {
    let literal = property.value().and_then(|value| value.as_string_lit());
    let text = literal.and_then(|literal| literal.decoded_value().ok());
    text.ok_or_else(|| EditError::Shape {
        key: key.to_owned(),
        wanted: "a string",
    })
}

fn default_runtime(object: &CstObject) -> Result<Option<String>, EditError> {
    single(object, DEFAULT)?
        .map(|property| string(&property, DEFAULT))
        .transpose()
}

/// Our entry and its program, if it is there.
fn ours(runtimes: &CstObject) -> Result<Option<(CstObject, String)>, EditError> {
    let Some(property) = single(runtimes, NAME)? else {
        return Ok(None);
    };
    let entry = property.object_value().ok_or(EditError::Shape {
        key: "runtimes.lazaret".to_owned(),
        wanted: "an object",
    })?;
    let found = match single(&entry, "path")? {
        Some(path) => string(&path, "runtimes.lazaret.path")?,
        // Docker 23 and later also take `runtimeType`
        None => "a runtime without a path".to_owned(),
    };
    if !is_ours(&found) {
        return Err(EditError::Foreign { found });
    }
    Ok(Some((entry, found)))
}
