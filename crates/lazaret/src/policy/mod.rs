//! `lazaret policy`: the language. One module for each verb; what they say is decided in `lazaret-core`.

pub mod check;
mod diff;
mod explain;
mod import;
mod lint;
mod show;

use crate::args::{Format, PolicyVerb};
use crate::exit::Outcome;
use lazaret_core::filter::rule::{Entry, Verdict};

/// `lazaret policy`
///
/// # Errors
/// Exit 2 for a bad policy or profile, and what a verb cannot say.
pub fn main(verb: &PolicyVerb, format: Format) -> Outcome {
    match verb {
        PolicyVerb::Check { file } => check::main(file, format),
        PolicyVerb::Show { file, host } => show::main(file, host, format),
        PolicyVerb::Explain { file, call } => explain::main(file, call, format),
        PolicyVerb::Lint { file } => lint::main(file, format),
        PolicyVerb::Diff { a, b, host } => diff::main(a, b, host, format),
        PolicyVerb::Import(args) => import::main(args, format),
    }
}

/// Who decides a call in the kernel's filter: `allow`, `ask`, `deny`, or `allow if` where arguments count.
fn band(kernel: &Entry) -> &'static str {
    let has = |verdict| {
        kernel
            .branches
            .iter()
            .any(|branch| branch.verdict == verdict)
    };
    if has(Verdict::Allow) {
        "allow if"
    } else if kernel.otherwise == Verdict::Allow {
        "allow"
    } else if kernel.otherwise == Verdict::Ask || has(Verdict::Ask) {
        "ask"
    } else {
        "deny"
    }
}
