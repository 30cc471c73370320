//! Reading a CapabilityStatement: HAPI's as it is, and everything that must be refused.

use lazaret_fhir::capability::{CapabilityError, parse};
use serde_json::{Value, json};

const HAPI: &str = include_str!("vectors/hapi-8.8.0-capability.json");
const URL: &str = "http://server/fhir/metadata";

fn read(value: &Value) -> Result<lazaret_fhir::capability::Capability, CapabilityError> {
    parse(URL, "application/fhir+json", value.to_string().as_bytes())
}

#[test]
fn hapi_is_read() {
    let hapi = parse(URL, "application/fhir+json", HAPI.as_bytes()).expect("HAPI's own");
    assert_eq!(hapi.fhir_version, "4.0.1");
    assert_eq!(hapi.software, "HAPI FHIR Server 8.8.0");
    assert!(hapi.formats.contains("application/fhir+xml"));
    assert!(hapi.patch_formats.contains("application/json-patch+json"));
    let system: Vec<&str> = hapi
        .system_interactions
        .iter()
        .map(String::as_str)
        .collect();
    assert_eq!(system, ["history-system", "transaction"]);
    assert!(hapi.system_operations.contains("export"));
    assert_eq!(hapi.types.len(), 8);
    let patient = hapi.types.get("Patient").expect("Patient");
    let interactions: Vec<&str> = patient.interactions.iter().map(String::as_str).collect();
    let all = [
        "create",
        "delete",
        "history-instance",
        "history-type",
        "patch",
        "read",
        "search-type",
        "update",
        "vread",
    ];
    assert_eq!(interactions, all);
    assert_eq!(patient.versioning, "versioned-update");
    assert!(patient.conditional_create && patient.conditional_update && patient.conditional_delete);
    assert_eq!(
        patient.search.get("birthdate").map(String::as_str),
        Some("date")
    );
    assert!(patient.includes.contains("Patient:organization"));
    assert!(patient.operations.contains("everything") && patient.operations.contains("validate"));
}

#[test]
fn what_is_not_said_is_not_declared() {
    let least = json!({
        "resourceType": "CapabilityStatement",
        "fhirVersion": "4.3.0",
        "rest": [{"mode": "client"}, {"mode": "server", "resource": [{"type": "Patient"}]}],
    });
    let least = read(&least).expect("the least there can be");
    assert_eq!(least.software, "unnamed");
    let patient = least.types.get("Patient").expect("Patient");
    assert_eq!(
        *patient,
        lazaret_fhir::capability::TypeCapability::default()
    );
    assert!(least.system_interactions.is_empty() && least.system_operations.is_empty());
}

#[test]
fn what_is_not_fhir_is_refused_with_what_was_found() {
    let refused = |body: &[u8], content_type: &str| {
        parse(URL, content_type, body)
            .expect_err("not FHIR")
            .to_string()
    };
    assert_eq!(
        refused(b"<!DOCTYPE html>\n<html>  <title>Welcome", "text/html"),
        "http://server/fhir/metadata is not FHIR: it answers `text/html` that is not JSON: <!DOCTYPE html> <html> <title>Welcome"
    );
    assert_eq!(
        refused(b"", ""),
        "http://server/fhir/metadata is not FHIR: it answers no content type that is not JSON: "
    );
    assert_eq!(
        refused(b"{\"status\": \"UP\"}", "application/json"),
        "http://server/fhir/metadata is not FHIR: resourceType is missing, not CapabilityStatement"
    );
    assert_eq!(
        refused(b"{\"resourceType\": \"Patient\"}", "application/json"),
        "http://server/fhir/metadata is not FHIR: resourceType is `Patient`, not CapabilityStatement"
    );
}

#[test]
fn what_is_fhir_of_another_kind_is_refused() {
    let statement = |version: &str, rest: Value| json!({"resourceType": "CapabilityStatement", "fhirVersion": version, "rest": rest});
    let refused = |value: &Value| read(value).expect_err("not to be exercised");
    let found = refused(&statement("3.0.2", json!([{"mode": "server"}])));
    assert!(
        matches!(&found, CapabilityError::Release { found, .. } if found == "3.0.2"),
        "{found}"
    );
    for rest in [json!([]), json!([{"mode": "client"}])] {
        let found = refused(&statement("4.0.1", rest));
        assert!(matches!(found, CapabilityError::NoServer { .. }), "{found}");
    }
    for rest in [
        json!("server"),
        json!([{"mode": 1}]),
        json!([{"mode": "server", "resource": [{}]}]),
    ] {
        let found = refused(&statement("4.0.1", rest));
        assert!(
            matches!(found, CapabilityError::Malformed { .. }),
            "{found}"
        );
    }
}
