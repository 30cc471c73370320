//! Events of the gate as FHIR R4 `AuditEvent` resources. Pure: no clock, no file, no network.
//!
//! | event | type, subtype (DICOM) | action | outcome | why, or why not |
//! | --- | --- | --- | --- | --- |
//! | `gate_started` | 110100, 110120 Application Start | E | 0 | from here on the node is watched |
//! | `gate_stopped` | 110100, 110121 Application Stop | E | 0 | and until here |
//! | `listener_received` | – | | | says nothing yet: `admitted` or `refused` follows |
//! | `admitted` | 110100, 110120 Application Start | E | 0 | which image runs under which policy, signed by which key |
//! | `refused` | 110113 Security Alert | E | 8 | a start that was not let through |
//! | `phase_changed` | 110100 | E | 0 | another part of the policy holds |
//! | `dwell_began` | – | | | nothing is decided otherwise yet: `phase_changed` follows |
//! | `restart_refused` | 110113, 110132 Use of Restricted Function | E | 4 | the server's way back to its start-up rights was closed |
//! | `revised` | 110113, 110129 Security Configuration | U | 0 | another policy holds |
//! | `permitted` | 110113, 110127 Emergency Override Started | E | 0 | somebody went in under a permit |
//! | `taken_over` | 110100 | E | 0 | the watch went on after a restart of the daemon |
//! | `papers_lost` | 110113 | E | 12 | every asked call of the container fails |
//! | `denied` | 110113, 110132 Use of Restricted Function | E | 4; 0 when the call went on | with the exact count |
//! | `asked` | – | | | a statistic; what was denied is told apart |
//! | `unsupervised` | 110113 | E | 8 | a container runs that nobody answers |
//! | `ended` | 110100, 110121 Application Stop | E | 0 | closes what `admitted` opened |
//! | `events_lost` | 110113 | E | 8 | this record has a hole |
//! | `audit_lost` | 110113 | E | 8 | so has what was exported |
//!
//! # What leaves the node
//!
//! Only fixed words of this module, numbers, digests, and names that were checked character by character ([`clean`]):
//! the node's name, the container's id, names of calls, of checks and of calling conventions, the version of the program and
//! ids of keys. A value that is not of its form is left out; a container id that is not is replaced by its SHA-256. Never:
//! arguments of calls, names of processes (a process chooses its own), process ids, paths, and sentences, the reasons of
//! refusals and permits among them.

pub mod clean;
mod codes;
mod told;

use codes::{NODE_SYSTEM, coding, concept, identified};
use jiff::Timestamp;
use lazaret_core::event::Event;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use told::{Requestor, Told, told};

/// Resources of a Bundle that a server is given at once, at most.
pub const MAX_ENTRIES: usize = 100;

/// Bytes of a node's name.
const MAX_NODE: usize = 253;

/// A name cannot be a node's.
#[derive(Debug, thiserror::Error)]
#[error(
    "node name `{name}` has characters besides A-Z a-z 0-9 . _ - or is not of 1 to {MAX_NODE} bytes"
)]
pub struct NodeError {
    /// What was given, cut.
    pub name: String,
}

/// The node that observes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    name: String,
}

