//! `lazaret policy diff`: what B allows that A does not, and the reverse.

use crate::args::{Format, ProfileHost};
use crate::exit::{Exit, OrExit, Outcome, fail};
use crate::given::{self, Given};
use crate::meaning;
use lazaret_core::filter::prove::Difference;
use lazaret_core::phase::Phase;
use lazaret_core::policy::diff::{Change, Side, diff};
use std::path::Path;

pub(super) fn main(a: &Path, b: &Path, host: &ProfileHost, format: Format) -> Outcome {
    let a = given::read(a, host)?;
    let b = given::read(b, host)?;
    given::host_for(a.is_profile() || b.is_profile(), host)?;
    for given in [&a, &b] {
        if let Given::Profile(profile) = given {
            profile.tell_without_table("are not compared");
        }
    }
    let diff = diff(side(&a), side(&b)).or_exit(Exit::Usage)?;
    for (kind, title, changes) in [
        ("opened", "B is more permissive:", &diff.opened),
        ("closed", "B is less permissive:", &diff.closed),
        ("refused", "both refuse, in another way:", &diff.refused),
        ("band", "the kernel's part is another:", &diff.bands),
    ] {
        if format == Format::Text && !changes.is_empty() {
            println!("{title}");
        }
        show(kind, changes, format);
    }
    for change in &diff.fields {
        match format {
            Format::Text => println!("{}: `{}` in A, `{}` in B", change.field, change.a, change.b),
            Format::Json => println!(
                "{}",
                serde_json::json!({"type": "field", "v": 1, "field": change.field, "a": change.a, "b": change.b})
            ),
        }
    }
    if diff.omitted > 0 {
        eprintln!("and {} more differences that are not listed", diff.omitted);
    }
    if diff.is_empty() {
        if let Some(why) = a.undecided().or_else(|| b.undecided()) {
            return fail(Exit::No, why);
        }
        eprintln!("both mean the same");
        return Ok(Exit::Yes);
    }
    Ok(Exit::No)
}

fn side(given: &Given) -> Side<'_> {
    match given {
        Given::Policy(policy) => Side::Policy(policy),
        Given::Profile(profile) => Side::Table(&profile.table),
    }
}

/// Changes by the phases in which they hold.
fn show(kind: &str, changes: &[Change], format: Format) {
    let mut groups: Vec<(&[Phase], Vec<&Difference>)> = Vec::new();
    for change in changes {
        let phases = change.phases.as_slice();
        match groups.iter_mut().find(|(other, _)| *other == phases) {
            Some((_, list)) => list.push(&change.difference),
            None => groups.push((phases, vec![&change.difference])),
        }
    }
    for (phases, differences) in groups {
        let names: Vec<&str> = phases.iter().map(|phase| phase.name()).collect();
        if format == Format::Text && !names.is_empty() {
            println!("  {}", names.join(", "));
        }
        meaning::differences(kind, &names, &differences, format);
    }
}
