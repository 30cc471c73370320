//! 32-bit words as functions of a call: what a register or a word of memory holds for every call at once.
//!
//! Each operation of classic BPF has its counterpart here; nothing knows of instructions or of control flow. A result that
//! would go over the bound of one operation is reported as [`Full`], never approximated.
//!
//! # The order of the variables
//! Architecture, number, the arguments from first to last (high half before low half), the instruction pointer; of each word the
//! highest bit first. Filters choose by architecture and number first and then look at arguments, one after the other, so
//! that a set of calls has the shape of a filter that is already a tree: its size is the sum over the cases, not their product.
//! With the highest bit on top, the sets that comparisons with constants make, adding constants and dividing by small ones
//! have diagrams of a few nodes for each bit. The price: a comparison of two *different* words has a diagram of 2^32 nodes,
//! whatever it is. Real filters make none, and whoever makes one is told that it is undecided.

use super::bdd::{Diagrams, Full, Set};
use crate::program::DATA_BYTES;
use crate::rule::Call;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Bits of a word.
pub(super) const BITS: usize = 32;

/// Words of `struct seccomp_data`.
pub(super) const WORDS: usize = DATA_BYTES as usize / 4;

/// The number's index among the words of `struct seccomp_data`.
pub(super) const NUMBER: usize = 0;

/// The architecture's index.
pub(super) const ARCHITECTURE: usize = 1;

/// The indices of the low and the high half of an argument, 0 to 5.
pub(super) fn argument(argument: u8) -> Option<(usize, usize)> {
    let low = 4 + 2 * usize::from(argument);
    (low + 1 < WORDS).then_some((low, low + 1))
}

/// The words of the `struct seccomp_data` of a call, by index.
pub(super) fn of_call(call: &Call, instruction_pointer: u64) -> [u32; WORDS] {
    let mut words = [call.nr, call.arch, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let longs = core::iter::once(&instruction_pointer).chain(&call.args);
    // seven pairs behind the first two words; the halves are cut out
    for (pair, &long) in words[2..].chunks_exact_mut(2).zip(longs) {
        pair.copy_from_slice(&[(long & 0xffff_ffff) as u32, (long >> 32) as u32]);
    }
    words
}

/// The words of `struct seccomp_data` in the order of their variables, by index: 0 is the number, 1 the architecture, 2 and 3
/// the instruction pointer, 4 to 15 the arguments' halves, each low half first.
pub(super) const ORDER: [u8; WORDS] = [1, 0, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14, 3, 2];

/// The level of the highest bit of each word, by the word's index.
const FIRST_LEVEL: [u16; WORDS] = {
    let mut levels = [0; WORDS];
    let mut position = 0;
    while position < WORDS {
        // ORDER has WORDS elements, each below WORDS; 16 * 32 fits
        levels[ORDER[position] as usize] = (position * BITS) as u16;
        position += 1;
    }
    levels
};

/// The variable of a bit (0 is the lowest) of a word of `struct seccomp_data`.
pub(super) fn level(word: usize, bit: usize) -> u16 {
    // callers name one of WORDS words and one of 32 bits
    FIRST_LEVEL[word] + (BITS - 1 - bit) as u16
}

/// The bits of a word, the lowest first.
pub(super) type Bits = [Set; BITS];

/// What a register or a word of memory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The same for every call.
    Constant(u32),
    /// A word of `struct seccomp_data`, by index.
    Input(u8),
    /// Neither: an index into [`Words`].
    Computed(u32),
    /// Beyond the bounds: the instruction whose result it was.
    Unknown {
        /// Its index.
        at: usize,
    },
}

/// The computed words of one filter; equal words are equal values.
#[derive(Default)]
pub(super) struct Words {
    by_index: Vec<Bits>,
    by_bits: BTreeMap<Bits, u32>,
}

impl Words {
    /// The word with these bits, in its simplest form.
    pub(super) fn word(&mut self, bits: Bits) -> Word {
        if let Some(value) = as_constant(&bits) {
            return Word::Constant(value);
        }
        let Words { by_index, by_bits } = self;
        Word::Computed(*by_bits.entry(bits).or_insert_with(|| {
            by_index.push(bits);
            // a filter makes at most one word for each instruction and register, see `run`
            (by_index.len() - 1) as u32
        }))
    }

