//! podman: a file of our own in `containers.conf.d` (containers.conf(5)), so that nobody's file is changed.
//!
//! A file in a user's home wins over it, and `CONTAINERS_CONF` in the environment replaces all of them.

use super::edit::{Change, EditError, Edited, NAME, Scope, is_ours};
use super::toml::{find, find_or_make, parse};
use toml_edit::{Array, DocumentMut, Item, value};

const DEFAULT: &str = "runtime";
const HEADER: &str =
    "# Made by `lazaret install podman`; `lazaret install podman --remove` takes it out.\n";

/// The file with the change made.
///
/// # Errors
/// [`EditError`].
pub(crate) fn edit(text: Option<&str>, change: Change<'_>) -> Result<Edited, EditError> {
    let mut document = parse(text.unwrap_or_default())?;
    let fresh = document.is_empty();
    let default = match find(&mut document, &["engine"])? {
        Some(engine) => super::toml::string(engine, DEFAULT)?,
        None => None,
    };
    check_ours(&mut document)?;
    match change {
        Change::Put(program, scope) => {
            if scope == Scope::Default && default.as_deref() != Some(NAME) {
                find_or_make(&mut document, &["engine"])?.insert(DEFAULT, value(NAME));
                show(&mut document, "engine");
            }
            let runtimes = find_or_make(&mut document, &["engine", "runtimes"])?;
            if first(runtimes.get(NAME)).as_deref() != Some(program) {
                runtimes.insert(NAME, value(Array::from_iter([program])));
            }
            if let Some(runtimes) = document["engine"]["runtimes"].as_table_mut() {
                runtimes.set_implicit(false);
            }
        }
        Change::TakeOut(scope) => {
            if default.as_deref() == Some(NAME) && scope == Scope::Named {
                return Err(EditError::IsDefault);
            }
            let mut without_runtimes = false;
            if let Some(runtimes) = find(&mut document, &["engine", "runtimes"])? {
                runtimes.remove(NAME);
                without_runtimes = runtimes.is_empty();
            }
            let mut without_engine = false;
            if let Some(engine) = find(&mut document, &["engine"])? {
                if default.as_deref() == Some(NAME) {
                    engine.remove(DEFAULT);
                }
                if without_runtimes {
                    engine.remove("runtimes");
                }
                without_engine = engine.is_empty();
            }
            if without_engine {
                document.remove("engine");
            }
        }
    }
    let mut new = document.to_string();
    if fresh && matches!(change, Change::Put(..)) {
        new = format!("{HEADER}{}", new.trim_start());
    }
    parse(&new)?;
    Ok(Edited {
        text: new,
        empty: document.is_empty(),
        notes: Vec::new(),
    })
}

fn show(document: &mut DocumentMut, name: &str) {
    if let Some(table) = document[name].as_table_mut() {
        table.set_implicit(false);
    }
}

/// The first path of a runtime: podman takes the first that exists.
fn first(item: Option<&Item>) -> Option<String> {
    let path = item?.as_array()?.get(0)?.as_str()?;
    Some(path.to_owned())
}

fn check_ours(document: &mut DocumentMut) -> Result<(), EditError> {
    let Some(runtimes) = find(document, &["engine", "runtimes"])? else {
        return Ok(());
    };
    let Some(item) = runtimes.get(NAME) else {
        return Ok(());
    };
    let paths = item.as_array().ok_or(EditError::Shape {
        key: format!("engine.runtimes.{NAME}"),
        wanted: "a list of paths",
    })?;
    let text = |path: &toml_edit::Value| path.as_str().unwrap_or_default().to_owned();
    match paths.iter().map(text).find(|path| !is_ours(path)) {
        Some(found) => Err(EditError::Foreign { found }),
        None => Ok(()),
    }
}
