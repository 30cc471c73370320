//! From the tree to the wire types, with every problem of form that can be found in one go.
//!
//! A serde deserializer that goes on where it can: it counts fields that the type does not have and leaves them out, puts
//! a stand-in for a value of the wrong kind, and steps over an element of a list that is no good. With the first problem
//! the result is lost, so a stand-in never gets into a policy. It cannot go on past a field that is missing: the type's
//! own visitor stops there, up to the next list.
//!
//! What the fields are is said by the types alone. No value is checked here that the type does not check.

use crate::source::Source;
use crate::tree::{At, Field, Located, Node};
use lazaret_core::policy::near::nearest;
use serde::de::{
    DeserializeSeed, Deserializer, Error, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

/// What is wrong, by place: one thing each.
pub(crate) type Wrongs = BTreeMap<At, What>;

/// What is wrong at one place. Words are only made of what is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// In words.
    Said(String),
    /// A word that is none of those that are known here.
    Unknown {
        kind: &'static str,
        written: String,
        known: &'static [&'static str],
    },
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Said(what) => f.write_str(what),
            What::Unknown {
                kind,
                written,
                known,
            } => {
                write!(f, "unknown {kind} `{written}`, ")?;
                match nearest(written, known.iter().copied()) {
                    Some(near) => write!(f, "did you mean `{near}`?"),
                    None => write!(f, "known are {}", known.join(", ")),
                }
            }
        }
    }
}

/// The value of a tree.
///
/// # Errors
/// What is wrong with its form; never empty.
pub(crate) fn value<'t, T: Deserialize<'t>>(
    source: Source<'t>,
    root: &'t Located,
) -> Result<T, Wrongs> {
    let wrongs = RefCell::new(Wrongs::new());
    let here = Here {
        source,
        wrongs: &wrongs,
        value: root,
    };
    let result = T::deserialize(here).map_err(|refused| here.note(refused));
    let wrongs = wrongs.into_inner();
    match result {
        Ok(value) if wrongs.is_empty() => Ok(value),
        _ => Err(wrongs),
    }
}

/// Why a value is none of its type.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    /// Noted where it was found.
    Noted,
    /// To be noted where the value stands.
    Because(What),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Noted => f.write_str("noted"),
            Refused::Because(what) => what.fmt(f),
        }
    }
}

impl std::error::Error for Refused {}

impl Error for Refused {
    fn custom<T: fmt::Display>(what: T) -> Refused {
        Refused::Because(What::Said(what.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Refused {
        Refused::Because(What::Said(format!("expected {expected}, found {found}")))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Refused {
        Refused::Because(What::Said(format!("expected {expected}, found {found}")))
    }

    fn unknown_variant(written: &str, known: &'static [&'static str]) -> Refused {
        Refused::Because(unknown("value", written, known))
    }

    fn unknown_field(written: &str, known: &'static [&'static str]) -> Refused {
        Refused::Because(unknown("field", written, known))
    }
}

fn unknown(kind: &'static str, written: &str, known: &'static [&'static str]) -> What {
    What::Unknown {
        kind,
        written: written.to_owned(),
        known,
    }
}

/// A value of the tree, as serde asks for it.
#[derive(Clone, Copy)]
struct Here<'t, 'w> {
    source: Source<'t>,
    wrongs: &'w RefCell<Wrongs>,
    value: &'t Located,
}

impl<'t, 'w> Here<'t, 'w> {
    fn at(self, value: &'t Located) -> Here<'t, 'w> {
        Here { value, ..self }
    }

    /// Notes why this value is refused; of several reasons at one place the first.
    fn note(self, refused: Refused) -> Refused {
        if let Refused::Because(what) = refused {
            let mut wrongs = self.wrongs.borrow_mut();
            wrongs.entry(self.value.at).or_insert(what);
        }
        Refused::Noted
    }

    fn note_kind(self, expected: &str) {
        self.note(Refused::Because(What::Said(format!(
            "expected {expected}, found {}",
            self.found()
        ))));
    }

    /// What stands here, for people.
    fn found(self) -> String {
        match &self.value.node {
            Node::Null => "nothing".to_owned(),
            Node::Text(text) => format!("the text `{text}`"),
            Node::List(_) => "a list".to_owned(),
            Node::Map(_) => "fields".to_owned(),
            _ => match self.written() {
                Some(written) => format!("`{written}`"),
                None => "another kind of value".to_owned(),
            },
        }
    }

    /// A scalar that is no text, as it stands in the text. `None` with a tag: it would be part of it.
    fn written(self) -> Option<&'t str> {
        let At { start, len } = self.value.at;
        let written = self.source.slice(start, len)?.trim();
        let plain = |c: char| c.is_ascii_alphanumeric() || "+-._~".contains(c);
        (!written.is_empty() && written.chars().all(plain)).then_some(written)
    }

    fn integer<V: Visitor<'t>>(
        self,
        range: RangeInclusive<i128>,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        match self.value.node {
            Node::Unsigned(number) if range.contains(&number.into()) => visitor.visit_u64(number),
            Node::Signed(number) if range.contains(&number.into()) => visitor.visit_i64(number),
            _ => {
                let (first, last) = range.into_inner();
                self.note_kind(&format!("a whole number from {first} to {last}"));
                visitor.visit_u64(0)
            }
        }
        .map_err(|refused| self.note(refused))
    }

    fn text<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Refused> {
        match (&self.value.node, self.written()) {
            (Node::Text(text), _) => visitor.visit_borrowed_str(text),
            // YAML needs no quotes for texts, and some look like numbers: `kernel: 5.11`
            (Node::Flag(_) | Node::Unsigned(_) | Node::Signed(_) | Node::Real, Some(written)) => {
                visitor.visit_borrowed_str(written)
            }
            _ => {
                self.note_kind("a text");
                visitor.visit_borrowed_str("")
            }
        }
        .map_err(|refused| self.note(refused))
    }

    fn list<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Refused> {
        let values = match &self.value.node {
            Node::List(values) => values.iter(),
            _ => {
                self.note_kind("a list");
                [].iter()
            }
        };
        visitor
            .visit_seq(Elements { here: self, values })
            .map_err(|refused| self.note(refused))
    }

    fn fields<V: Visitor<'t>>(
        self,
        known: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let Node::Map(fields) = &self.value.node else {
            self.note_kind("fields");
            return Err(Refused::Noted);
        };
        for field in fields {
            if let Some(known) = known
                && !known.contains(&field.name.as_str())
            {
                let what = unknown("field", &field.name, known);
                self.wrongs.borrow_mut().insert(field.at, what);
            }
        }
        visitor
            .visit_map(Fields {
                here: self,
                known,
                fields: fields.iter(),
                next: None,
            })
            .map_err(|refused| self.note(refused))
    }
}

