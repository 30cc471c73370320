//! Reduced ordered binary decision diagrams with complement edges: sets of assignments to numbered variables, one value for
//! each set.
//!
//! Knows nothing of calls or filters. Nothing is ever collected: a diagram lives as long as the proof it serves, and
//! [`Diagrams::undo`] takes back what an operation that went over its bound had made. Deterministic: no addresses, no
//! random seeds.
//!
//! After K. Brace, R. Rudell and R. Bryant, *Efficient Implementation of a BDD Package* (DAC 1990).

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Not;

/// The most nodes that one [`Diagrams`] holds: 44 MB with both tables.
pub(super) const MAX_NODES: usize = 1 << 21;

/// The most steps that one [`Diagrams`] takes, all operations together: under a second. The longest filters of engines need less than a tenth.
pub(super) const MAX_STEPS: u64 = 1 << 24;

/// The most nodes that one operation on words may add.
pub(super) const MAX_OPERATION_NODES: usize = 1 << 16;

/// A bound was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// A set of assignments: an edge to a node of the [`Diagrams`] that made it. The lowest bit says "the complement".
///
/// Equal sets of one [`Diagrams`] are equal values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Set(u32);

impl Set {
    /// Every assignment.
    pub(super) const ALL: Set = Set(0);
    /// No assignment.
    pub(super) const NONE: Set = Set(1);

    /// [`Set::ALL`] or [`Set::NONE`].
    pub(super) const fn constant(all: bool) -> Set {
        if all { Set::ALL } else { Set::NONE }
    }

    const fn is_complement(self) -> bool {
        self.0 & 1 != 0
    }

    const fn node(self) -> usize {
        (self.0 >> 1) as usize
    }

    /// This set, or its complement.
    const fn complemented_if(self, complement: bool) -> Set {
        Set(self.0 ^ complement as u32)
    }
}

impl Not for Set {
    type Output = Set;

    fn not(self) -> Set {
        self.complemented_if(true)
    }
}

/// A test of one variable. `high` is never a complement, which makes the form unique.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Node {
    level: u16,
    low: Set,
    high: Set,
}

/// The level of the two constants, below every variable.
pub(super) const BOTTOM: u16 = u16::MAX;

/// One remembered result. `third` tells the operations with two operands apart.
#[derive(Clone, Copy)]
struct Remembered {
    first: Set,
    second: Set,
    third: Set,
    result: Set,
}

const AND: Set = Set(u32::MAX);
const XOR: Set = Set(u32::MAX - 1);

/// Marks a free slot of the unique table; no node has this index ([`MAX_NODES`]).
const FREE: u32 = u32::MAX;

/// The nodes of all sets of one proof.
pub(super) struct Diagrams {
    nodes: Vec<Node>,
    /// Open addressing over `nodes`, a power of two, at most half full.
    unique: Vec<u32>,
    /// Direct-mapped and forgetful, a power of two.
    remembered: Vec<Remembered>,
    steps: u64,
    /// Nodes that the current operation may reach.
    limit: usize,
}

const FIRST_SLOTS: usize = 1 << 16;

/// The most results that are remembered: 4 MB.
const MAX_REMEMBERED: usize = 1 << 18;

const FORGOTTEN: Remembered = Remembered {
    first: Set(FREE),
    second: Set(FREE),
    third: Set(FREE),
    result: Set::NONE,
};

impl Diagrams {
    pub(super) fn new() -> Diagrams {
        let bottom = Node {
            level: BOTTOM,
            low: Set::ALL,
            high: Set::ALL,
        };
        Diagrams {
            nodes: vec![bottom],
            unique: vec![FREE; FIRST_SLOTS],
            remembered: vec![FORGOTTEN; FIRST_SLOTS],
            steps: 0,
            limit: MAX_NODES,
        }
    }

    /// The variable that a set's diagram tests first; [`BOTTOM`] for a constant.
    pub(super) fn level(&self, set: Set) -> u16 {
        // a `Set` is made here only, from an index of `nodes`
        self.nodes[set.node()].level
    }

    /// What is left of a set where the variable `level` is 0 and 1; `level` is not below the set's own.
    pub(super) fn split(&self, set: Set, level: u16) -> (Set, Set) {
        // as in `level`
        let node = self.nodes[set.node()];
        if node.level != level {
            return (set, set);
        }
        let complement = set.is_complement();
        (
            node.low.complemented_if(complement),
            node.high.complemented_if(complement),
        )
    }

