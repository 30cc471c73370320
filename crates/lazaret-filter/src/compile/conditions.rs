//! Turns the branches of an entry into a decision graph over 32-bit halves of arguments.
//!
//! The form is an interval decision diagram (Strehl and Thiele, 1998; Gouda and Liu's firewall decision diagrams, 2004, are
//! the same idea): a half is loaded once, the ranges that any branch tells apart in it are searched together, and each range
//! leads to what is left of the branches there. That shares loads and tests between branches, but can need many nodes when
//! branches overlap in several arguments. So the branches are also done in two halves, one after the other, and the smaller
//! graph is taken; where a half is smaller in pieces, the whole is not tried.
//!
//! A half whose mask is 0 is not looked at.

use super::graph::{Graph, Id};
use super::search::{Aim, Range, search};
use crate::program::code;
use crate::rule::{Branch, Condition, Entry};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::Rc;
use alloc::vec::Vec;

// struct seccomp_data, include/uapi/linux/seccomp.h
const ARGS_OFFSET: u32 = 16;

/// Recursion goes one step deeper for each half and mask that is compared; more of them than this are done one by one.
const MAX_HALVES: usize = 64;

/// Looks at conditions that one attempt to do branches together may take, and more for each node of the graph that it
/// competes with. Keeps compilation from taking much longer than in proportion to the table.
const WORK: usize = 1 << 13;
const WORK_PER_NODE: usize = 1 << 4;

/// The masked half of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Half {
    offset: u32,
    mask: u32,
}

/// A condition on a half.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Atom {
    half: Half,
    /// First value, last value, and what else must hold then; ascending and disjoint. Elsewhere the condition fails.
    cases: Rc<[(u32, u32, Rest)]>,
}

/// What is left of a condition when one half is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rest {
    Holds,
    /// Another half must have one of its values too.
    Half(Atom),
}

/// Conditions joined by AND, sorted, and where they lead.
type Rule = (Vec<Atom>, Id);

/// The graph of an entry, beginning with a load or a return.
pub(super) fn decide(graph: &mut Graph, entry: &Entry) -> Id {
    let mut rules = Vec::new();
    for branch in &entry.branches {
        let target = graph.verdict(branch.verdict);
        rules.extend(atoms(branch).map(|atoms| (atoms, target)));
    }
    let otherwise = graph.verdict(entry.otherwise);
    smallest(graph, &rules, otherwise).0
}

/// The conditions of a branch; `None` when they never hold.
fn atoms(branch: &Branch) -> Option<Vec<Atom>> {
    let mut atoms = Vec::new();
    for condition in &branch.all {
        match split(condition)? {
            Rest::Holds => {}
            Rest::Half(atom) => atoms.push(atom),
        }
    }
    atoms.sort();
    atoms.dedup();
    Some(atoms)
}

/// First and last value of a high half, and the ranges of the low half there.
type Piece = (u32, u32, Vec<(u32, u32)>);

/// A condition as one on its first half; `None` when it never holds.
fn split(condition: &Condition) -> Option<Rest> {
    let halves = |value: u64| ((value >> 32) as u32, (value & 0xffff_ffff) as u32);
    let (high_mask, low_mask) = halves(condition.mask);
    // `check_table` has seen that arg <= 5
    let low = Half {
        offset: ARGS_OFFSET + 8 * u32::from(condition.arg),
        mask: low_mask,
    };
    let high = Half {
        offset: low.offset + 4,
        mask: high_mask,
    };
    let mut pieces: Vec<Piece> = Vec::new();
    let mut add = |from: u32, to: u32, lows: (u32, u32)| match pieces.last_mut() {
        Some(piece) if (piece.0, piece.1) == (from, to) => piece.2.push(lows),
        _ => pieces.push((from, to, [lows].into())),
    };
    for range in condition.values.ranges() {
        let (first, last) = (halves(*range.start()), halves(*range.end()));
        if first.0 == last.0 {
            add(first.0, last.0, (first.1, last.1));
            continue;
        }
        add(first.0, first.0, (first.1, u32::MAX));
        // first.0 < last.0, so neither sum leaves 32 bits
        if first.0 + 1 < last.0 {
            add(first.0 + 1, last.0 - 1, (0, u32::MAX));
        }
        add(last.0, last.0, (0, last.1));
    }
    let rest = |lows: Vec<(u32, u32)>| {
        let cases = lows
            .into_iter()
            .map(|(first, last)| (first, last, Rest::Holds));
        whole_or(low, cases.collect())
    };
    let mut pieces = pieces.into_iter();
    if high_mask == 0 {
        // the ends of every range lie within the mask
        return pieces.next().map(|(_, _, lows)| rest(lows));
    }
    let mut cases: Vec<(u32, u32, Rest)> = Vec::new();
    for (from, to, lows) in pieces {
        let rest = rest(lows);
        match cases.last_mut() {
            // pieces are disjoint and ascending: there is a next value
            Some(before) if before.1 + 1 == from && before.2 == rest => before.1 = to,
            _ => cases.push((from, to, rest)),
        }
    }
    Some(whole_or(high, cases))
}

