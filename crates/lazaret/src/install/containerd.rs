//! containerd's `config.toml`: a runtime of the CRI plugin, and `default_runtime_name`.
//!
//! Versions 2 and 3 of the format differ in the plugin's name (containerd `docs/cri/config.md`). `imports` are not followed.
//! What the runtime `runc` is told besides its program is told ours too: `SystemdCgroup` above all, without which a
//! kubelet's cgroups are not found.

use super::edit::{Change, EditError, Edited, NAME, Scope, default_was, is_ours};
use super::toml::{find, find_or_make, parse, string};
use toml_edit::{DocumentMut, Item, Table, TableLike, value};

const RUNC: &str = "runc";
const PROGRAM: &str = "BinaryName";
const DEFAULT: &str = "default_runtime_name";

/// What a file says that is made for us, when it says nothing more.
const MADE: &str = "version = 2\n";

/// The file with the change made.
///
/// # Errors
/// [`EditError`].
pub(crate) fn edit(text: Option<&str>, change: Change<'_>) -> Result<Edited, EditError> {
    let taking_out_of_nothing = text.is_none() && matches!(change, Change::TakeOut(_));
    let text = match text {
        _ if taking_out_of_nothing => "",
        Some(text) => text,
        None => MADE,
    };
    let mut notes = Vec::new();
    let mut document = parse(text)?;
    if document.is_empty() && matches!(change, Change::Put(..)) {
        document["version"] = value(2);
    }
    if document.is_empty() {
        return Ok(Edited {
            text: text.to_owned(),
            empty: true,
            notes,
        });
    }
    let plugin = plugin(&document)?;
    let runtimes = ["plugins", plugin, "containerd", "runtimes"];
    match change {
        Change::Put(program, scope) => {
            put(&mut document, &runtimes, program, &mut notes)?;
            if scope == Scope::Default {
                let containerd = find_or_make(&mut document, &runtimes[..3])?;
                let before = string(containerd, DEFAULT)?;
                if before.as_deref() != Some(NAME) {
                    if let Some(before) = before {
                        notes.push(default_was(DEFAULT, &before));
                    }
                    set(containerd, DEFAULT, NAME);
                    if let Some(table) = table_of(&mut document, &runtimes[..3]) {
                        table.set_implicit(false);
                    }
                }
            }
            if disables_cri(&document, plugin) {
                notes.push(
                    "the CRI plugin is disabled in this file: only clients that name the wrapper themselves use it".to_owned(),
                );
            }
        }
        Change::TakeOut(scope) => {
            take_out(&mut document, &runtimes, scope)?;
        }
    }
    let new = document.to_string();
    parse(&new)?;
    Ok(Edited {
        empty: new == MADE,
        text: new,
        notes,
    })
}

/// The CRI plugin's name in the file's version of the format; without a `version` containerd 1 reads it as version 1.
fn plugin(document: &DocumentMut) -> Result<&'static str, EditError> {
    let version = match document.get("version") {
        None => 1,
        Some(item) => item.as_integer().ok_or(EditError::Shape {
            key: "version".to_owned(),
            wanted: "a number",
        })?,
    };
    match version {
        2 => Ok("io.containerd.grpc.v1.cri"),
        3 => Ok("io.containerd.cri.v1.runtime"),
        found => Err(EditError::Version { found }),
    }
}

fn put(
    document: &mut DocumentMut,
    runtimes: &[&str],
    program: &str,
    notes: &mut Vec<String>,
) -> Result<(), EditError> {
    if let Some(entry) = find(document, &[runtimes, &[NAME]].concat())? {
        check_ours(entry)?;
        let options = [runtimes, &[NAME, "options"]].concat();
        let options = find_or_make(document, &options)?;
        if string(options, PROGRAM)?.as_deref() != Some(program) {
            set(options, PROGRAM, program);
        }
        return Ok(());
    }
    let mut entry = Table::new();
    let mut options = Table::new();
    if let Some(runc) = find(document, &[runtimes, &[RUNC]].concat())? {
        copy_values(runc, &mut entry);
    }
    if let Some(runc) = find(document, &[runtimes, &[RUNC, "options"]].concat())? {
        if let Some(before) = string(runc, PROGRAM)?.filter(|before| !before.is_empty()) {
            notes.push(format!(
                "`{RUNC}` is `{before}` here: name it as `runtime` in /etc/lazaret/runtime.toml if the wrapper is to run it"
            ));
        }
        copy_values(runc, &mut options);
    }
    entry["runtime_type"] = value("io.containerd.runc.v2");
    options[PROGRAM] = value(program);
    entry["options"] = Item::Table(options);
    find_or_make(document, runtimes)?.insert(NAME, Item::Table(entry));
    Ok(())
}

/// Takes over what is a plain value, without its comments.
fn copy_values(from: &dyn TableLike, to: &mut Table) {
    for (name, item) in from.iter() {
        if let Some(found) = item.as_value().filter(|found| !found.is_inline_table()) {
            let mut copy = found.clone();
            copy.decor_mut().clear();
            to[name] = Item::Value(copy);
        }
    }
}

fn take_out(document: &mut DocumentMut, runtimes: &[&str], scope: Scope) -> Result<(), EditError> {
    if let Some(entry) = find(document, &[runtimes, &[NAME]].concat())? {
        check_ours(entry)?;
    }
    // `runtimes` has four steps
    if let Some(containerd) = find(document, &runtimes[..3])?
        && string(containerd, DEFAULT)?.as_deref() == Some(NAME)
    {
        if scope == Scope::Named {
            return Err(EditError::IsDefault);
        }
        containerd.remove(DEFAULT);
        // a header that was made for the default alone
        if let Some(table) = table_of(document, &runtimes[..3]) {
            let prefix = table.decor().prefix().and_then(|prefix| prefix.as_str());
            let commented = prefix.is_some_and(|prefix| !prefix.trim().is_empty());
            if !commented && !table.iter().any(|(_, item)| item.is_value()) {
                table.set_implicit(true);
            }
        }
    }
    if let Some(runtimes) = find(document, runtimes)? {
        runtimes.remove(NAME);
    }
    Ok(())
}

fn check_ours(entry: &dyn TableLike) -> Result<(), EditError> {
    let options = entry.get("options").and_then(Item::as_table_like);
    let found = match options {
        Some(options) => string(options, PROGRAM)?,
        None => None,
    };
    match found {
        Some(found) if is_ours(&found) => Ok(()),
        found => Err(EditError::Foreign {
            found: found.unwrap_or_else(|| "a runtime without a program".to_owned()),
        }),
    }
}

/// Changes a value and keeps the comment beside it.
fn set(table: &mut dyn TableLike, name: &str, text: &str) {
    match table.get_mut(name).and_then(Item::as_value_mut) {
        Some(old) => {
            let decor = old.decor().clone();
            *old = text.into();
            *old.decor_mut() = decor;
        }
        None => drop(table.insert(name, value(text))),
    }
}

fn table_of<'a>(document: &'a mut DocumentMut, path: &[&str]) -> Option<&'a mut Table> {
    let mut table = document.as_table_mut();
    for name in path {
        table = table.get_mut(name)?.as_table_mut()?;
    }
    Some(table)
}

fn disables_cri(document: &DocumentMut, plugin: &str) -> bool {
    let disabled = document.get("disabled_plugins").and_then(Item::as_array);
    disabled.is_some_and(|names| {
        let mut names = names.iter().filter_map(|name| name.as_str());
        names.any(|name| name == plugin || name == "cri")
    })
}
