//! What every stage needs: programs, images, the private engine, and where the node's files are.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::Context;

use crate::cleanup::{self, Undo};
use crate::command::{command, output};
use crate::engine::{Docker, Runtime};
use crate::image::Image;
use crate::process::ProcessId;
use crate::programs::Programs;
use crate::setup::Setup;
use crate::steps::Steps;

/// How the FHIR server is run, hardened as its image bears it.
const HARDENED: [&str; 9] = [
    "--network=none",
    "--read-only",
    "--tmpfs=/tmp:mode=1777",
    "--tmpfs=/data:mode=1777",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--memory=1500m",
    "--pids-limit=512",
    "--stop-timeout=60",
];

/// How long a program of ours may take to end when asked.
const END_LIMIT: Duration = Duration::from_secs(15);

/// Where the server listens, in a network of its own.
pub(super) const PORT: u16 = 8080;

/// Its FHIR base there.
pub(super) const BASE: &str = "http://127.0.0.1:8080/fhir";

/// Answers 200 when the server serves; cheap, unlike `/fhir/metadata` with its 1.5 MB.
pub(super) const HEALTH: &str = "/health";

/// The runtime that `docker run --runtime` names.
pub(super) const RUNTIME: &str = "lazaret";

/// The stage for the whole demonstration. Dropping it ends the engine.
pub(super) struct World {
    pub(super) steps: Steps,
    pub(super) out: PathBuf,
    pub(super) programs: Programs,
    pub(super) hapi: Image,
    pub(super) rogue: Image,
    pub(super) docker: Docker,
    /// Sockets, state and store of the node; a short path, for the sockets.
    pub(super) node: tempfile::TempDir,
    /// Removes it when xtask is ended by a signal.
    _undo: Undo,
}

/// Ends a child, by its id and start time, when xtask is ended by a signal; does nothing once it is gone.
pub(super) fn end_with_us(child: &Child) -> Undo {
    let id = ProcessId::of(child.id());
    cleanup::register(move || {
        if let Some(process) = id.and_then(|id| id.open()) {
            process.terminate();
            if !process.wait_gone(END_LIMIT) {
                process.kill();
            }
        }
    })
}

/// Runs a program to its end, and ends it when xtask is ended by a signal.
pub(super) fn supervised(command: &mut Command) -> anyhow::Result<ExitStatus> {
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let undo = end_with_us(&child);
    let status = child.wait();
    drop(undo);
    Ok(status?)
}

impl World {
    /// Builds what is missing and starts the engine.
    pub(super) fn open(setup: &Setup, out: &Path) -> anyhow::Result<World> {
        let programs = setup.programs()?;
        let hapi = setup.hapi()?;
        let rogue = setup.rogue(&hapi)?;
        let node = tempfile::Builder::new()
            .prefix("lazaret-demo-")
            .tempdir_in("/run")
            .context("cannot make a folder in /run")?;
        fs::set_permissions(node.path(), fs::Permissions::from_mode(0o700))?;
        let undo = cleanup::remove_folder(node.path());
        let config = node.path().join("runtime.toml");
        let path = programs.path("lazaret-runtime")?.to_owned();
        let args = vec!["--lazaret-config".to_owned(), config.display().to_string()];
        let docker = setup.docker(&BTreeMap::from([(
            RUNTIME.to_owned(),
            Runtime { path, args },
        )]))?;
        let world = World {
            steps: setup.steps.clone(),
            out: out.to_owned(),
            programs,
            hapi,
            rogue,
            docker,
            node,
            _undo: undo,
        };
        world.write_runtime_config(&config)?;
        for image in [&world.hapi, &world.rogue] {
            world.docker.load(&world.steps, image)?;
        }
        Ok(world)
    }

    fn write_runtime_config(&self, config: &Path) -> anyhow::Result<()> {
        // paths of this machine hold no quote or backslash; TOML literal strings take everything else
        let text = format!(
            "runtime = '/usr/sbin/runc'\nstore = '{}'\nlistener_socket = '{}'\ncontrol_socket = '{}'\n\
             docker_data_root = '{}'\n",
            self.store().display(),
            self.listener().display(),
            self.control().display(),
            self.docker.data_root().display(),
        );
        fs::write(config, text).with_context(|| format!("cannot write {}", config.display()))
    }

    pub(super) fn store(&self) -> PathBuf {
        self.node.path().join("store")
    }

    pub(super) fn listener(&self) -> PathBuf {
        self.node.path().join("gate.sock")
    }

    pub(super) fn control(&self) -> PathBuf {
        self.node.path().join("control.sock")
    }

    pub(super) fn events(&self) -> PathBuf {
        self.out.join("events.jsonl")
    }

    /// `lazaret` with these arguments, talking to the private engine.
    pub(super) fn lazaret(&self, args: &[&str]) -> anyhow::Result<Command> {
        let docker = self.docker.docker([""; 0]);
        let mut lazaret = command(self.programs.path("lazaret")?, args);
        for (name, value) in docker.get_envs() {
            match value {
                Some(value) => lazaret.env(name, value),
                None => lazaret.env_remove(name),
            };
        }
        Ok(lazaret)
    }

    /// What a container printed last, for an error.
    pub(super) fn last_words(&self, id: &str) -> String {
        match self.docker.docker(["logs", "--tail", "5", id]).output() {
            Ok(logs) => format!(
                "it said: {}",
                String::from_utf8_lossy(&[logs.stdout, logs.stderr].concat()).trim()
            ),
            Err(error) => format!("its log cannot be read: {error}"),
        }
    }

    /// The network namespace of a running container: it has no network but its own loopback.
    pub(super) fn network(&self, id: &str) -> anyhow::Result<PathBuf> {
        let pid = output(
            &mut self
                .docker
                .docker(["inspect", "--format", "{{.State.Pid}}", id]),
        )?;
        Ok(PathBuf::from(format!("/proc/{}/ns/net", pid.trim())))
    }

    /// Arguments of `docker run` for a hardened FHIR server.
    pub(super) fn server_args() -> Vec<String> {
        let mut args: Vec<String> = HARDENED.iter().map(ToString::to_string).collect();
        args.push("--env=FHIR_BIND=127.0.0.1".to_owned());
        args
    }
}
