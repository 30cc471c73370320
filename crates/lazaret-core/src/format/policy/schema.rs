//! The JSON Schema of a policy, for editors and other languages: the shape, and the names that can be listed.
//!
//! It is looser than the language: what needs a look at two places, or at the tables of arguments, only
//! [`crate::policy::Policy`] knows.

use super::PolicyV1;
use crate::digest::Digest;
use alloc::borrow::Cow;
use alloc::collections::BTreeSet;
use alloc::string::String;
use lazaret_filter::abi::Abi;
use lazaret_filter::table;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// The errnos that programs expect of a denied call.
pub(super) const ERRNOS: [&str; 3] = ["EACCES", "ENOSYS", "EPERM"];

/// A duration, as `10s` or `500ms`.
pub(super) const DURATION: &str = "^[0-9]+(s|ms)$";

impl JsonSchema for Digest {
    fn schema_name() -> Cow<'static, str> {
        "Digest".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A SHA-256 digest, as `sha256:` and 64 hexadecimal digits.",
            "type": "string",
            "pattern": "^sha256:[0-9a-f]{64}$",
        })
    }
}

/// The schema as a text, the content of `docs/policy.schema.json`: written by
/// `cargo run -p lazaret-core --features schema --example policy_schema`.
#[must_use]
pub fn schema() -> String {
    let mut schema = schemars::schema_for!(PolicyV1).to_value();
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".into(), json!("Lazaret policy, version 1"));
    }
    // an editor completes them
    let names: BTreeSet<&str> = Abi::ALL
        .into_iter()
        .flat_map(|abi| table::calls(abi).map(|(_, name)| name))
        .collect();
    let call = schema.pointer_mut("/$defs/CallV1/anyOf/1");
    if let Some(call) = call.and_then(Value::as_object_mut) {
        call.insert("enum".into(), json!(names));
    }
    // a schema is plain JSON: writing it cannot fail (serde_json, "Errors" of to_string_pretty)
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}
