//! The policy that lazaretd holds itself to: the text that people review and the canonical form that is compiled in are one. What the
//! policy means is tested in lazaretd.

use lazaret_text::policy;
use std::fs;
use std::path::Path;

#[test]
fn the_compiled_policy_is_the_reviewed_text() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lazaretd");
    let text = policy::read(&folder.join("lazaretd.policy.yaml")).expect("a good policy");
    let canonical = text.canonical_json();
    let compiled = fs::read(folder.join("lazaretd.policy.json")).unwrap_or_default();
    if compiled != canonical {
        let written = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lazaretd.policy.json");
        fs::write(&written, &canonical).expect("written");
        panic!(
            "lazaretd.policy.json is not lazaretd.policy.yaml; its canonical form is in {}",
            written.display()
        );
    }
}
