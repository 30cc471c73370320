//! The wall clock, for what is signed with an end: never earlier than it has been before.
//!
//! A clock that is set back must not bring a permit back to life, so the highest time that was ever seen is kept in the state
//! directory's `clock` and is the floor of every later reading. A clock that jumps forward ends permits early: closed. Once it is right again,
//! `clock` can be removed by hand while the daemon is stopped (docs/operations.md).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// How far the floor may run ahead of what was written down.
const STEP_MS: u64 = 1000;

/// The clock.
#[derive(Debug)]
pub(crate) struct Clock {
    path: PathBuf,
    floor_ms: AtomicU64,
    written_ms: AtomicU64,
    /// That it cannot be written was said.
    failing: AtomicBool,
}

impl Clock {
    /// The clock whose floor is kept in this folder. A floor that cannot be read is none.
    pub(crate) fn open(state_dir: &Path) -> Clock {
        let path = state_dir.join("clock");
        let floor_ms = std::fs::read_to_string(&path)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0);
        Clock {
            path,
            floor_ms: AtomicU64::new(floor_ms),
            written_ms: AtomicU64::new(floor_ms),
            failing: AtomicBool::new(false),
        }
    }

    /// Milliseconds since the Unix epoch, or the highest that was ever seen.
    pub(crate) fn now_ms(&self) -> u64 {
        self.at(unix_ms())
    }

    fn at(&self, wall_ms: u64) -> u64 {
        let before = self.floor_ms.fetch_max(wall_ms, Ordering::Relaxed);
        before.max(wall_ms)
    }

    /// Writes the floor down, if it has moved by a second. Blocks a little.
    pub(crate) fn save(&self) {
        let floor_ms = self.floor_ms.load(Ordering::Relaxed);
        if floor_ms
            < self
                .written_ms
                .load(Ordering::Relaxed)
                .saturating_add(STEP_MS)
        {
            return;
        }
        let new = self.path.with_extension("new");
        let written = std::fs::write(&new, floor_ms.to_string())
            .and_then(|()| std::fs::rename(&new, &self.path));
        match written {
            Ok(()) => {
                self.written_ms.store(floor_ms, Ordering::Relaxed);
                self.failing.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                // once, not every second
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!("cannot write `{}`: {error}", self.path.display());
                }
            }
        }
    }
}

/// Milliseconds since the Unix epoch; 0 before it.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_does_not_go_back() {
        let folder = tempfile::tempdir().expect("folder");
        let clock = Clock::open(folder.path());
        assert_eq!(clock.at(5000), 5000);
        assert_eq!(clock.at(10), 5000);
        assert_eq!(clock.at(5001), 5001);
        clock.save();
        // the next daemon knows
        let clock = Clock::open(folder.path());
        assert_eq!(clock.at(10), 5001);
        // without the file there is no floor
        std::fs::remove_file(folder.path().join("clock")).expect("removed");
        assert_eq!(Clock::open(folder.path()).at(10), 10);
    }
}