/// A condition on a half, or nothing when each of its values holds.
fn whole_or(half: Half, cases: Vec<(u32, u32, Rest)>) -> Rest {
    match cases[..] {
        [(0, last, Rest::Holds), ..] if last >= half.mask => Rest::Holds,
        _ => Rest::Half(Atom {
            half,
            cases: cases.into(),
        }),
    }
}

/// The smallest graph that was found for rules tried in order, and whether it is one diagram. `otherwise` begins with a load
/// or a return, as every target does, and so does the result.
fn smallest(graph: &mut Graph, rules: &[Rule], otherwise: Id) -> (Id, bool) {
    let apart = match rules {
        [] => return (otherwise, true),
        [(atoms, target)] => one_by_one(graph, atoms, *target, otherwise),
        _ => {
            let (first, second) = rules.split_at(rules.len() / 2);
            let (second, second_is_one) = smallest(graph, second, otherwise);
            let (first, first_is_one) = smallest(graph, first, second);
            if !(first_is_one && second_is_one) {
                return (first, false);
            }
            first
        }
    };
    let mut halves = BTreeSet::new();
    for (atoms, _) in rules {
        for atom in atoms {
            atom.halves(&mut halves);
        }
    }
    if halves.len() > MAX_HALVES {
        return (apart, false);
    }
    let size = graph.size(apart, otherwise, usize::MAX);
    let together =
        Diagram::new(graph, WORK + WORK_PER_NODE * size).build(rules.to_vec(), otherwise, None);
    match together {
        Some(together) if graph.size(together, otherwise, size + 1) <= size => (together, true),
        _ => (apart, false),
    }
}

/// Conditions one after the other, each of which fails to the same place.
fn one_by_one(graph: &mut Graph, atoms: &[Atom], target: Id, otherwise: Id) -> Id {
    let mut holds = target;
    for atom in atoms.iter().rev() {
        let rule = (alloc::vec![atom.clone()], holds);
        holds = Diagram::new(graph, usize::MAX)
            .build(alloc::vec![rule], otherwise, None)
            .expect("nothing limits the work of this one");
    }
    holds
}

impl Atom {
    fn halves(&self, into: &mut BTreeSet<Half>) {
        into.insert(self.half);
        for (_, _, rest) in self.cases.iter() {
            if let Rest::Half(low) = rest {
                // the low half has none below it
                into.insert(low.half);
            }
        }
    }

    /// What is left of the condition when the half has this value; `None` when it fails.
    fn rest(&self, value: u32) -> Option<&Rest> {
        let after = self.cases.partition_point(|&(first, ..)| first <= value);
        let (_, last, rest) = self.cases.get(after.checked_sub(1)?)?;
        (value <= *last).then_some(rest)
    }
}

/// Builds one interval decision diagram.
struct Diagram<'g> {
    graph: &'g mut Graph,
    /// What was built for these rules when this was loaded.
    known: BTreeMap<(Vec<Rule>, Id, Option<Half>), Id>,
    /// Looks at conditions that are left.
    work: usize,
}

