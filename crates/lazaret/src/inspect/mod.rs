//! What seccomp holds a running container or process to: which filters the kernel runs for which of its threads.
//!
//! Reads; decides nothing, prints nothing. Threads without filters are not touched, the others are stopped for well under a
//! millisecond and do not notice (`lazaret_kernel::filters`). The answer is of one moment: a thread that begins later has
//! the filters of the thread that made it, but a process that is put in from outside (`docker exec`) may have others.

mod client;
mod container;
mod resolve;

use crate::exit::{Exit, OrExit, Outcome, fail};
use lazaret_core::filter::program::Program;
use lazaret_kernel::filters::{self, Chain, Named, ReadError, Road};
use lazaret_kernel::process::{self, Identity, Seccomp};
use lazaret_kernel::tasks;
use std::collections::BTreeMap;

/// Threads of one target at most; more than any container that this was made for has (a FHIR server: 60 to 200).
const MAX_THREADS: usize = 4096;

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Everything in a container's pid namespace, by the container's id, the beginning of it, or its name.
    Container(String),
    /// All threads of one process, of any pid namespace, that a person named.
    Process(u32),
}

/// How many threads are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// One thread of each process for each number of filters; the others with as many are taken to have the same. Enough
    /// to look at: only a program that gives its threads different filters, equally many, shows otherwise.
    Representatives,
    /// Every thread that has filters. For proofs.
    EveryThread,
}

/// Threads with the same filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadGroup {
    /// What holds them.
    pub chain: Chain,
    /// All of them, by number in this program's pid namespace.
    pub threads: Vec<u32>,
    /// Those whose filters were read; the others are in processes of these and have as many. Empty without filters.
    pub read: Vec<u32>,
    /// The name of the first one.
    pub comm: String,
}

impl ThreadGroup {
    /// The filters, the first installed first; empty when there are none.
    #[must_use]
    pub fn programs(&self) -> &[Program] {
        match &self.chain {
            Chain::Filters(programs) => programs,
            Chain::Unfiltered | Chain::Strict => &[],
        }
    }
}

/// A thread, as it was when the list was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Thread {
    tid: u32,
    process: u32,
    seccomp: Seccomp,
    road: Road,
}

/// What seccomp holds every thread of the target to; the group of its first process comes first.
///
/// # Errors
/// [`Exit::Usage`] when the target is not there, is several, or is refused (this program's own parents, process 1, the
/// kernel's threads); [`Exit::HostCannot`] when it does not run, has too many threads, ended meanwhile, or cannot be read.
pub fn chains(target: &Target, depth: Depth) -> Outcome<Vec<ThreadGroup>> {
    match target {
        Target::Container(name) => {
            let container = resolve::container(name)?;
            let threads = container::threads(&container)?;
            read(container.init, threads, depth)
        }
        Target::Process(pid) => {
            let named = Named::new(*pid).or_exit(Exit::Usage)?;
            let threads = threads_of(*pid, Road::Named(named))?;
            read(named.identity(), threads, depth)
        }
    }
}

/// The threads of a process that have not ended; none when it is gone.
fn threads_of(pid: u32, road: Road) -> Outcome<Vec<Thread>> {
    let mut threads = Vec::new();
    for tid in tasks::threads(pid).unwrap_or_default() {
        match process::status(tid) {
            Ok(status) if status.is_over() => {}
            Ok(status) => threads.push(Thread {
                tid,
                process: status.process,
                seccomp: status.seccomp,
                road,
            }),
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error).or_exit(Exit::HostCannot),
        }
    }
    Ok(threads)
}

fn read(first: Identity, threads: Vec<Thread>, depth: Depth) -> Outcome<Vec<ThreadGroup>> {
    if threads.len() > MAX_THREADS {
        let found = threads.len();
        return fail(
            Exit::HostCannot,
            format!("{found} threads are there, {MAX_THREADS} are read at most"),
        );
    }
    let mut groups: Vec<ThreadGroup> = Vec::new();
    for alike in alike(first.pid, threads, depth) {
        let Some((chain, read)) = read_one(&alike)? else {
            continue;
        };
        let threads = alike.iter().map(|thread| thread.tid);
        match groups.iter_mut().find(|group| group.chain == chain) {
            Some(group) => {
                group.threads.extend(threads);
                group.read.extend(read);
            }
            None => groups.push(ThreadGroup {
                comm: name_of(&alike),
                chain,
                threads: threads.collect(),
                read: read.into_iter().collect(),
            }),
        }
    }
    if !process::is_alive(first) || groups.is_empty() {
        return fail(
            Exit::HostCannot,
            format!("process {} ended while it was looked at", first.pid),
        );
    }
    Ok(groups)
}

