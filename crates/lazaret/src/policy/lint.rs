//! `lazaret policy lint`: findings with their place in the text.

use crate::args::Format;
use crate::exit::{Exit, OrExit, Outcome};
use lazaret_core::policy::lint::{Severity, lint};
use lazaret_text::policy::Text;
use std::path::Path;

pub(super) fn main(file: &Path, format: Format) -> Outcome {
    let text = Text::read(file).or_exit(Exit::Usage)?;
    let findings = lint(text.policy()).or_exit(Exit::Usage)?;
    let mut placed: Vec<_> = findings
        .iter()
        .map(|one| (text.finding(&one.place, &one.lint.to_string()), &one.lint))
        .collect();
    placed.sort_by_key(|(found, lint)| (found.line, found.column, lint.code()));
    let mut warnings = 0;
    for (found, lint) in &placed {
        let (code, severity) = (lint.code(), lint.severity());
        warnings += usize::from(severity == Severity::Warning);
        let severity = severity.name();
        match format {
            Format::Text => println!("{severity} {code}: {found}"),
            Format::Json => println!(
                "{}",
                serde_json::json!({
                    "type": "finding", "v": 1, "code": code, "severity": severity, "line": found.line,
                    "column": found.column, "place": found.place, "what": found.what,
                })
            ),
        }
    }
    eprintln!("{warnings} warnings, {} notes", placed.len() - warnings);
    Ok(if warnings > 0 { Exit::No } else { Exit::Yes })
}
