//! A node without an engine: folders, a key, a signed policy, the files that Docker would have written, and a `lazaretd`.

use crate::policies;
use crate::sandbox::Sandbox;
use crate::usage;
use anyhow::{Context, bail, ensure};
use lazaret_bundle::TrustedKeys;
use lazaret_bundle::key::{Algorithm, PrivateKey, file};
use lazaret_bundle::store;
use lazaret_core::control::{Admitted, ContainerState, Reply, Request, V1};
use lazaret_core::digest::Digest;
use lazaret_core::filter::compile::compile;
use lazaret_core::filter::oci;
use lazaret_core::policy::Policy;
use lazaret_kernel::pidfd::{self, PidfdError};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A container and its image as Docker 20.10 recorded them.
const DOCKER: &str = include_str!("../../../tests/vectors/engines/docker-config.v2.json");
const IMAGE: &[u8] = include_bytes!("../../../tests/vectors/engines/image-config.json");
const RECORDED_ID: &str = "1f0a23d70766c7302ccf646d56f5ea5412af8365e479b55a756e43dd22ba0730";

/// Everything that is waited for takes milliseconds; this is for a machine under load.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// The folders of a node, and its daemon once it is started.
#[derive(Debug)]
pub(crate) struct Node {
    folder: tempfile::TempDir,
    program: PathBuf,
    docker_root: PathBuf,
    digest: Digest,
    daemon: Option<Daemon>,
    made: u64,
}

/// A running `lazaretd`; killed when dropped.
#[derive(Debug)]
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // it may have ended already
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The holder of its listeners outlives a daemon for a while; not this program.
impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        for pid in self.processes() {
            match pidfd::open(pid).and_then(pidfd::kill) {
                Ok(()) => {}
                // it has ended meanwhile
                Err(PidfdError::Open { .. }) => {}
                Err(error) => eprintln!("cannot end process {pid}: {error}"),
            }
        }
    }
}

