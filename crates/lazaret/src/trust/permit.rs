//! `lazaret permit`: signed statements that open something for a while.

use crate::args::{Format, PermitCalls, PermitSign, PermitVerb};
use crate::cleanup::write_file;
use crate::exit::{Exit, Failure, OrExit, Outcome};
use anyhow::Context;
use lazaret_bundle::key::file;
use lazaret_bundle::key::trusted::TrustedKeys;
use lazaret_bundle::permit::{self, Calls, Kind, PERMIT_LIMIT, Terms, utc};
use lazaret_bundle::store::{self, StoreError};
use lazaret_bundle::{
    Permit, PermitError, Verified, read, sign_permit, verify_permit, verify_permit_for_any_image,
};
use lazaret_core::digest::Digest;
use lazaret_text::policy as policy_text;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// `lazaret permit`
///
/// # Errors
/// Those of the exit codes in `PermitVerb`.
pub fn permit(verb: &PermitVerb, format: Format) -> Outcome {
    match verb {
        PermitVerb::Sign(args) => sign(args, format),
        PermitVerb::Verify {
            permit,
            keys,
            digests,
            at,
        } => {
            let keys = TrustedKeys::load(keys).or_exit(Exit::NotTrusted)?;
            let digests = digests.iter().copied().collect();
            verify(permit, &keys, &digests, at.unwrap_or_else(now_ms), format)
        }
        PermitVerb::Install { permit, store } => install(permit, &store.store, now_ms(), format),
        PermitVerb::List { store } => list(&store.store, now_ms(), format),
        PermitVerb::Remove { digest, store } => {
            gone(store::remove_permit(&store.store, digest), format)
        }
        PermitVerb::Clean { store } => clean(&store.store, now_ms(), format),
    }
}

/// This host's clock, in milliseconds since the Unix epoch; before it, its beginning.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

fn sign(args: &PermitSign, format: Format) -> Outcome {
    let mut images: BTreeSet<Digest> = args.digests.iter().copied().collect();
    if let Some(path) = &args.policy {
        let policy = policy_text::read(path).or_exit(Exit::Usage)?;
        images.extend(policy.image_digests());
    }
    // a whole second: what is signed has no fractions
    let begin = args.from.unwrap_or_else(|| now_ms() / 1000 * 1000);
    let calls = match args.calls {
        PermitCalls::Policy => Calls::Policy,
        PermitCalls::Ceiling => Calls::Ceiling,
    };
    let terms = Terms {
        images,
        kind: Kind::Exec { calls },
        reason: args.reason.clone(),
        not_before_ms: begin,
        not_after_ms: begin.saturating_add(args.duration_s.saturating_mul(1000)),
        container: args.container.clone(),
        node: args.node.clone(),
    };
    let permit = Permit::new(terms)
        .context("cannot sign this permit")
        .or_exit(Exit::Usage)?;
    let private = file::read_private(&args.key)
        .context("cannot sign")
        .or_exit(Exit::NotTrusted)?;
    let envelope = sign_permit(&permit, &[&private])
        .context("cannot sign")
        .or_exit(Exit::Usage)?;
    write_file(&args.out, &envelope).or_exit(Exit::HostCannot)?;
    let keys = TrustedKeys::only(private.public().clone());
    // read back as a node reads it: also its digest is known then
    let verified = verify_permit_for_any_image(&envelope, &keys).or_exit(Exit::Usage)?;
    told("signed", &verified, "", format);
    Ok(Exit::Yes)
}

fn read_permit(path: &Path) -> Outcome<Vec<u8>> {
    read::bounded(path, PERMIT_LIMIT as u64).or_exit(Exit::Usage)
}

fn verify(
    path: &Path,
    keys: &TrustedKeys,
    image: &BTreeSet<Digest>,
    at_ms: u64,
    format: Format,
) -> Outcome {
    let envelope = read_permit(path)?;
    let permit = verify_permit(&envelope, keys, image).or_exit(Exit::NotTrusted)?;
    permit.holds_at(at_ms).or_exit(Exit::No)?;
    told("verified", &permit, "holds", format);
    Ok(Exit::Yes)
}

fn install(path: &Path, store: &Path, now_ms: u64, format: Format) -> Outcome {
    let keys = TrustedKeys::load(&store.join("keys")).or_exit(Exit::NotTrusted)?;
    let envelope = read_permit(path)?;
    let permit = verify_permit_for_any_image(&envelope, &keys).or_exit(Exit::NotTrusted)?;
    let state = state(&permit, now_ms);
    if let Err(error @ PermitError::Expired { .. }) = permit.holds_at(now_ms) {
        return Err(error).or_exit(Exit::No);
    }
    store::install_permit(store, &permit, &envelope).map_err(refused)?;
    told("installed", &permit, state, format);
    Ok(Exit::Yes)
}

/// The exit code of a store's error.
fn refused(error: StoreError) -> Failure {
    let exit = match error {
        StoreError::NoPermit { .. } | StoreError::PermitsFull { .. } => Exit::No,
        _ => Exit::HostCannot,
    };
    Failure {
        exit,
        error: error.into(),
    }
}

