//! `lazaret exercise`, and the exercise inside `learn`.

use crate::args::{ExerciseWhat, Format};
use crate::cleanup::write_file;
use crate::exit::{Exit, OrExit, Outcome, fail};
use crate::progress::Steps;
use anyhow::Context;
use lazaret_fhir::base::Base;
use lazaret_fhir::coverage::Coverage;
use lazaret_fhir::exercise::{ExerciseError, Plan, Progress, run};

struct Told<'a>(&'a Steps);

impl Progress for Told<'_> {
    fn row(&self, done: usize, of: usize, name: &str) {
        self.0.detail(&format!("exercising {done}/{of} {name}"));
    }
}

/// Drives a FHIR server.
///
/// # Errors
/// Exit 2 for a URL that is none, 1 when the server is no FHIR server, is gone or takes too long.
pub fn fhir(url: &str, number: u32, steps: &Steps) -> Outcome<Coverage> {
    let base: Base = url.parse().or_exit(Exit::Usage)?;
    steps.step("exercising");
    match run(&Plan::new(base, number), &Told(steps)) {
        Ok(coverage) => Ok(coverage),
        Err(error @ (ExerciseError::ServerGone { .. } | ExerciseError::Deadline { .. })) => {
            Err(error)
                .context("the exercise did not come to its end")
                .or_exit(Exit::No)
        }
        Err(error) => Err(error)
            .context("cannot exercise the server")
            .or_exit(Exit::No),
    }
}

/// `lazaret exercise fhir URL`
///
/// # Errors
/// As [`fhir`]; exit 1 also when an interaction failed or was refused against expectation.
pub fn main(what: &ExerciseWhat, format: Format) -> Outcome {
    let ExerciseWhat::Fhir { url, run, out } = what;
    let steps = Steps::new("exercise");
    let coverage = fhir(url, *run, &steps)?;
    let counts = coverage.counts();
    steps.done(&format!(
        "{} interactions of the declaration reached",
        coverage.figures().interactions
    ));
    let json = serde_json::to_string(&coverage)
        .context("cannot write the coverage")
        .or_exit(Exit::HostCannot)?;
    match format {
        Format::Text => println!("{coverage}"),
        Format::Json => println!("{json}"),
    }
    if let Some(path) = out {
        write_file(path, json.as_bytes()).or_exit(Exit::HostCannot)?;
    }
    if counts.failed + counts.refused > 0 {
        let (refused, failed) = (counts.refused, counts.failed);
        return fail(
            Exit::No,
            format_args!(
                "{refused} interactions were refused and {failed} failed against expectation"
            ),
        );
    }
    Ok(Exit::Yes)
}