impl<'t> Deserializer<'t> for Here<'t, '_> {
    type Error = Refused;

    fn deserialize_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Refused> {
        match &self.value.node {
            Node::Null => visitor.visit_unit(),
            Node::Flag(flag) => visitor.visit_bool(*flag),
            Node::Unsigned(number) => visitor.visit_u64(*number),
            Node::Signed(number) => visitor.visit_i64(*number),
            Node::Real => visitor.visit_f64(f64::NAN),
            Node::Text(text) => visitor.visit_borrowed_str(text),
            Node::List(_) => return self.list(visitor),
            Node::Map(_) => return self.fields(None, visitor),
        }
        .map_err(|refused| self.note(refused))
    }

    fn deserialize_bool<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Refused> {
        let flag = match self.value.node {
            Node::Flag(flag) => flag,
            _ => {
                self.note_kind("`true` or `false`");
                false
            }
        };
        visitor
            .visit_bool(flag)
            .map_err(|refused| self.note(refused))
    }

    fn deserialize_i8<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.integer(i8::MIN.into()..=i8::MAX.into(), visitor)
    }
    fn deserialize_i16<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.integer(i16::MIN.into()..=i16::MAX.into(), visitor)
    }
    fn deserialize_i32<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.integer(i32::MIN.into()..=i32::MAX.into(), visitor)
    }
    fn deserialize_i64<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.integer(i64::MIN.into()..=i64::MAX.into(), visitor)
    }
    fn deserialize_u8<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.integer(u8::MIN.into()..=u8::MAX.into(), visitor)
    }
    fn deserialize_u16<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.integer(u16::MIN.into()..=u16::MAX.into(), visitor)
    }
    fn deserialize_u32<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.integer(u32::MIN.into()..=u32::MAX.into(), visitor)
    }
    fn deserialize_u64<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.integer(u64::MIN.into()..=u64::MAX.into(), visitor)
    }
    fn deserialize_str<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.text(visitor)
    }
    fn deserialize_string<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.text(visitor)
    }

    /// A field that stands there has a value: an empty `until:` is a slip, and leaving it out would widen the rule.
    fn deserialize_option<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'t>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.list(visitor)
    }

    fn deserialize_struct<V: Visitor<'t>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.fields(Some(known), visitor)
    }

    fn deserialize_enum<V: Visitor<'t>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let Node::Text(text) = &self.value.node else {
            self.note_kind("a text");
            return Err(Refused::Noted);
        };
        visitor
            .visit_enum(text.as_str().into_deserializer())
            .map_err(|refused| self.note(refused))
    }

    forward_to_deserialize_any! {
        <W: Visitor<'t>>
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct map identifier ignored_any
    }
}

struct Elements<'t, 'w> {
    here: Here<'t, 'w>,
    values: std::slice::Iter<'t, Located>,
}

impl<'t> SeqAccess<'t> for Elements<'t, '_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'t>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Refused> {
        let Some(value) = self.values.next() else {
            return Ok(None);
        };
        let here = self.here.at(value);
        seed.deserialize(here)
            .map(Some)
            .map_err(|refused| here.note(refused))
    }

    /// Steps over elements that are no good; they are noted.
    fn next_element<T: Deserialize<'t>>(&mut self) -> Result<Option<T>, Refused> {
        for value in self.values.by_ref() {
            let here = self.here.at(value);
            match T::deserialize(here) {
                Ok(element) => return Ok(Some(element)),
                Err(refused) => here.note(refused),
            };
        }
        Ok(None)
    }
}

struct Fields<'t, 'w> {
    here: Here<'t, 'w>,
    known: Option<&'static [&'static str]>,
    fields: std::slice::Iter<'t, Field>,
    next: Option<&'t Located>,
}

impl<'t> MapAccess<'t> for Fields<'t, '_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'t>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Refused> {
        let known = self.known;
        let is_known =
            |field: &&Field| known.is_none_or(|known| known.contains(&field.name.as_str()));
        let Some(field) = self.fields.find(is_known) else {
            return Ok(None);
        };
        self.next = Some(&field.value);
        seed.deserialize(field.name.as_str().into_deserializer())
            .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'t>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        let value = self
            .next
            .take()
            .ok_or_else(|| Refused::custom("a value without its field"))?;
        let here = self.here.at(value);
        seed.deserialize(here).map_err(|refused| here.note(refused))
    }
}
