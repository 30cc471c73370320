//! Made the bundles in `tests/vectors/accepted` and `tests/vectors/rejected/bundle`. Run it only to add one: it never
//! changes a file that exists. `cargo run -p lazaret-bundle --example write_vectors`

use lazaret_bundle::dsse;
use lazaret_bundle::key::PrivateKey;
use lazaret_core::digest::Digest;
use std::path::{Path, PathBuf};

type Failure = Box<dyn std::error::Error>;

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

const POLICY: &str = r#"{"apiVersion":"lazaret.dev/v1","ceiling":"default","environment":{"arch":"x86_64","kernel":">=5.11","noNewPrivileges":false,"runtimes":["runc 1.1.5"]},"image":{"digests":["IMAGE"],"name":"example/fhir"},"kind":"SyscallPolicy","metadata":{"name":"fhir","revision":1},"mode":"enforce","otherwise":{"action":"errno","errno":"EPERM"},"rules":[{"allow":["exit","exit_group","read","restart_syscall","rt_sigreturn","write"],"why":"seen"}]}"#;

fn main() -> Result<(), Failure> {
    let key = |name: &str| -> Result<PrivateKey, Failure> {
        let pem = std::fs::read_to_string(vectors().join("keys").join(name))?;
        Ok(PrivateKey::from_pem(&pem)?)
    };
    let (pinned, other) = (key("p256.key")?, key("ed25519.key")?);
    let config = Digest::of(b"config");
    let policy = POLICY.replace("IMAGE", &config.to_string());
    let statement = format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"name":"example/fhir","digest":{{"sha256":"{}"}}}}],"predicateType":"https://lazaret.dev/policy/v1","predicate":{policy}}}"#,
        config.hex()
    );
    let sign = |payload: &str| dsse::sign(dsse::PAYLOAD_TYPE, payload.as_bytes(), &[&pinned]);
    let elsewhere = Digest::of(b"elsewhere");
    let files = [
        ("accepted/bundle.json", sign(&statement)?),
        ("rejected/bundle/bundle-format.json", {
            let text = String::from_utf8(sign(&statement)?)?;
            text.replacen('{', "{\"extra\":1,", 1).into_bytes()
        }),
        (
            "rejected/bundle/signature.json",
            dsse::sign(dsse::PAYLOAD_TYPE, statement.as_bytes(), &[&other])?,
        ),
        (
            "rejected/bundle/payload-type.json",
            dsse::sign("application/json", statement.as_bytes(), &[&pinned])?,
        ),
        (
            "rejected/bundle/statement-format.json",
            sign(&statement.replace("predicateType", "predicateKind"))?,
        ),
        (
            "rejected/bundle/statement-type.json",
            sign(&statement.replace("Statement/v1", "Statement/v0.1"))?,
        ),
        (
            "rejected/bundle/predicate-type.json",
            sign(&statement.replace("policy/v1", "policy/v2"))?,
        ),
        (
            "rejected/bundle/policy.json",
            sign(
                &statement
                    .replace("\"read\"", "\"no_such_call\"")
                    .replace("allow", "deny"),
            )?,
        ),
        (
            "rejected/bundle/subjects.json",
            sign(&statement.replacen(&config.hex(), &elsewhere.hex(), 1))?,
        ),
        (
            "rejected/bundle/image.json",
            sign(&statement.replace(&config.hex(), &elsewhere.hex()))?,
        ),
    ];
    for (name, bytes) in files {
        let path = vectors().join(name);
        std::fs::create_dir_all(path.parent().ok_or("parent")?)?;
        if !path.exists() {
            std::fs::write(&path, bytes)?;
        }
    }
    Ok(())
}
