//! Reads sets of calls back as ranges of numbers and as conditions on arguments that a person can follow.
//!
//! What is read is exact, but it is cut when it gets long, and says so. No decision rests on it.

use super::bdd::{BOTTOM, Diagrams, Full, Set};
use super::word::{self, BITS, ORDER, WORDS};
use crate::rule::{Call, Values};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;

/// The most cubes of one region.
pub const MAX_CUBES: usize = 16;

/// The most ranges of values in one term; what would need more is shown in several cubes.
pub const MAX_VALUES: usize = 16;

/// The most nodes of a diagram that is read for one operand; a larger one is shown path by path.
const MAX_READ: usize = 1 << 10;

/// What a condition looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operand {
    /// An argument, 0 to 5.
    Argument(u8),
    /// Where the call was made.
    InstructionPointer,
}

/// `(operand & mask) ∈ values`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term {
    /// What is looked at.
    pub operand: Operand,
    /// The bits that are compared.
    pub mask: u64,
    /// The values that hold.
    pub values: Values,
}

/// Conditions joined by AND; without any, every call.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cube {
    /// In the order of the arguments, the instruction pointer last.
    pub terms: Vec<Term>,
}

impl Cube {
    /// Whether the conditions hold for these arguments at this address.
    #[must_use]
    pub fn holds(&self, args: &[u64; 6], instruction_pointer: u64) -> bool {
        self.terms.iter().all(|term| {
            let value = match term.operand {
                Operand::Argument(argument) => args.get(usize::from(argument)).copied(),
                Operand::InstructionPointer => Some(instruction_pointer),
            };
            value.is_some_and(|value| term.values.contains(value & term.mask))
        })
    }
}

/// Cubes joined by OR: which arguments a verdict or a difference is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// At most [`MAX_CUBES`], disjoint.
    pub cubes: Vec<Cube>,
    /// Whether there is more than the cubes that are listed.
    pub more: bool,
}

impl Region {
    /// Whether the arguments do not matter.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.cubes.iter().any(|cube| cube.terms.is_empty())
    }
}

/// The 64-bit operands in the order of their variables, after architecture and number.
const OPERANDS: [Operand; 7] = [
    Operand::Argument(0),
    Operand::Argument(1),
    Operand::Argument(2),
    Operand::Argument(3),
    Operand::Argument(4),
    Operand::Argument(5),
    Operand::InstructionPointer,
];

/// The first level of the operands.
const FIRST: u16 = 2 * BITS as u16;

/// Levels of one operand.
const LONG: u16 = 2 * BITS as u16;

/// Consecutive values of the levels asked for, with what then remains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: u64,
    pub(super) last: u64,
    /// A set that tests none of those levels; never empty.
    pub(super) rest: Set,
}

/// The levels of a word of `struct seccomp_data`, highest bit first.
pub(super) fn levels(word: usize) -> Vec<u16> {
    (0..BITS).rev().map(|bit| word::level(word, bit)).collect()
}

/// Reads `set` as a function of the number that `levels` (ascending, at most 64, the highest bit first) spell: the spans in
/// ascending order that have something left. False when there are more than `limit`; the first `limit` are in `spans`.
///
/// The set tests no level above the last of `levels` that is not one of them.
pub(super) fn spans(
    diagrams: &Diagrams,
    set: Set,
    levels: &[u16],
    limit: usize,
    spans: &mut Vec<Span>,
) -> bool {
    // what is left to read, the smallest numbers on top: the set, how many levels have been read, their value
    let mut open: Vec<(Set, usize, u64)> = [(set, 0, 0)].into();
    let bottom = levels.last().copied().unwrap_or(0);
    while let Some((set, read, value)) = open.pop() {
        if set == Set::NONE {
            continue;
        }
        if let Some(&level) = levels.get(read)
            && diagrams.level(set) <= bottom
        {
            let (low, high) = diagrams.split(set, level);
            open.push((high, read + 1, value << 1 | 1));
            open.push((low, read + 1, value << 1));
            continue;
        }
        // between 0 and 64
        let unread = (levels.len() - read) as u32;
        let first = value.checked_shl(unread).unwrap_or(0);
        let last = first | u64::MAX.checked_shr(64 - unread).unwrap_or(0);
        let full = spans.len() == limit;
        match spans.last_mut() {
            Some(before) if before.rest == set && before.last.checked_add(1) == Some(first) => {
                before.last = last;
            }
            _ if full => return false,
            _ => spans.push(Span {
                first,
                last,
                rest: set,
            }),
        }
    }
    true
}

