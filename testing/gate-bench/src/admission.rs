//! From the handover of a listener to the container's program: the gate beside a bare supervisor, in alternating rounds.
//!
//! What a gate adds to a start, without what an engine and a runtime do, which varies by more than that.

use crate::bare::Bare;
use crate::node::Node;
use crate::report::Report;
use crate::stats::Spread;
use std::path::Path;
use std::time::{Duration, Instant};

const PART: &str = "admission";

/// Rounds with what earlier starts have left in memory.
const ROUNDS: usize = 101;

/// Rounds that each begin with a gate that remembers nothing.
const COLD: usize = 11;

/// Measures it.
///
/// # Errors
/// When a container does not start.
pub(crate) fn run(lazaretd: &Path, report: &mut Report) -> anyhow::Result<()> {
    let mut node = Node::new(lazaretd)?;
    let cold = (0..COLD)
        .map(|_| {
            node.start()?;
            let took = gated(&mut node);
            node.kill();
            took
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    node.start()?;
    let (mut bare, mut warm) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        // neither is always the first
        let (of_bare, of_gate) = if round % 2 == 0 {
            let of_bare = unsupervised(&mut node)?;
            (of_bare, gated(&mut node)?)
        } else {
            let of_gate = gated(&mut node)?;
            (unsupervised(&mut node)?, of_gate)
        };
        if round > 0 {
            bare.push(of_bare);
            warm.push(of_gate);
        }
    }
    for (name, times) in [
        ("bare supervisor", &bare),
        ("lazaretd, its first", &cold),
        ("lazaretd, those after", &warm),
    ] {
        let name = format!("handover to program, {name}");
        report.tell(PART, &name, "ms", Spread::of(times.iter().copied().map(ms)));
    }
    let more = warm
        .iter()
        .zip(&bare)
        .map(|(warm, bare)| ms(*warm) - ms(*bare));
    let name = "handover to program, more with lazaretd";
    report.tell(PART, name, "ms", Spread::of(more));
    Ok(())
}

fn gated(node: &mut Node) -> anyhow::Result<Duration> {
    let (mut sandbox, listener) = node.unsupervised()?;
    let began = Instant::now();
    node.hand_over(&sandbox, listener, "creating")?;
    sandbox.go()?;
    sandbox.wait_ready()?;
    let took = began.elapsed();
    node.forget(sandbox)?;
    Ok(took)
}

fn unsupervised(node: &mut Node) -> anyhow::Result<Duration> {
    let (sandbox, listener) = node.unsupervised()?;
    let began = Instant::now();
    let bare = Bare::supervise(sandbox, listener)?;
    let took = began.elapsed();
    drop(bare);
    Ok(took)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
