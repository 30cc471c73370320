//! The queue on disk: batches of resources that wait for the server, bounded in bytes.
//!
//! ```text
//! QUEUE/lock                 held by the process that exports
//! QUEUE/state.json           place in the log, exact counts, the step that is under way
//! QUEUE/pending/SEQ-N.json   a batch of N resources, and the place in the log after it
//! QUEUE/rejected/SEQ-N.json  what the server refused for what it is; an eighth of the bound, oldest removed first
//! ```
//!
//! Every file is written beside its place, synced and renamed. What changes a count is written into the state first, as a step that
//! can be done again ([`Step`]): a crash at any moment leaves either nothing of it or all of it, and counts stay exact. A batch that was
//! delivered and not yet removed when the process died is delivered again, under the same ids.
//!
//! It does not know servers; the caller says what became of a batch.

use super::follow::Cursor;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// What a file takes on disk is a multiple of this, on the file systems in use.
const BLOCK: u64 = 4096;

/// Bytes of a file that is read; batches are far below.
const MAX_FILE: u64 = 16 << 20;

/// The share of the bound that refused batches may take: one in this many.
const REJECTED_SHARE: u64 = 8;

/// The queue cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum QueueError {
    /// Another process exports from this folder.
    #[error("audit queue `{}` is in use", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A file or folder of it.
    #[error("cannot {what} `{}` of the audit queue", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no room, and nothing may be dropped: the only batch is being posted.
    #[error("the audit queue has no room for {bytes} bytes")]
    Full {
        /// What was to be written.
        bytes: u64,
    },
}

/// Resources that never arrive, since the queue was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    /// Dropped, oldest first, when the queue was full.
    pub(super) dropped: u64,
    /// Refused by the server for what they are.
    pub(super) rejected: u64,
    /// How often the log was turned over before it was read.
    pub(super) gaps: u64,
}

/// A change that was counted and may not be done yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    /// The batch is given up.
    Drop { name: Name },
    /// The batch goes into `rejected` but for what was delivered and what is tried again.
    Settle {
        name: Name,
        delivered: BTreeSet<String>,
        rejected: BTreeSet<String>,
    },
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    cursor: Option<Cursor>,
    next: u64,
    counts: Counts,
    told: Counts,
    step: Option<Step>,
}

/// The name of a batch: its number and how many resources it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Name {
    seq: u64,
    count: u64,
}

impl Name {
    fn file(self) -> String {
        format!("{:020}-{}.json", self.seq, self.count)
    }