/// Threads that are taken to have the same filters, the first process's first.
fn alike(first: u32, threads: Vec<Thread>, depth: Depth) -> Vec<Vec<Thread>> {
    let mut sets: BTreeMap<_, Vec<Thread>> = BTreeMap::new();
    for thread in threads {
        let by_itself = match (depth, thread.seccomp) {
            (Depth::EveryThread, Seccomp::Filters(_)) => thread.tid,
            _ => 0,
        };
        let key = (
            thread.process != first,
            thread.process,
            thread.seccomp,
            by_itself,
        );
        sets.entry(key).or_default().push(thread);
    }
    let mut sets: Vec<Vec<Thread>> = sets.into_values().collect();
    // the first thread of the first process speaks for the container
    sets.sort_by_key(|set| !set.iter().any(|thread| thread.tid == first));
    sets
}

/// The filters of the first of these threads that is still there and can be stopped; and which it was, if it was stopped.
fn read_one(alike: &[Thread]) -> Outcome<Option<(Chain, Option<u32>)>> {
    let mut refused: Option<ReadError> = None;
    for thread in alike {
        match filters::read(thread.tid, thread.road) {
            Ok(chain) => {
                let read = matches!(chain, Chain::Filters(_)).then_some(thread.tid);
                return Ok(Some((chain, read)));
            }
            Err(error) if error.is_gone() => {}
            // another one may be free
            Err(error @ (ReadError::Uninterruptible { .. } | ReadError::Traced { .. })) => {
                refused = Some(error);
            }
            Err(error) => return Err(error).or_exit(Exit::HostCannot),
        }
    }
    match refused {
        Some(error) => Err(error).or_exit(Exit::HostCannot),
        None => Ok(None),
    }
}

fn name_of(threads: &[Thread]) -> String {
    let mut names = threads.iter().filter_map(|it| process::comm(it.tid).ok());
    names.next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(tid: u32, process: u32, seccomp: Seccomp) -> Thread {
        Thread {
            tid,
            process,
            seccomp,
            road: Road::Container(process::own_pid_namespace().expect("own namespace")),
        }
    }

    fn tids(sets: &[Vec<Thread>]) -> Vec<Vec<u32>> {
        let tids = |set: &Vec<Thread>| set.iter().map(|thread| thread.tid).collect();
        sets.iter().map(tids).collect()
    }

    #[test]
    fn threads_are_alike_by_process_and_number_of_filters() {
        let two = Seccomp::Filters(2);
        let threads = vec![
            thread(5, 5, two),
            thread(6, 5, Seccomp::Filters(1)),
            thread(7, 5, two),
            thread(9, 9, two),
            thread(20, 20, Seccomp::Disabled),
            thread(21, 20, Seccomp::Disabled),
        ];
        let sets = alike(9, threads.clone(), Depth::Representatives);
        assert_eq!(
            tids(&sets),
            [vec![9], vec![6], vec![5, 7], vec![20, 21]],
            "the first process comes first"
        );
        let sets = alike(9, threads, Depth::EveryThread);
        assert_eq!(
            tids(&sets),
            [vec![9], vec![6], vec![5], vec![7], vec![20, 21]]
        );
    }

    #[test]
    fn what_may_not_be_named_is_the_users_mistake() {
        for pid in [0, 1, std::process::id(), u32::MAX] {
            let failure = chains(&Target::Process(pid), Depth::EveryThread).expect_err("refused");
            assert_eq!(failure.exit, Exit::Usage, "{pid}: {:#}", failure.error);
        }
        for name in ["", "--all", "../etc", "a b"] {
            let target = Target::Container(name.to_owned());
            let failure = chains(&target, Depth::EveryThread).expect_err("refused");
            assert_eq!(failure.exit, Exit::Usage, "{name}: {:#}", failure.error);
        }
    }
}
