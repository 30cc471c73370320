//! `cargo xtask audit`: the audit export against a real FHIR server.
//!
//! Starts the target server of the demonstration in a private engine and runs the tests that need one: what `lazaret-fhir` makes
//! of each kind of event is given to the server's validator, and what the gate's exporter posts is read back. The tests judge.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::command::output;
use crate::network::wait_ready;
use crate::programs::{built, cargo};
use crate::setup::Setup;

/// Names the server to the tests.
const VARIABLE: &str = "LAZARET_AUDIT_FHIR";

/// The server's port in the engine's network.
const PORT: u16 = 8080;

const READY_LIMIT: Duration = Duration::from_secs(300);

/// The tests' programs, as cargo names them, and what builds them.
const TESTS: [(&str, &[&str]); 2] = [
    ("audit", &["--package=lazaret-fhir", "--test=audit"]),
    ("lazaretd", &["--package=lazaretd", "--bin=lazaretd"]),
];

/// How the server is run. It has the whole heap for the definitions.
const SERVER: [&str; 9] = [
    "run",
    "--detach",
    "--network=host",
    "--read-only",
    "--tmpfs=/tmp:mode=1777",
    "--tmpfs=/data:mode=1777",
    "--cap-drop=ALL",
    "--env=FHIR_BIND=127.0.0.1",
    "--env=JDK_JAVA_OPTIONS=-Xmx1500m",
];

/// Runs it; what the tests said is printed, and kept in `target/logs/audit.log`.
///
/// # Errors
/// When something cannot be built or started, or a test fails.
pub fn run(setup: &Setup) -> anyhow::Result<()> {
    let hapi = setup.hapi()?;
    let tests = setup.steps.step("tests that need a FHIR server", |_| {
        TESTS
            .iter()
            .map(|(name, which)| {
                let mut build = cargo(&setup.workspace, "test");
                built(build.args(["--no-run", "--locked"]).args(*which), &[name])
            })
            .collect::<anyhow::Result<Vec<_>>>()
    })?;
    let docker = setup.docker(&BTreeMap::new())?;
    docker.load(&setup.steps, &hapi)?;
    let id = setup.steps.step("FHIR server", |_| {
        let id = output(docker.docker(SERVER).arg(hapi.reference()))?;
        let id = id.trim().to_owned();
        docker.within(|| wait_ready(PORT, "/health", READY_LIMIT, || !docker.runs(&id)))?;
        anyhow::Ok(id)
    })?;
    let mut said = String::new();
    let ran = TESTS.iter().zip(&tests).try_for_each(|((name, _), test)| {
        let text = setup.steps.step(&format!("tests of {name}"), |_| {
            let mut command = docker.in_network(test.path(name)?)?;
            command.args(["real", "--ignored", "--show-output", "--test-threads=1"]);
            command.env(VARIABLE, format!("http://127.0.0.1:{PORT}/fhir"));
            output(&mut command)
        })?;
        said.push_str(&text);
        ensure!(
            text.contains("test result: ok.") && !text.contains(" 0 passed"),
            "{name} has no test that ran"
        );
        Ok(())
    });
    docker.remove(&id)?;
    print!("{said}");
    let log = setup.target.join("logs/audit.log");
    fs::create_dir_all(setup.target.join("logs"))?;
    fs::write(&log, said).with_context(|| format!("cannot write {}", log.display()))?;
    ran
}
