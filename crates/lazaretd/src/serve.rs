//! One listener from handover to hang-up: the prelude with the check at its end, then the answers.
//!
//! One task per listener. It never blocks: files, ptrace and signatures are for other threads; a denial reads two
//! files of `/proc`, which is memory.

use crate::call;
use crate::container::{Calls, Container, Decided, Outcome, Report, asked, mode_name};
use crate::daemon::{Daemon, ended, watched};
use crate::gate::{self, Claim, Refusal};
use crate::prelude::{Asks, Checked, Checking, Prelude, kill, say};
use lazaret_core::event::What;
use lazaret_core::filter::rule::Call;
use lazaret_core::life::{Effect, Input, Kind, Life, Readiness};
use lazaret_core::phase::Phase;
use lazaret_kernel::handover::{Handover, Status};
use lazaret_kernel::notify::{Answer, Answered, Listener, Notification, NotifyError, Polled};
use lazaret_kernel::pidfd;
use lazaret_kernel::process;
use std::collections::BTreeSet;
use std::future::pending;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinError;

/// `EACCES` (`include/uapi/asm-generic/errno-base.h`): what a refused `execve` returns.
const EACCES: u16 = 13;

/// Notifications answered before other tasks get their turn.
const BATCH: usize = 64;

/// A filter that has asked about nothing for so long after its handover is looked at all the same.
const SILENCE: Duration = Duration::from_millis(250);

/// Supervises a listener until every process behind it is gone.
///
/// # Guarantees
/// Until the papers are found in order no `execve` goes on. That needs a filter that asks about `execve`, so this is
/// looked at first of all: at the first call that the listener brings, which is held back meanwhile, or after
/// [`SILENCE`]. A process whose filter lets `execve` pass (a profile that was tampered with, or a policy that allows it
/// for good) may run already: every call that it asks fails, and it is killed. When this function gives up on an error,
/// the listener is closed and what the container asks fails with `ENOSYS`.
pub(crate) async fn supervise(daemon: Arc<Daemon>, handover: Handover) {
    let Handover {
        listener,
        pid,
        metadata,
        state,
    } = handover;
    let kind = match state.status {
        Status::Creating => Kind::Container,
        Status::Created | Status::Running | Status::Paused | Status::Stopped => Kind::Exec,
    };
    let exec = kind == Kind::Exec;
    let id = state.id.clone();
    let received = What::ListenerReceived { pid, exec };
    let (claim, subject) = match process::pid_namespace(pid) {
        Ok(namespace) => {
            let claim = Claim {
                id: state.id,
                bundle: state.bundle.into(),
                metadata,
                namespace,
            };
            let subject = match kind {
                Kind::Container => start(&daemon, &claim, pid),
                Kind::Exec => join(&daemon, &claim),
            };
            (claim, subject)
        }
        Err(error) => {
            // It ended before we looked (or is not in our /proc): dropping the listener fails what it asks.
            tracing::error!("container {id}: {:#}", anyhow::Error::from(error));
            daemon.events.tell(&id, received);
            daemon.events.tell(&id, What::Ended { exec });
            return;
        }
    };
    // told when it can be asked about
    daemon.events.tell(&id, received);
    let runtime = process::execution(pid);
    let (container, refusal) = match (subject, &runtime) {
        (Ok(container), Ok(_)) => (Some(container), None),
        (Ok(container), Err(error)) => {
            let refusal = Refusal::new("process", &error.to_string());
            (Some(container), Some(refusal))
        }
        (Err(refusal), _) => (None, Some(refusal)),
    };
    let prelude = Prelude {
        runtime: runtime.ok(),
        passed: BTreeSet::new(),
        checking: None,
        held: Vec::new(),
        asks: Asks::Unknown,
        refusal,
        refused: false,
    };
    let mut session = Session {
        daemon,
        life: Life::new(kind),
        container,
        claim,
        pid,
        process: pidfd::open(pid).ok().map(Arc::new),
        calls: Calls::new(),
        stage: Stage::Prelude(prelude),
    };
    if let Err(error) = session.run(listener).await {
        let error = anyhow::Error::from(error);
        tracing::error!("container {id}: supervision ends: {error:#}");
    }
    session.finish();
}

/// A container that starts.
fn start(daemon: &Daemon, claim: &Claim, pid: u32) -> Result<Arc<Container>, Refusal> {
    let first =
        process::identity(pid).map_err(|error| Refusal::new("process", &error.to_string()))?;
    let container = Arc::new(Container::new(claim.id.clone(), first, claim.namespace));
    daemon
        .register(&container)
        .map_err(|error| Refusal::new("container-id", &error.to_string()))?;
    Ok(container)
}

/// A process that is put into a container which was admitted here.
fn join(daemon: &Daemon, claim: &Claim) -> Result<Arc<Container>, Refusal> {
    let refused = |reason: String| Err(Refusal::new("exec", &reason));
    let Some(container) = daemon.live(&claim.id) else {
        return refused(format!("this gate did not admit container {}", claim.id));
    };
    if container.papers().is_none() {
        return refused(format!("container {} is not admitted yet", claim.id));
    }
    if container.namespace != claim.namespace {
        return refused(format!(
            "the process is not in the pid namespace of container {}",
            claim.id
        ));
    }
    Ok(container)
}

