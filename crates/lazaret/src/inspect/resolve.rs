//! From what was typed to one running container: asks Docker, containerd and the cgroups, and takes only what agrees.
//!
//! An engine's word for a process number is not enough to stop that process: the engine may be on another machine
//! (`DOCKER_HOST`), or the number used again. The process must be outside of this program's pid namespace, in a cgroup that
//! bears the container's id.

use crate::engine::Engine;
use crate::exit::{Exit, OrExit, Outcome, fail};
use anyhow::{Context as _, bail};
use lazaret_image::ContainerId;
use lazaret_kernel::process::{self, Identity, NamespaceId};
use lazaret_kernel::tasks;
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

/// Digits of an id that a person may leave out the others of; Docker and `ctr` show so many.
const SHORT_ID: usize = 12;

/// How long `ctr` waits for a containerd that is not there.
const CONNECT_LIMIT: &str = "1s";

/// A container that runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Container {
    /// Its id.
    pub(super) id: String,
    /// Its first process.
    pub(super) init: Identity,
    /// Its pid namespace, never this program's own.
    pub(super) namespace: NamespaceId,
}

/// The one running container that this is the id of, the beginning of the id (12 digits at least), or the name.
///
/// # Errors
/// [`Exit::Usage`] for none, several, and what is no name; [`Exit::HostCannot`] for one that does not run, shares the host's
/// pid namespace or is in no cgroup of its own.
pub(super) fn container(given: &str) -> Outcome<Container> {
    ContainerId::new(given).or_exit(Exit::Usage)?;
    let mut found = BTreeSet::new();
    let mut reasons = Vec::new();
    for id in by_cgroup(given).or_exit(Exit::HostCannot)? {
        found.insert(id);
    }
    // a whole id is nobody's name
    if found.is_empty() || !is_id(given) {
        for answer in [by_docker(given), by_containerd(given)] {
            match answer {
                Ok(container) => found.extend(container),
                Err(error) => reasons.push(format!("{error:#}")),
            }
        }
    }
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(one), Some(other)) => fail(
            Exit::Usage,
            format!(
                "`{given}` is several containers, among them {} and {}",
                one.id, other.id
            ),
        ),
        (None, _) => {
            // an engine that knows it has said why it does not count
            let known = reasons.iter().any(|reason| reason.starts_with(KNOWN));
            let exit = if known { Exit::HostCannot } else { Exit::Usage };
            fail(
                exit,
                format!(
                    "no running container `{given}`: no process is in a cgroup of that name; {}",
                    reasons.join("; ")
                ),
            )
        }
    }
}

/// How the reasons begin that an engine gives for a container that it knows.
const KNOWN: &str = "container ";

