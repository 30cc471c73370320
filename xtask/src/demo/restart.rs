//! Stage 5: the daemon killed and started again while the server is under requests.
//!
//! The container's listener dies with the daemon: what the kernel allows goes on, what it would ask fails with `ENOSYS`,
//! for good. So that the second half is seen and not assumed, a call of the ask band is made by `docker exec` meanwhile.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::facts::{DaemonRestart, Facts};
use super::gate::Gate;
use super::serve::{Protection, Server};
use super::world::{BASE, World};

/// Seconds of requests; the daemon is killed after a third of them, and away for another.
const SECONDS: u64 = 12;

/// Kills the gate and starts it again under load; gives the new one.
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
    world
        .steps
        .step("lazaretd killed and started again under requests", |step| {
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
            std::thread::sleep(Duration::from_secs(SECONDS / 3));
            gate.kill()?;
            let down = Instant::now();
            step.say("lazaretd is gone, the requests go on");
            // a process that enters now needs the gate for its own `execve`: it must not get in
            let exec = world
                .docker
                .docker(["exec", &server.id, "/jre/bin/java", "--version"])
                .output();
            let exec = exec.context("cannot run docker")?;
            if exec.status.success() {
                bail!("a process entered the container while there was no gate");
            }
            std::thread::sleep(Duration::from_secs(SECONDS / 3));
            let gate = Gate::start(world)?;
            let down_seconds = down.elapsed().as_secs_f64();
            if !load.wait()?.success() {
                bail!("the load ended with an error");
            }
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
                // nobody was there to count them; the one that was provoked is in the log of this step
                asked_refused: None,
                down_seconds,
            });
            step.line(format_args!(
                "{answered} of {} requests answered; `docker exec` meanwhile: {}",
                answered + failed,
                String::from_utf8_lossy(&[exec.stdout, exec.stderr].concat()).trim()
            ));
            Ok(gate)
        })
}
