//! The open log file: whole lines or none, turned over by size, opened again when it went away.
//!
//! One owner, one thread. Every step may be the last (SIGKILL): no step overwrites a file that is to be kept, and a line that
//! was cut is ended by a newline before the next one. It does not outlive a power failure: nothing is flushed to the disk
//! here. What cannot be written is returned as an error; whoever calls keeps the line.

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The smallest size at which a log may be turned over, in bytes.
pub(crate) const MIN_BYTES: u64 = 4096;

/// Old files at most.
pub(crate) const MAX_KEEP: u32 = 100;

/// How often a file that vanishes while it is written is made again for one line.
const ATTEMPTS: usize = 3;

/// How large the log may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    max_bytes: u64,
    keep: u32,
}

impl Default for Limits {
    /// 64 MiB, and four old files: 320 MiB in all.
    fn default() -> Limits {
        Limits {
            max_bytes: 64 * 1024 * 1024,
            keep: 4,
        }
    }
}

/// A limit that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LimitsError {
    /// Hardly a line would fit.
    #[error("log-max-bytes is {found}, expected {MIN_BYTES} or more")]
    MaxBytes {
        /// What was asked for.
        found: u64,
    },
    /// No old file, or more than anybody reads.
    #[error("log-keep is {found}, expected 1 to {MAX_KEEP}")]
    Keep {
        /// What was asked for.
        found: u32,
    },
}

impl Limits {
    /// A log that is turned over before it grows beyond `max_bytes`, with the `keep` files before it.
    ///
    /// # Errors
    /// Fewer than [`MIN_BYTES`]; no old file, or more than [`MAX_KEEP`].
    pub(crate) fn new(max_bytes: u64, keep: u32) -> Result<Limits, LimitsError> {
        if max_bytes < MIN_BYTES {
            return Err(LimitsError::MaxBytes { found: max_bytes });
        }
        if !(1..=MAX_KEEP).contains(&keep) {
            return Err(LimitsError::Keep { found: keep });
        }
        Ok(Limits { max_bytes, keep })
    }

    /// Bytes of one file.
    pub(crate) const fn max_bytes(self) -> u64 {
        self.max_bytes
    }

    /// Old files.
    pub(crate) const fn keep(self) -> u32 {
        self.keep
    }
}

/// A line is not in the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LogError {
    /// Its folder cannot be made.
    #[error("cannot create directory `{}`", path.display())]
    Directory {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be opened for appending.
    #[error("cannot open event log `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write event log `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An old file cannot be moved, and the log is twice as large as it may be.
    #[error("cannot turn over event log `{}` at {bytes} bytes", path.display())]
    TurnOver {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody removes it as fast as it is made.
    #[error("event log `{}` was removed {ATTEMPTS} times while a line was written", path.display())]
    Vanishes {
        /// The file.
        path: PathBuf,
    },
}

/// The log.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    limits: Limits,
    open: Option<Open>,
    /// A failure to turn over was said.
    stuck: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Its size.
    bytes: u64,
    /// Its last byte is not a newline.
    cut: bool,
    /// It can be moved: a device or a pipe stays where it is.
    regular: bool,
}

impl Log {
    /// A log that is opened with its first line.
    pub(crate) fn new(path: &Path, limits: Limits) -> Log {
        Log {
            path: path.to_owned(),
            limits,
            open: None,
            stuck: false,
        }
    }

    /// Opens the file at the path, for instance after `logrotate(8)` moved the one that is written. When it cannot be
    /// opened, the one before is written further.
    ///
    /// # Errors
    /// When its folder or the file cannot be made or opened.
    pub(crate) fn reopen(&mut self) -> Result<(), LogError> {
        if let Some(before) = &mut self.open {
            before.end_line();
        }
        self.open = Some(Open::at(&self.path)?);
        Ok(())
    }

    /// Appends a line, given without its newline.
    ///
    /// # Errors
    /// When it is not in the log, as a whole. It may be tried again: no part of it is taken for a line.
    pub(crate) fn append(&mut self, line: &[u8]) -> Result<(), LogError> {
        for _ in 0..ATTEMPTS {
            if self.open.is_none() {
                self.open = Some(Open::at(&self.path)?);
            }
            self.turn_over_before(line)?;
            let open = match &mut self.open {
                Some(open) => open,
                none => none.insert(Open::at(&self.path)?),
            };
            let written = open.write(line);
            crate::fault::point("log-written");
            // Removed, before or after this line: nobody will ever read it there.
            if open.file.metadata().is_ok_and(|found| found.nlink() == 0) {
                self.open = None;
                continue;
            }
            return written.map_err(|source| LogError::Write {
                path: self.path.clone(),
                source,
            });
        }
        Err(LogError::Vanishes {
            path: self.path.clone(),
        })
    }

