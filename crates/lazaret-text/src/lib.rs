//! Texts that people write, as values: policies in YAML.
//!
//! Every problem is shown at its line and column with a caret. What a text means is `lazaret-core`'s to say; nothing
//! here decides, prints or ends a program.
#![forbid(unsafe_code)]

mod error;
pub mod policy;

pub use error::{Problems, TextError, WriteError};
