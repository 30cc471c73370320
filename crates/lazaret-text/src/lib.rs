//! Texts that people write, as values: policies in YAML, seccomp profiles in JSON; and filters as files.
//!
//! Every problem is shown at its line and column with a caret; every read has a bound. What a text means is
//! `lazaret-core`'s to say; nothing here decides, prints or ends a program.
#![forbid(unsafe_code)]

pub mod any;
mod error;
mod file;
pub mod filter;
pub mod policy;
pub mod profile;
mod shape;
mod source;
mod suggest;
mod tree;

pub use error::{Finding, Problems, TextError, WriteError};
pub use suggest::{SuggestError, Suggested, suggest};
