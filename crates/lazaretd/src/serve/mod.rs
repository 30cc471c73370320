//! One listener from handover to hang-up: the prelude with the check at its end, then the answers.
//!
//! One task per listener, until the container's own program runs; then its calls are answered on a thread for that
//! ([`crate::answers`]) and the task waits for the end. It never blocks: files, ptrace and signatures are for other threads.

mod begin;
pub(crate) mod opened;

pub(crate) use begin::{resume, supervise};

use crate::answers::{Answering, Over};
use crate::call;
use crate::container::{Calls, Container, Decided, Outcome, Tally, asked};
use crate::daemon::{Daemon, ended, watched};
use crate::gate::{Claim, Refusal};
use crate::papers::mode_name;
use crate::permit::Permitted;
use crate::prelude::{Asks, Checked, Checking, Prelude, kill, say};
use crate::records::{ListenerName, Record};
use lazaret_core::event::What;
use lazaret_core::life::{Effect, Input, Kind, Life, Readiness};
use lazaret_core::phase::Phase;
use lazaret_core::policy::Policy;
use lazaret_kernel::notify::{Answer, Answered, Listener, Notification, NotifyError, Polled};
use lazaret_kernel::process::Identity;
use opened::{EACCES, Opened};
use std::future::pending;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinError;

/// Notifications answered before other tasks get their turn.
const BATCH: usize = 64;

/// A filter that has asked about nothing for so long after its handover is looked at all the same.
const SILENCE: Duration = Duration::from_millis(250);

/// How far a listener is.
enum Stage {
    Prelude(Prelude),
    /// The container's own program runs.
    Open,
}

struct Session {
    daemon: Arc<Daemon>,
    /// Its record and what the keeper has go by this name.
    name: ListenerName,
    /// Number of the session, for its container.
    number: u64,
    /// Of an `exec`; a container's own is in [`Container`].
    life: Life,
    /// None when it was refused before it got one.
    container: Option<Arc<Container>>,
    claim: Claim,
    /// The process that was handed over.
    identity: Identity,
    /// The same; none when it is gone.
    process: Option<Arc<OwnedFd>>,
    stage: Stage,
    /// Under which an `exec` started.
    permit: Option<Permitted>,
    /// Calls of an `exec`.
    calls: Calls,
}

/// How a look at the listener ended.
enum Drained {
    Empty,
    Busy,
    Over,
    /// The container's own program runs, and this is its first call.
    Opened(Notification),
}

/// How the prelude ended.
enum Prepared {
    Over,
    Opened(Option<Notification>),
}

impl Session {
    const fn pid(&self) -> u32 {
        self.identity.pid
    }

    async fn run(&mut self, listener: Listener) -> Result<(), NotifyError> {
        let mut first_ended = std::pin::pin!(self.first_ended());
        let mut first_runs = true;
        let listener = watched(listener).map_err(NotifyError::Poll)?;
        let first = match self
            .prepare(&listener, &mut first_ended, &mut first_runs)
            .await?
        {
            Prepared::Over => return Ok(()),
            Prepared::Opened(first) => first,
        };
        let listener = listener.into_inner();
        let mut opened = Opened::new(
            Arc::clone(&self.daemon),
            self.container.clone(),
            self.life.kind(),
            self.permit.clone(),
        );
        if let Some(first) = first {
            opened.answer(&listener, &first)?;
        }
        let mut over = self.daemon.answers.adopt(Answering { listener, opened });
        loop {
            tokio::select! {
                over = &mut over => return match over {
                    Ok(Over { opened, outcome }) => {
                        self.calls = opened.calls;
                        outcome
                    }
                    // the daemon ends
                    Err(_) => Ok(()),
                },
                () = &mut first_ended, if first_runs => {
                    first_runs = false;
                    self.first_is_gone();
                }
            }
        }
    }

