//! The time before the container's own program runs: which `execve`s may go on, and what waits for a check.
//!
//! Only what is remembered, and the two things that are done to a process that is refused. The steps are in
//! [`crate::serve`], the checks in [`crate::gate`].

use crate::gate::Refusal;
use crate::papers::Papers;
use crate::permit::Permitted;
use lazaret_kernel::notify::{Listener, Notification};
use lazaret_kernel::pidfd;
use lazaret_kernel::process::{self, Execution, NamespaceId};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Before the container's own program runs.
///
/// It is over when the first process *executes* another program, not when its `execve` is answered: a signal can
/// withdraw even an answered notification, and then the call comes again (`seccomp_unotify(2)`, "ENOENT").
pub(crate) struct Prelude {
    /// What the runtime's process executes. Unreadable: then there is a refusal.
    pub(crate) runtime: Option<Execution>,
    /// Threads whose `execve` may go on.
    pub(crate) passed: BTreeSet<u32>,
    /// Whether an `execve` may have been let go by the daemon before this one.
    pub(crate) let_go: bool,
    /// The check that runs now.
    pub(crate) checking: Option<Checking>,
    /// Calls that wait for it; some may be withdrawn already.
    pub(crate) held: Vec<Notification>,
    /// Whether the filter asks about `execve`.
    pub(crate) asks: Asks,
    /// Known before the check: refuse.
    pub(crate) refusal: Option<Refusal>,
    /// Decided: every `execve` fails.
    pub(crate) refused: bool,
}

pub(crate) struct Checking {
    pub(crate) tid: u32,
    pub(crate) task: JoinHandle<Result<Checked, Refusal>>,
}

/// What a check found in order.
pub(crate) enum Checked {
    /// The container's papers, at its first `execve`.
    Papers(Arc<Papers>),
    /// A process that is put into the container, and its permit.
    Exec(Option<Permitted>),
    /// Another thread's filters.
    Filters,
    /// The filter asks about `execve`: the papers can wait until then.
    Asks,
}

/// Whether the filter asks about `execve`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// Nobody has looked yet.
    Unknown,
    /// Being looked at; every call waits for it.
    Looking,
    /// So the first one will be seen.
    Yes,
    /// So the container may run already.
    No,
}

impl Prelude {
    /// Keeps a call until the check is over; forgets those that were withdrawn meanwhile.
    pub(crate) fn hold(&mut self, listener: &Listener, asked: &Notification) {
        self.held.retain(|held| listener.is_valid(held.id));
        self.held.push(*asked);
    }

    /// Whether this process or thread still executes the runtime's program. A process that is gone does not.
    pub(crate) fn is_runtime(&self, tid: u32) -> bool {
        // before an `execve` was let go nothing else can run
        (self.passed.is_empty() && !self.let_go)
            || (self.runtime.is_some() && process::execution(tid).ok() == self.runtime)
    }
}

/// Says on the container's own standard error why it does not start. Blocks a little.
pub(crate) fn say(pid: u32, exec: bool, refusal: &Refusal) {
    let what = if exec { "process" } else { "container" };
    let sentence = format!("lazaret: {what} not started: {}\n", refusal.reason);
    if let Err(error) = pidfd::say(pid, &sentence) {
        let error = anyhow::Error::from(error);
        tracing::warn!(
            "{}, and the container cannot be told: {error:#}",
            sentence.trim_end()
        );
    }
}

/// Kills a process that runs without papers. Never one of the machine's own pid namespace.
pub(crate) fn kill(process: Option<&OwnedFd>, namespace: NamespaceId) {
    let foreign = process::own_pid_namespace().is_ok_and(|own| own != namespace);
    match process {
        Some(process) if foreign => {
            if let Err(error) = pidfd::kill(process) {
                tracing::error!("{:#}", anyhow::Error::from(error));
            }
        }
        Some(_) => tracing::error!(
            "a container without papers shares the host's pid namespace: not killed"
        ),
        None => {}
    }
}
