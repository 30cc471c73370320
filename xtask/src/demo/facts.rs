//! What only the driver of the demonstration sees: `facts.json`, the part of the report that no program of Lazaret writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::Serialize;

use super::world::World;
use crate::command::{command, output};

/// Wire form; `lazaret report` reads it strictly.
#[derive(Debug, Serialize)]
pub(super) struct Facts {
    v: u32,
    subject: String,
    made_ms: u64,
    versions: BTreeMap<&'static str, String>,
    /// Id of the container in which the exercise ran under Lazaret.
    pub(super) container: String,
    pub(super) refusals: Vec<Refusal>,
    pub(super) attacks: Vec<Attack>,
    pub(super) daemon_restart: Option<DaemonRestart>,
    /// Seconds from `docker run` to the first good answer.
    pub(super) starts: BTreeMap<&'static str, Vec<f64>>,
}

/// A start with papers that are not in order.
#[derive(Debug, Serialize)]
pub(super) struct Refusal {
    pub(super) case: &'static str,
    pub(super) started: bool,
    pub(super) reason: String,
}

/// One attack under one protection.
#[derive(Debug, Serialize)]
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) protection: &'static str,
    pub(super) worked: bool,
    pub(super) detail: String,
    pub(super) errno: Option<String>,
}

/// The daemon killed and started again under requests.
#[derive(Debug, Serialize)]
pub(super) struct DaemonRestart {
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) asked_refused: Option<u64>,
    pub(super) down_seconds: f64,
}

impl Facts {
    /// With the versions of what takes part, as each says it of itself.
    pub(super) fn new(world: &World) -> anyhow::Result<Facts> {
        let first = |text: String| text.lines().next().unwrap_or_default().trim().to_owned();
        let docker =
            output(
                &mut world
                    .docker
                    .docker(["version", "--format", "{{.Server.Version}}"]),
            )?;
        let versions = BTreeMap::from([
            (
                "lazaret",
                first(output(&mut world.lazaret(&["--version"])?)?)
                    .trim_start_matches("lazaret ")
                    .to_owned(),
            ),
            (
                "kernel",
                first(fs::read_to_string("/proc/sys/kernel/osrelease")?),
            ),
            ("docker", first(docker)),
            ("runc", first(output(&mut command("runc", ["--version"]))?)),
            (
                "containerd",
                first(output(&mut command("containerd", ["--version"]))?),
            ),
            ("java", first(output(&mut command("java", ["--version"]))?)),
            ("hapi", "HAPI FHIR JPA 8.8.0 (R4)".to_owned()),
        ]);
        let made_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("the clock is before 1970")?
            .as_millis();
        Ok(Facts {
            v: 1,
            subject: format!("HAPI FHIR JPA 8.8.0 (R4), {}", world.hapi.reference()),
            made_ms: u64::try_from(made_ms)?,
            versions,
            container: String::new(),
            refusals: Vec::new(),
            attacks: Vec::new(),
            daemon_restart: None,
            starts: BTreeMap::new(),
        })
    }

    /// Writes `facts.json`.
    pub(super) fn write(&self, out: &Path) -> anyhow::Result<()> {
        let path = out.join("facts.json");
        fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}
