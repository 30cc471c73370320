//! A snapshot as OpenMetrics text (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
//!
//! Names of families and labels are part of the program's interface: dashboards and alerts are made of them.

use super::latency::BOUNDS_NS;
use super::{Container, Snapshot};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Characters of an id that stand for it where there is no name, as engines show it.
const SHORT_ID: usize = 12;

/// The content type of [`render`]'s text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The text.
pub(super) fn render(snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Shown(snapshot)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Shown(Snapshot);

/// A container's label: its name, or the beginning of its id; made unique, since two series must not be the same.
fn labels(containers: &[Container]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let each = containers.iter().map(|container| {
        let short: String = container.id.chars().take(SHORT_ID).collect();
        let plain = match container.name.as_str() {
            "" => short.clone(),
            name => name.to_owned(),
        };
        let candidates = [
            plain,
            format!("{}@{short}", container.name),
            format!("{}@{}", container.name, container.id),
        ];
        // ids are unique, so the last one is free
        let [.., last] = &candidates;
        let free = candidates.iter().find(|label| !taken.contains(*label));
        let label = free.unwrap_or(last).clone();
        taken.insert(label.clone());
        label
    });
    each.collect()
}

fn gauge<L: EncodeLabelSet>(
    to: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<&Unit>),
    series: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    let mut family = to.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    for (labels, value) in series {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn counter<L: EncodeLabelSet>(
    to: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    series: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    let mut family = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in series {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// A gauge without labels.
fn level(
    to: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<&Unit>),
    value: u64,
) -> fmt::Result {
    ConstGauge::new(value).encode(to.encode_descriptor(name, help, unit, MetricType::Gauge)?)
}

/// A counter without labels.
fn total(to: &mut DescriptorEncoder<'_>, (name, help): (&str, &str), value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(to.encode_descriptor(name, help, None, MetricType::Counter)?)
}

impl Collector for Shown {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let Shown(snapshot) = self;
        self.program(&mut to)?;
        self.containers(&mut to)?;
        self.life(&mut to)?;
        self.audit(&mut to)?;
        let to = &mut to;
        total(
            to,
            (
                "lazaret_events_lost",
                "Events that are not in the event log.",
            ),
            snapshot.events_lost,
        )?;
        let waiting = (
            "lazaret_events_waiting",
            "Events that wait for the writer of the event log.",
            None,
        );
        level(to, waiting, snapshot.events_waiting as u64)?;
        let capacity = (
            "lazaret_events_capacity",
            "Events that can wait for the writer of the event log.",
            None,
        );
        level(to, capacity, snapshot.events_capacity as u64)
    }
}

impl Shown {
    fn program(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Shown(snapshot) = self;
        let help = "The program.";
        let mut info = to.encode_descriptor("lazaret_build", help, None, MetricType::Info)?;
        info.encode_info(&[("version", snapshot.version)])?;
        let help = "When the program began, in seconds since the Unix epoch.";
        let unit = Some(&Unit::Seconds);
        let began = to.encode_descriptor("process_start_time", help, unit, MetricType::Gauge)?;
        ConstGauge::new(seconds(snapshot.began_ms)).encode(began)?;
        let help = "From the receipt of a notification to the return of its response.";
        let mut answer =
            to.encode_descriptor("lazaret_answer", help, unit, MetricType::Histogram)?;
        let answers = snapshot.tallied.answers;
        let bounds = BOUNDS_NS.iter().map(|ns| *ns as f64 / 1e9);
        let bounds = bounds.chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(answers.buckets).collect();
        let count = answers.buckets.iter().sum();
        answer.encode_histogram::<NoLabelSet>(answers.sum_ns as f64 / 1e9, count, &buckets, None)
    }

    fn containers(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let containers = &self.0.containers;
        let labels = labels(containers);
        let mut by_state: BTreeMap<_, u64> = BTreeMap::new();
        for container in containers {
            let phase = container.phase.map_or("none", |phase| phase.name());
            *by_state.entry((phase, container.state.name())).or_default() += 1;
        }
        let series = by_state
            .into_iter()
            .map(|((phase, state), count)| ([("phase", phase), ("state", state)], count));
        let family = ("lazaret_containers", "Containers that live now.", None);
        gauge(to, family, series)?;
        let calls = containers
            .iter()
            .zip(&labels)
            .flat_map(|(container, label)| {
                container.counts.iter().flat_map(move |(phase, counts)| {
                    [("allowed", counts.allowed), ("denied", counts.denied)].map(
                        |(answer, count)| {
                            let labels = [
                                ("container", label.as_str()),
                                ("phase", phase.name()),
                                ("answer", answer),
                            ];
                            (labels, count)
                        },
                    )
                })
            });
        let help = "Calls that the kernel asked about, by what the policy said; in mode observe denied ones went on.";
        counter(to, ("lazaret_asked_calls", help), calls)?;
        let revisions = containers
            .iter()
            .zip(&labels)
            .flat_map(|(container, label)| {
                container.revisions.into_iter().flat_map(move |revisions| {
                    [
                        ("force", revisions.in_force),
                        ("kernel", revisions.in_kernel),
                    ]
                    .map(|(place, revision)| {
                        ([("container", label.as_str()), ("in", place)], revision)
                    })
                })
            });
        let help = "The policy's revision: in force for asked calls, and in the kernel until the next start.";
        gauge(to, ("lazaret_policy_revision", help, None), revisions)?;
        let differing = containers.iter().filter(|container| {
            container
                .revisions
                .is_some_and(|revisions| revisions.in_force != revisions.in_kernel)
        });
        let help = "Containers whose revision in force is not the one in the kernel.";
        let family = ("lazaret_containers_differing", help, None);
        level(to, family, differing.count() as u64)
    }

    fn life(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let tallied = &self.0.tallied;
        let help = "Containers and execs whose papers were in order.";
        total(to, ("lazaret_admissions", help), tallied.admissions)?;
        let help = "Containers and execs that were refused, by the check that failed.";
        let refusals = tallied.refusals.iter();
        let refusals = refusals.map(|(check, count)| ([("check", *check)], *count));
        counter(to, ("lazaret_refusals", help), refusals)?;
        let help = "Containers of the daemon before this one, by what became of their supervision.";
        let outcomes = [
            ([("outcome", "taken_over")], tallied.taken_over),
            ([("outcome", "unsupervised")], tallied.unsupervised),
        ];
        counter(to, ("lazaret_takeovers", help), outcomes)
    }

    fn audit(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(audit) = self.0.audit else {
            return Ok(());
        };
        let help = "Audit records that wait to be posted.";
        level(
            to,
            ("lazaret_audit_waiting", help, None),
            audit.queue_records,
        )?;
        let help = "What they take on the disk.";
        let family = ("lazaret_audit_queue", help, Some(&Unit::Bytes));
        level(to, family, audit.queue_bytes)?;
        let help = "Audit records, by what became of them.";
        let outcomes = [
            ("sent", audit.sent),
            ("dropped", audit.dropped),
            ("rejected", audit.rejected),
        ];
        let outcomes = outcomes.map(|(outcome, count)| ([("outcome", outcome)], count));
        counter(to, ("lazaret_audit_records", help), outcomes)?;
        let Some(last_ms) = audit.last_sent_ms else {
            return Ok(());
        };
        let help = "When the server last took a record, in seconds since the Unix epoch.";
        let name = "lazaret_audit_last_sent_time";
        let last = to.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        ConstGauge::new(seconds(last_ms)).encode(last)
    }
}

/// Exact: 2^53 ms are 285,000 years.
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}