/// How far a listener is.
enum Stage {
    Prelude(Prelude),
    /// The container's own program runs.
    Open,
}

struct Session {
    daemon: Arc<Daemon>,
    /// Of an `exec`; a container's own is in [`Container`].
    life: Life,
    /// None when it was refused before it got one.
    container: Option<Arc<Container>>,
    claim: Claim,
    /// The process that was handed over.
    pid: u32,
    /// The same; none when it is gone.
    process: Option<Arc<OwnedFd>>,
    /// Calls of an `exec`.
    calls: Calls,
    stage: Stage,
}

/// How a look at the listener ended.
enum Drained {
    Empty,
    Busy,
    Over,
}

impl Session {
    async fn run(&mut self, listener: Listener) -> Result<(), NotifyError> {
        let listener = watched(listener).map_err(NotifyError::Poll)?;
        let mut first_ended = std::pin::pin!(self.first_ended());
        let mut first_runs = true;
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
                outcome = checked => self.checked(listener.get_ref(), outcome)?,
                ready = listener.readable() => {
                    let mut ready = ready.map_err(NotifyError::Poll)?;
                    match self.drain(listener.get_ref())? {
                        Drained::Empty => ready.clear_ready(),
                        Drained::Busy => tokio::task::yield_now().await,
                        Drained::Over => break,
                    }
                }
                () = &mut silence, if silent => self.look_at_filter(self.pid),
                () = &mut first_ended, if first_runs => {
                    first_runs = false;
                    if let Some(container) = &self.container {
                        self.daemon.happened(container, Input::ProcessGone);
                    }
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
        Ok(())
    }

    /// Waits for the end of a container's first process; for ever for an `exec`.
    fn first_ended(&self) -> impl Future<Output = ()> + use<> {
        let first = match self.life.kind() {
            Kind::Container => self
                .process
                .as_ref()
                .and_then(|process| process.try_clone().ok()),
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
                        self.on_call(listener, &notification)?;
                    }
                }
                Polled::HungUp => return Ok(Drained::Over),
                Polled::Nothing => return Ok(Drained::Empty),
            }
        }
        Ok(Drained::Busy)
    }

    fn on_call(&mut self, listener: &Listener, asked: &Notification) -> Result<(), NotifyError> {
        if let Stage::Prelude(prelude) = &mut self.stage {
            match prelude.asks {
                Asks::Unknown | Asks::Looking => {
                    let unknown = prelude.asks == Asks::Unknown;
                    prelude.hold(listener, asked);
                    if unknown {
                        self.look_at_filter(asked.tid);
                    }
                    return Ok(());
                }
                Asks::No => return listener.respond(asked.id, Answer::Errno(EACCES)).map(drop),
                Asks::Yes => {}
            }
            if prelude.is_runtime(asked.tid) {
                return self.on_runtime_call(listener, asked);
            }
            if !prelude.is_runtime(self.pid) {
                self.stage = Stage::Open;
            }
        }
        self.answer(listener, asked)
    }

    /// Starts to look whether the filter of this thread asks about `execve`.
    fn look_at_filter(&mut self, tid: u32) {
        let Stage::Prelude(prelude) = &mut self.stage else {
            return;
        };
        let claim = self.claim.clone();
        let (pid, exec) = (self.pid, self.life.kind() == Kind::Exec);
        let process = self.process.clone();
        let task = tokio::task::spawn_blocking(move || {
            let asks = gate::asks_about_execve(&claim, tid);
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
            self.record(decided, &asked.call);
        }
        Ok(())
    }

    /// Starts the check for an `execve` that waits, if none runs.
    fn check_next(&mut self) {
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
        let config = Arc::clone(&self.daemon.config);
        let claim = self.claim.clone();
        let (pid, exec) = (self.pid, self.life.kind() == Kind::Exec);
        let task = tokio::task::spawn_blocking(move || {
            let checked = match (refusal, papers) {
                (Some(refusal), _) => Err(refusal),
                (None, None) => gate::admit(&config, &claim, tid)
                    .map(|papers| Checked::Papers(Arc::new(papers))),
                (None, Some(papers)) => {
                    gate::admit_again(&papers, &claim, tid).map(|()| Checked::Filters)
                }
            };
            if let Err(refusal) = &checked {
                say(pid, exec, refusal);
            }
            checked
        });
        prelude.checking = Some(Checking { tid, task });
    }

    /// The check is over: remember, tell, and answer whoever waits for it.
    fn checked(
        &mut self,
        listener: &Listener,
        outcome: Result<Result<Checked, Refusal>, JoinError>,
    ) -> Result<(), NotifyError> {
        let Stage::Prelude(prelude) = &mut self.stage else {
            return Ok(());
        };
        let Some(Checking { tid, .. }) = prelude.checking.take() else {
            return Ok(());
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
        let held = match &mut self.stage {
            Stage::Prelude(prelude) => std::mem::take(&mut prelude.held),
            Stage::Open => Vec::new(),
        };
        for asked in held {
            self.on_call(listener, &asked)?;
        }
        // The `execve` just answered still counts to the prelude; what comes next is decided by the next phase, since
        // this task takes one notification after the other.
        if let Some((checked, first)) = admitted {
            self.admitted(checked, first);
        }
        Ok(())
    }

    fn admitted(&mut self, checked: Checked, first: bool) {
        let Some(container) = self.container.clone() else {
            return;
        };
        if let Checked::Papers(papers) = checked {
            let what = What::Admitted {
                image: papers.image.to_string(),
                policy: papers.digest.to_string(),
                key: papers.policy.key_id().to_string(),
                mode: mode_name(papers.policy.mode()).to_owned(),
                stricter: papers.stricter.clone(),
            };
            self.daemon.events.tell(&container.id, what);
            let admitted = Input::Admitted {
                readiness: Readiness::of(&papers.policy),
                restarts: papers.policy.restarts(),
            };
            self.daemon.happened(&container, admitted);
            self.daemon.save();
        } else if first && self.life.kind() == Kind::Exec {
            container.exec_began();
            self.exec_step(Input::Admitted {
                readiness: Readiness::ByHand,
                restarts: 0,
            });
        }
    }

    fn refused(&mut self, refusal: Refusal) {
        let what = What::Refused {
            check: refusal.check.to_owned(),
            reason: refusal.reason,
        };
        self.daemon.events.tell(&self.claim.id, what);
        match (self.life.kind(), &self.container) {
            (Kind::Container, Some(container)) => self.daemon.happened(container, Input::Refused),
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

    /// Answers a call of the container by its policy.
    fn answer(&mut self, listener: &Listener, asked: &Notification) -> Result<(), NotifyError> {
        let Some(container) = self.container.clone() else {
            return listener.respond(asked.id, Answer::Errno(EACCES)).map(drop);
        };
        let decided = match self.life.kind() {
            Kind::Container => container.decide(&asked.call),
            Kind::Exec => container.decide_exec(&asked.call),
        };
        let caller = match decided.outcome {
            Outcome::Allowed => None,
            // while the caller waits: afterwards it may be gone
            Outcome::Denied { .. } | Outcome::Observed => Some(Caller::of(asked.tid)),
        };
        if listener.respond(asked.id, decided.outcome.answer())? == Answered::Withdrawn {
            return Ok(());
        }
        let report = self.record(decided, &asked.call);
        if let (Some(caller), Report::Tell { withheld }) = (caller, report) {
            if withheld > 0 {
                self.daemon.events.withheld(withheld);
            }
            let what = denied(&asked.call, caller, decided);
            self.daemon.events.tell(&container.id, what);
        }
        Ok(())
    }

    /// Counts an answered call.
    fn record(&mut self, decided: Decided, call: &Call) -> Report {
        let now_ms = self.daemon.now_ms();
        match (&self.container, self.life.kind()) {
            (Some(container), Kind::Container) => container.record(decided, call, now_ms),
            // what the runtime does for an exec is not the container's prelude
            (Some(_), Kind::Exec) if decided.phase == Phase::Prelude => Report::Withhold,
            (Some(container), Kind::Exec) => {
                container.record_exec(decided, call, &mut self.calls, now_ms)
            }
            (None, _) => Report::Withhold,
        }
    }

    fn finish(self) {
        let events = &self.daemon.events;
        let id = &self.claim.id;
        let exec = self.life.kind() == Kind::Exec;
        match (&self.container, exec) {
            (Some(container), false) => {
                let (calls, withheld) = container.finish();
                for (phase, calls) in calls {
                    events.tell(id, asked(phase, calls));
                }
                if withheld > 0 {
                    events.withheld(withheld);
                }
                self.daemon.remove(container);
            }
            (Some(container), true) => {
                if self.life.phase() == Phase::Exec {
                    container.exec_ended();
                    events.tell(id, asked(Phase::Exec, self.calls));
                }
            }
            (None, _) => {}
        }
        events.tell(id, What::Ended { exec });
    }
}

/// Who made a denied call.
struct Caller {
    pid: u32,
    name: String,
}

impl Caller {
    fn of(tid: u32) -> Caller {
        Caller {
            pid: process::process_of(tid).unwrap_or(tid),
            name: process::comm(tid).unwrap_or_default(),
        }
    }
}

fn denied(call: &Call, caller: Caller, decided: Decided) -> What {
    What::Denied {
        times: 1,
        pid: caller.pid,
        process: caller.name,
        nr: call.nr,
        arch: call::convention(call)
            .map_or_else(|| format!("{:#x}", call.arch), |abi| abi.name().to_owned()),
        call: call::name(call).map_or_else(|| call.nr.to_string(), str::to_owned),
        args: call.args,
        phase: decided.phase,
        enforced: matches!(decided.outcome, Outcome::Denied { .. }),
    }
}
