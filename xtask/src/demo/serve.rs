//! Stage 3: the server under each protection, with the time of its start, and the exercise under each.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::facts::Facts;
use super::gate::wait_serving;
use super::world::{BASE, HEALTH, PORT, RUNTIME, World};
use crate::command::{command, output, run};
use crate::network::{wait_ready, within};

const READY_LIMIT: Duration = Duration::from_secs(300);
/// Starts of each protection beside those of the fleet, for a median of three.
const MORE_STARTS: u32 = 2;

/// Under what a container runs; the names are those of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protection {
    Unconfined,
    Default,
    DefaultAgain,
    Lazaret,
}

impl Protection {
    pub(super) const ALL: [Protection; 4] = [
        Protection::Unconfined,
        Protection::Default,
        Protection::DefaultAgain,
        Protection::Lazaret,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Protection::Unconfined => "unconfined",
            Protection::Default => "default",
            Protection::DefaultAgain => "default_again",
            Protection::Lazaret => "lazaret",
        }
    }

    /// What `docker run` is told.
    pub(super) const fn args(self) -> &'static [&'static str] {
        match self {
            Protection::Unconfined => &["--security-opt=seccomp=unconfined"],
            Protection::Default | Protection::DefaultAgain => &[],
            Protection::Lazaret => &["--runtime", RUNTIME],
        }
    }
}

/// A running server; dropping it removes it.
pub(super) struct Server<'w> {
    world: &'w World,
    pub(super) id: String,
    pub(super) protection: Protection,
    /// Seconds from `docker run` to the first good answer.
    seconds: f64,
}

impl Server<'_> {
    fn exercise(&self, number: u32) -> anyhow::Result<()> {
        let (world, name) = (self.world, self.protection.name());
        world.steps.step(&format!("exercise under `{name}`"), |_| {
            let network = world.network(&self.id)?;
            let mut command = command("nsenter", [format!("--net={}", network.display())]);
            command.arg(world.programs.path("lazaret")?);
            command.args([
                "exercise",
                "fhir",
                BASE,
                "--run",
                &number.to_string(),
                "--out",
            ]);
            // refusals and failures are in the coverage, and compared: they do not end the demonstration here
            let done = command
                .arg(world.out.join(format!("coverage-{name}.json")))
                .output()?;
            match done.status.code() {
                Some(0 | 1) => Ok(()),
                _ => bail!(
                    "`lazaret exercise` ended with {}: {}",
                    done.status,
                    String::from_utf8_lossy(&done.stderr)
                ),
            }
        })
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.world.docker.remove(&self.id) {
            eprintln!("cannot remove container {}: {error:#}", self.id);
        }
    }
}

/// Starts a server and waits for its first good answer.
fn start<'w>(world: &'w World, protection: Protection) -> anyhow::Result<Server<'w>> {
    let name = protection.name();
    world.steps.step(&format!("start under `{name}`"), |_| {
        let mut args = vec!["run".to_owned(), "--detach".to_owned()];
        args.extend(World::server_args());
        args.extend(protection.args().iter().map(ToString::to_string));
        args.push(world.hapi.reference().to_owned());
        let began = Instant::now();
        let id = output(&mut world.docker.docker(args))?.trim().to_owned();
        let mut server = Server {
            world,
            id,
            protection,
            seconds: 0.0,
        };
        let gone = || !world.docker.runs(&server.id);
        let network = world.network(&server.id)?;
        let ready = within(&network, || wait_ready(PORT, HEALTH, READY_LIMIT, gone));
        server.seconds = began.elapsed().as_secs_f64();
        ready.with_context(|| world.last_words(&server.id))?;
        Ok(server)
    })
}

/// One server under each protection, each started, exercised and left running.
pub(super) fn fleet<'w>(world: &'w World, facts: &mut Facts) -> anyhow::Result<Vec<Server<'w>>> {
    let mut fleet = Vec::new();
    for protection in Protection::ALL {
        let server = start(world, protection)?;
        facts
            .starts
            .entry(protection.name())
            .or_default()
            .push(server.seconds);
        if protection == Protection::Lazaret {
            wait_serving(world, &server.id)?;
            facts.container = server.id.clone();
        }
        server.exercise(1)?;
        fleet.push(server);
    }
    Ok(fleet)
}

/// More starts, interleaved, so that a start has a median.
pub(super) fn more_starts(world: &World, facts: &mut Facts) -> anyhow::Result<()> {
    for _ in 0..MORE_STARTS {
        for protection in [
            Protection::Unconfined,
            Protection::Default,
            Protection::Lazaret,
        ] {
            let server = start(world, protection)?;
            facts
                .starts
                .entry(protection.name())
                .or_default()
                .push(server.seconds);
            run(&mut world.docker.docker(["kill", &server.id]))?;
        }
    }
    Ok(())
}
