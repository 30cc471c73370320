//! What must be undone however xtask ends: by returning, by an error, by a panic, by Ctrl-C or SIGTERM.
//!
//! A guard registers what it has to undo with [`register`] and keeps the [`Undo`] it gets. Dropping the `Undo` undoes it (return,
//! error, panic); a signal undoes everything that is still registered, newest first, and exits with 130. Each thing is
//! undone once, and programs that xtask had started are ended. SIGKILL cannot be caught: what then stays is found and removed by the next start (`engine::enclosure`,
//! `loop_disk`).

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::process::{self, Process, ProcessId};

type Action = Box<dyn FnOnce() + Send>;
type Slot = Arc<Mutex<Option<Action>>>;

static REGISTERED: Mutex<Vec<Slot>> = Mutex::new(Vec::new());
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// How long they may take to end when asked, all together.
const END_LIMIT: Duration = Duration::from_secs(2);

/// Exit code after a signal, as shells report SIGINT (128 + 2).
const EXIT_INTERRUPTED: i32 = 130;

/// Undoes its action when dropped.
#[must_use = "dropping it undoes at once"]
pub struct Undo {
    slot: Slot,
}

impl Drop for Undo {
    fn drop(&mut self) {
        run(&self.slot);
        lock(&REGISTERED).retain(|slot| !Arc::ptr_eq(slot, &self.slot));
    }
}

impl std::fmt::Debug for Undo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Undo")
    }
}

/// Registers an action that is done once: when the result is dropped, or on a signal.
pub fn register(action: impl FnOnce() + Send + 'static) -> Undo {
    let slot: Slot = Arc::new(Mutex::new(Some(Box::new(action))));
    lock(&REGISTERED).push(Arc::clone(&slot));
    Undo { slot }
}

/// Removes a folder with all that is in it; one that is gone already is as good.
pub fn remove_folder(folder: &Path) -> Undo {
    let folder = folder.to_owned();
    register(move || {
        if let Err(error) = fs::remove_dir_all(&folder)
            && error.kind() != ErrorKind::NotFound
        {
            eprintln!("cannot remove {}: {error}", folder.display());
        }
    })
}

/// Makes SIGINT, SIGTERM and SIGHUP undo everything and exit with 130.
///
/// # Errors
/// When the handler cannot be installed.
pub fn on_signals() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        INTERRUPTED.store(true, Ordering::SeqCst);
        eprintln!("interrupted: cleaning up");
        undo_all();
        end_descendants();
        std::process::exit(EXIT_INTERRUPTED);
    })
    .context("cannot install the handler for SIGINT and SIGTERM")
}

/// Called by `main` before it returns: when a signal is being handled, leaves the exit to the handler, so that it can
/// finish.
pub fn before_exit() {
    while INTERRUPTED.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// Ends the programs that still work for us: after Ctrl-C on a terminal they have got the signal themselves, after SIGTERM not.
fn end_descendants() {
    let left: Vec<Process> = process::descendants()
        .iter()
        .filter_map(ProcessId::open)
        .collect();
    left.iter().for_each(Process::terminate);
    let end = Instant::now() + END_LIMIT;
    for process in left {
        if !process.wait_gone(end.saturating_duration_since(Instant::now())) {
            process.kill();
        }
    }
}

fn undo_all() {
    loop {
        // Taken out of the list before it runs: the action may register or drop others.
        let Some(slot) = lock(&REGISTERED).pop() else {
            return;
        };
        run(&slot);
    }
}

fn run(slot: &Slot) {
    // Held while the action runs: whoever comes second waits until it is done.
    let mut action = lock(slot);
    if let Some(action) = action.take() {
        action();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it was held leaves a list that is still right: nothing is changed in several steps.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn undone_exactly_once() {
        let count = Arc::new(AtomicU32::new(0));
        let inner = Arc::clone(&count);
        let undo = register(move || {
            inner.fetch_add(1, Ordering::SeqCst);
        });
        assert_eq!(count.load(Ordering::SeqCst), 0);
        run(&undo.slot);
        assert_eq!(count.load(Ordering::SeqCst), 1);
        drop(undo);
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_panic_undoes() {
        let count = Arc::new(AtomicU32::new(0));
        let inner = Arc::clone(&count);
        let result = std::panic::catch_unwind(move || {
            let _undo = register(move || {
                inner.fetch_add(1, Ordering::SeqCst);
            });
            panic!("as a failing step would");
        });
        assert!(result.is_err());
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }
}
