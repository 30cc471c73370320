//! A private plain `containerd`, for what starts containers without Docker (`ctr run`).

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use super::enclosure::Enclosure;
use crate::command::{command, run};
use crate::image::Image;
use crate::network;
use crate::steps::Steps;

/// A cold `containerd` answers within a second; on a busy machine it may take many times that.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running private `containerd`; dropping it ends its containers and itself and removes all it made.
#[derive(Debug)]
pub struct Containerd {
    enclosure: Enclosure,
    socket: PathBuf,
}

impl Containerd {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When it cannot be started or does not answer within 30 s; the error carries the end of its log.
    pub fn start(steps: &Steps, target: &Path) -> anyhow::Result<Self> {
        steps.step("private containerd", |_| {
            let enclosure = Enclosure::create(target)?;
            let run_folder = enclosure.run();
            let socket = run_folder.join("containerd.sock");
            let config = run_folder.join("config.toml");
            // The CRI plugin would look for network plugins; `opt` would make a folder in /opt.
            let text = format!(
                "version = 2\nroot = {:?}\nstate = {:?}\n\
                 disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
                 [grpc]\naddress = {:?}\n",
                enclosure.data(),
                run_folder.join("state"),
                socket
            );
            fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
            enclosure.start(
                &["containerd", "--config", &config.to_string_lossy()],
                START_LIMIT,
                || {
                    let mut version = client(&mut command("ctr", [""; 0]), &socket, ["version"]);
                    version.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
                },
            )?;
            Ok(Self { enclosure, socket })
        })
    }

    /// The API's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Where the engine keeps images and snapshots (`root` of its configuration).
    pub fn data_root(&self) -> PathBuf {
        self.enclosure.data()
    }

    /// The cgroup that containers should be put into (`ctr run --cgroup`), so that they end with the engine.
    pub fn cgroup(&self) -> String {
        self.enclosure.cgroup()
    }

    /// The `ctr` client. It runs in the engine's mount namespace: client and shim meet in `/run/containerd/fifo`.
    ///
    /// # Errors
    /// When the engine has ended.
    pub fn ctr<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<Command> {
        Ok(client(
            &mut self.enclosure.inside("ctr")?,
            &self.socket,
            args,
        ))
    }

    /// The pid of `containerd`: `/proc/PID/ns/net` is the network of containers that run with `ctr run --net-host`.
    ///
    /// # Errors
    /// When it has ended.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.enclosure.daemon_pid()
    }

    /// Does `work` in that network: `127.0.0.1` is the containers' there.
    ///
    /// # Errors
    /// When the engine has ended; `work`'s own.
    pub fn within<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        network::within(Path::new(&format!("/proc/{}/ns/net", self.pid()?)), work)
    }

    /// Imports an image; containerd names it `docker.io/` and our reference.
    ///
    /// # Errors
    /// When it cannot be imported.
    pub fn load(&self, steps: &Steps, image: &Image) -> anyhow::Result<()> {
        steps.step(
            &format!("load {} into containerd", image.reference()),
            |_| {
                let mut tar = image
                    .archive()
                    .stdout(Stdio::piped())
                    .spawn()
                    .context("cannot start `tar`")?;
                let archive = tar.stdout.take().context("`tar` has no output")?;
                let loaded = self
                    .ctr(["images", "import", "-"])?
                    .stdin(archive)
                    .output()
                    .context("cannot start `ctr`")?;
                if !tar.wait()?.success() || !loaded.status.success() {
                    bail!(
                        "`ctr images import` failed: {}",
                        String::from_utf8_lossy(&loaded.stderr).trim()
                    );
                }
                Ok(())
            },
        )
    }

    /// Ends a task and removes its container.
    ///
    /// # Errors
    /// When the engine refuses.
    pub fn remove(&self, container: &str) -> anyhow::Result<()> {
        // A task that has ended or was never started is no failure: only the container must be gone.
        self.ctr(["tasks", "rm", "--force", container])?
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        run(&mut self.ctr(["containers", "rm", container])?)
    }
}

fn client<S: AsRef<OsStr>>(
    ctr: &mut Command,
    socket: &Path,
    args: impl IntoIterator<Item = S>,
) -> Command {
    let mut client = Command::new(ctr.get_program());
    client
        .args(ctr.get_args())
        .arg("--address")
        .arg(socket)
        .args(args)
        .stdin(Stdio::null());
    client
}
