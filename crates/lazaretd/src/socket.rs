//! The daemon's Unix sockets: one owner at a time, and nobody but root near them.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
    PermissionsExt as _,
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
    #[error("`{}` has mode {found:04o}, expected {expected:04o}", path.display())]
    Mode {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        found: u32,
        /// The most that it may have.
        expected: u32,
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

/// Who may connect to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// This program's user.
    Own,
    /// Everybody: who they are is looked at when they have connected.
    Peers,
}

impl Access {
    /// Mode of a new folder for it; others may pass through, not look around.
    const fn folder(self) -> u32 {
        match self {
            Access::Own => 0o700,
            Access::Peers => 0o711,
        }
    }
}

/// What becomes of a socket's path when this process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Afterwards {
    /// It stays: somebody else holds the socket, and those who connect wait for the next daemon.
    Stays,
    /// It is removed.
    Removed,
}

/// Where a listening socket comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// It was kept from before.
    Before,
    /// It was made just now.
    Anew,
}

/// Holds a socket's path for this process; gives it up when dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    // held for itself
    _lock: File,
    afterwards: Afterwards,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.afterwards == Afterwards::Removed {
            // The lock is still held, so the path is ours. Nobody is left to tell when it fails; the next start takes a
            // stale socket over.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// Makes a folder that only this user may enter, or checks that an existing one is so.
///
/// # Errors
/// When it is a link, belongs to somebody else, or lets others in.
pub(crate) fn private_directory(path: &Path) -> Result<(), SocketError> {
    directory(path, Access::Own)
}

/// Makes a folder that lets in no more than this, or checks that an existing one is so.
///
/// # Errors
/// As [`private_directory`].
pub(crate) fn directory(path: &Path, access: Access) -> Result<(), SocketError> {
    let look = |source| SocketError::Look {
        path: path.to_owned(),
        source,
    };
    let metadata = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new()
                .recursive(true)
                .mode(access.folder())
                .create(path)
                // the umask of this program takes away what others need to come through
                .and_then(|()| {
                    let mode = std::fs::Permissions::from_mode(access.folder());
                    std::fs::set_permissions(path, mode)
                })
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
    } else if metadata.mode() & 0o777 & !access.folder() != 0 {
        Err(SocketError::Mode {
            path,
            found: metadata.mode() & 0o7777,
            expected: access.folder(),
        })
    } else {
        Ok(())
    }
}

/// Where a daemon listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The socket.
    pub(crate) path: &'a Path,
    /// Who may connect.
    pub(crate) access: Access,
}

/// A path that no other daemon has.
#[derive(Debug)]
pub(crate) struct Locked<'a> {
    place: Place<'a>,
    lock: File,
}

impl<'a> Place<'a> {
    /// Takes the path for this process: the folder is as it should be, and the lock file beside the socket (`<path>.lock`, which stays)
    /// is ours.
    ///
    /// # Errors
    /// One variant for each step; [`SocketError::Taken`] when another daemon has it.
    pub(crate) fn lock(self) -> Result<Locked<'a>, SocketError> {
        let path = self.path;
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(SocketError::NoName {
                path: path.to_owned(),
            });
        };
        directory(folder, self.access)?;
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
        match lock.try_lock() {
            Ok(()) => Ok(Locked { place: self, lock }),
            Err(TryLockError::WouldBlock) => Err(SocketError::Taken {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(locked(source)),
        }
    }
}

