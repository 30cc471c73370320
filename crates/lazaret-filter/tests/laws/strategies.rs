//! Tables and calls for the laws, biased to where a compiler goes wrong: neighbouring numbers, equal entries, values and
//! masks that differ in one half or one bit.

use lazaret_filter::abi::{Abi, X32_BIT};
use lazaret_filter::rule::{Branch, Call, Condition, Entry, RuleTable, Verdict};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::collections::BTreeSet;

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

/// Both halves from few words, so that halves of different values often agree.
pub(crate) fn word() -> impl Strategy<Value = u64> {
    let half = select(vec![
        0u64,
        1,
        2,
        0x0f,
        0x7e02_0000,
        0x8000_0000,
        0xffff_fffe,
        0xffff_ffff,
    ]);
    (half.clone(), half).prop_map(|(high, low)| high << 32 | low)
}

pub(crate) fn mask() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(u64::MAX),
        Just(0xffff_ffff),
        Just(0xffff_ffff_0000_0000),
        Just(0xf),
        Just(0),
        word()
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    let values = prop::collection::btree_set(word(), 1..5);
    (0u8..6, mask(), values).prop_map(|(arg, mask, values)| Condition {
        arg,
        mask,
        values: values.into_iter().map(|value| value & mask).collect(),
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

pub(crate) fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        8 => 0u32..24,
        4 => 0u32..500,
        1 => select(vec![X32_BIT, X32_BIT | 1, 0x7fff_ffff, 0x8000_0000, u32::MAX]),
        1 => any::<u32>(),
    ]
}

pub(crate) fn table() -> impl Strategy<Value = RuleTable> {
    // few different entries, so that ranges merge and leaves are shared
    let entries = (
        prop::collection::vec(entry(), 1..6),
        prop::collection::btree_map(number(), any::<Index>(), 0..40),
    );
    (select(Abi::ALL.to_vec()), entries, verdict(), verdict()).prop_map(
        |(abi, (pool, picked), otherwise, foreign)| RuleTable {
            abi,
            entries: picked
                .into_iter()
                .map(|(nr, index)| (nr, index.get(&pool).clone()))
                .collect(),
            otherwise,
            foreign,
        },
    )
}

/// What a call is made of before the table is known.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    arch: Index,
    number: Option<(Index, u32)>,
    far: u32,
    args: [(u64, Option<Index>, Option<u8>); 6],
}

pub(crate) fn recipe() -> impl Strategy<Value = Recipe> {
    let arg = || {
        (
            word(),
            any::<Option<Index>>(),
            prop::option::weighted(0.3, 0u8..64),
        )
    };
    (
        any::<Index>(),
        prop::option::weighted(0.8, (any::<Index>(), select(vec![0u32, 0, 0, 1, u32::MAX]))),
        number(),
        [arg(), arg(), arg(), arg(), arg(), arg()],
    )
        .prop_map(|(arch, number, far, args)| Recipe {
            arch,
            number,
            far,
            args,
        })
}

impl Recipe {
    /// A call near the table's own constants: its numbers and neighbours, its values, some with one bit changed.
    pub(crate) fn cook(&self, table: &RuleTable) -> Call {
        let native = table.abi.audit_arch();
        let arch = *self.arch.get(&[
            native,
            native,
            native,
            native,
            native,
            0x4000_0003,
            native ^ 1,
        ]);
        let keys: Vec<u32> = table.entries.keys().copied().collect();
        let nr = match &self.number {
            Some((index, offset)) if !keys.is_empty() => index.get(&keys).wrapping_add(*offset),
            _ => self.far,
        };
        let mut call = Call {
            arch,
            nr,
            args: [0; 6],
        };
        let conditions: Vec<&Condition> = table
            .entries
            .get(&nr)
            .into_iter()
            .flat_map(|entry| entry.branches.iter().flat_map(|branch| &branch.all))
            .collect();
        for (at, (value, index, flip)) in self.args.iter().enumerate() {
            let own: BTreeSet<u64> = conditions
                .iter()
                .filter(|condition| usize::from(condition.arg) == at)
                .flat_map(|condition| {
                    let mask = condition.mask;
                    condition.values.iter().flat_map(move |v| [*v, v | !mask])
                })
                .collect();
            let own: Vec<u64> = own.into_iter().collect();
            let chosen = match index {
                Some(index) if !own.is_empty() => *index.get(&own),
                _ => *value,
            };
            call.args[at] = flip.map_or(chosen, |bit| chosen ^ 1 << bit);
        }
        call
    }
}
