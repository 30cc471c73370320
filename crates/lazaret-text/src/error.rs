//! Why a file gave no value, and what is wrong with a text.

use lazaret_filter::program::ProgramError;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a file gave no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The file cannot be opened.
    #[error("cannot open {kind} `{}`", path.display())]
    Open {
        /// What the file should hold, as `policy`.
        kind: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Neither a file nor a pipe: such things have no end or no content.
    #[error("cannot read {kind} `{}`: it is a {found}", path.display())]
    NotAFile {
        /// What the file should hold.
        kind: &'static str,
        /// The file.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// The file is fine, and something else.
    #[error("cannot read {kind} `{}`: it is a {found}", path.display())]
    OtherKind {
        /// What the file should hold.
        kind: &'static str,
        /// The file.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// The file cannot be read.
    #[error("cannot read {kind} `{}`", path.display())]
    Read {
        /// What the file should hold.
        kind: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is over the bound; nothing past the bound was read.
    #[error("{kind} `{}` is larger than {limit} bytes, the most that is read", path.display())]
    TooLarge {
        /// What the file should hold.
        kind: &'static str,
        /// The file.
        path: PathBuf,
        /// The bound in bytes.
        limit: usize,
    },
    /// The bytes are no text.
    #[error("{kind} `{}` is no UTF-8 text: line {line} has the byte {byte:#04x}", path.display())]
    NotUtf8 {
        /// What the file should hold.
        kind: &'static str,
        /// The file.
        path: PathBuf,
        /// The line of the first byte that is wrong, from 1.
        line: usize,
        /// That byte.
        byte: u8,
    },
    /// The kernel would not take the filter.
    #[error("filter `{}`", path.display())]
    Filter {
        /// The file.
        path: PathBuf,
        /// What the kernel would refuse.
        source: ProgramError,
    },
    /// The text is wrong.
    #[error("{kind} `{}`:\n{problems}", path.display())]
    Problems {
        /// What the file should hold.
        kind: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problems: Problems,
    },
}

/// One thing that is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Line, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
    /// The place in the document, as `rules[3].when[0].arg`; empty where the text has no structure yet.
    pub place: String,
    /// What is wrong: one line.
    pub what: String,
    /// The line, or its part around the column.
    pub(crate) shown: String,
    /// How many terminal columns stand before the character in `shown`.
    pub(crate) caret: usize,
}

impl Finding {
    /// The same place, with other words.
    pub(crate) fn saying(&self, what: &str) -> Finding {
        Finding {
            what: what.to_owned(),
            ..self.clone()
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding {
            line,
            column,
            place,
            what,
            shown,
            caret,
        } = self;
        let number = line.to_string();
        let gutter = number.len();
        writeln!(f, "line {line} column {column}: {what}")?;
        if !place.is_empty() {
            writeln!(f, "{:gutter$} |  ({place})", "")?;
        }
        writeln!(f, "{number} | {shown}")?;
        write!(f, "{:gutter$} | {:caret$}^", "", "")
    }
}

/// What is wrong with a text: at least one thing, in the order of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    found: Vec<Finding>,
    more: usize,
}

impl Problems {
    /// The most that are kept; whoever has more does not read them.
    pub(crate) const LIMIT: usize = 32;

    /// What was found, and how many beyond [`Problems::LIMIT`] were only counted.
    pub(crate) fn new(found: Vec<Finding>, more: usize) -> Problems {
        Problems { found, more }
    }

    /// The first of them, 32 at most.
    #[must_use]
    pub fn found(&self) -> &[Finding] {
        &self.found
    }

    /// The first.
    pub(crate) fn first(&self) -> &Finding {
        // both ways to make one put at least one in: `From<Finding>`, and `new` of what is not empty
        &self.found[0]
    }

    /// How many more there are.
    #[must_use]
    pub fn more(&self) -> usize {
        self.more
    }
}

impl From<Finding> for Problems {
    fn from(finding: Finding) -> Problems {
        Problems::new(vec![finding], 0)
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, finding) in self.found.iter().enumerate() {
            if nth > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{finding}")?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

/// The YAML writer's own error; no policy is known that causes one.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the policy as YAML")]
pub struct WriteError(#[from] serde_saphyr::ser_error::Error);
