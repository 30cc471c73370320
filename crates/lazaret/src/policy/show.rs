//! `lazaret policy show`: a policy as a person reviews it.

use super::band;
use crate::args::{Format, ProfileHost};
use crate::exit::{Exit, Outcome};
use crate::given::{self, Given};
use crate::{columns, meaning};
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::table;
use lazaret_core::format::policy::{CallV1, CeilingV1, RuleV1};
use lazaret_core::phase::Phase;
use lazaret_core::policy::explain::Cause;
use lazaret_core::policy::{ExecStart, Mode, Policy, words};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub(super) fn main(file: &Path, host: &ProfileHost, format: Format) -> Outcome {
    let given = given::read(file, host)?;
    given::host_for(given.is_profile(), host)?;
    match given {
        Given::Profile(profile) => {
            profile.tell_without_table("are not shown");
            meaning::show_table(&profile.table, format)?;
        }
        Given::Policy(policy) => {
            header(&policy, format);
            match format {
                Format::Text => rules(&policy),
                Format::Json => calls(&policy),
            }
        }
    }
    Ok(Exit::Yes)
}

fn header(policy: &Policy, format: Format) {
    let wire = policy.wire();
    let bands = policy.bands();
    let serving = policy.serving().map(ToString::to_string);
    let exec_start = match policy.exec_start() {
        ExecStart::Admit => "admit",
        ExecStart::Refuse => "refuse",
    };
    let mode = match policy.mode() {
        Mode::Enforce => "enforce",
        Mode::Observe => "observe",
    };
    let (ceiling, under) = match &wire.ceiling {
        CeilingV1::Named(name) => {
            let set = lazaret_core::ceiling::named(name);
            (name.as_str(), set.map_or(0, <[_]>::len))
        }
        CeilingV1::Calls(calls) => ("listed", calls.len()),
    };
    if format == Format::Json {
        println!(
            "{}",
            serde_json::json!({
                "type": "policy", "v": 1, "name": policy.name(), "revision": policy.revision(),
                "digest": policy.digest(), "image": wire.image, "mode": mode, "environment": wire.environment,
                "ceiling": ceiling, "under_ceiling": under, "otherwise": wire.otherwise.errno, "serving": serving,
                "restarts": policy.restarts(), "exec_start": exec_start,
                "bands": {"allow": bands.allow.len(), "ask": bands.ask.len(), "deny": bands.deny.len()},
            })
        );
        return;
    }
    let environment = &wire.environment;
    let mut place = vec![
        environment.arch.clone(),
        format!("kernel {}", environment.kernel),
    ];
    if environment.no_new_privileges {
        place.push("no_new_privs".to_string());
    }
    place.extend(environment.libc.iter().cloned());
    place.extend(environment.runtimes.iter().cloned());
    let mut image = vec![wire.image.name.clone()];
    image.extend(wire.image.digests.iter().map(ToString::to_string));
    println!("{} revision {}", policy.name(), policy.revision());
    let by_hand = || "by hand only (`lazaret phase`)".to_string();
    let mut serving = serving.unwrap_or_else(by_hand);
    match policy.restarts() {
        0 => {}
        1 => serving.push_str("; the server may start again once"),
        restarts => serving.push_str(&format!("; the server may start again {restarts} times")),
    }
    let exec = match policy.exec_start() {
        ExecStart::Admit => "may start, under the rules of phase exec",
        ExecStart::Refuse => "refused, but under a signed permit",
    };
    for (name, text) in [
        ("digest", policy.digest().to_string()),
        ("image", image.join(" ")),
        ("mode", mode.to_string()),
        ("environment", place.join(", ")),
        ("serving", serving),
        ("exec", exec.to_string()),
        (
            "ceiling",
            format!(
                "{ceiling}, {under} calls; otherwise {}",
                wire.otherwise.errno
            ),
        ),
        (
            "calls",
            format!(
                "the kernel allows {}, asks about {}, denies {}",
                bands.allow.len(),
                bands.ask.len(),
                bands.deny.len()
            ),
        ),
    ] {
        let head = format!("  {name:<12}");
        println!(
            "{}",
            columns::wrap(&head, text.split(' '), columns::width())
        );
    }
    println!();
}

