//! A configuration file on disk: read whole, replaced whole, its owner and mode kept, and a copy of what was there before.
//!
//! Symbolic links are refused, not followed: whoever manages the file through a link wants the change where the link leads,
//! and can name that file. Access control lists and extended attributes are not carried over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

/// Largest file that is read, in bytes.
const LIMIT: u64 = 1024 * 1024;

/// What the copy's name ends in.
const BEFORE: &str = ".before-lazaret";

/// Why a file was not read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FileError {
    /// A link on the way.
    #[error("`{}` is a symbolic link to `{}` (hint: name the file itself with --config)", path.display(), target.display())]
    Link {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A directory, a device, a pipe.
    #[error("`{}` is not a regular file", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// Larger than its bound.
    #[error("`{}` is larger than {LIMIT} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not text.
    #[error("`{}` is not UTF-8 text", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// Somebody wrote it between our reading and writing.
    #[error("`{}` was changed by somebody else meanwhile; nothing was written", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// What was read back is not what was written.
    #[error("`{}` does not hold what was written", path.display())]
    Other {
        /// The file.
        path: PathBuf,
    },
    /// The kernel refused a step.
    #[error("cannot {step} `{}`", path.display())]
    Step {
        /// What was tried.
        step: &'static str,
        /// With which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// A file as it was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its text; none when there is no file.
    pub(crate) text: Option<String>,
    state: Option<State>,
}

/// By what a change is noticed, and what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    mode: u32,
    owner: (u32, u32),
}

impl State {
    fn of(metadata: &fs::Metadata) -> State {
        State {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
        }
    }
}

fn step(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Step { step, path, source }
}

/// Reads a file, which may be absent.
///
/// # Errors
/// [`FileError`].
pub(crate) fn read(path: &Path) -> Result<Found, FileError> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Found {
                text: None,
                state: None,
            });
        }
        other => other.map_err(step("look at", path))?,
    };
    refuse_link(path, &found)?;
    // a link that takes its place now is an error of `open`
    let mut open = OpenOptions::new();
    open.read(true)
        .custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32);
    let file = open.open(path).map_err(step("open", path))?;
    let metadata = file.metadata().map_err(step("look at", path))?;
    if !metadata.is_file() {
        return Err(FileError::Kind {
            path: path.to_owned(),
        });
    }
    let mut bytes = Vec::new();
    file.take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(step("read", path))?;
    if bytes.len() as u64 > LIMIT {
        return Err(FileError::TooLarge {
            path: path.to_owned(),
        });
    }
    let text = String::from_utf8(bytes).map_err(|_| FileError::NotText {
        path: path.to_owned(),
    })?;
    Ok(Found {
        text: Some(text),
        state: Some(State::of(&metadata)),
    })
}

/// Refuses links among the folders between `root` and a file below it: they would lead out of an image.
///
/// # Errors
/// [`FileError::Link`], [`FileError::Step`].
pub(crate) fn no_links_below(root: &Path, path: &Path) -> Result<(), FileError> {
    let Ok(below) = path.strip_prefix(root) else {
        return Ok(());
    };
    let mut at = root.to_owned();
    for name in below.parent().unwrap_or(Path::new("")).components() {
        at.push(name);
        match fs::symlink_metadata(&at) {
            Ok(metadata) => refuse_link(&at, &metadata)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(step("look at", &at)(error)),
        }
    }
    Ok(())
}

fn refuse_link(path: &Path, metadata: &fs::Metadata) -> Result<(), FileError> {
    if metadata.is_symlink() {
        return Err(FileError::Link {
            path: path.to_owned(),
            target: fs::read_link(path).map_err(step("look at", path))?,
        });
    }
    Ok(())
}

/// Where the copy of what was there before is kept.
pub(crate) fn backup(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(BEFORE);
    name.into()
}

/// Replaces the file by a rename in its folder, which is made if need be.
///
/// # Flow
/// Temporary file in the same folder, owner and mode of the old one (else root's and 0644), text, fsync; is the old one still
/// what was read?; rename; the folder is flushed; the file is read back.
///
/// # Guarantees
/// Readers see the old file or the new one, never half of either, also after a power failure.
///
/// # Errors
/// [`FileError`]; nothing is changed, but for [`FileError::Other`].
pub(crate) fn replace(path: &Path, found: &Found, text: &str) -> Result<(), FileError> {
    let folder = folder(path);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)
        .map_err(step("create", folder))?;
    let temporary = tempfile::Builder::new()
        .prefix(".lazaret-install-")
        .tempfile_in(folder)
        .map_err(step("write in", folder))?;
    fill(temporary.as_file(), found.state, text).map_err(step("write", temporary.path()))?;
    if read(path)?.state != found.state {
        return Err(FileError::Changed {
            path: path.to_owned(),
        });
    }
    temporary
        .persist(path)
        .map_err(|error| step("replace", path)(error.error))?;
    flush(folder)?;
    if read(path)?.text.as_deref() == Some(text) {
        Ok(())
    } else {
        Err(FileError::Other {
            path: path.to_owned(),
        })
    }
}

fn fill(mut file: &File, like: Option<State>, text: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.write_all(text.as_bytes())?;
    if let Some(State {
        owner: (user, group),
        ..
    }) = like
    {
        fchown(file, Some(user), Some(group))?;
    }
    let mode = like.map_or(0o644, |like| like.mode);
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Keeps a copy of what was found; an older copy gives way.
///
/// # Errors
/// [`FileError`].
pub(crate) fn keep(path: &Path, found: &Found) -> Result<(), FileError> {
    let Some(text) = &found.text else {
        return Ok(());
    };
    let copy = backup(path);
    let old = read(&copy)?;
    let like = Found {
        text: old.text,
        state: old.state,
    };
    let written = replace(&copy, &like, text);
    if let (Ok(()), Some(state), None) = (&written, found.state, like.state) {
        let copied = File::open(&copy).map_err(step("open", &copy))?;
        fill_owner(&copied, state).map_err(step("write", &copy))?;
    }
    written
}

fn fill_owner(file: &File, state: State) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fchown(file, Some(state.owner.0), Some(state.owner.1))?;
    file.set_permissions(fs::Permissions::from_mode(state.mode))
}

/// Removes a file that must still be what was read.
///
/// # Errors
/// [`FileError`].
pub(crate) fn remove(path: &Path, found: &Found) -> Result<(), FileError> {
    if read(path)?.state != found.state {
        return Err(FileError::Changed {
            path: path.to_owned(),
        });
    }
    fs::remove_file(path).map_err(step("remove", path))?;
    flush(folder(path))
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

fn flush(folder: &Path) -> Result<(), FileError> {
    let opened = File::open(folder).map_err(step("open", folder))?;
    opened.sync_all().map_err(step("flush", folder))
}
