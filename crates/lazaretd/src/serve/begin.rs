//! How a session begins: with what a runtime hands over, or with what the daemon before this one left.

use super::{Session, Stage};
use crate::container::{Calls, Container};
use crate::daemon::{Daemon, watched};
use crate::gate::{Claim, Refusal};
use crate::prelude::{Asks, Prelude};
use crate::records::{ListenerName, Record};
use lazaret_core::event::What;
use lazaret_core::life::{Kind, Life, Readiness};
use lazaret_core::phase::Phase;
use lazaret_kernel::handover::{Handover, Status};
use lazaret_kernel::notify::{Listener, Notification, NotifyError, Polled};
use lazaret_kernel::pidfd;
use lazaret_kernel::process::{self, Execution, Identity, NamespaceId, ProcessError};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Supervises a listener until every process behind it is gone.
///
/// # Guarantees
/// The listener is with the keeper, and what is known of it in a record, before any of its calls is answered.
///
/// Until the papers are found in order no `execve` goes on. That needs a filter that asks about `execve`, so this is
/// looked at first of all: at the first call that the listener brings, which is held back meanwhile, or after
/// a moment of silence. A process whose filter lets `execve` pass (a profile that was tampered with, or a policy that allows it
/// for good) may run already: every call that it asks fails, and it is killed. When this function gives up on an error,
/// the listener is closed everywhere and what the container asks fails with `ENOSYS`.
///
/// # Caveats
/// A listener that cannot be kept (no keeper, no room) is supervised all the same; it ends with this daemon. So does one that came
/// without a pid, until its process asks for the first time.
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
    let name = match ListenerName::draw() {
        Ok(name) => name,
        Err(error) => {
            tracing::error!("container {id}: no random number: {error}");
            return;
        }
    };
    let located = match pid {
        0 => Located::by_first_call(listener).await,
        _ => Located::by_pid(pid, listener),
    };
    let Located {
        listener,
        identity,
        namespace,
        held,
    } = match located {
        Ok(located) => located,
        Err(error) => {
            // It ended before we looked (or is not in our /proc): dropping the listener fails what it asks.
            tracing::error!("container {id}: {:#}", anyhow::Error::from(error));
            daemon
                .events
                .tell(&id, What::ListenerReceived { pid, exec });
            daemon.events.tell(&id, What::Ended { exec });
            return;
        }
    };
    let pid = identity.pid;
    let received = What::ListenerReceived { pid, exec };
    let claim = Claim {
        id: state.id,
        bundle: state.bundle.into(),
        metadata,
        namespace,
    };
    let subject = match kind {
        Kind::Container => start(&daemon, &claim, identity, name.clone()),
        Kind::Exec => join(&daemon, &claim),
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
        let_go: false,
        checking: None,
        held,
        asks: Asks::Unknown,
        refusal,
        refused: false,
    };
    let session = Session {
        name: name.clone(),
        number: daemon.number(),
        life: Life::new(kind),
        container,
        claim,
        identity,
        process: pidfd::open(pid).ok().map(Arc::new),
        stage: Stage::Prelude(prelude),
        permit: None,
        calls: Calls::new(),
        daemon: Arc::clone(&daemon),
    };
    let record = session.record();
    if let (Kind::Container, Some(container)) = (kind, &session.container) {
        container.set_base(record.clone());
    }
    if let Some(listener) = daemon.keep(name, record, listener).await {
        go(session, listener).await;
    } else {
        session.finish();
    }
}

/// A process behind a listener was not found.
#[derive(Debug, thiserror::Error)]
enum LocateError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Notify(#[from] NotifyError),
    #[error("its process ended before it asked for anything")]
    Gone,
}

/// The process behind a listener.
struct Located {
    listener: Listener,
    identity: Identity,
    namespace: NamespaceId,
    /// What it asked for while it was looked for, unanswered.
    held: Vec<Notification>,
}

impl Located {
    /// By what the runtime says.
    fn by_pid(pid: u32, listener: Listener) -> Result<Located, LocateError> {
        Ok(Located {
            listener,
            identity: process::identity(pid)?,
            namespace: process::pid_namespace(pid)?,
            held: Vec::new(),
        })
    }

