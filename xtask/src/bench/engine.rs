//! A private Docker engine with our wrapper as a runtime and berth's image, described in a file for `testing/gate-bench`.
//!
//! The form is a part of that of the end-to-end tests (`xtask/src/test/e2e.rs`), without containerd.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

use crate::cleanup::{self, Undo};
use crate::engine::{Docker, Runtime};
use crate::programs::Programs;
use crate::setup::Setup;

/// A running engine; dropping it ends it.
#[derive(Debug)]
pub(super) struct Described {
    description: PathBuf,
    _docker: Docker,
    _folder: tempfile::TempDir,
    /// Removes the folder when xtask is ended by a signal.
    _undo: Undo,
}

impl Described {
    /// Makes the image where that is necessary, and starts the engine.
    pub(super) fn start(setup: &Setup, built: &Programs) -> anyhow::Result<Described> {
        let berth = setup.berth()?;
        let folder = tempfile::Builder::new()
            .prefix("lazaret-bench-")
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
        docker.load(&setup.steps, &berth)?;
        let work = folder.path().join("work");
        fs::create_dir(&work).with_context(|| format!("cannot create {}", work.display()))?;
        let description = json!({
            "docker": {
                "socket": docker.socket(),
                "config": docker.client_config(),
                "pid": docker.pid()?,
                "data_root": docker.data_root(),
                "runtime": "lazaret",
            },
            "runtime_config": runtime_config,
            "images": { "berth": { "reference": berth.reference(), "config_digest": berth.config_digest() } },
            "folder": work,
        });
        let path = folder.path().join("engine.json");
        fs::write(&path, serde_json::to_vec_pretty(&description)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Described {
            description: path,
            _docker: docker,
            _folder: folder,
            _undo: undo,
        })
    }

    /// Path of the description.
    pub(super) fn description(&self) -> &Path {
        &self.description
    }
}
