//! What the demonstration must show, and whether a report shows it. Pure.
//!
//! A verdict is worked out from the figures each time and never stored, so that a report cannot contradict itself.

use super::data::{Attack, Protection, Report};
use super::text::{count, figure, ratio};

/// Most calls in the allow band while the server serves.
pub const MOST_ALLOWED: usize = 45;
/// Most of Lazaret's start time over the engine's own.
pub const MOST_START: f64 = 1.15;
/// Most of Lazaret's CPU time per request over the engine's default.
pub const MOST_CPU: f64 = 1.02;
/// The papers that are not in order, as [`super::data::Refusal::case`] names them: a policy changed by one byte, signed by
/// another key, made for another image, or missing.
pub const REFUSAL_CASES: [&str; 4] = ["changed_byte", "other_key", "other_image", "missing"];
/// Name of the attack that mounts the host's disk and changes a file on it.
pub const MOUNT_ESCAPE: &str = "mount_escape";
/// Name of the attack that starts a shell from the server's own process.
pub const SERVER_SHELL: &str = "server_shell";

/// Whether a claim holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Measured, and it holds.
    Shown,
    /// Measured, and it does not hold.
    NotShown,
    /// Something that it needs was not measured.
    NotMeasured,
}

/// One claim and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Short name, stable.
    pub name: &'static str,
    /// What is claimed.
    pub claim: String,
    /// Whether it holds.
    pub outcome: Outcome,
    /// The figures that say so; empty when nothing was measured.
    pub figure: String,
}

/// All verdicts, in the order in which they are to be read.
#[must_use]
pub fn verdicts(report: &Report) -> Vec<Verdict> {
    vec![
        complete(report),
        allow_band(report),
        slow_down(report),
        same_answers(report),
        no_denials(report),
        start(report),
        attack(
            report,
            MOUNT_ESCAPE,
            "Mounting the host's disk works unconfined and is blocked by Lazaret",
            &[Protection::LazaretStartup, Protection::LazaretServing],
        ),
        attack(
            report,
            SERVER_SHELL,
            "A shell from the server's own process works unconfined and is blocked while serving",
            &[Protection::LazaretServing],
        ),
        refusals(report),
        daemon_restart(report),
        throughput(report),
        cpu(report),
    ]
}

/// A verdict on figures of which `None` means that one is missing.
fn verdict(name: &'static str, claim: impl Into<String>, found: Option<(bool, String)>) -> Verdict {
    let (outcome, figure) = match found {
        Some((true, figure)) => (Outcome::Shown, figure),
        Some((false, figure)) => (Outcome::NotShown, figure),
        None => (Outcome::NotMeasured, String::new()),
    };
    Verdict {
        name,
        claim: claim.into(),
        outcome,
        figure,
    }
}

fn complete(report: &Report) -> Verdict {
    let found = report.recording.lost.map(|lost| {
        let runs = match report.recording.runs {
            Some(runs) => format!(" in {} runs", count(runs)),
            None => String::new(),
        };
        (lost == 0, format!("{} calls lost{runs}", count(lost)))
    });
    verdict("complete", "The recording is complete", found)
}

fn allow_band(report: &Report) -> Verdict {
    let found = report.policy.allow_serving.as_ref().map(|names| {
        let names = names.len();
        (names <= MOST_ALLOWED, format!("{names} calls"))
    });
    let claim = format!("At most {MOST_ALLOWED} calls are allowed by the kernel while serving");
    verdict("allow_band", claim, found)
}

fn slow_down(report: &Report) -> Verdict {
    let found = report
        .recording
        .slow_down
        .map(|factor| (factor.is_finite(), ratio(factor)));
    verdict(
        "slow_down",
        "Recording slows the exercise by a stated factor",
        found,
    )
}

/// Whether the exercise under enforcement made any request: figures about no requests are no figures.
fn exercised(report: &Report) -> Option<String> {
    match report.enforced.requests {
        Some(0) => None,
        Some(requests) => Some(format!(" in {} requests", count(requests))),
        None => Some(String::new()),
    }
}

fn same_answers(report: &Report) -> Verdict {
    let found = report.enforced.status_differences.and_then(|differences| {
        let text = format!("{} differences{}", count(differences), exercised(report)?);
        Some((differences == 0, text))
    });
    verdict(
        "same_answers",
        "The exercise gets the same status codes under enforcement",
        found,
    )
}

