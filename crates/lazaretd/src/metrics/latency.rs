//! How long answers take, counted while they are given.
//!
//! Threads count in cells of their own as far as there are enough, with one uncontended addition per value; a scrape adds the
//! cells up. A scrape in the middle of an answer can see it in a bucket and not yet in the sum.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in nanoseconds; a last bucket takes the rest.
pub(crate) const BOUNDS_NS: [u64; 19] = [
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
];

/// Buckets, the last one included.
pub(crate) const BUCKETS: usize = BOUNDS_NS.len() + 1;

/// Cells; more threads than this share.
const CELLS: usize = 16;

/// Aligned to two cache lines (processors fetch pairs), so that no two threads write the same line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counts {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

/// The answers of every session.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    cells: [Counts; CELLS],
}

/// What was counted until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Answers by bucket, each in one only.
    pub(crate) buckets: [u64; BUCKETS],
    /// The time of all together, in nanoseconds.
    pub(crate) sum_ns: u64,
}

static NEXT_CELL: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static CELL: Cell<usize> = Cell::new(NEXT_CELL.fetch_add(1, Ordering::Relaxed) % CELLS);
}

impl Latency {
    /// Counts an answer that took so long, from the receipt of the notification to the return of its response.
    pub(crate) fn count(&self, took: Duration) {
        // 2^64 ns are 584 years
        let took_ns = took.as_nanos() as u64;
        let bucket = BOUNDS_NS.partition_point(|bound| *bound < took_ns);
        // A thread that ends may have no cell any more. Both indices are in range: a rest by CELLS, and at most the number
        // of the bounds.
        let cell = &self.cells[CELL.try_with(Cell::get).unwrap_or(0)];
        cell.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        cell.sum_ns.fetch_add(took_ns, Ordering::Relaxed);
    }

    /// What was counted until now.
    pub(crate) fn counted(&self) -> Counted {
        let mut all = Counted::default();
        for cell in &self.cells {
            for (sum, bucket) in all.buckets.iter_mut().zip(&cell.buckets) {
                *sum += bucket.load(Ordering::Relaxed);
            }
            all.sum_ns = all.sum_ns.wrapping_add(cell.sum_ns.load(Ordering::Relaxed));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Instant;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let latency = Latency::default();
        for ns in [0, 1000, 1001, 2000, 1_000_000_000, 1_000_000_001] {
            latency.count(Duration::from_nanos(ns));
        }
        let counted = latency.counted();
        let found: Vec<_> = counted
            .buckets
            .iter()
            .enumerate()
            .filter(|(_, n)| **n > 0)
            .collect();
        assert_eq!(found, [(0, &2), (1, &2), (18, &1), (19, &1)]);
        assert_eq!(counted.sum_ns, 2_000_004_002);
        assert!(BOUNDS_NS.is_sorted());
    }

    #[test]
    fn threads_count_together_and_nothing_is_missing() {
        let latency = Arc::new(Latency::default());
        let threads: Vec<_> = (0..20)
            .map(|_| {
                let latency = Arc::clone(&latency);
                std::thread::spawn(move || {
                    for ns in 0..5000 {
                        latency.count(Duration::from_nanos(ns));
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("ended");
        }
        let counted = latency.counted();
        assert_eq!(counted.buckets.iter().sum::<u64>(), 100_000);
        assert_eq!(counted.sum_ns, 20 * (4999 * 5000 / 2));
    }

    #[test]
    #[ignore = "a measurement; run it with --release and --nocapture"]
    fn what_counting_costs() {
        let latency = Latency::default();
        let rounds = 5_000_000;
        let began = Instant::now();
        for ns in 0..rounds {
            latency.count(Duration::from_nanos(ns & 0xffff));
        }
        let count = began.elapsed().as_nanos() / u128::from(rounds);
        let began = Instant::now();
        for _ in 0..rounds {
            latency.count(Instant::now().elapsed());
        }
        let timed = began.elapsed().as_nanos() / u128::from(rounds);
        println!("{count} ns to count, {timed} ns with two readings of the clock");
        assert_eq!(latency.counted().buckets.iter().sum::<u64>(), 2 * rounds);
    }
}
