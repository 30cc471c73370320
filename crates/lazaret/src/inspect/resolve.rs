//! From what was typed to one running container: asks Docker, containerd and the cgroups, and takes only what agrees.
//!
//! An engine's word for a process number is not enough to stop that process: the engine may be on another machine
//! (`DOCKER_HOST`), or the number used again. The process must be outside of this program's pid namespace, in a cgroup that
//! bears the container's id.

use super::client::{self, AskError};
use crate::exit::{Exit, Failure, OrExit, Outcome, fail};
use anyhow::{Context as _, anyhow, bail};
use lazaret_image::ContainerId;
use lazaret_kernel::process::{self, Identity, NamespaceId};
use lazaret_kernel::tasks;
use std::collections::{BTreeMap, BTreeSet};

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
/// pid namespace or is in no cgroup of its own, and when an engine does not answer or processes may not be looked at.
pub(super) fn container(given: &str) -> Outcome<Container> {
    ContainerId::new(given).or_exit(Exit::Usage)?;
    let Seen { containers, hidden } = by_cgroup(given).or_exit(Exit::HostCannot)?;
    let mut found: BTreeSet<Container> = containers.into_iter().collect();
    let mut failures = Vec::new();
    // a whole id is nobody's name
    if found.is_empty() || !is_id(given) {
        for answer in [by_docker(given), by_containerd(given)] {
            match answer {
                Ok(container) => {
                    found.insert(container);
                }
                Err(failure) => failures.push(failure),
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
        (None, _) => Err(nobody(given, &failures, hidden)),
    }
}

/// Why none was found: the mistake is the user's only if everyone who could know it has answered.
fn nobody(given: &str, failures: &[Failure], hidden: usize) -> Failure {
    let mut reasons: Vec<String> = failures
        .iter()
        .map(|failure| format!("{:#}", failure.error))
        .collect();
    let mut exit = Exit::Usage;
    if failures.iter().any(|one| one.exit == Exit::HostCannot) {
        exit = Exit::HostCannot;
    }
    if hidden > 0 {
        exit = Exit::HostCannot;
        let reason =
            format!("{hidden} processes in containers may not be looked at, this needs root");
        reasons.insert(0, reason);
    }
    let error = anyhow!("no running container `{given}`: {}", reasons.join("; "));
    Failure { exit, error }
}

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

/// What the cgroups of all processes say.
struct Seen {
    containers: Vec<Container>,
    /// Processes of containers that this user may not look at.
    hidden: usize,
}

/// Every container whose id begins so, from the cgroups of all processes.
fn by_cgroup(given: &str) -> anyhow::Result<Seen> {
    let mut hidden = 0;
    let mut firsts: BTreeMap<String, (usize, u64, Container)> = BTreeMap::new();
    let digits = is_hex(given) && given.len() >= SHORT_ID;
    let own = process::own_pid_namespace()?;
    for pid in tasks::processes()? {
        let (cgroups, namespace, init) = match look(pid) {
            Ok(looked) => looked,
            // whatever ends meanwhile is no running container
            Err(error) => {
                hidden += usize::from(is_denied(&error) && is_below(pid));
                continue;
            }
        };
        let ids = cgroups.iter().filter_map(|cgroup| id_in(cgroup));
        for id in ids.filter(|id| digits && id.starts_with(given)) {
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
    let containers = firsts.into_values().map(|(_, _, first)| first).collect();
    Ok(Seen { containers, hidden })
}

fn is_denied(error: &process::ProcessError) -> bool {
    let process::ProcessError::Read { source, .. } = error else {
        return false;
    };
    source.kind() == std::io::ErrorKind::PermissionDenied
}

/// Whether a process is in a pid namespace below this program's own: everybody may know that (`NSpid`, proc(5)).
fn is_below(pid: u32) -> bool {
    process::status(pid).is_ok_and(|status| status.ids.len() > 1)
}

fn look(pid: u32) -> Result<(BTreeSet<String>, NamespaceId, Identity), process::ProcessError> {
    let identity = process::identity(pid)?;
    let namespace = process::pid_namespace(pid)?;
    let cgroups = tasks::cgroups(pid)?;
    Ok((cgroups, namespace, identity))
}

/// The container of this name or id that the engine behind `docker` runs.
///
/// # Errors
/// As [`container`].
fn by_docker(given: &str) -> Outcome<Container> {
    let form = "{{.Id}} {{.State.Pid}}";
    let args = ["container", "inspect", "--format", form, given];
    let said = asked("docker", "docker", &args)?;
    let mut words = said.split_ascii_whitespace();
    let (Some(id), Some(Ok(pid))) = (words.next(), words.next().map(str::parse)) else {
        return fail(
            Exit::HostCannot,
            "docker: the engine gave no id and process number",
        );
    };
    if pid == 0 {
        let message = format!("docker: container `{given}` does not run");
        return fail(Exit::HostCannot, message);
    }
    confirmed(id, pid)
        .context("docker")
        .or_exit(Exit::HostCannot)
}

/// What an engine's client says.
///
/// # Errors
/// [`Exit::HostCannot`] when the engine may know the container and does not say; [`Exit::Usage`] when the engine is not here
/// or does not know it.
fn asked(engine: &'static str, program: &str, args: &[&str]) -> Outcome<String> {
    client::ask(program, args, client::LIMIT).map_err(|error| {
        let exit = match error {
            AskError::Start { .. } | AskError::Refused { .. } => Exit::Usage,
            AskError::Silent { .. } | AskError::TooLong { .. } | AskError::Read { .. } => {
                Exit::HostCannot
            }
        };
        // the user's setting, not ours
        let host = std::env::var("DOCKER_HOST").ok();
        let error = match (&error, host) {
            (AskError::Silent { .. }, Some(host)) if program == "docker" => {
                anyhow::Error::new(error).context(format!("docker at DOCKER_HOST={host}"))
            }
            _ => anyhow::Error::new(error).context(engine),
        };
        Failure { exit, error }
    })
}

/// A container whose first process is known, checked.
///
/// # Errors
/// It ended, is on another machine, in no cgroup of its own, or in this program's own pid namespace.
fn confirmed(id: &str, pid: u32) -> anyhow::Result<Container> {
    let (cgroups, namespace, init) =
        look(pid).with_context(|| format!("container {id} has ended or is not on this machine"))?;
    if !cgroups.iter().any(|cgroup| names(cgroup, id)) {
        bail!("container {id}: process {pid} is in no cgroup of its name");
    }
    if namespace == process::own_pid_namespace()? {
        bail!("container {id} shares the host's pid namespace: name one of its processes (--pid)");
    }
    Ok(Container {
        id: id.to_owned(),
        init,
        namespace,
    })
}

/// The container of this id, or whose id begins so, that containerd runs in one of its namespaces.
///
/// # Errors
/// As [`container`].
fn by_containerd(given: &str) -> Outcome<Container> {
    let mut found = None;
    for namespace in ctr(&["namespaces", "list", "--quiet"])?.lines() {
        let tasks = ctr(&["--namespace", namespace.trim(), "tasks", "list"])?;
        for (id, pid) in running(&tasks, given) {
            if found.replace((id, pid)).is_some() {
                let message = format!("containerd: `{given}` is several tasks");
                return fail(Exit::Usage, message);
            }
        }
    }
    let Some((id, pid)) = found else {
        return fail(
            Exit::Usage,
            format!("containerd: no running task `{given}` in any namespace"),
        );
    };
    confirmed(&id, pid)
        .context("containerd")
        .or_exit(Exit::HostCannot)
}

fn ctr(args: &[&str]) -> Outcome<String> {
    let limited = [&["--connect-timeout", CONNECT_LIMIT], args].concat();
    asked("containerd", "ctr", &limited)
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
    fn only_who_could_know_and_says_no_makes_it_the_users_mistake() {
        let failed = |exit| Failure {
            exit,
            error: anyhow!("reason"),
        };
        let unknown = nobody("fhir", &[failed(Exit::Usage), failed(Exit::Usage)], 0);
        assert_eq!(unknown.exit, Exit::Usage);
        assert_eq!(
            unknown.error.to_string(),
            "no running container `fhir`: reason; reason"
        );
        let silent = nobody("fhir", &[failed(Exit::Usage), failed(Exit::HostCannot)], 0);
        assert_eq!(silent.exit, Exit::HostCannot);
        let hidden = nobody("fhir", &[failed(Exit::Usage)], 3);
        assert_eq!(hidden.exit, Exit::HostCannot);
        assert!(
            hidden.error.to_string().contains("3 processes"),
            "{:#}",
            hidden.error
        );
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