    /// The set that is `low` where the variable is 0 and `high` where it is 1; both test only variables below `level`.
    pub(super) fn node(&mut self, level: u16, low: Set, high: Set) -> Result<Set, Full> {
        if low == high {
            return Ok(low);
        }
        let complement = high.is_complement();
        let node = Node {
            level,
            low: low.complemented_if(complement),
            high: high.complemented_if(complement),
        };
        let mask = self.unique.len() - 1;
        let mut slot = hash(node.low, node.high, Set(level.into())) & mask;
        loop {
            self.step()?;
            // `slot` is masked by the table's length, a power of two
            let found = self.unique[slot];
            if found == FREE {
                break;
            }
            // the table holds indices of `nodes` only
            if self.nodes[found as usize] == node {
                return Ok(Set(found << 1).complemented_if(complement));
            }
            slot = (slot + 1) & mask;
        }
        if self.nodes.len() >= self.limit {
            return Err(Full);
        }
        // below MAX_NODES, so twice the index fits
        let index = self.nodes.len() as u32;
        self.nodes.push(node);
        self.unique[slot] = index;
        if self.nodes.len() * 2 > self.unique.len() {
            self.grow();
        }
        Ok(Set(index << 1).complemented_if(complement))
    }

    /// The assignments in which one variable is 1.
    pub(super) fn variable(&mut self, level: u16) -> Result<Set, Full> {
        self.node(level, Set::NONE, Set::ALL)
    }

    /// The intersection.
    pub(super) fn and(&mut self, a: Set, b: Set) -> Result<Set, Full> {
        if a == Set::NONE || b == Set::NONE || a == !b {
            return Ok(Set::NONE);
        }
        if a == Set::ALL || a == b {
            return Ok(b);
        }
        if b == Set::ALL {
            return Ok(a);
        }
        let (of_a, of_b) = (self.level(a), self.level(b));
        // one variable before everything in the other set: most intersections that words make, and not worth remembering
        for (single, level, other, below) in [(a, of_a, b, of_b), (b, of_b, a, of_a)] {
            if level < below {
                match self.split(single, level) {
                    (Set::NONE, Set::ALL) => return self.node(level, Set::NONE, other),
                    (Set::ALL, Set::NONE) => return self.node(level, other, Set::NONE),
                    _ => {}
                }
            }
        }
        let (a, b) = if a < b { (a, b) } else { (b, a) };
        self.step()?;
        if let Some(known) = self.recall(a, b, AND) {
            return Ok(known);
        }
        let level = of_a.min(of_b);
        let ((a0, a1), (b0, b1)) = (self.split(a, level), self.split(b, level));
        let low = self.and(a0, b0)?;
        let high = self.and(a1, b1)?;
        let result = self.node(level, low, high)?;
        self.remember(a, b, AND, result);
        Ok(result)
    }

    /// The union.
    pub(super) fn or(&mut self, a: Set, b: Set) -> Result<Set, Full> {
        Ok(!self.and(!a, !b)?)
    }

    /// The assignments in exactly one of the two.
    pub(super) fn xor(&mut self, a: Set, b: Set) -> Result<Set, Full> {
        let complement = a.is_complement() != b.is_complement();
        let (a, b) = (
            a.complemented_if(a.is_complement()),
            b.complemented_if(b.is_complement()),
        );
        if a == b {
            return Ok(Set::NONE.complemented_if(complement));
        }
        let (a, b) = if a < b { (a, b) } else { (b, a) };
        if a == Set::ALL {
            return Ok((!b).complemented_if(complement));
        }
        self.step()?;
        if let Some(known) = self.recall(a, b, XOR) {
            return Ok(known.complemented_if(complement));
        }
        let level = self.level(a).min(self.level(b));
        let ((a0, a1), (b0, b1)) = (self.split(a, level), self.split(b, level));
        let low = self.xor(a0, b0)?;
        let high = self.xor(a1, b1)?;
        let result = self.node(level, low, high)?;
        self.remember(a, b, XOR, result);
        Ok(result.complemented_if(complement))
    }

