//! What is common to the changes of all engines' files: what is asked for, what comes out, and why it may not. No effects.

use std::path::Path;

/// The runtime's name in every engine.
pub(crate) const NAME: &str = "lazaret";

/// The wrapper's file name, by which an entry is known as ours.
const PROGRAM: &str = "lazaret-runtime";

/// Which containers a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those that name the runtime.
    Named,
    /// Also those that name none.
    Default,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    /// The wrapper with this path is put in.
    Put(&'a str, Scope),
    /// It is taken out.
    TakeOut(Scope),
}

/// The new text of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Edited {
    /// The text.
    pub(crate) text: String,
    /// It says nothing more: a file that was made for it can go.
    pub(crate) empty: bool,
    /// What a person should know.
    pub(crate) notes: Vec<String>,
}

/// Why a file is left as it is.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum EditError {
    /// It is not of its format.
    #[error("line {line}, column {column}: {what}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong.
        what: String,
    },
    /// It is, and something in it is not what the engine takes.
    #[error("`{key}` is not {wanted}")]
    Shape {
        /// Where.
        key: String,
        /// What should stand there.
        wanted: &'static str,
    },
    /// A key that stands there twice: which one counts is the engine's secret.
    #[error("`{key}` stands there {times} times")]
    Repeated {
        /// The key.
        key: String,
        /// How often.
        times: usize,
    },
    /// A format that the engine still reads and that has no place for a runtime under a known name.
    #[error(
        "the file is of format version {found}, supported are 2 and 3 (hint: `containerd config migrate`, or `version = 2` and \
         the names of version 2)"
    )]
    Version {
        /// As written, or 1.
        found: i64,
    },
    /// Somebody else's runtime has our name.
    #[error("runtime `{NAME}` is `{found}`, which is no {PROGRAM}: it is not ours to change")]
    Foreign {
        /// What it runs.
        found: String,
    },
    /// Containers that name no runtime would run without the gate, or not at all.
    #[error("`{NAME}` is the default runtime here (hint: --remove --default takes that out too)")]
    IsDefault,
}

/// Whether a program is the wrapper.
pub(crate) fn is_ours(program: &str) -> bool {
    Path::new(program)
        .file_name()
        .is_some_and(|name| name == PROGRAM)
}

/// Line and column, both from 1, of a byte of a text.
pub(crate) fn position(text: &str, at: usize) -> (usize, usize) {
    let before: &str = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    (line, before[start..].chars().count() + 1) // `start` follows a newline: a boundary
}

/// What to say of a default that gives way.
pub(crate) fn default_was(key: &str, before: &str) -> String {
    format!("`{key}` was `{before}`: --remove --default does not bring it back, the backup has it")
}
