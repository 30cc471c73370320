//! What the policy held: the exercise under it, papers that are not in order, attacks, and the daemon's own death.

use super::super::data::{Attack, DaemonRestart, Protection, Report};
use super::super::text::{NOT_MEASURED, count, figure as number};
use super::super::verdict::{MOUNT_ESCAPE, REFUSAL_CASES, SERVER_SHELL, worked};
use super::{absent, section, value};
use maud::{Markup, html};
use std::collections::BTreeSet;

pub(super) fn enforced(report: &Report) -> Markup {
    let enforced = &report.enforced;
    section(
        "enforced",
        html! {
            p { "The exercise that was recorded, once more, with the policy enforced." }
            dl {
                dt { "Requests" } dd { (value(enforced.requests, count)) }
                dt { "Calls denied while serving" } dd { (value(enforced.denied_serving, count)) }
                dt { "Different status codes" } dd { (value(enforced.status_differences, count)) }
            }
            @if !enforced.denied_calls.is_empty() {
                h3 { "Denied" }
                ul .mono {
                    @for (call, times) in &enforced.denied_calls { li { (call) ": " (count(*times)) } }
                }
            }
            @if !enforced.differing_steps.is_empty() {
                h3 { "Steps that were answered differently" }
                ul { @for step in &enforced.differing_steps { li { (step) } } }
            }
        },
    )
}

/// The title of a refusal case for people; other cases stand as they are named.
fn case(name: &str) -> &str {
    match name {
        "changed_byte" => "policy changed by one byte",
        "other_key" => "signed by another key",
        "other_image" => "made for another image",
        "missing" => "no policy",
        other => other,
    }
}

pub(super) fn gate(report: &Report) -> Markup {
    let refusals = &report.gate.refusals;
    let missing = REFUSAL_CASES
        .into_iter()
        .filter(|name| refusals.iter().all(|refusal| refusal.case != *name));
    section(
        "gate",
        html! {
            p {
                "The papers are checked while the container's first instruction waits. The sentence is what "
                code { "docker run" } " shows."
            }
            table .stack {
                thead { tr { th { "Papers" } th { "Container" } th { "Sentence" } } }
                tbody {
                    @for refusal in refusals {
                        tr {
                            th scope="row" { (case(&refusal.case)) }
                            td data-label="container" {
                                @if refusal.started { span .cell.no { "✗ started" } }
                                @else { span .cell.yes { "✓ did not start" } }
                            }
                            td data-label="sentence" {
                                @if refusal.reason.trim().is_empty() { span .cell.no { "✗ none" } }
                                @else { (refusal.reason) }
                            }
                        }
                    }
                    @for name in missing {
                        tr {
                            th scope="row" { (case(name)) }
                            td data-label="container" .absent { (NOT_MEASURED) }
                            td data-label="sentence" .absent { (NOT_MEASURED) }
                        }
                    }
                }
            }
        },
    )
}

/// The title of an attack for people; other attacks stand as they are named.
fn attack_title(name: &str) -> &str {
    match name {
        MOUNT_ESCAPE => "mount the host's disk and change a file",
        SERVER_SHELL => "shell from the server's own process",
        other => other,
    }
}

pub(super) fn attacks(report: &Report) -> Markup {
    // These four always have their column, so that a protection that nobody tried is seen to be missing.
    let mut protections: BTreeSet<Protection> = BTreeSet::from([
        Protection::Unconfined,
        Protection::Default,
        Protection::LazaretStartup,
        Protection::LazaretServing,
    ]);
    protections.extend(report.attacks.iter().map(|attack| attack.protection));
    let mut names: Vec<&str> = Vec::new();
    for attack in &report.attacks {
        if !names.contains(&attack.name.as_str()) {
            names.push(&attack.name);
        }
    }
    section(
        "attacks",
        html! {
            p {
                "Each was tried from inside the server's container, with the privileges that make it possible. The column "
                "“unconfined” is the positive control: an attack that does not work there proves nothing elsewhere."
            }
            @if names.is_empty() { (absent()) } @else {
                table .stack {
                    thead {
                        tr {
                            th { "Attack" }
                            @for protection in &protections { th scope="col" { (protection.title()) } }
                        }
                    }
                    tbody {
                        @for name in names {
                            tr {
                                th scope="row" { (attack_title(name)) }
                                @for protection in &protections {
                                    td data-label=(protection.title()) { (attack_cell(report, name, *protection)) }
                                }
                            }
                        }
                    }
                }
            }
        },
    )
}

fn attack_cell(report: &Report, name: &str, protection: Protection) -> Markup {
    let mut tried = report
        .attacks
        .iter()
        .filter(|attack| attack.name == name && attack.protection == protection)
        .peekable();
    html! {
        @if tried.peek().is_none() { span .absent { (NOT_MEASURED) } }
        @for Attack { worked: reached, detail, errno, .. } in tried {
            span class=(attack_class(*reached, protection)) {
                (worked(*reached))
                @if let Some(errno) = errno { " (" (errno) ")" }
            }
            @if !detail.is_empty() { " " span .detail { (detail) } }
        }
    }
}

/// Colours are for Lazaret's columns: elsewhere an attack that works is the control, not a failure.
const fn attack_class(reached: bool, protection: Protection) -> &'static str {
    match (protection, reached) {
        (Protection::Unconfined | Protection::Default | Protection::DefaultAgain, _) => "cell",
        (_, true) => "cell no",
        (_, false) => "cell yes",
    }
}

pub(super) fn restart(report: &Report) -> Markup {
    section(
        "restart",
        match &report.daemon_restart {
            None => absent(),
            Some(DaemonRestart {
                requests,
                failed,
                asked_refused,
                down_seconds,
            }) => html! {
                p {
                    "The daemon was ended and started again, over and over, while the server was under requests. Allowed calls go on "
                    "without it; asked calls wait until it is back."
                }
                dl {
                    dt { "Requests" } dd { (count(*requests)) }
                    dt { "Requests failed" } dd { (count(*failed)) }
                    dt { "Asked calls refused meanwhile" } dd { (value(*asked_refused, count)) }
                    dt { "Seconds without daemon" } dd { (number(*down_seconds)) }
                }
            },
        },
    )
}
