//! The exporter against a real FHIR server, which `cargo xtask audit` starts: what it posts is taken and can be read back.

use super::super::Pace;
use super::super::spawn_at;
use super::stage::{QUICK, Stage, stop, wait};
use lazaret_fhir::audit::audit_event;
use serde_json::Value;
use std::time::Duration;
use ureq::Agent;

/// The base of the server.
const VARIABLE: &str = "LAZARET_AUDIT_FHIR";

#[test]
#[ignore = "needs a FHIR server: cargo xtask audit"]
fn what_is_posted_can_be_read_back() {
    let base = std::env::var(VARIABLE).expect("`cargo xtask audit` names the server");
    let stage = Stage::at(&base);
    stage.events("c0ffee", 0..250);
    let pace = Pace {
        request: Duration::from_secs(60),
        ..QUICK
    };
    let export = spawn_at(pace, &stage.settings, &stage.log(), |_| {}).expect("it starts");
    let metrics = wait(&export, "all posted", |m| m.posted == 250);
    assert_eq!(
        (metrics.rejected, metrics.queued_files),
        (0, 0),
        "{metrics:?}"
    );
    stop(export);

    let agent: Agent = Agent::config_builder().proxy(None).build().into();
    let get = |path: &str| -> Value {
        let mut answer = agent
            .get(format!("{base}/{path}"))
            .call()
            .expect("an answer");
        answer.body_mut().read_json().expect("JSON")
    };
    let count = || get("AuditEvent?_summary=count&_total=accurate")["total"].clone();
    assert_eq!(count(), 250);
    // The one in the middle, as it was made.
    let found = super::super::follow::read(&stage.log(), None, 1000).expect("read");
    let (event, cursor) = &found.events[125];
    let made = audit_event(event, &stage.settings.node, &cursor.place()).expect("exported");
    let stored = get(&format!(
        "AuditEvent/{}",
        made["id"].as_str().expect("an id")
    ));
    for (name, value) in made.as_object().expect("a resource") {
        assert_eq!(&stored[name], value, "{name}");
    }

    // A crash that lost the queue: everything again, and the server has no more than before, each in its first version.
    std::fs::remove_dir_all(&stage.settings.queue).expect("removed");
    let export = spawn_at(pace, &stage.settings, &stage.log(), |_| {}).expect("it starts");
    wait(&export, "all posted again", |m| m.posted == 250);
    stop(export);
    assert_eq!(count(), 250);
    let again = get(&format!(
        "AuditEvent/{}",
        made["id"].as_str().expect("an id")
    ));
    assert_eq!(again["meta"]["versionId"], "1");
    println!("250 resources were posted twice and stored once");
}