    /// The bits of a word, unless it is unknown: then the instruction that made it.
    pub(super) fn bits(&self, diagrams: &mut Diagrams, word: Word) -> Result<Bits, Unusable> {
        match word {
            Word::Constant(value) => Ok(constant(value)),
            Word::Input(word) => Ok(input(diagrams, word.into())?),
            // only `word` makes these
            Word::Computed(index) => Ok(self.by_index[index as usize]),
            Word::Unknown { at } => Err(Unusable::Unknown { at }),
        }
    }
}

/// Why a word has no bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It is unknown since this instruction.
    Unknown {
        /// Its index.
        at: usize,
    },
    /// The bounds.
    Full,
}

impl From<Full> for Unusable {
    fn from(Full: Full) -> Unusable {
        Unusable::Full
    }
}

/// The value of a word that is the same for every call.
fn as_constant(bits: &Bits) -> Option<u32> {
    bits.iter().rev().try_fold(0, |value, &bit| match bit {
        Set::NONE => Some(value << 1),
        Set::ALL => Some(value << 1 | 1),
        _ => None,
    })
}

/// The bits of a constant.
pub(super) fn constant(value: u32) -> Bits {
    core::array::from_fn(|bit| Set::constant(value >> bit & 1 != 0))
}

/// The bits of a word of `struct seccomp_data`.
pub(super) fn input(diagrams: &mut Diagrams, word: usize) -> Result<Bits, Full> {
    each(|bit| diagrams.variable(level(word, bit)))
}

/// A word from its bits, the lowest first.
fn each(mut bit: impl FnMut(usize) -> Result<Set, Full>) -> Result<Bits, Full> {
    let mut bits = [Set::NONE; BITS];
    for (at, slot) in bits.iter_mut().enumerate() {
        *slot = bit(at)?;
    }
    Ok(bits)
}

// In what follows, indices into `Bits` are below BITS because they come from `each`, from a range up to BITS, or from a
// checked difference.

pub(super) fn and(diagrams: &mut Diagrams, a: &Bits, b: &Bits) -> Result<Bits, Full> {
    each(|bit| diagrams.and(a[bit], b[bit]))
}

pub(super) fn or(diagrams: &mut Diagrams, a: &Bits, b: &Bits) -> Result<Bits, Full> {
    each(|bit| diagrams.or(a[bit], b[bit]))
}

pub(super) fn xor(diagrams: &mut Diagrams, a: &Bits, b: &Bits) -> Result<Bits, Full> {
    each(|bit| diagrams.xor(a[bit], b[bit]))
}

/// `a` for the calls in `condition`, `b` for the others.
pub(super) fn choose(
    diagrams: &mut Diagrams,
    condition: Set,
    a: &Bits,
    b: &Bits,
) -> Result<Bits, Full> {
    each(|bit| diagrams.choose(condition, a[bit], b[bit]))
}

/// `a + b + carry`, and the carry out of it.
fn sum(diagrams: &mut Diagrams, a: &Bits, b: &Bits, mut carry: Set) -> Result<(Bits, Set), Full> {
    let bits = each(|bit| {
        let differ = diagrams.xor(a[bit], b[bit])?;
        let result = diagrams.xor(differ, carry)?;
        carry = diagrams.choose(differ, carry, a[bit])?;
        Ok(result)
    })?;
    Ok((bits, carry))
}

pub(super) fn add(diagrams: &mut Diagrams, a: &Bits, b: &Bits) -> Result<Bits, Full> {
    Ok(sum(diagrams, a, b, Set::NONE)?.0)
}

/// `a - b`, and the calls for which `a >= b`.
fn difference(diagrams: &mut Diagrams, a: &Bits, b: &Bits) -> Result<(Bits, Set), Full> {
    sum(diagrams, a, &b.map(|bit| !bit), Set::ALL)
}

pub(super) fn subtract(diagrams: &mut Diagrams, a: &Bits, b: &Bits) -> Result<Bits, Full> {
    Ok(difference(diagrams, a, b)?.0)
}

