//! One committed bundle for each reason to refuse one: `tests/vectors/rejected/bundle/<check>.json`, and one that is
//! accepted. The files are data that earlier versions wrote; they are not made anew when the code changes
//! (`examples/write_vectors.rs` made them).

use lazaret_bundle::dsse;
use lazaret_bundle::key::PublicKey;
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
