//! A container under supervision: its papers, its phase, its counts.
//!
//! Everything here is memory; the answer path ([`Container::decide`], [`Container::count`]) takes one lock and touches nothing else.

mod decide;

pub(crate) use decide::{Decided, EPERM, Outcome};

use crate::call;
use crate::events::aggregate::{Aggregate, Comm, Sample, Told};
use crate::papers::Papers;
use crate::permit::Opening;
use crate::records::{ListenerName, Record};
use lazaret_core::control::{Admitted, ContainerState, ContainerStatus, Counts};
use lazaret_core::event::What;
use lazaret_core::filter::rule::Call;
use lazaret_core::life::{ByHandError, Effect, Input, Life};
use lazaret_core::phase::Phase;
use lazaret_kernel::process::{Identity, NamespaceId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::task::AbortHandle;

/// Call name → how often. Numbers that no table has share one name, so its size is bounded.
pub(crate) type Calls = BTreeMap<&'static str, u64>;

/// Phase → how its asked calls were answered.
pub(crate) type Tally = BTreeMap<Phase, Counts>;

fn add(calls: &mut Calls, call: &Call) {
    *calls
        .entry(call::name(call).unwrap_or("unknown"))
        .or_default() += 1;
}

/// The event for the calls of a phase that ended.
pub(crate) fn asked(phase: Phase, calls: Calls) -> What {
    What::Asked {
        phase,
        calls: calls
            .into_iter()
            .map(|(name, times)| (name.to_owned(), times))
            .collect(),
    }
}

/// Who made a denied call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who {
    /// Its name.
    pub(crate) comm: Comm,
    /// The call.
    pub(crate) sample: Sample,
}

/// A container that was handed over.
#[derive(Debug)]
pub(crate) struct Container {
    /// The engine's id.
    pub(crate) id: String,
    /// Its first process.
    pub(crate) first: Identity,
    /// Its pid namespace.
    pub(crate) namespace: NamespaceId,
    /// Its own listener.
    pub(crate) listener: ListenerName,
    /// What was known at the handover.
    base: OnceLock<Record>,
    /// Its record is older than what is known here.
    unsaved: AtomicBool,
    /// Held while a revision is put in force.
    revising: Mutex<()>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    life: Life,
    papers: Option<Arc<Papers>>,
    /// Why the papers are no longer in order.
    lost: Option<String>,
    tally: Tally,
    /// Calls of the container's own listener that no event has told yet.
    calls: BTreeMap<Phase, Calls>,
    denials: Aggregate,
    /// By number of the session.
    execs: BTreeMap<u64, Option<String>>,
    /// Said once: a server that begins again in a loop would fill the log.
    restart_refused: bool,
    /// Its processes are gone.
    over: bool,
    tasks: Tasks,
}

/// What runs beside a container.
#[derive(Debug, Default)]
struct Tasks {
    readiness: Option<AbortHandle>,
    timer: Option<AbortHandle>,
}

impl Tasks {
    fn end(&mut self) {
        for task in [self.readiness.take(), self.timer.take()]
            .into_iter()
            .flatten()
        {
            task.abort();
        }
    }
}