impl<'g> Diagram<'g> {
    fn new(graph: &'g mut Graph, work: usize) -> Diagram<'g> {
        Diagram {
            graph,
            known: BTreeMap::new(),
            work,
        }
    }

    /// The graph of rules when the accumulator holds `loaded`; `None` when that takes too much work.
    fn build(
        &mut self,
        mut rules: Vec<Rule>,
        mut otherwise: Id,
        loaded: Option<Half>,
    ) -> Option<Id> {
        if let Some(at) = rules.iter().position(|(atoms, _)| atoms.is_empty()) {
            otherwise = rules[at].1;
            rules.truncate(at);
        }
        while rules.pop_if(|(_, target)| *target == otherwise).is_some() {}
        let Some((first, _)) = rules.first() else {
            return Some(otherwise);
        };
        let users = |half: Half| {
            let atoms = rules.iter().flat_map(|(atoms, _)| atoms);
            atoms.filter(|atom| atom.half == half).count()
        };
        let halves = first.iter().map(|atom| atom.half);
        // what is there already, then what most conditions look at, then the first
        let half = halves
            .rev()
            .max_by_key(|half| (loaded == Some(*half), users(*half)))?;
        let key = (rules, otherwise, loaded);
        if let Some(known) = self.known.get(&key) {
            return Some(*known);
        }
        let pieces = self.pieces(&key.0, half)?;
        let id = match &pieces[..] {
            [(_, rules)] => self.build(rules.clone(), otherwise, loaded)?,
            _ => self.branch(half, pieces, otherwise, loaded)?,
        };
        self.known.insert(key, id);
        Some(id)
    }

    /// The ranges of a half, by their first value, that leave different rules.
    fn pieces(&mut self, rules: &[Rule], half: Half) -> Option<Vec<(u32, Vec<Rule>)>> {
        let all = || rules.iter().flat_map(|(atoms, _)| atoms);
        let cases = all()
            .filter(|atom| atom.half == half)
            .flat_map(|atom| atom.cases.iter());
        let ends = cases.flat_map(|(first, last, _)| [Some(*first), last.checked_add(1)]);
        let mut starts: BTreeSet<u32> = ends.flatten().filter(|at| *at <= half.mask).collect();
        starts.insert(0);
        self.work = self.work.checked_sub(starts.len() * all().count())?;
        let mut pieces: Vec<(u32, Vec<Rule>)> = Vec::new();
        for start in starts {
            let left = rules.iter().filter_map(|(atoms, target)| {
                let mut left = Vec::with_capacity(atoms.len());
                for atom in atoms {
                    if atom.half != half {
                        left.push(atom.clone());
                        continue;
                    }
                    match atom.rest(start)? {
                        Rest::Holds => {}
                        Rest::Half(low) => left.push(low.clone()),
                    }
                }
                left.sort();
                left.dedup();
                Some((left, *target))
            });
            let left: Vec<Rule> = left.collect();
            if pieces.last().is_none_or(|(_, before)| *before != left) {
                pieces.push((start, left));
            }
        }
        Some(pieces)
    }

    /// Looks at a half and goes on with the rules of its value's range.
    fn branch(
        &mut self,
        half: Half,
        pieces: Vec<(u32, Vec<Rule>)>,
        otherwise: Id,
        loaded: Option<Half>,
    ) -> Option<Id> {
        // `loaded` has all the bits
        let has = loaded
            .filter(|loaded| loaded.offset == half.offset && loaded.mask & half.mask == half.mask);
        // no value but 0 is below the lowest bit of the mask: one instruction tells 0 from the rest, without a mask before
        let lowest = half.mask & half.mask.wrapping_neg();
        let bits =
            matches!(pieces[..], [_, (start, _)] if start <= lowest) && half.mask != u32::MAX;
        let unmasked = Half {
            mask: u32::MAX,
            ..half
        };
        let holds = if bits { has.unwrap_or(unmasked) } else { half };
        let mut ranges = Vec::with_capacity(pieces.len());
        for (start, rules) in pieces {
            let target = self.build(rules, otherwise, Some(holds))?;
            ranges.push(Range {
                start,
                weight: 1,
                target,
            });
        }
        let mut id = match ranges[..] {
            [zero, other] if bits => {
                let test = code::JSET_K;
                self.graph.test(test, half.mask, other.target, zero.target)
            }
            _ => search(self.graph, &ranges, half.mask, Aim::Few).0,
        };
        if has != Some(holds) {
            // a load without a mask masks with all ones, which is nothing
            id = self.graph.and(holds.mask, id);
        }
        if has.is_none() {
            id = self.graph.load(half.offset, id);
        }
        Some(id)
    }
}
