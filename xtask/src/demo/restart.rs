//! Stage 5: the daemon upgraded fifty times while the server is under requests, then away for good.
//!
//! Upgrades alternate between `SIGTERM` and `SIGKILL`. The container's listener is with the holder meanwhile: what the kernel allows
//! goes on, what it asks waits for the next daemon. While there is none, nobody is let in: `docker exec` fails.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::facts::{DaemonRestart, Facts};
use super::gate::{Gate, phase};
use super::serve::{Protection, Server};
use super::world::{BASE, World};

/// Times the daemon is ended and started again.
const RESTARTS: u32 = 50;

/// From one restart to the next, so that requests meet a daemon that runs as well.
const BETWEEN: Duration = Duration::from_millis(300);

/// Seconds of requests; the restarts have to be over by then.
const SECONDS: u64 = 60;

/// Restarts the gate under load; gives the last one.
pub(super) fn restart(
    world: &World,
    gate: Gate,
    fleet: &[Server<'_>],
    facts: &mut Facts,
) -> anyhow::Result<Gate> {
    let server = fleet
        .iter()
        .find(|server| server.protection == Protection::Lazaret)
        .context("no confined server")?;
    let name = format!("lazaretd upgraded {RESTARTS} times under requests");
    let gate = world.steps.step(&name, |step| {
        let out = world.node.path().join("restart.json");
        let mut load = world.lazaret(&["bench", "--rounds", "1", "--warm-up", "0"])?;
        load.arg("--seconds")
            .arg(SECONDS.to_string())
            .arg("--out")
            .arg(&out);
        load.arg("--target")
            .arg(format!("lazaret,{},{BASE}", server.id));
        let mut load = load
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run lazaret")?;
        std::thread::sleep(BETWEEN);
        let restarted = upgrades(world, gate, &mut load);
        let succeeded = load.wait()?.success();
        let (gate, down) = restarted?;
        ensure!(succeeded, "the load ended with an error");
        let result: Value = serde_json::from_slice(&std::fs::read(&out)?)?;
        let sample = &result["rounds"][0]["samples"][0];
        let count = |name: &str| {
            sample[name]
                .as_u64()
                .with_context(|| format!("no `{name}` in the load's result"))
        };
        let (answered, failed) = (count("requests")?, count("failed")?);
        facts.daemon_restart = Some(DaemonRestart {
            requests: answered + failed,
            failed,
            // asked calls wait for the next daemon: none is refused
            asked_refused: None,
            down_seconds: down.as_secs_f64(),
        });
        let serving = phase(world, &server.id)?;
        ensure!(
            serving.as_deref() == Some("serving"),
            "the server is in phase {serving:?} after the restarts"
        );
        step.line(format_args!(
            "{answered} of {} requests answered over {RESTARTS} restarts; {:.1} s without a daemon in all; half within {} ms, 99 of 100 within {} ms",
            answered + failed,
            down.as_secs_f64(),
            sample["p50_ms"],
            sample["p99_ms"]
        ));
        Ok(gate)
    })?;
    nobody_enters(world, gate, server)
}

/// Ends the gate and starts it again, over and over; gives the last one and how long there was none.
fn upgrades(world: &World, gate: Gate, load: &mut Child) -> anyhow::Result<(Gate, Duration)> {
    let mut gate = gate;
    let mut down = Duration::ZERO;
    for restart in 0..RESTARTS {
        if restart % 2 == 0 {
            gate.terminate()?;
        } else {
            gate.kill()?;
        }
        let begin = Instant::now();
        gate = Gate::start(world)?;
        down += begin.elapsed();
        std::thread::sleep(BETWEEN);
    }
    ensure!(
        load.try_wait()?.is_none(),
        "the load was over before the restarts were"
    );
    Ok((gate, down))
}

/// Without a gate no process enters the container: the gate would have to let it go on.
fn nobody_enters(world: &World, gate: Gate, server: &Server<'_>) -> anyhow::Result<Gate> {
    world.steps.step("`docker exec` without a gate", |step| {
        gate.kill()?;
        let exec = world
            .docker
            .docker(["exec", &server.id, "/jre/bin/java", "--version"])
            .output();
        let exec = exec.context("cannot run docker")?;
        if exec.status.success() {
            bail!("a process entered the container while there was no gate");
        }
        step.line(String::from_utf8_lossy(&[exec.stdout, exec.stderr].concat()).trim());
        Gate::start(world)
    })
}