/// The smallest call, word by word in the order of the variables, of a set that is not empty; words above the set's levels are
/// 0. Second, the instruction pointer.
pub(super) fn smallest(diagrams: &Diagrams, mut set: Set) -> (Call, u64) {
    let mut words = [0u32; WORDS];
    while diagrams.level(set) != BOTTOM {
        let level = diagrams.level(set);
        let (low, high) = diagrams.split(set, level);
        let place = usize::from(level);
        if low == Set::NONE {
            // a level below BOTTOM has a place in ORDER, whose elements are below WORDS
            words[usize::from(ORDER[place / BITS])] |= 1 << (BITS - 1 - place % BITS);
            set = high;
        } else {
            set = low;
        }
    }
    // the indices are below WORDS
    let long = |low: usize| u64::from(words[low]) | u64::from(words[low + 1]) << 32;
    let call = Call {
        arch: words[word::ARCHITECTURE],
        nr: words[word::NUMBER],
        args: core::array::from_fn(|arg| long(4 + 2 * arg)),
    };
    (call, long(2))
}

/// Whether a call is in a set.
pub(super) fn contains(diagrams: &Diagrams, mut set: Set, words: &[u32; WORDS]) -> bool {
    while diagrams.level(set) != BOTTOM {
        let level = diagrams.level(set);
        let place = usize::from(level);
        // as in `smallest`
        let word = words[usize::from(ORDER[place / BITS])];
        let (low, high) = diagrams.split(set, level);
        let one = word >> (BITS - 1 - place % BITS) & 1 != 0;
        set = if one { high } else { low };
    }
    set == Set::ALL
}

/// Whether the set tests a level from `from` on.
pub(super) fn looks_beyond(diagrams: &Diagrams, set: Set, from: u16) -> bool {
    let mut seen = BTreeSet::new();
    let mut open: Vec<Set> = [set].into();
    while let Some(set) = open.pop() {
        let level = diagrams.level(set);
        if level == BOTTOM || !seen.insert(set) {
            continue;
        }
        if level >= from {
            return true;
        }
        let (low, high) = diagrams.split(set, level);
        open.extend([low, high]);
    }
    false
}

/// The first level of the instruction pointer.
pub(super) const INSTRUCTION_POINTER: u16 = FIRST + 6 * LONG;

/// Reads a set that tests neither architecture nor number.
pub(super) fn region(diagrams: &mut Diagrams, set: Set) -> Result<Region, Full> {
    let mut region = Region::default();
    let mut terms = Vec::new();
    cubes(diagrams, set, &mut terms, &mut region)?;
    Ok(region)
}

/// Adds the cubes of `set`, all with `terms`.
fn cubes(
    diagrams: &mut Diagrams,
    set: Set,
    terms: &mut Vec<Term>,
    region: &mut Region,
) -> Result<(), Full> {
    if set == Set::NONE || region.more {
        return Ok(());
    }
    if set == Set::ALL {
        if region.cubes.len() == MAX_CUBES {
            region.more = true;
        } else {
            region.cubes.push(Cube {
                terms: terms.clone(),
            });
        }
        return Ok(());
    }
    // neither a constant nor above FIRST
    let place = (diagrams.level(set) - FIRST) / LONG;
    let Some(&operand) = OPERANDS.get(usize::from(place)) else {
        return Ok(());
    };
    let first = FIRST + place * LONG;
    let end = first + LONG;
    let Some(exits) = exits(diagrams, set, end) else {
        return paths(diagrams, set, operand, first, terms, region);
    };
    for exit in exits {
        let inside = leading(diagrams, set, exit, end, &mut BTreeMap::new())?;
        if let Some(described) = factors(diagrams, inside, first)? {
            let before = terms.len();
            terms.extend(described.into_iter().map(|(mask, values)| Term {
                operand,
                mask,
                values,
            }));
            cubes(diagrams, exit, terms, region)?;
            terms.truncate(before);
        } else {
            // below the operand, the exit takes the place of "all"
            let rest = diagrams.and(inside, exit)?;
            paths(diagrams, rest, operand, first, terms, region)?;
        }
    }
    Ok(())
}