    fn parse(file: &str) -> Option<Name> {
        let (seq, count) = file.strip_suffix(".json")?.split_once('-')?;
        Some(Name {
            seq: seq.parse().ok()?,
            count: count.parse().ok()?,
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Batch {
    /// Where the log goes on after it.
    cursor: Option<Cursor>,
    entries: Vec<Value>,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    name: Name,
    bytes: u64,
}

/// How full it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Filling {
    /// Batches.
    pub(super) files: u64,
    /// Bytes on disk, in whole blocks.
    pub(super) bytes: u64,
    /// Resources.
    pub(super) events: u64,
}

/// The open queue.
#[derive(Debug)]
pub(super) struct Queue {
    folder: PathBuf,
    max_bytes: u64,
    state: State,
    items: VecDeque<Item>,
    /// The batch that is being posted: it is not dropped.
    in_flight: Option<Name>,
    _lock: File,
}

impl Queue {
    /// Opens the queue, makes it when it is not there, and ends what a crash interrupted.
    ///
    /// # Errors
    /// Another process has it, or a file cannot be read or written.
    pub(super) fn open(folder: &Path, max_bytes: u64) -> Result<Queue, QueueError> {
        for made in [
            folder.to_owned(),
            folder.join("pending"),
            folder.join("rejected"),
        ] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&made)
                .map_err(failed("make", &made))?;
        }
        let lock = lock(folder)?;
        let state = read_state(&folder.join("state.json"))?;
        let mut queue = Queue {
            folder: folder.to_owned(),
            max_bytes,
            state,
            items: VecDeque::new(),
            in_flight: None,
            _lock: lock,
        };
        if let Some(step) = queue.state.step.take() {
            queue.perform(&step)?;
        }
        queue.items = list(&folder.join("pending"))?.into();
        queue.recall()?;
        Ok(queue)
    }

    /// Does what was counted and could not be done, when a disk was full say.
    fn finish_step(&mut self) -> Result<(), QueueError> {
        if let Some(step) = &self.state.step {
            self.perform(step)?;
            self.state.step = None;
            self.items = list(&self.folder.join("pending"))?.into();
        }
        Ok(())
    }

    /// A batch that was written before the state was: its place in the log is the newer one.
    fn recall(&mut self) -> Result<(), QueueError> {
        let Some(newest) = self.items.iter().map(|item| item.name).max() else {
            return Ok(());
        };
        if newest.seq >= self.state.next {
            if let Some(batch) = self.batch(newest)? {
                self.state.cursor = batch.cursor;
            }
            self.state.next = newest.seq.saturating_add(1);
            self.save()?;
        }
        Ok(())
    }

    /// Up to where the log is in the queue.
    pub(super) fn cursor(&self) -> Option<Cursor> {
        self.state.cursor
    }

    /// What never arrives.
    pub(super) fn counts(&self) -> Counts {
        self.state.counts
    }

    /// The counts that were told last.
    pub(super) fn told(&self) -> Counts {
        self.state.told
    }

    /// These counts were told.
    pub(super) fn set_told(&mut self, told: Counts) -> Result<(), QueueError> {
        self.state.told = told;
        self.save()
    }

    /// The log had been turned over before it was read.
    pub(super) fn add_gap(&mut self, cursor: Option<Cursor>) -> Result<(), QueueError> {
        self.state.counts.gaps = self.state.counts.gaps.saturating_add(1);
        self.state.cursor = cursor;
        self.save()
    }

    /// The log was read this far and nothing in it is exported. Kept in memory only: reading it again costs little.
    pub(super) fn pass(&mut self, cursor: Option<Cursor>) {
        self.state.cursor = cursor;
    }

    /// How full it is.
    pub(super) fn filling(&self) -> Filling {
        let sum = |of: fn(&Item) -> u64| self.items.iter().map(of).sum();
        Filling {
            files: self.items.len() as u64,
            bytes: sum(|item| item.bytes),
            events: sum(|item| item.name.count),
        }
    }

    /// Adds a batch, and drops the oldest ones when there is no room for it.
    ///
    /// # Errors
    /// When it cannot be written (then nothing has changed and it may be tried again), or there is no room.
    pub(super) fn push(
        &mut self,
        entries: Vec<Value>,
        cursor: Option<Cursor>,
    ) -> Result<(), QueueError> {
        self.finish_step()?;
        let name = Name {
            seq: self.state.next,
            count: entries.len() as u64,
        };
        let path = self.pending(name);
        let text = encode(&Batch { cursor, entries }, &path)?;
        let bytes = on_disk(text.len() as u64);
        let flying = self
            .items
            .iter()
            .filter(|item| Some(item.name) == self.in_flight);
        let fixed: u64 = flying.map(|item| item.bytes).sum();
        if fixed.saturating_add(bytes) > self.max_bytes {
            return Err(QueueError::Full { bytes });
        }
        while self.filling().bytes.saturating_add(bytes) > self.max_bytes {
            if !self.drop_oldest()? {
                return Err(QueueError::Full { bytes });
            }
        }
        write(&path, &text)?;
        self.items.push_back(Item { name, bytes });
        self.state.next = name.seq.saturating_add(1);
        self.state.cursor = cursor;
        // The batch is safe; when this fails, `recall` finds it.
        self.save()
            .inspect(|()| crate::fault::point("audit-queued"))
    }

    /// Drops the oldest batch that is not being posted; false when there is none.
    fn drop_oldest(&mut self) -> Result<bool, QueueError> {
        let at = self
            .items
            .iter()
            .position(|item| Some(item.name) != self.in_flight);
        let Some((at, item)) = at.and_then(|at| Some((at, *self.items.get(at)?))) else {
            return Ok(false);
        };
        let counts = Counts {
            dropped: self.state.counts.dropped.saturating_add(item.name.count),
            ..self.state.counts
        };
        self.step(Step::Drop { name: item.name }, counts)?;
        self.items.remove(at);
        Ok(true)
    }

    /// The batch to post next, if there is one; until it is settled it is not dropped. A file that cannot be understood any more
    /// is rejected here.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn take(&mut self) -> Result<Option<(Name, Vec<Value>)>, QueueError> {
        self.finish_step()?;
        while let Some(item) = self.items.front().copied() {
            if let Some(batch) = self.batch(item.name)? {
                self.in_flight = Some(item.name);
                return Ok(Some((item.name, batch.entries)));
            }
            let counts = Counts {
                rejected: self.state.counts.rejected.saturating_add(item.name.count),
                ..self.state.counts
            };
            let (from, to) = (self.pending(item.name), self.rejected(item.name));
            fs::rename(&from, &to).map_err(failed("move", &from))?;
            self.items.pop_front();
            self.state.counts = counts;
            self.save()?;
        }
        Ok(None)
    }

