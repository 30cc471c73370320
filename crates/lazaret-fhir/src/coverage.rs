//! What a run reached: one row per interaction, counts, and the comparison of two runs.

mod table;

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What a row expects of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expects {
    /// That it does the work.
    Success,
    /// That it refuses, as with malformed JSON or an unknown id.
    Refusal,
}

/// How an interaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As expected: done, or refused where a refusal was expected.
    Succeeded,
    /// A 4xx that was not expected. The server's right.
    Refused,
    /// A 5xx, no answer, or an answer that is wrong: also a success where a refusal was expected.
    Failed,
    /// Not declared, and not tried or not answered. No error.
    NotDeclared,
    /// Declared, but not tried: what it needs was not there, or the run ended before.
    Skipped,
}

/// One interaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interaction {
    /// Stable name: `Patient.create`, `Patient.parameter.family`, `system.batch`, `client.07`.
    pub name: String,
    /// Whether the CapabilityStatement declares it. Refusals are declared by FHIR itself.
    pub declared: bool,
    /// What was expected.
    pub expects: Expects,
    /// How it ended.
    pub outcome: Outcome,
    /// The statuses of its requests in their order. Of an asynchronous request that is polled, only the last; of downloads
    /// alike, only one: their numbers are not the same from run to run. A request without an answer has none.
    pub statuses: Vec<u16>,
    /// For people: why it did not succeed. Empty when it did.
    pub detail: String,
    /// Milliseconds it took.
    pub elapsed_ms: u64,
}

/// How much of what is declared was reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// Of these, reached: at least one interaction that uses it succeeded.
    pub reached: usize,
    /// Declared for the exercised types and the whole system.
    pub declared: usize,
    /// The names of the rest.
    pub unreached: BTreeSet<String>,
}

impl Figure {
    /// Compares what is declared with what was reached; what was reached without being declared does not count.
    #[must_use]
    pub fn new(declared: &BTreeSet<String>, reached: &BTreeSet<String>) -> Self {
        Self {
            reached: declared.intersection(reached).count(),
            declared: declared.len(),
            unreached: declared.difference(reached).cloned().collect(),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.reached, self.declared)
    }
}

/// The three figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// Type × interaction, and whole-system interactions.
    pub interactions: Figure,
    /// Type × search parameter.
    pub search_parameters: Figure,
    /// Type × operation, and whole-system operations.
    pub operations: Figure,
}

/// The subject of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// The server's base URL.
    pub base: String,
    /// Its software, as it says.
    pub software: String,
    /// Its release of FHIR.
    pub fhir_version: String,
    /// The run's number.
    pub run: u32,
    /// The data's seed.
    pub seed: u64,
}

/// How many rows ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Rows that the server declares.
    pub declared: usize,
    /// Rows for which at least one request was sent.
    pub tried: usize,
    /// As expected.
    pub succeeded: usize,
    /// Refused against expectation.
    pub refused: usize,
    /// Failed.
    pub failed: usize,
    /// Requests with an answer, all rows together.
    pub answers: usize,
}

/// What a run reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "wire::CoverageV1", into = "wire::CoverageV1")]
pub struct Coverage {
    subject: Subject,
    elapsed_ms: u64,
    figures: Figures,
    rows: Vec<Interaction>,
}

/// A row on which two runs differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// The row's name.
    pub name: String,
    /// The statuses here; `None` when there is no such row.
    pub here: Option<Vec<u16>>,
    /// The statuses there; `None` when there is no such row.
    pub there: Option<Vec<u16>>,
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |side: &Option<Vec<u16>>| {
            side.as_ref()
                .map_or("no such row".to_owned(), |s| format!("{s:?}"))
        };
        write!(
            out,
            "{}: {} here, {} there",
            self.name,
            show(&self.here),
            show(&self.there)
        )
    }
}

impl Coverage {
    /// Puts the results of a run together. Rows keep their order.
    #[must_use]
    pub fn new(
        subject: Subject,
        elapsed_ms: u64,
        figures: Figures,
        rows: Vec<Interaction>,
    ) -> Self {
        Self {
            subject,
            elapsed_ms,
            figures,
            rows,
        }
    }

    /// What was exercised.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Milliseconds the run took, CapabilityStatement included.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        self.elapsed_ms
    }

    /// The figures. `figures().interactions` shows as `65/65`.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// The rows in the order in which they ran.
    #[must_use]
    pub fn rows(&self) -> &[Interaction] {
        &self.rows
    }

    /// Counts over the rows.
    #[must_use]
    pub fn counts(&self) -> Counts {
        count(&self.rows)
    }

    /// The rows whose statuses are not the same in two runs, in this run's order, then those that only the other has.
    /// Times and details are not compared.
    #[must_use]
    pub fn status_differences(&self, other: &Self) -> Vec<Difference> {
        let mut theirs: BTreeMap<&str, &Vec<u16>> = other
            .rows
            .iter()
            .map(|row| (row.name.as_str(), &row.statuses))
            .collect();
        let mut differences = Vec::new();
        for row in &self.rows {
            let there = theirs.remove(row.name.as_str());
            if there != Some(&row.statuses) {
                differences.push(Difference {
                    name: row.name.clone(),
                    here: Some(row.statuses.clone()),
                    there: there.cloned(),
                });
            }
        }
        differences.extend(theirs.into_iter().map(|(name, statuses)| Difference {
            name: name.to_owned(),
            here: None,
            there: Some(statuses.clone()),
        }));
        differences
    }
}

