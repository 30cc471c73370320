//! From places in the canonical text, by which a policy speaks of its rules, to places in the text as it was written.

use super::check::canonicalise_rule;
use super::{Place, Policy, Segment};
use crate::format::policy::{CallV1, PolicyV1, RuleV1};
use alloc::vec::Vec;

/// Where the rules of a policy's canonical text stand in the text that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written<'t> {
    text: &'t PolicyV1,
    canonical: &'t PolicyV1,
    /// Index in the text by index in the canonical text.
    order: Vec<usize>,
}

impl<'t> Written<'t> {
    /// For a policy and the text it was read from.
    #[must_use]
    pub fn new(policy: &'t Policy, text: &'t PolicyV1) -> Written<'t> {
        let mut order: Vec<usize> = (0..text.rules.len()).collect();
        let mut canonical: Vec<RuleV1> = text.rules.clone();
        canonical.iter_mut().for_each(canonicalise_rule);
        // as the check of the language sorts them; rules that are the same keep their order
        order.sort_by(|a, b| canonical.get(*a).cmp(&canonical.get(*b)));
        Written {
            text,
            canonical: policy.wire(),
            order,
        }
    }

    /// Index of a rule in the text.
    #[must_use]
    pub fn rule(&self, canonical: usize) -> Option<usize> {
        self.order.get(canonical).copied()
    }

    /// A place in the text; the nearest one above it where an element has no counterpart.
    #[must_use]
    pub fn place(&self, canonical: &Place) -> Place {
        let [Segment::Field("rules"), Segment::Index(index), rest @ ..] = canonical.0.as_slice()
        else {
            return canonical.clone();
        };
        let Some(written) = self.rule(*index) else {
            return Place::field("rules");
        };
        let rule = Place::field("rules").index(written);
        match rest {
            [Segment::Field(list), Segment::Index(at)] => {
                let place = rule.at(list);
                let call = |wire: &'t PolicyV1, rule: usize| calls(wire.rules.get(rule)?, list);
                let wanted = call(self.canonical, *index).and_then(|calls| calls.get(*at));
                let found = call(self.text, written)
                    .and_then(|calls| calls.iter().position(|call| Some(call) == wanted));
                found.map_or(place.clone(), |at| place.index(at))
            }
            [Segment::Field(field), ..] => rule.at(field),
            _ => rule,
        }
    }
}

fn calls<'r>(rule: &'r RuleV1, list: &str) -> Option<&'r [CallV1]> {
    let list = match list {
        "allow" => &rule.allow,
        "ask" => &rule.ask,
        "deny" => &rule.deny,
        _ => return None,
    };
    list.as_deref()
}
