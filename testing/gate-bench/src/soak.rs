//! Container lives one after the other, a few at a time, against one gate: does anything stay behind?
//!
//! A life is a start, calls or a request, an `exec`, the stop. After the first [`WARM`] lives is written down what the
//! gate's processes hold, and nothing may be more than a tolerance above that at any later look. Memory is compared with
//! the most of the first quarter of all lives: the allocator keeps one arena for each thread that ever checked papers. The
//! event log is not looked at: it is meant to grow, and is turned over.

use crate::engine::{Engine, Held};
use crate::node::Node;
use crate::usage::{Usage, files_below};
use anyhow::ensure;
use lazaret_core::control::{Request, V1};
use serde::Serialize;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Lives after which what the gate holds is written down.
const WARM: u32 = 20;

/// Cheap containers that live at the same time.
const TOGETHER: u32 = 4;

/// Lives between two looks.
const BETWEEN: u32 = 100;

/// How long what is given back late may take: tokio's idle threads end after 10 s.
const SETTLING: Duration = Duration::from_secs(20);

/// What may be there more than after the first lives.
const TOLERANCE: Footprint = Footprint {
    descriptors: 0,
    // threads for blocking work: how many are idle is chance
    threads: 4,
    children: 0,
    files: 0,
    // a leak of 6 KiB a life shows in 1,000 lives
    memory_kib: 4096,
};

/// What the gate's processes hold together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Footprint {
    descriptors: u64,
    threads: u64,
    /// Zombies included.
    children: u64,
    /// Below the state directory.
    files: u64,
    memory_kib: u64,
}

impl Footprint {
    fn of(node: &Node) -> anyhow::Result<Footprint> {
        let processes = node.processes();
        ensure!(!processes.is_empty(), "lazaretd has ended");
        let usage = Usage::of_all(&processes)?;
        Ok(Footprint {
            descriptors: usage.descriptors,
            threads: usage.threads,
            children: usage.children,
            files: files_below(&node.path("run")),
            memory_kib: usage.pss_kib,
        })
    }

    /// What is above `base` by more than [`TOLERANCE`].
    fn grown(&self, base: &Footprint) -> Vec<String> {
        let pairs = [
            (
                "descriptors",
                self.descriptors,
                base.descriptors,
                TOLERANCE.descriptors,
            ),
            ("threads", self.threads, base.threads, TOLERANCE.threads),
            (
                "child processes",
                self.children,
                base.children,
                TOLERANCE.children,
            ),
            ("files of state", self.files, base.files, TOLERANCE.files),
            (
                "KiB of memory",
                self.memory_kib,
                base.memory_kib,
                TOLERANCE.memory_kib,
            ),
        ];
        let over = pairs
            .iter()
            .filter(|(_, now, base, more)| *now > base + more);
        over.map(|(what, now, base, more)| {
            format!("{what}: {now}, {base} after the first lives, tolerance {more}")
        })
        .collect()
    }
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Lives.
    pub(crate) lives: u32,
    /// The gate is killed and started again in the middle of every so many lives; 0 for never.
    pub(crate) restart_every: u32,
}

/// Lives of cheap containers.
///
/// # Errors
/// When a life goes wrong, or something grew.
pub(crate) fn cheap(node: &mut Node, plan: Plan, json: Option<&Path>) -> anyhow::Result<()> {
    let together = TOGETHER;
    soak(node, plan, together, json, |node, restart| {
        cheap_lives(node, together, restart)
    })
}

/// Lives of berth in an engine.
///
/// # Errors
/// As [`cheap`].
pub(crate) fn in_engine(
    engine: &Engine,
    lazaretd: &Path,
    plan: Plan,
    json: Option<&Path>,
) -> anyhow::Result<()> {
    let mut node = engine.node(lazaretd)?;
    node.start()?;
    soak(&mut node, plan, 1, json, |node, restart| {
        engine_life(engine, node, restart)
    })
}

/// Whether the gate is killed in the middle of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restart {
    No,
    Yes,
}