/// 64 lower-case hexadecimal digits: how Docker, containerd's CRI, podman and CRI-O name containers.
fn is_id(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The part of a cgroup's name that is the container: `ID`, `docker-ID.scope`, `cri-containerd-ID.scope`,
/// `pod:cri-containerd:ID` (systemd names of runc's `cgroupsPath`).
fn tail(cgroup: &str) -> &str {
    let name = cgroup.strip_suffix(".scope").unwrap_or(cgroup);
    name.rsplit(['-', ':']).next().unwrap_or(name)
}

/// The id in a cgroup's name, if it is one of 64 digits.
pub(super) fn id_in(cgroup: &str) -> Option<&str> {
    Some(tail(cgroup)).filter(|tail| is_id(tail))
}

/// Whether a cgroup is that of the container with this id, which may be any name (`ctr run`).
pub(super) fn names(cgroup: &str, id: &str) -> bool {
    let name = cgroup.strip_suffix(".scope").unwrap_or(cgroup);
    let rest = name.strip_suffix(id);
    // an id of 64 digits cannot be the end of another one; a shorter one can, so only the whole name counts
    rest.is_some_and(|rest| rest.is_empty() || (is_id(id) && rest.ends_with(['-', ':'])))
}

/// Every container whose id begins so, from the cgroups of all processes.
fn by_cgroup(given: &str) -> anyhow::Result<Vec<Container>> {
    if !is_hex(given) || given.len() < SHORT_ID {
        return Ok(Vec::new());
    }
    let own = process::own_pid_namespace()?;
    let mut firsts: BTreeMap<String, (usize, u64, Container)> = BTreeMap::new();
    for pid in tasks::processes()? {
        // whatever ends meanwhile is no running container
        let Ok((cgroups, namespace, init)) = look(pid) else {
            continue;
        };
        let ids = cgroups.iter().filter_map(|cgroup| id_in(cgroup));
        for id in ids.filter(|id| id.starts_with(given)) {
            if namespace == own {
                continue;
            }
            let Ok(status) = process::status(pid) else {
                continue;
            };
            // the container's own namespace is above those made inside; its first process is its oldest
            let rank = (status.ids.len(), init.start_ticks);
            let container = Container {
                id: id.to_owned(),
                init,
                namespace,
            };
            let inner = status.ids.last().copied();
            let known = firsts.get(id).map(|(level, start, _)| (*level, *start));
            if known.is_none_or(|known| rank < known || (rank == known && inner == Some(1))) {
                firsts.insert(id.to_owned(), (rank.0, rank.1, container));
            }
        }
    }
    Ok(firsts.into_values().map(|(_, _, first)| first).collect())
}

fn look(pid: u32) -> Result<(BTreeSet<String>, NamespaceId, Identity), process::ProcessError> {
    let identity = process::identity(pid)?;
    let namespace = process::pid_namespace(pid)?;
    let cgroups = tasks::cgroups(pid)?;
    Ok((cgroups, namespace, identity))
}

/// The container of this name or id that the engine behind `docker` runs.
fn by_docker(given: &str) -> anyhow::Result<Option<Container>> {
    let engine = Engine;
    let state = engine.state(given).context("docker")?;
    if !state.running || state.pid == 0 {
        bail!("{KNOWN}`{given}` of docker does not run");
    }
    let (cgroups, ..) = look(state.pid)
        .with_context(|| format!("{KNOWN}`{given}` of docker is not on this machine"))?;
    // The engine gave a number, the cgroup gives an id: it is the same container if the engine has that number for that id.
    for id in cgroups.iter().filter_map(|cgroup| id_in(cgroup)) {
        if engine.state(id).is_ok_and(|again| again == state) {
            return confirmed(id, state.pid).map(Some);
        }
    }
    bail!(
        "{KNOWN}`{given}` of docker: process {} is in no cgroup of its name",
        state.pid
    )
}

/// A container whose first process is known, checked.
fn confirmed(id: &str, pid: u32) -> anyhow::Result<Container> {
    let (cgroups, namespace, init) =
        look(pid).with_context(|| format!("{KNOWN}{id} ended meanwhile"))?;
    if !cgroups.iter().any(|cgroup| names(cgroup, id)) {
        bail!("{KNOWN}{id}: process {pid} is in no cgroup of its name");
    }
    if namespace == process::own_pid_namespace()? {
        bail!("{KNOWN}{id} shares the host's pid namespace: name one of its processes (--pid)");
    }
    Ok(Container {
        id: id.to_owned(),
        init,
        namespace,
    })
}

/// The container of this id, or whose id begins so, that containerd runs in one of its namespaces.
fn by_containerd(given: &str) -> anyhow::Result<Option<Container>> {
    let mut found = None;
    for namespace in ctr(&["namespaces", "list", "--quiet"])?.lines() {
        let tasks = ctr(&["--namespace", namespace.trim(), "tasks", "list"])?;
        for (id, pid) in running(&tasks, given) {
            if found.replace((id, pid)).is_some() {
                bail!("{KNOWN}`{given}` is several tasks of containerd");
            }
        }
    }
    match found {
        Some((id, pid)) => confirmed(id.as_str(), pid).map(Some),
        None => bail!("containerd has no running task of that name"),
    }
}

/// The tasks of this id that run, from `ctr tasks list`: a headline, then id, process and state in columns.
fn running(list: &str, given: &str) -> Vec<(String, u32)> {
    let short = is_hex(given) && given.len() >= SHORT_ID;
    let tasks = list.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let id = columns.next()?;
        let pid = columns.next()?.parse().ok()?;
        let runs = matches!(columns.next()?, "RUNNING" | "PAUSED");
        let meant = id == given || (short && id.starts_with(given));
        (runs && meant).then(|| (id.to_owned(), pid))
    });
    tasks.collect()
}

fn ctr(args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("ctr")
        .args(["--connect-timeout", CONNECT_LIMIT])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context("containerd: `ctr` cannot be run")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.trim().lines().last().unwrap_or("it gave no reason");
        bail!("containerd: {last}");
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_name_containers_in_the_engines_ways() {
        let id = "0123456789abcdef".repeat(4);
        for cgroup in [
            id.clone(),
            format!("docker-{id}.scope"),
            format!("cri-containerd-{id}.scope"),
            format!("kubepods-pod1.slice:cri-containerd:{id}"),
            format!("libpod-{id}.scope"),
        ] {
            assert_eq!(id_in(&cgroup), Some(id.as_str()), "{cgroup}");
            assert!(names(&cgroup, &id), "{cgroup}");
        }
        for cgroup in [
            "docker",
            "fhir",
            &id[1..],
            &format!("{id}0"),
            &id.to_uppercase(),
        ] {
            assert_eq!(id_in(cgroup), None, "{cgroup}");
            assert!(!names(cgroup, &id), "{cgroup}");
        }
        assert!(names("fhir", "fhir"));
        assert!(!names("my-fhir", "fhir"), "another container's name");
        assert!(!names(&format!("x{id}"), &id));
    }

    #[test]
    fn tasks_of_containerd_are_read_from_its_columns() {
        let list = "TASK                PID      STATUS\n\
                    fhir                812      RUNNING\n\
                    0123456789abcdef    813      PAUSED\n\
                    old                 0        STOPPED\n";
        let fhir = vec![("fhir".to_owned(), 812)];
        assert_eq!(running(list, "fhir"), fhir);
        let paused = vec![("0123456789abcdef".to_owned(), 813)];
        assert_eq!(running(list, "0123456789ab"), paused);
        for none in ["fhi", "0123456789a", "old", "TASK"] {
            assert_eq!(running(list, none), [], "{none}");
        }
    }
}
