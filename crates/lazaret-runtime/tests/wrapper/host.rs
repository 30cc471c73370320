//! A node in a temporary directory: configuration, store, the state that Docker left, a bundle, a runtime that records.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub(crate) type Failure = Box<dyn std::error::Error>;

/// The recorded container (`tests/vectors/engines`).
pub(crate) const ID: &str = "1f0a23d70766c7302ccf646d56f5ea5412af8365e479b55a756e43dd22ba0730";
/// Hexadecimal digits of its image's configuration digest.
pub(crate) const IMAGE: &str = "bd49e47cf9990ca6a5733da30bee0fd8455aa68e128e58be06920a8b82e17332";

const CONFIG_JSON: &str = include_str!("../../../../tests/vectors/engines/docker-config.json");
const CONTAINER: &str = include_str!("../../../../tests/vectors/engines/docker-config.v2.json");
const CONFIGURATION: &[u8] = include_bytes!("../../../../tests/vectors/engines/image-config.json");

pub(crate) struct Host {
    folder: tempfile::TempDir,
}

/// How a runtime ended and what it was given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) status: std::process::ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// What the fake runtime recorded; empty when it did not run.
    pub(crate) record: Vec<(String, Vec<u8>)>,
}

impl Run {
    /// The words that the fake runtime got; none when it did not run.
    pub(crate) fn words(&self) -> Option<Vec<String>> {
        let (_, words) = self.record.iter().find(|(name, _)| name == "words")?;
        let words = String::from_utf8_lossy(words);
        Some(words.split_terminator('\0').map(str::to_owned).collect())
    }
}

impl Host {
    pub(crate) fn new() -> Result<Host, Failure> {
        let host = Host {
            folder: tempfile::tempdir()?,
        };
        for folder in [
            host.bundle(),
            host.at("record"),
            host.at(&format!("docker/containers/{ID}")),
            host.at("docker/image/overlay2/imagedb/content/sha256"),
        ] {
            std::fs::create_dir_all(folder)?;
        }
        host.write(&format!("docker/containers/{ID}/config.v2.json"), CONTAINER)?;
        std::fs::write(
            host.at("docker/image/overlay2/imagedb/content/sha256")
                .join(IMAGE),
            CONFIGURATION,
        )?;
        std::fs::write(host.bundle().join("config.json"), CONFIG_JSON)?;
        host.configure("")?;
        Ok(host)
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().ok_or("parent")?)?;
        Ok(std::fs::write(path, text)?)
    }

    /// Writes `runtime.toml` with these lines at its end.
    pub(crate) fn configure(&self, more: &str) -> Result<(), Failure> {
        let root = self.folder.path().display();
        let runtime = fake_runtime();
        let text = format!(
            "runtime = '{}'\nstore = '{root}/store'\nlistener_socket = '/run/lazaret/gate.sock'\n\
             control_socket = '{root}/control.sock'\ndocker_data_root = '{root}/docker'\n{more}\n",
            runtime.display()
        );
        self.write("runtime.toml", &text)
    }

    /// Puts a profile for the image into the store, as revision 1.
    pub(crate) fn install(&self, profile: &str) -> Result<(), Failure> {
        self.install_revision(1, profile)
    }

    /// Puts a profile for the image into the store.
    pub(crate) fn install_revision(&self, revision: u64, profile: &str) -> Result<(), Failure> {
        let folder = papers(revision);
        self.write(&format!("{folder}/bundle.json"), "{}")?;
        self.write(&format!("{folder}/profile.json"), profile)
    }

    /// Replaces a text in what Docker recorded of the container.
    pub(crate) fn change_container(&self, from: &str, to: &str) -> Result<(), Failure> {
        assert!(CONTAINER.contains(from), "{from}");
        self.write(
            &format!("docker/containers/{ID}/config.v2.json"),
            &CONTAINER.replace(from, to),
        )
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.at("io.containerd.runtime.v2.task/moby").join(ID)
    }

    pub(crate) fn config_json(&self) -> Result<String, Failure> {
        Ok(std::fs::read_to_string(self.bundle().join("config.json"))?)
    }

    /// The wrapper, with this node's configuration before the words.
    pub(crate) fn wrapper(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lazaret-runtime"));
        command.arg("--lazaret-config").arg(self.at("runtime.toml"));
        command
    }

    /// Runs a command that ends in the fake runtime.
    pub(crate) fn run(
        &self,
        command: &mut Command,
        words: &[&str],
        end: &str,
    ) -> Result<Run, Failure> {
        let record = self.at("record");
        std::fs::remove_dir_all(&record)?;
        std::fs::create_dir(&record)?;
        std::fs::write(self.at("stdin"), "input of the engine")?;
        let output = command
            .args(words)
            .env("RECORD", &record)
            .env("END", end)
            .stdin(Stdio::from(std::fs::File::open(self.at("stdin"))?))
            .output()?;
        let mut recorded = Vec::new();
        for entry in std::fs::read_dir(&record)? {
            let entry = entry?;
            recorded.push((
                entry.file_name().to_string_lossy().into_owned(),
                std::fs::read(entry.path())?,
            ));
        }
        recorded.sort();
        Ok(run(output, recorded))
    }

    /// Lets the wrapper create the container.
    pub(crate) fn create(&self) -> Result<Run, Failure> {
        let bundle = self.bundle();
        let bundle = bundle.to_str().ok_or("bundle")?;
        self.run(
            &mut self.wrapper(),
            &["--root", "/r", "create", "--bundle", bundle, ID],
            "0",
        )
    }
}

/// Where the store keeps a revision for the image; which policy it is does not matter to the wrapper.
pub(crate) fn papers(revision: u64) -> String {
    format!("store/images/{IMAGE}/{revision}-{revision:064x}")
}

pub(crate) fn run(output: Output, record: Vec<(String, Vec<u8>)>) -> Run {
    Run {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        record,
    }
}

pub(crate) fn fake_runtime() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake-runtime.sh")
}