fn list(store: &Path, now_ms: u64, format: Format) -> Outcome {
    let keys = TrustedKeys::load(&store.join("keys")).or_exit(Exit::NotTrusted)?;
    let stored = store::permits(store).map_err(refused)?;
    if stored.is_empty() {
        eprintln!("no permit is installed in `{}`", store.display());
        return Ok(Exit::No);
    }
    let mut all_verify = true;
    for one in &stored {
        let verified = verify_permit_for_any_image(&one.envelope, &keys);
        match verified {
            Ok(permit) if permit.statement_digest() == one.digest => {
                told("permit", &permit, state(&permit, now_ms), format);
            }
            Ok(permit) => {
                let reason = format!("it holds permit {}", permit.statement_digest());
                unsound(one.digest, "name", &reason, format);
                all_verify = false;
            }
            Err(error) => {
                let check = error.check();
                unsound(
                    one.digest,
                    check,
                    &format!("{:#}", anyhow::Error::from(error)),
                    format,
                );
                all_verify = false;
            }
        }
    }
    Ok(if all_verify {
        Exit::Yes
    } else {
        Exit::NotTrusted
    })
}

fn unsound(digest: Digest, check: &str, reason: &str, format: Format) {
    match format {
        Format::Text => println!("permit {digest}\n  refused ({check}): {reason}"),
        Format::Json => println!(
            "{}",
            serde_json::json!({"type": "permit", "v": 1, "permit": digest, "check": check, "reason": reason})
        ),
    }
}

fn clean(store: &Path, now_ms: u64, format: Format) -> Outcome {
    let keys = TrustedKeys::load(&store.join("keys")).or_exit(Exit::NotTrusted)?;
    let mut removed = 0_usize;
    for one in store::permits(store).map_err(refused)? {
        // what does not verify is somebody's mistake: it is shown by `list` and removed by hand
        let Ok(permit) = verify_permit_for_any_image(&one.envelope, &keys) else {
            continue;
        };
        if let Err(PermitError::Expired { .. }) = permit.holds_at(now_ms) {
            gone(store::remove_permit(store, &one.digest), format)?;
            removed += 1;
        }
    }
    if removed == 0 {
        eprintln!("no permit in `{}` has expired", store.display());
    }
    Ok(Exit::Yes)
}

fn gone(path: Result<std::path::PathBuf, StoreError>, format: Format) -> Outcome {
    let path = path.map_err(refused)?;
    match format {
        Format::Text => println!("removed: {}", path.display()),
        Format::Json => println!(
            "{}",
            serde_json::json!({"type": "removed", "v": 1, "path": path})
        ),
    }
    Ok(Exit::Yes)
}

/// What a clock says of a permit.
fn state(permit: &Permit, now_ms: u64) -> &'static str {
    match permit.holds_at(now_ms) {
        Ok(()) => "holds",
        Err(PermitError::Expired { .. }) => "expired",
        Err(_) => "not yet",
    }
}

fn told(kind: &str, permit: &Verified<Permit>, state: &str, format: Format) {
    let terms = permit.terms();
    let opens = match terms.kind {
        Kind::Exec {
            calls: Calls::Policy,
        } => "an exec, held to the policy's phase exec",
        Kind::Exec {
            calls: Calls::Ceiling,
        } => "an exec, with every call that the policy neither denies nor has under its ceiling",
        // a kind that this version verifies has its line here
        _ => "something that this program has no words for",
    };
    let (from, to) = (utc(terms.not_before_ms), utc(terms.not_after_ms));
    match format {
        Format::Text => {
            println!("{kind} {}", permit.statement_digest());
            println!("  opens   {opens}");
            println!("  reason  {}", terms.reason);
            let state = if state.is_empty() {
                String::new()
            } else {
                format!(" ({state})")
            };
            println!("  time    {from} to {to}{state}");
            let images: Vec<String> = terms.images.iter().map(Digest::to_string).collect();
            println!("  image   {}", images.join(" "));
            for (name, only) in [("container", &terms.container), ("node", &terms.node)] {
                if let Some(only) = only {
                    println!("  only    {name} {only}");
                }
            }
            println!("  key     {}", permit.key_id());
        }
        Format::Json => println!(
            "{}",
            serde_json::json!({
                "type": kind, "v": 1, "permit": permit.statement_digest(), "kind": "exec",
                "calls": match terms.kind {
                    Kind::Exec { calls: Calls::Ceiling } => "ceiling",
                    _ => "policy",
                },
                "reason": terms.reason, "notBefore": from, "notAfter": to, "state": state, "subjects": terms.images,
                "container": terms.container, "node": terms.node, "key": permit.key_id().as_str(),
            })
        ),
    }
}

/// A time as it was typed: UTC, whole seconds.
///
/// # Errors
/// A sentence with an example.
pub fn time(text: &str) -> Result<u64, String> {
    permit::from_utc(text).ok_or_else(|| "expected UTC as in 2026-01-31T08:00:00Z".to_string())
}

/// A duration as it was typed, in seconds: a number and `s`, `m`, `h` or `d`.
///
/// # Errors
/// A sentence with examples.
pub fn duration_s(text: &str) -> Result<u64, String> {
    let wrong = || "expected a whole number and s, m, h or d, as in 90m or 2h".to_string();
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(wrong)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::duration_s;

    #[test]
    fn durations_have_a_unit() {
        for (text, expected) in [
            ("90s", Some(90)),
            ("90m", Some(5400)),
            ("2h", Some(7200)),
            ("7d", Some(604_800)),
            ("0h", Some(0)),
            ("2", None),
            ("h", None),
            ("", None),
            ("+2h", None),
            ("2ä", None),
            ("1.5h", None),
            ("99999999999999999999h", None),
            ("9999999999999999999d", None),
        ] {
            assert_eq!(duration_s(text).ok(), expected, "{text}");
        }
    }
}
