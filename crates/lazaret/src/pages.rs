//! `lazaret bench` and `lazaret report`: the shells around the modules of those names.

use crate::args::{Bench, BenchTarget, Report};
use crate::bench::cgroup::CpuAccount;
use crate::bench::summary::summarise;
use crate::bench::{BenchPlan, Network, Target, run};
use crate::cleanup::write_file;
use crate::engine::Engine;
use crate::exit::{Exit, OrExit, Outcome, fail};
use crate::learn;
use crate::progress::Steps;
use crate::report::assemble::{Facts, Parts, assemble};
use crate::report::data;
use crate::report::html::render;
use crate::report::verdict::{self, verdicts};
use anyhow::Context;
use lazaret_bundle::key::file;
use lazaret_bundle::{TrustedKeys, read, verify_for_any_image};
use lazaret_core::digest::Digest;
use lazaret_core::event::Event;
use lazaret_core::profile::Profile;
use lazaret_fhir::load::Mix;
use lazaret_kernel::netns::NetworkNamespace;
use lazaret_text::policy as policy_text;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// `lazaret bench`
///
/// # Errors
/// Exit 1 when a target does not run or cannot be put under load.
pub fn bench(args: &Bench) -> Outcome {
    let steps = Steps::new("bench");
    let targets = args.targets.iter().map(find).collect::<Outcome<Vec<_>>>()?;
    let plan = BenchPlan {
        targets,
        rounds: args.rounds,
        warm_up: args.warm_up,
        duration: Duration::from_secs(args.seconds),
        clients: args.clients,
        mix: Mix::default(),
        seed: args.seed,
    };
    let progress = |round, of| steps.step(&format!("round {round} of {of}"));
    let result = run(&plan, progress).or_exit(Exit::No)?;
    let json = serde_json::json!({
        "type": "bench", "v": 1, "rounds": result.rounds, "throughput": result.throughput,
        "cpu_per_request": result.cpu_per_request, "latency": result.latency,
    });
    let bytes = serde_json::to_vec_pretty(&json)
        .context("cannot write the result")
        .or_exit(Exit::HostCannot)?;
    write_file(&args.out, &bytes).or_exit(Exit::HostCannot)?;
    steps.done(&format!("`{}` written", args.out.display()));
    Ok(Exit::Yes)
}

fn find(target: &BenchTarget) -> Outcome<Target> {
    let base = target.url.parse().or_exit(Exit::Usage)?;
    let state = Engine.state(&target.container).or_exit(Exit::No)?;
    if !state.running {
        return fail(
            Exit::No,
            format_args!("container `{}` does not run", target.container),
        );
    }
    let cpu = CpuAccount::of_process(state.pid)
        .context("cannot find the container's CPU time")
        .or_exit(Exit::HostCannot)?;
    let network = NetworkNamespace::of(state.pid).or_exit(Exit::HostCannot)?;
    let network = Network::Of(Arc::new(network));
    Ok(Target {
        protection: target.protection,
        base,
        network,
        cpu: Some(cpu),
    })
}

/// `lazaret report`
///
/// # Errors
/// Exit 2 for a file that is missing or of another form, 3 when the report cannot be written, 1 when it shows that a
/// promise does not hold.
pub fn report(args: &Report) -> Outcome {
    let report = assemble(parts(&args.dir)?);
    let json = report.to_json().or_exit(Exit::HostCannot)?;
    write_file(&args.dir.join("report.json"), &json).or_exit(Exit::HostCannot)?;
    write_file(&args.dir.join("report.html"), render(&report).as_bytes())
        .or_exit(Exit::HostCannot)?;
    let verdicts = verdicts(&report);
    for verdict in &verdicts {
        let outcome = match verdict.outcome {
            verdict::Outcome::Shown => "shown",
            verdict::Outcome::NotShown => "NOT SHOWN",
            verdict::Outcome::NotMeasured => "NOT MEASURED",
        };
        println!("{outcome:<13} {} ({})", verdict.claim, verdict.figure);
    }
    let shown = verdicts
        .iter()
        .all(|verdict| verdict.outcome == verdict::Outcome::Shown);
    Ok(if shown { Exit::Yes } else { Exit::No })
}

/// Reads what a demonstration left.
fn parts(dir: &Path) -> Outcome<Parts> {
    let facts: Facts = json(&dir.join("facts.json"))?;
    let names = sorted(&dir.join("recordings"))?;
    let recordings = names
        .iter()
        .map(|path| learn::load(path))
        .collect::<Outcome<Vec<_>>>()?;
    let learning =
        (1..=recordings.len()).map(|run| json(&dir.join(format!("coverage-{run}.json"))));
    let learning = learning.collect::<Outcome<Vec<_>>>()?;
    let bundle = bounded(&dir.join("bundle.json"))?;
    let key = file::read_public(&dir.join("key.pub")).or_exit(Exit::NotTrusted)?;
    let verified =
        verify_for_any_image(&bundle, &TrustedKeys::only(key)).or_exit(Exit::NotTrusted)?;
    let rounds: Rounds = json(&dir.join("bench.json"))?;
    Ok(Parts {
        facts,
        profile: Profile::of(recordings),
        policy: policy_text::read(&dir.join("policy.yaml")).or_exit(Exit::Usage)?,
        bundle: (Digest::of(&bundle), verified.key_id().to_string()),
        learning,
        default: json(&dir.join("coverage-default.json"))?,
        enforced: json(&dir.join("coverage-lazaret.json"))?,
        events: events(&dir.join("events.jsonl"))?,
        bench: summarise(rounds.rounds),
    })
}

/// What `lazaret report` needs of `bench.json`; the figures in it are for people and follow from the rounds.
#[derive(serde::Deserialize)]
struct Rounds {
    rounds: Vec<data::Round>,
}

fn sorted(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let shown = dir.display();
    let entries = std::fs::read_dir(dir)
        .with_context(|| format!("cannot read directory `{shown}`"))
        .or_exit(Exit::Usage)?;
    let paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>();
    let mut paths = paths
        .with_context(|| format!("cannot read directory `{shown}`"))
        .or_exit(Exit::Usage)?;
    paths.sort();
    Ok(paths)
}

fn bounded(path: &Path) -> Outcome<Vec<u8>> {
    read::bounded(path, data::MAX_BYTES as u64).or_exit(Exit::Usage)
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Outcome<T> {
    serde_json::from_slice(&bounded(path)?)
        .with_context(|| format!("`{}`", path.display()))
        .or_exit(Exit::Usage)
}

fn events(path: &Path) -> Outcome<Vec<Event>> {
    let bytes = bounded(path)?;
    let lines = bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let events = lines
        .map(serde_json::from_slice)
        .collect::<Result<Vec<Event>, _>>();
    events
        .with_context(|| format!("`{}`", path.display()))
        .or_exit(Exit::Usage)
}
