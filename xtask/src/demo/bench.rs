//! Stage 4: interleaved rounds of load on the fleet.

use std::process::Stdio;

use anyhow::bail;

use super::serve::Server;
use super::world::{BASE, World, supervised};

/// Rounds that count, rounds that warm up, seconds of each target in each.
const ROUNDS: [&str; 6] = ["--rounds", "10", "--warm-up", "1", "--seconds", "3"];

/// Leaves `bench.json`.
pub(super) fn bench(world: &World, fleet: &[Server<'_>]) -> anyhow::Result<()> {
    world.steps.step(
        "throughput and CPU time: interleaved rounds under each protection",
        |_| {
            let mut bench = world.lazaret(&["bench"])?;
            for server in fleet {
                bench.arg("--target").arg(format!(
                    "{},{},{}",
                    server.protection.name(),
                    server.id,
                    BASE
                ));
            }
            bench
                .args(ROUNDS)
                .arg("--out")
                .arg(world.out.join("bench.json"));
            let status = supervised(bench.stdout(Stdio::inherit()).stderr(Stdio::inherit()))?;
            if !status.success() {
                bail!("`lazaret bench` ended with {status}");
            }
            Ok(())
        },
    )
}