impl Container {
    /// A container in this state of its life, whose papers are not checked yet.
    pub(crate) fn new(
        id: String,
        first: Identity,
        namespace: NamespaceId,
        listener: ListenerName,
        life: Life,
    ) -> Container {
        Container {
            id,
            first,
            namespace,
            listener,
            base: OnceLock::new(),
            unsaved: AtomicBool::new(false),
            revising: Mutex::default(),
            inner: Mutex::new(Inner {
                life,
                papers: None,
                lost: None,
                tally: Tally::new(),
                calls: BTreeMap::new(),
                denials: Aggregate::default(),
                execs: BTreeMap::new(),
                restart_refused: false,
                over: false,
                tasks: Tasks::default(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // no code under this lock panics half way through a change
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its papers, once they were found in order.
    pub(crate) fn papers(&self) -> Option<Arc<Papers>> {
        self.lock().papers.clone()
    }

    /// Puts papers in force; the phase is changed by [`Container::step`].
    pub(crate) fn set_papers(&self, papers: Arc<Papers>) {
        self.lock().papers = Some(papers);
    }

    /// Its papers are no longer in order: every call that it asks fails from now on.
    pub(crate) fn lose_papers(&self, reason: String) {
        let inner = &mut *self.lock();
        inner.papers = None;
        inner.lost = Some(reason);
    }

    /// Keeps what was known at the handover, for records to come. The first one stays.
    pub(crate) fn set_base(&self, record: Record) {
        drop(self.base.set(record));
    }

    /// Its record could not be written.
    pub(crate) fn set_unsaved(&self) {
        self.unsaved.store(true, Ordering::Relaxed);
    }

    /// Whether its record could not be written; whoever asks tries again.
    pub(crate) fn take_unsaved(&self) -> bool {
        self.unsaved.swap(false, Ordering::Relaxed)
    }

    /// Whoever holds this is the only one who revises.
    pub(crate) fn revising(&self) -> MutexGuard<'_, ()> {
        self.revising.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the next daemon must know now; nothing once it has ended.
    pub(crate) fn record(&self) -> Option<Record> {
        let inner = self.lock();
        let base = self.base.get().filter(|_| !inner.over)?;
        // a container whose papers are lost keeps those that it had: they may be in order again
        let papers = inner.papers.as_ref().map(|papers| papers.kept());
        Some(Record {
            life: inner.life.save(),
            papers: papers.or_else(|| base.papers.clone()),
            tally: inner.tally.clone(),
            ..base.clone()
        })
    }

    /// Goes on counting from here.
    pub(crate) fn set_tally(&self, tally: Tally) {
        self.lock().tally = tally;
    }

    /// How its asked calls were answered.
    pub(crate) fn tally(&self) -> Tally {
        self.lock().tally.clone()
    }

    /// The phase by which its calls are decided now.
    pub(crate) fn phase(&self) -> Phase {
        self.lock().life.phase()
    }

    /// Decides a call of the container itself, in its present phase.
    pub(crate) fn decide(&self, call: &Call, now_ms: u64) -> Decided {
        let inner = &mut *self.lock();
        let decided = inner.decide(inner.life.phase(), inner.life.preview(), call);
        if inner.life.awaits_quiet()
            && decided.outcome == Outcome::Allowed
            && let Some(papers) = &inner.papers
            && decide::judge(&papers.in_force.policy, Phase::Serving, call).is_err()
        {
            // moves a deadline, later only; it has no effects and cannot fail
            drop(inner.life.step(Input::StartupCall, now_ms));
        }
        decided
    }

    /// Decides a call of a process that was put into the container.
    pub(crate) fn decide_exec(&self, call: &Call, opening: Opening) -> Decided {
        let inner = self.lock();
        let decided = inner.decide(Phase::Exec, None, call);
        if opening == Opening::Ceiling
            && decided.outcome != Outcome::Allowed
            && let Some(papers) = &inner.papers
            && let permitted = papers.in_force.policy.decide_permitted(call).verdict
            && decide::verdict(permitted).is_ok()
        {
            return Decided {
                phase: Phase::Exec,
                outcome: Outcome::Allowed,
            };
        }
        decided
    }

    /// Whether a call that serving denies is one by which a server begins again: startup allows it, and the policy lets it
    /// begin again, or once did.
    pub(crate) fn may_begin_again(&self, call: &Call) -> bool {
        let inner = self.lock();
        inner.life.phase() == Phase::Serving
            && inner.papers.as_ref().is_some_and(|papers| {
                decide::judge(&papers.in_force.policy, Phase::Startup, call).is_ok()
            })
    }

    /// Whether it is to be said that a server may not begin again: the first time.
    pub(crate) fn refuses_restart_first(&self) -> bool {
        !std::mem::replace(&mut self.lock().restart_refused, true)
    }

    /// Counts a call of the container's own listener that was answered. A call whose notification was withdrawn comes
    /// again and is counted then. `who` is there for a denial; what is returned is to be told.
    pub(crate) fn count(
        &self,
        decided: Decided,
        call: &Call,
        who: Option<Who>,
        now_ms: u64,
    ) -> Option<Told> {
        let inner = &mut *self.lock();
        add(inner.calls.entry(decided.phase).or_default(), call);
        inner.count(decided, who, now_ms)
    }

    /// Counts an answered call of a process that was put into the container; its name goes into `calls`.
    pub(crate) fn count_exec(
        &self,
        decided: Decided,
        call: &Call,
        calls: &mut Calls,
        who: Option<Who>,
        now_ms: u64,
    ) -> Option<Told> {
        add(calls, call);
        self.lock().count(decided, who, now_ms)
    }

    /// Takes back denials that nobody had room for.
    pub(crate) fn give_back(&self, told: Told) {
        self.lock().denials.give_back(told);
    }

    /// Denials that have been collected for long enough.
    pub(crate) fn due(&self, now_ms: u64) -> Vec<Told> {
        self.lock().denials.due(now_ms)
    }

    /// Every kind of denial since the daemon began.
    pub(crate) fn drift(&self) -> Vec<Told> {
        self.lock().denials.table()
    }

    /// Moves the phase machine; also returns the calls of the phase that this ended, and when it wants to be looked at
    /// again.
    pub(crate) fn step(&self, input: Input, now_ms: u64) -> Result<Stepped, ByHandError> {
        let inner = &mut *self.lock();
        let before = inner.life.phase();
        let effects = inner.life.step(input, now_ms)?;
        let over = before != inner.life.phase();
        Ok(Stepped {
            effects,
            ended: if over {
                inner.calls.remove(&before)
            } else {
                None
            },
            deadline_ms: inner.life.deadline_ms(),
        })
    }

    /// When time matters next.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        self.lock().life.deadline_ms()
    }

    /// The calls of the last phase (and stragglers of others), and denials that were not told, at the end of the
    /// container.
    pub(crate) fn finish(&self) -> (BTreeMap<Phase, Calls>, Vec<Told>) {
        let inner = &mut *self.lock();
        inner.tasks.end();
        inner.over = true;
        (std::mem::take(&mut inner.calls), inner.denials.drain())
    }

    /// Keeps the task that asks for readiness, so that it can be ended.
    pub(crate) fn keep_readiness(&self, task: AbortHandle) {
        if let Some(before) = self.lock().tasks.readiness.replace(task) {
            before.abort();
        }
    }

    /// Ends the task that asks for readiness.
    pub(crate) fn end_readiness(&self) {
        if let Some(task) = self.lock().tasks.readiness.take() {
            task.abort();
        }
    }

    /// Keeps the task that waits for a deadline; the one before is ended.
    pub(crate) fn keep_timer(&self, task: AbortHandle) {
        if let Some(before) = self.lock().tasks.timer.replace(task) {
            before.abort();
        }
    }

    /// An `exec` began.
    pub(crate) fn exec_began(&self, session: u64, permit: Option<String>) {
        self.lock().execs.insert(session, permit);
    }

    /// An `exec` ended.
    pub(crate) fn exec_ended(&self, session: u64) {
        self.lock().execs.remove(&session);
    }

    /// For `lazaret status`.
    pub(crate) fn status(&self) -> ContainerStatus {
        let inner = self.lock();
        let (name, state) = match (&inner.papers, &inner.lost) {
            (None, None) => (String::new(), ContainerState::Prelude),
            (None, Some(reason)) => {
                let reason = reason.clone();
                (String::new(), ContainerState::PapersLost { reason })
            }
            (Some(papers), _) => {
                let admitted = Admitted {
                    image: papers.image,
                    in_force: papers.in_force.shown(),
                    in_kernel: papers.in_kernel.shown(),
                    until_restart: papers.until_restart.clone(),
                    phase: inner.life.phase(),
                    dwell: inner.life.preview(),
                    permits: inner.execs.values().flatten().cloned().collect(),
                    // a usize fits 64 bits
                    execs: inner.execs.len() as u64,
                    counts: inner.tally.clone(),
                    stricter: papers.stricter.clone(),
                };
                (
                    papers.name.clone(),
                    ContainerState::Admitted(Box::new(admitted)),
                )
            }
        };
        ContainerStatus {
            id: self.id.clone(),
            name,
            pid: self.first.pid,
            state,
        }
    }
}

/// What a step of the phase machine brought.
#[derive(Debug)]
pub(crate) struct Stepped {
    /// To be done, in this order.
    pub(crate) effects: Vec<Effect>,
    /// The calls of the phase that ended.
    pub(crate) ended: Option<Calls>,
    /// When time matters next.
    pub(crate) deadline_ms: Option<u64>,
}

impl Inner {
    fn decide(&self, phase: Phase, preview: Option<Phase>, call: &Call) -> Decided {
        match &self.papers {
            Some(papers) => decide::decide(&papers.in_force.policy, phase, preview, call),
            // Before there are papers the caller answers for the runtime only; without them nothing is allowed.
            None => Decided {
                phase,
                outcome: Outcome::Denied { errno: EPERM },
            },
        }
    }

    fn count(&mut self, decided: Decided, who: Option<Who>, now_ms: u64) -> Option<Told> {
        let counts = self.tally.entry(decided.phase).or_default();
        counts.asked += 1;
        match decided.outcome {
            Outcome::Allowed | Outcome::Previewed { .. } => counts.allowed += 1,
            Outcome::Denied { .. } | Outcome::Observed => counts.denied += 1,
        }
        let (denial, who) = (decided.denial()?, who?);
        self.denials
            .add(denial.phase, denial.enforced, who.comm, who.sample, now_ms)
    }
}
