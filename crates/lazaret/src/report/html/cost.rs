//! What it costs: start, throughput, CPU time per request, time to answer, and the raw figures behind them.

use super::super::data::{Percentiles, Protection, Report, Round, Sample, Spread};
use super::super::plot::{self, Axis, Line};
use super::super::text::{self, NOT_MEASURED, count, figure as number, ratio};
use super::{absent, figure, section};
use maud::{Markup, html};
use std::collections::BTreeMap;

pub(super) fn cost(report: &Report) -> Markup {
    let throughput = &report.throughput;
    let cpu = &report.cpu_per_request;
    section(
        "cost",
        html! {
            p {
                "Every round puts each container under the same load once, in random order; warm-up rounds are not counted. "
                b { "Dot" } ": median of the rounds. " b { "Line" } ": 10th to 90th percentile, how much single rounds differ. "
                b { "Bar" } ": where the true median lies with 95 % confidence. "
                b { "Shaded" } ": the line of the A/A comparison of two identical containers, which is what noise alone does."
            }
            .grid {
                (ratios(
                    "Throughput",
                    "requests per second, ratio by round",
                    [throughput.lazaret_over_default, throughput.a_over_a, throughput.lazaret_over_unconfined],
                ))
                (ratios(
                    "CPU time per request",
                    "CPU time of the container's cgroup, ratio by round",
                    [cpu.lazaret_over_default, cpu.a_over_a, cpu.lazaret_over_unconfined],
                ))
                (spreads("Requests per second", "requests per second", &throughput.per_second))
                (spreads("CPU time per request", "milliseconds of CPU time", &cpu.ms))
                (starts(report))
                @for (title, pick) in PERCENTILES {
                    (spreads(title, "milliseconds", &percentile(report, pick)))
                }
            }
        },
    )
}

type Pick = fn(&Percentiles) -> Spread;
const PERCENTILES: [(&str, Pick); 3] = [
    ("Time to answer, median (p50)", |percentiles| {
        percentiles.p50
    }),
    ("Time to answer, 95 of 100 (p95)", |percentiles| {
        percentiles.p95
    }),
    ("Time to answer, 99 of 100 (p99)", |percentiles| {
        percentiles.p99
    }),
];

fn percentile(report: &Report, pick: Pick) -> BTreeMap<Protection, Spread> {
    let each = report.latency.ms.iter();
    each.map(|(protection, percentiles)| (*protection, pick(percentiles)))
        .collect()
}

fn line(label: &str, spread: &Spread, ours: bool, one: fn(f64) -> String) -> Line {
    Line {
        label: label.to_owned(),
        value: text::spread(spread, one),
        median: spread.median,
        spread: Some((spread.low, spread.high)),
        interval: spread
            .median_interval
            .map(|interval| (interval.low, interval.high)),
        dots: Vec::new(),
        ours,
    }
}

/// What a plot says, for people who cannot see it.
fn alt(lines: &[Line]) -> String {
    let lines = lines.iter();
    let said: Vec<String> = lines
        .map(|line| format!("{}: {}", line.label, line.value))
        .collect();
    said.join("; ")
}

/// Three ratios: Lazaret over default, A/A, Lazaret over unconfined.
fn ratios(
    title: &str,
    unit: &str,
    [over_default, again, over_unconfined]: [Option<Spread>; 3],
) -> Markup {
    let rows = [
        ("Lazaret / engine's default", over_default, true),
        ("A/A: engine's default, twice", again, false),
        ("Lazaret / unconfined", over_unconfined, true),
    ];
    let lines: Vec<Line> = rows
        .iter()
        .filter_map(|(label, spread, ours)| Some(line(label, spread.as_ref()?, *ours, ratio)))
        .collect();
    let missing = rows.iter().filter(|(_, spread, _)| spread.is_none());
    let rounds = over_default.map_or(0, |spread| spread.n);
    figure(
        &format!("{title}: ratios"),
        &alt(&lines),
        plot::intervals(
            &lines,
            &Axis::AroundOne(again.map(|spread| (spread.low, spread.high))),
            unit,
        ),
        html! {
            @if rounds > 0 { (rounds) " rounds. " }
            @for (label, ..) in missing { (label) ": " span .absent { (NOT_MEASURED) } ". " }
        },
    )
}

fn spreads(title: &str, unit: &str, figures: &BTreeMap<Protection, Spread>) -> Markup {
    let lines: Vec<Line> = figures
        .iter()
        .map(|(protection, spread)| {
            let ours = *protection == Protection::Lazaret;
            line(protection.title(), spread, ours, number)
        })
        .collect();
    figure(
        title,
        &alt(&lines),
        plot::intervals(&lines, &Axis::FromZero, unit),
        html! {},
    )
}

fn starts(report: &Report) -> Markup {
    let lines: Vec<Line> = report
        .start
        .seconds
        .iter()
        .map(|(protection, seconds)| {
            let dots = report.start.samples.get(protection).cloned();
            let dots = dots.unwrap_or_default();
            Line {
                label: protection.title().to_owned(),
                value: format!("{} s, {} starts", number(*seconds), dots.len().max(1)),
                median: *seconds,
                spread: None,
                interval: None,
                dots,
                ours: *protection == Protection::Lazaret,
            }
        })
        .collect();
    figure(
        "Start to first good answer",
        &alt(&lines),
        plot::intervals(&lines, &Axis::FromZero, "seconds"),
        html! { "Filled: median. Rings: each start." },
    )
}

pub(super) fn rounds(report: &Report) -> Markup {
    let titles = [
        "requests", "failed", "seconds", "p50 ms", "p95 ms", "p99 ms", "CPU s",
    ];
    section(
        "rounds",
        html! {
            @if report.rounds.is_empty() { (absent()) } @else {
                details {
                    summary { (report.rounds.len()) " rounds, in the order in which they were made" }
                    .scroll {
                        table .tight {
                            thead {
                                tr {
                                    th .n scope="col" { "round" }
                                    th scope="col" { "target" }
                                    @for title in titles { th .n scope="col" { (title) } }
                                }
                            }
                            tbody {
                                @for (index, Round { warm_up, samples }) in report.rounds.iter().enumerate() {
                                    @for sample in samples { (row(index, *warm_up, sample)) }
                                }
                            }
                        }
                    }
                }
            }
        },
    )
}

fn row(index: usize, warm_up: bool, sample: &Sample) -> Markup {
    html! {
        tr {
            td .n { (index + 1) @if warm_up { " (warm-up)" } }
            td { (sample.protection.title()) }
            td .n { (count(sample.requests)) }
            td .n { (count(sample.failed)) }
            td .n { (number(sample.seconds)) }
            @for figure in [sample.p50_ms, sample.p95_ms, sample.p99_ms, sample.cpu_seconds] {
                td .n { (text::or_not_measured(figure, number)) }
            }
        }
    }
}
