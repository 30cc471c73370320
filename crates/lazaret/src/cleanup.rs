//! What must be gone when the program ends, however it ends: containers that were started, commands that exercise them,
//! files half written; and the terminal as it was.
//!
//! A guard removes its thing when it is dropped; Ctrl-C and SIGTERM remove all of them and end the program with
//! [`Exit::Interrupted`]. SIGKILL cannot be covered: containers carry the label `dev.lazaret.learn` to be found by.

use crate::engine::Engine;
use crate::exit::Exit;
use rustix::process::{Pid, Signal, kill_process_group};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Something to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Thing {
    Container { engine: Engine, name: String },
    Processes { group: Pid },
    File(PathBuf),
    Terminal,
}

static THINGS: Mutex<Vec<Thing>> = Mutex::new(Vec::new());

fn things() -> MutexGuard<'static, Vec<Thing>> {
    // the list is only pushed to and removed from: a panic in between leaves it usable
    THINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes its thing when dropped.
#[derive(Debug)]
pub struct Guard(Thing);

impl Guard {
    /// A container, by the name it is about to get.
    #[must_use]
    pub fn container(engine: &Engine, name: &str) -> Guard {
        Guard::of(Thing::Container {
            engine: engine.clone(),
            name: name.to_string(),
        })
    }

    /// A file that is about to be written.
    #[must_use]
    pub fn file(path: PathBuf) -> Guard {
        Guard::of(Thing::File(path))
    }

    /// The terminal, which the live table is about to take.
    #[must_use]
    pub(crate) fn terminal() -> Guard {
        Guard::of(Thing::Terminal)
    }

    /// Starts a command as a process group of its own, which is killed with all that the command has started.
    ///
    /// Call [`Guard::keep`] when the command has ended: its number may be given to others then.
    ///
    /// # Errors
    /// The command cannot be started.
    pub fn command(command: &mut Command) -> io::Result<(Child, Guard)> {
        // locked, so that a signal finds either no process yet or one that is known
        let mut things = things();
        let child = command.process_group(0).spawn()?;
        let thing = Thing::Processes {
            group: Pid::from_child(&child),
        };
        things.push(thing.clone());
        Ok((child, Guard(thing)))
    }

    fn of(thing: Thing) -> Guard {
        things().push(thing.clone());
        Guard(thing)
    }

    /// The thing is to stay.
    pub fn keep(self) {
        things().retain(|thing| *thing != self.0);
        std::mem::forget(self);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        things().retain(|thing| *thing != self.0);
        remove(&self.0);
    }
}

fn remove(thing: &Thing) {
    let gone = match thing {
        Thing::Container { engine, name } => engine.remove(name),
        Thing::Processes { group } => match kill_process_group(*group, Signal::KILL) {
            Err(error) if error != rustix::io::Errno::SRCH => Err(error.into()),
            _ => Ok(()),
        },
        Thing::File(path) => match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        },
        Thing::Terminal => {
            crate::watch::screen::give_back();
            Ok(())
        }
    };
    if let Err(error) = gone {
        eprintln!("lazaret: cannot clean up {thing:?}: {error:#}");
    }
}

/// From now on Ctrl-C, SIGTERM and SIGHUP clean up and end the program.
///
/// # Errors
/// The handler cannot be set.
pub fn on_signals() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| {
        // locked to the end: whatever the program was at, it goes no further than to its next guard or its own end
        let things = things();
        if things.iter().any(|thing| *thing != Thing::Terminal) {
            eprintln!("lazaret: interrupted, cleaning up");
        }
        things.iter().rev().for_each(remove);
        std::process::exit(i32::from(Exit::Interrupted.code()));
    })
}

/// To be called before the program ends by itself: waits for a clean-up that a signal began, which then ends the program.
pub fn before_exit() {
    // and none begins from here on
    std::mem::forget(things());
}

/// Writes a file whole or not at all: a temporary file beside it, synced, then renamed.
///
/// # Errors
/// The step that failed, with the path; the temporary file is gone and an older file untouched.
pub fn write_file(path: &std::path::Path, bytes: &[u8]) -> anyhow::Result<()> {
    use anyhow::Context;
    use std::io::Write;
    let mut name = path.file_name().context("no file name")?.to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let guard = Guard::file(temporary.clone());
    let shown = path.display();
    let mut file = std::fs::File::create(&temporary)
        .with_context(|| format!("cannot create `{}`", temporary.display()))?;
    file.write_all(bytes)
        .with_context(|| format!("cannot write `{shown}` ({} bytes)", bytes.len()))?;
    file.sync_all()
        .with_context(|| format!("cannot write `{shown}` to the disk"))?;
    std::fs::rename(&temporary, path).with_context(|| format!("cannot rename to `{shown}`"))?;
    guard.keep();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_nothing_else() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("recording.json");
        write_file(&path, b"old")?;
        assert!(write_file(&dir.path().join("absent/recording.json"), b"new").is_err());
        // /dev/full answers every write with ENOSPC (full(4)); its directory takes no temporary file of ours, so write there directly
        std::os::unix::fs::symlink(
            "/dev/full",
            dir.path()
                .join(format!("recording.json.{}.tmp", std::process::id())),
        )?;
        let error = write_file(&path, b"new").expect_err("no space");
        assert!(format!("{error:#}").contains("No space left"), "{error:#}");
        assert_eq!(std::fs::read(&path)?, b"old");
        assert_eq!(
            std::fs::read_dir(dir.path())?.count(),
            1,
            "the temporary file is gone"
        );
        Ok(())
    }
}