/// The low word of `a * b`.
pub(super) fn multiply(diagrams: &mut Diagrams, a: &Bits, b: &Bits) -> Result<Bits, Full> {
    if let Some(factor) = as_constant(b) {
        return multiply_by(diagrams, a, factor);
    }
    if let Some(factor) = as_constant(a) {
        return multiply_by(diagrams, b, factor);
    }
    let mut product = constant(0);
    for (by, &bit) in b.iter().enumerate() {
        let shifted = shifted_left(a, by);
        let part = each(|at| diagrams.and(shifted[at], bit))?;
        product = add(diagrams, &product, &part)?;
    }
    Ok(product)
}

/// The low word of `a * factor`, by the factor's non-adjacent form: digits 1, 0 and -1 with the fewest that are not 0, so that
/// -1 is one subtraction and not 32 additions.
fn multiply_by(diagrams: &mut Diagrams, a: &Bits, factor: u32) -> Result<Bits, Full> {
    let mut product = constant(0);
    let mut rest = i64::from(factor.cast_signed());
    for by in 0..BITS {
        let shifted = shifted_left(a, by);
        match rest & 3 {
            1 => {
                product = add(diagrams, &product, &shifted)?;
                rest -= 1;
            }
            3 => {
                product = subtract(diagrams, &product, &shifted)?;
                rest += 1;
            }
            _ => {}
        }
        rest >>= 1;
    }
    Ok(product)
}

/// `a / b`; all ones where `b` is 0, which no caller uses.
pub(super) fn divide(diagrams: &mut Diagrams, a: &Bits, b: &Bits) -> Result<Bits, Full> {
    // Long division from the highest bit. The rest stays below `b`, so that doubled it has 33 bits; where the 33rd is set, it
    // is at least `b`, and the subtraction's low 32 bits are right.
    let mut rest = constant(0);
    let mut quotient = constant(0);
    for at in (0..BITS).rev() {
        let carry = rest[BITS - 1];
        rest = shifted_left(&rest, 1);
        rest[0] = a[at];
        let (less, enough) = difference(diagrams, &rest, b)?;
        let fits = diagrams.or(carry, enough)?;
        rest = choose(diagrams, fits, &less, &rest)?;
        quotient[at] = fits;
    }
    Ok(quotient)
}

/// `a << by`; `by` is at most 31.
pub(super) fn shifted_left(a: &Bits, by: usize) -> Bits {
    core::array::from_fn(|bit| bit.checked_sub(by).map_or(Set::NONE, |from| a[from]))
}

/// `a >> by`; `by` is at most 31.
pub(super) fn shifted_right(a: &Bits, by: usize) -> Bits {
    core::array::from_fn(|bit| a.get(bit + by).copied().unwrap_or(Set::NONE))
}

/// `a` shifted by the low five bits of `by`.
pub(super) fn shift(
    diagrams: &mut Diagrams,
    a: &Bits,
    by: &Bits,
    shifted: fn(&Bits, usize) -> Bits,
) -> Result<Bits, Full> {
    let mut result = *a;
    for (stage, &condition) in by.iter().enumerate().take(5) {
        let moved = shifted(&result, 1 << stage);
        result = choose(diagrams, condition, &moved, &result)?;
    }
    Ok(result)
}

/// The calls for which `a == b`.
pub(super) fn equal(diagrams: &mut Diagrams, a: &Bits, b: &Bits) -> Result<Set, Full> {
    let mut all = Set::ALL;
    for bit in 0..BITS {
        let same = !diagrams.xor(a[bit], b[bit])?;
        all = diagrams.and(same, all)?;
    }
    Ok(all)
}

/// The calls for which `a >= b`, of words of any one length.
pub(super) fn at_least(diagrams: &mut Diagrams, a: &[Set], b: &[Set]) -> Result<Set, Full> {
    let mut so_far = Set::ALL;
    for (&a, &b) in a.iter().zip(b) {
        // the higher bit decides, where it differs
        let differ = diagrams.xor(a, b)?;
        so_far = diagrams.choose(differ, a, so_far)?;
    }
    Ok(so_far)
}

/// The calls for which `a & b != 0`.
pub(super) fn intersects(diagrams: &mut Diagrams, a: &Bits, b: &Bits) -> Result<Set, Full> {
    let mut any = Set::NONE;
    for bit in 0..BITS {
        let both = diagrams.and(a[bit], b[bit])?;
        any = diagrams.or(both, any)?;
    }
    Ok(any)
}
