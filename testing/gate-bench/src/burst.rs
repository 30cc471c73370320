//! One container in a flood of denied calls: are the totals exact, and do the others notice?
//!
//! On a machine with few cores the flood itself takes the others' time, whoever answers it. So the same flood is also sent to a
//! bare supervisor beside the gate, and what the others lose by that is the measure.

use crate::bare::Bare;
use crate::inside::Flood;
use crate::node::Node;
use crate::report::Report;
use crate::sandbox::Sandbox;
use crate::stats::Spread;
use anyhow::{Context, ensure};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PART: &str = "burst";

/// Threads of the container that floods.
const THREADS: usize = 4;

/// Asked calls of the other container in one round: some milliseconds.
const CALLS: usize = 500;

/// Rounds of the other container while nothing else happens.
const QUIET: usize = 31;

/// How long the event log may take to be complete after the flood.
const LOGGED: Duration = Duration::from_secs(30);

/// Floods with this many denied calls.
///
/// # Errors
/// When a call had another outcome, or a count is not exact.
pub(crate) fn run(node: &mut Node, calls: u64, report: &mut Report) -> anyhow::Result<()> {
    let mut other = node.admitted()?;
    let mut flood = node.admitted()?;
    let (sandbox, listener) = node.unsupervised()?;
    let mut bare = Bare::supervise(sandbox, listener)?;

    let quiet = (0..QUIET)
        .map(|_| Ok(other.asked(1, CALLS)?.median as f64 / 1e3))
        .collect::<anyhow::Result<Vec<f64>>>()?;
    let quiet = Spread::of(quiet);
    report.tell(PART, "another container's asked call, quiet", "µs", quiet);

    let each = calls / THREADS as u64;
    let elsewhere = beside(&mut other, || bare.sandbox().undenied(THREADS, each))?;
    let here = beside(&mut other, || flood.denied(THREADS, each))?;
    for (name, seen) in [("a bare supervisor", &elsewhere), ("lazaretd", &here)] {
        let median = format!("another container's asked call, flood at {name}");
        report.tell(PART, &median, "µs", seen.medians);
        let slow = format!("the slowest of 100 of its calls, flood at {name}");
        report.tell(PART, &slow, "µs", seen.slow);
    }
    for (name, seen) in [("bare supervisor", &elsewhere), ("lazaretd", &here)] {
        let time = Spread::one(seen.flood.elapsed as f64 / 1e6);
        report.tell(
            PART,
            &format!("{} such calls, {name}", seen.flood.calls),
            "ms",
            time,
        );
    }
    let ratio = here.medians.median / elsewhere.medians.median;
    report.tell(
        PART,
        "its call, flood at lazaretd to flood elsewhere",
        "×",
        Spread::one(ratio),
    );

    let made = here.flood.calls;
    let (containers, lost) = node.status()?;
    let status = containers.iter().find(|(id, _)| *id == flood.id);
    let (_, status) = status.context("the container is not known")?;
    let counted: u64 = status.counts.values().map(|counts| counts.denied).sum();
    let off = counted.abs_diff(made) as f64;
    report.judge(
        PART,
        "denied calls that status does not count",
        "calls",
        Spread::one(off),
        0.0,
    );
    let told = told(node, &flood.id, made)?;
    let off = told.denials.abs_diff(made) as f64;
    report.judge(
        PART,
        "denied calls that the event log does not hold",
        "calls",
        Spread::one(off),
        0.0,
    );
    report.tell(
        PART,
        "lines of the event log for them",
        "lines",
        Spread::one(told.lines as f64),
    );
    report.tell(PART, "events lost", "lines", Spread::one(lost as f64));
    ensure!(
        counted == made,
        "{made} calls were denied, status counts {counted}"
    );
    Ok(())
}

/// What the other container saw during a flood.
struct Seen {
    flood: Flood,
    medians: Spread,
    slow: Spread,
}

/// Times the other container's calls while a flood runs.
fn beside(
    other: &mut Sandbox,
    flood: impl FnOnce() -> anyhow::Result<Flood> + Send,
) -> anyhow::Result<Seen> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            let said = flood();
            over.store(true, Ordering::Release);
            said
        });
        let (mut medians, mut slow) = (Vec::new(), Vec::new());
        while !over.load(Ordering::Acquire) {
            let one = other.asked(1, CALLS)?;
            medians.push(one.median as f64 / 1e3);
            slow.push(one.p99 as f64 / 1e3);
        }
        let said = flooding.join();
        let flood = said.unwrap_or_else(|_| anyhow::bail!("a thread panicked"))?;
        Ok(Seen {
            flood,
            medians: Spread::of(medians),
            slow: Spread::of(slow),
        })
    })
}

/// Denials in the event log.
struct Told {
    denials: u64,
    lines: u64,
}

/// Waits until the log tells of so many denials, or for [`LOGGED`].
fn told(node: &Node, id: &str, expected: u64) -> anyhow::Result<Told> {
    let began = Instant::now();
    loop {
        let events = node.events(id)?;
        let denied = events.iter().filter(|event| event["type"] == "denied");
        // one line may stand for several
        let times = denied.map(|event| event["times"].as_u64().unwrap_or(1));
        let told = times.fold(
            Told {
                denials: 0,
                lines: 0,
            },
            |told, times| Told {
                denials: told.denials + times,
                lines: told.lines + 1,
            },
        );
        if told.denials >= expected || began.elapsed() > LOGGED {
            return Ok(told);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