    /// Until the container's own program runs.
    async fn prepare(
        &mut self,
        listener: &tokio::io::unix::AsyncFd<Listener>,
        mut first_ended: impl Future<Output = ()> + Unpin,
        first_runs: &mut bool,
    ) -> Result<Prepared, NotifyError> {
        if matches!(self.stage, Stage::Open) {
            return Ok(Prepared::Opened(None));
        }
        let asked = match &self.stage {
            Stage::Prelude(prelude) => prelude.held.first().map(|asked| asked.tid),
            Stage::Open => None,
        };
        if let Some(tid) = asked {
            self.look_at_filter(tid);
        }
        let mut silence = std::pin::pin!(tokio::time::sleep(SILENCE));
        loop {
            let silent = match &self.stage {
                Stage::Prelude(prelude) => prelude.asks == Asks::Unknown,
                Stage::Open => false,
            };
            let checked = async {
                match &mut self.stage {
                    Stage::Prelude(Prelude {
                        checking: Some(checking),
                        ..
                    }) => (&mut checking.task).await,
                    _ => pending().await,
                }
            };
            tokio::select! {
                outcome = checked => {
                    if let Some(first) = self.checked(listener.get_ref(), outcome)? {
                        return Ok(Prepared::Opened(Some(first)));
                    }
                }
                ready = listener.readable() => {
                    let mut ready = ready.map_err(NotifyError::Poll)?;
                    match self.drain(listener.get_ref())? {
                        Drained::Empty => ready.clear_ready(),
                        Drained::Busy => tokio::task::yield_now().await,
                        Drained::Over => break,
                        Drained::Opened(first) => return Ok(Prepared::Opened(Some(first))),
                    }
                }
                () = &mut silence, if silent => self.look_at_filter(self.pid()),
                () = &mut first_ended, if *first_runs => {
                    *first_runs = false;
                    self.first_is_gone();
                }
            }
        }
        // A refusal must be told although its process is dead, which the check itself may have seen to.
        if let Stage::Prelude(prelude) = &mut self.stage
            && let Some(checking) = &mut prelude.checking
        {
            let outcome = (&mut checking.task).await;
            self.checked(listener.get_ref(), outcome)?;
        }
        Ok(Prepared::Over)
    }

    fn first_is_gone(&self) {
        if let Some(container) = &self.container {
            self.daemon.happened(container, Input::ProcessGone);
        }
    }

    /// Waits for the end of a container's first process; for ever for an `exec`.
    fn first_ended(&self) -> impl Future<Output = ()> + use<> {
        let first = match self.life.kind() {
            Kind::Container => self.process.clone(),
            Kind::Exec => None,
        };
        async {
            match first {
                Some(first) => ended(first).await,
                // gone already: the hang-up tells
                None => pending().await,
            }
        }
    }

    fn drain(&mut self, listener: &Listener) -> Result<Drained, NotifyError> {
        for _ in 0..BATCH {
            match listener.poll(0)? {
                Polled::Waiting => {
                    if let Some(notification) = listener.recv()? {
                        crate::fault::point("received-in-prelude");
                        if let Some(first) = self.on_call(listener, notification)? {
                            return Ok(Drained::Opened(first));
                        }
                    }
                }
                Polled::HungUp => return Ok(Drained::Over),
                Polled::Nothing => return Ok(Drained::Empty),
            }
        }
        Ok(Drained::Busy)
    }

    /// Deals with a call in the prelude; gives it back, unanswered, when the prelude is over.
    fn on_call(
        &mut self,
        listener: &Listener,
        asked: Notification,
    ) -> Result<Option<Notification>, NotifyError> {
        let pid = self.pid();
        let Stage::Prelude(prelude) = &mut self.stage else {
            return Ok(Some(asked));
        };
        match prelude.asks {
            Asks::Unknown | Asks::Looking => {
                let unknown = prelude.asks == Asks::Unknown;
                prelude.hold(listener, &asked);
                if unknown {
                    self.look_at_filter(asked.tid);
                }
                return Ok(None);
            }
            Asks::No => {
                listener.respond(asked.id, Answer::Errno(EACCES))?;
                return Ok(None);
            }
            Asks::Yes => {}
        }
        if prelude.is_runtime(asked.tid) {
            self.on_runtime_call(listener, &asked)?;
            return Ok(None);
        }
        if prelude.is_runtime(pid) {
            // a process of the runtime's that is not its first, after an `execve` of its own
            return self.answer_beside(listener, &asked).map(|()| None);
        }
        self.stage = Stage::Open;
        Ok(Some(asked))
    }

    /// Answers a call of the container's while its first process still executes the runtime's program.
    fn answer_beside(&self, listener: &Listener, asked: &Notification) -> Result<(), NotifyError> {
        Opened::new(
            Arc::clone(&self.daemon),
            self.container.clone(),
            self.life.kind(),
            self.permit.clone(),
        )
        .answer(listener, asked)
    }

    /// Starts to look whether the filter of this thread asks about `execve`.
    fn look_at_filter(&mut self, tid: u32) {
        let Stage::Prelude(prelude) = &mut self.stage else {
            return;
        };
        let claim = self.claim.clone();
        let (pid, exec) = (self.identity.pid, self.life.kind() == Kind::Exec);
        let process = self.process.clone();
        let daemon = Arc::clone(&self.daemon);
        let task = tokio::task::spawn_blocking(move || {
            let asks = daemon.gate.asks_about_execve(&claim, tid);
            if let Err(refusal) = &asks {
                say(pid, exec, refusal);
                kill(process.as_deref(), claim.namespace);
            }
            asks.map(|()| Checked::Asks)
        });
        prelude.asks = Asks::Looking;
        prelude.checking = Some(Checking { tid, task });
    }

