//! Tables and calls for the laws, biased to where a compiler goes wrong: neighbouring numbers, equal entries, values and
//! masks that differ in one half or one bit.

use lazaret_filter::abi::{Abi, X32_BIT};
use lazaret_filter::compile::Weights;
use lazaret_filter::rule::{Branch, Call, Condition, Entry, Numbers, RuleTable, Values, Verdict};
use proptest::prelude::*;
use proptest::sample::{Index, select};

pub(crate) fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        4 => Just(Verdict::Allow),
        2 => Just(Verdict::Ask),
        3 => select(vec![0u16, 1, 13, 38, 4095]).prop_map(Verdict::Errno),
        1 => select(vec![
            Verdict::KillProcess,
            Verdict::KillThread,
            Verdict::Trap(7),
            Verdict::Trace(0xffff),
            Verdict::Log,
        ]),
    ]
}

/// Few words, so that halves of different values often agree.
const HALVES: [u64; 8] = [
    0,
    1,
    2,
    0x0f,
    0x7e02_0000,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
];

fn word() -> impl Strategy<Value = u64> {
    (select(&HALVES[..]), select(&HALVES[..])).prop_map(|(high, low)| high << 32 | low)
}

fn mask() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(u64::MAX),
        Just(0xffff_ffff),
        Just(0xffff_ffff_0000_0000),
        Just(0xf),
        Just(0),
        word()
    ]
}

/// Single values, ranges whose ends agree in a half, and ranges over everything between.
fn ranges() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let single = word().prop_map(|value| (value, value));
    let range = (word(), word()).prop_map(|(one, two)| (one.min(two), one.max(two)));
    let halves = (
        select(&HALVES[..]),
        select(&HALVES[..]),
        select(&HALVES[..]),
    );
    let low =
        halves.prop_map(|(high, one, two)| (high << 32 | one.min(two), high << 32 | one.max(two)));
    prop::collection::vec(prop_oneof![3 => single, 2 => range, 2 => low], 1..5)
}

fn condition() -> impl Strategy<Value = Condition> {
    // few arguments, so that branches look at the same ones
    let arg = prop_oneof![4 => 0u8..2, 1 => 0u8..6];
    (arg, mask(), ranges()).prop_map(|(arg, mask, ranges)| {
        let within = ranges.into_iter().map(|(first, last)| {
            // two values keep their order under some masks only
            let (first, last) = (first & mask, last & mask);
            first.min(last)..=first.max(last)
        });
        Condition {
            arg,
            mask,
            values: Values::of(within),
        }
    })
}

fn branch() -> impl Strategy<Value = Branch> {
    (prop::collection::vec(condition(), 1..4), verdict())
        .prop_map(|(all, verdict)| Branch { all, verdict })
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        2 => verdict().prop_map(Entry::always),
        1 => (prop::collection::vec(branch(), 1..4), verdict())
            .prop_map(|(branches, otherwise)| Entry { branches, otherwise }),
    ]
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        8 => 0u32..24,
        4 => 0u32..500,
        1 => select(vec![X32_BIT, X32_BIT | 1, 0x7fff_ffff, 0x8000_0000, u32::MAX]),
        1 => any::<u32>(),
    ]
}

fn numbers(abi: Abi) -> impl Strategy<Value = Numbers> {
    // few different entries, so that ranges merge and leaves are shared
    let entries = (
        prop::collection::vec(entry(), 1..6),
        prop::collection::btree_map(number(), any::<Index>(), 0..40),
    );
    let shared = matches!(abi, Abi::X86_64 | Abi::X32);
    (entries, verdict()).prop_map(move |((pool, picked), otherwise)| Numbers {
        entries: picked
            .into_iter()
            .map(|(nr, index)| {
                let nr = if shared { nr & !X32_BIT } else { nr };
                (nr, index.get(&pool).clone())
            })
            .collect(),
        otherwise,
    })
}

pub(crate) fn table() -> impl Strategy<Value = RuleTable> {
    let abis = prop::sample::subsequence(Abi::ALL.to_vec(), 1..=3);
    let abis = abis.prop_flat_map(|abis| {
        abis.into_iter()
            .map(|abi| numbers(abi).prop_map(move |numbers| (abi, numbers)))
            .collect::<Vec<_>>()
    });
    (abis, verdict()).prop_map(|(abis, foreign)| RuleTable {
        abis: abis.into_iter().collect(),
        foreign,
    })
}

