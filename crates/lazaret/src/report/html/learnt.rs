//! What was learnt: the bands, the calls of each phase, what the start asks for, and how far the exercise reached.

use super::super::data::{Coverage, CoverageRow, Report};
use super::super::plot::{self, Band, Bar, MOST_BARS};
use super::super::text::{count, figure as number};
use super::{absent, figure, section, value};
use lazaret_core::phase::Phase;
use maud::{Markup, html};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn bands(report: &Report) -> Markup {
    let policy = &report.policy;
    let allow = policy
        .allow_serving
        .as_ref()
        .map(|names| names.len() as u64);
    let lists = [
        ("Allowed by the kernel while serving", &policy.allow_serving),
        ("Asked", &policy.ask_names),
        ("Denied by the kernel", &policy.deny_names),
    ];
    let drawn = allow.zip(policy.ask).zip(policy.deny);
    section(
        "bands",
        html! {
            p {
                "Every system call falls into one of three bands. " b { "Allow" } ": the kernel lets it pass by its number, at no "
                "measurable cost. " b { "Ask" } ": the daemon answers, under the phase that the container is in. " b { "Deny" }
                ": the kernel refuses it, whatever the policy says."
            }
            @if let Some(((allow, ask), deny)) = drawn {
                (figure(
                    &policy_title(report),
                    &format!("{allow} calls allowed, {ask} asked, {deny} denied"),
                    plot::bands(allow, ask, deny),
                    legend(),
                ))
            }
            dl {
                dt { "Allow while serving" } dd { (value(allow, count)) }
                dt { "Ask" } dd { (value(policy.ask, count)) }
                dt { "Deny" } dd { (value(policy.deny, count)) }
            }
            @for (index, (title, names)) in lists.into_iter().enumerate() {
                @if let Some(names) = names {
                    details open[index == 0] {
                        summary { (title) " (" (count(names.len() as u64)) ")" }
                        ul .names.mono { @for name in names { li { (name) } } }
                    }
                }
            }
        },
    )
}

fn policy_title(report: &Report) -> String {
    let policy = &report.policy;
    match (&policy.name, policy.revision) {
        (Some(name), Some(revision)) => format!("Policy {name}, revision {revision}"),
        (Some(name), None) => format!("Policy {name}"),
        _ => "Policy".to_owned(),
    }
}

/// What the colours of the three bands say.
fn legend() -> Markup {
    html! {
        span .legend {
            span { span .key.k-allow {} "allow" }
            span { span .key.k-ask {} "ask" }
            span { span .key.k-deny {} "deny" }
        }
    }
}

pub(super) fn calls(report: &Report) -> Markup {
    let recording = &report.recording;
    let most = report
        .histogram
        .values()
        .flat_map(BTreeMap::values)
        .copied()
        .max()
        .unwrap_or(0);
    section(
        "calls",
        html! {
            p {
                "The bag of system calls: how often each call was made in each phase of the container's life while it was recorded. "
                "The axis is logarithmic and the same in every plot. " b { "prelude" } " is the runtime's own work before the "
                "image's first instruction; " b { "exec" } " is what was put into the container from outside."
            }
            dl {
                dt { "Recordings" } dd { (value(recording.runs, count)) }
                dt { "Calls lost" } dd { (value(recording.lost, count)) }
                dt { "Exercise slower by" } dd { (value(recording.slow_down, |factor| format!("{}×", number(factor)))) }
            }
            p .soft { "Colour: the band that the call is in while serving. " (legend()) " " span .key.k-none {} "in no band of the policy" }
            .flow {
                @for phase in Phase::ALL {
                    (bag(
                        report,
                        phase.name(),
                        &format!("calls in phase {phase}, most frequent first"),
                        report.histogram.get(&phase),
                        most,
                    ))
                }
            }
        },
    )
}

pub(super) fn asked(report: &Report) -> Markup {
    let asked = report.asked_in_start.as_ref();
    let most = asked.and_then(|asked| asked.values().copied().max());
    section(
        "asked",
        html! {
            p {
                "What the daemon was asked for from the first instruction until the server served, under enforcement. "
                "These calls are closed again while serving."
            }
            (bag(
                report,
                "Start",
                "calls asked in the start, most frequent first",
                asked,
                most.unwrap_or(0),
            ))
        },
    )
}

/// One bag of calls, on an axis up to `most`; one without calls is not the same as one that nobody measured.
fn bag(
    report: &Report,
    title: &str,
    alt: &str,
    calls: Option<&BTreeMap<String, u64>>,
    most: u64,
) -> Markup {
    let Some(calls) = calls else {
        return html! { figure { h3 { (title) } (absent()) } };
    };
    let all = calls
        .values()
        .fold(0_u64, |sum, one| sum.saturating_add(*one));
    let title = format!(
        "{title}: {} different calls, {} in all",
        calls.len(),
        count(all)
    );
    if calls.is_empty() {
        return html! { figure { h3 { (title) } } };
    }
    let left_out = calls.len().saturating_sub(MOST_BARS);
    figure(
        &title,
        alt,
        bars(report, calls, most),
        html! { @if left_out > 0 { (left_out) " rarer calls are in report.json only." } },
    )
}

/// The plot of these calls, most frequent first, equal counts by name.
fn bars(
    report: &Report,
    calls: &BTreeMap<String, u64>,
    most: u64,
) -> Result<plot::Plot, plot::PlotError> {
    let policy = &report.policy;
    let bands = [
        (Band::Allow, &policy.allow_serving),
        (Band::Ask, &policy.ask_names),
        (Band::Deny, &policy.deny_names),
    ]
    .map(|(band, names)| (band, names.iter().flatten().collect::<BTreeSet<_>>()));
    let mut rows: Vec<Bar<'_>> = calls
        .iter()
        .map(|(label, value)| Bar {
            label,
            value: *value,
            band: bands
                .iter()
                .find(|(_, names)| names.contains(label))
                .map_or(Band::None, |(band, _)| *band),
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.value)); // stable: names stay in order
    plot::bars(&rows, most)
}

pub(super) fn coverage(report: &Report) -> Markup {
    let row = |name: &str, total: bool, figures: [u64; 5]| {
        html! {
            tr .total[total] {
                th scope="row" { (name) }
                @for figure in figures { td .n { (count(figure)) } }
            }
        }
    };
    section(
        "coverage",
        match &report.coverage {
            None => absent(),
            Some(Coverage {
                declared,
                tried,
                succeeded,
                refused,
                failed,
                rows,
                remarks,
            }) => html! {
                p {
                    "The exercise follows the server's own CapabilityStatement. " b { "Succeeded" } ": answered as expected, which for "
                    "malformed input is a refusal; " b { "refused" } ": against expectation; " b { "failed" } ": with a server "
                    "error, wrongly, or not at all."
                }
                .scroll {
                    table .tight {
                        thead {
                            tr {
                                th { "Interactions" }
                                @for title in ["declared", "tried", "succeeded", "refused", "failed"] {
                                    th .n scope="col" { (title) }
                                }
                            }
                        }
                        tbody {
                            @for CoverageRow { name, declared, tried, succeeded, refused, failed } in rows {
                                (row(name, false, [*declared, *tried, *succeeded, *refused, *failed]))
                            }
                            (row("all", true, [*declared, *tried, *succeeded, *refused, *failed]))
                        }
                    }
                }
                @if !remarks.is_empty() {
                    details {
                        summary { "Not succeeded (" (count(remarks.len() as u64)) ")" }
                        ul { @for remark in remarks { li { (remark) } } }
                    }
                }
            },
        },
    )
}
