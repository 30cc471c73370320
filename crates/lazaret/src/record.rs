//! One recording: the probe goes in before the container exists, the container runs, serves, is exercised and stopped,
//! and the probe is read.

mod in_progress;

use crate::cleanup::{Guard, write_file};
use crate::engine::{Engine, Image, State};
use crate::exit::{Exit, OrExit, Outcome, fail};
use crate::progress::Steps;
use anyhow::Context;
use in_progress::Waiting;
use lazaret_core::filter::abi::Abi;
use lazaret_core::format::recording as wire;
use lazaret_core::phase::Phase;
use lazaret_core::policy::Http;
use lazaret_core::recording::{Environment, Exercise, Recording, Subject};
use lazaret_kernel::netns::NetworkNamespace;
use lazaret_kernel::process::pid_namespace;
use lazaret_probe::{Attached, Limits, PidNamespace, Probe};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Seconds that the engine waits for the end after the stop signal; a container that needs longer is killed, and its
/// recording is incomplete.
const STOP_SECONDS: u32 = 60;

/// What is run and when it serves.
#[derive(Debug)]
pub struct Run<'a> {
    /// Arguments for `docker create`: options, image, command.
    pub create: Vec<String>,
    /// The image's name.
    pub image_name: &'a str,
    /// The image.
    pub image: &'a Image,
    /// The answer that means ready; none means ready at once.
    pub ready: Option<&'a Http>,
    /// How long to wait for it.
    pub ready_timeout: Duration,
    /// From ready to serving.
    pub settle: Duration,
    /// Time to serve on before the stop.
    pub dwell: Duration,
}

/// A container that runs, as an exerciser sees it.
#[derive(Debug)]
pub struct Inside<'a> {
    /// Its network.
    pub network: &'a NetworkNamespace,
    /// Its first process, in the host's numbering.
    pub pid: u32,
}

impl Inside<'_> {
    /// Whether its first process is there.
    #[must_use]
    pub fn alive(&self) -> bool {
        alive(self.pid)
    }
}

