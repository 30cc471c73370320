//! Finds the range that a word lies in with few tests.
//!
//! # Method
//! 1. Neighbouring ranges are grouped into *runs*: all but a few single values of a run lead to one place, so `jeq` for each
//!    of those values decides it. A single value inside a range costs one instruction that way, and two by order alone; but
//!    what is not that value pays for the test. Of all groupings the best by [`Aim`] is taken, found by dynamic programming.
//! 2. The runs become the leaves of an alphabetic tree of `jge`, by the algorithm of Garsia and Wachs (1977): no tree over
//!    these leaves in this order runs fewer tests on average. It was preferred to a split by balanced weights, which is as
//!    short to write and only near the optimum, and to Hu and Tucker's, which builds the same trees.
//!
//! What is not optimal is the choice of runs before the tree is known. It counts with a depth of log2(all / weight) for each
//! run, which is within 2 of the depth in an optimal tree, on average.

use super::graph::{Graph, Id};
use crate::program::{MAX_INSTRUCTIONS, code};
use alloc::vec::Vec;

/// Tests for equality in one run: more of them are slower than a `jge` that splits the run.
const MAX_SINGLES: usize = 3;

/// The values from `start` up to the next range's start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) start: u32,
    /// How often, compared with others.
    pub(super) weight: u128,
    pub(super) target: Id,
}

/// What a search costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost {
    /// Tests that run, summed over the weights.
    pub(super) run: u128,
    /// Tests that there are.
    pub(super) tests: usize,
}

/// What matters more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// Few tests, then few that run.
    Few,
    /// Few tests that run; one test less on average is worth [`EXCHANGE`] that there are.
    Fast,
}

/// A filter is loaded once and runs often, but its instructions compete for the processor's caches and count against the
/// kernel's limits.
const EXCHANGE: u128 = 32;

/// A search over ranges in ascending order that begin at 0 and end at `last`, none of them empty.
pub(super) fn search(graph: &mut Graph, ranges: &[Range], last: u32, aim: Aim) -> (Id, Cost) {
    let mut merged: Vec<Range> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(before) if before.target == range.target => before.weight += range.weight,
            _ => merged.push(*range),
        }
    }
    let runs = runs(&merged, last, aim);
    let weights: Vec<u128> = runs.iter().map(|run| run.weight).collect();
    // The filter is refused then, and the figure in the refusal does not depend on the tree: any will do.
    let depths = if runs.len() > MAX_INSTRUCTIONS {
        depths(&alloc::vec![1; runs.len()])
    } else {
        depths(&weights)
    };
    let mut cost = Cost { run: 0, tests: 0 };
    // Depths of an alphabetic tree, leaf by leaf: two neighbours of one depth are a node of the depth above.
    let mut open: Vec<(usize, u32, Id)> = Vec::new();
    for (run, depth) in runs.iter().zip(depths) {
        cost.run += run.singles_run + run.weight * depth as u128;
        cost.tests += run.singles.len();
        let mut id = run.rest;
        for &(value, target) in run.singles.iter().rev() {
            id = graph.test(code::JEQ_K, value, target, id);
        }
        let mut right = (depth, run.start, id);
        while let Some(&(left_depth, left_start, left)) = open.last()
            && left_depth == right.0
        {
            open.pop();
            cost.tests += 1;
            let id = graph.test(code::JGE_K, right.1, right.2, left);
            // the root has depth 0 and stands alone on the list, so this is above 0
            right = (left_depth - 1, left_start, id);
        }
        open.push(right);
    }
    match open.pop() {
        Some((0, _, root)) if open.is_empty() => (root, cost),
        _ => unreachable!("`depths` are those of a binary tree"),
    }
}

/// Neighbouring ranges of which all but some single values lead to `rest`.
#[derive(Clone, Debug)]
struct Run {
    start: u32,
    weight: u128,
    /// In the order in which they are tested.
    singles: Vec<(u32, Id)>,
    /// Tests of singles that run, summed over the weights.
    singles_run: u128,
    rest: Id,
}

