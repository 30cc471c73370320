//! One container that the gate knows: its papers, its phase, and how its calls were answered.
//!
//! Everything here is memory; the answer path ([`Container::decide`]) takes one lock and touches nothing else.

use crate::call;
use lazaret_bundle::Verified;
use lazaret_core::control::{Admitted, ContainerState, ContainerStatus, Counts, InForce};
use lazaret_core::digest::Digest;
use lazaret_core::event::What;
use lazaret_core::filter::rule::{Call, Verdict};
use lazaret_core::life::{ByHandError, Effect, Input, Kind, Life};
use lazaret_core::phase::Phase;
use lazaret_core::policy::{Mode, Policy};
use lazaret_image::Engine;
use lazaret_kernel::notify::Answer;
use lazaret_kernel::process::{Identity, NamespaceId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::AbortHandle;

/// Denials of one container that are told at once …
const REPORTS: u64 = 1000;
/// … and one more for each so many milliseconds. The counts go on either way.
const REPORT_INTERVAL_MS: u64 = 10;

/// `EPERM` (`include/uapi/asm-generic/errno-base.h`).
pub(crate) const EPERM: u16 = 1;

/// What was found in order at the first `execve`.
#[derive(Debug)]
pub(crate) struct Papers {
    /// The policy, signed by a pinned key for this image.
    pub(crate) policy: Verified<Policy>,
    /// Its digest.
    pub(crate) digest: Digest,
    /// The digest of the container's image that the policy names.
    pub(crate) image: Digest,
    /// The container's name, as the engine shows it.
    pub(crate) name: String,
    /// The engine that started it.
    pub(crate) engine: Engine,
    /// Calls that the kernel holds more strictly than the policy.
    pub(crate) stricter: Vec<String>,
}

/// The mode's name in policies, events and status.
pub(crate) const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Observe => "observe",
    }
}

/// How an asked call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decided {
    /// By the rules of this phase.
    pub(crate) phase: Phase,
    /// What the policy says.
    pub(crate) outcome: Outcome,
}

/// What a policy says of an asked call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is allowed.
    Allowed,
    /// It is denied, and fails with this errno.
    Denied {
        /// The errno.
        errno: u16,
    },
    /// It would be denied, were the mode not observe: it goes on.
    Observed,
}

impl Outcome {
    /// The answer for the kernel.
    pub(crate) const fn answer(self) -> Answer {
        match self {
            Outcome::Allowed | Outcome::Observed => Answer::Continue,
            Outcome::Denied { errno } => Answer::Errno(errno),
        }
    }
}

/// Whether an answered call is told by an event of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// Yes, after saying that so many were withheld.
    Tell {
        /// How many.
        withheld: u64,
    },
    /// No: it was allowed, or this container has been denied too often lately. It is counted.
    Withhold,
}

/// Call name → how often. Numbers that no table has share one name, so its size is bounded.
pub(crate) type Calls = BTreeMap<&'static str, u64>;