/// A block for each rule and band: calls, conditions, reason.
fn rules(policy: &Policy) {
    let width = columns::width();
    println!("{:<8} {:<16} calls, conditions, reason", "kernel", "phases");
    for (index, rule) in policy.wire().rules.iter().enumerate() {
        let mut bands: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for call in listed(rule) {
            let band =
                number(policy.abi(), call).map_or("nothing", |nr| band(&policy.explain(nr).kernel));
            bands.entry(band).or_default().push(call.to_string());
        }
        for (band, calls) in bands {
            let head = format!("{band:<8} {:<16} ", phases(rule));
            let space = " ".repeat(head.chars().count());
            let calls = calls.iter().map(String::as_str);
            println!("{}", columns::wrap(&head, calls, width));
            let below = |text: &str| println!("{}", columns::wrap(&space, text.split(' '), width));
            for conditions in conditions(policy, index, rule) {
                below(&format!("if {conditions}"));
            }
            if rule.deny.is_some() {
                let errno = rule.errno.as_deref().unwrap_or("EPERM");
                below(&format!("fails with {errno}"));
            }
            below(&format!("- {}", rule.why));
        }
    }
}

fn listed(rule: &RuleV1) -> impl Iterator<Item = &CallV1> {
    let lists = [&rule.allow, &rule.ask, &rule.deny];
    lists.into_iter().flatten().flatten()
}

/// The conditions of a rule in words, once for each way to say them: its calls may have other names for an argument.
fn conditions(policy: &Policy, index: usize, rule: &RuleV1) -> BTreeSet<String> {
    if rule.when.is_empty() {
        return BTreeSet::new();
    }
    let numbers = listed(rule).filter_map(|call| number(policy.abi(), call));
    numbers
        .flat_map(|nr| conditions_of(policy, nr, |cause| cause == Cause::Allowed(index)))
        .collect()
}

/// The conditions under which a call is let through for this cause, in any phase.
fn conditions_of(policy: &Policy, nr: u32, counts: impl Fn(Cause) -> bool) -> BTreeSet<String> {
    let name = table::name_of(policy.abi(), nr);
    Phase::ALL
        .into_iter()
        .flat_map(|phase| policy.cases(phase, nr))
        .filter(|case| counts(case.cause) && !case.when.is_empty())
        .map(|case| words::conditions(name, &case.when))
        .collect()
}

fn phases(rule: &RuleV1) -> String {
    match (&rule.until, &rule.during) {
        (Some(phase), _) => format!("until {phase}"),
        (None, Some(phases)) => phases.join(" "),
        (None, None) => "always".to_string(),
    }
}

fn number(abi: Abi, call: &CallV1) -> Option<u32> {
    match call {
        CallV1::Number(nr) => Some(*nr),
        CallV1::Name(name) => table::nr_of(abi, name),
    }
}

/// A line for every call that a rule names, in the order of the numbers.
fn calls(policy: &Policy) {
    let mut rules: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (index, rule) in policy.wire().rules.iter().enumerate() {
        for nr in listed(rule).filter_map(|call| number(policy.abi(), call)) {
            rules.entry(nr).or_default().push(index);
        }
    }
    for (nr, rules) in rules {
        let allowed = |phase: &Phase| policy.allowed_in(*phase).any(|other| other == nr);
        let phases: Vec<&str> = Phase::ALL
            .into_iter()
            .filter(|phase| *phase != Phase::Prelude && allowed(phase))
            .map(Phase::name)
            .collect();
        let why: Vec<&str> = rules
            .iter()
            .filter_map(|rule| policy.wire().rules.get(*rule))
            .map(|rule| rule.why.as_str())
            .collect();
        println!(
            "{}",
            serde_json::json!({
                "type": "call", "v": 1, "call": table::display(policy.abi(), nr).to_string(), "nr": nr,
                "band": band(&policy.explain(nr).kernel), "phases": phases,
                "conditions": conditions_of(policy, nr, |cause| matches!(cause, Cause::Allowed(_))),
                "rules": rules, "why": why,
            })
        );
    }
}