    /// A call of the runtime's own: goes on, unless it would execute something.
    fn on_runtime_call(
        &mut self,
        listener: &Listener,
        asked: &Notification,
    ) -> Result<(), NotifyError> {
        let Stage::Prelude(prelude) = &mut self.stage else {
            return Ok(());
        };
        let execve = call::is_execve(&asked.call);
        if execve && prelude.refused {
            return listener.respond(asked.id, Answer::Errno(EACCES)).map(drop);
        }
        if execve && !prelude.passed.contains(&asked.tid) {
            prelude.hold(listener, asked);
            self.check_next();
            return Ok(());
        }
        if listener.respond(asked.id, Answer::Continue)? == Answered::Delivered {
            let decided = Decided {
                phase: Phase::Prelude,
                outcome: Outcome::Allowed,
            };
            // what the runtime does for an exec is not the container's prelude
            if let (Some(container), Kind::Container) = (&self.container, self.life.kind()) {
                // nothing is told of a call that was allowed
                container.count(decided, &asked.call, None, self.daemon.now_ms());
            }
        }
        Ok(())
    }

    /// Starts the check for an `execve` that waits, if none runs.
    fn check_next(&mut self) {
        let record = self.record();
        let (pid, exec) = (self.pid(), self.life.kind() == Kind::Exec);
        let Stage::Prelude(prelude) = &mut self.stage else {
            return;
        };
        let (None, Some(held)) = (&prelude.checking, prelude.held.first()) else {
            return;
        };
        let tid = held.tid;
        let papers = self
            .container
            .as_ref()
            .and_then(|container| container.papers());
        let refusal = prelude.refusal.clone();
        let daemon = Arc::clone(&self.daemon);
        let claim = self.claim.clone();
        let name = self.name.clone();
        let container = self.container.clone();
        let task = tokio::task::spawn_blocking(move || {
            let checked = match (refusal, papers) {
                (Some(refusal), _) => Err(refusal),
                (None, None) => daemon
                    .gate
                    .admit(&claim, tid)
                    .map(|papers| Checked::Papers(Arc::new(papers))),
                (None, Some(papers)) if exec => daemon
                    .gate
                    .admit_exec(&papers, &claim, tid)
                    .map(Checked::Exec),
                (None, Some(papers)) => daemon
                    .gate
                    .admit_again(&papers, &claim, tid)
                    .map(|()| Checked::Filters),
            };
            match &checked {
                Ok(checked) => daemon.write_admitted(&name, record, container.as_deref(), checked),
                Err(refusal) => say(pid, exec, refusal),
            }
            checked
        });
        prelude.checking = Some(Checking { tid, task });
    }

    /// The check is over: remember, tell, and answer whoever waits for it. Gives back, unanswered, a call that was held and
    /// is the container's own.
    fn checked(
        &mut self,
        listener: &Listener,
        outcome: Result<Result<Checked, Refusal>, JoinError>,
    ) -> Result<Option<Notification>, NotifyError> {
        let Stage::Prelude(prelude) = &mut self.stage else {
            return Ok(None);
        };
        let Some(Checking { tid, .. }) = prelude.checking.take() else {
            return Ok(None);
        };
        let checked = outcome.unwrap_or_else(|error| {
            tracing::error!("container {}: check failed: {error}", self.claim.id);
            Err(Refusal::new("internal", "the check itself failed"))
        });
        let mut admitted = None;
        match checked {
            Ok(Checked::Asks) => prelude.asks = Asks::Yes,
            Ok(checked) => {
                if let (Checked::Papers(papers), Some(container)) = (&checked, &self.container) {
                    container.set_papers(Arc::clone(papers));
                }
                let first = prelude.passed.is_empty();
                prelude.passed.insert(tid);
                admitted = Some((checked, first));
            }
            Err(refusal) => {
                if prelude.asks == Asks::Looking {
                    prelude.asks = Asks::No;
                }
                prelude.refused = true;
                self.refused(refusal);
            }
        }
        crate::fault::point("checked");
        let held = match &mut self.stage {
            Stage::Prelude(prelude) => std::mem::take(&mut prelude.held),
            Stage::Open => Vec::new(),
        };
        let mut first = None;
        for asked in held {
            match (self.on_call(listener, asked)?, first) {
                (Some(asked), None) => first = Some(asked),
                (Some(asked), Some(_)) => self.answer_beside(listener, &asked)?,
                (None, _) => {}
            }
        }
        crate::fault::point("execve-answered");
        // The `execve` just answered still counts to the prelude; what comes next is decided by the next phase, since
        // this task takes one notification after the other.
        if let Some((checked, first)) = admitted {
            self.admitted(checked, first);
        }
        Ok(first)
    }