fn no_denials(report: &Report) -> Verdict {
    let found = report.enforced.denied_serving.and_then(|denied| {
        let text = format!("{} calls denied{}", count(denied), exercised(report)?);
        Some((denied == 0, text))
    });
    verdict(
        "no_denials",
        "No call of the server is denied while serving",
        found,
    )
}

fn start(report: &Report) -> Verdict {
    let seconds = |protection| report.start.seconds.get(&protection).copied();
    let found = seconds(Protection::Lazaret)
        .zip(seconds(Protection::Default))
        .filter(|(_, engine)| *engine > 0.0)
        .map(|(lazaret, engine)| {
            let over = lazaret / engine;
            let text = format!(
                "{} s against {} s: {}",
                figure(lazaret),
                figure(engine),
                ratio(over)
            );
            (over <= MOST_START, text)
        });
    let claim = format!(
        "The server starts within {:.0} % of the engine's own time",
        (MOST_START - 1.0) * 100.0
    );
    verdict("start", claim, found)
}

/// Holds when the attack works unconfined (its positive control) and nowhere that it must be blocked.
fn attack(
    report: &Report,
    name: &'static str,
    claim: &'static str,
    blocked_under: &[Protection],
) -> Verdict {
    let under = |protection: Protection| -> Option<bool> {
        let mut tried = report
            .attacks
            .iter()
            .filter(|attack| attack.name == name && attack.protection == protection)
            .map(|Attack { worked, .. }| *worked)
            .peekable();
        tried.peek()?;
        Some(tried.any(|worked| worked))
    };
    let found = under(Protection::Unconfined).and_then(|control| {
        let mut figure = format!("unconfined: {}", worked(control));
        let mut holds = control;
        for protection in blocked_under {
            let reached = under(*protection)?;
            holds &= !reached;
            figure += &format!("; {}: {}", protection.title(), worked(reached));
        }
        Some((holds, figure))
    });
    verdict(name, claim, found)
}

/// The word for an attack's end.
pub(super) const fn worked(worked: bool) -> &'static str {
    if worked { "worked" } else { "blocked" }
}

fn refusals(report: &Report) -> Verdict {
    let refusals = &report.gate.refusals;
    let all_tried = REFUSAL_CASES
        .iter()
        .all(|case| refusals.iter().any(|refusal| refusal.case == *case));
    let held = refusals
        .iter()
        .filter(|refusal| !refusal.started && !refusal.reason.trim().is_empty())
        .count();
    let tried = refusals.len();
    let found = (all_tried || held < tried).then(|| {
        let figure = format!("{held} of {tried} cases refused with a sentence");
        (held == tried, figure)
    });
    verdict(
        "refusals",
        "Changed, foreign or missing papers: the container does not start, one sentence says why",
        found,
    )
}

fn daemon_restart(report: &Report) -> Verdict {
    let found = report
        .daemon_restart
        .as_ref()
        .filter(|restart| restart.requests > 0)
        .map(|restart| {
            let mut figure = format!(
                "{} of {} requests failed",
                count(restart.failed),
                count(restart.requests)
            );
            if let Some(asked) = restart.asked_refused {
                figure += &format!(", {} asked calls refused meanwhile", count(asked));
            }
            (restart.failed == 0, figure)
        });
    verdict(
        "daemon_restart",
        "The daemon killed and started again under requests: no request fails",
        found,
    )
}

fn throughput(report: &Report) -> Verdict {
    let figures = &report.throughput;
    let found = figures
        .lazaret_over_default
        .zip(figures.a_over_a)
        .map(|(lazaret, noise)| {
            let text = format!(
                "{}; two identical containers: {} – {}",
                ratio(lazaret.median),
                ratio(noise.low),
                ratio(noise.high)
            );
            (lazaret.median >= noise.low, text)
        });
    verdict(
        "throughput",
        "Throughput over the engine's default is inside the A/A noise, or better",
        found,
    )
}

fn cpu(report: &Report) -> Verdict {
    let found = report.cpu_per_request.lazaret_over_default.map(|spread| {
        (
            spread.median <= MOST_CPU,
            super::text::spread(&spread, ratio),
        )
    });
    let claim = format!("CPU time per request is at most {MOST_CPU:.2}× the engine's default");
    verdict("cpu", claim, found)
}

#[cfg(test)]
mod tests;