impl Node {
    /// A node for cheap containers, with files as Docker writes them. Its `lazaretd` does not run yet.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn new(program: &Path) -> anyhow::Result<Node> {
        let policy = policies::cheap(Digest::of(IMAGE))?;
        let node = Node::with(program, &policy, &std::env::temp_dir(), None)?;
        let images = node.path("docker/image/overlay2/imagedb/content/sha256");
        fs::create_dir_all(&images)?;
        fs::write(images.join(Digest::of(IMAGE).hex()), IMAGE)?;
        fs::write(node.filter(), compile(&policy.kernel_table())?.to_bytes())?;
        Ok(node)
    }

    /// A node beside a Docker engine, with its folder in this one. Its `lazaretd` does not run yet.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn beside(
        program: &Path,
        policy: &Policy,
        parent: &Path,
        docker_root: &Path,
    ) -> anyhow::Result<Node> {
        Node::with(program, policy, parent, Some(docker_root))
    }

    fn with(
        program: &Path,
        policy: &Policy,
        parent: &Path,
        docker_root: Option<&Path>,
    ) -> anyhow::Result<Node> {
        let folder = tempfile::Builder::new()
            .prefix("gate-bench-")
            .tempdir_in(parent)
            .context("cannot make a folder")?;
        let docker_root = docker_root.map_or_else(|| folder.path().join("docker"), Path::to_owned);
        let node = Node {
            program: program
                .canonicalize()
                .with_context(|| format!("no program {}", program.display()))?,
            docker_root,
            digest: policy.digest(),
            daemon: None,
            made: 0,
            folder,
        };
        let key = PrivateKey::generate(Algorithm::EcdsaP256)?;
        fs::create_dir_all(node.path("store/keys"))?;
        file::create_public(&node.path("store/keys/a.pem"), key.public())?;
        let envelope = lazaret_bundle::sign(policy, &[&key])?;
        let keys = TrustedKeys::only(key.public().clone());
        let verified = lazaret_bundle::verify_for_any_image(&envelope, &keys)?;
        let listener = oci::Listener {
            path: node.path("run/gate.sock").display().to_string(),
            metadata: node.digest.to_string(),
        };
        let profile = oci::profile(&policy.kernel_table(), Some(&listener))?;
        store::install(
            &node.path("store"),
            &verified,
            &envelope,
            &serde_json::to_vec(&profile)?,
        )?;
        // an empty one, so that the machine's own is not read
        fs::write(node.path("lazaretd.toml"), "")?;
        Ok(node)
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// The file with the kernel's filter for the policy.
    pub(crate) fn filter(&self) -> PathBuf {
        self.path("filter")
    }

    /// Starts the daemon and waits until it listens; returns how long that took.
    ///
    /// # Errors
    /// When it ends instead.
    pub(crate) fn start(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let mut command = Command::new(&self.program);
        for (option, path) in [
            ("--config", "lazaretd.toml"),
            ("--listen", "run/gate.sock"),
            ("--control", "run/control.sock"),
            ("--state-dir", "run"),
            ("--store", "store"),
            ("--events", "events.jsonl"),
        ] {
            command.arg(option).arg(self.path(path));
        }
        command.arg("--docker-root").arg(&self.docker_root);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut daemon = Daemon(command.spawn().context("cannot start lazaretd")?);
        let mut log = BufReader::new(daemon.0.stderr.take().context("no log")?);
        let mut said = String::new();
        while !said.contains("listening on") {
            let length = said.len();
            ensure!(
                log.read_line(&mut said)? > 0,
                "lazaretd ended: {}",
                said.get(length..).unwrap_or(&said)
            );
        }
        let took = began.elapsed();
        self.daemon = Some(daemon);
        // it goes on writing
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.path("lazaretd.log"))?;
        std::thread::spawn(move || std::io::copy(&mut log, &mut file));
        Ok(took)
    }

    /// Kills the daemon as a crash would.
    pub(crate) fn kill(&mut self) {
        self.daemon = None;
    }

    /// The daemon's processes: itself, and whoever holds its listeners.
    pub(crate) fn processes(&self) -> Vec<u32> {
        usage::processes_of(&self.program, self.folder.path())
    }

    /// A container under the policy's filter that nobody supervises yet, and its listener.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn unsupervised(&mut self) -> anyhow::Result<(Sandbox, OwnedFd)> {
        self.made += 1;
        let id = format!("{:064x}", self.made);
        let folder = self.path("docker/containers").join(&id);
        fs::create_dir_all(&folder)?;
        fs::write(
            folder.join("config.v2.json"),
            DOCKER.replace(RECORDED_ID, &id),
        )?;
        Sandbox::create(&id, &self.filter())
    }

    /// A container at its first `execve`, whose papers the gate checks now.
    ///
    /// # Errors
    /// When it cannot be made or handed over.
    pub(crate) fn handed_over(&mut self) -> anyhow::Result<Sandbox> {
        let (mut sandbox, listener) = self.unsupervised()?;
        self.hand_over(&sandbox, listener, "creating")?;
        sandbox.go()?;
        Ok(sandbox)
    }

    /// A container that the gate has admitted and whose program runs.
    ///
    /// # Errors
    /// When it was refused.
    pub(crate) fn admitted(&mut self) -> anyhow::Result<Sandbox> {
        let mut sandbox = self.handed_over()?;
        sandbox.wait_ready()?;
        Ok(sandbox)
    }

    /// Ends a container, and removes what Docker would have written of it.
    ///
    /// # Errors
    /// When the files cannot be removed.
    pub(crate) fn forget(&self, container: Sandbox) -> anyhow::Result<()> {
        fs::remove_dir_all(self.path("docker/containers").join(&container.id))?;
        drop(container);
        Ok(())
    }

    /// A process that was put into a container, and which the gate has admitted.
    ///
    /// # Errors
    /// When it was refused.
    pub(crate) fn exec(&self, container: &Sandbox) -> anyhow::Result<Sandbox> {
        let (mut sandbox, listener) = container.exec(&self.filter())?;
        self.hand_over(&sandbox, listener, "running")?;
        sandbox.go()?;
        sandbox.wait_ready()?;
        Ok(sandbox)
    }

    /// Hands a listener to the gate as a runtime does (OCI runtime specification, "The Container Process State").
    ///
    /// # Errors
    /// When the gate does not take it.
    pub(crate) fn hand_over(
        &self,
        sandbox: &Sandbox,
        listener: OwnedFd,
        status: &str,
    ) -> anyhow::Result<()> {
        let id = &sandbox.id;
        let message = json!({
            "ociVersion": "1.0.2",
            "fds": ["seccompFd"],
            "pid": sandbox.pid,
            "metadata": self.digest.to_string(),
            "state": {
                "ociVersion": "1.0.2", "id": id, "status": status, "pid": sandbox.pid, "annotations": {},
                "bundle": format!("/run/containerd/io.containerd.runtime.v2.task/moby/{id}"),
            }
        });
        let stream = UnixStream::connect(self.path("run/gate.sock"))?;
        let text = message.to_string();
        let fds = [listener.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ensure!(
            ancillary.push(SendAncillaryMessage::ScmRights(&fds)),
            "no room for a descriptor"
        );
        let bytes = [IoSlice::new(text.as_bytes())];
        let sent = sendmsg(&stream, &bytes, &mut ancillary, SendFlags::empty())?;
        ensure!(sent == text.len(), "the gate took {sent} bytes only");
        Ok(())
    }

    /// What the gate says to one request.
    ///
    /// # Errors
    /// When it does not answer, or with an error.
    pub(crate) fn ask(&self, request: &Request) -> anyhow::Result<Reply> {
        let mut stream = UnixStream::connect(self.path("run/control.sock"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        writeln!(stream, "{}", serde_json::to_string(request)?)?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        match serde_json::from_str(&line)? {
            Reply::Error { reason, .. } => bail!("lazaretd says: {reason}"),
            reply => Ok(reply),
        }
    }

    /// Every admitted container by its id, and how many events were lost.
    ///
    /// # Errors
    /// When the gate does not answer.
    pub(crate) fn status(&self) -> anyhow::Result<(Vec<(String, Admitted)>, u64)> {
        match self.ask(&Request::Status { v: V1 })? {
            Reply::Status {
                containers,
                lost_events,
                ..
            } => {
                let admitted = containers.into_iter().filter_map(|one| match one.state {
                    ContainerState::Admitted(admitted) => Some((one.id, *admitted)),
                    _ => None,
                });
                Ok((admitted.collect(), lost_events))
            }
            other => bail!("lazaretd says {other:?}"),
        }
    }

    /// Waits until so many containers are known.
    ///
    /// # Errors
    /// When they are not after [`PATIENCE`].
    pub(crate) fn wait_known(&self, expected: usize) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let found = self.status()?.0.len();
            if found == expected {
                return Ok(());
            }
            ensure!(
                began.elapsed() < PATIENCE,
                "lazaretd knows {found} containers, expected {expected}"
            );
            std::thread::sleep(POLL);
        }
    }

    /// Waits until none of these is known any more.
    ///
    /// # Errors
    /// When one is after [`PATIENCE`].
    pub(crate) fn wait_gone(&self, ids: &BTreeSet<String>) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let known = self.status()?.0;
            let left = known.iter().filter(|(id, _)| ids.contains(id)).count();
            if left == 0 {
                return Ok(());
            }
            ensure!(
                began.elapsed() < PATIENCE,
                "lazaretd knows {left} containers that have ended"
            );
            std::thread::sleep(POLL);
        }
    }

    /// Every event of a container in the log, the one before it included.
    ///
    /// # Errors
    /// When there is no log.
    pub(crate) fn events(&self, id: &str) -> anyhow::Result<Vec<Value>> {
        let mut found = Vec::new();
        let mut logs: Vec<PathBuf> = fs::read_dir(self.folder.path())?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path.file_name().and_then(|name| name.to_str());
                name.is_some_and(|name| name.starts_with("events.jsonl"))
            })
            .collect();
        logs.sort();
        for log in logs {
            for line in BufReader::new(File::open(log)?).lines() {
                // the last line may be half written
                if let Ok(event) = serde_json::from_str::<Value>(&line?)
                    && event["container"] == id
                {
                    found.push(event);
                }
            }
        }
        Ok(found)
    }
}
