//! Counts what `cargo test` says: passed, failed, and skipped with the reason.
//!
//! libtest knows no skipping at run time, so a test that cannot run prints `SKIP: reason` and returns; it is then counted as
//! skipped and not as passed. `--show-output` makes libtest print what passing tests said.

use std::path::Path;

/// Words in a reason, and whether what they name is missing here.
type Excuse = (&'static str, fn() -> bool);

/// What skipping tests may name as missing, with the fact that proves it. All else that a test could miss is installed, or
/// checked before anything begins.
pub(super) const MAY_BE_MISSING: &[Excuse] = &[
    // Where containers share their host's kernel, the newer hierarchy may be absent or without controllers.
    ("cgroup v2", || {
        !Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
    }),
    // Kernels without CONFIG_FTRACE_SYSCALLS do not describe their calls.
    ("call events", || {
        !std::fs::read_to_string("/proc/kallsyms")
            .is_ok_and(|symbols| symbols.contains(" ftrace_syscall_enter\n"))
    }),
    // Kernels without CONFIG_DEBUG_INFO_BTF do not describe their types.
    ("BTF", || !Path::new("/sys/kernel/btf/vmlinux").exists()),
];

/// The sum of many tests.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// How many did what they should.
    pub(super) passed: u64,
    /// Names of tests, and for checks the reason.
    pub(super) failed: Vec<String>,
    /// Those that could not run.
    pub(super) skipped: Vec<Skip>,
}

/// A test that did not run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Skip {
    /// Its name.
    pub(super) test: String,
    /// What it said.
    pub(super) reason: String,
}

impl Skip {
    /// Whether what it misses is missing here.
    pub(super) fn is_excused(&self) -> bool {
        MAY_BE_MISSING
            .iter()
            .any(|(words, is_missing)| self.reason.contains(words) && is_missing())
    }
}

impl Tally {
    /// A check that is one test; its error names it.
    pub(super) fn check(&mut self, result: anyhow::Result<()>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(error) => self.failed.push(format!("{error:#}")),
        }
    }

    /// Many tests; an error is one failure.
    pub(super) fn add(&mut self, result: anyhow::Result<Tally>) {
        match result {
            Ok(more) => {
                self.passed += more.passed;
                self.failed.extend(more.failed);
                self.skipped.extend(more.skipped);
            }
            Err(error) => self.failed.push(format!("{error:#}")),
        }
    }
}

/// What a line of `cargo test` was.
#[derive(Debug)]
pub(super) enum Said {
    /// The tests of this target begin.
    Target(String),
    /// A test has ended; the sum so far.
    Verdict(String),
    /// Nothing that tells how far it is.
    Other,
}

/// Reads the output of `cargo test` line by line.
#[derive(Debug, Default)]
pub(super) struct Reader {
    tally: Tally,
    /// The target that runs, as `src/lib.rs` of a crate.
    target: String,
    /// The test whose output is being shown.
    shown: String,
}

impl Reader {
    /// Takes one line, and says what it was.
    pub(super) fn line(&mut self, line: &str) -> Said {
        let trimmed = line.trim();
        if let Some(target) = trimmed
            .strip_prefix("Running ")
            .or_else(|| trimmed.strip_prefix("Doc-tests "))
        {
            self.target = target.split(" (").next().unwrap_or(target).to_owned();
            self.shown.clear();
            return Said::Target(self.target.clone());
        }
        if let Some(reason) = trimmed.strip_prefix("SKIP: ") {
            let test = if self.shown.is_empty() {
                self.target.clone()
            } else {
                self.shown.clone()
            };
            let skip = Skip {
                test,
                reason: reason.to_owned(),
            };
            // A test may say it more than once; it is one test.
            if !self.tally.skipped.contains(&skip) {
                self.tally.skipped.push(skip);
                self.tally.passed = self.tally.passed.saturating_sub(1);
            }
            return Said::Other;
        }
        if let Some(name) = trimmed
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            name.clone_into(&mut self.shown);
            return Said::Other;
        }
        let Some((name, verdict)) = trimmed
            .strip_prefix("test ")
            .and_then(|rest| rest.rsplit_once(" ... "))
        else {
            return Said::Other;
        };
        match verdict {
            "ok" => self.tally.passed += 1,
            "FAILED" => self.tally.failed.push(format!("{}: {name}", self.target)),
            _ => {}
        }
        Said::Verdict(format!(
            "{} passed, {} failed",
            self.tally.passed,
            self.tally.failed.len()
        ))
    }

    /// The sum.
    pub(super) fn finish(self) -> Tally {
        self.tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
   Compiling lazaret-core v0.1.0
     Running unittests src/lib.rs (target/debug/deps/lazaret_core-0123)

running 4 tests
test laws::merge ... ok
test laws::order ... ok
test needs::more ... ignored, needs root
test broken ... FAILED

successes:

---- laws::order stdout ----
SKIP: there is no moon
SKIP: there is no moon

failures:

---- broken stdout ----
thread 'broken' panicked at src/lib.rs:1:1

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests lazaret_core

running 1 test
test crates/lazaret-core/src/lib.rs - f (line 3) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn counts_what_libtest_says() {
        let mut reader = Reader::default();
        for line in OUTPUT.lines() {
            reader.line(line);
        }
        let tally = reader.finish();
        assert_eq!(
            tally.passed, 2,
            "laws::merge and the documentation's; laws::order skipped"
        );
        assert_eq!(tally.failed, ["unittests src/lib.rs: broken"]);
        assert_eq!(
            tally.skipped,
            [Skip {
                test: "laws::order".into(),
                reason: "there is no moon".into()
            }]
        );
        assert!(!tally.skipped.iter().any(Skip::is_excused));
    }

    #[test]
    fn an_error_is_a_failure() {
        let mut all = Tally::default();
        all.add(Err(anyhow::anyhow!("reason").context("compiling")));
        all.check(Ok(()));
        all.check(Err(anyhow::anyhow!("reason").context("clippy")));
        assert_eq!(
            (all.passed, all.failed.as_slice()),
            (
                1,
                &["compiling: reason".to_owned(), "clippy: reason".to_owned()][..]
            )
        );
    }
}
