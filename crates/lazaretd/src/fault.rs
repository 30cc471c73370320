//! Places at which the fault tests kill the daemon, as a crash would.
//!
//! `LAZARETD_FAULT=<name>` or `<name>:<n>` makes the n-th arrival at this place a `SIGKILL` of the daemon's own process. It can only
//! end the program, never skip anything; release builds have no such places at all.

/// Ends the process here, when a test wants it to.
#[cfg(debug_assertions)]
pub(crate) fn point(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("LAZARETD_FAULT").ok()?;
        let (name, nth) = text.split_once(':').unwrap_or((&text, "1"));
        let left = nth.parse::<u64>().ok()?;
        Some((name.to_owned(), AtomicU64::new(left)))
    });
    if let Some((wanted, left)) = wanted
        && wanted == name
        && left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        let own = rustix::process::getpid();
        let killed = rustix::process::kill_process(own, rustix::process::Signal::KILL);
        // nothing of this process goes on after it
        unreachable!("killed at fault point {name}: {killed:?}");
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub(crate) const fn point(_name: &str) {}
