//! Which threads are a container's.

use super::{MAX_THREADS, Thread, resolve, threads_of};
use crate::exit::{Exit, OrExit, Outcome, fail};
use lazaret_kernel::filters::Road;
use lazaret_kernel::process;
use lazaret_kernel::tasks;

/// Every thread in the container's pid namespace and those below it.
///
/// Without those that another container's cgroup holds: the containers of a pod may share one pid namespace
/// (`shareProcessNamespace`).
pub(super) fn threads(container: &resolve::Container) -> Outcome<Vec<Thread>> {
    let mut threads = Vec::new();
    for pid in tasks::processes().or_exit(Exit::HostCannot)? {
        match of_process(container, pid) {
            Ok(found) => threads.extend(found),
            Err(_) if !exists(pid) => {}
            Err(failure) => return Err(failure),
        }
        if threads.len() > MAX_THREADS {
            return fail(
                Exit::HostCannot,
                format!("container has more than {MAX_THREADS} threads, they are not read"),
            );
        }
    }
    Ok(threads)
}

fn exists(pid: u32) -> bool {
    process::status(pid).is_ok_and(|status| !status.is_over())
}

fn of_process(container: &resolve::Container, pid: u32) -> Outcome<Vec<Thread>> {
    // One id: it is in this program's own pid namespace, whose other processes are none of our business and may not be
    // looked at (they can have capabilities that we lack).
    if process::status(pid).or_exit(Exit::HostCannot)?.ids.len() < 2 {
        return Ok(Vec::new());
    }
    if !tasks::is_within(pid, container.namespace).or_exit(Exit::HostCannot)? {
        return Ok(Vec::new());
    }
    let cgroups = tasks::cgroups(pid).or_exit(Exit::HostCannot)?;
    let ours = cgroups
        .iter()
        .any(|name| resolve::names(name, &container.id));
    let others = || cgroups.iter().any(|name| resolve::id_in(name).is_some());
    if !ours && others() {
        return Ok(Vec::new());
    }
    // its own, which is that of a container inside the container if it is not the container's
    let namespace = process::pid_namespace(pid).or_exit(Exit::HostCannot)?;
    threads_of(pid, Road::Container(namespace))
}
