//! How long to wait after a failure: twice as long each time, between bounds, with jitter so that the nodes of a site do not come
//! back together. It does not wait.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// The next waits.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// From `first` up to `longest`.
    pub(super) fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff {
            first,
            longest,
            next: first,
        }
    }

    /// It worked: begin anew.
    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }

    /// The wait after one more failure; never less than the server asked for. `chance` is anything random.
    pub(super) fn wait(&mut self, asked: Option<Duration>, chance: u64) -> Duration {
        let full = self.next;
        self.next = full.saturating_mul(2).min(self.longest);
        let half = full / 2;
        // half of it is certain, the other half is chance: 0 to 1023 of 1023 parts; both factors are far below 2^32
        let jitter = half.saturating_mul((chance & 1023) as u32) / 1023;
        (half + jitter)
            .max(self.first)
            .max(asked.unwrap_or_default())
    }
}

/// Random enough for jitter: the hash keys of std, which are the system's.
pub(super) fn chance() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_between_its_bounds_and_honours_the_server() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(300));
        let most: Vec<u64> = (0..11)
            .map(|_| backoff.wait(None, 1023).as_secs())
            .collect();
        assert_eq!(most, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        backoff.reset();
        let least: Vec<u64> = (0..11).map(|_| backoff.wait(None, 0).as_secs()).collect();
        assert_eq!(least, [1, 1, 2, 4, 8, 16, 32, 64, 128, 150, 150]);
        assert_eq!(backoff.wait(Some(seconds(900)), 0), seconds(900));
        assert_ne!(chance(), chance());
    }
}
