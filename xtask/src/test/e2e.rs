//! What the end-to-end tests of the gate and the command line are given: engines, programs and images.
//!
//! Tests find the description by the environment variable [`VARIABLE`], the path of a JSON file:
//!
//! ```json
//! {
//!   "v": 1,
//!   "docker": {"socket": "…", "config": "…", "pid": 1, "data_root": "…", "cgroup": "/…", "runtime": "lazaret"},
//!   "runtime_config": "…",
//!   "runc": "/usr/sbin/runc",
//!   "containerd": {"socket": "…", "pid": 1, "data_root": "…", "cgroup": "/…"},
//!   "programs": {"lazaret": "…", "lazaretd": "…", "lazaret-runtime": "…"},
//!   "images": {"berth": {"reference": "lazaret/berth:test", "config_digest": "sha256:…"}},
//!   "folder": "…"
//! }
//! ```
//!
//! `docker.pid` and `containerd.pid` name the network namespaces (`/proc/PID/ns/net`) and, for `ctr`, the mount namespace
//! that its client must be in. The runtime `lazaret` is `lazaret-runtime --lazaret-config RUNTIME_CONFIG`; that file does not
//! exist: each test writes its own before it starts a container. `folder` is empty, on a path short enough for sockets, and
//! removed with everything else at the end.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

use crate::cleanup::{self, Undo};
use crate::engine::{Containerd, Docker, Runtime};
use crate::programs;
use crate::setup::Setup;

/// The environment variable that names the description.
pub(super) const VARIABLE: &str = "LAZARET_E2E";

const PROGRAMS: [&str; 3] = ["lazaret", "lazaretd", "lazaret-runtime"];

/// Running engines; dropping them ends them.
#[derive(Debug)]
pub(super) struct E2e {
    description: PathBuf,
    _docker: Docker,
    _containerd: Containerd,
    _folder: tempfile::TempDir,
    /// Removes the folder when xtask is ended by a signal.
    _undo: Undo,
}

impl E2e {
    /// Path of the description.
    pub(super) fn description(&self) -> &Path {
        &self.description
    }
}

/// Builds the programs, as the tests are built, and the image, and starts both engines.
pub(super) fn prepare(setup: &Setup) -> anyhow::Result<E2e> {
    let built = setup.steps.step("programs for the end-to-end tests", |_| {
        programs::build(
            &setup.workspace,
            &["--workspace", "--bins", "--locked"],
            &PROGRAMS,
        )
    })?;
    let berth = setup.berth()?;
    let folder = tempfile::Builder::new()
        .prefix("lazaret-e2e-")
        .tempdir_in("/run")
        .context("cannot make a folder in /run")?;
    let undo = cleanup::remove_folder(folder.path());
    let runtime_config = folder.path().join("runtime.toml");
    let runtime = Runtime {
        path: built.path("lazaret-runtime")?.to_owned(),
        args: vec![
            "--lazaret-config".into(),
            runtime_config.display().to_string(),
        ],
    };
    let docker = setup.docker(&BTreeMap::from([("lazaret".to_owned(), runtime)]))?;
    let containerd = setup.containerd()?;
    docker.load(&setup.steps, &berth)?;
    containerd.load(&setup.steps, &berth)?;

    let paths: BTreeMap<&str, &Path> = PROGRAMS
        .iter()
        .map(|name| Ok((*name, built.path(name)?)))
        .collect::<anyhow::Result<_>>()?;
    let work = folder.path().join("work");
    fs::create_dir(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let description = json!({
        "v": 1,
        "docker": {
            "socket": docker.socket(),
            "config": docker.client_config(),
            "pid": docker.pid()?,
            "data_root": docker.data_root(),
            "cgroup": docker.cgroup(),
            "runtime": "lazaret",
        },
        "runtime_config": runtime_config,
        "runc": setup.docker.runc(),
        "containerd": {
            "socket": containerd.socket(),
            "pid": containerd.pid()?,
            "data_root": containerd.data_root(),
            "cgroup": containerd.cgroup(),
        },
        "programs": paths,
        "images": { "berth": { "reference": berth.reference(), "config_digest": berth.config_digest() } },
        "folder": work,
    });
    let path = folder.path().join("e2e.json");
    fs::write(&path, serde_json::to_vec_pretty(&description)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(E2e {
        description: path,
        _docker: docker,
        _containerd: containerd,
        _folder: folder,
        _undo: undo,
    })
}