/// Groups ranges into runs.
fn runs(ranges: &[Range], last: u32, aim: Aim) -> Vec<Run> {
    let is_single = |at: usize| {
        // indices of `ranges`; a range ends before the next one's start, which is above its own
        let end = ranges.get(at + 1).map_or(last, |next| next.start - 1);
        ranges[at].start == end
    };
    let shape = |begin: usize, end: usize| shape(&ranges[begin..end], |at| is_single(begin + at));
    let all: u128 = ranges.iter().map(|range| range.weight).sum();
    let all_log2 = sixteenths_log2(all);
    // of a run, and of the `jge` before it
    let cost = |shape: &Shape, begin: usize| {
        let tests = shape.tests + usize::from(begin > 0);
        let depth = all_log2 - sixteenths_log2(shape.weight);
        let ran = shape.singles_run * 16 + shape.weight * depth;
        match aim {
            Aim::Few => (tests, ran),
            Aim::Fast => (0, ran + all * 16 * tests as u128 / EXCHANGE),
        }
    };
    // for the first n ranges: the cost, and where their last run begins
    let mut best: Vec<((usize, u128), usize)> = alloc::vec![((0, 0), 0)];
    for end in 1..=ranges.len() {
        let last_runs = (0..end)
            .rev()
            .map_while(|begin| Some((begin, shape(begin, end)?)));
        let costs = last_runs.map(|(begin, shape)| {
            let (before, own) = (best[begin].0, cost(&shape, begin));
            ((before.0 + own.0, before.1 + own.1), begin)
        });
        best.push(costs.min().expect("one range by itself is a run"));
    }
    let mut runs = Vec::new();
    let mut end = ranges.len();
    while end > 0 {
        let (_, begin) = best[end];
        let (own, start) = (&ranges[begin..end], ranges[begin].start);
        runs.extend(shape(begin, end).map(|shape| Run::new(&shape, own, start)));
        end = begin;
    }
    runs.reverse();
    runs
}

/// The logarithm to base 2 in sixteenths, rounded; 0 for 0.
fn sixteenths_log2(value: u128) -> u128 {
    let Some(whole) = value.checked_ilog2() else {
        return 0;
    };
    // the four bits below the highest, as if the logarithm were straight between two powers: at most 0.09 too low
    let fraction = if whole >= 4 {
        value >> (whole - 4)
    } else {
        value << (4 - whole)
    };
    u128::from(whole) * 16 + (fraction & 15)
}

/// What a run of neighbouring ranges would cost. Tried for many, so it needs no memory of its own.
struct Shape {
    rest: Id,
    /// The ranges, by index, that do not lead to `rest`, the heaviest first; only the first `tests` count.
    tested: [usize; MAX_SINGLES],
    tests: usize,
    weight: u128,
    singles_run: u128,
}

impl Run {
    /// The run of these ranges, which begin at `start`.
    fn new(shape: &Shape, ranges: &[Range], start: u32) -> Run {
        let tested = shape.tested.iter().take(shape.tests);
        let singles = tested.filter_map(|&at| ranges.get(at));
        Run {
            start,
            weight: shape.weight,
            singles: singles.map(|range| (range.start, range.target)).collect(),
            singles_run: shape.singles_run,
            rest: shape.rest,
        }
    }
}

/// These ranges as a run; `None` when they cannot be one.
fn shape(ranges: &[Range], is_single: impl Fn(usize) -> bool) -> Option<Shape> {
    let mut wide = ranges
        .iter()
        .enumerate()
        .filter(|&(at, _)| !is_single(at))
        .map(|(_, range)| range.target);
    let rest = match wide.next() {
        Some(rest) if wide.all(|target| target == rest) => rest,
        Some(_) => return None,
        // only single values: the most frequent target is left over, of several the heaviest, of several the first
        None => {
            let share = |target: Id| {
                let same = ranges.iter().filter(|range| range.target == target);
                same.fold((0, 0), |(n, weight), range| (n + 1, weight + range.weight))
            };
            let targets = ranges.iter().map(|range| range.target).rev();
            targets.max_by_key(|target| share(*target))?
        }
    };
    let mut tested = [0; MAX_SINGLES];
    let mut tests = 0;
    let mut weight = 0;
    for (at, range) in ranges.iter().enumerate() {
        weight += range.weight;
        if range.target != rest {
            *tested.get_mut(tests)? = at;
            tests += 1;
        }
    }
    // `tests` counts elements that were written; the ranges ascend, and a stable sort keeps equally heavy ones so
    tested[..tests].sort_by_key(|&at| core::cmp::Reverse(ranges[at].weight));
    let mut singles_run = 0;
    let mut tested_weight = 0;
    for (&at, place) in tested[..tests].iter().zip(1..) {
        // `tested` holds indices of `ranges`
        tested_weight += ranges[at].weight;
        singles_run += ranges[at].weight * place;
    }
    singles_run += (weight - tested_weight) * tests as u128;
    Some(Shape {
        rest,
        tested,
        tests,
        weight,
        singles_run,
    })
}

