//! Against HL7's JSON Schema of R4 (`tests/vectors/fhir`), which holds the required bindings (`action`, `outcome`) as well.
//! What it does not hold is asked of a real server (`real.rs`).

use crate::samples::{exported, node, place, samples};
use jsonschema::Validator;
use lazaret_core::event::Event;
use lazaret_fhir::audit::{audit_event, bundle};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const SCHEMA: &str = include_str!("../../../../tests/vectors/fhir/auditevent.schema.json");

fn r4() -> Validator {
    let schema = serde_json::from_str(SCHEMA).expect("the schema is JSON");
    jsonschema::validator_for(&schema).expect("a JSON Schema")
}

fn check(validator: &Validator, resource: &Value) {
    if let Err(error) = validator.validate(resource) {
        panic!("{error} at {}: {resource:#}", error.instance_path());
    }
}

#[test]
fn every_resource_is_valid() {
    let r4 = r4();
    let exported = exported();
    for (_, resource) in &exported {
        check(&r4, resource);
    }
    let resources: Vec<Value> = exported.into_iter().map(|(_, resource)| resource).collect();
    check(&r4, &bundle(&resources));
}

#[test]
fn every_time_makes_a_valid_resource() {
    let r4 = r4();
    let event = &samples()[0];
    for time_ms in [0, 1, 253_402_300_799_999, u64::MAX >> 1, u64::MAX] {
        let event = Event {
            time_ms,
            ..event.clone()
        };
        check(
            &r4,
            &audit_event(&event, &node(), &place(0)).expect("exported"),
        );
    }
}

#[test]
fn what_is_wrong_is_seen() {
    let r4 = r4();
    let (_, good) = exported().swap_remove(0);
    let wrong: &[(&str, Value)] = &[
        ("/outcome", json!("5")),
        ("/action", json!("X")),
        ("/recorded", json!("2026-11-22T10:00:00")),
        ("/id", json!("a b")),
        ("/agent/0/requestor", json!("true")),
        ("/entity/0/detail/0/valueString", json!(7)),
        ("/entity/0/what/who", json!("unknown element")),
        ("/type", Value::Null),
        ("/source", Value::Null),
    ];
    for (pointer, value) in wrong {
        let mut resource = good.clone();
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        let parent = resource.pointer_mut(parent).expect("there");
        let object = parent.as_object_mut().expect("an object");
        if value.is_null() {
            object.remove(name);
        } else {
            object.insert(name.to_owned(), value.clone());
        }
        assert!(!r4.is_valid(&resource), "{pointer}");
        assert!(!r4.is_valid(&bundle(&[resource])), "{pointer} in a Bundle");
    }
}

#[test]
fn ids_are_the_events_own() {
    let event = &samples()[0];
    let id = |event: &Event, node: &str, place| {
        let node = lazaret_fhir::audit::Node::new(node).expect("a plain name");
        audit_event(event, &node, &place).expect("exported")["id"].to_string()
    };
    let other_time = Event {
        time_ms: event.time_ms + 1,
        ..event.clone()
    };
    let mut other_log = place(1);
    other_log.log[31] ^= 1;
    let first = id(event, "a", place(1));
    assert_eq!(first, id(event, "a", place(1)));
    // Recorded once: what was exported yesterday has the same id tomorrow.
    assert_eq!(first, "\"042bb543-c4f6-8680-96a1-9cafc674ee45\"");
    let ids = BTreeSet::from([
        first,
        id(event, "b", place(1)),
        id(event, "a", place(2)),
        id(event, "a", other_log),
        id(&other_time, "a", place(1)),
    ]);
    assert_eq!(ids.len(), 5);
}

#[test]
fn the_bundle_puts_each_resource_under_its_id() {
    let resources: Vec<Value> = exported().into_iter().map(|(_, r)| r).collect();
    let bundle = bundle(&resources);
    assert_eq!(bundle["type"], "batch");
    let entries = bundle["entry"].as_array().expect("entries");
    assert_eq!(entries.len(), resources.len());
    for (entry, resource) in entries.iter().zip(&resources) {
        assert_eq!(&entry["resource"], resource);
        let url = format!("AuditEvent/{}", resource["id"].as_str().expect("an id"));
        assert_eq!(entry["request"], json!({"method": "PUT", "url": url}));
    }
}
