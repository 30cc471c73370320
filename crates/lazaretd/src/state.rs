//! What the next start of the daemon must know: which containers run under listeners that die with this process.

use crate::socket::{SocketError, private_directory};
use lazaret_bundle::read::{self, Guard, ReadError};
use lazaret_kernel::process::Identity;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Bytes of the state file; a container takes about 200.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// The state cannot be kept or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StateError {
    /// Its folder is not private.
    #[error("cannot use the state directory")]
    Directory(#[from] SocketError),
    /// The file cannot be read.
    #[error("cannot read the state")]
    Read(#[from] ReadError),
    /// The file is of another version, or broken.
    #[error("state `{}` cannot be understood", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The new file was not written; the old one is still there.
    #[error("cannot write state `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A container that ran when the state was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Known {
    /// The engine's name for it.
    pub(crate) name: String,
    /// Its first process.
    pub(crate) pid: u32,
    /// When that began, in clock ticks after boot.
    pub(crate) start_ticks: u64,
}

impl Known {
    /// Its first process.
    pub(crate) const fn identity(&self) -> Identity {
        Identity {
            pid: self.pid,
            start_ticks: self.start_ticks,
        }
    }
}

/// Containers by id.
pub(crate) type KnownContainers = BTreeMap<String, Known>;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Format {
    v: u32,
    /// Start times count from a boot.
    boot: String,
    containers: KnownContainers,
}

/// The file, and one writer at a time.
#[derive(Debug)]
pub(crate) struct State {
    path: PathBuf,
    boot: String,
    writing: Mutex<()>,
}

impl State {
    /// Opens the state in this folder and reads what the daemon before us knew. Containers of an earlier boot are
    /// forgotten.
    ///
    /// # Errors
    /// A folder that is not private, or a file that cannot be understood: it is left for a person to look at.
    pub(crate) fn open(folder: &Path) -> Result<(State, KnownContainers), StateError> {
        private_directory(folder)?;
        let path = folder.join("live.json");
        let boot = boot_id();
        let known = match read::guarded(&path, MAX_FILE, Guard::Pinned) {
            Ok(text) => {
                let format: Format =
                    serde_json::from_str(&text).map_err(|source| StateError::Parse {
                        path: path.clone(),
                        source,
                    })?;
                if format.v == 1 && format.boot == boot {
                    format.containers
                } else {
                    KnownContainers::new()
                }
            }
            Err(ReadError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                KnownContainers::new()
            }
            Err(error) => return Err(error.into()),
        };
        let state = State {
            path,
            boot,
            writing: Mutex::new(()),
        };
        Ok((state, known))
    }

    /// Replaces the file by what `containers` says once it is this writer's turn. Blocks.
    ///
    /// # Errors
    /// When the new file cannot be written and put in place.
    pub(crate) fn save(
        &self,
        containers: impl FnOnce() -> KnownContainers,
    ) -> Result<(), StateError> {
        let failed = |source| StateError::Write {
            path: self.path.clone(),
            source,
        };
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let format = Format {
            v: 1,
            boot: self.boot.clone(),
            containers: containers(),
        };
        let text = serde_json::to_vec(&format).map_err(|error| failed(error.into()))?;
        let new = self.path.with_extension("new");
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .map_err(failed)?;
        file.write_all(&text).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&new, &self.path).map_err(failed)
    }
}

fn boot_id() -> String {
    let mut text = String::new();
    // without it every boot looks the same; a recycled pid with the same start time is still told apart by liveness
    drop(
        File::open("/proc/sys/kernel/random/boot_id")
            .and_then(|file| file.take(64).read_to_string(&mut text)),
    );
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> KnownContainers {
        let known = Known {
            name: "hapi".to_owned(),
            pid: 7,
            start_ticks: 9,
        };
        [("c1".to_owned(), known)].into()
    }

    #[test]
    fn what_was_saved_is_known_at_the_next_start() {
        let folder = tempfile::tempdir().expect("folder");
        let (state, before) = State::open(&folder.path().join("state")).expect("opened");
        assert!(before.is_empty());
        state.save(known).expect("saved");
        let (_, after) = State::open(&folder.path().join("state")).expect("opened again");
        assert_eq!(after, known());
    }

    #[test]
    fn another_boot_is_forgotten_and_nonsense_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let (state, _) = State::open(&folder.path().join("state")).expect("opened");
        state.save(known).expect("saved");
        let path = folder.path().join("state/live.json");
        let text = std::fs::read_to_string(&path).expect("written");
        std::fs::write(&path, text.replace(&boot_id(), "another boot")).expect("written");
        assert!(
            State::open(&folder.path().join("state"))
                .expect("opened")
                .1
                .is_empty()
        );
        std::fs::write(&path, "{").expect("written");
        assert!(matches!(
            State::open(&folder.path().join("state")),
            Err(StateError::Parse { .. })
        ));
    }
}