    /// `a` inside of `condition`, `b` outside.
    pub(super) fn choose(&mut self, condition: Set, a: Set, b: Set) -> Result<Set, Full> {
        // without a constant left among the operands below, a complement moves out of `condition` and `a`
        let (condition, a, b) = if condition.is_complement() {
            (!condition, b, a)
        } else {
            (condition, a, b)
        };
        if condition == Set::ALL || a == b {
            return Ok(a);
        }
        if a == !b {
            return self.xor(condition, b);
        }
        if a == Set::ALL || a == condition {
            return self.or(condition, b);
        }
        if a == Set::NONE || a == !condition {
            return self.and(!condition, b);
        }
        if b == Set::NONE || b == condition {
            return self.and(condition, a);
        }
        if b == Set::ALL || b == !condition {
            return self.or(!condition, a);
        }
        let complement = a.is_complement();
        let (a, b) = (a.complemented_if(complement), b.complemented_if(complement));
        self.step()?;
        if let Some(known) = self.recall(condition, a, b) {
            return Ok(known.complemented_if(complement));
        }
        let level = self.level(condition).min(self.level(a)).min(self.level(b));
        let (c0, c1) = self.split(condition, level);
        let ((a0, a1), (b0, b1)) = (self.split(a, level), self.split(b, level));
        let low = self.choose(c0, a0, b0)?;
        let high = self.choose(c1, a1, b1)?;
        let result = self.node(level, low, high)?;
        self.remember(condition, a, b, result);
        Ok(result.complemented_if(complement))
    }

    /// Runs `operation` with a bound of its own; what it made is taken back when it fails.
    pub(super) fn bounded<T>(
        &mut self,
        operation: impl FnOnce(&mut Diagrams) -> Result<T, Full>,
    ) -> Result<T, Full> {
        let (before, outer) = (self.nodes.len(), self.limit);
        self.limit = outer.min(before + MAX_OPERATION_NODES);
        let result = operation(self);
        self.limit = outer;
        if result.is_err() {
            self.undo(before);
        }
        result
    }

    /// Forgets every node from the index `before` on.
    fn undo(&mut self, before: usize) {
        let mask = self.unique.len() - 1;
        // Backwards: without the nodes after it, each was the last in its run of slots. Growing keeps that so, because it
        // enters the nodes in the order of their indices.
        for index in (before..self.nodes.len()).rev() {
            // `index` counts `nodes`
            let node = self.nodes[index];
            let mut slot = hash(node.low, node.high, Set(node.level.into())) & mask;
            // every node has a slot, and the search meets it before a free one
            while self.unique[slot] as usize != index {
                slot = (slot + 1) & mask;
            }
            self.unique[slot] = FREE;
        }
        self.nodes.truncate(before);
        self.remembered.fill(FORGOTTEN);
        // emptying the memory costs time that nothing else counts
        self.steps += self.remembered.len() as u64 / 4;
    }

    fn grow(&mut self) {
        let length = self.unique.len() * 2;
        let mask = length - 1;
        let mut unique = vec![FREE; length];
        for (index, node) in self.nodes.iter().enumerate().skip(1) {
            let mut slot = hash(node.low, node.high, Set(node.level.into())) & mask;
            // masked by the table's length, as in `node`
            while unique[slot] != FREE {
                slot = (slot + 1) & mask;
            }
            // below MAX_NODES
            unique[slot] = index as u32;
        }
        self.unique = unique;
        if length <= MAX_REMEMBERED {
            self.remembered = vec![FORGOTTEN; length];
        }
    }

    fn step(&mut self) -> Result<(), Full> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(Full);
        }
        Ok(())
    }

    fn recall(&self, first: Set, second: Set, third: Set) -> Option<Set> {
        // masked by the table's length, a power of two
        let found = self.remembered[hash(first, second, third) & (self.remembered.len() - 1)];
        (found.first == first && found.second == second && found.third == third)
            .then_some(found.result)
    }

    fn remember(&mut self, first: Set, second: Set, third: Set, result: Set) {
        let slot = hash(first, second, third) & (self.remembered.len() - 1);
        // as in `recall`
        self.remembered[slot] = Remembered {
            first,
            second,
            third,
            result,
        };
    }
}

/// Multiplicative, with the high bits folded down: deterministic, and good enough for a table that is half empty.
fn hash(first: Set, second: Set, third: Set) -> usize {
    let mixed = u64::from(first.0)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(23)
        .wrapping_add(u64::from(second.0))
        .wrapping_mul(0xbf58_476d_1ce4_e5b9)
        .rotate_left(23)
        .wrapping_add(u64::from(third.0))
        .wrapping_mul(0x94d0_49bb_1331_11eb);
    // only the low bits are used, on machines of either size
    (mixed >> 32) as usize
}
