//! The gate of the demonstration's node: a `lazaretd` of its own, started, killed, and started again.

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::world::{World, end_with_us};
use crate::cleanup::Undo;
use crate::command::{command, output};
use crate::process::ProcessId;

const START_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// A running `lazaretd`; dropping it ends it.
#[derive(Debug)]
pub(super) struct Gate {
    child: Child,
    /// Ends it when xtask is ended by a signal, and does nothing once it is gone.
    _undo: Undo,
}

impl Gate {
    /// Starts it and waits until it answers.
    pub(super) fn start(world: &World) -> anyhow::Result<Gate> {
        let state = world.node.path().join("state");
        // state of running containers is nobody else's business: the daemon refuses a folder that others can look into
        fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&state)?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(world.out.join("lazaretd.log"))?;
        let mut daemon = command(world.programs.path("lazaretd")?, ["--listen"]);
        daemon
            .arg(world.listener())
            .arg("--control")
            .arg(world.control())
            .arg("--store")
            .arg(world.store());
        daemon
            .arg("--events")
            .arg(world.events())
            .arg("--state-dir")
            .arg(&state);
        daemon.arg("--docker-root").arg(world.docker.data_root());
        daemon.stdout(Stdio::null()).stderr(log);
        let child = daemon.spawn().context("cannot run lazaretd")?;
        let _undo = end_with_us(&child);
        let mut gate = Gate { child, _undo };
        let began = Instant::now();
        while UnixStream::connect(world.control()).is_err() {
            if let Some(status) = gate.child.try_wait()? {
                let log = fs::read_to_string(world.out.join("lazaretd.log")).unwrap_or_default();
                bail!(
                    "lazaretd ended with {status}: {}",
                    log.lines().last().unwrap_or_default()
                );
            }
            if began.elapsed() > START_LIMIT {
                bail!("lazaretd does not answer on {}", world.control().display());
            }
            std::thread::sleep(POLL);
        }
        Ok(gate)
    }

    /// SIGTERM, as an upgrade ends it.
    pub(super) fn terminate(mut self) -> anyhow::Result<()> {
        let process = ProcessId::of(self.child.id()).and_then(|id| id.open());
        process.context("lazaretd is gone")?.terminate();
        let status = self.child.wait().context("cannot wait for lazaretd")?;
        ensure!(status.success(), "lazaretd ended with {status}");
        Ok(())
    }

    /// SIGKILL, as a crash would end it.
    pub(super) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().context("cannot kill lazaretd")?;
        self.child.wait().context("cannot wait for lazaretd")?;
        Ok(())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // already ended is as good: both fail only then
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("cannot end lazaretd: {error}");
        }
    }
}

/// The phase in which the gate holds a container; none while it does not know it.
pub(super) fn phase(world: &World, id: &str) -> anyhow::Result<Option<String>> {
    let mut status = world.lazaret(&["status", "--format", "json", "--control"])?;
    let text = output(status.arg(world.control()))?;
    let status: Value =
        serde_json::from_str(text.trim()).context("`lazaret status` printed no JSON")?;
    let containers = status["containers"]
        .as_array()
        .context("no containers in the status")?;
    let container = containers.iter().find(|container| container["id"] == id);
    Ok(container
        .and_then(|container| container["state"]["phase"].as_str())
        .map(str::to_owned))
}

/// Waits until the gate holds a container to the serving rules.
pub(super) fn wait_serving(world: &World, id: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let phase = phase(world, id)?;
        if phase.as_deref() == Some("serving") {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(60) {
            bail!("container {id} is not serving after 60 s but {phase:?}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
