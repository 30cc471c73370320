//! `lazaret bench` and `lazaret report`: the shells around the modules of those names.

use crate::args::{Bench, BenchTarget, Report};
use crate::bench::cgroup::CpuAccount;
use crate::bench::{BenchPlan, Target, run};
use crate::cleanup::write_file;
use crate::engine::Engine;
use crate::exit::{Exit, OrExit, Outcome, fail};
use crate::progress::Steps;
use crate::report::data;
use crate::report::html::render;
use anyhow::Context;
use lazaret_fhir::load::Mix;
use lazaret_kernel::netns::NetworkNamespace;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

/// `lazaret bench`
///
/// # Errors
/// Exit 1 when a target does not run or cannot be put under load, 2 when they are in different networks.
pub fn bench(args: &Bench) -> Outcome {
    let steps = Steps::new("bench");
    let mut targets = Vec::new();
    let mut networks: Vec<(u32, PathBuf)> = Vec::new();
    for target in &args.targets {
        let (target, pid) = find(target)?;
        targets.push(target);
        let path = format!("/proc/{pid}/ns/net");
        let link = std::fs::read_link(&path)
            .with_context(|| format!("cannot read `{path}`"))
            .or_exit(Exit::HostCannot)?;
        networks.push((pid, link));
    }
    // clap requires at least one target
    let Some((pid, first)) = networks.first() else {
        return fail(Exit::Usage, "no target");
    };
    if networks.iter().any(|(_, other)| other != first) {
        return fail(
            Exit::Usage,
            "the targets are in different networks: run them with the same --network",
        );
    }
    let network = NetworkNamespace::of(*pid).or_exit(Exit::HostCannot)?;
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
    let result = network
        .run(|| run(&plan, progress))
        .or_exit(Exit::HostCannot)?
        .or_exit(Exit::No)?;
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

fn find(target: &BenchTarget) -> Outcome<(Target, u32)> {
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
    Ok((
        Target {
            protection: target.protection,
            base,
            cpu: Some(cpu),
        },
        state.pid,
    ))
}

/// `lazaret report`
///
/// # Errors
/// Exit 2 for a file that is no report, 3 when the page cannot be written.
pub fn report(args: &Report) -> Outcome {
    let shown = args.file.display();
    let file = std::fs::File::open(&args.file)
        .with_context(|| format!("cannot open `{shown}`"))
        .or_exit(Exit::Usage)?;
    let mut bytes = Vec::new();
    // one byte more than is read, so that the reader can say so
    let bound = data::MAX_BYTES as u64 + 1;
    file.take(bound)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read `{shown}`"))
        .or_exit(Exit::Usage)?;
    let report = data::Report::from_json(&bytes)
        .with_context(|| format!("`{shown}`"))
        .or_exit(Exit::Usage)?;
    write_file(&args.out, render(&report).as_bytes()).or_exit(Exit::HostCannot)?;
    Ok(Exit::Yes)
}
