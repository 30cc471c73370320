//! Times of pieces of work that are compared with each other.

use std::time::{Duration, Instant};

/// The work that is timed in every round.
pub(crate) type Work<'a> = Box<dyn FnMut() -> anyhow::Result<Duration> + 'a>;

/// Times a piece of work.
pub(crate) fn timed<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let made = work()?;
    let elapsed = begin.elapsed();
    // made outside of the measured time, and dropped after it
    drop(std::hint::black_box(made));
    Ok(elapsed)
}

/// The median time of each piece of work over interleaved rounds: whatever disturbs the machine disturbs them all alike.
pub(crate) fn medians(works: &mut [Work<'_>], rounds: usize) -> anyhow::Result<Vec<Duration>> {
    let mut times: Vec<Vec<Duration>> = works.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (work, times) in works.iter_mut().zip(&mut times) {
            times.push(work()?);
        }
    }
    Ok(times.into_iter().map(median).collect())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