    /// By who asks first, for a runtime that does not say: crun before 1.9 hands over an exec as process 0.
    ///
    /// # Guarantees
    /// The process is under this listener's filter: the kernel says so, and its call waits while it is looked at.
    ///
    /// # Caveats
    /// There is no limit of time: to give up would leave a process that runs, and would free nothing that any other exec does not take.
    /// A filter that does not ask about `execve` is noticed at the first call that it asks about, and not after a moment of silence.
    async fn by_first_call(listener: Listener) -> Result<Located, LocateError> {
        let listener = watched(listener).map_err(NotifyError::Poll)?;
        loop {
            let mut ready = listener.readable().await.map_err(NotifyError::Poll)?;
            let polled = listener.get_ref().poll(0)?;
            let asked = match polled {
                Polled::Waiting => listener.get_ref().recv()?,
                Polled::HungUp => return Err(LocateError::Gone),
                Polled::Nothing => {
                    ready.clear_ready();
                    None
                }
            };
            let Some(asked) = asked else {
                continue;
            };
            let found = process::process_of(asked.tid).and_then(|pid| {
                let namespace = process::pid_namespace(pid)?;
                process::identity(pid).map(|identity| (identity, namespace))
            });
            // as it waits still, its number was not given to another meanwhile
            if listener.get_ref().is_valid(asked.id) {
                let (identity, namespace) = found?;
                drop(ready);
                return Ok(Located {
                    listener: listener.into_inner(),
                    identity,
                    namespace,
                    held: vec![asked],
                });
            }
        }
    }
}

/// Goes on with a listener that the daemon before this one supervised. `container` is the one that it belongs to, with its
/// papers if they are still in order.
///
/// # Guarantees
/// A call is taken for the runtime's only when its process executes the very program that was handed over, so nothing of the
/// container's is, whatever the record has missed.
pub(crate) async fn resume(
    daemon: Arc<Daemon>,
    name: ListenerName,
    record: Record,
    listener: Listener,
    container: Option<Arc<Container>>,
) {
    let readiness = match container.as_ref().and_then(|container| container.papers()) {
        Some(papers) => Readiness::of(&papers.in_force.policy),
        None => Readiness::ByHand,
    };
    let now_ms = daemon.now_ms();
    // of an exec; a container's own was resumed with it
    let (life, _) = Life::resume(record.kind, record.life, readiness, now_ms);
    let refusal = match &container {
        Some(_) => None,
        None => Some(Refusal::new("exec", "its container was not taken over")),
    };
    let stage = if executes(record.process, record.runtime) {
        Stage::Prelude(Prelude {
            runtime: record.runtime,
            passed: BTreeSet::new(),
            let_go: true,
            checking: None,
            held: Vec::new(),
            asks: Asks::Unknown,
            refusal,
            refused: false,
        })
    } else {
        Stage::Open
    };
    let papers = container.as_ref().and_then(|container| container.papers());
    let permit = match (record.permit, papers) {
        (Some(envelope), Some(papers)) => daemon.gate.recall_permit(&envelope, &papers.digests),
        _ => None,
    };
    let session = Session {
        number: daemon.number(),
        name,
        life,
        container,
        identity: record.process,
        process: pidfd::open(record.process.pid).ok().map(Arc::new),
        claim: record.claim,
        stage,
        permit,
        calls: Calls::new(),
        daemon,
    };
    if session.life.phase() == Phase::Exec
        && let Some(container) = &session.container
    {
        session.exec_began(container);
    }
    go(session, listener).await;
}

/// Whether a process still executes what it did when it was handed over.
fn executes(process: Identity, runtime: Option<Execution>) -> bool {
    let same = process::identity(process.pid).is_ok_and(|now| now == process);
    same && runtime.is_some() && process::execution(process.pid).ok() == runtime
}

async fn go(mut session: Session, listener: Listener) {
    if let Err(error) = session.run(listener).await {
        let error = anyhow::Error::from(error);
        tracing::error!(
            "container {}: supervision ends: {error:#}",
            session.claim.id
        );
    }
    session.finish();
}

/// A container that starts.
fn start(
    daemon: &Daemon,
    claim: &Claim,
    first: Identity,
    listener: ListenerName,
) -> Result<Arc<Container>, Refusal> {
    let container = Arc::new(Container::new(
        claim.id.clone(),
        first,
        claim.namespace,
        listener,
        Life::new(Kind::Container),
    ));
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
