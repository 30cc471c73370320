//! The predicate of a permit as it is written; versioned by its type.

use super::{Calls, Kind, Permit, PermitError, Terms, from_utc, utc};
use crate::statement::StatementError;
use lazaret_core::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// `predicateType` of a permit.
pub const PREDICATE_TYPE: &str = "https://lazaret.dev/permit/v1";

/// The only kind yet. Another has its own fields, so the kind is read before them.
const EXEC: &str = "exec";

/// What is read first; the rest depends on it.
#[derive(Deserialize)]
struct KindV1 {
    kind: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ExecV1 {
    kind: String,
    calls: CallsV1,
    reason: String,
    not_before: String,
    not_after: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<String>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CallsV1 {
    Policy,
    Ceiling,
}

/// The predicate's bytes.
pub(super) fn predicate(permit: &Permit) -> Result<Vec<u8>, StatementError> {
    let terms = permit.terms();
    let Kind::Exec { calls } = terms.kind;
    Ok(serde_json::to_vec(&ExecV1 {
        kind: EXEC.to_owned(),
        calls: match calls {
            Calls::Policy => CallsV1::Policy,
            Calls::Ceiling => CallsV1::Ceiling,
        },
        reason: terms.reason.clone(),
        not_before: utc(terms.not_before_ms),
        not_after: utc(terms.not_after_ms),
        container: terms.container.clone(),
        node: terms.node.clone(),
    })?)
}

/// A permit for these subjects from the predicate's bytes.
pub(super) fn read(images: BTreeSet<Digest>, predicate: &[u8]) -> Result<Permit, PermitError> {
    let KindV1 { kind } = serde_json::from_slice(predicate).map_err(PermitError::Format)?;
    if kind != EXEC {
        return Err(PermitError::Kind {
            found: kind.chars().take(40).collect(),
        });
    }
    let wire: ExecV1 = serde_json::from_slice(predicate).map_err(PermitError::Format)?;
    let time = |text: &str| {
        from_utc(text).ok_or_else(|| PermitError::Time {
            found: text.chars().take(40).collect(),
        })
    };
    let calls = match wire.calls {
        CallsV1::Policy => Calls::Policy,
        CallsV1::Ceiling => Calls::Ceiling,
    };
    Ok(Permit::new(Terms {
        images,
        kind: Kind::Exec { calls },
        not_before_ms: time(&wire.not_before)?,
        not_after_ms: time(&wire.not_after)?,
        reason: wire.reason,
        container: wire.container,
        node: wire.node,
    })?)
}