/// The different sets that remain of `set` when the levels before `end` have been read, but the empty one; `None` when there is too
/// much to read.
fn exits(diagrams: &Diagrams, set: Set, end: u16) -> Option<Vec<Set>> {
    let mut exits = Vec::new();
    let mut seen = BTreeSet::new();
    let mut open: Vec<Set> = [set].into();
    while let Some(set) = open.pop() {
        if set == Set::NONE || !seen.insert(set) {
            continue;
        }
        if seen.len() > MAX_READ || exits.len() > MAX_CUBES {
            return None;
        }
        let level = diagrams.level(set);
        if level >= end {
            exits.push(set);
            continue;
        }
        let (low, high) = diagrams.split(set, level);
        open.extend([high, low]);
    }
    Some(exits)
}

/// The values of the levels before `end` with which exactly `exit` remains of `set`.
fn leading(
    diagrams: &mut Diagrams,
    set: Set,
    exit: Set,
    end: u16,
    known: &mut BTreeMap<Set, Set>,
) -> Result<Set, Full> {
    let level = diagrams.level(set);
    if level >= end {
        return Ok(Set::constant(set == exit));
    }
    if let Some(&known) = known.get(&set) {
        return Ok(known);
    }
    let (low, high) = diagrams.split(set, level);
    let low = leading(diagrams, low, exit, end, known)?;
    let high = leading(diagrams, high, exit, end, known)?;
    let result = diagrams.node(level, low, high)?;
    known.insert(set, result);
    Ok(result)
}

/// A set of values of one operand as masks and ranges that must all hold: one, or one for its upper and one for its lower
/// bits where that takes fewer ranges.
fn factors(
    diagrams: &mut Diagrams,
    set: Set,
    first: u16,
) -> Result<Option<Vec<(u64, Values)>>, Full> {
    let whole = describe(diagrams, set, first);
    let mut fewest = whole
        .as_ref()
        .map_or(usize::MAX, |(_, values)| values.ranges().len());
    let mut best = whole.map(|whole| Vec::from([whole]));
    if fewest <= 2 {
        return Ok(best);
    }
    for end in first + 1..first + LONG {
        // with one set only below the cut, both sides are independent
        let Some(&[low]) = exits(diagrams, set, end).as_deref() else {
            continue;
        };
        if low == Set::ALL || low == set {
            continue;
        }
        let high = leading(diagrams, set, low, end, &mut BTreeMap::new())?;
        let described = describe(diagrams, high, first).zip(describe(diagrams, low, first));
        let Some((high, low)) = described else {
            continue;
        };
        let ranges = high.1.ranges().len() + low.1.ranges().len();
        if ranges < fewest {
            fewest = ranges;
            best = Some([high, low].into());
        }
    }
    Ok(best)
}

/// A set of values of one operand as a mask and ranges, with the fewest ranges; the widest mask when several do.
fn describe(diagrams: &Diagrams, set: Set, first: u16) -> Option<(u64, Values)> {
    let mut support = 0u64;
    let mut seen = BTreeSet::new();
    let mut open: Vec<Set> = [set].into();
    while let Some(set) = open.pop() {
        let level = diagrams.level(set);
        if level == BOTTOM || !seen.insert(set) {
            continue;
        }
        // the set tests the operand's 64 levels only
        support |= 1 << (63 - (level - first));
        let (low, high) = diagrams.split(set, level);
        open.extend([low, high]);
    }
    let mut best: Option<(u64, Vec<Span>)> = None;
    for mask in [u64::MAX, 0xffff_ffff, support] {
        if support & !mask != 0 {
            continue;
        }
        let levels: Vec<u16> = (0..LONG)
            .filter(|place| mask >> (63 - place) & 1 != 0)
            .map(|place| first + place)
            .collect();
        let mut found = Vec::new();
        if spans(diagrams, set, &levels, MAX_VALUES, &mut found)
            && best
                .as_ref()
                .is_none_or(|(_, fewest)| found.len() < fewest.len())
        {
            best = Some((mask, found));
        }
    }
    let (mask, spans) = best?;
    let ranges = spans
        .iter()
        .map(|span| spread(span.first, mask)..=spread(span.last, mask));
    Some((mask, Values::of(ranges)))
}

