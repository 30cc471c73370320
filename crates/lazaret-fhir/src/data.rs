//! Fictional resources. No person in them exists: names are put together from syllables, places do not exist, identifiers
//! are in a system of our own.
//!
//! What a resource says depends on the seed, its type and its index only, so two runs send the same data. Its identifier and
//! its tag name the run as well, so that a run finds its own resources on a server that holds those of others.

use crate::kind::Kind;
use crate::random::Random;
use serde_json::{Map, Value, json};

/// System of the identifiers.
pub const IDENTIFIER_SYSTEM: &str = "https://lazaret.dev/fictional";
/// System of the tag that every resource carries.
pub const TAG_SYSTEM: &str = "https://lazaret.dev/fictional/run";

const SYLLABLES: [&str; 24] = [
    "bel", "dor", "fen", "gal", "hul", "jor", "kem", "lun", "mar", "nim", "or", "pel", "quar",
    "ros", "sil", "tam", "ul", "vor", "wes", "yar", "zan", "cor", "dri", "eth",
];
const ENDINGS: [&str; 8] = [
    "ax", "ovan", "iddle", "orrow", "umber", "ennick", "ask", "ilio",
];

/// Which of the resources of which run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Chooses the content.
    pub seed: u64,
    /// Number of the run, unique per server.
    pub run: u32,
    /// Which resource of its type.
    pub index: u32,
}

impl Identity {
    fn random(self, kind: Kind) -> Random {
        Random::new(&[self.seed, kind as u64, u64::from(self.index)])
    }

    /// The identifier's value.
    #[must_use]
    pub fn identifier(self, kind: Kind) -> String {
        let kind = kind.name().to_ascii_lowercase();
        format!("r{}-{kind}-{}", self.run, self.index)
    }

    /// The identifier as a token for a search.
    #[must_use]
    pub fn token(self, kind: Kind) -> String {
        format!("{IDENTIFIER_SYSTEM}|{}", self.identifier(kind))
    }

    /// The run's tag as a token for a search.
    #[must_use]
    pub fn tag(self) -> String {
        format!("{TAG_SYSTEM}|run-{}", self.run)
    }

    /// The family name of a person, the name of an organization.
    #[must_use]
    pub fn name(self, kind: Kind) -> String {
        let mut random = self.random(kind);
        match kind {
            Kind::Organization => format!("{} Lazaret", word(&mut random)),
            _ => word(&mut random),
        }
    }
}

/// References (`Patient/1`) that a resource may make. What is missing becomes a reference with a display text only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// An organization.
    pub organization: Option<String>,
    /// A practitioner.
    pub practitioner: Option<String>,
    /// A patient.
    pub patient: Option<String>,
    /// An encounter.
    pub encounter: Option<String>,
}

/// One resource.
#[must_use]
pub fn resource(kind: Kind, identity: Identity, links: &Links) -> Value {
    let mut random = identity.random(kind);
    // The name is the first that is drawn, see `Identity::name`.
    let name = identity.name(kind);
    let first = word(&mut random);
    let random = &mut random;
    let mut body = match kind {
        Kind::Organization => json!({
            "active": true,
            "name": name,
            "type": [concept("http://terminology.hl7.org/CodeSystem/organization-type", "prov")],
            "address": [address(random)],
        }),
        Kind::Practitioner => json!({
            "active": true,
            "name": [{"use": "official", "family": name, "given": [word(random)]}],
            "gender": gender(random),
            "telecom": [phone(random)],
            "address": [address(random)],
        }),
        Kind::Patient => json!({
            "active": true,
            "name": [{"use": "official", "family": name, "given": [word(random), word(random)]}],
            "gender": gender(random),
            "birthDate": day(random, 1930, 85),
            "telecom": [phone(random)],
            "address": [address(random)],
            "managingOrganization": link(links.organization.as_ref()),
            "generalPractitioner": [link(links.practitioner.as_ref())],
        }),
        Kind::Encounter => encounter(random, links),
        Kind::Condition => condition(random, identity.index, links),
        Kind::Observation => observation(random, identity.index, links),
        Kind::Bundle => json!({
            "type": "collection",
            "timestamp": time(random),
            "entry": [{
                "fullUrl": uuid(random),
                "resource": {
                    "resourceType": "Basic",
                    "code": {"text": format!("note of {first}")},
                    "created": day(random, 2015, 8),
                },
            }],
        }),
    };
    if let (Kind::Organization, true, Some(parent), Value::Object(map)) =
        (kind, identity.index > 0, &links.organization, &mut body)
    {
        map.insert("partOf".to_owned(), json!({"reference": parent}));
    }
    finish(kind, identity, body)
}

