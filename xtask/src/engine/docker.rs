//! A private `dockerd`.
//!
//! Its containers run with `--network host`: "host" is then the enclosure's network namespace, so a server in a container
//! is reached at `127.0.0.1` by a client started with [`Docker::in_network`]. It has no bridge and sets no packet filter.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;

use super::enclosure::Enclosure;
use crate::command::{command, output, run};
use crate::image::Image;
use crate::network;
use crate::steps::Steps;

/// A cold `dockerd` answers within 1–2 s; on a busy machine it may take ten times that.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A runtime that containers may be started with (`docker run --runtime NAME`).
#[derive(Debug, Clone)]
pub struct Runtime {
    /// The program.
    pub path: PathBuf,
    /// Arguments in front of those that the engine gives.
    pub args: Vec<String>,
}

/// A running private `dockerd`; dropping it stops its containers, ends it and removes all it made.
#[derive(Debug)]
pub struct Docker {
    enclosure: Enclosure,
    socket: PathBuf,
    config: PathBuf,
}

impl Docker {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When it cannot be started or does not answer within 60 s; the error carries the end of its log.
    pub fn start(
        steps: &Steps,
        target: &Path,
        programs: &Programs,
        runtimes: &BTreeMap<String, Runtime>,
    ) -> anyhow::Result<Self> {
        steps.step("private dockerd", |_| {
            Self::start_quietly(target, programs, runtimes)
        })
    }

    fn start_quietly(
        target: &Path,
        programs: &Programs,
        runtimes: &BTreeMap<String, Runtime>,
    ) -> anyhow::Result<Self> {
        let enclosure = Enclosure::create(target)?;
        let run = enclosure.run();
        let socket = run.join("docker.sock");
        let config_file = run.join("daemon.json");
        let runtimes: serde_json::Map<String, serde_json::Value> = runtimes
            .iter()
            .map(|(name, r)| {
                (
                    name.clone(),
                    json!({ "path": r.path, "runtimeArgs": r.args }),
                )
            })
            .collect();
        let config = json!({
            "hosts": [format!("unix://{}", socket.display())],
            "data-root": enclosure.data(),
            "exec-root": run.join("exec"),
            "pidfile": run.join("docker.pid"),
            "bridge": "none",
            "iptables": false,
            "ip-forward": false,
            "ip-masq": false,
            "userland-proxy": false,
            "cgroup-parent": enclosure.cgroup(),
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "storage-driver": "overlay2",
            "shutdown-timeout": 5,
            "runtimes": runtimes,
        });
        fs::write(&config_file, serde_json::to_vec_pretty(&config)?)
            .with_context(|| format!("cannot write {}", config_file.display()))?;
        // The docker client keeps contexts and credentials in a folder of its own; the user's are none of our business.
        let client_config = run.join("client");
        fs::create_dir(&client_config)
            .with_context(|| format!("cannot create {}", client_config.display()))?;

        let config_argument = format!("--config-file={}", config_file.display());
        let mut command = programs.command()?;
        command.push(config_argument);
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        enclosure.start(&command, START_LIMIT, || answers(&socket))?;
        Ok(Self {
            enclosure,
            socket,
            config: client_config,
        })
    }

    /// The API's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The docker client's configuration folder (`DOCKER_CONFIG`), which is empty.
    pub fn client_config(&self) -> &Path {
        &self.config
    }

    /// Where the engine keeps images and `containers/ID/config.v2.json`.
    pub fn data_root(&self) -> PathBuf {
        self.enclosure.data()
    }

    /// The cgroup of all its containers, as an absolute path in each hierarchy.
    pub fn cgroup(&self) -> String {
        self.enclosure.cgroup()
    }