/// Weights of some calls that the table knows and of some that it does not.
pub(crate) fn weights() -> impl Strategy<Value = Weights> {
    let call = (select(&Abi::ALL[..]), number());
    let count = prop_oneof![0u64..4, any::<u64>(), Just(u64::MAX)];
    prop::collection::vec((call, count), 0..30).prop_map(|counts| counts.into_iter().collect())
}

/// The same table by another way: entries, conditions and values in other orders, ranges in pieces.
pub(crate) fn rebuilt(table: &RuleTable, seed: u64) -> RuleTable {
    let mut random = SplitMix(seed);
    let mut rebuilt = RuleTable {
        abis: [].into(),
        foreign: table.foreign,
    };
    for (&abi, numbers) in table.abis.iter().rev() {
        let mut entries: Vec<(u32, Entry)> = numbers.entries.clone().into_iter().collect();
        random.shuffle(&mut entries);
        for branch in entries
            .iter_mut()
            .flat_map(|(_, entry)| &mut entry.branches)
        {
            random.shuffle(&mut branch.all);
            for condition in &mut branch.all {
                let mut pieces = Vec::new();
                for range in condition.values.ranges() {
                    let (first, last) = range.into_inner();
                    let cut = first + u64::from(random.below(7)).min(last - first);
                    pieces.extend([first..=cut, cut..=last]);
                }
                random.shuffle(&mut pieces);
                condition.values = Values::of(pieces);
            }
        }
        let numbers = Numbers {
            entries: entries.into_iter().collect(),
            otherwise: numbers.otherwise,
        };
        rebuilt.abis.insert(abi, numbers);
    }
    rebuilt
}

/// Calls near the table's own constants: its numbers and neighbours, its values, some with one bit changed. Cheap and
/// determined by the seed, so that a law can look at many for each table.
pub(crate) fn calls(
    table: &RuleTable,
    seed: u64,
    count: usize,
) -> impl Iterator<Item = Call> + use<'_> {
    let mut random = SplitMix(seed);
    let served: Vec<(Abi, Vec<u32>)> = table
        .abis
        .iter()
        .map(|(&abi, numbers)| (abi, numbers.entries.keys().copied().collect()))
        .collect();
    let one = move |random: &mut SplitMix| {
        let (abi, keys) = &served[random.below(served.len() as u32) as usize];
        let native = abi.audit_arch();
        let bit = if *abi == Abi::X32 { X32_BIT } else { 0 };
        let arch = match random.below(8) {
            0 => native ^ 1,
            1 => random.pick(&Abi::ALL).audit_arch(),
            _ => native,
        };
        let far = [0, 25, 499, X32_BIT, X32_BIT | 1, 0x8000_0000, u32::MAX];
        let nr = if keys.is_empty() || random.below(6) == 0 {
            random.pick(&far).wrapping_add(random.below(4))
        } else {
            random
                .pick(keys)
                .wrapping_add(random.pick(&[0, 0, 0, 1, u32::MAX]))
                | bit
        };
        let entry = table.abis[abi].entries.get(&(nr & !bit)).into_iter();
        let conditions =
            entry.flat_map(|entry| entry.branches.iter().flat_map(|branch| &branch.all));
        let args = std::array::from_fn(|_| random.pick(&HALVES) << 32 | random.pick(&HALVES));
        let mut call = Call { arch, nr, args };
        for condition in conditions {
            let mut ranges = condition.values.ranges();
            let at = random.below(ranges.len() as u32) as usize;
            let range = ranges.nth(at).expect("below the length");
            let end = random.pick(&[*range.start(), *range.end()]);
            let end = end.wrapping_add(random.pick(&[0, 0, 0, 1, u64::MAX, 1 << 32]));
            let outside = random.pick(&[0, u64::MAX, 1, 1 << 63]) & !condition.mask;
            let flip = random.pick(&[0, 0, 1]) << random.below(64);
            if random.below(4) != 0 {
                call.args[usize::from(condition.arg)] = (end | outside) ^ flip;
            }
        }
        call
    };
    (0..count).map(move |_| one(&mut random))
}

/// Sebastiano Vigna's `splitmix64`, public domain.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z >> 32) % u64::from(limit)) as u32
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in 1..items.len() {
            items.swap(at, self.below(at as u32 + 1) as usize);
        }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u32) as usize]
    }
}
