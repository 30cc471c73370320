//! Code systems of FHIR R4, DICOM and our own, and how codes are written. No decisions.

use serde_json::{Value, json};

/// DICOM's audit codes (PS3.16, CID 400 to 402).
pub(super) const DICOM: &str = "http://dicom.nema.org/resources/ontology/DCM";
/// What kind of source observed.
pub(super) const SOURCE_TYPE: &str = "http://terminology.hl7.org/CodeSystem/security-source-type";
/// What kind of thing it happened to.
pub(super) const ENTITY_TYPE: &str = "http://terminology.hl7.org/CodeSystem/audit-entity-type";
/// What part it played.
pub(super) const ENTITY_ROLE: &str = "http://terminology.hl7.org/CodeSystem/object-role";
/// The gate's own events.
pub(super) const OWN: &str = "https://lazaret.dev/fhir/audit-event";
/// Names of nodes.
pub(super) const NODE_SYSTEM: &str = "https://lazaret.dev/fhir/node";
/// Ids of containers, as their engine gives them.
pub(super) const CONTAINER_SYSTEM: &str = "https://lazaret.dev/fhir/container";

/// `AuditEvent.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Something began, ended or changed as it should.
    Activity,
    /// Somebody should look at it.
    Alert,
}

impl Family {
    pub(super) fn coding(self) -> Value {
        match self {
            Family::Activity => coding(DICOM, "110100", "Application Activity"),
            Family::Alert => coding(DICOM, "110113", "Security Alert"),
        }
    }
}

/// `AuditEvent.action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Execute,
    Update,
}

impl Action {
    pub(super) const fn code(self) -> &'static str {
        match self {
            Action::Execute => "E",
            Action::Update => "U",
        }
    }
}

/// `AuditEvent.outcome`; what the grades mean is DICOM's (PS3.15, A.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    /// One call failed, the rest goes on.
    Minor,
    /// What was begun was ended.
    Serious,
    /// Something cannot be used any more.
    Major,
}

impl Outcome {
    pub(super) const fn code(self) -> &'static str {
        match self {
            Outcome::Success => "0",
            Outcome::Minor => "4",
            Outcome::Serious => "8",
            Outcome::Major => "12",
        }
    }
}

pub(super) fn coding(system: &str, code: &str, display: &str) -> Value {
    json!({"system": system, "code": code, "display": display})
}

pub(super) fn concept(system: &str, code: &str, display: &str) -> Value {
    json!({"coding": [coding(system, code, display)]})
}

/// A Reference by identifier: no server needs to know the resource.
pub(super) fn identified(kind: &str, system: &str, value: &str, display: &str) -> Value {
    json!({
        "type": kind,
        "identifier": {"system": system, "value": value},
        "display": display,
    })
}