impl Node {
    /// A node by the name under which auditors know it.
    ///
    /// # Errors
    /// A name that is empty, longer than 253 bytes, or has other characters than those of host names and `_`.
    pub fn new(name: &str) -> Result<Node, NodeError> {
        if clean::name(name, MAX_NODE).is_some() {
            Ok(Node {
                name: name.to_owned(),
            })
        } else {
            Err(NodeError {
                name: name.chars().take(64).collect(),
            })
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Where an event stands in the log: two events that say the same differ here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The log file's identity, which does not change when it is renamed or read again.
    pub log: [u8; 32],
    /// The byte in it at which the event's line begins.
    pub offset: u64,
}

/// The `AuditEvent` of an event; nothing for the events that are not exported (see the table above).
///
/// The same event of the same node at the same place is the same resource with the same id, so posting it again after a crash
/// changes nothing on the server.
#[must_use]
pub fn audit_event(event: &Event, node: &Node, place: &Place) -> Option<Value> {
    let told = told(&event.what)?;
    Some(json!({
        "resourceType": "AuditEvent",
        "id": id(event, node, place),
        "type": told.family.coding(),
        "subtype": subtypes(&told),
        "action": told.action.code(),
        "recorded": instant(event.time_ms),
        "outcome": told.outcome.code(),
        "outcomeDesc": told.sentence,
        "agent": agents(&told, event, node),
        "source": {
            "site": node.name,
            "observer": who(node),
            "type": [coding(codes::SOURCE_TYPE, "6", "Security Server")],
        },
        "entity": [entity(told, event, node)],
    }))
}

/// A `batch` Bundle that creates or updates each resource under its own id.
#[must_use]
pub fn bundle(resources: &[Value]) -> Value {
    let entries: Vec<Value> = resources
        .iter()
        .map(|resource| {
            let id = resource["id"].as_str().unwrap_or_default();
            json!({
                "fullUrl": format!("urn:uuid:{id}"),
                "resource": resource,
                "request": {"method": "PUT", "url": format!("AuditEvent/{id}")},
            })
        })
        .collect();
    json!({"resourceType": "Bundle", "type": "batch", "entry": entries})
}

/// A UUID of version 8 (RFC 9562, appendix B.2): from SHA-256 over all that makes the event this one.
fn id(event: &Event, node: &Node, place: &Place) -> String {
    let mut hash = Sha256::new();
    hash.update(b"lazaret AuditEvent v1\0");
    hash.update(node.name.as_bytes());
    hash.update([0]);
    hash.update(place.log);
    hash.update(place.offset.to_be_bytes());
    // Events are plain data with text as keys: they can be written down.
    hash.update(serde_json::to_vec(event).unwrap_or_default());
    let digest: [u8; 32] = hash.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes)
        .into_uuid()
        .to_string()
}

/// FHIR's `instant` in UTC. What lies past the year 9999, the last that an instant can say, is the end of it.
fn instant(time_ms: u64) -> String {
    let time = i64::try_from(time_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or(Timestamp::MAX);
    format!("{time:.3}")
}

fn subtypes(told: &Told) -> Vec<Value> {
    let dicom = told
        .dicom
        .map(|(code, display)| coding(codes::DICOM, code, display));
    let own = coding(codes::OWN, told.code, told.display);
    dicom.into_iter().chain([own]).collect()
}

fn who(node: &Node) -> Value {
    identified("Device", NODE_SYSTEM, &node.name, "lazaretd")
}

fn agents(told: &Told, event: &Event, node: &Node) -> Vec<Value> {
    let application = || concept(codes::DICOM, "110150", "Application");
    let gate = json!({
        "type": application(),
        "who": who(node),
        "name": "lazaretd",
        "requestor": told.requestor == Requestor::Gate,
    });
    if told.requestor != Requestor::Process || event.container.is_empty() {
        return vec![gate];
    }
    let id = clean::container(&event.container);
    let process = json!({
        "type": application(),
        "who": identified("Device", codes::CONTAINER_SYSTEM, &id, "container"),
        "requestor": true,
    });
    vec![process, gate]
}

/// What it happened to: the container, or the daemon itself.
fn entity(told: Told, event: &Event, node: &Node) -> Value {
    let what = if event.container.is_empty() {
        who(node)
    } else {
        let id = clean::container(&event.container);
        json!({
            "identifier": {"system": codes::CONTAINER_SYSTEM, "value": id},
            "display": "container",
        })
    };
    let mut entity = json!({
        "what": what,
        "type": coding(codes::ENTITY_TYPE, "2", "System Object"),
        "role": coding(codes::ENTITY_ROLE, "13", "Security Resource"),
    });
    let details: Vec<Value> = told
        .details
        .into_iter()
        .map(|(name, value)| json!({"type": name, "valueString": value}))
        .collect();
    // FHIR has no empty lists.
    if !details.is_empty() {
        entity["detail"] = details.into();
    }
    entity
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_an_instant() {
        for (ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_709_164_799_999, "2024-02-28T23:59:59.999Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (u64::MAX, "9999-12-30T22:00:00.999Z"),
            (i64::MAX.unsigned_abs(), "9999-12-30T22:00:00.999Z"),
        ] {
            assert_eq!(instant(ms), expected, "{ms}");
        }
    }

    #[test]
    fn nodes_have_plain_names() {
        for good in ["n", "node-7.ward_3.example", &"x".repeat(253)] {
            assert_eq!(Node::new(good).expect("good").name(), good);
        }
        for bad in ["", "Müller", "a b", "a/b", &"x".repeat(254)] {
            assert!(Node::new(bad).is_err(), "{bad}");
        }
    }
}
