//! Conditions on arguments: names, widths, and sets of values that can be written in one way only.

use super::super::near::nearest;
use super::super::problem::{Place, What};
use super::Reader;
use crate::format::policy::{ConditionV1, EndV1, ValueV1};
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use lazaret_filter::constants;
use lazaret_filter::rule::{Condition, Values};
use lazaret_filter::table::{self, ArgDef};

/// Most elements of one list of values.
const MAX_VALUES: usize = 256;

/// The argument of a call that a condition is about.
struct Argument<'n> {
    call: &'n str,
    /// As the policy names it.
    name: &'n str,
    definition: &'static ArgDef,
    /// The bits that are compared, within the argument's width.
    mask: u64,
}

/// An element of a list of values.
struct Element {
    /// Where in the list.
    index: usize,
    first: u64,
    last: u64,
}

impl Element {
    const fn is_range(&self) -> bool {
        self.first != self.last
    }
}

impl Reader {
    pub(super) fn conditions(
        &mut self,
        at: &Place,
        call: &str,
        wire: &[ConditionV1],
    ) -> Vec<Condition> {
        let mut found: Vec<Condition> = Vec::new();
        for (index, condition) in wire.iter().enumerate() {
            let place = at.at("when").index(index);
            let Some((arg, definition)) = table::arg(call, &condition.arg) else {
                self.unknown_arg(&place, call, condition);
                continue;
            };
            if found.iter().any(|other| other.arg == arg) {
                let arg = condition.arg.clone();
                self.problem(place.at("arg"), What::ArgTwice { arg });
                continue;
            }
            if let Some(condition) = self.condition(&place, call, arg, definition, condition) {
                found.push(condition);
            }
        }
        found.sort();
        found
    }

    fn unknown_arg(&mut self, place: &Place, call: &str, condition: &ConditionV1) {
        let arguments = table::args_of(call);
        let names: Vec<&'static str> = arguments
            .unwrap_or_default()
            .iter()
            .map(|argument| argument.name)
            .collect();
        let known = match arguments {
            None => ", its arguments are not in the table".to_string(),
            Some([]) => ", it has none".to_string(),
            Some(_) => format!(", it has {}", names.join(", ")),
        };
        let what = What::UnknownArg {
            call: call.to_string(),
            arg: condition.arg.chars().take(80).collect(),
            known,
            near: nearest(&condition.arg, names),
        };
        self.problem(place.at("arg"), what);
    }

    fn condition(
        &mut self,
        place: &Place,
        call: &str,
        arg: u8,
        definition: &'static ArgDef,
        wire: &ConditionV1,
    ) -> Option<Condition> {
        let full = definition.width.mask();
        let width = full.count_ones();
        let mask = wire.mask.unwrap_or(full);
        if mask == 0 || mask & !full != 0 {
            self.problem(place.at("mask"), What::Mask { mask, width });
            return None;
        }
        let list = place.at("in");
        if wire.values.is_empty() {
            self.problem(list, What::Empty);
            return None;
        }
        self.bounded(&list, wire.values.len(), MAX_VALUES);
        let argument = Argument {
            call,
            name: &wire.arg,
            definition,
            mask,
        };
        let mut elements: Vec<Element> = Vec::new();
        for (index, value) in wire.values.iter().enumerate() {
            if let Some((first, last)) = self.element(&list.index(index), &argument, value) {
                elements.push(Element { index, first, last });
            }
        }
        self.one_way(&list, mask, &mut elements);
        Some(Condition {
            arg,
            mask,
            values: Values::of(elements.iter().map(|element| element.first..=element.last)),
        })
    }

