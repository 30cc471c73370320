//! YAML as a tree of values with their places: what the reader of the shape walks, and where problems of meaning are looked
//! up.
//!
//! JSON is YAML: canonical policies are read here too.

use crate::error::Problems;
use crate::source::Source;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{
    Budget, Error, Location, MessageFormatter, Options, Spanned, UserMessageFormatter,
};
use std::fmt;

/// The most values in a document. A policy with all it may have stays far below, and a tree of them below 8 MiB.
pub(crate) const MAX_VALUES: usize = 1 << 16;
/// The most levels.
pub(crate) const MAX_DEPTH: usize = 16;

/// Where a value stands, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

/// A value and where it stands.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) at: At,
    pub(crate) node: Node,
}

impl Located {
    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&Located> {
        let Node::Map(fields) = &self.node else {
            return None;
        };
        let field = fields.iter().find(|field| field.name == name)?;
        Some(&field.value)
    }

    /// The elements of a field that is a list.
    pub(crate) fn elements(&self, name: &str) -> impl Iterator<Item = &Located> {
        let list = match self.field(name).map(|value| &value.node) {
            Some(Node::List(list)) => list.as_slice(),
            _ => &[],
        };
        list.iter()
    }
}

/// A value.
#[derive(Debug)]
pub(crate) enum Node {
    Null,
    Flag(bool),
    Unsigned(u64),
    /// Negative.
    Signed(i64),
    /// A number that is no integer of 64 bits.
    Real,
    Text(String),
    List(Vec<Located>),
    Map(Vec<Field>),
}

/// A field of a map.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) at: At,
    pub(crate) value: Located,
}

/// Reads a text of one document.
///
/// # Errors
/// Where the text is no YAML, has anchors, aliases or merge keys, or is over a bound: one problem, the first.
pub(crate) fn parse(text: &str) -> Result<Located, Problems> {
    let read = serde_saphyr::from_str_with_options::<Spanned<Node>>(text, options());
    read.map(Located::from).map_err(|error| {
        let error = error.without_snippet();
        let source = Source::new(text);
        let offset = error
            .location()
            .map_or(text.len(), |location| offset(source, location));
        source.finding(offset, String::new(), &what(error)).into()
    })
}

/// Bounds for hostile text: a policy needs no anchors, and is small and flat.
fn options() -> Options {
    let mut budget = Budget::default();
    budget.max_anchors = 0;
    budget.max_aliases = 0;
    budget.max_depth = MAX_DEPTH;
    budget.flow_nesting_limit = MAX_DEPTH;
    budget.max_documents = 1;
    budget.max_merge_keys = 0;
    budget.max_nodes = MAX_VALUES;
    let mut options = Options::default();
    options.budget = Some(budget);
    options.strict_booleans = true;
    options.with_snippet = false;
    options.emit_comments = false;
    options
}

fn offset(source: Source<'_>, location: Location) -> usize {
    let before = |from_one: u64| usize::try_from(from_one.saturating_sub(1)).unwrap_or(usize::MAX);
    match location.span().byte_offset().map(usize::try_from) {
        Some(Ok(offset)) => offset,
        _ => source.offset_of_char(before(location.line()), before(location.column())),
    }
}

const NO_ANCHORS: &str = "anchors and aliases are not allowed";

fn what(error: &Error) -> String {
    use serde_saphyr::budget::BudgetBreach;
    match error {
        Error::Budget { breach, .. } => match breach {
            BudgetBreach::Anchors { .. } | BudgetBreach::Aliases { .. } => NO_ANCHORS.to_owned(),
            BudgetBreach::MergeKeys { .. } => "merge keys are not allowed".to_owned(),
            BudgetBreach::Depth { .. } => format!("more than {MAX_DEPTH} levels"),
            BudgetBreach::Nodes { .. } => format!("more than {MAX_VALUES} values"),
            BudgetBreach::Documents { .. } => "more than one document".to_owned(),
            other => format!("over a bound of the reader: {other:?}"),
        },
        Error::UnknownAnchor { .. } => NO_ANCHORS.to_owned(),
        other => match UserMessageFormatter.format_message(other) {
            // the scanner's own words for `flow_nesting_limit`
            what if what == "recursion limit exceeded" => format!("more than {MAX_DEPTH} levels"),
            what => what.into_owned(),
        },
    }
}

impl From<Spanned<Node>> for Located {
    fn from(spanned: Spanned<Node>) -> Located {
        Located {
            at: at(spanned.referenced),
            node: spanned.value,
        }
    }
}

/// A text of at most a few megabytes has offsets that fit; the reader knows all of them, since it reads from memory.
fn at(location: Location) -> At {
    let span = location.span();
    let number = |offset: Option<u64>| offset.and_then(|offset| usize::try_from(offset).ok());
    At {
        start: number(span.byte_offset()).unwrap_or_default(),
        len: number(span.byte_len()).unwrap_or_default(),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        struct Nodes;

        impl<'de> Visitor<'de> for Nodes {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_bool<E>(self, flag: bool) -> Result<Node, E> {
                Ok(Node::Flag(flag))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
                Ok(u64::try_from(number).map_or(Node::Signed(number), Node::Unsigned))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
                Ok(Node::Unsigned(number))
            }
            fn visit_i128<E>(self, _: i128) -> Result<Node, E> {
                Ok(Node::Real)
            }
            fn visit_u128<E>(self, _: u128) -> Result<Node, E> {
                Ok(Node::Real)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
                Ok(Node::Real)
            }
            fn visit_str<E>(self, text: &str) -> Result<Node, E> {
                Ok(Node::Text(text.to_owned()))
            }
            fn visit_string<E>(self, text: String) -> Result<Node, E> {
                Ok(Node::Text(text))
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(value) = seq.next_element::<Spanned<Node>>()? {
                    list.push(value.into());
                }
                Ok(Node::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut fields: Vec<Field> = Vec::new();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    fields.push(Field {
                        at: at(key.referenced),
                        name: key.value,
                        value: map.next_value::<Spanned<Node>>()?.into(),
                    });
                }
                Ok(Node::Map(fields))
            }
        }

        deserializer.deserialize_any(Nodes)
    }
}
