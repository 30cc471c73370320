//! libseccomp's tree of a call as branches of a rule table.
//!
//! A branch for each path to a verdict, in the order of the walk: a path is only tried when none before it held, as branches
//! are. Halves of an argument that are compared with constants become one comparison of 64 bits, and branches with the same
//! verdict that differ in one argument become one.

use super::tree::{Compare, Next, Test, Tree};
use crate::rule::{Branch, Condition, Entry, Values, Verdict};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// The most branches of a call: more tests do not fit into a filter (`BPF_MAXINSNS`).
pub(super) const MAX_BRANCHES: usize = 4096;

/// More than [`MAX_BRANCHES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyBranches;

/// What the call gets.
pub(super) fn entry(tree: &Tree, default: Verdict) -> Result<Entry, TooManyBranches> {
    let top = match tree.top() {
        Next::Out => return Ok(Entry::always(default)),
        Next::Verdict(verdict) => return Ok(Entry::always(verdict)),
        Next::Level(top) => top,
    };
    let mut paths = Vec::new();
    walk(tree, top, &mut Vec::new(), &mut paths)?;
    let mut branches: Vec<Branch> = Vec::new();
    let mut otherwise = default;
    for (path, verdict) in paths {
        let Some(all) = conditions(&path) else {
            continue; // never holds
        };
        if all.is_empty() {
            otherwise = verdict; // always holds: nothing after it is tried
            break;
        }
        join(&mut branches, Branch { all, verdict });
    }
    for at in 0..branches.len() {
        // joined conditions can have come to hold always; `at` is below the length, which only shrinks when the loop ends
        let branch = &mut branches[at];
        branch.all.retain(|condition| !always(condition));
        if branch.all.is_empty() {
            otherwise = branch.verdict;
            branches.truncate(at);
            break;
        }
    }
    while branches.pop_if(|last| last.verdict == otherwise).is_some() {}
    Ok(Entry {
        branches,
        otherwise,
    })
}

/// A test that must hold, or must not.
type Step = (Test, bool);

fn walk(
    tree: &Tree,
    level: usize,
    path: &mut Vec<Step>,
    paths: &mut Vec<(Vec<Step>, Verdict)>,
) -> Result<(), TooManyBranches> {
    for node in tree.level(level) {
        for (next, holds) in [(node.yes, true), (node.no, false)] {
            path.push((node.test, holds));
            match next {
                Next::Out => {}
                Next::Verdict(verdict) if paths.len() < MAX_BRANCHES => {
                    paths.push((path.clone(), verdict));
                }
                Next::Verdict(_) => return Err(TooManyBranches),
                Next::Level(deeper) => walk(tree, deeper, path, paths)?,
            }
            path.pop();
        }
    }
    Ok(())
}

const WORD: u64 = 0xffff_ffff;

/// What a path says of one half of an argument.
struct Half {
    mask: u64,
    values: Values,
}

impl Half {
    fn of((test, holds): &Step) -> Half {
        let (mask, datum) = (u64::from(test.mask), u64::from(test.datum));
        let ranges = match (test.compare, holds) {
            (Compare::Equal | Compare::Masked, true) => Values::from([datum]),
            (Compare::Equal | Compare::Masked, false) => {
                // of `Masked` libseccomp never takes the other way
                let below = datum.checked_sub(1).map(|last| 0..=last);
                Values::of(below.into_iter().chain([datum + 1..=WORD]))
            }
            (Compare::Greater, true) => Values::of([datum + 1..=WORD]),
            (Compare::Greater, false) => Values::of([0..=datum]),
            (Compare::GreaterOrEqual, true) => Values::of([datum..=WORD]),
            (Compare::GreaterOrEqual, false) => {
                Values::of(datum.checked_sub(1).map(|last| 0..=last))
            }
        };
        Half {
            mask,
            values: ranges,
        }
    }

    fn full() -> Half {
        Half {
            mask: WORD,
            values: Values::of([0..=WORD]),
        }
    }
}

/// The path as conditions, ordered by argument; `None` when it cannot hold.
fn conditions(path: &[Step]) -> Option<Vec<Condition>> {
    let mut arguments: BTreeMap<u8, Vec<&Step>> = BTreeMap::new();
    for step in path {
        arguments.entry(step.0.arg).or_default().push(step);
    }
    let mut all = Vec::new();
    for (arg, steps) in arguments {
        argument(arg, &steps, &mut all)?;
    }
    Some(all)
}

