//! What was typed: the clap definitions, validation only, no effects. What it means is in the module of each verb.

mod filters;
mod gate;
mod install;
mod trust;

pub use filters::{
    Compile, Decide, Import, Inspect, PolicyVerb, ProfileHost, Prove, Source, Target,
};
pub use gate::{Control, PhaseArgs, Revise, Suggest, WatchArgs};
pub use install::{Install, InstallEngine};
pub use trust::{
    Algorithm, BundleVerb, KeyVerb, PermitCalls, PermitSign, PermitVerb, Sign, StoreArgs, Verify,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Quarantine for containers that hold health data.
///
/// Learns which system calls an HL7 FHIR server needs, turns them into a small signed policy bound to the image, lets the
/// container start only when image and policy verify, and has the kernel hold it to the policy.
///
/// Exit codes: 0 yes, 1 the answer is no, 2 usage or bad input, 3 the host cannot, 4 not trusted, 5 evidence incomplete,
/// 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "lazaret", version, max_term_width = 100)]
pub struct Cli {
    /// How results are printed on standard output.
    // after the verb's own options
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, display_order = 900)]
    pub format: Format,
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object per line, each with `type` and `v`.
    Json,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Say what this host can and cannot do, and what to do about it.
    Doctor(Doctor),
    /// From image to policy: run it, record, exercise, synthesise.
    Learn(Learn),
    /// Record one run of a container; nothing is exercised but by you.
    Record(Record),
    /// Exercise a server.
    Exercise(Exercise),
    /// Merge recordings and write the policy text.
    Synth(Synth),
    /// The policy language.
    #[command(subcommand)]
    Policy(PolicyVerb),
    /// Compile a policy or a seccomp profile to what a kernel or a runtime loads.
    ///
    /// Exit codes: 0 compiled, 2 bad input or more than the target can hold, 3 the output cannot be written, 5 a recording
    /// in which nothing was served.
    Compile(Compile),
    /// One verdict, and the rule that gave it.
    ///
    /// Exit codes: 0 the call is allowed, 1 it is not, 2 bad input.
    Decide(Decide),
    /// What the filters allow that the kernel runs for a container or a process, or that a file holds.
    ///
    /// Exit codes: 0 shown, 1 a filter cannot be followed, 2 bad input or no such container or process, 3 the kernel does not
    /// show its filters.
    Inspect(Inspect),
    /// Prove that filters mean what a policy or a profile says, or show the calls that tell them apart.
    ///
    /// Exit codes: 0 equal (or stricter, with --at-least-as-strict), 1 not, or undecided, 2 bad input or no such container or
    /// process, 3 the kernel does not show its filters.
    Prove(Prove),
    /// Signing keys.
    #[command(subcommand)]
    Key(KeyVerb),
    /// Sign a policy: makes the bundle that a node verifies.
    Sign(Sign),
    /// Verify a bundle against pinned keys and an image's digests.
    Verify(Verify),
    /// Bundles on this node.
    #[command(subcommand)]
    Bundle(BundleVerb),
    /// Put the gate's runtime into an engine's configuration, or take it out; shows the change as a unified diff.
    ///
    /// Everything else in the file stays as it is. A copy of what was there before is kept beside it (`.before-lazaret`).
    /// No engine is reloaded or restarted: what is to be done is printed.
    ///
    /// Exit codes: 0 done or nothing to do, 1 an entry is not ours, or in use, 2 a file that cannot be understood,
    /// 3 this host or user cannot.
    Install(Install),
    /// Signed statements that open something for a while.
    #[command(subcommand)]
    Permit(PermitVerb),
    /// What the gate on this node holds.
    Status(Control),
    /// What happens at the gate, as it happens: a live table on a terminal, else one line per event.
    ///
    /// The table shows calls of the ask band: asked, and of these allowed and denied by the gate, per second. Calls that the
    /// kernel allows by itself never reach the gate, and cannot be counted without cost: they are in none of these figures.
    /// Keys: arrows to choose a container, Enter for its details, `/` to filter, `s` to sort, space to pause, `?` for help,
    /// `q` to quit. While the gate is away (an upgrade) the table stays, dimmed, and comes back with it; lines end then.
    ///
    /// Exit codes: 0 quit, 3 the gate cannot be reached or (lines) hung up, 130 Ctrl-C.
    Watch(WatchArgs),
    /// Move a container to another phase by hand.
    ///
    /// Exit codes: 0 moved, 1 the gate says no, 3 no gate.
    Phase(PhaseArgs),
    /// Put another signed revision in force in a container that runs, without a restart.
    ///
    /// The kernel's filter stays as it is. What the revision denies and that filter allows cannot be held until the container
    /// is started again: such a revision is refused, unless --partly takes it.
    ///
    /// Exit codes: 0 in force, 1 the gate refuses, 3 no gate.
    Revise(Revise),
    /// Calls that were denied, or would have been, as a change of the policy's text, for review and signing.
    ///
    /// Reads the running gate's counts, or its event logs. Prints a unified diff that `patch` takes. Nothing is signed,
    /// installed or widened by it.
    ///
    /// Exit codes: 0 suggestions, 1 nothing to suggest, 2 bad input, 3 no gate.
    Suggest(Suggest),
    /// Interleaved rounds of load against running containers.
    Bench(Bench),
    /// Put a demonstration's results into one report, JSON and a self-contained page; 1 when a promise is not shown.
    Report(Report),
    /// Write the man pages and shell completions.
    #[command(hide = true)]
    Man(Man),
}

