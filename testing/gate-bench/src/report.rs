//! What was measured, as a table for people and as one JSON object per line.

use crate::stats::Spread;
use serde::Serialize;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

/// One figure, with what was hoped for it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// Which benchmark.
    pub(crate) part: &'static str,
    /// What was measured.
    pub(crate) name: String,
    /// The unit.
    pub(crate) unit: &'static str,
    /// Over the rounds.
    pub(crate) spread: Spread,
    /// The median should be at most this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) aim: Option<f64>,
}

/// Everything that was measured so far; each figure is printed when it comes.
#[derive(Debug, Default)]
pub(crate) struct Report {
    figures: Vec<Figure>,
}

impl Report {
    /// A figure that nothing is hoped for.
    pub(crate) fn tell(
        &mut self,
        part: &'static str,
        name: &str,
        unit: &'static str,
        spread: Spread,
    ) {
        self.add(Figure {
            part,
            name: name.to_owned(),
            unit,
            spread,
            aim: None,
        });
    }

    /// A figure whose median should be at most `aim`.
    pub(crate) fn judge(
        &mut self,
        part: &'static str,
        name: &str,
        unit: &'static str,
        spread: Spread,
        aim: f64,
    ) {
        self.add(Figure {
            part,
            name: name.to_owned(),
            unit,
            spread,
            aim: Some(aim),
        });
    }

    fn add(&mut self, figure: Figure) {
        println!("{}", figure.line());
        self.figures.push(figure);
    }

    /// The figures with an aim once more, and whether it is met.
    pub(crate) fn print_aims(&self) {
        println!("\naims");
        for figure in &self.figures {
            if let Some(aim) = figure.aim {
                let met = if figure.spread.median <= aim {
                    "met"
                } else {
                    "NOT MET"
                };
                println!(
                    "  {met:<8} {:<10} {}: {:.2} {} (aim: at most {aim} {})",
                    figure.part, figure.name, figure.spread.median, figure.unit, figure.unit
                );
            }
        }
    }

    /// One JSON object per figure.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut file = File::create(path)?;
        for figure in &self.figures {
            writeln!(file, "{}", serde_json::to_string(figure)?)?;
        }
        Ok(())
    }
}

impl Figure {
    fn line(&self) -> String {
        let Spread { low, median, high } = self.spread;
        format!(
            "  {:<10} {:<58} {median:>10.2} {:<6} [{low:.2}, {high:.2}]",
            self.part, self.name, self.unit
        )
    }
}