/// The depths of the leaves of an optimal alphabetic tree (Garsia and Wachs, "A new algorithm for minimum cost binary
/// trees", SIAM J. Comput. 6, 1977; Knuth, TAOCP 6.2.2, algorithm G). Quadratic at worst.
fn depths(weights: &[u128]) -> Vec<usize> {
    // leaves are the nodes below weights.len(), and a node's parent is always made later
    let mut parents: Vec<usize> = alloc::vec![usize::MAX; weights.len()];
    // (weight, node), combined until no three neighbours x, y, z have x <= z
    let mut open: Vec<(u128, usize)> = Vec::new();
    // Makes one node of two neighbours, and puts it behind the nearest one to the left that is as heavy. Callers know that
    // both neighbours are there.
    let mut combine = |open: &mut Vec<(u128, usize)>, at: usize| {
        let (left, right) = (open.remove(at), open.remove(at));
        let node = parents.len();
        parents.push(usize::MAX);
        parents[left.1] = node;
        parents[right.1] = node;
        let weight = left.0 + right.0;
        let heavier = open[..at].iter().rposition(|&(other, _)| other >= weight);
        let to = heavier.map_or(0, |heavier| heavier + 1);
        open.insert(to, (weight, node));
        to
    };
    // left of a change everything is settled
    let triple = |open: &[(u128, usize)], changed: usize| {
        let mut triples = changed.saturating_sub(2)..open.len().saturating_sub(2);
        triples.find(|&at| open[at].0 <= open[at + 2].0)
    };
    let mut leaves = weights.iter().enumerate();
    loop {
        let mut changed = match leaves.next() {
            Some((node, &weight)) => {
                open.push((weight, node));
                open.len() - 1
            }
            // right of the end everything counts as infinitely heavy
            None if open.len() > 1 => {
                let last_two = open.len() - 2;
                combine(&mut open, last_two)
            }
            None => break,
        };
        while let Some(at) = triple(&open, changed) {
            // what is left of the pair that goes meets what is right of it
            changed = combine(&mut open, at);
        }
    }
    let mut depths = alloc::vec![0; parents.len()];
    for node in (0..parents.len()).rev() {
        if let Some(above) = depths.get(parents[node]) {
            depths[node] = above + 1;
        }
    }
    depths.truncate(weights.len());
    depths
}

#[cfg(test)]
mod tests {
    use super::depths;
    use alloc::vec::Vec;

    /// The least cost of an alphabetic tree, by trying every split.
    fn least(weights: &[u128]) -> u128 {
        let n = weights.len();
        let mut cost = alloc::vec![alloc::vec![0u128; n + 1]; n + 1];
        for length in 2..=n {
            for from in 0..=n - length {
                let to = from + length;
                let best = (from + 1..to).map(|at| cost[from][at] + cost[at][to]).min();
                cost[from][to] = best.unwrap_or_default() + weights[from..to].iter().sum::<u128>();
            }
        }
        cost[0][n]
    }

    #[test]
    fn trees_are_optimal() {
        // a linear congruential generator is random enough here
        let mut state = 1u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state >> 33
        };
        for round in 0..4000 {
            let spread = [1, 2, 10, 1000][round % 4];
            let weights: Vec<u128> = (0..1 + next() % 24)
                .map(|_| (next() % spread).into())
                .collect();
            let depths = depths(&weights);
            let found: u128 = weights
                .iter()
                .zip(&depths)
                .map(|(w, d)| w * *d as u128)
                .sum();
            assert_eq!(found, least(&weights), "{weights:?}: {depths:?}");
        }
    }
}
