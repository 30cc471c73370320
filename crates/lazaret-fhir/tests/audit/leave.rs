//! What may leave the node. Every text of every event is replaced by what must not, one at a time.

use crate::samples::{node, place, samples};
use lazaret_core::event::{Event, What};
use lazaret_fhir::audit::audit_event;
use serde_json::{Value, json};

/// Texts that may leave when they are of their form. All others never do, whatever they are.
const MAY_LEAVE: [&str; 9] = [
    "/container",
    "/version",
    "/mode",
    "/check",
    "/arch",
    "/call",
    "/stricter/0",
    "/stricter/1",
    "/until_restart/0",
];

/// Texts and numbers in a JSON value, as pointers.
fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                leaves(member, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                leaves(item, &format!("{at}/{number}"), found);
            }
        }
        Value::String(_) | Value::Number(_) => found.push(at.to_owned()),
        Value::Null | Value::Bool(_) => {}
    }
}

/// The event with another value there; nothing when it is no event then (the name of a phase, the type).
fn poisoned(event: &Event, pointer: &str, poison: &Value) -> Option<Event> {
    let mut json = serde_json::to_value(event).expect("plain data");
    *json.pointer_mut(pointer)? = poison.clone();
    serde_json::from_value(json).ok()
}

/// Pointers of all events whose value, replaced by `poison`, is in the resource.
fn leaking(poison: &Value, is_text: bool) -> Vec<String> {
    let marker = match poison {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let (mut found, mut tried) = (Vec::new(), 0);
    for event in samples() {
        let json = serde_json::to_value(&event).expect("plain data");
        let mut pointers = Vec::new();
        leaves(&json, "", &mut pointers);
        for pointer in pointers {
            if json.pointer(&pointer).is_some_and(Value::is_string) != is_text {
                continue;
            }
            let Some(event) = poisoned(&event, &pointer, poison) else {
                continue;
            };
            tried += 1;
            let resource = audit_event(&event, &node(), &place(0));
            if resource.is_some_and(|resource| resource.to_string().contains(&marker)) {
                found.push(pointer);
            }
        }
    }
    assert!(tried > 15, "{tried}");
    found.sort();
    found.dedup();
    found
}

#[test]
fn health_data_leaves_by_no_field() {
    for poison in [
        "Anna Ek 191212121212",
        "Müller",
        "/data/patients/17",
        "a\nb",
        "{\"x\":1}",
    ] {
        assert_eq!(leaking(&json!(poison), true), [""; 0], "{poison}");
    }
}

#[test]
fn names_leave_by_the_listed_fields_only() {
    let mut expected = MAY_LEAVE.map(str::to_owned);
    expected.sort();
    assert_eq!(leaking(&json!("anna-ek"), true), expected);
}

#[test]
fn no_argument_and_no_process_id_leaves() {
    let found = leaking(&json!(4_242_424_242_u32), false);
    assert!(
        found
            .iter()
            .all(|at| !at.starts_with("/args") && at != "/pid"),
        "{found:?}"
    );
    // the other side: numbers that are meant to leave do
    assert!(found.contains(&"/times".to_owned()) && found.contains(&"/nr".to_owned()));
}

#[test]
fn a_container_with_a_persons_name_is_told_by_its_digest() {
    let event = Event {
        v: 1,
        time_ms: 0,
        container: "Anna Ek".to_owned(),
        what: What::Ended { exec: false },
    };
    let resource = audit_event(&event, &node(), &place(0)).expect("exported");
    let id = &resource["entity"][0]["what"]["identifier"]["value"];
    assert!(
        id.as_str().is_some_and(|id| id.starts_with("sha256:")),
        "{id}"
    );
}

#[test]
fn exact_counts_leave() {
    let denied = samples().into_iter().find_map(|event| {
        matches!(event.what, What::Denied { .. })
            .then(|| audit_event(&event, &node(), &place(0)))
            .flatten()
    });
    let denied = denied.expect("exported");
    let details = &denied["entity"][0]["detail"];
    let times = json!({"type": "times", "valueString": "100000"});
    assert!(
        details.as_array().is_some_and(|all| all.contains(&times)),
        "{details}"
    );
    assert_eq!(
        (&denied["outcome"], &denied["type"]["code"]),
        (&json!("4"), &json!("110113"))
    );
}