fn count(calls: &mut Calls, call: &Call) {
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

/// What happens to an asked call under a policy.
///
/// The verdict rests on the number, the phase and register values: nothing behind a pointer is looked at, which is what
/// makes *continue* sound (DESIGN §1).
fn judge(policy: &Policy, phase: Phase, call: &Call) -> Result<(), u16> {
    match policy.decide(phase, call).verdict {
        Verdict::Allow | Verdict::Log => Ok(()),
        Verdict::Errno(errno) => Err(errno),
        // A foreign convention, which the kernel's filter kills before it asks. Asked all the same: deny.
        _ => Err(EPERM),
    }
}

/// How many denials may be told, so that one container cannot crowd out the events of the others.
#[derive(Debug)]
struct Allowance {
    tokens: u64,
    counted_ms: u64,
    withheld: u64,
}

impl Allowance {
    fn new() -> Allowance {
        Allowance {
            tokens: REPORTS,
            counted_ms: 0,
            withheld: 0,
        }
    }

    fn report(&mut self, now_ms: u64) -> Report {
        let fresh = now_ms.saturating_sub(self.counted_ms) / REPORT_INTERVAL_MS;
        if fresh > 0 {
            self.tokens = self.tokens.saturating_add(fresh).min(REPORTS);
            // the rest below one interval is forgone
            self.counted_ms = now_ms;
        }
        if self.tokens == 0 {
            self.withheld += 1;
            return Report::Withhold;
        }
        self.tokens -= 1;
        Report::Tell {
            withheld: std::mem::take(&mut self.withheld),
        }
    }
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
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    life: Life,
    papers: Option<Arc<Papers>>,
    counts: BTreeMap<Phase, Counts>,
    /// Calls of the container's own listener that no event has told yet.
    calls: BTreeMap<Phase, Calls>,
    execs: u64,
    allowance: Allowance,
    readiness: Option<AbortHandle>,
}

impl Container {
    /// A container whose papers are not checked yet.
    pub(crate) fn new(id: String, first: Identity, namespace: NamespaceId) -> Container {
        Container {
            id,
            first,
            namespace,
            inner: Mutex::new(Inner {
                life: Life::new(Kind::Container),
                papers: None,
                counts: BTreeMap::new(),
                calls: BTreeMap::new(),
                execs: 0,
                allowance: Allowance::new(),
                readiness: None,
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

    /// Keeps the papers; the phase is changed by [`Container::step`].
    pub(crate) fn set_papers(&self, papers: Arc<Papers>) {
        self.lock().papers = Some(papers);
    }

    /// Decides a call of the container itself, in its present phase.
    pub(crate) fn decide(&self, call: &Call) -> Decided {
        let inner = self.lock();
        inner.decide(inner.life.phase(), call)
    }

    /// Decides a call of a process that was put into the container.
    pub(crate) fn decide_exec(&self, call: &Call) -> Decided {
        self.lock().decide(Phase::Exec, call)
    }

    /// Counts a call of the container's own listener that was answered. A call whose notification was withdrawn comes
    /// again and is counted then.
    pub(crate) fn record(&self, decided: Decided, call: &Call, now_ms: u64) -> Report {
        let inner = &mut *self.lock();
        count(inner.calls.entry(decided.phase).or_default(), call);
        inner.record(decided, now_ms)
    }

    /// Counts an answered call of a process that was put into the container; its name goes into `calls`.
    pub(crate) fn record_exec(
        &self,
        decided: Decided,
        call: &Call,
        calls: &mut Calls,
        now_ms: u64,
    ) -> Report {
        count(calls, call);
        self.lock().record(decided, now_ms)
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

    /// The calls of the last phase (and stragglers of others), and how many denials were not told, at the end of the
    /// container.
    pub(crate) fn finish(&self) -> (BTreeMap<Phase, Calls>, u64) {
        let inner = &mut *self.lock();
        if let Some(readiness) = inner.readiness.take() {
            readiness.abort();
        }
        (
            std::mem::take(&mut inner.calls),
            std::mem::take(&mut inner.allowance.withheld),
        )
    }

    /// Keeps the task that asks for readiness, so that it can be ended.
    pub(crate) fn keep_readiness(&self, task: AbortHandle) {
        if let Some(before) = self.lock().readiness.replace(task) {
            before.abort();
        }
    }

    /// Ends the task that asks for readiness.
    pub(crate) fn end_readiness(&self) {
        if let Some(task) = self.lock().readiness.take() {
            task.abort();
        }
    }

    /// An `exec` began.
    pub(crate) fn exec_began(&self) {
        self.lock().execs += 1;
    }

    /// An `exec` ended.
    pub(crate) fn exec_ended(&self) {
        let inner = &mut *self.lock();
        inner.execs = inner.execs.saturating_sub(1);
    }

    /// For `lazaret status`.
    pub(crate) fn status(&self) -> ContainerStatus {
        let inner = self.lock();
        let (name, state) = match &inner.papers {
            None => (String::new(), ContainerState::Prelude),
            Some(papers) => {
                let in_force = InForce {
                    policy: papers.policy.name().to_owned(),
                    revision: papers.policy.revision(),
                    digest: papers.digest,
                    key: papers.policy.key_id().to_string(),
                    mode: mode_name(papers.policy.mode()).to_owned(),
                };
                let admitted = Admitted {
                    image: papers.image,
                    in_kernel: in_force.clone(),
                    in_force,
                    until_restart: Vec::new(),
                    phase: inner.life.phase(),
                    dwell: None,
                    permits: Vec::new(),
                    execs: inner.execs,
                    counts: inner.counts.clone(),
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
    fn decide(&self, phase: Phase, call: &Call) -> Decided {
        // Without papers the caller answers for the runtime only; deny if it ever comes here.
        let (said, mode) = match &self.papers {
            Some(papers) => (judge(&papers.policy, phase, call), papers.policy.mode()),
            None => (Err(EPERM), Mode::Enforce),
        };
        let outcome = match (said, mode) {
            (Ok(()), _) => Outcome::Allowed,
            (Err(errno), Mode::Enforce) => Outcome::Denied { errno },
            (Err(_), Mode::Observe) => Outcome::Observed,
        };
        Decided { phase, outcome }
    }

    fn record(&mut self, decided: Decided, now_ms: u64) -> Report {
        let counts = self.counts.entry(decided.phase).or_default();
        counts.asked += 1;
        match decided.outcome {
            Outcome::Allowed => {
                counts.allowed += 1;
                Report::Withhold
            }
            Outcome::Denied { .. } | Outcome::Observed => {
                counts.denied += 1;
                self.allowance.report(now_ms)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_denials_is_told_in_part_and_the_rest_is_numbered() {
        let mut allowance = Allowance::new();
        for _ in 0..REPORTS {
            assert_eq!(allowance.report(5), Report::Tell { withheld: 0 });
        }
        for _ in 0..7 {
            assert_eq!(allowance.report(5), Report::Withhold);
        }
        let later = 5 + REPORT_INTERVAL_MS;
        assert_eq!(allowance.report(later), Report::Tell { withheld: 7 });
        assert_eq!(allowance.report(later), Report::Withhold);
        // never more than at the beginning, however long it was quiet
        for _ in 0..REPORTS {
            assert!(matches!(allowance.report(u64::MAX), Report::Tell { .. }));
        }
        assert_eq!(allowance.report(u64::MAX), Report::Withhold);
    }
}