/// `lazaret doctor`
#[derive(Debug, Args)]
pub struct Doctor {}

/// How the container is run and when it serves.
#[derive(Debug, Args)]
pub struct Running {
    /// An argument for `docker run`, as `--run-arg=--network=host`; may be given many times.
    #[arg(long = "run-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub run_args: Vec<String>,
    /// An argument for the container's command; may be given many times.
    #[arg(long = "cmd-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub cmd_args: Vec<String>,
    /// Base URL of the FHIR server as seen from inside the container's network [default: http://127.0.0.1:PORT/fhir with
    /// the only TCP port that the image exposes].
    #[arg(long, value_name = "URL")]
    pub fhir_base: Option<String>,
    /// Path whose answer 200 means ready [default: the base's path and `/metadata`].
    #[arg(long, value_name = "PATH")]
    pub ready: Option<String>,
    /// Seconds to wait for the server to become ready.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub ready_timeout: u64,
    /// Seconds between ready and serving.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=600))]
    pub settle: u64,
    /// Command that exercises the server instead of the FHIR exerciser; run by `sh -c` in the container's network.
    #[arg(long, value_name = "COMMAND")]
    pub exercise_cmd: Option<String>,
    /// Seconds to serve on after the exercise before the stop.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub dwell: u64,
}

/// `lazaret learn`
#[derive(Debug, Args)]
pub struct Learn {
    /// The image, as `docker run` takes it.
    pub image: String,
    /// Directory for the recordings, the policy and the profile; made if need be.
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// How often the container is run and recorded; the unseen rest can be estimated from 2 on.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub runs: u32,
    /// How the container is run.
    #[command(flatten)]
    pub running: Running,
    /// What the policy says beside its rules.
    #[command(flatten)]
    pub naming: Naming,
}

/// What a policy says beside its rules.
#[derive(Debug, Args)]
pub struct Naming {
    /// The policy's name [default: from the image's name].
    #[arg(long)]
    pub name: Option<String>,
    /// The policy's revision.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub revision: u64,
    /// Allow calls that differ only by C library and version from those seen, each rule saying so.
    #[arg(long, value_enum, default_value_t = Stability::Exact)]
    pub stability: Stability,
}

/// Which calls are allowed beside those seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stability {
    /// None.
    Exact,
    /// Those that differ only by C library and version.
    Equivalent,
}