impl Locked<'_> {
    /// Listens on the path, with the socket that was kept for it if there is one.
    ///
    /// # Flow
    /// A kept socket that has this path is taken. Otherwise whoever answers there is respected, a stale socket is removed, and a new
    /// one bound. Its mode comes from the umask that `main` sets, unless peers may connect.
    ///
    /// # Guarantees
    /// Of several gates that start at once, one gets the path; a gate that died leaves nothing that must be cleaned up by
    /// hand. A file that is no socket is never removed.
    ///
    /// # Errors
    /// One variant for each step.
    pub(crate) fn listen(
        self,
        kept: Option<OwnedFd>,
        afterwards: Afterwards,
    ) -> Result<(UnixListener, Claim, Made), SocketError> {
        let path = self.place.path;
        let bind = |source| SocketError::Bind {
            path: path.to_owned(),
            source,
        };
        let kept = kept
            .map(UnixListener::from)
            .filter(|kept| stands_at(kept, path));
        let (listener, made) = match kept {
            Some(kept) => (kept, Made::Before),
            None => {
                clear(path)?;
                (UnixListener::bind(path).map_err(bind)?, Made::Anew)
            }
        };
        let claim = Claim {
            path: path.to_owned(),
            _lock: self.lock,
            afterwards,
        };
        if self.place.access == Access::Peers {
            let mode = std::fs::Permissions::from_mode(0o666);
            std::fs::set_permissions(path, mode).map_err(bind)?;
        }
        listener.set_nonblocking(true).map_err(bind)?;
        Ok((listener, claim, made))
    }
}

/// Whether a listening socket has this path, and a socket stands there.
fn stands_at(socket: &UnixListener, path: &Path) -> bool {
    let named = socket
        .local_addr()
        .is_ok_and(|address| address.as_pathname() == Some(path));
    let stands =
        std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    named && stands
}

/// Removes a socket that nobody listens on.
fn clear(path: &Path) -> Result<(), SocketError> {
    let path = path.to_owned();
    match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(SocketError::Look { path, source }),
        Ok(metadata) if !metadata.file_type().is_socket() => Err(SocketError::NotSocket { path }),
        // a program that does not know the lock
        Ok(_) if UnixStream::connect(&path).is_ok() => Err(SocketError::Taken { path }),
        Ok(_) => std::fs::remove_file(&path).map_err(|source| SocketError::Remove { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(path: &Path) -> Result<(UnixListener, Claim), SocketError> {
        let access = Access::Own;
        Place { path, access }
            .lock()?
            .listen(None, Afterwards::Removed)
            .map(|(socket, claim, _)| (socket, claim))
    }

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
    fn a_kept_socket_goes_on_and_those_who_wait_are_not_lost() {
        let folder = folder();
        let path = folder.path().join("gate.sock");
        let place = Place {
            path: &path,
            access: Access::Own,
        };
        let locked = place.lock().expect("free");
        let (first, claim, _) = locked.listen(None, Afterwards::Stays).expect("bound");
        let kept = OwnedFd::from(first.try_clone().expect("kept"));
        drop((first, claim));
        let waiting = UnixStream::connect(&path).expect("somebody holds it");
        let locked = place.lock().expect("free again");
        let (second, _claim, made) = locked
            .listen(Some(kept), Afterwards::Removed)
            .expect("taken over");
        assert_eq!(made, Made::Before);
        assert!(second.accept().is_ok(), "who waited is served");
        drop(waiting);
        // one for another path is not taken
        let other = folder.path().join("other.sock");
        let place = Place {
            path: &other,
            access: Access::Own,
        };
        let kept = OwnedFd::from(second);
        let (third, _claim, made) = place
            .lock()
            .expect("free")
            .listen(Some(kept), Afterwards::Removed)
            .expect("bound");
        assert_eq!(made, Made::Anew);
        let address = third.local_addr().expect("bound");
        assert_eq!(address.as_pathname(), Some(other.as_path()));
    }

    #[test]
    fn peers_get_through_the_folder_and_no_further() {
        let folder = folder();
        let path = folder.path().join("run/control.sock");
        let place = Place {
            path: &path,
            access: Access::Peers,
        };
        let locked = place.lock().expect("free");
        let (_socket, _claim, _) = locked.listen(None, Afterwards::Removed).expect("bound");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").mode() & 0o777;
        assert_eq!(
            (mode(&path), mode(&folder.path().join("run"))),
            (0o666, 0o711)
        );
        let readable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path().join("run"), readable).expect("set");
        assert!(matches!(place.lock(), Err(SocketError::Mode { .. })));
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
