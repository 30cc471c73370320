//! What a real FHIR R4 server says, with the official definitions, its value sets and invariants. `cargo xtask audit` starts one
//! and names it in [`VARIABLE`].

use crate::samples::exported;
use serde_json::{Value, json};
use std::time::Duration;
use ureq::Agent;

/// The base of the server.
const VARIABLE: &str = "LAZARET_AUDIT_FHIR";

/// The first validation reads all definitions.
const LIMIT: Duration = Duration::from_secs(300);

fn validate(agent: &Agent, base: &str, resource: &Value) -> Vec<Value> {
    let mut answer = agent
        .post(format!("{base}/AuditEvent/$validate"))
        .header("Content-Type", "application/fhir+json")
        .send(resource.to_string())
        .expect("an answer");
    let outcome: Value = answer.body_mut().read_json().expect("JSON");
    assert_eq!(outcome["resourceType"], "OperationOutcome", "{outcome}");
    outcome["issue"].as_array().expect("issues").clone()
}

fn is_error(issue: &Value) -> bool {
    matches!(issue["severity"].as_str(), Some("error" | "fatal"))
}

#[test]
#[ignore = "needs a FHIR server: cargo xtask audit"]
fn every_resource_is_valid_for_a_real_server() {
    let base = std::env::var(VARIABLE).expect("`cargo xtask audit` names the server");
    let agent: Agent = Agent::config_builder()
        .timeout_global(Some(LIMIT))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into();
    let exported = exported();
    for (event, resource) in &exported {
        let issues = validate(&agent, &base, resource);
        let errors: Vec<_> = issues.iter().filter(|issue| is_error(issue)).collect();
        assert!(errors.is_empty(), "{event:?}: {errors:#?}");
        for issue in &issues {
            println!(
                "{} {}: {}",
                resource["subtype"][0]["code"], issue["severity"], issue["diagnostics"]
            );
        }
    }
    // The other side: this server does see what is wrong.
    for (name, value) in [
        ("outcome", json!("5")),
        ("action", json!("X")),
        ("agent", json!([])),
    ] {
        let mut wrong = exported[0].1.clone();
        wrong[name] = value;
        let issues = validate(&agent, &base, &wrong);
        assert!(issues.iter().any(is_error), "{name}: {issues:#?}");
    }
    println!("{} resources are valid", exported.len());
}
