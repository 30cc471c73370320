//! One committed bundle for each reason to refuse one: `tests/vectors/rejected/bundle/<check>.json`, and one that is
//! accepted. The files are data that earlier versions wrote; they are not made anew when the code changes.

use lazaret_bundle::dsse;
use lazaret_bundle::key::{PrivateKey, PublicKey};
use lazaret_bundle::{TrustedKeys, VerifyError, verify};
use lazaret_core::digest::Digest;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

type Failure = Box<dyn std::error::Error>;

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

/// The key `tests/vectors/keys/p256.pem` is pinned, and an image with the configuration `config` starts.
fn outcome(bundle: &[u8]) -> Result<Result<String, &'static str>, Failure> {
    let pem = std::fs::read_to_string(vectors().join("keys/p256.pem"))?;
    let keys = TrustedKeys::only(PublicKey::from_pem(&pem)?);
    let image = BTreeSet::from([Digest::of(b"config")]);
    Ok(verify(bundle, &keys, &image)
        .map(|policy| policy.name().to_owned())
        .map_err(|error| error.check()))
}

#[test]
fn each_file_fails_its_check() -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir(vectors().join("rejected/bundle"))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let check = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .ok_or("file name")?;
        assert_eq!(outcome(&std::fs::read(&path)?)?, Err(check), "{check}");
        seen.insert(check.to_owned());
    }
    // four megabytes of white space are made here, not committed
    assert_eq!(
        outcome(&vec![b' '; dsse::ENVELOPE_LIMIT + 1])?,
        Err("bundle-size")
    );
    seen.insert("bundle-size".to_owned());
    let every = VerifyError::CHECKS.map(str::to_owned).into();
    assert_eq!(seen, every, "a reason without a file");
    Ok(())
}

#[test]
fn the_accepted_one_is_accepted() -> Result<(), Failure> {
    let bundle = std::fs::read(vectors().join("accepted/bundle.json"))?;
    assert_eq!(outcome(&bundle)?, Ok("fhir".to_owned()));
    Ok(())
}

const POLICY: &str = r#"{"apiVersion":"lazaret.dev/v1","ceiling":"default","environment":{"arch":"x86_64","kernel":">=5.11","noNewPrivileges":false,"runtimes":["runc 1.1.5"]},"image":{"digests":["IMAGE"],"name":"example/fhir"},"kind":"SyscallPolicy","metadata":{"name":"fhir","revision":1},"mode":"enforce","otherwise":{"action":"errno","errno":"EPERM"},"rules":[{"allow":["exit","exit_group","read","restart_syscall","rt_sigreturn","write"],"why":"seen"}]}"#;

/// Made the committed files. Run it only to add one: `cargo test -p lazaret-bundle --test rejected -- --ignored`; it
/// never changes a file that exists.
#[test]
#[ignore = "writes tests/vectors"]
fn write_missing_files() -> Result<(), Failure> {
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
