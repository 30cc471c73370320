//! Bounded reads, and who may have written what is read.
//!
//! Owner and mode are taken from the open file, never from its path, so nobody can swap the file between the check
//! and the read.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It cannot be opened.
    #[error("cannot open `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Its owner and mode cannot be read.
    #[error("cannot read owner and mode of `{}`", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It is a directory, a device, a pipe or a socket.
    #[error("`{}` is not {wanted}", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// `a regular file` or `a directory`.
        wanted: &'static str,
    },
    /// Somebody else owns it.
    #[error("`{}` belongs to user {found}, wanted user {wanted} or 0", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// The owner's user id.
        found: u32,
        /// The user id of this process.
        wanted: u32,
    },
    /// Others can do with it what they must not.
    #[error("`{}` has mode {found:04o}, wanted none of the bits {forbidden:04o}", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        found: u32,
        /// The bits that must be clear.
        forbidden: u32,
    },
    /// The bytes cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It is larger than its bound.
    #[error("`{}` is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound in bytes.
        limit: u64,
    },
    /// It is not text.
    #[error("`{}` is not UTF-8 text", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
}

/// Who may touch a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Only its owner may read it: a private key.
    Secret,
    /// Everybody may read it, only its owner may write it: a public key, a directory of keys.
    Pinned,
}

impl Guard {
    /// Permission bits that must be clear.
    const fn forbidden(self) -> u32 {
        match self {
            Guard::Secret => 0o077,
            Guard::Pinned => 0o022,
        }
    }

    /// Whether a file of this owner and mode may be trusted by a process of user `me`; root's files always may, as
    /// root could do anything anyway.
    fn check(self, path: &Path, owner: u32, mode: u32, me: u32) -> Result<(), ReadError> {
        if owner != me && owner != 0 {
            return Err(ReadError::Owner {
                path: path.to_owned(),
                found: owner,
                wanted: me,
            });
        }
        if mode & self.forbidden() != 0 {
            return Err(ReadError::Mode {
                path: path.to_owned(),
                found: mode & 0o7777,
                forbidden: self.forbidden(),
            });
        }
        Ok(())
    }
}

/// Reads a regular file of at most `limit` bytes whoever owns it.
///
/// # Errors
/// [`ReadError`]; a missing file is [`ReadError::Open`] with [`io::ErrorKind::NotFound`].
pub fn bounded(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let (file, _) = open(path)?;
    contents(file, path, limit)
}

/// Reads a regular text file of at most `limit` bytes after `guard` let it pass.
///
/// # Errors
/// [`ReadError`].
pub fn guarded(path: &Path, limit: u64, guard: Guard) -> Result<String, ReadError> {
    let (file, metadata) = open(path)?;
    guard.check(
        path,
        metadata.uid(),
        metadata.mode(),
        rustix::process::geteuid().as_raw(),
    )?;
    String::from_utf8(contents(file, path, limit)?).map_err(|_| ReadError::NotText {
        path: path.to_owned(),
    })
}

/// Checks that `path` is a directory that only its owner can change.
///
/// # Errors
/// [`ReadError`].
pub fn guarded_directory(path: &Path) -> Result<(), ReadError> {
    let file = File::open(path).map_err(|source| ReadError::Open {
        path: path.to_owned(),
        source,
    })?;
    let metadata = metadata(&file, path)?;
    if !metadata.is_dir() {
        return Err(ReadError::Kind {
            path: path.to_owned(),
            wanted: "a directory",
        });
    }
    Guard::Pinned.check(
        path,
        metadata.uid(),
        metadata.mode(),
        rustix::process::geteuid().as_raw(),
    )
}

fn open(path: &Path) -> Result<(File, std::fs::Metadata), ReadError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    // O_NONBLOCK: opening a FIFO that somebody left here must not wait for its writer; no meaning for regular files
    // (open(2)).
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = File::options()
        .read(true)
        .custom_flags(nonblock)
        .open(path)
        .map_err(|source| ReadError::Open {
            path: path.to_owned(),
            source,
        })?;
    let metadata = metadata(&file, path)?;
    if !metadata.is_file() {
        return Err(ReadError::Kind {
            path: path.to_owned(),
            wanted: "a regular file",
        });
    }
    Ok((file, metadata))
}

fn metadata(file: &File, path: &Path) -> Result<std::fs::Metadata, ReadError> {
    file.metadata().map_err(|source| ReadError::Metadata {
        path: path.to_owned(),
        source,
    })
}

fn contents(file: File, path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    // one byte more than allowed tells "too large" from "exactly full"; the bound is far below u64::MAX
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| ReadError::Read {
            path: path.to_owned(),
            source,
        })?;
    if bytes.len() as u64 > limit {
        return Err(ReadError::TooLarge {
            path: path.to_owned(),
            limit,
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_and_mode() {
        let check = |guard: Guard, owner, mode| {
            guard
                .check(Path::new("/k"), owner, mode, 1000)
                .map_err(|error| error.to_string())
        };
        for (guard, owner, mode) in [
            (Guard::Secret, 1000, 0o100_600),
            (Guard::Secret, 0, 0o100_400),
            (Guard::Pinned, 1000, 0o100_644),
            (Guard::Pinned, 0, 0o40_755),
        ] {
            assert_eq!(check(guard, owner, mode), Ok(()));
        }
        for (guard, owner, mode, message) in [
            (
                Guard::Secret,
                1000,
                0o100_640,
                "`/k` has mode 0640, wanted none of the bits 0077",
            ),
            (
                Guard::Secret,
                1000,
                0o100_601,
                "`/k` has mode 0601, wanted none of the bits 0077",
            ),
            (
                Guard::Pinned,
                0,
                0o100_664,
                "`/k` has mode 0664, wanted none of the bits 0022",
            ),
            (
                Guard::Pinned,
                1001,
                0o100_644,
                "`/k` belongs to user 1001, wanted user 1000 or 0",
            ),
        ] {
            assert_eq!(check(guard, owner, mode), Err(message.to_owned()));
        }
    }

    #[test]
    fn bound_is_exact() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("f");
        std::fs::write(&path, [7; 10])?;
        assert_eq!(bounded(&path, 10)?.len(), 10);
        assert!(matches!(
            bounded(&path, 9),
            Err(ReadError::TooLarge { limit: 9, .. })
        ));
        assert!(matches!(
            bounded(folder.path(), 9),
            Err(ReadError::Kind { .. })
        ));
        Ok(())
    }
}
