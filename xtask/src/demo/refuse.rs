//! Stage 6: starts with papers that are not in order. None may start, and each must say why in one sentence.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

use super::facts::{Facts, Refusal};
use super::serve::Protection;
use super::trust::{self, Papers};
use super::world::World;
use crate::command::output;

/// Tries each case, and at the end puts the good papers back.
pub(super) fn refusals(world: &World, papers: &Papers, facts: &mut Facts) -> anyhow::Result<()> {
    let good = fs::read(&papers.good)?;
    let bundle = trust::folder(world, world.hapi.config_digest())?.join("bundle.json");
    let rogue = trust::folder(world, world.rogue.config_digest())?.join("bundle.json");
    let cases: [(&'static str, Option<Vec<u8>>); 4] = [
        ("changed_byte", Some(one_byte_changed(&good)?)),
        ("other_key", Some(fs::read(&papers.other_key)?)),
        ("other_image", Some(fs::read(&rogue)?)),
        ("missing", None),
    ];
    for (case, bytes) in cases {
        match &bytes {
            Some(bytes) => fs::write(&bundle, bytes)?,
            None => fs::remove_file(&bundle)?,
        }
        let refusal = attempt(world, case)?;
        trust::install(world, &papers.good)?;
        facts.refusals.push(refusal);
    }
    // no profile either: then it is the runtime that refuses, as nothing can be put into the configuration
    let profile = trust::folder(world, world.hapi.config_digest())?.join("profile.json");
    fs::remove_file(&profile)?;
    let refusal = attempt(world, "no_profile")?;
    facts.refusals.push(refusal);
    // a laxer profile than the policy says, put there by somebody who can write the file
    trust::install(world, &papers.good)?;
    loosen(&profile)?;
    let refusal = attempt(world, "loosened_profile")?;
    facts.refusals.push(refusal);
    trust::install(world, &papers.good)
}

/// Changes one character inside the signed payload.
fn one_byte_changed(bundle: &[u8]) -> anyhow::Result<Vec<u8>> {
    let text = std::str::from_utf8(bundle).context("the bundle is no text")?;
    let payload = text
        .find("\"payload\":\"")
        .context("the bundle has no payload")?
        + "\"payload\":\"".len();
    let mut changed = bundle.to_vec();
    let byte = changed
        .get_mut(payload + 400)
        .context("the payload is short")?;
    *byte = if *byte == b'A' { b'B' } else { b'A' };
    Ok(changed)
}

/// Lets the kernel allow what the policy has asked.
fn loosen(profile: &Path) -> anyhow::Result<()> {
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(profile)?)?;
    let rules = value["syscalls"]
        .as_array_mut()
        .context("the profile has no rules")?;
    let asked = rules
        .iter_mut()
        .find(|rule| rule["action"] == "SCMP_ACT_NOTIFY")
        .context("nothing is asked")?;
    let names = asked["names"].as_array_mut().context("no names")?;
    let before = names.len();
    names.retain(|name| name != "ptrace" && name != "execve");
    ensure!(names.len() < before, "execve is not asked");
    rules.push(serde_json::json!({ "names": ["execve"], "action": "SCMP_ACT_ALLOW" }));
    fs::write(profile, serde_json::to_vec(&value)?).context("cannot write the profile")
}

fn attempt(world: &World, case: &'static str) -> anyhow::Result<Refusal> {
    world
        .steps
        .step(&format!("start with papers not in order: {case}"), |step| {
            let name = format!("refused-{}", case.replace('_', "-"));
            let mut args = vec!["run".to_owned(), format!("--name={name}")];
            args.extend(World::server_args());
            args.extend(Protection::Lazaret.args().iter().map(ToString::to_string));
            args.extend([world.hapi.reference().to_owned(), "--version".to_owned()]);
            let done = world
                .docker
                .docker(args)
                .output()
                .context("cannot run docker")?;
            let id = output(
                &mut world
                    .docker
                    .docker(["inspect", "--format", "{{.Id}}", &name]),
            )?;
            world.docker.remove(&name)?;
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            let reason = said
                .lines()
                .find(|line| line.contains("lazaret"))
                .unwrap_or_default()
                .trim()
                .to_owned();
            step.line(&reason);
            // the engine calls a container started before its program runs; what counts is whether the program did: a JVM
            // would have printed its version, and the gate would have admitted it
            let started =
                done.status.success() || !done.stdout.is_empty() || admitted(world, id.trim())?;
            Ok(Refusal {
                case,
                started,
                reason,
            })
        })
}

/// Whether the gate let this container go on.
fn admitted(world: &World, id: &str) -> anyhow::Result<bool> {
    let events = fs::read_to_string(world.events()).context("cannot read the events")?;
    Ok(events
        .lines()
        .any(|line| line.contains(id) && line.contains("\"type\":\"admitted\"")))
}