fn alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Records one run.
///
/// # Flow
/// Probe, container, phase by phase, stop by signal, read, container removed. A call that a thread waits in when a phase begins
/// counts in that phase too.
///
/// # Errors
/// Exit 3 when this host or its engine cannot; 1 when the container does not become ready, dies, or the exercise fails;
/// 5 when the recording cannot be whole. The container is gone in every case.
pub fn record(
    run: &Run<'_>,
    steps: &Steps,
    exercise: impl FnOnce(&Inside<'_>) -> Outcome<Option<Exercise>>,
) -> Outcome<Recording> {
    let engine = Engine;
    let environment = environment(&engine)?;
    let probe = Probe::load(Limits::default())
        .context("cannot load the recorder (hint: run `lazaret doctor`)");
    let mut probe = probe
        .or_exit(Exit::HostCannot)?
        .attach()
        .context("cannot attach the recorder")
        .or_exit(Exit::HostCannot)?;
    let began = Instant::now();
    let name = format!("lazaret-learn-{}-{}", std::process::id(), nonce());
    let guard = Guard::container(&engine, &name);
    steps.step("starting the container");
    engine.create(&name, &run.create).or_exit(Exit::No)?;
    engine.start(&name).or_exit(Exit::No)?;
    let state = engine.state(&name).or_exit(Exit::HostCannot)?;
    if !state.running {
        return died(&engine, &name, "ended at once");
    }
    let held = Container {
        engine: &engine,
        name: &name,
        pid: state.pid,
    };
    let Placed {
        namespace,
        network,
        no_new_privileges,
    } = match held.placed() {
        Err(_) if !held.runs()? => return died(&engine, &name, "ended at once"),
        placed => placed?,
    };
    let inside = Inside {
        network: &network,
        pid: state.pid,
    };
    let mut clock = Clock {
        began,
        native: environment.arch,
        timeline: BTreeMap::from([(Phase::Startup, 0)]),
        waiting: Vec::new(),
    };

    held.wait_ready(run, &inside, steps)?;
    clock.enter(&mut probe, &namespace, Phase::Serving, state.pid)?;
    let exercised = exercise(&inside);
    if !inside.alive() {
        return died(&engine, &name, "ended while it was exercised");
    }
    let exercised = exercised?;
    steps.step("serving on");
    pause(run.dwell, &inside);

    steps.step("stopping by signal");
    clock.enter(&mut probe, &namespace, Phase::Stopping, state.pid)?;
    let stopping = Instant::now();
    engine.stop(&name, STOP_SECONDS).or_exit(Exit::HostCannot)?;
    let end = engine.state(&name).or_exit(Exit::HostCannot)?;
    // 137 is 128 + SIGKILL: the engine lost patience, the end was not recorded
    let stopped = !end.running
        && end.exit_code != 137
        && stopping.elapsed().as_secs() < u64::from(STOP_SECONDS);
    let duration_ns = nanoseconds(began);
    let mut seen = probe
        .finish(&namespace)
        .context("cannot read the recorder")
        .or_exit(Exit::HostCannot)?;
    drop(guard);
    if !seen.from_start {
        return fail(
            Exit::Incomplete,
            "the recording is incomplete: the container was there before the recorder",
        );
    }
    if seen.nested > 0 {
        let nested = seen.nested;
        let text = format!(
            "the recording is incomplete: the container made {nested} pid namespaces of its own, whose calls are not recorded"
        );
        return fail(Exit::Incomplete, text);
    }
    in_progress::add(&mut seen.observations, &clock.waiting);
    Ok(Recording {
        subject: Subject {
            name: run.image_name.to_string(),
            digests: run.image.digests.clone(),
        },
        environment: Environment {
            no_new_privileges,
            ..environment
        },
        probe: seen.attach_kind.to_string(),
        timeline: clock.timeline,
        duration_ns,
        stopped,
        exercise: exercised,
        losses: seen.losses,
        observations: seen.observations,
    })
}

/// Writes a recording, whole or not at all.
///
/// # Errors
/// Exit 3: the disk.
pub fn save(path: &Path, recording: &Recording) -> Outcome<()> {
    write_file(path, &wire::write(recording))
        .context("cannot save the recording")
        .or_exit(Exit::HostCannot)
}

fn nanoseconds(began: Instant) -> u64 {
    // 584 years
    u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn nonce() -> u32 {
    // names only need to differ between runs of one process
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

fn environment(engine: &Engine) -> Outcome<Environment> {
    engine.version().or_exit(Exit::HostCannot)?;
    let kernel = kernel_release().or_exit(Exit::HostCannot)?;
    let arch = native().or_exit(Exit::HostCannot)?;
    let runtime = engine.runtime().or_exit(Exit::HostCannot)?;
    Ok(Environment {
        kernel,
        arch,
        runtime,
        no_new_privileges: false,
    })
}

/// The kernel's release, as `uname -r` prints it.
///
/// # Errors
/// `/proc` is not there.
pub fn kernel_release() -> anyhow::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("cannot read the kernel's release")?;
    Ok(text.trim().to_string())
}

/// The native calling convention of this program, which is the host's.
///
/// # Errors
/// An architecture without a table.
pub fn native() -> anyhow::Result<Abi> {
    std::env::consts::ARCH
        .parse()
        .with_context(|| format!("architecture `{}`", std::env::consts::ARCH))
}

/// When each phase began, and what waited then.
struct Clock {
    began: Instant,
    native: Abi,
    timeline: BTreeMap<Phase, u64>,
    waiting: Vec<Waiting>,
}

impl Clock {
    /// Begins a phase for the container whose first process is `pid`.
    fn enter(
        &mut self,
        probe: &mut Probe<Attached>,
        namespace: &PidNamespace,
        phase: Phase,
        pid: u32,
    ) -> Outcome<()> {
        probe
            .set_phase(namespace, phase)
            .context("cannot tell the recorder the phase")
            .or_exit(Exit::HostCannot)?;
        let now = nanoseconds(self.began);
        self.timeline.insert(phase, now);
        // afterwards: what begins to wait in between is counted by the recorder
        let container = pid_namespace(pid).or_exit(Exit::No)?;
        let waiting = in_progress::waiting(container, self.native, phase, now)?;
        self.waiting.extend(waiting);
        Ok(())
    }
}

/// Waits, but not for a container that is gone.
fn pause(time: Duration, inside: &Inside<'_>) {
    let until = Instant::now() + time;
    while inside.alive() && Instant::now() < until {
        std::thread::sleep(
            Duration::from_millis(50).min(until.saturating_duration_since(Instant::now())),
        );
    }
}

fn died<T>(engine: &Engine, name: &str, how: &str) -> Outcome<T> {
    let State { exit_code, .. } = engine.state(name).or_exit(Exit::HostCannot)?;
    let words = engine.last_words(name).unwrap_or_default();
    let words = if words.is_empty() {
        "it printed nothing".to_string()
    } else {
        format!("it printed last:\n{words}")
    };
    fail(
        Exit::No,
        format_args!("the container {how} with exit code {exit_code}; {words}"),
    )
}

struct Container<'a> {
    engine: &'a Engine,
    name: &'a str,
    pid: u32,
}

/// What can only be asked while the first process is there.
struct Placed {
    namespace: PidNamespace,
    network: NetworkNamespace,
    no_new_privileges: bool,
}

impl Container<'_> {
    fn runs(&self) -> Outcome<bool> {
        // the engine may not have heard of the end yet
        let state = self.engine.state(self.name).or_exit(Exit::HostCannot)?;
        Ok(state.running && alive(self.pid))
    }

    fn placed(&self) -> Outcome<Placed> {
        Ok(Placed {
            namespace: self.namespace()?,
            network: NetworkNamespace::of(self.pid).or_exit(Exit::HostCannot)?,
            no_new_privileges: self.no_new_privileges()?,
        })
    }

    fn namespace(&self) -> Outcome<PidNamespace> {
        let namespace = PidNamespace::of_pid(self.pid);
        let namespace = namespace
            .context("cannot find the container's pid namespace")
            .or_exit(Exit::HostCannot)?;
        let own = PidNamespace::of_pid(std::process::id())
            .context("own pid namespace")
            .or_exit(Exit::HostCannot)?;
        if namespace.inum() == own.inum() {
            return fail(
                Exit::Usage,
                "a container with `--pid=host` cannot be told apart from the host: it is not recorded",
            );
        }
        Ok(namespace)
    }

    fn no_new_privileges(&self) -> Outcome<bool> {
        let path = format!("/proc/{}/status", self.pid);
        let status = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read `{path}`"))
            .or_exit(Exit::No)?;
        Ok(status.lines().any(|line| {
            line.strip_prefix("NoNewPrivs:")
                .is_some_and(|value| value.trim() == "1")
        }))
    }

    fn wait_ready(&self, run: &Run<'_>, inside: &Inside<'_>, steps: &Steps) -> Outcome<()> {
        if let Some(http) = run.ready {
            steps.step("waiting for the server");
            let url = format!("http://127.0.0.1:{}{}", http.port, http.path);
            let waited = inside.network.run(|| {
                let poll = Duration::from_millis(200);
                lazaret_fhir::ready::wait(&url, http.status, run.ready_timeout, poll, &|| {
                    inside.alive()
                })
            });
            let waited = waited.or_exit(Exit::HostCannot)?;
            if !inside.alive() {
                return died(self.engine, self.name, "ended before it was ready");
            }
            waited
                .context("the server did not become ready")
                .or_exit(Exit::No)?;
        }
        pause(run.settle, inside);
        if !inside.alive() {
            return died(self.engine, self.name, "ended before it served");
        }
        Ok(())
    }
}
