//! Cost, side by side: several containers of one image under the same load, in interleaved rounds.
//!
//! Flow: each round puts every target under the same load once, in random but seeded order, and notes throughput, time
//! to answer and the CPU time of the container's cgroup. The first rounds only warm up (a JVM compiles while it
//! serves). [`summary::summarise`] then compares the targets round by round.
//!
//! It does not start, stop or confine containers, and it judges nothing: the report does.

pub mod cgroup;
pub mod stats;
pub mod summary;

use crate::report::data::{CpuPerRequest, Latency, Protection, Report, Round, Sample, Throughput};
use cgroup::{CpuAccount, ReadError};
use lazaret_fhir::base::Base;
use lazaret_fhir::load::{self, LoadError, LoadPlan, LoadResult, Mix, Prepared};
use lazaret_kernel::netns::{NetnsError, NetworkNamespace};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Time for one request; a server that needs longer has failed it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// One server that is measured.
#[derive(Clone, Debug)]
pub struct Target {
    /// Under what it runs; no two targets of a plan run under the same.
    pub protection: Protection,
    /// Its FHIR base.
    pub base: Base,
    /// The network it is reached in.
    pub network: Network,
    /// Where the CPU time of its cgroup is read; `None` leaves CPU time unmeasured.
    pub cpu: Option<CpuAccount>,
}

/// The network that a server is reached in.
#[derive(Clone, Debug)]
pub enum Network {
    /// This program's.
    Own,
    /// A container's.
    Of(Arc<NetworkNamespace>),
}

impl Network {
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        match self {
            Network::Own => Ok(work()),
            Network::Of(network) => network.run(work),
        }
    }
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct BenchPlan {
    /// The servers.
    pub targets: Vec<Target>,
    /// Rounds that count.
    pub rounds: u32,
    /// Rounds before them that do not.
    pub warm_up: u32,
    /// How long each target is under load in each round.
    pub duration: Duration,
    /// Requests at a time.
    pub clients: u32,
    /// Proportions of the load's requests.
    pub mix: Mix,
    /// Seed of the order of targets in the rounds, and of the load.
    pub seed: u64,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchResult {
    /// Requests per second.
    pub throughput: Throughput,
    /// CPU time per request.
    pub cpu_per_request: CpuPerRequest,
    /// Time to answer.
    pub latency: Latency,
    /// The raw figures, warm-up included.
    pub rounds: Vec<Round>,
}

impl BenchResult {
    /// Puts the figures into their places in a report.
    pub fn fill(self, report: &mut Report) {
        report.throughput = self.throughput;
        report.cpu_per_request = self.cpu_per_request;
        report.latency = self.latency;
        report.rounds = self.rounds;
    }
}

/// Why a comparison ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// Nothing to compare.
    #[error("nothing to measure: {targets} targets, {rounds} rounds")]
    Nothing {
        /// Targets of the plan.
        targets: usize,
        /// Rounds of the plan that count.
        rounds: u32,
    },
    /// Two targets of one name: their figures would be mixed.
    #[error("two targets run under `{protection}`")]
    Twice {
        /// The name.
        protection: Protection,
    },
    /// What the load works on cannot be made.
    #[error("cannot prepare target `{protection}`")]
    Prepare {
        /// The target.
        protection: Protection,
        /// Why.
        source: LoadError,
    },
    /// The network of a target cannot be entered.
    #[error("target `{protection}`")]
    Network {
        /// The target.
        protection: Protection,
        /// Why.
        source: NetnsError,
    },
    /// The CPU time of a target cannot be read.
    #[error("target `{protection}`, round {round}")]
    Cpu {
        /// The target.
        protection: Protection,
        /// The round, from 1, warm-up included.
        round: u32,
        /// Why.
        source: ReadError,
    },
    /// A target cannot be put under load.
    #[error("target `{protection}`, round {round}")]
    Load {
        /// The target.
        protection: Protection,
        /// The round, from 1, warm-up included.
        round: u32,
        /// Why.
        source: LoadError,
    },
}

