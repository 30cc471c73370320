//! `lazaret key`, `sign` and `verify`; `bundle` and `permit` are modules of their own.

mod bundle;
mod permit;

pub use bundle::bundle;
pub use permit::{duration_s, permit, time};

use crate::args::{Algorithm, Format, KeyVerb, Sign, Verify};
use crate::cleanup::write_file;
use crate::exit::{Exit, OrExit, Outcome};
use anyhow::Context;
use lazaret_bundle::key::trusted::TrustedKeys;
use lazaret_bundle::key::{self, PrivateKey, file};
use lazaret_bundle::verify as checks;
use lazaret_bundle::{Verified, dsse, read};
use lazaret_core::policy::Policy;
use lazaret_text::policy as policy_text;
use std::path::Path;

/// `lazaret key`
///
/// # Errors
/// Exit 2 for a file that exists or is no key, 4 for wrong owner or mode.
pub fn key(verb: &KeyVerb, format: Format) -> Outcome {
    let public = match verb {
        KeyVerb::Generate { out, algorithm } => {
            let algorithm = match algorithm {
                Algorithm::EcdsaP256 => key::Algorithm::EcdsaP256,
                Algorithm::Ed25519 => key::Algorithm::Ed25519,
            };
            let private = PrivateKey::generate(algorithm).or_exit(Exit::HostCannot)?;
            file::create_private(out, &private).or_exit(Exit::Usage)?;
            let mut name = out.as_os_str().to_os_string();
            name.push(".pub");
            file::create_public(Path::new(&name), private.public()).or_exit(Exit::Usage)?;
            private.public().clone()
        }
        KeyVerb::Public { file: path } => file::read_private(path)
            .or_exit(Exit::NotTrusted)?
            .public()
            .clone(),
    };
    let pem = public.to_pem().or_exit(Exit::HostCannot)?;
    match format {
        Format::Text => println!("{pem}key id {}", public.id()),
        Format::Json => {
            println!(
                "{}",
                serde_json::json!({"type": "key", "v": 1, "id": public.id().as_str(), "pem": pem})
            );
        }
    }
    Ok(Exit::Yes)
}

/// `lazaret sign`
///
/// # Errors
/// Exit 2 for a bad policy, 4 for a key that is no key or that others can read.
pub fn sign(args: &Sign, format: Format) -> Outcome {
    let policy = policy_text::read(&args.file).or_exit(Exit::Usage)?;
    let private = file::read_private(&args.key)
        .context("cannot sign")
        .or_exit(Exit::NotTrusted)?;
    let bundle = checks::sign(&policy, &[&private])
        .context("cannot sign")
        .or_exit(Exit::Usage)?;
    write_file(&args.out, &bundle).or_exit(Exit::HostCannot)?;
    let subjects: Vec<String> = policy
        .image_digests()
        .iter()
        .map(ToString::to_string)
        .collect();
    match format {
        Format::Text => {
            println!(
                "policy  {} revision {} ({})",
                policy.name(),
                policy.revision(),
                policy.digest()
            );
            println!("image   {}", subjects.join(" "));
            println!("key     {}", private.public().id());
        }
        Format::Json => println!(
            "{}",
            serde_json::json!({
                "type": "signed", "v": 1, "policy": policy.digest(), "subjects": subjects,
                "key": private.public().id().as_str(), "bundle": args.out,
            })
        ),
    }
    Ok(Exit::Yes)
}

/// `lazaret verify`
///
/// # Errors
/// Exit 4 with the check that failed.
pub fn verify(args: &Verify, format: Format) -> Outcome {
    let keys = TrustedKeys::load(&args.keys).or_exit(Exit::NotTrusted)?;
    let bytes = read_bundle(&args.bundle)?;
    let digests = args.digests.iter().copied().collect();
    let policy = checks::verify(&bytes, &keys, &digests).or_exit(Exit::NotTrusted)?;
    told("verified", &policy, format);
    Ok(Exit::Yes)
}

fn read_bundle(path: &Path) -> Outcome<Vec<u8>> {
    read::bounded(path, dsse::ENVELOPE_LIMIT as u64).or_exit(Exit::Usage)
}

fn told(kind: &str, policy: &Verified<Policy>, format: Format) {
    match format {
        Format::Text => {
            println!(
                "{kind}: {} revision {} ({})",
                policy.name(),
                policy.revision(),
                policy.digest()
            );
            println!("signed by {}", policy.key_id());
        }
        Format::Json => println!(
            "{}",
            serde_json::json!({
                "type": kind, "v": 1, "policy": policy.digest(), "name": policy.name(), "revision": policy.revision(),
                "key": policy.key_id().as_str(), "subjects": policy.image_digests(),
            })
        ),
    }
}
