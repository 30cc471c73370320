//! The container engine, through its own command line client.
//!
//! `docker` and not its HTTP API: `--run-arg` and `record -- …` speak the client's language, and the client brings its
//! own contexts, credentials and `DOCKER_HOST`. Nothing here waits for output to look in a certain way: only `--format`
//! templates and exit codes are read.

use anyhow::{Context, bail};
use lazaret_core::digest::Digest;
use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};

/// The engine that `docker` talks to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Engine;

/// An image as the engine knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Configuration digest first, then the manifests' that the engine remembers.
    pub digests: Vec<Digest>,
    /// TCP ports that the image exposes.
    pub ports: BTreeSet<u16>,
}

/// A container's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Its first process in the host's numbering; 0 when it does not run.
    pub pid: u32,
    /// Whether it runs.
    pub running: bool,
    /// Exit code of its first process.
    pub exit_code: i64,
}

impl Engine {
    fn run(&self, step: &str, args: &[&str]) -> anyhow::Result<String> {
        let output = self.output(step, args)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("cannot {step}: {}", last_line(&said));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
    }

    fn output(&self, step: &str, args: &[&str]) -> anyhow::Result<Output> {
        Command::new("docker")
            .args(args)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot {step}: `docker` cannot be run"))
    }

    /// The engine's version, which also tells whether it answers.
    ///
    /// # Errors
    /// No client, or no engine behind it.
    pub fn version(&self) -> anyhow::Result<String> {
        self.run(
            "reach the container engine",
            &["version", "--format", "{{.Server.Version}}"],
        )
    }

    /// The engine's default runtime with its version, as `runc 1.1.5`; the name alone when the engine knows no version, which it
    /// says as the empty text or `N/A` (Docker `daemon/info_unix.go`).
    ///
    /// # Errors
    /// The engine does not say.
    pub fn runtime(&self) -> anyhow::Result<String> {
        let name = self.run(
            "ask the engine for its runtime",
            &["info", "--format", "{{.DefaultRuntime}}"],
        )?;
        let id = self.run(
            "ask the engine for its runtime's version",
            &["info", "--format", "{{.RuncCommit.ID}}"],
        )?;
        Ok(runtime(&name, &id))
    }

    /// An image that is there already.
    ///
    /// # Errors
    /// No such image; the engine is not asked to pull one.
    pub fn image(&self, name: &str) -> anyhow::Result<Image> {
        let json = self
            .run(
                "find the image",
                &["image", "inspect", "--format", "{{json .}}", name],
            )
            .with_context(|| format!("image `{name}`"))?;
        let image: serde_json::Value =
            serde_json::from_str(&json).context("the engine's answer is no JSON")?;
        let id: Digest = image["Id"]
            .as_str()
            .unwrap_or_default()
            .parse()
            .context("the engine gave no image id")?;
        let mut digests = vec![id];
        for reference in image["RepoDigests"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|value| value.as_str())
        {
            let digest = reference.rsplit('@').next().unwrap_or_default();
            digests.push(digest.parse().with_context(|| format!("image `{name}`"))?);
        }
        let exposed = image["Config"]["ExposedPorts"].as_object();
        let ports = exposed.into_iter().flat_map(serde_json::Map::keys);
        let ports = ports
            .filter_map(|port| port.strip_suffix("/tcp")?.parse().ok())
            .collect();
        Ok(Image { digests, ports })
    }

    /// Creates a container.
    ///
    /// # Errors
    /// What the client said last.
    pub fn create(&self, name: &str, args: &[String]) -> anyhow::Result<String> {
        let mut all = vec!["create", "--name", name, "--label", "dev.lazaret.learn=1"];
        all.extend(args.iter().map(String::as_str));
        self.run("create the container", &all)
    }

    /// Starts a container that was created.
    ///
    /// # Errors
    /// What the client said last.
    pub fn start(&self, name: &str) -> anyhow::Result<()> {
        self.run("start the container", &["start", name]).map(drop)
    }

    /// Its state.
    ///
    /// # Errors
    /// No such container.
    pub fn state(&self, name: &str) -> anyhow::Result<State> {
        let form = "{{.State.Pid}} {{.State.Running}} {{.State.ExitCode}}";
        let text = self.run(
            "inspect the container",
            &["container", "inspect", "--format", form, name],
        )?;
        let mut words = text.split(' ');
        let mut next = || words.next().unwrap_or_default();
        Ok(State {
            pid: next().parse().context("the engine gave no process id")?,
            running: next() == "true",
            exit_code: next().parse().context("the engine gave no exit code")?,
        })
    }

    /// The image's digest behind a container.
    ///
    /// # Errors
    /// No such container.
    pub fn image_of(&self, name: &str) -> anyhow::Result<String> {
        self.run(
            "inspect the container",
            &["container", "inspect", "--format", "{{.Image}}", name],
        )
    }

    /// Sends the container's stop signal and waits; kills it after `seconds`.
    ///
    /// # Errors
    /// What the client said last.
    pub fn stop(&self, name: &str, seconds: u32) -> anyhow::Result<()> {
        self.run(
            "stop the container",
            &["stop", "--time", &seconds.to_string(), name],
        )
        .map(drop)
    }

    /// The last lines that the container printed.
    ///
    /// # Errors
    /// What the client said last.
    pub fn last_words(&self, name: &str) -> anyhow::Result<String> {
        let output = self.output("read the container's log", &["logs", "--tail", "5", name])?;
        let all = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&all).trim().to_string())
    }

    /// Removes a container, running or not; one that is not there is no error.
    ///
    /// # Errors
    /// What the client said last.
    pub fn remove(&self, name: &str) -> anyhow::Result<()> {
        let output = self.output(
            "remove the container",
            &["rm", "--force", "--volumes", name],
        )?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() && !said.contains("No such container") {
            bail!("cannot remove the container: {}", last_line(&said));
        }
        Ok(())
    }
}

/// A runtime with its version, if there is one.
fn runtime(name: &str, version: &str) -> String {
    match version {
        "" | "N/A" => name.to_owned(),
        version => format!("{name} {version}"),
    }
}

fn last_line(text: &str) -> &str {
    text.trim().lines().last().unwrap_or("it gave no reason")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_without_a_version_is_its_name() {
        assert_eq!(runtime("runc", "1.1.5"), "runc 1.1.5");
        for unknown in ["", "N/A"] {
            assert_eq!(runtime("lazaret", unknown), "lazaret");
        }
    }
}
