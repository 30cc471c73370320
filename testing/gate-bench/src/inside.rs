//! The program inside a container: makes the calls that it is told to on its standard input, and says how they went.
//!
//! It is the content of a container, not its judge: what it reports is compared with what the gate counted.

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use std::io::{BufRead as _, Write as _};
use std::time::Instant;

/// Said when it is up, which is after its `execve` was admitted.
pub(crate) const READY: &str = "ready";

/// Latencies of calls, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Latencies {
    /// How many calls.
    pub(crate) calls: u64,
    /// The quickest.
    pub(crate) least: u64,
    /// Half of them took at most this.
    pub(crate) median: u64,
    /// 99 of 100 took at most this.
    pub(crate) p99: u64,
    /// From the first to the last, by the clock.
    pub(crate) elapsed: u64,
}

/// How calls went that the policy does not name; every one of them as expected.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Flood {
    /// How many.
    pub(crate) calls: u64,
    /// From the first to the last, in nanoseconds.
    pub(crate) elapsed: u64,
}

/// Obeys until its standard input ends.
///
/// # Errors
/// When it is told something else, or a call had another outcome than the policy says.
pub(crate) fn run() -> anyhow::Result<()> {
    say(READY)?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["asked", threads, calls] => {
                let latencies = asked(threads.parse()?, calls.parse()?)?;
                say(&serde_json::to_string(&latencies)?)?;
            }
            ["denied", threads, calls] => {
                let flood = unwanted(threads.parse()?, calls.parse()?, Expected::Denied)?;
                say(&serde_json::to_string(&flood)?)?;
            }
            ["undenied", threads, calls] => {
                let flood = unwanted(threads.parse()?, calls.parse()?, Expected::GoesOn)?;
                say(&serde_json::to_string(&flood)?)?;
            }
            _ => bail!("told `{line}`"),
        }
    }
    Ok(())
}

/// One line for whoever holds the other end of the pipe.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush().context("cannot say it")
}

/// Times calls that the policy asks about and allows: `getppid`, which does next to nothing itself.
fn asked(threads: usize, calls: usize) -> anyhow::Result<Latencies> {
    let began = Instant::now();
    let mut times = on_threads(threads, || {
        let mut times = Vec::with_capacity(calls);
        for _ in 0..calls {
            let begin = Instant::now();
            std::hint::black_box(rustix::process::getppid());
            times.push(nanos(begin));
        }
        Ok(times)
    })?
    .concat();
    let elapsed = nanos(began);
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied();
    Ok(Latencies {
        calls: times.len() as u64,
        least: at(0).context("no call was made")?,
        median: at(50).unwrap_or_default(),
        p99: at(99).unwrap_or_default(),
        elapsed,
    })
}

/// What becomes of a call that the policy does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// The gate denies it.
    Denied,
    /// A bare supervisor knows no policy.
    GoesOn,
}

/// Makes calls that the policy does not name: `getsid`.
fn unwanted(threads: usize, calls: u64, expected: Expected) -> anyhow::Result<Flood> {
    let began = Instant::now();
    on_threads(threads, || {
        for _ in 0..calls {
            let said = rustix::process::getsid(None);
            let fits = match expected {
                Expected::Denied => said == Err(rustix::io::Errno::PERM),
                Expected::GoesOn => said.is_ok(),
            };
            ensure!(fits, "getsid returned {said:?}");
        }
        Ok(())
    })?;
    Ok(Flood {
        calls: threads as u64 * calls,
        elapsed: nanos(began),
    })
}

/// The same work on so many threads; one is this one.
fn on_threads<T: Send>(
    threads: usize,
    work: impl Fn() -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    if threads == 1 {
        return Ok(vec![work()?]);
    }
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        let ended = running.into_iter().map(|thread| thread.join());
        ended
            .map(|said| said.unwrap_or_else(|_| bail!("a thread panicked")))
            .collect()
    })
}

fn nanos(since: Instant) -> u64 {
    // 2^64 ns are 584 years
    since.elapsed().as_nanos() as u64
}