fn argument(arg: u8, steps: &[&Step], all: &mut Vec<Condition>) -> Option<()> {
    let mut halves: [Vec<Half>; 2] = [Vec::new(), Vec::new()];
    for step in steps {
        let [lower, upper] = &mut halves;
        let half = if step.0.upper { upper } else { lower };
        let next = Half::of(step);
        match half.iter_mut().find(|known| known.mask == next.mask) {
            Some(known) => known.values = intersection(&known.values, &next.values),
            None => half.push(next),
        }
    }
    if halves.iter().flatten().any(|half| half.values.is_empty()) {
        return None;
    }
    let [mut lower, mut upper] = halves;
    let whole_upper = upper.is_empty();
    if let ([] | [_], [] | [_]) = (lower.as_slice(), upper.as_slice()) {
        let low = lower.pop().unwrap_or_else(Half::full);
        let high = upper.pop().unwrap_or_else(Half::full);
        if whole_upper {
            // a convention that compares one word only, or a path that has not come to the other
            all.extend(condition(arg, low.mask, low.values));
            return Some(());
        }
        if let Some(values) = product(&high, &low) {
            all.extend(condition(arg, high.mask << 32 | low.mask, values));
            return Some(());
        }
        all.extend(condition(arg, high.mask << 32, shifted(&high.values)));
        all.extend(condition(arg, low.mask, low.values));
        return Some(());
    }
    for half in upper {
        all.extend(condition(arg, half.mask << 32, shifted(&half.values)));
    }
    for half in lower {
        all.extend(condition(arg, half.mask, half.values));
    }
    Some(())
}

/// `None` for one that always holds.
fn condition(arg: u8, mask: u64, values: Values) -> Option<Condition> {
    Some(Condition { arg, mask, values }).filter(|condition| !always(condition))
}

fn always(condition: &Condition) -> bool {
    let mask = condition.mask;
    let gapless = mask & mask.wrapping_add(1) == 0;
    gapless && condition.values == Values::of([0..=mask])
}

/// The upper half's values in their place.
fn shifted(values: &Values) -> Values {
    Values::of(
        values
            .ranges()
            .map(|range| range.start() << 32..=range.end() << 32),
    )
}

/// The 64-bit values with an upper half of the one set and a lower half of the other, where ranges can say that.
fn product(high: &Half, low: &Half) -> Option<Values> {
    let single = |values: &Values| values.ranges().all(|range| range.start() == range.end());
    if low.mask == WORD && low.values == Values::of([0..=WORD]) {
        let ranges = high.values.ranges();
        let whole = ranges.map(|range| range.start() << 32..=(range.end() << 32 | WORD));
        return (high.mask == WORD).then(|| Values::of(whole));
    }
    let plain = high.mask == WORD && low.mask == WORD;
    let singles = single(&high.values) && (plain || single(&low.values));
    let few = high
        .values
        .ranges()
        .len()
        .saturating_mul(low.values.ranges().len())
        <= 64;
    (singles && few).then(|| {
        Values::of(high.values.ranges().flat_map(|h| {
            let h = h.start() << 32;
            let ranges: Vec<_> = low.values.ranges().collect();
            ranges.into_iter().map(move |l| h | l.start()..=h | l.end())
        }))
    })
}

fn intersection(a: &Values, b: &Values) -> Values {
    let pairs = a.ranges().flat_map(|x| {
        let (first, last) = x.into_inner();
        b.ranges()
            .map(move |y| first.max(*y.start())..=last.min(*y.end()))
    });
    Values::of(pairs)
}

/// Adds a branch, into one that says the same of all arguments but one where nothing of another verdict lies between.
fn join(branches: &mut Vec<Branch>, branch: Branch) {
    let same_verdict = branches
        .iter_mut()
        .rev()
        .take_while(|before| before.verdict == branch.verdict);
    for before in same_verdict {
        if widen(before, &branch) {
            return;
        }
    }
    branches.push(branch);
}

fn widen(before: &mut Branch, branch: &Branch) -> bool {
    let same_shape = before.all.len() == branch.all.len()
        && before
            .all
            .iter()
            .zip(&branch.all)
            .all(|(a, b)| (a.arg, a.mask) == (b.arg, b.mask));
    if !same_shape {
        return false;
    }
    let mut different = before
        .all
        .iter_mut()
        .zip(&branch.all)
        .filter(|(a, b)| a.values != b.values);
    match (different.next(), different.next()) {
        (None, _) => true,
        (Some((a, b)), None) => {
            a.values = a.values.union(&b.values);
            true
        }
        _ => false,
    }
}
