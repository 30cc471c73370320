//! What filters and tables mean, in text and JSON: what each call gets, and where two meanings differ.

use crate::args::Format;
use crate::columns;
use crate::exit::{Exit, OrExit, Outcome};
use lazaret_core::ceiling::{self, Reach};
use lazaret_core::filter::abi::{Abi, X32_BIT};
use lazaret_core::filter::prove::{Case, Difference, Meaning, ProveError, Ruled, Space};
use lazaret_core::filter::rule::{RuleTable, Verdict};
use lazaret_core::filter::table;
use lazaret_core::policy::words;
use std::collections::BTreeMap;

/// Shows what a table means.
///
/// # Errors
/// Exit 1 when its conditions are too many to follow.
pub fn show_table(table: &RuleTable, format: Format) -> Outcome<()> {
    let mut space = Space::new();
    let meaning = space.of_table(table).or_exit(Exit::No)?;
    show(&mut space, &meaning, format)
}

/// Shows what every convention of a meaning's machine gets.
///
/// # Errors
/// Exit 1 when its verdicts are too many to list.
pub fn show(space: &mut Space, meaning: &Meaning, format: Format) -> Outcome<()> {
    for abi in Abi::ALL {
        let ruled = space.entries(meaning, abi).or_exit(Exit::No)?;
        convention(abi, &ruled, format);
    }
    Ok(())
}

/// One verdict for all numbers but −1, which is no call and which libseccomp treats by itself.
fn only_verdict(ruled: &[Ruled]) -> Option<Verdict> {
    let calls = ruled
        .iter()
        .filter(|one| *one.numbers.start() != !X32_BIT && *one.numbers.start() != u32::MAX);
    let mut verdicts = calls.map(|one| match one.cases.as_slice() {
        [case] => Some(case.verdict),
        _ => None,
    });
    let first = verdicts.next()??;
    verdicts.all(|other| other == Some(first)).then_some(first)
}

fn convention(abi: Abi, ruled: &[Ruled], format: Format) {
    if let Some(verdict) = only_verdict(ruled) {
        let verdict = words::verdict(verdict);
        match format {
            Format::Text => println!("{abi}: {verdict}, whatever the call"),
            Format::Json => println!(
                "{}",
                serde_json::json!({"type": "calls", "v": 1, "arch": abi, "verdict": verdict, "calls": "all"})
            ),
        }
        return;
    }
    let mut always: BTreeMap<Verdict, Vec<String>> = BTreeMap::new();
    let mut conditional: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in ruled {
        let names = words::numbers(abi, &one.numbers);
        match one.cases.as_slice() {
            [case] => always.entry(case.verdict).or_default().extend(names),
            cases => {
                for name in names {
                    let said = said(&name, cases);
                    conditional.entry(said).or_default().push(name);
                }
            }
        }
    }
    match format {
        Format::Text => text(abi, &always, &conditional),
        Format::Json => json(abi, &always, &conditional),
    }
    dangers(abi, ruled, format);
}

/// `allow if …, ask if …, else EPERM`.
fn said(name: &str, cases: &[Case]) -> String {
    // the strictest verdict is what is left over
    let Some((last, others)) = cases.split_last() else {
        return String::new();
    };
    let mut said = String::new();
    for case in others {
        let verdict = words::verdict(case.verdict);
        let when = words::region(Some(name), &case.when);
        said.push_str(&format!("{verdict} if {when}, "));
    }
    said.push_str(&format!("else {}", words::verdict(last.verdict)));
    said
}

/// `1 call`, `2 calls`.
fn number(calls: usize) -> String {
    match calls {
        1 => "1 call".to_string(),
        calls => format!("{calls} calls"),
    }
}

fn text(
    abi: Abi,
    always: &BTreeMap<Verdict, Vec<String>>,
    conditional: &BTreeMap<String, Vec<String>>,
) {
    let width = columns::width();
    println!("{abi}");
    let list = |(verdict, names): (&Verdict, &Vec<String>)| {
        let calls = names
            .iter()
            .filter(|name| table::nr_of(abi, name).is_some());
        println!("  {} ({})", words::verdict(*verdict), number(calls.count()));
        println!(
            "{}",
            columns::wrap("    ", names.iter().map(String::as_str), width)
        );
    };
    // the most permissive first
    let permits = |verdict: &Verdict| *verdict >= Verdict::Ask;
    always
        .iter()
        .rev()
        .filter(|one| permits(one.0))
        .for_each(list);
    if !conditional.is_empty() {
        let calls: usize = conditional.values().map(Vec::len).sum();
        println!("  under conditions ({})", number(calls));
        for (said, names) in conditional {
            let text = format!("{}: {said}", names.join(", "));
            // further lines stand under the condition
            println!("{}", columns::wrap("    ", text.split(' '), width));
        }
    }
    always
        .iter()
        .rev()
        .filter(|one| !permits(one.0))
        .for_each(list);
}

