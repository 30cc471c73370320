//! From the text to a [`Policy`]: the only road in. Collects every problem, with its place, before it refuses.

mod calls;
mod conditions;
mod header;
mod phases;
mod rules;

use super::problem::{Place, PolicyError, Problem, What};
use super::{CallRules, ExecStart, Mode, Policy, Serving};
use crate::ceiling::Reach;
use crate::format::policy::{API_VERSION, CeilingV1, KIND, ModeV1, PolicyV1, RuleV1};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use calls::Use;
use lazaret_filter::abi::Abi;

/// Largest policy that is read, in bytes. The largest sensible one (every call with its own reason) has about 100 KiB.
pub const MAX_BYTES: usize = 1 << 20;
const MAX_RULES: usize = 1024;
const MAX_DIGESTS: usize = 64;
const MAX_TEXT: usize = 512;

impl TryFrom<PolicyV1> for Policy {
    type Error = PolicyError;

    fn try_from(mut wire: PolicyV1) -> Result<Policy, PolicyError> {
        let mut reader = Reader {
            problems: Vec::new(),
            unresolved: BTreeSet::new(),
        };
        // once in the order of the text, so that problems have the reader's places …
        reader.read(&wire);
        if !reader.problems.is_empty() {
            return Err(PolicyError::Problems {
                problems: reader.problems,
            });
        }
        // … and once in canonical order, so that rule numbers do not depend on it
        canonicalise(&mut wire);
        let parts = reader.read(&wire);
        match parts {
            Some(parts) if reader.problems.is_empty() => Ok(Policy {
                abi: parts.abi,
                mode: match wire.mode {
                    ModeV1::Enforce => Mode::Enforce,
                    ModeV1::Observe => Mode::Observe,
                },
                digests: wire.image.digests.iter().copied().collect(),
                ceiling: parts.ceiling,
                otherwise: parts.otherwise,
                serving: parts.serving,
                restarts: parts.restarts,
                exec_start: parts.exec_start,
                prelude: parts.prelude,
                calls: parts.calls,
                oldest_kernel: parts.oldest_kernel,
                unresolved: reader.unresolved,
                wire,
            }),
            _ => Err(PolicyError::Problems {
                problems: reader.problems,
            }),
        }
    }
}

/// Sorts every list whose order means nothing.
fn canonicalise(wire: &mut PolicyV1) {
    wire.image.digests.sort();
    wire.environment.libc.sort();
    wire.environment.runtimes.sort();
    if let CeilingV1::Calls(calls) = &mut wire.ceiling {
        calls.sort();
    }
    if let Some(prelude) = &mut wire.phases.prelude {
        prelude.calls.sort();
    }
    if let Some(evidence) = &mut wire.evidence {
        evidence.recordings.sort();
    }
    wire.rules.iter_mut().for_each(canonicalise_rule);
    wire.rules.sort();
}

/// Sorts every list of a rule whose order means nothing.
pub(super) fn canonicalise_rule(rule: &mut RuleV1) {
    for calls in [&mut rule.allow, &mut rule.ask, &mut rule.deny]
        .into_iter()
        .flatten()
    {
        calls.sort();
    }
    if let Some(phases) = &mut rule.during {
        phases.sort();
    }
    for condition in &mut rule.when {
        condition.values.sort();
    }
    rule.when.sort();
}

/// `6.18.44-anything` → (6, 18).
pub(super) fn release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(['.', '-', '+', '~']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

struct Parts {
    abi: Abi,
    ceiling: BTreeMap<u32, Reach>,
    otherwise: u16,
    serving: Option<Serving>,
    restarts: u32,
    exec_start: ExecStart,
    prelude: BTreeSet<u32>,
    calls: BTreeMap<u32, CallRules>,
    oldest_kernel: (u32, u32),
}

struct Reader {
    problems: Vec<Problem>,
    unresolved: BTreeSet<String>,
}

impl Reader {
    fn problem(&mut self, place: Place, what: What) {
        self.problems.push(Problem { place, what });
    }

    /// All parts that could be read; `None` only together with a problem.
    fn read(&mut self, wire: &PolicyV1) -> Option<Parts> {
        self.fixed(Place::field("apiVersion"), &wire.api_version, API_VERSION);
        self.fixed(Place::field("kind"), &wire.kind, KIND);
        self.metadata(wire);
        self.image(wire);
        let abi = self.arch(&wire.environment.arch)?;
        let oldest_kernel = self.kernel(&wire.environment.kernel);
        self.texts(wire);
        let ceiling = self.ceiling(&wire.ceiling, abi);
        let otherwise = self.otherwise(wire);
        let exec_start = Self::exec_start(wire);
        let serving = self.serving(wire);
        let restarts = self.restarts(wire);
        let prelude = wire
            .phases
            .prelude
            .as_ref()
            .map_or_else(BTreeSet::new, |prelude| {
                let place = Place::field("phases").at("prelude").at("calls");
                self.calls(&place, &prelude.calls, abi, Use::Allowing)
                    .into_iter()
                    .map(|call| call.nr)
                    .collect()
            });
        let calls = self.rules(&wire.rules, abi, &ceiling);
        self.required(&calls, abi);
        self.phases_fit(serving.as_ref(), restarts, wire, &calls, abi);
        Some(Parts {
            abi,
            ceiling,
            otherwise,
            serving,
            restarts,
            exec_start,
            prelude,
            calls,
            oldest_kernel: oldest_kernel?,
        })
    }

    fn fixed(&mut self, place: Place, found: &str, expected: &'static str) {
        if found != expected {
            self.problem(
                place,
                What::Unsupported {
                    found: found.chars().take(80).collect(),
                    expected,
                },
            );
        }
    }
}