fn soak(
    node: &mut Node,
    plan: Plan,
    together: u32,
    json: Option<&Path>,
    mut live: impl FnMut(&mut Node, Restart) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut file = json.map(File::create).transpose()?;
    let mut base: Option<Footprint> = None;
    let (mut lived, mut restarts) = (0, 0);
    let (mut look_at, mut restart_at) = (WARM, plan.restart_every);
    println!(
        "  {:>6} {:>9} {:>12} {:>8} {:>9} {:>6} {:>11}",
        "lives", "restarts", "descriptors", "threads", "children", "files", "memory KiB"
    );
    while lived < plan.lives {
        let restart = if plan.restart_every > 0 && lived >= restart_at {
            restart_at += plan.restart_every;
            restarts += 1;
            Restart::Yes
        } else {
            Restart::No
        };
        live(node, restart)?;
        lived += together;
        if lived < look_at && lived < plan.lives {
            continue;
        }
        let seen = settled(node, base.as_ref())?;
        println!(
            "  {lived:>6} {restarts:>9} {:>12} {:>8} {:>9} {:>6} {:>11}",
            seen.descriptors, seen.threads, seen.children, seen.files, seen.memory_kib
        );
        if let Some(file) = &mut file {
            let line = serde_json::json!({"lives": lived, "restarts": restarts, "seen": seen});
            writeln!(file, "{line}")?;
        }
        let base = base.get_or_insert(seen);
        if lived <= plan.lives / 4 {
            base.memory_kib = base.memory_kib.max(seen.memory_kib);
        }
        let grown = seen.grown(base);
        ensure!(
            grown.is_empty(),
            "after {lived} lives: {}",
            grown.join("; ")
        );
        look_at = (lived / BETWEEN + 1) * BETWEEN;
    }
    println!(
        "  {lived} lives with {restarts} restarts in {:.0} s: nothing grew",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// What the gate holds when it holds no container; waits for what is given back late.
fn settled(node: &Node, base: Option<&Footprint>) -> anyhow::Result<Footprint> {
    node.wait_known(0)?;
    let began = Instant::now();
    let mut least = Footprint::of(node)?;
    loop {
        let enough = match base {
            // the least that is seen in that time is what there is to begin with
            None => began.elapsed() > SETTLING,
            Some(base) => least.grown(base).is_empty() || began.elapsed() > SETTLING,
        };
        if enough {
            return Ok(least);
        }
        std::thread::sleep(Duration::from_millis(250));
        let now = Footprint::of(node)?;
        least = Footprint {
            descriptors: least.descriptors.min(now.descriptors),
            threads: least.threads.min(now.threads),
            children: least.children.min(now.children),
            files: least.files.min(now.files),
            memory_kib: least.memory_kib.min(now.memory_kib),
        };
    }
}

fn cheap_lives(node: &mut Node, together: u32, restart: Restart) -> anyhow::Result<()> {
    let mut living = (0..together)
        .map(|_| node.handed_over())
        .collect::<anyhow::Result<Vec<_>>>()?;
    for one in &mut living {
        one.wait_ready()?;
        one.asked(1, 10)?;
    }
    if restart == Restart::Yes {
        node.kill();
        node.start()?;
    }
    for one in &mut living {
        one.asked(1, 10)?;
        one.denied(1, 10)?;
        let mut exec = node.exec(one)?;
        exec.asked(1, 2)?;
        drop(exec);
        let container = one.id.clone();
        node.ask(&Request::Stopping { v: V1, container })?;
    }
    for one in living {
        node.forget(one)?;
    }
    Ok(())
}

fn engine_life(engine: &Engine, node: &mut Node, restart: Restart) -> anyhow::Result<()> {
    let (container, _) = engine.run(Held::ByGate)?;
    engine.get("/call/getppid")?;
    if restart == Restart::Yes {
        node.kill();
        node.start()?;
    }
    // asked about and denied
    let said = engine.get("/call/getpriority")?;
    ensure!(
        said.contains("\"errno\": 1"),
        "getpriority was not denied: {said}"
    );
    container.probe()?;
    container.stop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grew_past_its_tolerance_is_named() {
        let base = Footprint {
            descriptors: 20,
            threads: 6,
            children: 1,
            files: 3,
            memory_kib: 8000,
        };
        assert_eq!(base.grown(&base), [""; 0]);
        let within = Footprint {
            threads: 10,
            memory_kib: 12_096,
            ..base
        };
        assert_eq!(within.grown(&base), [""; 0]);
        let cases = [
            Footprint {
                descriptors: 21,
                ..base
            },
            Footprint {
                threads: 11,
                ..base
            },
            Footprint {
                children: 2,
                ..base
            },
            Footprint { files: 4, ..base },
            Footprint {
                memory_kib: 12_097,
                ..base
            },
        ];
        for grown in cases {
            assert_eq!(grown.grown(&base).len(), 1, "{grown:?}");
        }
    }
}
