//! The sets of calls that a rule table's verdicts stand for.
//!
//! Follows [`RuleTable::decide`]; what a table should say is not judged.

use super::add;
use super::bdd::{Diagrams, Full, Set};
use super::word::{self, ARCHITECTURE, Bits, NUMBER};
use crate::abi::{Abi, X32_BIT};
use crate::rule::{Condition, RuleTable, Verdict};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// For each verdict that some call gets, its calls.
pub(super) fn sets(
    diagrams: &mut Diagrams,
    table: &RuleTable,
) -> Result<BTreeMap<Verdict, Set>, Full> {
    let mut sets = BTreeMap::new();
    let mut served = Set::NONE;
    let number = word::input(diagrams, NUMBER)?;
    for (&abi, numbers) in &table.abis {
        let mut by_verdict = BTreeMap::new();
        let mut listed = Set::NONE;
        for (&nr, entry) in &numbers.entries {
            // such a number belongs to the other convention of the architecture: nobody asks for it
            if shares(abi) && nr & X32_BIT != 0 {
                continue;
            }
            let nr = if abi == Abi::X32 { nr | X32_BIT } else { nr };
            let this = word::equal(diagrams, &number, &word::constant(nr))?;
            listed = diagrams.or(listed, this)?;
            let mut rest = this;
            for branch in &entry.branches {
                let mut taken = rest;
                for condition in &branch.all {
                    let holds = holding(diagrams, condition)?;
                    taken = diagrams.and(taken, holds)?;
                }
                add(diagrams, &mut by_verdict, branch.verdict, taken)?;
                rest = diagrams.and(rest, !taken)?;
            }
            add(diagrams, &mut by_verdict, entry.otherwise, rest)?;
        }
        add(diagrams, &mut by_verdict, numbers.otherwise, !listed)?;
        let domain = convention(diagrams, abi)?;
        served = diagrams.or(served, domain)?;
        for (verdict, set) in by_verdict {
            let set = diagrams.and(domain, set)?;
            add(diagrams, &mut sets, verdict, set)?;
        }
    }
    add(diagrams, &mut sets, table.foreign, !served)?;
    Ok(sets)
}

/// Whether another convention has the same architecture word.
fn shares(abi: Abi) -> bool {
    matches!(abi, Abi::X86_64 | Abi::X32)
}

/// The calls of a convention, as [`Abi::of`] tells them apart.
pub(super) fn convention(diagrams: &mut Diagrams, abi: Abi) -> Result<Set, Full> {
    let architecture = word::input(diagrams, ARCHITECTURE)?;
    let this = word::constant(abi.audit_arch());
    let calls = word::equal(diagrams, &architecture, &this)?;
    if !shares(abi) {
        return Ok(calls);
    }
    let number = word::input(diagrams, NUMBER)?;
    let x32 = word::intersects(diagrams, &number, &word::constant(X32_BIT))?;
    diagrams.and(calls, if abi == Abi::X32 { x32 } else { !x32 })
}

/// The calls for which a condition holds.
fn holding(diagrams: &mut Diagrams, condition: &Condition) -> Result<Set, Full> {
    let Some((low, high)) = word::argument(condition.arg) else {
        return Ok(Set::NONE);
    };
    let (low, high) = (word::input(diagrams, low)?, word::input(diagrams, high)?);
    let masked: Vec<Set> = long(&low, &high)
        .zip(bits(condition.mask))
        .map(|(bit, of_mask)| if of_mask == Set::ALL { bit } else { Set::NONE })
        .collect();
    let mut any = Set::NONE;
    for range in condition.values.ranges() {
        let first: Vec<Set> = bits(*range.start()).collect();
        let last: Vec<Set> = bits(*range.end()).collect();
        let from = word::at_least(diagrams, &masked, &first)?;
        let to = word::at_least(diagrams, &last, &masked)?;
        let inside = diagrams.and(from, to)?;
        any = diagrams.or(any, inside)?;
    }
    Ok(any)
}

fn long<'a>(low: &'a Bits, high: &'a Bits) -> impl Iterator<Item = Set> + 'a {
    low.iter().chain(high).copied()
}

fn bits(value: u64) -> impl Iterator<Item = Set> {
    (0..u64::BITS).map(move |bit| Set::constant(value >> bit & 1 != 0))
}
