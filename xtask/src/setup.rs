//! What `demo` and `test` stand on: a machine that can, its packages, our programs, images and private engines.
//!
//! Everything may be asked for again: what is there and unchanged is used as it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::engine::{self, Containerd, Docker, Runtime};
use crate::image::{self, Image};
use crate::programs::Programs;
use crate::steps::Steps;
use crate::{host, packages};

/// A machine that is ready.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Progress, for what comes after.
    pub steps: Steps,
    /// The workspace's root.
    pub workspace: PathBuf,
    /// `target` in the workspace: images, logs, and what the demo makes.
    pub target: PathBuf,
    /// Which Docker is started.
    pub docker: engine::Programs,
}

impl Setup {
    /// Checks the machine and installs the Debian packages that are missing.
    ///
    /// # Errors
    /// [`host::HostCannot`] when the machine cannot; otherwise when a package cannot be installed.
    pub fn prepare() -> anyhow::Result<Self> {
        let setup = Self::without_packages()?;
        host::check()?;
        packages::install(&setup.steps, &setup.target.join("logs"))?;
        Ok(setup)
    }

    /// The same with a newer Docker than Debian's, which is built when it is not there.
    ///
    /// # Errors
    /// As [`Setup::prepare`], and when it does not build.
    pub fn prepare_with_newer_docker() -> anyhow::Result<Self> {
        let setup = Self::prepare()?;
        let folder = engine::newer::programs(&setup.steps, &setup.target)?;
        Ok(Self {
            docker: engine::Programs::Folder(folder),
            ..setup
        })
    }

    /// Only the folders and the clock, for what needs neither root nor packages.
    ///
    /// # Errors
    /// When the workspace is not where xtask was built.
    pub fn without_packages() -> anyhow::Result<Self> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask's folder has no parent")?
            .canonicalize()
            .context("the workspace is not where xtask was built")?;
        let target = workspace.join("target");
        Ok(Self {
            steps: Steps::start(),
            workspace,
            target,
            docker: engine::Programs::Installed,
        })
    }

    /// Builds `lazaret`, `lazaretd` and `lazaret-runtime`, optimised.
    ///
    /// # Errors
    /// When one does not build.
    pub fn programs(&self) -> anyhow::Result<Programs> {
        Programs::build(&self.steps, &self.workspace)
    }

    /// The target FHIR server's image, `lazaret/hapi:target`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn hapi(&self) -> anyhow::Result<Image> {
        image::hapi(&self.steps, &self.workspace, &self.target)
    }

    /// The image with the rogue layer on top, `lazaret/hapi:rogue`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn rogue(&self, hapi: &Image) -> anyhow::Result<Image> {
        image::rogue(&self.steps, &self.workspace, &self.target, hapi)
    }

    /// The small server for the gate's own tests, `lazaret/berth:test`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn berth(&self) -> anyhow::Result<Image> {
        image::berth(&self.steps, &self.workspace, &self.target)
    }

    /// A private `dockerd` with these runtimes besides runc.
    ///
    /// # Errors
    /// When it does not start.
    pub fn docker(&self, runtimes: &BTreeMap<String, Runtime>) -> anyhow::Result<Docker> {
        Docker::start(&self.steps, &self.target, &self.docker, runtimes)
    }

    /// A private `containerd`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn containerd(&self) -> anyhow::Result<Containerd> {
        Containerd::start(&self.steps, &self.target)
    }
}
