//! Stage 7: the study's demonstration. A rogue class in a derived image, reached by HTTP, with the privileges that make its
//! attacks possible; each is tried under each protection. What counts is what the host sees: the file on its disk.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::facts::{Attack, Facts};
use super::gate::{phase, wait_serving};
use super::http::{Network, get};
use super::serve::Protection;
use super::world::{HEALTH, World};
use crate::command::output;
use crate::loop_disk::{CONTENT, FILE, LoopDisk};

const FHIR_PORT: u16 = 8091;
const ROGUE_PORT: u16 = 8092;
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
    let network = Network::of(world.docker.pid()?)?;
    for protection in [
        Protection::Unconfined,
        Protection::Default,
        Protection::Lazaret,
    ] {
        world
            .steps
            .step(&format!("attacks under `{}`", protection.name()), |step| {
                let disk = LoopDisk::create(&world.out)?;
                let victim = Victim::start(world, protection, &disk, &network)?;
                let round = |name: &'static str| -> anyhow::Result<Vec<Attack>> {
                    let found = NAMES
                        .iter()
                        .map(|(call, attack)| one(&network, &disk, call, attack, name));
                    found.collect::<anyhow::Result<Vec<_>>>()
                };
                let mut found = Vec::new();
                if protection == Protection::Lazaret {
                    found.extend(round("lazaret_startup")?);
                    if phase(world, &victim.id)?.as_deref() != Some("startup") {
                        bail!("the attacks of the start took longer than the start");
                    }
                    victim.wait_ready(&network)?;
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
    network: &Network,
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
    let (status, body) = network
        .run(|| get(ROGUE_PORT, &path, Duration::from_secs(30)))?
        .with_context(|| format!("attack {name}"))?;
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
        network: &Network,
    ) -> anyhow::Result<Victim<'w>> {
        let mut args = vec!["run".to_owned(), "--detach".to_owned()];
        // the hardened run keeps its other limits: it is given just what a careless operator gives for a backup or a debugger
        let hardened = World::server_args(FHIR_PORT);
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
            format!("--env=ROGUE_PORT={ROGUE_PORT}"),
        ]);
        args.extend(protection.args().iter().map(ToString::to_string));
        args.push(world.rogue.reference().to_owned());
        let id = output(&mut world.docker.docker(args))?.trim().to_owned();
        let victim = Victim { world, id };
        victim.wait(network, || {
            get(ROGUE_PORT, "/", Duration::from_secs(5)).is_ok()
        })?;
        Ok(victim)
    }

    fn wait_ready(&self, network: &Network) -> anyhow::Result<()> {
        self.wait(network, || {
            get(FHIR_PORT, HEALTH, Duration::from_secs(5)).is_ok_and(|(status, _)| status == 200)
        })
    }

    fn wait(&self, network: &Network, done: impl Fn() -> bool + Sync) -> anyhow::Result<()> {
        let began = Instant::now();
        let came = network.run(|| {
            while !done() {
                if began.elapsed() > LIMIT {
                    return false;
                }
                std::thread::sleep(Duration::from_millis(25));
            }
            true
        })?;
        if !came {
            let logs = self
                .world
                .docker
                .docker(["logs", "--tail", "5", &self.id])
                .output()?;
            bail!(
                "the rogue server does not answer: {}",
                String::from_utf8_lossy(&logs.stderr).trim()
            );
        }
        Ok(())
    }
}

impl Drop for Victim<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.world.docker.remove(&self.id) {
            eprintln!("cannot remove container {}: {error:#}", self.id);
        }
    }
}