    fn turn_over_before(&mut self, line: &[u8]) -> Result<(), LogError> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        // a line's length fits 64 bits; its newline and the one that ends a cut line
        let after = open.bytes.saturating_add(line.len() as u64 + 2);
        if !open.regular || open.bytes == 0 || after <= self.limits.max_bytes {
            return Ok(());
        }
        open.end_line();
        crate::fault::point("log-full");
        match turn_over(&self.path, &open.file, self.limits.keep) {
            Ok(()) => {
                self.stuck = false;
                self.open = None;
                crate::fault::point("log-turned-over");
                Ok(())
            }
            // better too large than incomplete
            Err(source) if after <= self.limits.max_bytes.saturating_mul(2) => {
                if !self.stuck {
                    let path = self.path.display();
                    tracing::error!("cannot turn over event log `{path}`: {source}");
                }
                self.stuck = true;
                Ok(())
            }
            Err(source) => Err(LogError::TurnOver {
                path: self.path.clone(),
                bytes: open.bytes,
                source,
            }),
        }
    }
}

impl Open {
    fn at(path: &Path) -> Result<Open, LogError> {
        if let Some(folder) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|source| LogError::Directory {
                    path: folder.to_owned(),
                    source,
                })?;
        }
        Open::file(path).map_err(|source| LogError::Open {
            path: path.to_owned(),
            source,
        })
    }

    fn file(path: &Path) -> io::Result<Open> {
        let mut file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let found = file.metadata()?;
        let mut cut = false;
        if found.is_file() && found.len() > 0 {
            // a daemon before us may have been killed, or the machine stopped, in the middle of a line
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            cut = last != *b"\n";
        }
        Ok(Open {
            bytes: found.len(),
            cut,
            regular: found.is_file(),
            file,
        })
    }

    /// Ends the last line of a file that gets no other: whoever follows the log waits for the newline.
    fn end_line(&mut self) {
        // On a full disk there is no room for it; nothing else can be done about this line.
        if self.cut && self.file.write(b"\n").is_ok_and(|count| count == 1) {
            self.cut = false;
            self.bytes = self.bytes.saturating_add(1);
        }
    }

    /// One write for the whole line; on a full disk it can be cut.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let mut text = Vec::with_capacity(line.len() + 2);
        if self.cut {
            text.push(b'\n');
        }
        text.extend_from_slice(line);
        text.push(b'\n');
        let mut left = text.as_slice();
        let outcome = loop {
            match self.file.write(left) {
                Ok(0) => break Err(io::Error::from(io::ErrorKind::WriteZero)),
                Ok(count) => {
                    // write(2) returns no more than it was given
                    left = left.get(count..).unwrap_or_default();
                    if left.is_empty() {
                        break Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        let written = text.len() - left.len();
        self.bytes = self.bytes.saturating_add(written as u64);
        if let Some(last) = written.checked_sub(1).and_then(|last| text.get(last)) {
            self.cut = *last != b'\n';
        }
        // Only the newline is missing: the line is there, and the next one brings it.
        if left == b"\n" && self.cut {
            Ok(())
        } else {
            outcome
        }
    }
}

/// Where the old file of this number is; 0 is the log itself.
fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    name.into()
}

/// The moves that turn a log over, in this order: each from a number to the next, the log itself last.
///
/// They stop at the first number that is free (a crash between two moves leaves one), so nothing is overwritten but the
/// oldest, and that only when every number is taken.
fn moves(taken: impl Fn(u32) -> bool, keep: u32) -> impl Iterator<Item = (u32, u32)> {
    let free = (1..=keep).find(|&number| !taken(number)).unwrap_or(keep);
    (0..free).rev().map(|number| (number, number + 1))
}

/// Makes room for a new file at the path, unless it holds another than `open` already.
fn turn_over(path: &Path, open: &File, keep: u32) -> io::Result<()> {
    let same =
        |there: &Metadata, ours: &Metadata| there.dev() == ours.dev() && there.ino() == ours.ino();
    match path.symlink_metadata() {
        Ok(there) if same(&there, &open.metadata()?) => {}
        // moved by logrotate(8), which will tell us; or removed
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let taken = |number| numbered(path, number).symlink_metadata().is_ok();
    let full = (1..=keep).all(taken);
    for (from, to) in moves(taken, keep) {
        let (source, target) = (numbered(path, from), numbered(path, to));
        crate::fault::point("log-moving");
        if full && to == keep {
            std::fs::rename(&source, &target)?;
        } else {
            rename_to_free(&source, &target)?;
        }
        crate::fault::point("log-moved");
    }
    Ok(())
}

/// Fails when something is at the target.
fn rename_to_free(source: &Path, target: &Path) -> io::Result<()> {
    match renameat_with(CWD, source, CWD, target, RenameFlags::NOREPLACE) {
        // Some file systems do not know the flag (renameat2(2)); that the target is free was looked at just before.
        Err(Errno::INVAL | Errno::NOSYS) => std::fs::rename(source, target),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests;
