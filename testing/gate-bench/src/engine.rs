//! A private Docker engine that `cargo xtask` has started, and berth in it with and without the gate.
//!
//! What the engine is comes in a file (`xtask/src/test/e2e.rs` says its form). berth's port is that of the engine's network
//! namespace, so one container runs at a time.

use crate::node::{Node, PATIENCE};
use crate::policies;
use anyhow::{Context, bail, ensure};
use lazaret_core::digest::Digest;
use lazaret_kernel::netns::NetworkNamespace;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// berth's, which its image exposes.
const PORT: u16 = 8080;

/// Between two questions whether berth answers.
const POLL: Duration = Duration::from_millis(1);

/// The options that every container is run with.
const HARDENED: [&str; 5] = [
    "--network=host",
    "--read-only",
    "--tmpfs=/tmp:mode=1777",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
];

/// The file.
#[derive(Debug, Deserialize)]
pub(crate) struct Engine {
    docker: Docker,
    runtime_config: PathBuf,
    images: BTreeMap<String, Image>,
    folder: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Docker {
    socket: PathBuf,
    config: PathBuf,
    pid: u32,
    data_root: PathBuf,
    runtime: String,
}

#[derive(Debug, Deserialize)]
struct Image {
    reference: String,
    config_digest: Digest,
}

/// Who holds a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// runc and Docker's default profile.
    ByDefault,
    /// The wrapper, a policy and the gate.
    ByGate,
}

/// A running container. Removed when dropped.
#[derive(Debug)]
pub(crate) struct Container<'e> {
    engine: &'e Engine,
    /// Its id.
    pub(crate) id: String,
}

impl Engine {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is not of this form.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Engine> {
        let text =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("cannot use {}", path.display()))
    }

    fn berth(&self) -> anyhow::Result<&Image> {
        self.images.get("berth").context("no image `berth`")
    }

    /// A node with a policy for berth; the wrapper is told to use it. Its `lazaretd` does not run yet.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn node(&self, program: &Path) -> anyhow::Result<Node> {
        let policy = policies::berth(self.berth()?.config_digest, PORT)?;
        let node = Node::beside(program, &policy, &self.folder, &self.docker.data_root)?;
        let config = format!(
            "runtime = '/usr/sbin/runc'\nstore = '{}'\nlistener_socket = '{}'\ncontrol_socket = '{}'\n\
             docker_data_root = '{}'\n",
            node.path("store").display(),
            node.path("run/gate.sock").display(),
            node.path("run/control.sock").display(),
            self.docker.data_root.display(),
        );
        std::fs::write(&self.runtime_config, config)?;
        Ok(node)
    }

    /// `docker` with these arguments, to its end; returns what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub(crate) fn docker(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = Command::new("docker")
            .args(args)
            .env(
                "DOCKER_HOST",
                format!("unix://{}", self.docker.socket.display()),
            )
            .env("DOCKER_CONFIG", &self.docker.config)
            .env_remove("DOCKER_CONTEXT")
            .env_remove("DOCKER_TLS_VERIFY")
            .output()
            .context("cannot start docker")?;
        ensure!(
            output.status.success(),
            "docker {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// `docker run` of berth to its first answer, and how long that took.
    ///
    /// # Errors
    /// When it does not answer in [`PATIENCE`].
    pub(crate) fn run(&self, held: Held) -> anyhow::Result<(Container<'_>, Duration)> {
        let runtime = match held {
            Held::ByDefault => "--runtime=runc".to_owned(),
            Held::ByGate => format!("--runtime={}", self.docker.runtime),
        };
        let mut args = vec!["run", "--detach", &runtime];
        args.extend(HARDENED);
        args.push(&self.berth()?.reference);
        let network = NetworkNamespace::of(self.docker.pid)?;
        let began = Instant::now();
        let id = self.docker(&args)?;
        let container = Container { engine: self, id };
        let answered = network.run(|| {
            while began.elapsed() < PATIENCE {
                if get("/ready").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                    return Some(began.elapsed());
                }
                std::thread::sleep(POLL);
            }
            None
        })?;
        match answered {
            Some(took) => Ok((container, took)),
            None => bail!(
                "berth does not answer: {}",
                self.docker(&["logs", &container.id]).unwrap_or_default()
            ),
        }
    }

    /// One request of berth.
    ///
    /// # Errors
    /// When it does not answer with 200.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<String> {
        let answer = NetworkNamespace::of(self.docker.pid)?.run(|| get(path))??;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        Ok(answer)
    }
}

impl Container<'_> {
    /// `docker exec` of berth's probe.
    ///
    /// # Errors
    /// When it does not say that the server is ready.
    pub(crate) fn probe(&self) -> anyhow::Result<()> {
        let probe = ["exec", &self.id, "/berth", "exec-probe"];
        self.engine.docker(&probe).map(drop)
    }

    /// `docker stop`: berth ends by itself when it is told to.
    ///
    /// # Errors
    /// When it had to be killed, or the engine refuses.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.engine.docker(&["stop", &self.id])?;
        let format = "{{.State.ExitCode}}";
        let code = self
            .engine
            .docker(&["inspect", "--format", format, &self.id])?;
        ensure!(code == "0", "container {} ended with {code}", self.id);
        Ok(())
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if let Err(error) = self
            .engine
            .docker(&["rm", "--force", "--volumes", &self.id])
        {
            eprintln!("{error:#}");
        }
    }
}

fn get(path: &str) -> std::io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: berth\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(1 << 16).read_to_string(&mut answer)?;
    Ok(answer)
}