    /// The pid of `dockerd`: `/proc/PID/ns/net` is the network of all its containers.
    ///
    /// # Errors
    /// When it has ended.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.enclosure.daemon_pid()
    }

    /// The docker client, talking to this engine only.
    pub fn docker<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut docker = command("docker", args);
        docker
            .env("DOCKER_HOST", format!("unix://{}", self.socket.display()))
            .env("DOCKER_CONFIG", &self.config)
            .env_remove("DOCKER_CONTEXT")
            .env_remove("DOCKER_TLS_VERIFY");
        docker
    }

    /// A command in the network namespace of the containers; add its arguments with [`Command::args`].
    ///
    /// # Errors
    /// When the engine has ended.
    pub fn in_network(&self, program: impl AsRef<OsStr>) -> anyhow::Result<Command> {
        self.enclosure.in_network(program)
    }

    /// Does `work` in the network of the containers: `127.0.0.1` is theirs there.
    ///
    /// # Errors
    /// When the engine has ended; `work`'s own.
    pub fn within<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        network::within(Path::new(&format!("/proc/{}/ns/net", self.pid()?)), work)
    }

    /// Whether a container of this name runs.
    pub fn runs(&self, container: &str) -> bool {
        output(&mut self.docker(["inspect", "--format", "{{.State.Running}}", container]))
            .is_ok_and(|text| text.trim() == "true")
    }

    /// Loads an image and checks that the engine names it as we do.
    ///
    /// # Errors
    /// When it cannot be loaded or has another id than its configuration's digest.
    pub fn load(&self, steps: &Steps, image: &Image) -> anyhow::Result<()> {
        steps.step(&format!("load {}", image.reference()), |_| {
            let mut tar = image
                .archive()
                .stdout(Stdio::piped())
                .spawn()
                .context("cannot start `tar`")?;
            let archive = tar.stdout.take().context("`tar` has no output")?;
            let loaded = self
                .docker(["load", "--quiet"])
                .stdin(archive)
                .output()
                .context("cannot start `docker`")?;
            if !tar.wait()?.success() || !loaded.status.success() {
                bail!(
                    "`docker load` failed: {}",
                    String::from_utf8_lossy(&loaded.stderr).trim()
                );
            }
            let id = output(&mut self.docker([
                "image",
                "inspect",
                "--format",
                "{{.Id}}",
                image.reference(),
            ]))?;
            if id.trim() != image.config_digest() {
                bail!(
                    "{} was loaded as {}, its configuration is {}",
                    image.reference(),
                    id.trim(),
                    image.config_digest()
                );
            }
            Ok(())
        })
    }

    /// Removes a container, running or not, and its volumes.
    ///
    /// # Errors
    /// When the engine refuses.
    pub fn remove(&self, container: &str) -> anyhow::Result<()> {
        run(&mut self.docker(["rm", "--force", "--volumes", container]))
    }
}

/// Which `dockerd` is started, and which `runc` it starts.
#[derive(Debug, Clone, Default)]
pub enum Programs {
    /// Debian's, or a newer docker-ce's that is installed.
    #[default]
    Installed,
    /// Those in this folder.
    Folder(PathBuf),
}

impl Programs {
    /// The runtime that belongs to it.
    pub fn runc(&self) -> PathBuf {
        match self {
            Programs::Installed => "/usr/sbin/runc".into(),
            Programs::Folder(folder) => folder.join("runc"),
        }
    }

    fn command(&self) -> anyhow::Result<Vec<String>> {
        match self {
            Programs::Installed => ["/usr/sbin/dockerd", "/usr/bin/dockerd"]
                .into_iter()
                .find(|path| Path::new(path).is_file())
                .map(|path| vec![path.to_owned()])
                .context("no dockerd in /usr/sbin or /usr/bin"),
            Programs::Folder(folder) => {
                let path = std::env::var("PATH").unwrap_or_default();
                Ok(vec![
                    "env".to_owned(),
                    format!("PATH={}:{path}", folder.display()),
                    folder.join("dockerd").display().to_string(),
                ])
            }
        }
    }
}

/// Whether the daemon answers `GET /_ping` with 200 (Docker Engine API).
fn answers(socket: &Path) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}
