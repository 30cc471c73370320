//! The daemon's Unix sockets: one owner at a time, and nobody but root near them.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A socket was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SocketError {
    /// A path like `/`.
    #[error("`{}` is no socket path", path.display())]
    NoName {
        /// The path.
        path: PathBuf,
    },
    /// The folder cannot be made.
    #[error("cannot create directory `{}`", path.display())]
    Directory {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is there cannot be looked at.
    #[error("cannot look at `{}`", path.display())]
    Look {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The folder is a link or a file.
    #[error("`{}` is not a directory", path.display())]
    NotDirectory {
        /// The path.
        path: PathBuf,
    },
    /// Somebody else owns the folder.
    #[error("`{}` belongs to user {found}, expected {expected}", path.display())]
    Owner {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        found: u32,
        /// This program's user.
        expected: u32,
    },
    /// Others may enter the folder.
    #[error("`{}` has mode {found:04o}, expected 0700", path.display())]
    Mode {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        found: u32,
    },
    /// The lock beside the socket cannot be used.
    #[error("cannot lock `{}`", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another gate has it.
    #[error("another lazaretd answers on `{}`", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// Something else stands there; it is not removed.
    #[error("`{}` is not a socket", path.display())]
    NotSocket {
        /// The path.
        path: PathBuf,
    },
    /// A stale socket cannot be removed.
    #[error("cannot remove stale socket `{}`", path.display())]
    Remove {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `bind(2)` or `listen(2)`.
    #[error("cannot listen on `{}`", path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Holds a socket's path for this process; gives it up when dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    // held for its lock
    _lock: File,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // The lock is still held, so the path is ours. Nobody is left to tell when it fails; the next start takes a
        // stale socket over.
        drop(std::fs::remove_file(&self.path));
    }
}

/// Makes a folder that only this user may enter, or checks that an existing one is so.
///
/// # Errors
/// When it is a link, belongs to somebody else, or lets others in.
pub(crate) fn private_directory(path: &Path) -> Result<(), SocketError> {
    let look = |source| SocketError::Look {
        path: path.to_owned(),
        source,
    };
    let metadata = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|source| SocketError::Directory {
                    path: path.to_owned(),
                    source,
                })?;
            std::fs::symlink_metadata(path).map_err(look)?
        }
        other => other.map_err(look)?,
    };
    let path = path.to_owned();
    let expected = rustix::process::geteuid().as_raw();
    if !metadata.is_dir() {
        Err(SocketError::NotDirectory { path })
    } else if metadata.uid() != expected {
        Err(SocketError::Owner {
            path,
            found: metadata.uid(),
            expected,
        })
    } else if metadata.mode() & 0o077 != 0 {
        Err(SocketError::Mode {
            path,
            found: metadata.mode() & 0o7777,
        })
    } else {
        Ok(())
    }
}

/// Takes a socket path and listens on it.
///
/// # Flow
/// Folder, then the lock file beside the socket (`<path>.lock`, kept), then whoever answers, then a stale socket is
/// removed, then bind. The socket's mode comes from the umask that `main` sets.
///
/// # Guarantees
/// Of several gates that start at once, one gets the path; a gate that died leaves nothing that must be cleaned up by
/// hand. A file that is no socket is never removed.
///
/// # Errors
/// One variant for each step.
pub(crate) fn claim(path: &Path) -> Result<(UnixListener, Claim), SocketError> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(SocketError::NoName {
            path: path.to_owned(),
        });
    };
    private_directory(folder)?;
    let mut lock_name = name.to_owned();
    lock_name.push(".lock");
    let lock_path = folder.join(lock_name);
    let locked = |source| SocketError::Lock {
        path: lock_path.clone(),
        source,
    };
    let lock = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock_path)
        .map_err(locked)?;
    let taken = || SocketError::Taken {
        path: path.to_owned(),
    };
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(taken()),
        Err(TryLockError::Error(source)) => return Err(locked(source)),
    }
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => {
            return Err(SocketError::Look {
                path: path.to_owned(),
                source,
            });
        }
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotSocket {
                path: path.to_owned(),
            });
        }
        // a program that does not know the lock
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(taken()),
        Ok(_) => std::fs::remove_file(path).map_err(|source| SocketError::Remove {
            path: path.to_owned(),
            source,
        })?,
    }
    let bind = |source| SocketError::Bind {
        path: path.to_owned(),
        source,
    };
    let listener = UnixListener::bind(path).map_err(bind)?;
    let claim = Claim {
        path: path.to_owned(),
        _lock: lock,
    };
    listener.set_nonblocking(true).map_err(bind)?;
    Ok((listener, claim))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(folder.path(), mode).expect("set");
        folder
    }

    #[test]
    fn a_path_has_one_owner_and_is_free_again_afterwards() {
        let folder = folder();
        let path = folder.path().join("gate.sock");
        let first = claim(&path).expect("free");
        assert!(matches!(claim(&path), Err(SocketError::Taken { .. })));
        drop(first);
        assert!(!path.exists());
        assert!(claim(&path).is_ok());
    }

    #[test]
    fn a_stale_socket_is_taken_over_and_a_foreign_one_is_not() {
        let folder = folder();
        let path = folder.path().join("gate.sock");
        let foreign = UnixListener::bind(&path).expect("bound");
        assert!(matches!(claim(&path), Err(SocketError::Taken { .. })));
        drop(foreign); // closes it and leaves the file
        assert!(path.exists());
        assert!(claim(&path).is_ok());
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let folder = folder();
        let path = folder.path().join("gate.sock");
        std::fs::write(&path, "precious").expect("written");
        assert!(matches!(claim(&path), Err(SocketError::NotSocket { .. })));
        assert_eq!(
            std::fs::read_to_string(&path).ok().as_deref(),
            Some("precious")
        );
    }

    #[test]
    fn the_folder_must_be_private() {
        let folder = folder();
        let inner = folder.path().join("run");
        private_directory(&inner).expect("made");
        private_directory(&inner).expect("still so");
        for mode in [0o755, 0o710, 0o702] {
            std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(mode)).expect("set");
            let error = private_directory(&inner).expect_err("others get in");
            assert!(
                matches!(error, SocketError::Mode { found, .. } if found == mode),
                "{error}"
            );
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&inner, &link).expect("link");
        let error = private_directory(&link).expect_err("a link");
        assert!(matches!(error, SocketError::NotDirectory { .. }), "{error}");
    }

    #[test]
    fn the_folder_must_be_ours() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP: not root, cannot give a folder away");
            return;
        }
        let folder = folder();
        let inner = folder.path().join("run");
        private_directory(&inner).expect("made");
        std::os::unix::fs::chown(&inner, Some(65534), None).expect("given away");
        let error = private_directory(&inner).expect_err("somebody else's");
        assert!(
            matches!(error, SocketError::Owner { found: 65534, .. }),
            "{error}"
        );
    }
}
