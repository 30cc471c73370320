//! JSON with the place of everything in it: no field twice, none left over.
//!
//! `serde`'s derived readers do not say where a value lies in the text; a profile has hundreds of rules.

use super::read::OciReadError;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::de::{
    Deserialize, DeserializeOwned, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
    value,
};

/// A JSON value.
pub(super) enum Node {
    Null,
    Bool,
    /// A whole number that is not negative.
    Number(u64),
    /// Any other number.
    OtherNumber,
    Text(String),
    List(Vec<Node>),
    /// In the order of the text.
    Fields(Vec<(String, Node)>),
}

impl Node {
    fn kind(&self) -> &'static str {
        match self {
            Node::Null => "null",
            Node::Bool => "a boolean",
            Node::Number(_) => "a number",
            Node::OtherNumber => "a number that is negative, broken or too large",
            Node::Text(_) => "a string",
            Node::List(_) => "a list",
            Node::Fields(_) => "an object",
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
                Ok(Node::Bool)
            }
            fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
                Ok(Node::Number(number))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
                Ok(Node::OtherNumber)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
                Ok(Node::OtherNumber)
            }
            fn visit_str<E>(self, text: &str) -> Result<Node, E> {
                Ok(Node::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Node::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
                let mut fields = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    fields.push(entry);
                }
                Ok(Node::Fields(fields))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// How deep lists and objects lie in each other, before anything is parsed.
pub(super) fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// A value and where it lies.
pub(super) struct Placed {
    place: String,
    node: Node,
}

impl Placed {
    pub(super) fn root(node: Node) -> Placed {
        Placed {
            place: String::new(),
            node,
        }
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    fn wrong(self, expected: &'static str) -> OciReadError {
        OciReadError::Kind {
            place: named(&self.place),
            expected,
            found: self.node.kind(),
        }
    }

    pub(super) fn object(self) -> Result<Object, OciReadError> {
        let Node::Fields(mut fields) = self.node else {
            return Err(self.wrong("an object"));
        };
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        let twice = fields.windows(2).find_map(|pair| match pair {
            [a, b] if a.0 == b.0 => Some(&a.0),
            _ => None,
        });
        if let Some(field) = twice {
            return Err(OciReadError::Twice {
                place: join(&self.place, &excerpt(field)),
            });
        }
        Ok(Object {
            place: self.place,
            fields,
        })
    }

    pub(super) fn list(self) -> Result<Vec<Placed>, OciReadError> {
        let Node::List(list) = self.node else {
            return Err(self.wrong("a list"));
        };
        let place = self.place;
        let item = |(index, node)| Placed {
            place: format!("{place}[{index}]"),
            node,
        };
        Ok(list.into_iter().enumerate().map(item).collect())
    }

    pub(super) fn text(self) -> Result<String, OciReadError> {
        match self.node {
            Node::Text(text) => Ok(text),
            _ => Err(self.wrong("a string")),
        }
    }

    pub(super) fn number(self) -> Result<u64, OciReadError> {
        match self.node {
            Node::Number(number) => Ok(number),
            _ => Err(self.wrong("a whole number from 0 to 2^64-1")),
        }
    }

    pub(super) fn small<T: TryFrom<u64>>(self, limit: u64) -> Result<T, OciReadError> {
        let place = self.place.clone();
        let found = self.number()?;
        T::try_from(found)
            .ok()
            .filter(|_| found <= limit)
            .ok_or(OciReadError::Number {
                place,
                found,
                limit,
            })
    }

    /// One of the words of the specification.
    pub(super) fn word<T: DeserializeOwned>(self) -> Result<T, OciReadError> {
        let place = self.place.clone();
        let text = self.text()?;
        let read: Result<T, value::Error> = T::deserialize(text.as_str().into_deserializer());
        read.map_err(|_| OciReadError::Word {
            place,
            found: excerpt(&text),
        })
    }

    pub(super) fn texts(self) -> Result<Vec<String>, OciReadError> {
        self.list()?.into_iter().map(Placed::text).collect()
    }

    pub(super) fn words<T: DeserializeOwned>(self) -> Result<Vec<T>, OciReadError> {
        self.list()?.into_iter().map(Placed::word).collect()
    }
}

/// An object whose fields are taken out one by one.
pub(super) struct Object {
    place: String,
    fields: Vec<(String, Node)>,
}

impl Object {
    /// The field; `null` is as good as none, as for the engines' Go types.
    pub(super) fn take(&mut self, name: &str) -> Option<Placed> {
        let at = self.fields.iter().position(|(field, _)| field == name)?;
        let (_, node) = self.fields.swap_remove(at);
        (!matches!(node, Node::Null)).then(|| Placed {
            place: join(&self.place, name),
            node,
        })
    }

    /// Its text; an empty one is as good as none.
    pub(super) fn take_text(&mut self, name: &str) -> Result<Option<String>, OciReadError> {
        let text = self.take(name).map(Placed::text).transpose()?;
        Ok(text.filter(|text| !text.is_empty()))
    }

    pub(super) fn need(&mut self, name: &str) -> Result<Placed, OciReadError> {
        let place = join(&self.place, name);
        self.take(name).ok_or(OciReadError::Missing { place })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.fields
            .iter()
            .any(|(field, node)| field == name && !matches!(node, Node::Null))
    }

    pub(super) fn join(&self, name: &str) -> String {
        join(&self.place, name)
    }

    /// Refuses what is left.
    pub(super) fn finish(self) -> Result<(), OciReadError> {
        match self.fields.iter().map(|(field, _)| field).min() {
            None => Ok(()),
            Some(field) => Err(OciReadError::Unknown {
                place: join(&self.place, &excerpt(field)),
            }),
        }
    }
}

fn join(place: &str, field: &str) -> String {
    if place.is_empty() {
        field.to_owned()
    } else {
        format!("{place}.{field}")
    }
}

fn named(place: &str) -> String {
    if place.is_empty() { "profile" } else { place }.to_owned()
}

/// Enough of a text for a message.
pub(super) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 64;
    let mut shown: String = text.chars().take(LONGEST).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