fn finish(kind: Kind, identity: Identity, body: Value) -> Value {
    let identifier = json!({"system": IDENTIFIER_SYSTEM, "value": identity.identifier(kind)});
    let mut map = match body {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    map.insert("resourceType".to_owned(), kind.name().into());
    map.insert(
        "meta".to_owned(),
        json!({"tag": [{"system": TAG_SYSTEM, "code": format!("run-{}", identity.run)}]}),
    );
    // Bundle.identifier is 0..1, the others' is 0..*.
    let identifier = if kind == Kind::Bundle {
        identifier
    } else {
        json!([identifier])
    };
    map.insert("identifier".to_owned(), identifier);
    Value::Object(map)
}

fn encounter(random: &mut Random, links: &Links) -> Value {
    let day = day(random, 2015, 8);
    let minutes = 10 + random.below(50);
    json!({
        "status": "planned",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
        "subject": link(links.patient.as_ref()),
        "participant": [{"individual": link(links.practitioner.as_ref())}],
        "serviceProvider": link(links.organization.as_ref()),
        "period": {"start": format!("{day}T08:00:00Z"), "end": format!("{day}T08:{minutes}:00Z")},
        "length": quantity(minutes.into(), "min"),
    })
}

fn condition(random: &mut Random, index: u32, links: &Links) -> Value {
    // ICD-10 chapters' everyday codes.
    let code = random
        .pick(&["J00", "I10", "E11", "M54"])
        .copied()
        .unwrap_or("J00");
    let mut body = json!({
        "clinicalStatus": concept("http://terminology.hl7.org/CodeSystem/condition-clinical", "resolved"),
        "verificationStatus": concept("http://terminology.hl7.org/CodeSystem/condition-ver-status", "confirmed"),
        "code": concept("http://hl7.org/fhir/sid/icd-10", code),
        "subject": link(links.patient.as_ref()),
        "encounter": link(links.encounter.as_ref()),
        "recordedDate": day(random, 2015, 5),
    });
    if let Value::Object(map) = &mut body {
        // onset[x] and abatement[x] are one of several types each; both sorts occur in any two neighbours.
        let (onset, abatement) = if index.is_multiple_of(2) {
            (
                ("onsetDateTime", day(random, 2010, 5).into()),
                ("abatementDateTime", day(random, 2021, 2).into()),
            )
        } else {
            (
                ("onsetAge", quantity((20 + random.below(40)).into(), "a")),
                ("abatementString", json!("healed")),
            )
        };
        map.insert(onset.0.to_owned(), onset.1);
        map.insert(abatement.0.to_owned(), abatement.1);
    }
    body
}

fn observation(random: &mut Random, index: u32, links: &Links) -> Value {
    // LOINC codes of the vital signs profile, UCUM units.
    let (code, value) = match index % 3 {
        0 => (
            "8867-4",
            (
                "valueQuantity",
                quantity((55 + random.below(50)).into(), "/min"),
            ),
        ),
        1 => (
            "8310-5",
            (
                "valueQuantity",
                quantity((36 + random.below(3)).into(), "Cel"),
            ),
        ),
        _ => ("8693-4", ("valueString", json!("calm and oriented"))),
    };
    let mut body = json!({
        "status": "final",
        "category": [concept("http://terminology.hl7.org/CodeSystem/observation-category", "vital-signs")],
        "code": concept("http://loinc.org", code),
        "subject": link(links.patient.as_ref()),
        "encounter": link(links.encounter.as_ref()),
        "performer": [link(links.practitioner.as_ref())],
        "effectiveDateTime": time(random),
    });
    if let Value::Object(map) = &mut body {
        map.insert(value.0.to_owned(), value.1);
    }
    body
}

/// One entry of a batch or transaction.
#[must_use]
pub fn entry(method: &str, url: &str, full_url: Option<&str>, resource: Option<Value>) -> Value {
    let mut map = Map::new();
    map.insert("request".to_owned(), json!({"method": method, "url": url}));
    if let Some(full_url) = full_url {
        map.insert("fullUrl".to_owned(), full_url.into());
    }
    if let Some(resource) = resource {
        map.insert("resource".to_owned(), resource);
    }
    Value::Object(map)
}

/// A transaction of a patient, an encounter and an observation that refer to each other by `urn:uuid`.
#[must_use]
pub fn transaction(identity: Identity) -> Value {
    let mut random = Random::new(&[
        identity.seed,
        u64::from(identity.run),
        u64::from(identity.index),
    ]);
    let patient = uuid(&mut random);
    let encounter = uuid(&mut random);
    let observation = uuid(&mut random);
    let links = Links {
        patient: Some(patient.clone()),
        encounter: Some(encounter.clone()),
        ..Links::default()
    };
    let entries: Vec<Value> = [
        (Kind::Patient, patient),
        (Kind::Encounter, encounter),
        (Kind::Observation, observation),
    ]
    .into_iter()
    .map(|(kind, url)| {
        // An encounter does not refer to itself: its links have no place for it.
        entry(
            "POST",
            kind.name(),
            Some(&url),
            Some(resource(kind, identity, &links)),
        )
    })
    .collect();
    bundle("transaction", entries)
}

/// A Bundle to be posted to the base.
#[must_use]
pub fn bundle(of: &str, entries: Vec<Value>) -> Value {
    json!({"resourceType": "Bundle", "type": of, "entry": entries})
}

fn word(random: &mut Random) -> String {
    let mut word = String::new();
    for _ in 0..2 {
        word.push_str(random.pick(&SYLLABLES).copied().unwrap_or("lo"));
    }
    word.push_str(random.pick(&ENDINGS).copied().unwrap_or("in"));
    let mut letters = word.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

fn gender(random: &mut Random) -> &'static str {
    random
        .pick(&["female", "male", "other"])
        .copied()
        .unwrap_or("unknown")
}

fn address(random: &mut Random) -> Value {
    json!({
        "use": "home",
        "line": [format!("{} {} Quay", 1 + random.below(99), word(random))],
        "city": format!("Port {}", word(random)),
        "postalCode": format!("{:05}", random.below(100_000)),
    })
}

fn phone(random: &mut Random) -> Value {
    // 555-0100 to 555-0199 are kept free for fiction (NANPA).
    json!({"system": "phone", "value": format!("555-01{:02}", random.below(100)), "use": "work"})
}

fn day(random: &mut Random, from: u64, years: u64) -> String {
    let (year, month, day) = (
        from + random.below(years),
        1 + random.below(12),
        1 + random.below(28),
    );
    format!("{year:04}-{month:02}-{day:02}")
}

fn time(random: &mut Random) -> String {
    let day = day(random, 2015, 5);
    format!("{day}T{:02}:{:02}:00Z", random.below(24), random.below(60))
}

fn quantity(value: Value, unit: &str) -> Value {
    json!({"value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit})
}

fn concept(system: &str, code: &str) -> Value {
    json!({"coding": [{"system": system, "code": code}]})
}

fn link(to: Option<&String>) -> Value {
    match to {
        Some(to) => json!({"reference": to}),
        None => json!({"display": "not known to this server"}),
    }
}

/// A `urn:uuid` of version 4 (RFC 9562) from the generator.
fn uuid(random: &mut Random) -> String {
    let (high, low) = (random.next(), random.next());
    let third = 0x4000 | (high & 0x0fff);
    let fourth = 0x8000 | (low >> 48 & 0x3fff);
    format!(
        "urn:uuid:{:08x}-{:04x}-{third:04x}-{fourth:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Identity = Identity {
        seed: 1,
        run: 1,
        index: 1,
    };

    #[test]
    fn the_same_identity_gives_the_same_bytes_and_its_parts_matter() {
        for kind in Kind::ALL {
            let make = |identity| resource(kind, identity, &Links::default()).to_string();
            assert_eq!(make(ONE), make(ONE));
            for other in [
                Identity { seed: 2, ..ONE },
                Identity { run: 2, ..ONE },
                Identity { index: 2, ..ONE },
            ] {
                assert_ne!(
                    make(ONE),
                    make(other),
                    "{kind} does not depend on {other:?}"
                );
            }
        }
        assert_eq!(transaction(ONE), transaction(ONE));
    }

    #[test]
    fn the_run_changes_identifier_and_tag_only() {
        for kind in Kind::ALL {
            let make = |run| {
                let mut value = resource(kind, Identity { run, ..ONE }, &Links::default());
                let map = value.as_object_mut().expect("an object");
                assert!(map.remove("identifier").is_some() && map.remove("meta").is_some());
                value
            };
            assert_eq!(make(1), make(2), "{kind}");
        }
    }

    /// Changes here change what every recording exercised: golden on purpose.
    #[test]
    fn a_patient_is_this_patient() {
        let links = Links {
            organization: Some("Organization/7".into()),
            ..Links::default()
        };
        let found = resource(Kind::Patient, ONE, &links);
        let golden: Value =
            serde_json::from_str(include_str!("../tests/vectors/patient-1-1-1.json"))
                .expect("JSON");
        assert_eq!(found, golden, "{found}");
    }

    #[test]
    fn uuids_are_version_4() {
        let mut random = Random::new(&[3]);
        let one = uuid(&mut random);
        assert_eq!(one.len(), "urn:uuid:".len() + 36, "{one}");
        assert_eq!(one.as_bytes().get(9 + 14), Some(&b'4'), "{one}");
        assert!(
            one.as_bytes()
                .get(9 + 19)
                .is_some_and(|b| b"89ab".contains(b)),
            "{one}"
        );
    }
}
