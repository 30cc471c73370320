//! Filters as files: the array of `struct sock_filter` that `compile --to bpf` writes, in this machine's byte order.

use crate::error::TextError;
use crate::file;
use lazaret_filter::program::{INSTRUCTION_BYTES, MAX_INSTRUCTIONS, Program};
use std::path::Path;

/// What the errors call such a file.
const KIND: &str = "filter";

/// The most that is read: the longest filter that a kernel loads.
pub const MAX_BYTES: usize = MAX_INSTRUCTIONS * INSTRUCTION_BYTES;

/// Reads a filter, checked as the kernel checks it.
///
/// # Errors
/// What keeps the file from being read; more than [`MAX_BYTES`]; the first thing that the kernel would refuse.
pub fn read(path: &Path) -> Result<Program, TextError> {
    let bytes = file::bytes(path, KIND, MAX_BYTES)?;
    Program::from_bytes(&bytes).map_err(|source| TextError::Filter {
        path: path.to_path_buf(),
        source,
    })
}
