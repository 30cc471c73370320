//! Progress on standard error: a bar or spinner on a terminal, plain lines with times elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// The steps of one piece of work.
#[derive(Debug)]
pub struct Steps {
    what: String,
    began: Instant,
    bar: Option<ProgressBar>,
}

impl Steps {
    /// Work with this name.
    #[must_use]
    pub fn new(what: &str) -> Steps {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} {elapsed_precise} {prefix}: {wide_msg}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(what.to_string());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Steps {
            what: what.to_string(),
            began: Instant::now(),
            bar,
        }
    }

    /// A step begins.
    pub fn step(&self, step: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(step.to_string()),
            None => eprintln!(
                "{:>7.1}s {}: {step}",
                self.began.elapsed().as_secs_f64(),
                self.what
            ),
        }
    }

    /// Something small inside a step; shown on a terminal only.
    pub fn detail(&self, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(detail.to_string());
        }
    }

    /// The work is done.
    pub fn done(&self, result: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!(
            "{:>7.1}s {}: {result}",
            self.began.elapsed().as_secs_f64(),
            self.what
        );
    }
}