    /// The first and last value of an element.
    fn element(
        &mut self,
        at: &Place,
        argument: &Argument<'_>,
        value: &ValueV1,
    ) -> Option<(u64, u64)> {
        let range = match value {
            ValueV1::Number(number) => {
                let value = self.within(at, argument, *number)?;
                return Some((value, value));
            }
            ValueV1::Name(name) => {
                let value = self.constant(at, argument, name)?;
                return Some((value, value));
            }
            ValueV1::Range(range) => range,
        };
        // both ends are looked at before either is missed, so that both problems are told
        let from = match &range.from {
            Some(end) => self.end(&at.at("from"), argument, end),
            None => Some(0),
        };
        let to = match &range.to {
            Some(end) => self.end(&at.at("to"), argument, end),
            None => Some(argument.mask),
        };
        let (from, to) = (from?, to?);
        let what = match from.cmp(&to) {
            core::cmp::Ordering::Less => return Some((from, to)),
            core::cmp::Ordering::Equal => What::OneValue { value: from },
            core::cmp::Ordering::Greater => What::EmptyRange { from, to },
        };
        self.problem(at.clone(), what);
        None
    }

    fn end(&mut self, at: &Place, argument: &Argument<'_>, end: &EndV1) -> Option<u64> {
        match end {
            EndV1::Number(number) => self.within(at, argument, *number),
            EndV1::Name(name) => self.constant(at, argument, name),
        }
    }

    fn constant(&mut self, at: &Place, argument: &Argument<'_>, name: &str) -> Option<u64> {
        match constants::value(argument.call, argument.definition.name, name) {
            Some(value) => self.within(at, argument, value),
            None => {
                let known = constants::vocabulary(argument.call, argument.definition.name);
                let known = known.unwrap_or_default().iter().map(|&(known, _)| known);
                let what = What::UnknownConstant {
                    name: name.chars().take(80).collect(),
                    arg: argument.name.to_string(),
                    call: argument.call.to_string(),
                    near: nearest(name, known),
                };
                self.problem(at.clone(), what);
                None
            }
        }
    }

    fn within(&mut self, at: &Place, argument: &Argument<'_>, value: u64) -> Option<u64> {
        let mask = argument.mask;
        if value & !mask == 0 {
            return Some(value);
        }
        self.problem(at.clone(), What::OutsideMask { value, mask });
        None
    }

    /// Sorts the elements and sees to it that there is one way to write their set: no value twice, no range that another
    /// element could be part of, and no condition that says nothing. Single values may be neighbours: they have names.
    fn one_way(&mut self, list: &Place, mask: u64, elements: &mut [Element]) {
        elements.sort_by_key(|element| (element.first, element.last, element.index));
        let mut problems: Vec<(usize, What)> = Vec::new();
        // whether the elements so far hold every value from 0 on to the last one, and which reaches farthest
        let mut without_gap = elements.first().is_some_and(|element| element.first == 0);
        let mut farthest: Option<&Element> = None;
        for element in elements.iter() {
            let Some(before) = farthest else {
                farthest = Some(element);
                continue;
            };
            let (later, other) = (
                element.index.max(before.index),
                element.index.min(before.index),
            );
            let touches = following(before.last, mask) == Some(element.first);
            if element.first <= before.last {
                problems.push((later, overlap(before, element, other)));
            } else if touches && (before.is_range() || element.is_range()) {
                let what = What::Touch {
                    other,
                    from: before.first,
                    to: element.last,
                };
                problems.push((later, what));
            }
            without_gap &= touches || element.first <= before.last;
            if element.last > before.last {
                farthest = Some(element);
            }
        }
        if problems.is_empty() && without_gap && farthest.is_some_and(|end| end.last == mask) {
            self.problem(list.clone(), What::AlwaysHolds);
        }
        problems.sort_by_key(|(index, _)| *index);
        for (index, what) in problems {
            self.problem(list.index(index), what);
        }
    }
}

/// What is wrong with two elements that share a value.
fn overlap(before: &Element, element: &Element, other: usize) -> What {
    let value = element.first;
    if before.is_range() || element.is_range() {
        What::Overlap { value, other }
    } else {
        What::Twice {
            name: format!("{value:#x}"),
        }
    }
}

/// The next value that has bits of the mask only.
fn following(value: u64, mask: u64) -> Option<u64> {
    // the bits between those of the mask carry the one over to the next bit of it
    (value | !mask).checked_add(1).map(|next| next & mask)
}
