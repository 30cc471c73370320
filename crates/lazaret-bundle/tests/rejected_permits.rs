//! One committed permit for each reason to refuse one: `tests/vectors/rejected/permit/<check>.json`, and one that is accepted.
//! The files are data that earlier versions wrote; they are not made anew when the code changes
//! (`examples/write_permit_vectors.rs` made them).

use lazaret_bundle::key::PublicKey;
use lazaret_bundle::permit::{PERMIT_LIMIT, from_utc};
use lazaret_bundle::{PermitError, TrustedKeys, verify_permit};
use lazaret_core::digest::Digest;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

type Failure = Box<dyn std::error::Error>;

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

/// The key `tests/vectors/keys/p256.pem` is pinned, the container `fhir` of an image with the configuration `config` runs on
/// the host `n1`, and it is nine o'clock.
fn outcome(envelope: &[u8]) -> Result<Result<String, &'static str>, Failure> {
    let pem = std::fs::read_to_string(vectors().join("keys/p256.pem"))?;
    let keys = TrustedKeys::only(PublicKey::from_pem(&pem)?);
    let image = BTreeSet::from([Digest::of(b"config")]);
    let now = from_utc("2026-01-31T09:00:00Z").ok_or("a time")?;
    let judged = verify_permit(envelope, &keys, &image).and_then(|permit| {
        permit.holds_at(now)?;
        permit.applies_to("0123", "fhir", "n1")?;
        Ok(permit.terms().reason.clone())
    });
    Ok(judged.map_err(|error| error.check()))
}

#[test]
fn each_file_fails_its_check() -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir(vectors().join("rejected/permit"))? {
        let path = entry?.path();
        let check = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .ok_or("file name")?;
        assert_eq!(outcome(&std::fs::read(&path)?)?, Err(check), "{check}");
        seen.insert(check.to_owned());
    }
    // white space is made here, not committed
    for (bytes, check) in [
        (PERMIT_LIMIT + 1, "permit-size"),
        (PERMIT_LIMIT, "permit-format"),
    ] {
        assert_eq!(outcome(&vec![b' '; bytes])?, Err(check));
        seen.insert(check.to_owned());
    }
    let every = PermitError::CHECKS.map(str::to_owned).into();
    assert_eq!(seen, every, "a reason without a file");
    Ok(())
}

#[test]
fn the_accepted_one_is_accepted() -> Result<(), Failure> {
    let permit = std::fs::read(vectors().join("accepted/permit.json"))?;
    assert_eq!(outcome(&permit)?, Ok("INC-7: look at the heap".to_owned()));
    Ok(())
}
