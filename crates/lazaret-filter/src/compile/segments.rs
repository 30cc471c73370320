//! The numbers of one architecture word, in ranges with one graph each, and the search for them.

use super::Weights;
use super::conditions::decide;
use super::graph::{Graph, Id};
use super::search::{Aim, Cost, Range, search};
use crate::abi::{Abi, X32_BIT};
use crate::program::code;
use crate::rule::{Call, Entry, RuleTable};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// What entries of a table became, so that equal ones are done once.
#[derive(Default)]
pub(super) struct Leaves<'a>(BTreeMap<&'a Entry, Id>);

impl<'a> Leaves<'a> {
    fn get(&mut self, graph: &mut Graph, entry: &'a Entry) -> Id {
        *self.0.entry(entry).or_insert_with(|| decide(graph, entry))
    }
}

/// The graph for all numbers of an architecture, with the number in the accumulator.
///
/// x86-64 and x32 share an architecture and are told apart by a bit that is not the highest: a quarter of the numbers is one
/// convention's, the next the other's, twice. When one of the two is foreign, a test of the bit can take the place of the
/// borders between quarters: it does when fewer instructions run on average, or as many and there are fewer.
pub(super) fn numbers<'a>(
    graph: &mut Graph,
    leaves: &mut Leaves<'a>,
    table: &'a RuleTable,
    weights: &Weights,
    arch: u32,
) -> Id {
    let all = ranges(graph, leaves, table, weights, arch);
    let (plain, plain_cost) = search(graph, &all, u32::MAX, Aim::Fast);
    let conventions = [0, X32_BIT].map(|nr| Abi::of(arch, nr).map(|(abi, _)| abi));
    let served = conventions.map(|abi| abi.is_some_and(|abi| table.abis.contains_key(&abi)));
    let [clear, set] = served;
    if clear == set || conventions[0] == conventions[1] {
        return plain;
    }
    let mut own: Vec<Range> = all
        .iter()
        .filter(|range| (range.start & X32_BIT != 0) == set)
        .copied()
        .collect();
    if let Some(first) = own.first_mut() {
        first.start = 0;
    }
    let foreign = graph.verdict(table.foreign);
    let (own, own_cost) = search(graph, &own, u32::MAX, Aim::Fast);
    let by_bit = match set {
        true => graph.test(code::JSET_K, X32_BIT, own, foreign),
        false => graph.test(code::JSET_K, X32_BIT, foreign, own),
    };
    let weight: u128 = all.iter().map(|range| range.weight).sum();
    let by_bit_cost = Cost {
        run: own_cost.run + weight,
        tests: own_cost.tests + 1,
    };
    if by_bit_cost < plain_cost {
        by_bit
    } else {
        plain
    }
}

/// The numbers of an architecture in ranges with one graph each. No range crosses the border of a quarter.
fn ranges<'a>(
    graph: &mut Graph,
    leaves: &mut Leaves<'a>,
    table: &'a RuleTable,
    weights: &Weights,
    arch: u32,
) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    let mut from = |start: u32, target: Id| {
        // what began at the same number ended before it
        ranges.pop_if(|range| range.start == start);
        let same = |range: &Range| range.target == target && !start.is_multiple_of(X32_BIT);
        if !ranges.last().is_some_and(same) {
            ranges.push(Range {
                start,
                weight: 0,
                target,
            });
        }
    };
    for quarter in [0, X32_BIT, X32_BIT << 1, X32_BIT << 1 | X32_BIT] {
        let last = quarter | (X32_BIT - 1);
        let served =
            Abi::of(arch, quarter).and_then(|(abi, first)| Some((first, table.abis.get(&abi)?)));
        let Some((first, numbers)) = served else {
            from(quarter, graph.verdict(table.foreign));
            continue;
        };
        let otherwise = graph.verdict(numbers.otherwise);
        from(quarter, otherwise);
        for (&nr, entry) in numbers.entries.range(first..=first | (X32_BIT - 1)) {
            // `first` is the quarter's first number, with x32's bit or without
            let nr = nr - first + quarter;
            from(nr, leaves.get(graph, entry));
            if nr < last {
                from(nr + 1, otherwise);
            }
        }
    }
    weigh(&mut ranges, weights, arch);
    ranges
}

/// Gives each range its weight: that of its numbers, and for what was never seen an equal share of one sixteenth of that
/// again, so that nothing ends up at the bottom of a long chain. A range that goes on like the one before has no share of its
/// own, and the upper half of the numbers has none: no kernel has calls there.
fn weigh(ranges: &mut [Range], weights: &Weights, arch: u32) {
    let mut seen: u128 = 0;
    let each = 16 * ranges.len() as u128;
    for ((abi, nr), weight) in weights.iter() {
        let raw = Call::new(abi, nr);
        if raw.arch != arch {
            continue;
        }
        let after = ranges.partition_point(|range| range.start <= raw.nr);
        if let Some(range) = after.checked_sub(1).and_then(|at| ranges.get_mut(at)) {
            // 32-bit weights, and fewer numbers and ranges than 2^33: no sum of these leaves 128 bits
            range.weight += each * u128::from(weight);
            seen += u128::from(weight);
        }
    }
    let mut before = None;
    for range in ranges {
        if before != Some(range.target) && range.start < X32_BIT << 1 {
            range.weight += seen.max(1);
        }
        before = Some(range.target);
    }
}
