//! What the next daemon must know of each listener: one file per listener, and the bundles that are in use, by their digest.
//!
//! ```text
//! <state-dir>/listeners/<name>.json     a Record; the keeper has the listener itself under the same name
//! <state-dir>/papers/<digest>.json      a signed bundle, as it was read from the store
//! ```
//!
//! Files are replaced by a rename, so a crash leaves the old one or the new one. They are not flushed to the disk: what
//! they tell of does not outlive the machine's boot, whose id each of them holds. Nothing here decides anything.

use crate::container::Tally;
use crate::gate::Claim;
use crate::socket::{Access, SocketError, directory, private_directory};
use lazaret_bundle::read::{self, Guard, ReadError};
use lazaret_core::digest::Digest;
use lazaret_core::life::{Kind, SavedLife};
use lazaret_image::Engine;
use lazaret_kernel::process::{Execution, Identity};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Extension of a file that is not whole yet.
const NEW: &str = "new";

/// Bytes of a record; most take about 1,500.
const MAX_RECORD: u64 = 256 * 1024;

/// Bytes of a bundle (`lazaret_bundle::dsse::ENVELOPE_LIMIT` is smaller).
const MAX_PAPER: u64 = 16 * 1024 * 1024;

/// The records cannot be kept or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RecordsError {
    /// A folder is not private.
    #[error("cannot use the state directory")]
    Directory(#[from] SocketError),
    /// A folder cannot be listed.
    #[error("cannot list `{}`", path.display())]
    List {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A bundle cannot be read back.
    #[error("cannot read what was kept")]
    Read(#[from] ReadError),
    /// The kept bundle is not the one that was put there.
    #[error("`{}` does not have the digest in its name", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The new file was not written; the old one is still there.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The name of a listener, for its record and for the keeper: 32 hexadecimal digits, drawn at random.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ListenerName(String);

impl ListenerName {
    /// A name that nothing else has.
    ///
    /// # Errors
    /// When the kernel has no random numbers to give.
    pub(crate) fn draw() -> io::Result<ListenerName> {
        let mut bytes = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(ListenerName(format!("{:032x}", u128::from_ne_bytes(bytes))))
    }

    /// A name that was kept.
    pub(crate) fn parse(text: &str) -> Option<ListenerName> {
        let good = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        good.then(|| ListenerName(text.to_owned()))
    }

    /// As it stands in file names.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ListenerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is known of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// Format version, 1.
    pub(crate) v: u32,
    /// Process ids and start times count from a boot.
    pub(crate) boot: String,
    /// A container's own, or that of a process put into it.
    pub(crate) kind: Kind,
    /// What the runtime said.
    pub(crate) claim: Claim,
    /// The process that was handed over.
    pub(crate) process: Identity,
    /// What it executed then: the runtime's program.
    pub(crate) runtime: Option<Execution>,
    /// The container's phase machine, or that of the `exec`.
    pub(crate) life: SavedLife,
    /// What was found in order; none before the first `execve`.
    pub(crate) papers: Option<KeptPapers>,
    /// Digest of the permit's envelope under which an `exec` runs.
    pub(crate) permit: Option<Digest>,
    /// Counts when this was written.
    pub(crate) tally: Tally,
}

impl Record {
    /// Digests of the signed files that it needs.
    pub(crate) fn bundles(&self) -> impl Iterator<Item = Digest> {
        let papers = self.papers.iter();
        papers
            .flat_map(|papers| [papers.in_kernel, papers.in_force])
            .chain(self.permit)
    }
}

/// Papers without their bundles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeptPapers {
    /// The container's name.
    pub(crate) name: String,
    /// The engine that started it.
    pub(crate) engine: Engine,
    /// Digests of its image.
    pub(crate) digests: BTreeSet<Digest>,
    /// Digest of the bundle that the kernel's filter was made from.
    pub(crate) in_kernel: Digest,
    /// Digest of the bundle that is in force.
    pub(crate) in_force: Digest,
    /// Calls that the kernel holds more strictly than the policy in force.
    pub(crate) stricter: Vec<String>,
    /// Calls that the policy in force denies and the kernel allows.
    pub(crate) until_restart: Vec<String>,
}

/// The files, and one writer at a time.
#[derive(Debug)]
pub(crate) struct Records {
    listeners: PathBuf,
    papers: PathBuf,
    boot: String,
    writing: Mutex<()>,
}

impl Records {
    /// Opens the records in this folder and reads what the daemon before us knew.
    ///
    /// `access` is who may come through the folder itself, in which the control socket may be as well; what is made in it here is for
    /// this user alone.
    ///
    /// Records of an earlier boot are removed. One that cannot be understood is put aside as `<name>.broken` for a person
    /// to look at: its listener is then let go, so what it asks fails.
    ///
    /// # Errors
    /// A folder that is not private or cannot be listed.
    pub(crate) fn open(
        state_dir: &Path,
        access: Access,
    ) -> Result<(Records, BTreeMap<ListenerName, Record>), RecordsError> {
        directory(state_dir, access)?;
        let records = Records {
            listeners: state_dir.join("listeners"),
            papers: state_dir.join("papers"),
            boot: boot_id(),
            writing: Mutex::new(()),
        };
        private_directory(&records.listeners)?;
        private_directory(&records.papers)?;
        let mut known = BTreeMap::new();
        for path in list(&records.listeners)? {
            if path.extension().is_some_and(|found| found == NEW) {
                // a daemon before us was killed while it wrote this; what it was to replace is there still
                discard(&path);
                continue;
            }
            let Some(name) = path
                .file_name()
                .and_then(|name| name.to_str()?.strip_suffix(".json"))
                .and_then(ListenerName::parse)
            else {
                continue;
            };
            match records.read(&path) {
                Ok(Some(record)) => {
                    known.insert(name, record);
                }
                Ok(None) => records.remove(&name),
                Err(error) => {
                    tracing::error!("record `{}` put aside: {error:#}", path.display());
                    if let Err(error) = std::fs::rename(&path, path.with_extension("broken")) {
                        tracing::error!("cannot put `{}` aside: {error}", path.display());
                    }
                }
            }
        }
        Ok((records, known))
    }

    /// A record of this boot.
    fn read(&self, path: &Path) -> anyhow::Result<Option<Record>> {
        let text = read::guarded(path, MAX_RECORD, Guard::Pinned)?;
        let record: Record = serde_json::from_str(&text)?;
        anyhow::ensure!(record.v == 1, "version {}, expected 1", record.v);
        Ok((record.boot == self.boot).then_some(record))
    }

    /// The boot that records are of.
    pub(crate) fn boot(&self) -> &str {
        &self.boot
    }

    /// Writes a record. `record` is called when nobody else writes, so the last one to be written is the newest; none is
    /// removed.
    ///
    /// # Errors
    /// When it cannot be written; the one before is still there.
    pub(crate) fn write(
        &self,
        name: &ListenerName,
        record: impl FnOnce() -> Option<Record>,
    ) -> Result<(), RecordsError> {
        let path = self.record(name);
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(record) = record() else {
            return remove(&path).map_err(|source| RecordsError::Write { path, source });
        };
        let failed = |source| RecordsError::Write {
            path: path.clone(),
            source,
        };
        let text = serde_json::to_vec(&record).map_err(|error| failed(error.into()))?;
        replace(&path, &text).map_err(failed)
    }

    /// Forgets a listener. What cannot be removed is removed by the next start, which finds no process behind it.
    pub(crate) fn remove(&self, name: &ListenerName) {
        let path = self.record(name);
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = remove(&path) {
            tracing::error!("cannot remove `{}`: {error}", path.display());
        }
    }

    fn record(&self, name: &ListenerName) -> PathBuf {
        self.listeners.join(format!("{name}.json"))
    }

    /// Keeps a bundle.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn keep_paper(&self, bundle: &[u8]) -> Result<Digest, RecordsError> {
        let digest = Digest::of(bundle);
        let path = self.paper_path(&digest);
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if !path.exists() {
            replace(&path, bundle).map_err(|source| RecordsError::Write { path, source })?;
        }
        Ok(digest)
    }

    /// A bundle that was kept. Untrusted: verify it.
    ///
    /// # Errors
    /// When it is gone or changed.
    pub(crate) fn paper(&self, digest: &Digest) -> Result<Vec<u8>, RecordsError> {
        let path = self.paper_path(digest);
        let bytes = read::bounded(&path, MAX_PAPER)?;
        if Digest::of(&bytes) == *digest {
            Ok(bytes)
        } else {
            Err(RecordsError::Changed { path })
        }
    }

    fn paper_path(&self, digest: &Digest) -> PathBuf {
        self.papers.join(format!("{}.json", digest.hex()))
    }

    /// Removes bundles that nobody uses any more. To be called when no admission is under way: at the start.
    pub(crate) fn sweep(&self, used: &BTreeSet<Digest>) {
        let used: BTreeSet<PathBuf> = used.iter().map(|digest| self.paper_path(digest)).collect();
        match list(&self.papers) {
            Ok(found) => {
                for path in found.into_iter().filter(|path| !used.contains(path)) {
                    if let Err(error) = remove(&path) {
                        tracing::error!("cannot remove `{}`: {error}", path.display());
                    }
                }
            }
            Err(error) => tracing::error!("{:#}", anyhow::Error::from(error)),
        }
    }
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, RecordsError> {
    let failed = |source| RecordsError::List {
        path: folder.to_owned(),
        source,
    };
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    entries
        .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
        .collect()
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension(NEW);
    crate::fault::point("record-write");
    let written = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| {
            crate::fault::point("record-rename");
            std::fs::rename(&new, path)
        });
    if written.is_err() {
        // what is left of it takes room that others need
        discard(&new);
    }
    crate::fault::point("record-written");
    written
}

/// Removes what is of no use to anybody.
fn discard(path: &Path) {
    if let Err(error) = remove(path) {
        tracing::error!("cannot remove `{}`: {error}", path.display());
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
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
