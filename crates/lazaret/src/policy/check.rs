//! `lazaret policy check`, and the warnings about a policy that several verbs give.

use crate::args::Format;
use crate::exit::{Exit, OrExit, Outcome};
use lazaret_core::filter::table;
use lazaret_core::policy::Policy;
use std::path::Path;

pub(super) fn main(file: &Path, format: Format) -> Outcome {
    let policy = lazaret_text::policy::read(file).or_exit(Exit::Usage)?;
    notes(&policy);
    match format {
        Format::Text => println!(
            "{} revision {}: {}",
            policy.name(),
            policy.revision(),
            policy.digest()
        ),
        Format::Json => println!(
            "{}",
            serde_json::json!({
                "type": "policy", "v": 1, "name": policy.name(), "revision": policy.revision(),
                "digest": policy.digest(), "unresolved": policy.unresolved(),
            })
        ),
    }
    Ok(Exit::Yes)
}

/// What a profile does that its reader may not expect; on standard error.
pub fn notes(policy: &Policy) {
    for name in policy.unresolved() {
        eprintln!(
            "warning: `{name}` is no call of {}: it allows nothing",
            policy.abi()
        );
    }
    let names: Vec<String> = policy
        .unseen()
        .iter()
        .map(|unseen| table::display(policy.abi(), unseen.nr).to_string())
        .collect();
    if !names.is_empty() {
        eprintln!(
            "note: outside their conditions these are denied by the kernel itself, and the gate does not see it: {}",
            names.join(" ")
        );
    }
}
