//! Stage 7: the study's demonstration. A rogue class in a derived image, reached by HTTP, with the privileges that make its
//! attacks possible; each is tried under each protection. What counts is what the host sees: the file on its disk.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use super::facts::{Attack, Facts};
use super::gate::{phase, wait_serving};
use super::serve::Protection;
use super::world::{HEALTH, PORT, World};
use crate::command::output;
use crate::loop_disk::{CONTENT, FILE, LoopDisk};
use crate::network::{get, wait_answering, wait_ready, within};

/// Where the rogue class listens, beside the server.
const ROGUE_PORT: u16 = 8081;
const LIMIT: Duration = Duration::from_secs(120);
const NAMES: [(&str, &str); 5] = [
    ("mount", "mount_escape"),
    ("shell", "server_shell"),
    ("unshare", "unshare"),
    ("ptrace", "ptrace"),
    ("io_uring", "io_uring"),
];

/// Tries every attack under every protection.
pub(super) fn attacks(world: &World, facts: &mut Facts) -> anyhow::Result<()> {
    for protection in [
        Protection::Unconfined,
        Protection::Default,
        Protection::Lazaret,
    ] {
        world
            .steps
            .step(&format!("attacks under `{}`", protection.name()), |step| {
                let disk = LoopDisk::create(&world.out)?;
                let victim = Victim::start(world, protection, &disk)?;
                let round = |name: &'static str| -> anyhow::Result<Vec<Attack>> {
                    let network = world.network(&victim.id)?;
                    let found = NAMES
                        .iter()
                        .map(|(call, attack)| one(&network, &disk, call, attack, name));
                    let found = found.collect::<anyhow::Result<Vec<_>>>();
                    found.with_context(|| world.last_words(&victim.id))
                };
                let mut found = Vec::new();
                if protection == Protection::Lazaret {
                    found.extend(round("lazaret_startup")?);
                    if phase(world, &victim.id)?.as_deref() != Some("startup") {
                        bail!("the attacks of the start took longer than the start");
                    }
                    victim.wait_ready()?;
                    wait_serving(world, &victim.id)?;
                    found.extend(round("lazaret_serving")?);
                } else {
                    found.extend(round(protection.name())?);
                }
                for attack in &found {
                    let verb = if attack.worked { "WORKED" } else { "blocked" };
                    step.line(format_args!(
                        "{} under {}: {verb} {}",
                        attack.name, attack.protection, attack.detail
                    ));
                }
                facts.attacks.extend(found);
                Ok(())
            })?;
    }
    Ok(())
}

fn one(
    network: &Path,
    disk: &LoopDisk,
    call: &str,
    name: &'static str,
    protection: &'static str,
) -> anyhow::Result<Attack> {
    let path = match call {
        "mount" => format!(
            "/attack/mount?device={}&file={FILE}&content=changed",
            disk.device().display()
        ),
        other => format!("/attack/{other}"),
    };
    let (status, body) = within(network, || get(ROGUE_PORT, &path, Duration::from_secs(30)))
        .with_context(|| format!("attack {name} under {protection}"))?;
    let answer: Value = serde_json::from_str(body.trim())
        .with_context(|| format!("attack {name}: status {status}, {body}"))?;
    let said = answer["worked"]
        .as_bool()
        .with_context(|| format!("attack {name}: {body}"))?;
    // for the disk the host's own eyes count, not the attacker's word
    let worked = if call == "mount" {
        disk.read_back()? != CONTENT
    } else {
        said
    };
    if worked != said {
        bail!("attack {name} says {said}, the host sees {worked}");
    }
    let errno = answer["errno"]
        .as_i64()
        .filter(|errno| *errno != 0)
        .map(errno_name);
    Ok(Attack {
        name,
        protection,
        worked,
        detail: answer["detail"].as_str().unwrap_or_default().to_owned(),
        errno,
    })
}

fn errno_name(errno: i64) -> String {
    match errno {
        1 => "EPERM".to_owned(),
        13 => "EACCES".to_owned(),
        38 => "ENOSYS".to_owned(),
        other => format!("errno {other}"),
    }
}

/// The container of the rogue image; dropping it removes it.
struct Victim<'w> {
    world: &'w World,
    id: String,
}

impl<'w> Victim<'w> {
    fn start(
        world: &'w World,
        protection: Protection,
        disk: &LoopDisk,
    ) -> anyhow::Result<Victim<'w>> {
        let mut args = vec!["run".to_owned(), "--detach".to_owned()];
        // the hardened run keeps its other limits: it is given just what a careless operator gives for a backup or a debugger
        let hardened = World::server_args();
        args.extend(
            hardened
                .into_iter()
                .filter(|arg| !arg.contains("no-new-privileges")),
        );
        args.extend([
            "--user=0:0".to_owned(),
            "--cap-add=SYS_ADMIN".to_owned(),
            "--cap-add=SYS_PTRACE".to_owned(),
            "--security-opt=apparmor=unconfined".to_owned(),
            format!("--device={}", disk.device().display()),
        ]);
        args.extend(protection.args().iter().map(ToString::to_string));
        args.push(world.rogue.reference().to_owned());
        let id = output(&mut world.docker.docker(args))?.trim().to_owned();
        let victim = Victim { world, id };
        let answering = within(&world.network(&victim.id)?, || {
            wait_answering(ROGUE_PORT, LIMIT)
        });
        answering.with_context(|| world.last_words(&victim.id))?;
        Ok(victim)
    }

    fn wait_ready(&self) -> anyhow::Result<()> {
        let gone = || !self.world.docker.runs(&self.id);
        let ready = within(&self.world.network(&self.id)?, || {
            wait_ready(PORT, HEALTH, LIMIT, gone)
        });
        ready
            .map(drop)
            .with_context(|| self.world.last_words(&self.id))
    }
}

impl Drop for Victim<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.world.docker.remove(&self.id) {
            eprintln!("cannot remove container {}: {error:#}", self.id);
        }
    }
}
