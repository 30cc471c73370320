//! The bundle's `config.json`: one member is replaced, every other byte of every value stays what it was.
//!
//! Values are carried over as the text they were written in, so numbers keep their spelling and fields that no
//! specification knows survive.

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Why a `config.json` was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EditError {
    /// No JSON object, or one with a member twice.
    #[error("config.json is not one JSON object with unique members")]
    Json(#[source] serde_json::Error),
    /// A member that has to be there and be an object.
    #[error("`{member}` of config.json is not an object with unique members")]
    Member {
        /// Which.
        member: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Go's JSON reader, so runc, takes it for another member (`encoding/json`, "preferring … case-insensitive match").
    #[error("config.json has a member `{found}`, which the runtime would take for `{member}`")]
    LookAlike {
        /// As it stands there.
        found: String,
        /// What it would be taken for.
        member: &'static str,
    },
}

/// A JSON object whose values are not read.
struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let (mut members, mut names) = (Vec::new(), BTreeSet::new());
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format_args!("`{name}` is there twice")));
                    }
                    members.push((name, value));
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'a> Object<'a> {
    /// The member of this name.
    fn get(&self, member: &'static str) -> Result<Option<&'a RawValue>, EditError> {
        let mut found = None;
        for (name, value) in &self.0 {
            if name == member {
                found = Some(*value);
            } else if fold(name) == member {
                return Err(EditError::LookAlike {
                    found: name.clone(),
                    member,
                });
            }
        }
        Ok(found)
    }

    /// Replaces the member where it stands, or adds it at the end.
    fn set(&mut self, member: &'static str, value: &'a RawValue) -> Result<(), EditError> {
        self.get(member)?;
        match self.0.iter_mut().find(|(name, _)| name == member) {
            Some((_, old)) => *old = value,
            None => self.0.push((member.to_owned(), value)),
        }
        Ok(())
    }
}

/// Lower case as Go folds names: besides ASCII only the long s and the Kelvin sign fold to ASCII letters
/// (`encoding/json/fold.go`).
fn fold(name: &str) -> String {
    name.chars()
        .map(|letter| match letter {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            other => other.to_ascii_lowercase(),
        })
        .collect()
}

fn parse(text: &str) -> Result<Object<'_>, EditError> {
    serde_json::from_str(text).map_err(EditError::Json)
}

/// The container's annotations; none when there are none.
///
/// # Errors
/// [`EditError`].
pub(crate) fn annotations(text: &str) -> Result<BTreeMap<String, String>, EditError> {
    let member = "annotations";
    match parse(text)?.get(member)? {
        None => Ok(BTreeMap::new()),
        Some(value) => serde_json::from_str::<Option<BTreeMap<String, String>>>(value.get())
            .map(Option::unwrap_or_default)
            .map_err(|source| EditError::Member { member, source }),
    }
}

/// The same configuration with `profile` as its `linux.seccomp`, whatever stood there.
///
/// # Errors
/// [`EditError`].
pub(crate) fn with_seccomp(text: &str, profile: &RawValue) -> Result<String, EditError> {
    let mut config = parse(text)?;
    let member = "linux";
    let broken = |source| EditError::Member { member, source };
    let linux = config.get(member)?.map_or("null", RawValue::get);
    let mut linux: Object<'_> = serde_json::from_str(linux).map_err(broken)?;
    linux.set("seccomp", profile)?;
    let linux = serde_json::value::to_raw_value(&linux).map_err(broken)?;
    config.set(member, &linux)?;
    serde_json::to_string(&config).map_err(EditError::Json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn edit(text: &str) -> Result<String, String> {
        let profile = RawValue::from_string(r#"{"new": 1}"#.to_owned());
        profile
            .map_err(|error| error.to_string())
            .and_then(|profile| with_seccomp(text, &profile).map_err(|error| error.to_string()))
    }

    #[test]
    fn only_the_profile_changes() {
        for (text, expected) in [
            (
                r#"{ "a" : 1.50e+03, "linux" : { "x" : 18446744073709551616 , "seccomp":{"old":[]}, "y":null }, "b":[ 0.10 ] }"#,
                r#"{"a":1.50e+03,"linux":{"x":18446744073709551616,"seccomp":{"new": 1},"y":null},"b":[ 0.10 ]}"#,
            ),
            (r#"{"linux":{}}"#, r#"{"linux":{"seccomp":{"new": 1}}}"#),
            (
                r#"{"linux":{"seccomp":null},"unknown":{"z":{"seccomp":2}}}"#,
                r#"{"linux":{"seccomp":{"new": 1}},"unknown":{"z":{"seccomp":2}}}"#,
            ),
        ] {
            assert_eq!(edit(text).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn refusals() {
        let linux = "`linux` of config.json is not an object with unique members";
        let json = "config.json is not one JSON object with unique members";
        for (text, expected) in [
            ("", json),
            ("[]", json),
            ("{} {}", json),
            (r#"{"linux":{},"linux":{}}"#, json),
            ("{}", linux),
            (r#"{"linux":null}"#, linux),
            (r#"{"linux":{"seccomp":1,"seccomp":2}}"#, linux),
            (
                r#"{"linux":{},"LINUX":{}}"#,
                "config.json has a member `LINUX`, which the runtime would take for `linux`",
            ),
            (
                r#"{"linux":{"\u017feccomp":{}}}"#,
                "config.json has a member `ſeccomp`, which the runtime would take for `seccomp`",
            ),
        ] {
            assert_eq!(edit(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn annotations_are_read() {
        let read = |text| annotations(text).map_err(|error| error.to_string());
        assert_eq!(read("{}"), Ok(BTreeMap::new()));
        assert_eq!(read(r#"{"annotations":null}"#), Ok(BTreeMap::new()));
        assert_eq!(
            read(r#"{"annotations":{"a":"b"}}"#),
            Ok([("a".to_owned(), "b".to_owned())].into())
        );
        for text in [r#"{"annotations":[]}"#, r#"{"Annotations":{}}"#] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".*", inner, 0..4)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn everything_else_is_equal(
            top in prop::collection::btree_map("[a-k]{1,3}", value(), 0..4),
            linux in prop::collection::btree_map("[a-k]{1,3}", value(), 0..4),
        ) {
            let mut config = json!(top);
            config["linux"] = json!(linux);
            let edited = edit(&config.to_string()).map_err(TestCaseError::fail)?;
            let edited: Value = serde_json::from_str(&edited)
                .map_err(|error| TestCaseError::fail(error.to_string()))?;
            config["linux"]["seccomp"] = json!({"new": 1});
            prop_assert_eq!(edited, config);
        }
    }
}