/// Measures the targets of a plan; `progress` is told each round's number, from 1, and how many there are.
///
/// Takes (`warm_up` + `rounds`) × targets × `duration`, and a few seconds to create the resources that the load works on.
///
/// # Errors
/// See [`BenchError`]. Failed requests are no error: they are counted.
pub fn run(plan: &BenchPlan, progress: impl FnMut(u32, u32)) -> Result<BenchResult, BenchError> {
    check(plan)?;
    let prepared = plan
        .targets
        .iter()
        .map(|target| {
            let protection = target.protection;
            target
                .network
                .run(|| load::prepare(&target.base, plan.clients, REQUEST_TIMEOUT))
                .map_err(|source| BenchError::Network { protection, source })?
                .map(|prepared| (protection, prepared))
                .map_err(|source| BenchError::Prepare { protection, source })
        })
        .collect::<Result<BTreeMap<Protection, Prepared>, BenchError>>()?;
    let drive = |target: &Target, round: u32| {
        let load = LoadPlan {
            base: target.base.clone(),
            clients: plan.clients,
            duration: plan.duration,
            mix: plan.mix,
            // The same for every target of a round, another one in each round.
            seed: plan.seed.wrapping_add(u64::from(round)),
            request_timeout: REQUEST_TIMEOUT,
        };
        let protection = target.protection;
        let failed = |source| BenchError::Load {
            protection,
            round,
            source,
        };
        // Cannot happen, each target was prepared; were it to, the load has nobody to work for.
        let nobody = || LoadError::Clients {
            clients: plan.clients,
            limit: 0,
        };
        let prepared = prepared
            .get(&protection)
            .ok_or_else(nobody)
            .map_err(failed)?;
        let run = || load::run(&load, prepared);
        let result = target.network.run(run);
        result
            .map_err(|source| BenchError::Network { protection, source })?
            .map_err(failed)
    };
    Ok(summary::summarise(rounds(plan, drive, progress)?))
}

/// The rounds of a checked plan, with `drive` as the load.
///
/// The CPU time of a sample is what the target's cgroup used from before `drive` until after it: work that the server
/// does later for these requests is not in it, and what it does by itself meanwhile is.
fn rounds(
    plan: &BenchPlan,
    mut drive: impl FnMut(&Target, u32) -> Result<LoadResult, BenchError>,
    mut progress: impl FnMut(u32, u32),
) -> Result<Vec<Round>, BenchError> {
    let mut orders = stats::Orders::new(plan.seed);
    let all = plan.warm_up.saturating_add(plan.rounds);
    let mut rounds = Vec::new();
    for round in 1..=all {
        progress(round, all);
        let order = orders.next_order(plan.targets.len());
        let samples = order
            .into_iter()
            .filter_map(|index| plan.targets.get(index))
            .map(|target| measure(target, round, &mut drive))
            .collect::<Result<Vec<Sample>, BenchError>>()?;
        rounds.push(Round {
            warm_up: round <= plan.warm_up,
            samples,
        });
    }
    Ok(rounds)
}

fn check(plan: &BenchPlan) -> Result<(), BenchError> {
    if plan.targets.is_empty() || plan.rounds == 0 {
        return Err(BenchError::Nothing {
            targets: plan.targets.len(),
            rounds: plan.rounds,
        });
    }
    let mut seen = BTreeSet::new();
    match plan
        .targets
        .iter()
        .find(|target| !seen.insert(target.protection))
    {
        Some(Target { protection, .. }) => Err(BenchError::Twice {
            protection: *protection,
        }),
        None => Ok(()),
    }
}

fn measure(
    target: &Target,
    round: u32,
    drive: &mut impl FnMut(&Target, u32) -> Result<LoadResult, BenchError>,
) -> Result<Sample, BenchError> {
    let protection = target.protection;
    let cpu = || {
        let seconds = target.cpu.as_ref().map(CpuAccount::seconds).transpose();
        seconds.map_err(|source| BenchError::Cpu {
            protection,
            round,
            source,
        })
    };
    let before = cpu()?;
    let load = drive(target, round)?;
    let after = cpu()?;
    let requests = load.requests.saturating_sub(load.failed);
    // Latencies are those of the requests that succeeded: without any there are none.
    let ms = |us: u64| (requests > 0).then_some(us as f64 / 1e3);
    Ok(Sample {
        protection,
        requests,
        failed: load.failed,
        seconds: load.elapsed_us as f64 / 1e6,
        p50_ms: ms(load.latency.p50_us),
        p95_ms: ms(load.latency.p95_us),
        p99_ms: ms(load.latency.p99_us),
        cpu_seconds: after.zip(before).map(|(after, before)| after - before),
    })
}

#[cfg(test)]
mod tests;
