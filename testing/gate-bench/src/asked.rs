//! What an asked call costs: the gate beside the least that can answer, with the same filter, in alternating rounds.

use crate::bare::Bare;
use crate::node::Node;
use crate::report::Report;
use crate::stats::Spread;

const PART: &str = "asked";

/// The most that a call through the gate may cost, as a multiple of one through a bare supervisor.
const AIM: f64 = 1.3;

/// Threads of the container under load.
const THREADS: usize = 8;

/// Measures it, with so many asked calls in each round.
///
/// # Errors
/// When a container does not start.
pub(crate) fn run(
    node: &mut Node,
    rounds: usize,
    calls: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (sandbox, listener) = node.unsupervised()?;
    let mut bare = Bare::supervise(sandbox, listener)?;
    let mut gated = node.admitted()?;
    for threads in [1, THREADS] {
        let calls = calls / threads;
        let mut of_bare = Vec::new();
        let mut of_gate = Vec::new();
        for round in 0..rounds {
            // neither is always the first
            if round % 2 == 0 {
                of_bare.push(bare.sandbox().asked(threads, calls)?);
                of_gate.push(gated.asked(threads, calls)?);
            } else {
                of_gate.push(gated.asked(threads, calls)?);
                of_bare.push(bare.sandbox().asked(threads, calls)?);
            }
        }
        let s = if threads == 1 { "" } else { "s" };
        let medians = |all: &[crate::inside::Latencies]| -> Vec<f64> {
            all.iter().map(|one| one.median as f64).collect()
        };
        let [bare_ns, gate_ns] = [medians(&of_bare), medians(&of_gate)];
        for (who, ns) in [("bare supervisor", &bare_ns), ("lazaretd", &gate_ns)] {
            let us = Spread::of(ns.iter().map(|ns| ns / 1e3));
            report.tell(
                PART,
                &format!("{who}, {threads} thread{s}, median call"),
                "µs",
                us,
            );
        }
        let per_second = |all: &[crate::inside::Latencies]| -> Spread {
            Spread::of(
                all.iter()
                    .map(|one| one.calls as f64 * 1e6 / one.elapsed as f64),
            )
        };
        report.tell(
            PART,
            &format!("bare supervisor, {threads} thread{s}, calls"),
            "1/ms",
            per_second(&of_bare),
        );
        report.tell(
            PART,
            &format!("lazaretd, {threads} thread{s}, calls"),
            "1/ms",
            per_second(&of_gate),
        );
        let ratio = Spread::of_ratios(&gate_ns, &bare_ns);
        let name = format!("lazaretd to bare, {threads} thread{s}");
        report.judge(PART, &name, "×", ratio, AIM);
    }
    Ok(())
}