fn json(
    abi: Abi,
    always: &BTreeMap<Verdict, Vec<String>>,
    conditional: &BTreeMap<String, Vec<String>>,
) {
    for (verdict, calls) in always.iter().rev() {
        println!(
            "{}",
            serde_json::json!({
                "type": "calls", "v": 1, "arch": abi, "verdict": words::verdict(*verdict), "calls": calls,
            })
        );
    }
    for (said, calls) in conditional {
        println!(
            "{}",
            serde_json::json!({"type": "conditional", "v": 1, "arch": abi, "calls": calls, "verdict": said})
        );
    }
}

/// What is let through of the ceiling `default`, with the reason why it is there.
fn dangers(abi: Abi, ruled: &[Ruled], format: Format) {
    // calls that are there for the same reason share a line
    let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
    for forbidden in ceiling::DEFAULT {
        let Some(nr) = table::nr_of(abi, forbidden.call) else {
            continue;
        };
        let cases = ruled
            .iter()
            .find(|one| one.numbers.contains(&nr))
            .map_or(&[][..], |one| one.cases.as_slice());
        let Some(open) = cases.iter().find(|case| case.verdict >= Verdict::Log) else {
            continue;
        };
        let condition = words::region(Some(forbidden.call), &open.when);
        // a condition on such a call is most often the one that the ceiling has itself
        if !condition.is_empty() && forbidden.reach != Reach::Always {
            continue;
        }
        if format == Format::Json {
            println!(
                "{}",
                serde_json::json!({
                    "type": "danger", "v": 1, "arch": abi, "call": forbidden.call, "when": condition, "why": forbidden.why,
                })
            );
            continue;
        }
        let part = match condition.as_str() {
            "" => forbidden.call.to_string(),
            condition => format!("{} (if {condition})", forbidden.call),
        };
        match reasons.iter_mut().find(|(why, _)| *why == forbidden.why) {
            Some((_, calls)) => calls.push(part),
            None => reasons.push((forbidden.why, vec![part])),
        }
    }
    if !reasons.is_empty() {
        println!("  dangerous among what is allowed");
    }
    for (why, calls) in reasons {
        let text = format!("{}: {why}", calls.join(", "));
        let text = columns::wrap("    ", text.split(' '), columns::width());
        println!("{text}");
    }
}

/// Why there is no answer, with filters counted from 1 as in `inspect --filter` and instructions as `inspect` shows them.
pub fn undecided(error: &ProveError) -> String {
    match error {
        ProveError::Undecided {
            filter,
            instruction,
            reason,
        } => format!(
            "undecided: filter {}, instruction {instruction}: {reason}",
            filter + 1
        ),
        error => error.to_string(),
    }
}

/// Prints differences; those that differ in their numbers only share a line.
pub fn differences(kind: &str, phases: &[&str], differences: &[&Difference], format: Format) {
    /// Whose calls, verdicts, and the arguments in words.
    type Key = (Option<Abi>, Verdict, Verdict, String);
    let mut groups: Vec<(Key, Vec<String>, &Difference)> = Vec::new();
    for one in differences {
        let names = names(one);
        let when = words::region(names.first().map(String::as_str), &one.when);
        let key = (one.abi, one.expected, one.found, when);
        match groups.iter_mut().find(|(other, ..)| *other == key) {
            Some((_, list, _)) => list.extend(names),
            None => groups.push((key, names, one)),
        }
    }
    for ((abi, expected, found, when), names, first) in groups {
        let (expected, found) = (words::verdict(expected), words::verdict(found));
        let example = words::call(&first.call);
        if format == Format::Json {
            println!(
                "{}",
                serde_json::json!({
                    "type": "difference", "v": 1, "kind": kind, "phases": phases, "arch": abi, "calls": names,
                    "when": when, "expected": expected, "found": found, "example": example,
                    "call": {"arch": first.call.arch, "nr": first.call.nr, "args": first.call.args},
                })
            );
            continue;
        }
        let place = match abi {
            Some(Abi::X86_64) => String::new(),
            Some(abi) => format!("{abi} calls "),
            None => String::new(),
        };
        let when = if when.is_empty() {
            when
        } else {
            format!(" if {when}")
        };
        let text = format!(
            "{place}{}{when}: {expected} → {found}, as {example}",
            names.join(", ")
        );
        println!(
            "{}",
            columns::wrap("    ", text.split(' '), columns::width())
        );
    }
}

/// The calls of a difference.
fn names(difference: &Difference) -> Vec<String> {
    let (first, last) = difference.numbers.clone().into_inner();
    match difference.abi {
        Some(Abi::X32) => words::numbers(Abi::X32, &(first & !X32_BIT..=last & !X32_BIT)),
        Some(abi) => words::numbers(abi, &(first..=last)),
        None => {
            let (low, high) = difference.architectures.clone().into_inner();
            vec![format!(
                "numbers {first}..={last} under architectures {low:#x}..={high:#x}"
            )]
        }
    }
}
