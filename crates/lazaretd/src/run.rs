//! From a configuration to a gate that answers, and to its end.
//!
//! Order: who else is there, who reads filters, what was left, where listeners live, then the sockets; what was left is taken
//! back, the program is confined, goes on with it, and only then lets anybody new in. `docs/operations.md` lists the steps.

use crate::answers::Answers;
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::{Daemon, Parts};
use crate::keep::{self, CONTROL, GATE, KeepConfig, Keeper, Kept, Manager, systemd};
use crate::metrics::http::{self, Bound};
use crate::reader::{Gone, Reader};
use crate::records::Records;
use crate::socket::{Access, Afterwards, Claim, Locked, Made, Place, SocketError};
use crate::{accept, audit, confine, events};
use anyhow::Context as _;
use lazaret_core::event::What;
use lazaret_kernel::{fds, memory};
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// Threads for everything that is neither an answer nor blocks. Few, as each may have memory of its own.
const WORKERS: usize = 2;

/// Arenas of the allocator. By default each of the threads that check papers would keep what one check took.
const ARENAS: i32 = 2;

/// How long work on other threads may go on after the signal to stop.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// Runs the gate until a signal ends it.
///
/// # Errors
/// The step that failed.
pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "must run as root: it reads the filters of other users' processes"
    );
    memory::limit_arenas(ARENAS);
    // while there is one thread: it reads and changes the environment
    let inherited = fds::inherited().context("cannot take what the service manager passes on")?;
    // sockets and files of this program are for root alone, from their first moment on
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    raise_descriptor_limit();
    let program = "/proc/self/exe";
    let config = Arc::new(config);
    let gate = Place {
        path: &config.listen,
        access: Access::Own,
    };
    let control = Place {
        path: &config.control,
        access: if config.roles.are_given() {
            Access::Peers
        } else {
            Access::Own
        },
    };
    // a folder that both have in common is checked for the one that lets more in
    let same = config.listen.parent() == config.control.parent();
    let gate = Place {
        access: if same { control.access } else { gate.access },
        ..gate
    };
    let access = control.access;
    let (gate, control) = (gate.lock()?, control.lock()?);
    // after the locks: one that is not let in starts nothing
    let (reader, child) = Reader::start(program.as_ref())?;
    let reader = Arc::new(reader);
    // the sockets may lie in the same folder, and do so by default
    let state_access = if config.control.parent() == Some(config.state_dir.as_path()) {
        access
    } else {
        Access::Own
    };
    let (records, known) = Records::open(&config.state_dir, state_access)?;
    let keeping = KeepConfig {
        choice: config.keeper,
        socket: config.state_dir.join("hold.sock"),
        hold_for_s: config.hold_for_s,
        program: program.into(),
    };
    let (keeper, mut kept) = Keeper::open(&keeping, &Manager::from_environment(), inherited)?;
    let afterwards = match keeper.place() {
        keep::Place::Nowhere => Afterwards::Removed,
        keep::Place::Holder | keep::Place::Systemd => Afterwards::Stays,
    };
    let (gate, gate_claim) = listen(gate, GATE, &keeper, &mut kept, afterwards)?;
    let (control, control_claim) = listen(control, CONTROL, &keeper, &mut kept, afterwards)?;
    let (events, writer) = events::start(&config.events, config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(WORKERS)
        .build()
        .context("cannot start the runtime")?;
    let gone = match keeper.place() {
        keep::Place::Systemd => Gone::End,
        keep::Place::Holder | keep::Place::Nowhere => Gone::GoOn,
    };
    reader.watch(child, gone)?;
    let choice = config.confine;
    let daemon = Daemon::new(Parts {
        clock: Arc::new(Clock::open(&config.state_dir)),
        config,
        events,
        records: Arc::new(records),
        keeper: Arc::new(keeper),
        reader: Arc::clone(&reader),
        answers: Answers::start()?,
        runtime: runtime.handle().clone(),
    });
    // the last that needs ptrace; nothing that a container said was read yet
    let taken = daemon.take_back(known, kept);
    confine::confine(choice)?;
    let stopped = serve(&runtime, &daemon, (gate, control), || daemon.go_on(taken));
    told("stopping", systemd::stopping());
    if let Some(export) = daemon.audit().take() {
        export.stop(SHUTDOWN);
    }
    // Nobody new; then what runs is dropped. What is with the keeper waits for the next gate.
    end(runtime, writer, (gate_claim, control_claim));
    reader.end();
    stopped
}

