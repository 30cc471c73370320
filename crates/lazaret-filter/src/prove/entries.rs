//! A meaning as a list: what each number of one convention gets, and on which arguments that depends.

use super::bdd::Set;
use super::region::{self, Region, Span};
use super::word::{ARCHITECTURE, NUMBER};
use super::{Meaning, ProveError, Space, table};
use crate::abi::{Abi, X32_BIT};
use crate::rule::Verdict;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// The most ranges of numbers for one verdict.
const MAX_RANGES: usize = 1 << 14;

/// A verdict, and when it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The arguments.
    pub when: Region,
    /// The verdict then.
    pub verdict: Verdict,
}

/// Numbers that are treated alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruled {
    /// For x32 without [`X32_BIT`].
    pub numbers: RangeInclusive<u32>,
    /// Never empty; the most permissive verdict first. The regions are disjoint and make up all arguments.
    pub cases: Vec<Case>,
}

impl Space {
    /// What the numbers of a convention get: adjacent ranges differ, and together they are all numbers it has.
    ///
    /// # Errors
    /// [`ProveError::TooManyRanges`] where verdicts alternate too often, [`ProveError::TooLarge`], [`ProveError::OtherSpace`].
    pub fn entries(&mut self, meaning: &Meaning, abi: Abi) -> Result<Vec<Ruled>, ProveError> {
        self.check(meaning)?;
        let convention = table::convention(&mut self.diagrams, abi)?;
        let mut by_verdict: Vec<(Verdict, Vec<Span>)> = Vec::new();
        for (&verdict, &calls) in meaning.sets.iter().rev() {
            let calls = self.diagrams.and(convention, calls)?;
            let spans = self.numbers_of(calls)?;
            by_verdict.push((verdict, spans));
        }
        // where a range of some verdict begins, so does one of the result
        let starts: BTreeSet<u64> = by_verdict
            .iter()
            .flat_map(|(_, spans)| spans.iter().map(|span| span.first))
            .collect();
        let mut regions = BTreeMap::new();
        let mut ruled: Vec<Ruled> = Vec::new();
        for first in starts {
            let mut cases = Vec::new();
            let mut end = u64::from(u32::MAX);
            for (verdict, spans) in &by_verdict {
                let after = spans.partition_point(|span| span.first <= first);
                if let Some(next) = spans.get(after) {
                    // above `first`
                    end = end.min(next.first - 1);
                }
                let here = after.checked_sub(1).and_then(|at| spans.get(at));
                let Some(here) = here.filter(|span| first <= span.last) else {
                    continue;
                };
                end = end.min(here.last);
                cases.push(Case {
                    when: self.region_of(here.rest, &mut regions)?,
                    verdict: *verdict,
                });
            }
            // spans of 32 levels hold 32-bit numbers
            let (first, last) = (first as u32, end as u32);
            let numbers = if abi == Abi::X32 {
                first & !X32_BIT..=last & !X32_BIT
            } else {
                first..=last
            };
            ruled.push(Ruled { numbers, cases });
        }
        Ok(ruled)
    }

    /// Reads calls of one architecture by their numbers.
    fn numbers_of(&self, calls: Set) -> Result<Vec<Span>, ProveError> {
        let mut architectures = Vec::new();
        let levels = region::levels(ARCHITECTURE);
        region::spans(&self.diagrams, calls, &levels, 1, &mut architectures);
        let mut spans = Vec::new();
        let levels = region::levels(NUMBER);
        for architecture in architectures {
            let whole = region::spans(
                &self.diagrams,
                architecture.rest,
                &levels,
                MAX_RANGES,
                &mut spans,
            );
            if !whole {
                return Err(ProveError::TooManyRanges { limit: MAX_RANGES });
            }
        }
        Ok(spans)
    }
}