    /// All of the batch was delivered.
    pub(super) fn delivered(&mut self, name: Name) -> Result<(), QueueError> {
        self.in_flight = None;
        crate::fault::point("audit-delivered");
        remove(&self.pending(name))?;
        crate::fault::point("audit-settled");
        self.items.retain(|item| item.name != name);
        Ok(())
    }

    /// Nothing of the batch was delivered: it is tried again.
    pub(super) fn again(&mut self) {
        self.in_flight = None;
    }

    /// Some of the batch was delivered, some is refused for good, both possibly none; the rest is tried again, after the others.
    pub(super) fn settle(
        &mut self,
        name: Name,
        delivered: BTreeSet<String>,
        rejected: BTreeSet<String>,
    ) -> Result<(), QueueError> {
        self.in_flight = None;
        self.finish_step()?;
        if delivered.is_empty() && rejected.is_empty() {
            if let Some(at) = self.items.iter().position(|item| item.name == name) {
                let item = self.items.remove(at);
                self.items.extend(item);
            }
            return Ok(());
        }
        let counts = Counts {
            rejected: self
                .state
                .counts
                .rejected
                .saturating_add(rejected.len() as u64),
            ..self.state.counts
        };
        let done = (delivered.len().saturating_add(rejected.len())) as u64;
        let step = Step::Settle {
            name,
            delivered,
            rejected,
        };
        self.step(step, counts)?;
        self.items.retain(|item| item.name != name);
        let rest = Name {
            count: name.count.saturating_sub(done),
            ..name
        };
        if rest.count > 0 {
            let path = self.pending(rest);
            let bytes = fs::metadata(&path).map_err(failed("find", &path))?.len();
            self.items.push_back(Item {
                name: rest,
                bytes: on_disk(bytes),
            });
        }
        self.bound_rejected()
    }

    /// Counts first, then does it: done again after a crash, it is counted once.
    fn step(&mut self, step: Step, counts: Counts) -> Result<(), QueueError> {
        let before = self.state.counts;
        self.state.counts = counts;
        self.state.step = Some(step.clone());
        if let Err(error) = self.save() {
            self.state.counts = before;
            self.state.step = None;
            return Err(error);
        }
        self.perform(&step)?;
        // Left in the file until the next save: doing it again changes nothing.
        self.state.step = None;
        Ok(())
    }

    fn perform(&self, step: &Step) -> Result<(), QueueError> {
        match step {
            Step::Drop { name } => remove(&self.pending(*name)),
            Step::Settle {
                name,
                delivered,
                rejected,
            } => {
                let path = self.pending(*name);
                if !path.exists() {
                    return Ok(());
                }
                let Some(batch) = self.batch(*name)? else {
                    return Ok(());
                };
                let (cursor, mut rest, mut refused) = (batch.cursor, Vec::new(), Vec::new());
                for entry in batch.entries {
                    let id = entry["id"].as_str().unwrap_or_default();
                    if rejected.contains(id) {
                        refused.push(entry);
                    } else if !delivered.contains(id) {
                        rest.push(entry);
                    }
                }
                self.put(&self.rejected(*name), cursor, refused, *name)?;
                self.put(&self.pending(*name), cursor, rest, *name)?;
                remove(&path)
            }
        }
    }

