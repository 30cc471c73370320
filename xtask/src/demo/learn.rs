//! Stage 1: two recorded runs under the exerciser, merged into a policy.

use std::process::Stdio;

use anyhow::bail;

use super::world::{BASE, HEALTH, World, supervised};

/// Learns; leaves `recordings/`, `coverage-1.json`, `coverage-2.json`, `policy.yaml` and `profile.json`.
pub(super) fn learn(world: &World) -> anyhow::Result<()> {
    world
        .steps
        .step("learn: two runs, recorded and exercised", |_| {
            let out = world.out.display().to_string();
            let mut args = vec![
                "learn",
                world.hapi.reference(),
                "--out",
                &out,
                "--runs",
                "2",
                "--fhir-base",
                BASE,
            ];
            args.extend([
                "--ready",
                HEALTH,
                "--name",
                "fhir-hapi",
                "--settle",
                "2",
                "--dwell",
                "3",
            ]);
            let run_args: Vec<String> = World::server_args()
                .iter()
                .map(|arg| format!("--run-arg={arg}"))
                .collect();
            args.extend(run_args.iter().map(String::as_str));
            let mut learn = world.lazaret(&args)?;
            let status = supervised(learn.stdout(Stdio::inherit()).stderr(Stdio::inherit()))?;
            if !status.success() {
                bail!("`lazaret learn` ended with {status}");
            }
            Ok(())
        })
}