/// The low bits of `value`, put where `mask` has its bits.
fn spread(value: u64, mask: u64) -> u64 {
    let places = (0..u64::BITS).filter(|place| mask >> place & 1 != 0);
    places.zip(0..).fold(0, |sum, (place, bit): (u32, u32)| {
        sum | (value >> bit & 1) << place
    })
}

/// Adds the cubes of `set`, where each path through the levels of `operand` is one of its own.
fn paths(
    diagrams: &mut Diagrams,
    set: Set,
    operand: Operand,
    first: u16,
    terms: &mut Vec<Term>,
    region: &mut Region,
) -> Result<(), Full> {
    let mut open = alloc::vec![(set, 0u64, 0u64)];
    while let Some((set, mask, value)) = open.pop() {
        if region.more {
            return Ok(());
        }
        if set == Set::NONE {
            continue;
        }
        let level = diagrams.level(set);
        if level < first + LONG {
            // from 0 to 63
            let bit = 1 << (63 - (level - first));
            let (low, high) = diagrams.split(set, level);
            open.push((high, mask | bit, value | bit));
            open.push((low, mask | bit, value));
            continue;
        }
        terms.push(Term {
            operand,
            mask,
            values: [value].into(),
        });
        cubes(diagrams, set, terms, region)?;
        terms.pop();
    }
    Ok(())
}

/// A value as people write it: small ones decimal.
struct Figure(u64);

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 4096 {
            write!(f, "{}", self.0)
        } else {
            write!(f, "{:#x}", self.0)
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operand::Argument(argument) => write!(f, "arg{argument}"),
            Operand::InstructionPointer => f.write_str("instruction pointer"),
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mask = self.mask;
        write!(f, "{}", self.operand)?;
        if mask != u64::MAX {
            write!(f, " & {mask:#x}")?;
        }
        let ranges: Vec<(u64, u64)> = self
            .values
            .ranges()
            .map(|range| range.into_inner())
            .collect();
        // the next and the previous value that has no bit outside of the mask
        let after = |value: u64| (value | !mask).wrapping_add(1) & mask;
        let before = |value: u64| value.wrapping_sub(1) & mask;
        match *ranges.as_slice() {
            [(only, last)] if only == last => write!(f, " == {}", Figure(only)),
            [(0, last)] => write!(f, " <= {}", Figure(last)),
            [(first, last)] if last == mask && before(first) == 0 => write!(f, " != 0"),
            [(first, last)] if last == mask => write!(f, " >= {}", Figure(first)),
            [(0, end), (start, last)] if last == mask && after(end) == before(start) => {
                write!(f, " != {}", Figure(after(end)))
            }
            _ => {
                f.write_str(" in {")?;
                for (at, &(first, last)) in ranges.iter().enumerate() {
                    f.write_str(if at == 0 { "" } else { ", " })?;
                    write!(f, "{}", Figure(first))?;
                    if first != last && last == mask {
                        f.write_str("..")?;
                    } else if first != last {
                        write!(f, "..={}", Figure(last))?;
                    }
                }
                f.write_str("}")
            }
        }
    }
}

impl fmt::Display for Cube {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms.is_empty() {
            return f.write_str("always");
        }
        for (at, term) in self.terms.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { " and " })?;
            write!(f, "{term}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, cube) in self.cubes.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { " or " })?;
            write!(f, "{cube}")?;
        }
        if self.more {
            f.write_str(" or more")?;
        }
        Ok(())
    }
}