fn serve(
    runtime: &Runtime,
    daemon: &Arc<Daemon>,
    (gate, control): (UnixListener, UnixListener),
    go_on: impl FnOnce(),
) -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    daemon.events.tell("", What::GateStarted { version });
    go_on();
    let keeper = &daemon.keeper;
    tracing::info!("{} descriptors are with {}", keeper.count(), keeper.place());
    let (reload, gate, control) = {
        let _entered = runtime.enter();
        (
            signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?,
            tokio::net::UnixListener::from_std(gate).context("cannot use the gate's socket")?,
            tokio::net::UnixListener::from_std(control).context("cannot use the control socket")?,
        )
    };
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        tokio::spawn(accept::runtimes(Arc::clone(daemon), gate));
        tokio::spawn(accept::clients(Arc::clone(daemon), control));
        tokio::spawn(Arc::clone(daemon).tell_denials());
        tokio::spawn(Arc::clone(daemon).keep_up());
        if let Some(interval) = systemd::watchdog() {
            tokio::spawn(feed_watchdog(interval));
        }
        tokio::spawn(reopen_log(Arc::clone(daemon), reload));
        serve_metrics(daemon);
        export_audit(daemon);
        told("ready", systemd::ready());
        tracing::info!("listening on {}", daemon.config.listen.display());
        tokio::select! {
            _ = terminate.recv() => tracing::info!("stopping: SIGTERM"),
            _ = interrupt.recv() => tracing::info!("stopping: SIGINT"),
        }
        daemon.events.tell("", What::GateStopped);
        anyhow::Ok(())
    })
}

/// Serves metrics, where the configuration says so. Without them the gate does its work all the same.
fn serve_metrics(daemon: &Arc<Daemon>) {
    let Some(address) = &daemon.config.metrics else {
        return;
    };
    match Bound::at(address) {
        Ok(bound) => {
            let figures = Arc::clone(daemon);
            tokio::spawn(http::serve(bound, move || figures.figures()));
        }
        Err(error) => tracing::error!("no metrics: {:#}", anyhow::Error::from(error)),
    }
}

/// Tells the service manager that the gate is alive, from where its sessions run.
async fn feed_watchdog(interval: Duration) {
    let mut interval = tokio::time::interval(interval);
    loop {
        interval.tick().await;
        told("alive", systemd::alive());
    }
}

/// Exports AuditEvents, where the configuration says so. Without them the gate does its work all the same.
fn export_audit(daemon: &Arc<Daemon>) {
    let Some(settings) = &daemon.config.audit else {
        return;
    };
    let events = daemon.events.clone();
    let tell = move |what| events.tell("", what);
    match audit::spawn(settings, &daemon.config.events, tell) {
        Ok(export) => *daemon.audit() = Some(export),
        Err(error) => tracing::error!("no AuditEvents: {:#}", anyhow::Error::from(error)),
    }
}

/// `logrotate(8)` renames the log and sends `SIGHUP`.
async fn reopen_log(daemon: Arc<Daemon>, mut signal: tokio::signal::unix::Signal) {
    while signal.recv().await.is_some() {
        told("reloading", systemd::reloading());
        daemon.events.reopen();
        told("ready", systemd::ready());
    }
}

fn end(runtime: Runtime, writer: events::Writer, claims: (Claim, Claim)) {
    drop(claims);
    runtime.shutdown_timeout(SHUTDOWN);
    writer.finish();
}

/// Listens with the socket that was kept under this name, or makes one and has it kept, so that runtimes which connect while
/// no gate runs wait for the next one.
fn listen(
    place: Locked<'_>,
    name: &str,
    keeper: &Keeper,
    kept: &mut Vec<Kept>,
    afterwards: Afterwards,
) -> Result<(UnixListener, Claim), SocketError> {
    let at = kept.iter().position(|one| one.name == name);
    let before = at.map(|at| kept.swap_remove(at).fd);
    let had = before.is_some();
    let (socket, claim, made) = place.listen(before, afterwards)?;
    if made == Made::Anew {
        let replaced = if had { keeper.remove(name) } else { Ok(()) };
        if let Err(error) = replaced.and_then(|()| keeper.put(name, socket.as_fd())) {
            tracing::error!(
                "socket `{name}` ends with this gate: {:#}",
                anyhow::Error::from(error)
            );
        }
    }
    Ok((socket, claim))
}

/// Without a service manager nobody is told; one that cannot be told may think that the gate hangs.
fn told(what: &str, outcome: std::io::Result<()>) {
    if let Err(error) = outcome {
        tracing::error!("cannot tell the service manager `{what}`: {error}");
    }
}

/// Two to five descriptors per container add up; the default soft limit of 1024 is for programs that use `select`.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::warn!("cannot raise the limit of open descriptors: {error}");
    }
}
