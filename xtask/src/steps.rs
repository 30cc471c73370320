//! What is being done and how long it takes: a moving line on a terminal, plain lines with elapsed times elsewhere.
//!
//! Everything goes to standard error, which is for people (STYLE §9).

use std::fmt::Display;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// The steps of one command, numbered by elapsed time.
#[derive(Debug, Clone)]
pub struct Steps {
    begin: Instant,
    terminal: bool,
}

impl Steps {
    /// Starts the clock.
    pub fn start() -> Self {
        Self {
            begin: Instant::now(),
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Says something that is not a step.
    pub fn say(&self, text: impl Display) {
        eprintln!("[{:>7.1} s] {text}", self.elapsed().as_secs_f64());
    }

    /// Does one step, and says when it begins, how it ended, and how long it took.
    ///
    /// # Errors
    /// What `work` returns, with the name of the step in front.
    pub fn step<T>(
        &self,
        name: &str,
        work: impl FnOnce(&Step) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let begin = Instant::now();
        let bar = if self.terminal {
            let bar = ProgressBar::new_spinner()
                .with_style(spinner())
                .with_message(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            Some(bar)
        } else {
            self.say(format_args!("{name} …"));
            None
        };
        let step = Step {
            steps: self.clone(),
            name: name.to_owned(),
            bar,
        };
        let result = work(&step);
        if let Some(bar) = &step.bar {
            bar.finish_and_clear();
        }
        let took = begin.elapsed().as_secs_f64();
        match result {
            Ok(value) => {
                self.say(format_args!("{name}: done in {took:.1} s"));
                Ok(value)
            }
            Err(error) => {
                self.say(format_args!("{name}: FAILED after {took:.1} s"));
                Err(error.context(name.to_owned()))
            }
        }
    }
}

/// A step that is going on.
#[derive(Debug)]
pub struct Step {
    steps: Steps,
    name: String,
    bar: Option<ProgressBar>,
}

impl Step {
    /// Says what the step is doing now.
    pub fn say(&self, text: impl Display) {
        match &self.bar {
            Some(bar) => bar.set_message(format!("{}: {text}", self.name)),
            None => self.steps.say(format_args!("  {text}")),
        }
    }

    /// Something that changes often: shown on a terminal only.
    pub fn now(&self, text: impl Display) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}: {text}", self.name));
        }
    }

    /// A line that stays, on a terminal too.
    pub fn line(&self, text: impl Display) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.steps.say(format_args!("  {text}"))),
            None => self.steps.say(format_args!("  {text}")),
        }
    }

    /// How far the step is. On a terminal a bar; elsewhere a line at each tenth.
    pub fn progress(&self, done: u64, of: u64) {
        match &self.bar {
            Some(bar) => {
                if bar.length() != Some(of) {
                    bar.set_style(counter());
                    bar.set_length(of);
                }
                bar.set_position(done);
            }
            None => {
                let tenth = |n: u64| n.saturating_mul(10) / of.max(1);
                if done > 0 && tenth(done) != tenth(done - 1) {
                    self.steps
                        .say(format_args!("  {}: {done} of {of}", self.name));
                }
            }
        }
    }
}

fn spinner() -> ProgressStyle {
    // The template is a constant with known keys: the fallback is never used, and harmless if it were.
    ProgressStyle::with_template("{spinner} [{elapsed}] {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn counter() -> ProgressStyle {
    ProgressStyle::with_template("[{elapsed}] {wide_bar} {pos}/{len} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