    /// Writes these entries beside `like`, under a name with their number; nothing when there are none.
    fn put(
        &self,
        like: &Path,
        cursor: Option<Cursor>,
        entries: Vec<Value>,
        name: Name,
    ) -> Result<(), QueueError> {
        if entries.is_empty() {
            return Ok(());
        }
        let name = Name {
            count: entries.len() as u64,
            ..name
        };
        let path = like.with_file_name(name.file());
        let text = encode(&Batch { cursor, entries }, &path)?;
        write(&path, &text)
    }

    fn bound_rejected(&self) -> Result<(), QueueError> {
        let folder = self.folder.join("rejected");
        let items = list(&folder)?;
        let mut bytes: u64 = items.iter().map(|item| item.bytes).sum();
        for item in items {
            if bytes <= self.max_bytes / REJECTED_SHARE {
                break;
            }
            remove(&folder.join(item.name.file()))?;
            bytes = bytes.saturating_sub(item.bytes);
        }
        Ok(())
    }

    fn batch(&self, name: Name) -> Result<Option<Batch>, QueueError> {
        let path = self.pending(name);
        let text = lazaret_bundle::read::bounded(&path, MAX_FILE)
            .map_err(|error| failed("read", &path)(io::Error::other(error)))?;
        Ok(serde_json::from_slice(&text).ok())
    }

    fn pending(&self, name: Name) -> PathBuf {
        self.folder.join("pending").join(name.file())
    }

    fn rejected(&self, name: Name) -> PathBuf {
        self.folder.join("rejected").join(name.file())
    }

    fn save(&self) -> Result<(), QueueError> {
        let path = self.folder.join("state.json");
        let text = encode(&self.state, &path)?;
        write(&path, &text)
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> QueueError {
    let path = path.to_owned();
    move |source| QueueError::File { what, path, source }
}

fn lock(folder: &Path) -> Result<File, QueueError> {
    use rustix::fs::{FlockOperation, flock};
    let path = folder.join("lock");
    let file = File::options()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(QueueError::Locked {
            path: folder.to_owned(),
        }),
        Err(error) => Err(failed("lock", &path)(error.into())),
    }
}

fn read_state(path: &Path) -> Result<State, QueueError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::default()),
        Err(error) => Err(failed("read", path)(error)),
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|error| failed("understand", path)(io::Error::other(error))),
    }
}

/// The batches in a folder, oldest first. What a crash left half written is removed.
fn list(folder: &Path) -> Result<Vec<Item>, QueueError> {
    let mut items = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed("list", folder))? {
        let entry = entry.map_err(failed("list", folder))?;
        let path = entry.path();
        let name = entry.file_name();
        match name.to_str().and_then(Name::parse) {
            Some(name) => {
                let bytes = entry.metadata().map_err(failed("find", &path))?.len();
                items.push(Item {
                    name,
                    bytes: on_disk(bytes),
                });
            }
            None => remove(&path)?,
        }
    }
    items.sort_by_key(|item| item.name);
    Ok(items)
}

fn on_disk(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK).saturating_mul(BLOCK)
}

fn encode(value: &impl Serialize, path: &Path) -> Result<Vec<u8>, QueueError> {
    serde_json::to_vec(value).map_err(|error| failed("write", path)(error.into()))
}

fn remove(path: &Path) -> Result<(), QueueError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(failed("remove", path)),
    }
}

/// Beside its place, synced, renamed, and the folder synced: there or not there, never half.
fn write(path: &Path, text: &[u8]) -> Result<(), QueueError> {
    let beside = path.with_extension("tmp");
    let written = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| {
            file.write_all(text)?;
            file.sync_all()
        })
        .and_then(|()| {
            crate::fault::point("audit-write");
            fs::rename(&beside, path)
        })
        .and_then(|()| match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        });
    if written.is_err() {
        // what is left of it takes room that others need; it is written over or removed at the next start
        fs::remove_file(&beside).ok();
    }
    crate::fault::point("audit-written");
    written.map_err(failed("write", path))
}
