//! From the exerciser's rows to the report's groups. Pure.

use super::data::{Coverage, CoverageRow};
use lazaret_fhir::coverage::{Coverage as Exercised, Figures, Interaction, Outcome};

impl From<&Exercised> for Coverage {
    /// Groups the rows by what stands before the first point of their names, in the order in which groups begin.
    fn from(exercised: &Exercised) -> Coverage {
        let mut groups: Vec<(&str, Vec<Interaction>)> = Vec::new();
        for row in exercised.rows() {
            let group = row.name.split('.').next().unwrap_or_default();
            match groups.iter_mut().find(|(name, _)| *name == group) {
                Some((_, rows)) => rows.push(row.clone()),
                None => groups.push((group, vec![row.clone()])),
            }
        }
        let rows = groups
            .into_iter()
            .map(|(name, rows)| group(exercised, name, rows))
            .collect();
        let CoverageRow {
            declared,
            tried,
            succeeded,
            refused,
            failed,
            ..
        } = group(exercised, "", exercised.rows().to_vec());
        Coverage {
            declared,
            tried,
            succeeded,
            refused,
            failed,
            rows,
            remarks: exercised.rows().iter().filter_map(remark).collect(),
        }
    }
}

/// Counts these rows as the exerciser itself counts.
fn group(exercised: &Exercised, name: &str, rows: Vec<Interaction>) -> CoverageRow {
    let subject = exercised.subject().clone();
    let counts = Exercised::new(subject, 0, Figures::default(), rows).counts();
    CoverageRow {
        name: name.to_owned(),
        declared: counts.declared as u64,
        tried: counts.tried as u64,
        succeeded: counts.succeeded as u64,
        refused: counts.refused as u64,
        failed: counts.failed as u64,
    }
}

fn remark(row: &Interaction) -> Option<String> {
    let end = match row.outcome {
        Outcome::Succeeded | Outcome::NotDeclared => return None,
        Outcome::Refused => "refused",
        Outcome::Failed => "failed",
        Outcome::Skipped => "not tried",
    };
    let statuses: Vec<String> = row.statuses.iter().map(ToString::to_string).collect();
    let parts = [end, &statuses.join(" "), &row.detail];
    let said: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    Some(format!("{}: {}", row.name, said.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lazaret_fhir::coverage::{Expects, Subject};

    #[test]
    fn groups_and_remarks() {
        let row = |name: &str, outcome, statuses: &[u16], detail: &str| Interaction {
            name: name.to_owned(),
            declared: true,
            expects: Expects::Success,
            outcome,
            statuses: statuses.to_vec(),
            detail: detail.to_owned(),
            elapsed_ms: 1,
        };
        let subject = Subject {
            base: String::new(),
            software: String::new(),
            fhir_version: String::new(),
            run: 0,
            seed: 0,
        };
        let rows = vec![
            row("Patient.create", Outcome::Succeeded, &[201], ""),
            row("system.batch", Outcome::Failed, &[500], "server error"),
            row("Patient.patch", Outcome::Refused, &[405], ""),
            row("Patient.delete", Outcome::Skipped, &[], "no id"),
        ];
        let coverage = Coverage::from(&Exercised::new(subject, 1, Figures::default(), rows));
        let groups: Vec<_> = coverage
            .rows
            .iter()
            .map(|row| (row.name.as_str(), row.declared, row.tried, row.succeeded))
            .collect();
        assert_eq!(groups, [("Patient", 3, 2, 1), ("system", 1, 1, 0)]);
        assert_eq!(
            (
                coverage.declared,
                coverage.tried,
                coverage.refused,
                coverage.failed
            ),
            (4, 3, 1, 1)
        );
        assert_eq!(
            coverage.remarks,
            [
                "system.batch: failed, 500, server error",
                "Patient.patch: refused, 405",
                "Patient.delete: not tried, no id",
            ]
        );
    }
}
