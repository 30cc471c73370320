//! A file's bytes as text, never more than a bound.

use crate::error::TextError;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// The byte order mark that some editors put before UTF-8 text.
const BOM: &str = "\u{feff}";

/// Reads a file or a pipe (`<(…)` of a shell).
///
/// A byte order mark at the begin is left out: it is no part of the text.
///
/// # Guarantees
/// Reads at most `limit + 1` bytes, whatever the size that the system says. Does not wait for somebody to open the other
/// end of a named pipe: without one it is empty.
///
/// # Errors
/// No such file or no right to it; a directory, device or socket; larger than `limit`; no UTF-8.
pub(crate) fn read(path: &Path, kind: &'static str, limit: usize) -> Result<String, TextError> {
    let bytes = bytes(path, kind, limit)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let (valid, rest) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
        let breaks = valid.iter().filter(|byte| **byte == b'\n').count();
        TextError::NotUtf8 {
            kind,
            path: path.to_path_buf(),
            line: breaks + 1,
            // the error is at a byte after the valid ones
            byte: rest.first().copied().unwrap_or_default(),
        }
    })?;
    Ok(match text.strip_prefix(BOM) {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

/// The bytes of a file or a pipe, as [`read`] gets them.
pub(crate) fn bytes(path: &Path, kind: &'static str, limit: usize) -> Result<Vec<u8>, TextError> {
    let file = open(path, kind)?;
    let failed = |source| TextError::Read {
        kind,
        path: path.to_path_buf(),
        source,
    };
    let mut bytes = Vec::new();
    // one byte more than allowed tells a text of the size from one over it; a usize fits into u64 on every Linux
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > limit {
        return Err(TextError::TooLarge {
            kind,
            path: path.to_path_buf(),
            limit,
        });
    }
    Ok(bytes)
}

fn open(path: &Path, kind: &'static str) -> Result<File, TextError> {
    let failed = |source| TextError::Open {
        kind,
        path: path.to_path_buf(),
        source,
    };
    // open(2): without O_NONBLOCK a named pipe waits for a writer, with O_NOCTTY a terminal does not become ours
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.cast_signed())
        .open(path)
        .map_err(failed)?;
    let found = file.metadata().map_err(failed)?.file_type();
    if found.is_fifo() {
        // from here on a reader waits, as long as there is a writer
        let flags = fcntl_getfl(&file)
            .map_err(io::Error::from)
            .map_err(failed)?;
        fcntl_setfl(&file, flags - OFlags::NONBLOCK)
            .map_err(io::Error::from)
            .map_err(failed)?;
        return Ok(file);
    }
    let found = match () {
        () if found.is_file() => return Ok(file),
        () if found.is_dir() => "directory",
        () if found.is_socket() => "socket",
        () => "device",
    };
    Err(TextError::NotAFile {
        kind,
        path: path.to_path_buf(),
        found,
    })
}
