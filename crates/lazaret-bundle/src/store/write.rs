//! Changes that survive a crash: files and directories are filled and flushed under another name, then renamed.

use super::StoreError;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// First characters of what is being put in or taken out. Readers do not look at such names, and whoever holds the lock may
/// remove them: they are left by a crash.
pub(super) const TEMPORARY: &str = ".";

/// Makes a directory and those above it.
pub(super) fn make(path: &Path) -> Result<(), StoreError> {
    std::fs::create_dir_all(path).map_err(|source| StoreError::Directory {
        path: path.to_owned(),
        source,
    })
}

/// Keeps everybody else who changes this directory waiting until the file is dropped (`flock(2)`; readers do not ask).
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    let file = File::open(path);
    file.and_then(|file| file.lock().map(|()| file))
        .map_err(|source| StoreError::Lock {
            path: path.to_owned(),
            source,
        })
}

/// A new file with these bytes, on the disk.
pub(super) fn file(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(|source| StoreError::Write {
            path: path.to_owned(),
            source,
        })
}

/// Puts a directory with these files at `path`, whatever is there.
///
/// A directory cannot be renamed over one that has entries, so the two change places (`renameat2(2)`, `RENAME_EXCHANGE`).
pub(super) fn directory(path: &Path, files: &[(&str, &[u8])]) -> Result<(), StoreError> {
    let temporary = self::temporary(path);
    let filled = std::fs::create_dir(&temporary)
        .map_err(|source| StoreError::Directory {
            path: temporary.clone(),
            source,
        })
        .and_then(|()| {
            files
                .iter()
                .try_for_each(|(name, bytes)| file(&temporary.join(name), bytes))
        })
        .and_then(|()| flush(&temporary))
        .and_then(|()| {
            put(&temporary, path).map_err(|source| StoreError::Replace {
                path: path.to_owned(),
                source,
            })
        });
    // what stood there before, or what could not be put there: in both cases nothing that anybody reads
    let removed = match std::fs::remove_dir_all(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    filled?;
    removed.map_err(|source| StoreError::Remove {
        path: temporary,
        source,
    })
}

fn put(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE) {
        Err(rustix::io::Errno::NOENT) => std::fs::rename(from, to),
        done => done.map_err(io::Error::from),
    }
}

/// Takes a directory away: no reader sees it half empty.
pub(super) fn remove_directory(path: &Path) -> Result<(), StoreError> {
    let temporary = self::temporary(path);
    std::fs::rename(path, &temporary)
        .and_then(|()| std::fs::remove_dir_all(&temporary))
        .map_err(|source| StoreError::Remove {
            path: path.to_owned(),
            source,
        })
}

/// The same name, as a temporary one.
pub(super) fn temporary(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(TEMPORARY);
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

/// Flushes a directory's entries.
pub(super) fn flush(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| StoreError::Flush {
            path: path.to_owned(),
            source,
        })
}
