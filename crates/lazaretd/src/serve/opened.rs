//! The answers, once the container's own program runs.

use crate::call;
use crate::container::{Calls, Container, Decided, Outcome, Who};
use crate::daemon::Daemon;
use crate::events::aggregate::{CallId, Sample};
use crate::events::caller::Callers;
use crate::permit::{Opening, Permitted};
use lazaret_core::event::What;
use lazaret_core::filter::rule::Call;
use lazaret_core::life::{Effect, Input, Kind};
use lazaret_core::phase::Phase;
use lazaret_kernel::notify::{Answer, Answered, Listener, Notification, NotifyError};
use lazaret_kernel::process;
use std::sync::Arc;
use std::time::Instant;

/// `EACCES` (`include/uapi/asm-generic/errno-base.h`): what a refused `execve` returns.
pub(crate) const EACCES: u16 = 13;

/// What answers the calls of one listener.
#[derive(Debug)]
pub(crate) struct Opened {
    daemon: Arc<Daemon>,
    /// None when it was refused before it got one.
    container: Option<Arc<Container>>,
    kind: Kind,
    permit: Option<Permitted>,
    /// Of an `exec`.
    pub(crate) calls: Calls,
    callers: Callers,
}

impl Opened {
    /// Answers for a container, or for a process put into it.
    pub(crate) fn new(
        daemon: Arc<Daemon>,
        container: Option<Arc<Container>>,
        kind: Kind,
        permit: Option<Permitted>,
    ) -> Opened {
        Opened {
            daemon,
            container,
            kind,
            permit,
            calls: Calls::new(),
            callers: Callers::default(),
        }
    }

    /// Answers a call of the container by its policy.
    ///
    /// # Errors
    /// When the kernel does not take the answer.
    pub(crate) fn answer(
        &mut self,
        listener: &Listener,
        asked: &Notification,
    ) -> Result<(), NotifyError> {
        let received = Instant::now();
        let Some(container) = self.container.clone() else {
            return listener.respond(asked.id, Answer::Errno(EACCES)).map(drop);
        };
        let now_ms = self.daemon.ms_at(received);
        let mut decided = self.decide(&container, &asked.call, now_ms);
        if matches!(decided.outcome, Outcome::Denied { .. }) && self.begins_again(&container, asked)
        {
            decided = self.decide(&container, &asked.call, now_ms);
        }
        let who = decided.denial().map(|_| {
            // while the caller waits: afterwards it may be gone
            let caller = self.callers.of(asked.tid);
            Who {
                comm: caller.comm,
                sample: Sample {
                    pid: caller.pid,
                    call: CallId {
                        arch: asked.call.arch,
                        nr: asked.call.nr,
                    },
                    args: asked.call.args,
                },
            }
        });
        crate::fault::point("decided");
        if listener.respond(asked.id, decided.answer())? == Answered::Withdrawn {
            return Ok(());
        }
        crate::fault::point("answered");
        self.daemon.tally.latency.count(received.elapsed());
        let told = match self.kind {
            Kind::Container => container.count(decided, &asked.call, who, now_ms),
            Kind::Exec => container.count_exec(decided, &asked.call, &mut self.calls, who, now_ms),
        };
        if let Some(told) = told
            && let Err(told) = self.daemon.events.offer(&container.id, told)
        {
            container.give_back(told);
        }
        Ok(())
    }

    fn decide(&self, container: &Container, call: &Call, now_ms: u64) -> Decided {
        match self.kind {
            Kind::Container => container.decide(call, now_ms),
            Kind::Exec => {
                let opening = Opening::of(self.permit.as_ref(), &self.daemon.clock);
                container.decide_exec(call, opening)
            }
        }
    }

    /// Whether this denied call is the server of the container that begins again, and the policy lets it: then the container is
    /// back in startup.
    ///
    /// That is an `execve` by process 1 or a child of it, which startup allows. A helper that the server executes while it serves has another
    /// parent; one that process 1 executes itself looks the same, which is why the policy says how often.
    fn begins_again(&self, container: &Arc<Container>, asked: &Notification) -> bool {
        if self.kind != Kind::Container
            || !call::is_execve(&asked.call)
            || !container.may_begin_again(&asked.call)
        {
            return false;
        }
        let first = container.first.pid;
        let Ok(caller) = process::process_of(asked.tid) else {
            return false;
        };
        let server = caller == first || process::parent(caller).is_ok_and(|parent| parent == first);
        if !server {
            return false;
        }
        let effects = self.daemon.happened(container, Input::Restarted);
        if effects.contains(&Effect::RestartRefused) && container.refuses_restart_first() {
            let what = What::RestartRefused {
                pid: caller,
                process: process::comm(asked.tid).unwrap_or_default(),
                reason: "process 1 or a child of it executes a program as at the start, and the policy's \
                         phases.startup.restarts is 0 or used up"
                    .to_owned(),
            };
            self.daemon.events.tell(&container.id, what);
        }
        let again = container.phase() == Phase::Startup;
        // before the answer: a daemon after this one must not find it serving, with a restart to spare
        if again && let Err(error) = self.daemon.save_now(container) {
            tracing::error!("{:#}", anyhow::Error::from(error));
        }
        again
    }
}
