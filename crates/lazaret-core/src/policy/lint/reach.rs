//! Which rules change nothing: decided by meaning, phase by phase and over all arguments.

use super::super::{Allow, CallRules, Policy, Scope};
use crate::ceiling::Reach;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use lazaret_filter::abi::Abi;
use lazaret_filter::prove::{ProveError, Space};
use lazaret_filter::rule::{Branch, Condition, Entry, Numbers, RuleTable, Values, Verdict};

/// What rules do not change anything.
#[derive(Debug, Default)]
pub(super) struct Unreachable {
    /// Number and index of the rule: without all of these together the policy allows the same.
    pub(super) rules: BTreeSet<(u32, usize)>,
    /// Numbers that rules allow in every phase, each in some; with the first such rule.
    pub(super) split: BTreeMap<u32, usize>,
}

/// Looks at every call that more than one rule, or the ceiling too, speaks of.
pub(super) fn unreachable(policy: &Policy) -> Result<Unreachable, ProveError> {
    let mut found = Unreachable::default();
    for (&nr, rules) in &policy.calls {
        if rules.deny.is_some() {
            continue;
        }
        let needed = needed(policy, nr, rules)?;
        for allow in &rules.allows {
            if !needed.contains(&allow) {
                found.rules.insert((nr, allow.rule));
            }
        }
        if let Some(rule) = split(&needed) {
            found.split.insert(nr, rule);
        }
    }
    Ok(found)
}

/// The rules that are left when those that the others cover are taken out, the last first.
fn needed<'p>(
    policy: &Policy,
    nr: u32,
    rules: &'p CallRules,
) -> Result<Vec<&'p Allow>, ProveError> {
    let mut left: Vec<&Allow> = rules.allows.iter().collect();
    let above: Option<Vec<Condition>> = match policy.ceiling.get(&nr) {
        Some(Reach::Unless { arg, mask }) => Some(vec![Condition {
            arg: *arg,
            mask: *mask,
            values: Values::of([1..=*mask]),
        }]),
        _ => None,
    };
    for at in (0..left.len()).rev() {
        // `at` counts down from the length, and only elements at or behind it are taken out
        let allow = left[at];
        let mut covered = true;
        for phase in allow.scope.phases() {
            let others = left.iter().enumerate().filter(|(other, cover)| {
                // what the kernel allows by itself is not the same when the gate has to allow it
                *other != at
                    && cover.scope.holds(phase)
                    && (cover.by_kernel() || !allow.by_kernel())
            });
            let others: Vec<&[Condition]> = others
                .map(|(_, cover)| cover.conditions.as_slice())
                .chain(above.as_deref())
                .collect();
            if !covers(policy.abi, nr, &others, &allow.conditions)? {
                covered = false;
                break;
            }
        }
        if covered {
            left.remove(at);
        }
    }
    Ok(left)
}

/// Whether one of the `others` holds wherever all of `conditions` do.
fn covers(
    abi: Abi,
    nr: u32,
    others: &[&[Condition]],
    conditions: &[Condition],
) -> Result<bool, ProveError> {
    if others.is_empty() {
        return Ok(false);
    }
    if others
        .iter()
        .any(|all| all.is_empty() || *all == conditions)
    {
        return Ok(true);
    }
    let table = |alternatives: &[&[Condition]]| {
        let branches = alternatives
            .iter()
            .map(|all| Branch {
                all: all.to_vec(),
                verdict: Verdict::Allow,
            })
            .collect();
        let entry = Entry {
            branches,
            otherwise: Verdict::Errno(1),
        };
        let numbers = Numbers {
            entries: BTreeMap::from([(nr, entry)]),
            otherwise: Verdict::Errno(1),
        };
        RuleTable::single(abi, numbers, Verdict::KillThread)
    };
    let mut with: Vec<&[Condition]> = others.to_vec();
    with.push(conditions);
    let mut space = Space::new();
    let without = space.of_table(&table(others))?;
    let with = if conditions.is_empty() {
        space.of_table(&RuleTable::single(
            abi,
            Numbers {
                entries: BTreeMap::from([(nr, Entry::always(Verdict::Allow))]),
                otherwise: Verdict::Errno(1),
            },
            Verdict::KillThread,
        ))?
    } else {
        space.of_table(&table(&with))?
    };
    Ok(space.compare(&without, &with)?.is_at_least_as_strict())
}

/// The first of several rules with the same conditions that together hold in every phase, where each holds in some only.
fn split(needed: &[&Allow]) -> Option<usize> {
    let mut scopes: BTreeMap<&[Condition], (u8, usize)> = BTreeMap::new();
    for allow in needed.iter().filter(|allow| !allow.asked) {
        let (bits, _) = scopes.entry(&allow.conditions).or_insert((0, allow.rule));
        *bits |= allow.scope.0;
    }
    let always = |conditions: &[Condition]| {
        needed
            .iter()
            .any(|allow| allow.by_kernel() && allow.conditions == conditions)
    };
    scopes
        .into_iter()
        .find(|(conditions, (bits, _))| Scope(*bits) == Scope::ALWAYS && !always(conditions))
        .map(|(_, (_, rule))| rule)
}
