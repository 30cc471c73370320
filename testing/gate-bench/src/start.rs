//! `docker run` to the first answer of the server, with and without the gate, in alternating rounds.

use crate::engine::{Engine, Held};
use crate::report::Report;
use crate::stats::Spread;
use anyhow::ensure;
use std::path::Path;

const PART: &str = "start";

/// The most that the gate may add, in milliseconds.
const AIM: f64 = 15.0;

/// Rounds; the first of each kind is not counted.
const ROUNDS: usize = 61;

/// Measures it.
///
/// # Errors
/// When a container does not start or the gate does not hold it.
pub(crate) fn run(engine: &Engine, lazaretd: &Path, report: &mut Report) -> anyhow::Result<()> {
    let mut node = engine.node(lazaretd)?;
    node.start()?;
    let kinds = [Held::ByDefault, Held::ByGate];
    let mut times = kinds.map(|_| Vec::new());
    for round in 0..=ROUNDS {
        // neither is always the first
        for turn in 0..kinds.len() {
            let which = (round + turn) % kinds.len();
            let (container, took) = engine.run(kinds[which])?;
            if kinds[which] == Held::ByGate {
                let known = node.status()?.0;
                ensure!(
                    known.iter().any(|(id, _)| *id == container.id),
                    "lazaretd does not hold container {}",
                    container.id
                );
            }
            drop(container);
            if round > 0 {
                times[which].push(took.as_secs_f64() * 1e3);
            }
        }
    }
    let [without, with] = times;
    report.tell(
        PART,
        "docker run to first answer, default profile",
        "ms",
        Spread::of(without.iter().copied()),
    );
    report.tell(
        PART,
        "docker run to first answer, lazaret",
        "ms",
        Spread::of(with.iter().copied()),
    );
    let medians = [&with, &without].map(|times| Spread::of(times.iter().copied()).median);
    let apart = medians[0] - medians[1];
    report.tell(
        PART,
        "docker run to first answer, between the medians",
        "ms",
        Spread::one(apart),
    );
    // the aim: what else the machine does weighs on both of a round
    let more = Spread::of(
        with.iter()
            .zip(&without)
            .map(|(with, without)| with - without),
    );
    report.judge(
        PART,
        "docker run to first answer, more with lazaret",
        "ms",
        more,
        AIM,
    );
    Ok(())
}
