//! `lazaret policy explain`: why one call gets what it gets.

use super::band;
use crate::args::Format;
use crate::calls;
use crate::exit::{Exit, OrExit, Outcome};
use lazaret_core::ceiling::Reach;
use lazaret_core::filter::table;
use lazaret_core::phase::Phase;
use lazaret_core::policy::explain::{Case, Cause, Explanation, ToAllow};
use lazaret_core::policy::{Place, words};
use lazaret_text::policy::Text;
use std::path::Path;

pub(super) fn main(file: &Path, call: &str, format: Format) -> Outcome {
    let text = Text::read(file).or_exit(Exit::Usage)?;
    let nr = calls::number(text.policy().abi(), call)?;
    let explanation = text.policy().explain(nr);
    match format {
        Format::Text => show(&text, &explanation),
        Format::Json => json(&text, &explanation),
    }
    Ok(Exit::Yes)
}

fn show(text: &Text, explanation: &Explanation) {
    let name = table::display(explanation.abi, explanation.nr);
    let since = explanation.since;
    let since = since.map_or(String::new(), |since| format!(", since Linux {since}"));
    println!(
        "{name}: number {} of {}{since}",
        explanation.nr, explanation.abi
    );
    if !explanation.args.is_empty() {
        let args: Vec<String> = explanation
            .args
            .iter()
            .map(|arg| format!("{} ({} bits)", arg.name, arg.width.mask().count_ones()))
            .collect();
        println!("  arguments  {}", args.join(", "));
    }
    if let Some(over) = explanation.ceiling {
        let part = match over.reach {
            Reach::Always => String::new(),
            Reach::Unless { arg, mask } => {
                format!(", where argument {arg} has a bit of {mask:#x}")
            }
        };
        let why = over.why.map_or(String::new(), |why| format!(": {why}"));
        println!("  ceiling    under it{part}{why}");
    }
    println!("  kernel     {}", kernel(explanation));
    for (phases, cases) in grouped(explanation) {
        let phases: Vec<&str> = phases.iter().map(|phase| phase.name()).collect();
        println!("  {}", phases.join(", "));
        for case in cases {
            let when = match case.when.as_slice() {
                [] => String::new(),
                when => format!("if {}: ", words::conditions(explanation.name, when)),
            };
            let verdict = words::verdict(case.verdict);
            println!("    {when}{verdict}, {}", because(text, case.cause));
        }
    }
    if explanation.to_allow.is_empty() {
        println!("  all of it is allowed in every phase");
    }
    for step in &explanation.to_allow {
        println!("  to allow it: {}", advice(text, &name.to_string(), step));
    }
}

/// Phases with the same cases.
fn grouped(explanation: &Explanation) -> Vec<(Vec<Phase>, &[Case])> {
    let mut groups: Vec<(Vec<Phase>, &[Case])> = Vec::new();
    for one in &explanation.phases {
        match groups.iter_mut().find(|(_, cases)| *cases == one.cases) {
            Some((phases, _)) => phases.push(one.phase),
            None => groups.push((vec![one.phase], &one.cases)),
        }
    }
    groups
}

fn kernel(explanation: &Explanation) -> String {
    let entry = &explanation.kernel;
    let otherwise = words::verdict(entry.otherwise);
    if entry.branches.is_empty() {
        return format!("{otherwise} ({} band)", band(entry));
    }
    let branches = entry.branches.iter().map(|branch| {
        let when = words::conditions(explanation.name, &branch.all);
        format!("{} if {when}, ", words::verdict(branch.verdict))
    });
    format!("{}else {otherwise}", branches.collect::<String>())
}

/// The cause, with the line and the reason of a rule.
fn because(text: &Text, cause: Cause) -> String {
    match cause {
        Cause::Ceiling => "under the ceiling".to_string(),
        Cause::Prelude => "the prelude is the runtime's own".to_string(),
        Cause::Otherwise => "no rule holds (`otherwise`)".to_string(),
        Cause::Allowed(rule) | Cause::Denied(rule) => {
            let rules = &text.policy().wire().rules;
            let why = rules.get(rule).map_or("", |rule| rule.why.as_str());
            let found = text.finding(&Place::field("rules").index(rule), why);
            format!("{} at line {}: {why}", found.place, found.line)
        }
    }
}

fn advice(text: &Text, name: &str, step: &ToAllow) -> String {
    match step {
        ToAllow::LeaveCeiling => {
            format!("name the calls of `ceiling` one by one, without {name}; read why it is there")
        }
        ToAllow::DropDenial(rule) => {
            let place = Place::field("rules").index(*rule).at("deny");
            let line = text.finding(&place, "").line;
            format!("take {name} out of the `deny` at line {line}")
        }
        ToAllow::AddRule { phases, narrow } => {
            let list: Vec<&str> = phases.iter().map(|phase| phase.name()).collect();
            let during = match list.as_slice() {
                ["startup", "serving", "stopping", "exec"] => String::new(),
                ["startup"] => ", until: serving".to_string(),
                ["startup", "serving"] => ", until: stopping".to_string(),
                list => format!(", during: [{}]", list.join(", ")),
            };
            let wider = match narrow {
                true => " (some arguments are allowed already; `when` narrows a rule)",
                false => "",
            };
            format!("- {{allow: [{name}]{during}, why: …}}{wider}")
        }
    }
}

fn json(text: &Text, explanation: &Explanation) {
    let name = table::display(explanation.abi, explanation.nr).to_string();
    let args = explanation
        .args
        .iter()
        .map(|arg| serde_json::json!({"name": arg.name, "bits": arg.width.mask().count_ones()}));
    let steps = explanation.to_allow.iter();
    println!(
        "{}",
        serde_json::json!({
            "type": "explanation", "v": 1, "call": name, "nr": explanation.nr, "arch": explanation.abi,
            "since": explanation.since.map(|since| since.to_string()), "args": args.collect::<Vec<_>>(),
            "ceiling": explanation.ceiling.is_some(), "ceiling_why": explanation.ceiling.and_then(|over| over.why),
            "band": band(&explanation.kernel), "kernel": kernel(explanation),
            "to_allow": steps.map(|step| advice(text, &name, step)).collect::<Vec<_>>(),
        })
    );
    for one in &explanation.phases {
        for case in &one.cases {
            let rule = match case.cause {
                Cause::Allowed(rule) | Cause::Denied(rule) => Some(rule),
                _ => None,
            };
            println!(
                "{}",
                serde_json::json!({
                    "type": "case", "v": 1, "phase": one.phase,
                    "when": words::conditions(explanation.name, &case.when),
                    "verdict": words::verdict(case.verdict), "rule": rule, "because": because(text, case.cause),
                })
            );
        }
    }
}
