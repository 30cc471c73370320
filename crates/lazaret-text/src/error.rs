//! Why a file gave no value.

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

/// What is wrong with a text: several lines for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub(crate) Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// The YAML writer's own error; no policy is known that causes one.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the policy as YAML")]
pub struct WriteError(#[from] serde_saphyr::ser_error::Error);
