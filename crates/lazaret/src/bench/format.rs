//! The plan of `lazaret bench`, as JSON, format version 1.

use super::cgroup::{CpuAccount, FindError};
use super::{BenchPlan, Target};
use crate::report::data::Protection;
use lazaret_fhir::base::{Base, BaseError};
use lazaret_fhir::load::{CLIENTS_MAX, Mix};
use serde::Deserialize;
use std::time::Duration;

/// The format version that is read.
const VERSION: u32 = 1;
/// Most bytes of a plan that are read.
pub const MAX_BYTES: usize = 1 << 16;
/// Most rounds, warm-up included.
const MOST_ROUNDS: u32 = 1_000;
/// Longest load on one target in one round, seconds.
const MOST_SECONDS: u64 = 600;

/// A plan that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Longer than [`MAX_BYTES`].
    #[error("plan has {len} bytes, at most {MAX_BYTES} are read")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// Not the JSON that is expected.
    #[error("plan is not understood")]
    Json(#[source] serde_json::Error),
    /// A number out of its bounds.
    #[error("plan has `{field}` {found}, expected {least} to {most}")]
    Bounds {
        /// Which.
        field: &'static str,
        /// What it is.
        found: u64,
        /// The least that is taken.
        least: u64,
        /// The most that is taken.
        most: u64,
    },
    /// The base of a target.
    #[error("target `{protection}`")]
    Base {
        /// The target.
        protection: Protection,
        /// Why.
        source: BaseError,
    },
    /// The CPU account of a target.
    #[error("target `{protection}`")]
    Cpu {
        /// The target.
        protection: Protection,
        /// Why.
        source: FindError,
    },
}

/// The plan on disk.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanV1 {
    v: u32,
    targets: Vec<TargetV1>,
    rounds: u32,
    warm_up: u32,
    seconds: u64,
    clients: u32,
    seed: u64,
    #[serde(default)]
    mix: Mix,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetV1 {
    protection: Protection,
    base: String,
    /// A process of the container, in the numbering that this program sees; `null` leaves CPU time unmeasured.
    pid: Option<u32>,
}

/// Reads a plan, and finds the CPU account of each target that names a process.
///
/// # Errors
/// See [`PlanError`].
pub fn read(bytes: &[u8]) -> Result<BenchPlan, PlanError> {
    read_with(bytes, CpuAccount::of_process)
}

fn read_with(
    bytes: &[u8],
    account: impl Fn(u32) -> Result<CpuAccount, FindError>,
) -> Result<BenchPlan, PlanError> {
    if bytes.len() > MAX_BYTES {
        return Err(PlanError::TooLong { len: bytes.len() });
    }
    let plan: PlanV1 = serde_json::from_slice(bytes).map_err(PlanError::Json)?;
    let all = u64::from(plan.rounds) + u64::from(plan.warm_up);
    for (field, found, least, most) in [
        ("v", plan.v.into(), VERSION.into(), VERSION.into()),
        ("rounds", plan.rounds.into(), 1, MOST_ROUNDS.into()),
        ("rounds + warm_up", all, 1, MOST_ROUNDS.into()),
        ("seconds", plan.seconds, 1, MOST_SECONDS),
        ("clients", plan.clients.into(), 1, CLIENTS_MAX.into()),
    ] {
        if !(least..=most).contains(&found) {
            return Err(PlanError::Bounds {
                field,
                found,
                least,
                most,
            });
        }
    }
    let target = |TargetV1 {
                      protection,
                      base,
                      pid,
                  }: TargetV1| {
        let base: Base = base
            .parse()
            .map_err(|source| PlanError::Base { protection, source })?;
        let cpu = pid
            .map(&account)
            .transpose()
            .map_err(|source| PlanError::Cpu { protection, source })?;
        Ok(Target {
            protection,
            base,
            cpu,
        })
    };
    Ok(BenchPlan {
        targets: plan
            .targets
            .into_iter()
            .map(target)
            .collect::<Result<_, PlanError>>()?,
        rounds: plan.rounds,
        warm_up: plan.warm_up,
        duration: Duration::from_secs(plan.seconds),
        clients: plan.clients,
        mix: plan.mix,
        seed: plan.seed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = r#"{"v": 1, "rounds": 14, "warm_up": 2, "seconds": 3, "clients": 8, "seed": 1, "targets": [
        {"protection": "lazaret", "base": "http://127.0.0.1:8080/fhir", "pid": 7},
        {"protection": "default_again", "base": "http://127.0.0.1:8081/fhir", "pid": null}
    ]}"#;

    fn account(pid: u32) -> Result<CpuAccount, FindError> {
        match pid {
            7 => Ok(CpuAccount::V1("/seven".into())),
            pid => Err(FindError::Root { pid }),
        }
    }

    #[test]
    fn a_plan_is_read() {
        let plan = read_with(PLAN.as_bytes(), account).expect("a plan");
        assert_eq!((plan.rounds, plan.warm_up, plan.clients), (14, 2, 8));
        assert_eq!(plan.duration, Duration::from_secs(3));
        let [lazaret, again] = &plan.targets[..] else {
            panic!("{plan:?}")
        };
        assert_eq!(lazaret.cpu, Some(CpuAccount::V1("/seven".into())));
        assert_eq!(lazaret.base.to_string(), "http://127.0.0.1:8080/fhir");
        assert_eq!(
            (again.protection, &again.cpu),
            (Protection::DefaultAgain, &None)
        );
    }

    #[test]
    fn wrong_plans_are_refused() {
        for (from, to, expected) in [
            ("\"v\": 1", "\"v\": 2", "plan has `v` 2, expected 1 to 1"),
            ("14", "0", "plan has `rounds` 0, expected 1 to 1000"),
            (
                "14",
                "999",
                "plan has `rounds + warm_up` 1001, expected 1 to 1000",
            ),
            (
                "\"seconds\": 3",
                "\"seconds\": 0",
                "plan has `seconds` 0, expected 1 to 600",
            ),
            (
                "\"clients\": 8",
                "\"clients\": 0",
                "plan has `clients` 0, expected 1 to 256",
            ),
            (
                "http://127.0.0.1:8080",
                "https://127.0.0.1",
                "target `lazaret`",
            ),
            ("\"pid\": 7", "\"pid\": 1", "target `lazaret`"),
            ("\"seed\"", "\"sed\"", "plan is not understood"),
            ("\"lazaret\"", "\"none\"", "plan is not understood"),
        ] {
            assert!(PLAN.contains(from), "{from}");
            let error = read_with(PLAN.replacen(from, to, 1).as_bytes(), account);
            assert_eq!(error.expect_err(expected).to_string(), expected);
        }
        let long = " ".repeat(MAX_BYTES + 1);
        assert!(matches!(
            read(long.as_bytes()),
            Err(PlanError::TooLong { .. })
        ));
    }
}
