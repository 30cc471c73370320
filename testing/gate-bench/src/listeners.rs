//! Thousands of containers at one gate: memory, the time of an asked call beside them, and the time to take them in.

use crate::node::Node;
use crate::report::Report;
use crate::stats::Spread;
use crate::usage::Usage;
use anyhow::Context;
use std::time::{Duration, Instant};

const PART: &str = "listeners";

/// Memory of the gate with all of its containers, in MiB.
const MEMORY_AIM: f64 = 64.0;

/// Time of an asked call beside all of them, as a multiple of that beside none.
const LATENCY_AIM: f64 = 2.0;

/// Rounds, and asked calls in each.
const ROUNDS: usize = 31;
const CALLS: usize = 2000;

/// Containers that come in at the same time.
const TOGETHER: usize = 8;

/// Measures with this many containers.
///
/// # Errors
/// When a container does not start.
pub(crate) fn run(node: &mut Node, count: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut probe = node.admitted()?;
    let mut medians = || -> anyhow::Result<Vec<f64>> {
        (0..ROUNDS)
            .map(|_| Ok(probe.asked(1, CALLS)?.median as f64))
            .collect()
    };
    medians()?;
    let alone_ns = medians()?;
    let alone = Usage::of_all(&node.processes())?;
    report.tell(
        PART,
        "memory of lazaretd with 1",
        "MiB",
        Spread::one(alone.pss_mib()),
    );

    let began = Instant::now();
    let mut crowd = Vec::new();
    while crowd.len() + 1 < count {
        let more = TOGETHER.min(count - 1 - crowd.len());
        let mut coming = (0..more)
            .map(|_| node.handed_over())
            .collect::<anyhow::Result<Vec<_>>>()?;
        for sandbox in &mut coming {
            sandbox.wait_ready()?;
        }
        crowd.append(&mut coming);
    }
    let admitted = began.elapsed();
    node.wait_known(count)?;
    let each = admitted.as_secs_f64() * 1e3 / crowd.len().max(1) as f64;
    report.tell(
        PART,
        &format!("to make and admit one of {count}"),
        "ms",
        Spread::one(each),
    );

    let full = Usage::of_all(&node.processes())?;
    let name = format!("memory of lazaretd with {count}");
    report.judge(PART, &name, "MiB", Spread::one(full.pss_mib()), MEMORY_AIM);
    let descriptors = Spread::one(full.descriptors as f64);
    report.tell(
        PART,
        &format!("descriptors of lazaretd with {count}"),
        "",
        descriptors,
    );
    let threads = Spread::one(full.threads as f64);
    report.tell(
        PART,
        &format!("threads of lazaretd with {count}"),
        "",
        threads,
    );

    let beside_ns = medians()?;
    let us = |ns: &[f64]| Spread::of(ns.iter().map(|ns| ns / 1e3));
    report.tell(PART, "asked call with 1", "µs", us(&alone_ns));
    report.tell(
        PART,
        &format!("asked call with {count}"),
        "µs",
        us(&beside_ns),
    );
    let ratio = Spread::of_ratios(&beside_ns, &alone_ns);
    report.judge(
        PART,
        &format!("asked call with {count} to 1"),
        "×",
        ratio,
        LATENCY_AIM,
    );

    // every one of them is answered, not only the one that is timed
    let began = Instant::now();
    for sandbox in &mut crowd {
        sandbox.asked(1, 1)?;
    }
    let each = began.elapsed().as_secs_f64() * 1e6 / crowd.len().max(1) as f64;
    report.tell(
        PART,
        "one asked call of each in turn, pipe included",
        "µs",
        Spread::one(each),
    );

    let taken_over = taken_over(node, count, report, &mut crowd);

    let ids = crowd.iter().map(|sandbox| sandbox.id.clone()).collect();
    let began = Instant::now();
    drop(crowd);
    node.wait_gone(&ids)?;
    let ended = Spread::one(began.elapsed().as_secs_f64() * 1e3);
    report.tell(
        PART,
        &format!("until the ends of {} are seen", count - 1),
        "ms",
        ended,
    );
    let after = Usage::of_all(&node.processes())?;
    report.tell(
        PART,
        "memory of lazaretd after their end",
        "MiB",
        Spread::one(after.pss_mib()),
    );
    taken_over
}

/// Kills the daemon, starts another, and waits until it answers all of them.
fn taken_over(
    node: &mut Node,
    count: usize,
    report: &mut Report,
    crowd: &mut [crate::sandbox::Sandbox],
) -> anyhow::Result<()> {
    node.kill();
    let began = Instant::now();
    node.start()?;
    report.tell(
        PART,
        &format!("restarted beside {count}, listening"),
        "ms",
        ms(began.elapsed()),
    );
    node.wait_known(count)
        .context("the next lazaretd does not take over its containers")?;
    report.tell(
        PART,
        &format!("restarted beside {count}, all taken over"),
        "ms",
        ms(began.elapsed()),
    );
    for sandbox in crowd {
        sandbox.asked(1, 1)?;
    }
    Ok(())
}

fn ms(time: Duration) -> Spread {
    Spread::one(time.as_secs_f64() * 1e3)
}