/// `lazaret record`
#[derive(Debug, Args)]
pub struct Record {
    /// The recording.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Path and port whose answer 200 means ready, as `8080/health`; without it everything after the start is startup.
    #[arg(long, value_name = "PORT/PATH")]
    pub ready: Option<String>,
    /// Seconds to wait for it.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub ready_timeout: u64,
    /// Seconds to record after the container is ready; it is then stopped by its stop signal.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub seconds: u64,
    /// Arguments of `docker run`: options, image, command.
    #[arg(last = true, required = true, value_name = "DOCKER RUN ARGUMENTS")]
    pub run: Vec<String>,
}

/// `lazaret exercise`
#[derive(Debug, Args)]
pub struct Exercise {
    /// What kind of server.
    #[command(subcommand)]
    pub what: ExerciseWhat,
}

/// What kind of server.
#[derive(Debug, Subcommand)]
pub enum ExerciseWhat {
    /// A FHIR server, driven by its CapabilityStatement, with fictional data.
    Fhir {
        /// The base URL, as http://127.0.0.1:8080/fhir.
        url: String,
        /// Number of this run; it must be new to the server's database.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        run: u32,
        /// Also write the coverage to this file as JSON.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// `lazaret synth`
#[derive(Debug, Args)]
pub struct Synth {
    /// Recordings of the same image.
    #[arg(required = true)]
    pub recordings: Vec<PathBuf>,
    /// The policy text.
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
    /// When a container serves, as `8080/health`; answered 200.
    #[arg(long, value_name = "PORT/PATH")]
    pub ready: Option<String>,
    /// Seconds between ready and serving.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=600))]
    pub settle: u64,
    /// What the policy says beside its rules.
    #[command(flatten)]
    pub naming: Naming,
}

/// `lazaret bench`
#[derive(Debug, Args)]
pub struct Bench {
    /// A running container: under what it runs (unconfined, default, default_again, lazaret), its name, and the FHIR base
    /// URL inside its network; may be given several times.
    #[arg(long = "target", value_name = "PROTECTION,CONTAINER,URL", required = true, value_parser = bench_target)]
    pub targets: Vec<BenchTarget>,
    /// Rounds that count.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Rounds before them that only warm up.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub warm_up: u32,
    /// Seconds under load, for each target in each round.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Requests at a time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub clients: u32,
    /// Seed of the orders.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The result as JSON: rounds, throughput, CPU time per request and latency, as in `report.json`.
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
}

/// One target of `lazaret bench`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BenchTarget {
    /// Under what it runs.
    pub protection: crate::report::data::Protection,
    /// Its name or id.
    pub container: String,
    /// The FHIR base URL inside its network.
    pub url: String,
}

/// `lazaret report`
#[derive(Debug, Args)]
pub struct Report {
    /// A demonstration's directory (`docs/formats.md`): recordings, policy, bundle, coverages, events, rounds and facts.
    /// `report.json` and `report.html` are written into it.
    pub dir: PathBuf,
}

/// `lazaret man`
#[derive(Debug, Args)]
pub struct Man {
    /// Directory for the pages.
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
}

fn phase(text: &str) -> Result<lazaret_core::phase::Phase, String> {
    lazaret_core::phase::Phase::ALL
        .into_iter()
        .find(|phase| phase.name() == text)
        .ok_or_else(|| "expected prelude, startup, serving, stopping or exec".to_string())
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| format!("`{text}` is no number of 64 bits: {error}"))
}

fn bench_target(text: &str) -> Result<BenchTarget, String> {
    let mut words = text.splitn(3, ',');
    let (Some(protection), Some(container), Some(url)) = (words.next(), words.next(), words.next())
    else {
        return Err("expected PROTECTION,CONTAINER,URL".to_string());
    };
    let protection = serde::Deserialize::deserialize(serde::de::value::StrDeserializer::<
        serde::de::value::Error,
    >::new(protection))
    .map_err(|error| error.to_string())?;
    Ok(BenchTarget {
        protection,
        container: container.to_string(),
        url: url.to_string(),
    })
}
