//! A coverage for people: types as columns, interactions as rows, then what did not succeed, then the figures.

use super::{Coverage, Figure, Interaction, Outcome};
use crate::kind::Kind;
use std::collections::BTreeMap;
use std::fmt;

const NAME_WIDTH: usize = 26;
const CELL_WIDTH: usize = 13;
/// Names that a figure shows of what was not reached; the JSON has all.
const UNREACHED_SHOWN: usize = 8;

/// Several interactions in one cell.
#[derive(Default)]
struct Cell {
    rows: usize,
    succeeded: usize,
    worst: Option<Outcome>,
}

impl Cell {
    fn add(&mut self, row: &Interaction) {
        self.rows += 1;
        match row.outcome {
            Outcome::Succeeded => self.succeeded += 1,
            other if self.worst.is_none_or(|worst| rank(other) > rank(worst)) => {
                self.worst = Some(other)
            }
            _ => {}
        }
    }
}

const fn rank(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Succeeded => 0,
        Outcome::NotDeclared => 1,
        Outcome::Skipped => 2,
        Outcome::Refused => 3,
        Outcome::Failed => 4,
    }
}

const fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "ok",
        Outcome::Refused => "refused",
        Outcome::Failed => "FAILED",
        Outcome::NotDeclared => "not declared",
        Outcome::Skipped => "skipped",
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match (self.rows, self.worst) {
            (0, _) => String::new(),
            (1, worst) => word(worst.unwrap_or(Outcome::Succeeded)).to_owned(),
            (rows, Some(Outcome::Failed)) => format!("{}/{rows} FAILED", self.succeeded),
            (rows, _) => format!("{}/{rows}", self.succeeded),
        };
        out.pad(&text)
    }
}

/// `Patient.parameter.family` is one of the cell (`parameter`, `Patient`), `client.07` one of (`16 clients`, `system`).
fn place(row: &Interaction) -> (String, &str) {
    let (group, rest) = row.name.split_once('.').unwrap_or(("system", &row.name));
    match group {
        "client" => ("clients at once".to_owned(), "system"),
        _ => {
            let name = if rest.starts_with("parameter.") {
                "each declared parameter"
            } else {
                rest
            };
            (name.to_owned(), group)
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.subject();
        writeln!(
            out,
            "{} at {}, FHIR {}, run {}",
            s.software, s.base, s.fhir_version, s.run
        )?;
        // Names in order of first appearance; a BTreeMap would sort them.
        let mut names: Vec<String> = Vec::new();
        let mut cells: BTreeMap<(String, String), Cell> = BTreeMap::new();
        for row in self.rows() {
            let (name, group) = place(row);
            if !names.contains(&name) {
                names.push(name.clone());
            }
            cells.entry((name, group.to_owned())).or_default().add(row);
        }
        let columns: Vec<&str> = Kind::ALL
            .iter()
            .map(|k| k.name())
            .chain(["system"])
            .collect();
        let mut line = format!("{:NAME_WIDTH$}", "");
        for column in &columns {
            line.push_str(&format!("{column:CELL_WIDTH$}"));
        }
        writeln!(out, "{}", line.trim_end())?;
        let empty = Cell::default();
        for name in &names {
            let mut line = format!("{name:NAME_WIDTH$}");
            for column in &columns {
                let cell = cells
                    .get(&(name.clone(), (*column).to_owned()))
                    .unwrap_or(&empty);
                line.push_str(&format!("{cell:CELL_WIDTH$}"));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        let told = [Outcome::Refused, Outcome::Failed, Outcome::Skipped];
        for row in self.rows().iter().filter(|row| told.contains(&row.outcome)) {
            writeln!(
                out,
                "{} {} {:?}: {}",
                word(row.outcome),
                row.name,
                row.statuses,
                row.detail
            )?;
        }
        let c = self.counts();
        writeln!(
            out,
            "declared {}, tried {}, succeeded {}, refused {}, failed {}; {} answers in {:.1} s",
            c.declared,
            c.tried,
            c.succeeded,
            c.refused,
            c.failed,
            c.answers,
            // Precise below 2⁵³ ms.
            self.elapsed_ms() as f64 / 1000.0
        )?;
        let figures = self.figures();
        figure(out, "interactions", &figures.interactions)?;
        figure(out, "search parameters", &figures.search_parameters)?;
        figure(out, "operations", &figures.operations)
    }
}

fn figure(out: &mut fmt::Formatter<'_>, name: &str, figure: &Figure) -> fmt::Result {
    write!(out, "{name} {figure}")?;
    let unreached: Vec<&str> = figure.unreached.iter().map(String::as_str).collect();
    let (shown, more) = unreached.split_at(unreached.len().min(UNREACHED_SHOWN));
    if !shown.is_empty() {
        write!(out, ", not reached: {}", shown.join(", "))?;
    }
    if !more.is_empty() {
        write!(out, " and {} more", more.len())?;
    }
    writeln!(out)
}
