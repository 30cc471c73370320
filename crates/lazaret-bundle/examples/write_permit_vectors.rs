//! Made the permits in `tests/vectors/accepted` and `tests/vectors/rejected/permit`. Run it only to add one: it never
//! changes a file that exists. `cargo run -p lazaret-bundle --example write_permit_vectors`

use lazaret_bundle::dsse;
use lazaret_bundle::key::PrivateKey;
use lazaret_core::digest::Digest;
use std::path::{Path, PathBuf};

type Failure = Box<dyn std::error::Error>;

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

const PERMIT: &str = r#"{"kind":"exec","calls":"ceiling","reason":"INC-7: look at the heap","notBefore":"2026-01-31T08:00:00Z","notAfter":"2026-01-31T10:00:00Z","container":"fhir","node":"n1"}"#;

fn main() -> Result<(), Failure> {
    let key = |name: &str| -> Result<PrivateKey, Failure> {
        let pem = std::fs::read_to_string(vectors().join("keys").join(name))?;
        Ok(PrivateKey::from_pem(&pem)?)
    };
    let (pinned, other) = (key("p256.key")?, key("ed25519.key")?);
    let (config, elsewhere) = (Digest::of(b"config"), Digest::of(b"elsewhere"));
    let subject = format!(r#"{{"digest":{{"sha256":"{}"}}}}"#, config.hex());
    let statement = format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{subject}],"predicateType":"https://lazaret.dev/permit/v1","predicate":{PERMIT}}}"#
    );
    let sign = |payload: &str| dsse::sign(dsse::PAYLOAD_TYPE, payload.as_bytes(), &[&pinned]);
    let write = |name: &str, bytes: &[u8]| -> Result<(), Failure> {
        let path = vectors().join(name);
        std::fs::create_dir_all(path.parent().ok_or("parent")?)?;
        if !path.exists() {
            std::fs::write(&path, bytes)?;
        }
        Ok(())
    };
    let rejected =
        |check: &str, bytes: &[u8]| write(&format!("rejected/permit/{check}.json"), bytes);

    write("accepted/permit.json", &sign(&statement)?)?;
    let text = String::from_utf8(sign(&statement)?)?;
    rejected(
        "permit-format",
        text.replacen('{', "{\"extra\":1,", 1).as_bytes(),
    )?;
    let stranger = dsse::sign(dsse::PAYLOAD_TYPE, statement.as_bytes(), &[&other])?;
    rejected("signature", &stranger)?;
    let untyped = dsse::sign("application/json", statement.as_bytes(), &[&pinned])?;
    rejected("payload-type", &untyped)?;
    for (check, from, to) in [
        ("statement-format", "predicateType", "predicateKind"),
        ("statement-type", "Statement/v1", "Statement/v0.1"),
        ("predicate-type", "permit/v1", "permit/v2"),
        ("fields", "\"node\":", "\"host\":"),
        ("kind", "\"kind\":\"exec\"", "\"kind\":\"start\""),
        ("images", subject.as_str(), ""),
        ("reason", "INC-7: look at the heap", " "),
        ("time", "T10:00:00Z", "T10:00:00+00:00"),
        ("time-order", "01-31T10:00:00Z", "01-31T08:00:00Z"),
        ("too-long", "2026-01-31T10:00:00Z", "2026-02-07T08:00:01Z"),
        ("container-name", "\"fhir\"", "\"../fhir\""),
        ("node-name", "\"n1\"", "\"\""),
        ("image", &config.hex(), &elsewhere.hex()),
        ("not-yet", "01-31T08:00:00Z", "01-31T09:00:01Z"),
        ("expired", "01-31T10:00:00Z", "01-31T09:00:00Z"),
        ("scope", "\"fhir\"", "\"other\""),
    ] {
        let changed = statement.replacen(from, to, 1);
        assert_ne!(changed, statement, "{check}");
        rejected(check, &sign(&changed)?)?;
    }
    Ok(())
}
