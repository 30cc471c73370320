//! Calls to try: near the constants that a table or a filter compares with, and far from them.

use lazaret_filter::abi::{Abi, X32_BIT};
use lazaret_filter::program::{Program, code};
use lazaret_filter::rule::{Call, RuleTable};

/// Words that are special to every filter.
const SPECIAL: [u64; 10] = [
    0,
    1,
    0xff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    0x1_0000_0000,
    u64::MAX - 1,
    u64::MAX,
];

/// An endless supply of calls, the same for the same seed and constants.
pub(crate) struct Calls {
    state: u64,
    archs: Vec<u32>,
    numbers: Vec<u32>,
    values: Vec<u64>,
}

impl Calls {
    /// Calls that have nothing in common with anything.
    pub(crate) fn new(data: &[u8]) -> Calls {
        // FNV-1a: an input that differs in a byte tries other calls
        let hash = data.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
        Calls {
            state: hash,
            archs: Abi::ALL.map(Abi::audit_arch).into(),
            numbers: vec![0, X32_BIT],
            values: SPECIAL.into(),
        }
    }

    /// Calls near the edges of a table too.
    #[must_use]
    pub(crate) fn near_table(mut self, table: &RuleTable) -> Calls {
        for (abi, numbers) in &table.abis {
            let bit = if *abi == Abi::X32 { X32_BIT } else { 0 };
            for (nr, entry) in &numbers.entries {
                self.numbers.push(nr | bit);
                for condition in entry.branches.iter().flat_map(|branch| &branch.all) {
                    self.values.push(condition.mask);
                    for range in condition.values.ranges() {
                        self.values.extend([*range.start(), *range.end()]);
                    }
                }
            }
        }
        self
    }

    /// Calls near the constants of a filter too.
    #[must_use]
    pub(crate) fn near_program(mut self, program: &Program) -> Calls {
        for instruction in program.instructions() {
            if !matches!(instruction.code, code::RET_K | code::LD_W_ABS | code::JA) {
                self.numbers.push(instruction.k);
                self.archs.push(instruction.k);
                let low = u64::from(instruction.k);
                self.values.extend([low, low << 32]);
            }
        }
        self
    }

    /// splitmix64 (Steele, Lea and Flood 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of a list, which is never empty here.
    fn pick<T: Copy>(random: u64, list: &[T]) -> T {
        // the remainder is below the length
        list[(random % list.len() as u64) as usize]
    }

    fn word(&mut self) -> u64 {
        let random = self.next();
        let near = Calls::pick(random >> 8, &self.values);
        match random % 8 {
            0 => self.next(),
            1 => near.wrapping_add(1),
            2 => near.wrapping_sub(1),
            // what a caller may leave in the upper half of a 32-bit argument
            3 => near | self.next() << 32,
            4 => near | Calls::pick(self.next(), &self.values),
            _ => near,
        }
    }

    fn number(&mut self) -> u32 {
        let random = self.next();
        let near = Calls::pick(random >> 8, &self.numbers);
        match random % 8 {
            0 => (random >> 32) as u32,
            1 => near.wrapping_add(1),
            2 => near.wrapping_sub(1),
            3 => near ^ X32_BIT,
            _ => near,
        }
    }
}

impl Iterator for Calls {
    type Item = Call;

    fn next(&mut self) -> Option<Call> {
        let random = Calls::next(self);
        let arch = match random % 16 {
            0 => (random >> 32) as u32,
            _ => Calls::pick(random >> 8, &self.archs),
        };
        Some(Call {
            arch,
            nr: self.number(),
            args: std::array::from_fn(|_| self.word()),
        })
    }
}