fn count(rows: &[Interaction]) -> Counts {
    let of = |outcome| rows.iter().filter(|r| r.outcome == outcome).count();
    let untried = [Outcome::NotDeclared, Outcome::Skipped];
    Counts {
        declared: rows.iter().filter(|r| r.declared).count(),
        tried: rows
            .iter()
            .filter(|r| !r.statuses.is_empty() || !untried.contains(&r.outcome))
            .count(),
        succeeded: of(Outcome::Succeeded),
        refused: of(Outcome::Refused),
        failed: of(Outcome::Failed),
        answers: rows.iter().map(|r| r.statuses.len()).sum(),
    }
}

/// The form on disk, version 1.
mod wire {
    use super::{Counts, Coverage, Figures, Interaction, Subject, count};
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub(super) enum Type {
        #[serde(rename = "fhir_coverage")]
        FhirCoverage,
    }

    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct CoverageV1 {
        r#type: Type,
        v: u32,
        counts: Counts,
        subject: Subject,
        elapsed_ms: u64,
        figures: Figures,
        rows: Vec<Interaction>,
    }

    impl From<Coverage> for CoverageV1 {
        fn from(coverage: Coverage) -> Self {
            Self {
                r#type: Type::FhirCoverage,
                v: 1,
                counts: coverage.counts(),
                subject: coverage.subject,
                elapsed_ms: coverage.elapsed_ms,
                figures: coverage.figures,
                rows: coverage.rows,
            }
        }
    }

    /// The text is not a coverage of this version.
    #[derive(Debug, thiserror::Error)]
    pub(super) enum CoverageError {
        #[error("coverage has version {0}, this program reads 1")]
        Version(u32),
        #[error("the counts do not agree with the {0} rows")]
        Counts(usize),
    }

    impl TryFrom<CoverageV1> for Coverage {
        type Error = CoverageError;

        fn try_from(wire: CoverageV1) -> Result<Self, CoverageError> {
            if wire.v != 1 {
                return Err(CoverageError::Version(wire.v));
            }
            if wire.counts != count(&wire.rows) {
                return Err(CoverageError::Counts(wire.rows.len()));
            }
            Ok(Self::new(
                wire.subject,
                wire.elapsed_ms,
                wire.figures,
                wire.rows,
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coverage(rows: &[(&str, &[u16])]) -> Coverage {
        let subject = Subject {
            base: "http://server".to_owned(),
            software: "unnamed".to_owned(),
            fhir_version: "4.0.1".to_owned(),
            run: 1,
            seed: 1,
        };
        let row = |(name, statuses): &(&str, &[u16])| Interaction {
            name: (*name).to_owned(),
            declared: true,
            expects: Expects::Success,
            outcome: Outcome::Succeeded,
            statuses: statuses.to_vec(),
            detail: String::new(),
            elapsed_ms: 0,
        };
        Coverage::new(
            subject,
            0,
            Figures::default(),
            rows.iter().map(row).collect(),
        )
    }

    #[test]
    fn differences_are_seen_from_both_sides() {
        let one = coverage(&[("a", &[200]), ("b", &[201, 200]), ("c", &[404])]);
        let other = coverage(&[("c", &[404]), ("b", &[201, 500]), ("d", &[])]);
        let shown = |here: &Coverage, there: &Coverage| -> Vec<String> {
            here.status_differences(there)
                .iter()
                .map(Difference::to_string)
                .collect()
        };
        assert_eq!(
            shown(&one, &other),
            [
                "a: [200] here, no such row there",
                "b: [201, 200] here, [201, 500] there",
                "d: no such row here, [] there",
            ]
        );
        assert_eq!(
            shown(&other, &one),
            [
                "b: [201, 500] here, [201, 200] there",
                "d: [] here, no such row there",
                "a: no such row here, [200] there",
            ]
        );
        assert_eq!(one.status_differences(&one), []);
    }

    #[test]
    fn a_figure_counts_what_is_declared_only() {
        let set = |names: &[&str]| {
            names
                .iter()
                .map(|n| (*n).to_owned())
                .collect::<BTreeSet<_>>()
        };
        let figure = Figure::new(&set(&["a", "b", "c"]), &set(&["a", "c", "x"]));
        assert_eq!(figure.to_string(), "2/3");
        assert_eq!(figure.unreached, set(&["b"]));
    }
}
