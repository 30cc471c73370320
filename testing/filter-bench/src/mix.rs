//! The calls of a real recording, with how often each was made.

use anyhow::Context;
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::compile::Weights;
use lazaret_core::filter::interpret::eval;
use lazaret_core::filter::program::Program;
use lazaret_core::filter::rule::Call;
use lazaret_core::format::recording;
use lazaret_core::phase::Phase;

/// Calls and their counts.
pub(crate) struct Mix(Vec<(Call, u64)>);

impl Mix {
    /// The calls that a recording saw while its server served. A call whose argument was summarised is there once for each
    /// recorded value of its first such argument; other arguments are 0.
    pub(crate) fn serving(json: &[u8]) -> anyhow::Result<Mix> {
        let recording = recording::read(json).context("cannot read the recording")?;
        let mut calls = Vec::new();
        for seen in &recording.observations {
            if seen.phase != Phase::Serving {
                continue;
            }
            let call = Call::new(seen.abi, seen.nr);
            match seen.args.first() {
                None => calls.push((call, seen.count)),
                Some(argument) => {
                    for (&value, &count) in &argument.values {
                        let mut call = call;
                        if let Some(slot) = call.args.get_mut(usize::from(argument.arg)) {
                            *slot = value;
                        }
                        calls.push((call, count));
                    }
                }
            }
        }
        anyhow::ensure!(!calls.is_empty(), "the recording saw no call while serving");
        Ok(Mix(calls))
    }

    /// How many calls were made.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// The frequencies, as the compiler takes them.
    pub(crate) fn weights(&self, abi: Abi) -> Weights {
        let own = self
            .0
            .iter()
            .filter(|(call, _)| call.arch == abi.audit_arch());
        own.map(|(call, count)| ((abi, call.nr), *count)).collect()
    }

    /// Instructions that a filter executes for one call, in the mean over the mix.
    pub(crate) fn mean_executed(&self, filter: &Program) -> anyhow::Result<f64> {
        let mut executed = 0.0;
        for (call, count) in &self.0 {
            executed += f64::from(eval(filter, call)?.executed) * *count as f64;
        }
        Ok(executed / self.total() as f64)
    }
}
