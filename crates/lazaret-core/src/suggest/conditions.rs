//! The conditions of a proposed rule: the arguments that the policy looks at already, with the values that were seen.

use super::Why;
use crate::format::policy::{ConditionV1, ValueV1};
use crate::policy::Policy;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::ToString;
use alloc::vec::Vec;
use lazaret_filter::{constants, table};

/// The most different arguments that are proposed for one call.
const LIMIT: usize = 16;

/// Values of the arguments of a [`Shape`], in its order.
pub(super) type Tuple = Vec<u64>;

/// One argument that a policy looks at.
struct Looked {
    arg: u8,
    name: &'static str,
    mask: u64,
    width: u64,
}

/// Which arguments of a call a policy looks at, and under which masks.
pub(super) struct Shape {
    call: &'static str,
    looked: Vec<Looked>,
}

impl Shape {
    /// `None` when the policy does not look at arguments of the call.
    ///
    /// Several rules may look at different bits of one argument; all of the argument is taken then.
    pub(super) fn of(policy: &Policy, nr: u32) -> Option<Shape> {
        let call = table::name_of(policy.abi(), nr)?;
        let args = table::args_of(call)?;
        let mut masks: BTreeMap<u8, BTreeSet<u64>> = BTreeMap::new();
        for condition in policy.conditions(nr) {
            masks
                .entry(condition.arg)
                .or_default()
                .insert(condition.mask);
        }
        let looked: Vec<Looked> = masks
            .into_iter()
            .filter_map(|(arg, masks)| {
                let known = args.get(usize::from(arg))?;
                let width = known.width.mask();
                let mut masks = masks.into_iter();
                let mask = match (masks.next(), masks.next()) {
                    (Some(mask), None) => mask,
                    _ => width,
                };
                Some(Looked {
                    arg,
                    name: known.name,
                    mask,
                    width,
                })
            })
            .collect();
        (!looked.is_empty()).then_some(Shape { call, looked })
    }

    /// What the policy sees of each call, without repetition.
    ///
    /// # Errors
    /// None that were kept, or too many different ones.
    pub(super) fn tuples(&self, args: &BTreeSet<[u64; 6]>) -> Result<Vec<Tuple>, Why> {
        let value = |args: &[u64; 6], one: &Looked| {
            args.get(usize::from(one.arg))
                .map_or(0, |arg| arg & one.mask)
        };
        let tuples: BTreeSet<Tuple> = args
            .iter()
            .map(|args| self.looked.iter().map(|one| value(args, one)).collect())
            .collect();
        match tuples.len() {
            0 => Err(Why::NoArguments),
            found if found > LIMIT => Err(Why::TooManyValues {
                found,
                limit: LIMIT,
            }),
            _ => Ok(tuples.into_iter().collect()),
        }
    }

    /// The conditions of as many rules as it takes to hold for these and no others: those that differ in the last argument
    /// only are one rule.
    pub(super) fn conditions(&self, tuples: &[Tuple]) -> Vec<Vec<ConditionV1>> {
        let mut grouped: BTreeMap<&[u64], BTreeSet<u64>> = BTreeMap::new();
        for (last, before) in tuples.iter().filter_map(|tuple| tuple.split_last()) {
            grouped.entry(before).or_default().insert(*last);
        }
        grouped
            .into_iter()
            .map(|(before, last)| {
                let each = before.iter().map(|value| BTreeSet::from([*value]));
                self.looked
                    .iter()
                    .zip(each.chain([last]))
                    .filter(|(one, values)| !one.is_everything(values))
                    .map(|(one, values)| one.condition(self.call, &values))
                    .collect()
            })
            .collect()
    }
}

impl Looked {
    /// Whether the values are all there can be: the language leaves such a condition out.
    fn is_everything(&self, values: &BTreeSet<u64>) -> bool {
        // at most LIMIT values: more than 6 bits are never all
        let bits = self.mask.count_ones();
        bits <= 6 && values.len() == 1 << bits
    }

    fn condition(&self, call: &str, values: &BTreeSet<u64>) -> ConditionV1 {
        let named = |value: &u64| {
            constants::name(call, self.name, *value).map_or(ValueV1::Number(*value), |name| {
                ValueV1::Name(name.to_string())
            })
        };
        ConditionV1 {
            arg: self.name.to_string(),
            values: values.iter().map(named).collect(),
            mask: (self.mask != self.width).then_some(self.mask),
        }
    }
}