    fn admitted(&mut self, checked: Checked, first: bool) {
        let Some(container) = self.container.clone() else {
            return;
        };
        match checked {
            Checked::Papers(papers) => {
                let paper = &papers.in_force;
                let what = What::Admitted {
                    image: papers.image.to_string(),
                    policy: paper.digest.to_string(),
                    key: paper.policy.key_id().to_string(),
                    mode: mode_name(paper.policy.mode()).to_owned(),
                    stricter: papers.stricter.clone(),
                };
                self.daemon.events.tell(&container.id, what);
                self.daemon.tally.admissions.fetch_add(1, Ordering::Relaxed);
                self.daemon.happened(&container, admission(&paper.policy));
            }
            Checked::Exec(permit) if first => {
                crate::fault::point("exec-admitted");
                if let Some(permit) = &permit {
                    self.daemon.events.tell(&container.id, permit.used());
                    crate::fault::point("permit-told");
                }
                self.permit = permit;
                self.daemon.tally.admissions.fetch_add(1, Ordering::Relaxed);
                self.exec_began(&container);
                self.exec_step(EXEC_ADMITTED);
            }
            Checked::Exec(_) | Checked::Filters | Checked::Asks => {}
        }
    }

    fn exec_began(&self, container: &Container) {
        let permit = self.permit.as_ref();
        let permit = permit.map(|permit| permit.permit.statement_digest().to_string());
        container.exec_began(self.number, permit);
    }

    fn refused(&mut self, refusal: Refusal) {
        self.daemon.tally.refused(refusal.check);
        let what = What::Refused {
            check: refusal.check.to_owned(),
            reason: refusal.reason,
        };
        self.daemon.events.tell(&self.claim.id, what);
        match (self.life.kind(), &self.container) {
            (Kind::Container, Some(container)) => {
                self.daemon.happened(container, Input::Refused);
            }
            (Kind::Container, None) => {}
            (Kind::Exec, _) => self.exec_step(Input::Refused),
        }
    }

    /// Moves the phase machine of an `exec`.
    fn exec_step(&mut self, input: Input) {
        // only what is asked by hand fails, and nobody can ask for an exec
        for effect in self
            .life
            .step(input, self.daemon.now_ms())
            .unwrap_or_default()
        {
            if let Effect::Changed { from, to, cause } = effect {
                let cause = cause.name().to_owned();
                let what = What::PhaseChanged { from, to, cause };
                self.daemon.events.tell(&self.claim.id, what);
            }
        }
    }

    /// What the next daemon must know of this listener now.
    fn record(&self) -> Record {
        let runtime = match &self.stage {
            Stage::Prelude(prelude) => prelude.runtime,
            Stage::Open => None,
        };
        Record {
            v: 1,
            boot: self.daemon.records.boot().to_owned(),
            kind: self.life.kind(),
            claim: self.claim.clone(),
            process: self.identity,
            runtime,
            life: self.life.save(),
            papers: None,
            permit: self.permit.as_ref().map(|permit| permit.envelope),
            tally: Tally::new(),
        }
    }

    fn finish(self) {
        crate::fault::point("ending");
        let events = &self.daemon.events;
        let id = &self.claim.id;
        let exec = self.life.kind() == Kind::Exec;
        match (&self.container, exec) {
            (Some(container), false) => {
                let (calls, denials) = container.finish();
                for (phase, calls) in calls {
                    events.tell(id, asked(phase, calls));
                }
                events.leave(id, denials);
                self.daemon.remove(container);
            }
            (Some(container), true) => {
                if self.life.phase() == Phase::Exec {
                    container.exec_ended(self.number);
                    events.tell(id, asked(Phase::Exec, self.calls));
                }
            }
            (None, _) => {}
        }
        events.tell(id, What::Ended { exec });
        self.daemon.forget_listener(self.name);
    }
}

/// What a policy says of a life that begins.
pub(crate) fn admission(policy: &Policy) -> Input {
    Input::Admitted {
        readiness: Readiness::of(policy),
        restarts: policy.restarts(),
    }
}

/// A process put into a container has no readiness.
pub(crate) const EXEC_ADMITTED: Input = Input::Admitted {
    readiness: Readiness::ByHand,
    restarts: 0,
};
