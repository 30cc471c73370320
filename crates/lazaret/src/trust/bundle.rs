//! `lazaret bundle`: what is in this node's store.

use super::{read_bundle, told};
use crate::args::{BundleVerb, Format};
use crate::compile;
use crate::exit::{Exit, Failure, OrExit, Outcome};
use lazaret_bundle::key::trusted::TrustedKeys;
use lazaret_bundle::store::{self, Revision, StoreError};
use lazaret_bundle::verify as checks;
use lazaret_bundle::{Verified, VerifyError};
use lazaret_core::digest::Digest;
use lazaret_core::policy::Policy;
use std::collections::BTreeSet;
use std::path::Path;

/// `lazaret bundle`
///
/// # Errors
/// Those of the exit codes in `BundleVerb`.
pub fn bundle(verb: &BundleVerb, format: Format) -> Outcome {
    match verb {
        BundleVerb::Install {
            bundle,
            store,
            listener,
        } => install(bundle, &store.store, listener, format),
        BundleVerb::List { image, store } => list(*image, &store.store, format),
        BundleVerb::Remove {
            image,
            revision,
            store,
        } => remove(*image, *revision, &store.store, format),
    }
}

/// The exit code of a store's error.
fn refused(error: StoreError) -> Failure {
    let exit = match error {
        StoreError::Taken { .. } | StoreError::NotInstalled { .. } | StoreError::Full { .. } => {
            Exit::No
        }
        _ => Exit::HostCannot,
    };
    Failure {
        exit,
        error: error.into(),
    }
}

fn install(bundle: &Path, store: &Path, listener: &Path, format: Format) -> Outcome {
    let keys = TrustedKeys::load(&store.join("keys")).or_exit(Exit::NotTrusted)?;
    let bytes = read_bundle(bundle)?;
    let policy = checks::verify_for_any_image(&bytes, &keys).or_exit(Exit::NotTrusted)?;
    let profile = compile::profile(&policy, listener)?;
    let installed = store::install(store, &policy, &bytes, &profile).map_err(refused)?;
    told("installed", &policy, format);
    if installed.newest != policy.revision() {
        eprintln!(
            "note: revision {} is installed too and is higher: new containers get that one",
            installed.newest
        );
    }
    Ok(Exit::Yes)
}

fn list(image: Option<Digest>, store: &Path, format: Format) -> Outcome {
    let keys = TrustedKeys::load(&store.join("keys")).or_exit(Exit::NotTrusted)?;
    let images = match image {
        Some(image) => vec![image],
        None => store::images(store).map_err(refused)?,
    };
    let (mut shown, mut all_verify) = (0_usize, true);
    for image in images {
        let revisions = store::revisions(store, &[image].into()).map_err(refused)?;
        if let (Format::Text, false) = (format, revisions.is_empty()) {
            println!("image {image}");
        }
        for revision in &revisions {
            let verified = signer(store, &keys, image, revision);
            show(image, revision, &verified, format);
            all_verify &= verified.is_ok();
            shown += 1;
        }
    }
    if shown == 0 {
        let what = image.map_or_else(String::new, |image| format!(" for {image}"));
        eprintln!("no policy is installed in `{}`{what}", store.display());
        return Ok(Exit::No);
    }
    Ok(if all_verify {
        Exit::Yes
    } else {
        Exit::NotTrusted
    })
}

/// Why a revision is none, with the name of the check.
type Unsound = (&'static str, String);

/// The policy in a revision's directory: verified, and the one that the directory is named after.
fn signer(
    store: &Path,
    keys: &TrustedKeys,
    image: Digest,
    revision: &Revision,
) -> Result<Verified<Policy>, Unsound> {
    let image = BTreeSet::from([image]);
    let bytes = store::read_bundle(store, &image, &revision.policy)
        .map_err(|error| ("store", format!("{:#}", anyhow::Error::from(error))))?
        .ok_or_else(|| ("no-bundle", "its bundle is missing".to_owned()))?;
    let policy = checks::verify(&bytes, keys, &image).map_err(|error: VerifyError| {
        (error.check(), format!("{:#}", anyhow::Error::from(error)))
    })?;
    if policy.digest() != revision.policy || policy.revision() != revision.revision {
        let found = format!(
            "its bundle holds revision {} ({})",
            policy.revision(),
            policy.digest()
        );
        return Err(("name", found));
    }
    Ok(policy)
}

fn show(
    image: Digest,
    revision: &Revision,
    verified: &Result<Verified<Policy>, Unsound>,
    format: Format,
) {
    let (number, policy) = (revision.revision, revision.policy);
    match (format, verified) {
        (Format::Text, Ok(good)) => {
            println!("  revision {number}  {policy}  {}", good.name());
            println!("    signed by {}", good.key_id());
        }
        (Format::Text, Err((check, reason))) => {
            println!("  revision {number}  {policy}");
            println!("    refused ({check}): {reason}");
        }
        (Format::Json, Ok(good)) => println!(
            "{}",
            serde_json::json!({
                "type": "revision", "v": 1, "image": image, "revision": number, "policy": policy, "name": good.name(),
                "key": good.key_id().as_str(),
            })
        ),
        (Format::Json, Err((check, reason))) => println!(
            "{}",
            serde_json::json!({
                "type": "revision", "v": 1, "image": image, "revision": number, "policy": policy, "check": check,
                "reason": reason,
            })
        ),
    }
}

fn remove(image: Digest, revision: u64, store: &Path, format: Format) -> Outcome {
    let image = BTreeSet::from([image]);
    let folders = store::remove(store, &image, revision).map_err(refused)?;
    for folder in &folders {
        match format {
            Format::Text => println!("removed: {}", folder.display()),
            Format::Json => println!(
                "{}",
                serde_json::json!({"type": "removed", "v": 1, "path": folder})
            ),
        }
    }
    if store::revisions(store, &image).map_err(refused)?.is_empty() {
        eprintln!(
            "note: no revision is left for this image: its containers do not start until one is installed, or until its \
             directories in `{}` are removed",
            store.join("images").display()
        );
    }
    Ok(Exit::Yes)
}
