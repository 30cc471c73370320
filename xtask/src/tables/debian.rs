//! Debian packages that are read, not installed: downloaded and unpacked under `target/packages`.
//!
//! What is there is used again, in whatever version: `rm -r target/packages` for newer ones.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::command::{command, output, run};

/// A package file.
#[derive(Debug)]
pub(super) struct Package {
    path: PathBuf,
    /// Debian's version of it.
    pub(super) version: String,
}

impl Package {
    /// Has `apt-get` download a package, unless it has done so before.
    ///
    /// # Errors
    /// No `apt-get`, no mirror that has it, or a folder that cannot be written.
    pub(super) fn get(name: &str, target: &Path) -> Result<Self> {
        let folder = target.join("packages").join(name);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        if found(&folder)?.is_none() {
            let download = || {
                let mut apt = command("apt-get", ["download", "--quiet", name]);
                run(apt.current_dir(&folder))
            };
            // With no lists, or lists that name versions the mirror no longer has, the first try fails at once.
            if download().is_err() {
                run(&mut command("apt-get", ["update", "--quiet"]))?;
                download()?;
            }
        }
        let Some(path) = found(&folder)? else {
            bail!("apt-get downloaded nothing into {}", folder.display());
        };
        let mut version = command("dpkg-deb", ["--field"]);
        let version = output(version.arg(&path).arg("Version"))?.trim().to_owned();
        Ok(Self { path, version })
    }

    /// Unpacks it beside itself; what it holds goes away with the result.
    ///
    /// # Errors
    /// A file that is no package, or a full disk.
    pub(super) fn unpack(&self) -> Result<TempDir> {
        let parent = self.path.parent().unwrap_or(Path::new("."));
        let folder = tempfile::tempdir_in(parent)
            .with_context(|| format!("cannot make a folder in {}", parent.display()))?;
        run(command("dpkg-deb", ["--extract"])
            .arg(&self.path)
            .arg(folder.path()))?;
        Ok(folder)
    }
}

fn found(folder: &Path) -> Result<Option<PathBuf>> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
