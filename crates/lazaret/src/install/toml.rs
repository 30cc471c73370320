//! TOML files of engines: parsing with positions, and tables below tables. Comments and order stay.

use super::edit::{EditError, position};
use toml_edit::{DocumentMut, Item, Table, TableLike};

/// The document.
///
/// # Errors
/// [`EditError::Syntax`].
pub(crate) fn parse(text: &str) -> Result<DocumentMut, EditError> {
    text.parse::<DocumentMut>().map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let (line, column) = position(text, at);
        EditError::Syntax {
            line,
            column,
            what: error.message().trim().replace('\n', ", "),
        }
    })
}

/// The table at this path, if every step of it is there.
///
/// # Errors
/// [`EditError::Shape`] when a step is something else than a table.
pub(crate) fn find<'a>(
    document: &'a mut DocumentMut,
    path: &[&str],
) -> Result<Option<&'a mut dyn TableLike>, EditError> {
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for (depth, name) in path.iter().enumerate() {
        match table.get_mut(name) {
            None => return Ok(None),
            Some(item) => table = as_table(item, &path[..=depth])?,
        }
    }
    Ok(Some(table))
}

/// The table at this path; what is missing of it is made, without headers for the steps in between.
///
/// # Errors
/// [`EditError::Shape`] when a step is something else than a table.
pub(crate) fn find_or_make<'a>(
    document: &'a mut DocumentMut,
    path: &[&str],
) -> Result<&'a mut dyn TableLike, EditError> {
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for (depth, name) in path.iter().enumerate() {
        let made = || {
            let mut made = Table::new();
            made.set_implicit(true);
            Item::Table(made)
        };
        let item = table.entry(name).or_insert_with(made);
        table = as_table(item, &path[..=depth])?; // `depth` is an index of `path`
    }
    Ok(table)
}

fn as_table<'a>(item: &'a mut Item, path: &[&str]) -> Result<&'a mut dyn TableLike, EditError> {
    item.as_table_like_mut().ok_or_else(|| EditError::Shape {
        key: path.join("."),
        wanted: "a table",
    })
}

/// A string in a table.
///
/// # Errors
/// [`EditError::Shape`] when it is something else.
pub(crate) fn string(table: &dyn TableLike, name: &str) -> Result<Option<String>, EditError> {
    let Some(item) = table.get(name) else {
        return Ok(None);
    };
    item.as_str()
        .map(|text| Some(text.to_owned()))
        .ok_or_else(|| EditError::Shape {
            key: name.to_owned(),
            wanted: "a string",
        })
}
