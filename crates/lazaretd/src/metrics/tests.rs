//! The text against the grammar and the rules of OpenMetrics, and over a real connection.

use super::*;
use crate::metrics::http::{Bound, serve};
use crate::metrics::text::render;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

fn counts(allowed: u64, denied: u64) -> Counts {
    Counts {
        asked: allowed + denied,
        allowed,
        denied,
    }
}

fn container(id: &str, name: &str, state: State) -> Container {
    Container {
        id: id.to_owned(),
        name: name.to_owned(),
        state,
        phase: Some(Phase::Serving),
        counts: BTreeMap::from([
            (Phase::Startup, counts(10, 0)),
            (Phase::Serving, counts(3, 5)),
        ]),
        revisions: Some(Revisions {
            in_force: 2,
            in_kernel: 1,
        }),
    }
}

/// With names as hostile as an engine lets them be, and more.
fn snapshot() -> Snapshot {
    let tally = Tally::default();
    tally.refused("bundle");
    tally.refused("bundle");
    tally.refused("image");
    tally.latency.count(Duration::from_micros(8));
    tally.latency.count(Duration::from_secs(2));
    tally.admissions.fetch_add(4, Ordering::Relaxed);
    let mut gone = container("ffff", "old", State::Unsupervised);
    (gone.phase, gone.revisions) = (None, None);
    gone.counts.clear();
    Snapshot {
        version: "0.1.0",
        began_ms: 1_700_000_000_123,
        tallied: tally.counted(),
        containers: vec![
            container("aaaaaaaaaaaaaaaa1", "fhir", State::Enforced),
            container("aaaaaaaaaaaaaaaa2", "fhir", State::Observed),
            container("aaaaaaaaaaaaaaaa3", "fhir", State::Observed),
            container("bbbbbbbbbbbbbbbb", "", State::Prelude),
            container(
                "cccc",
                "a\"b\\c\nlazaret_events_lost_total 9\n# EOF",
                State::Closed,
            ),
            gone,
        ],
        audit: Some(Audit {
            queue_bytes: 4096,
            queue_records: 12,
            sent: 100,
            dropped: 2,
            rejected: 1,
            last_sent_ms: Some(1_700_000_001_500),
        }),
        events_lost: 7,
        events_waiting: 3,
        events_capacity: 8192,
    }
}

fn is_name(name: &str) -> bool {
    let rest = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(rest)
}

/// `name{a="b"} 1` into its parts.
fn sample(line: &str) -> Result<(String, BTreeMap<String, String>, f64), String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").ok_or("no label")?;
            let mut value = String::new();
            let mut chars = after.char_indices();
            let end = loop {
                match chars.next().ok_or("open quote")? {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next().ok_or("open escape")?.1 {
                        'n' => '\n',
                        same @ ('\\' | '"') => same,
                        other => return Err(format!("escape of {other}")),
                    }),
                    (_, '\n') => return Err("newline".to_owned()),
                    (_, plain) => value.push(plain),
                }
            };
            if !is_name(label) || labels.insert(label.to_owned(), value).is_some() {
                return Err(format!("label {label}"));
            }
            rest = &after[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) if more.starts_with('}') => return Err("comma at the end".to_owned()),
                Some(more) => rest = more,
                None if rest.starts_with('}') => {}
                None => return Err("no comma".to_owned()),
            }
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').ok_or("no space")?;
    let plain = |c: char| c.is_ascii_digit() || ".+-e".contains(c);
    if !is_name(name) || value.is_empty() || !value.chars().all(plain) {
        return Err(format!("name {name} or value {value}"));
    }
    Ok((
        name.to_owned(),
        labels,
        value.parse().map_err(|_| value.to_owned())?,
    ))
}

type Series = BTreeMap<(String, BTreeMap<String, String>), f64>;

/// Checks a text by the specification as far as our families use it; returns its series.
fn check(text: &str) -> Result<Series, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("no end")?;
    let mut series = Series::new();
    let mut families = BTreeSet::new();
    let mut claimed: BTreeMap<String, String> = BTreeMap::new();
    let mut family = (String::new(), String::new());
    let mut told = BTreeSet::new();
    let mut samples = false;
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for line in body.split_terminator('\n') {
        if let Some(meta) = line.strip_prefix("# ") {
            let mut words = meta.splitn(3, ' ');
            let (kind, name) = (words.next().ok_or("kind")?, words.next().ok_or("name")?);
            let what = words.next().ok_or("nothing said")?;
            if name != family.0 {
                if !is_name(name) || !families.insert(name.to_owned()) {
                    return Err(format!("family {name} again"));
                }
                family = (name.to_owned(), "unknown".to_owned());
                told.clear();
                samples = false;
            }
            if samples || !told.insert(kind.to_owned()) {
                return Err(format!("{kind} of {name} again or too late"));
            }
            match kind {
                "TYPE" if ["counter", "gauge", "histogram", "info"].contains(&what) => {
                    family.1 = what.to_owned()
                }
                "UNIT" if name.ends_with(&format!("_{what}")) => {}
                "HELP" if !what.contains(['\\', '"']) => {}
                _ => return Err(line.to_owned()),
            }
            continue;
        }
        samples = true;
        let (name, labels, value) = sample(line).map_err(|reason| format!("{line}: {reason}"))?;
        let suffix = name
            .strip_prefix(family.0.as_str())
            .ok_or(format!("{name} in {}", family.0))?;
        let owner = claimed
            .entry(name.clone())
            .or_insert_with(|| family.0.clone());
        if *owner != family.0 {
            return Err(format!("{name} is of two families"));
        }
        let fits = match (family.1.as_str(), suffix) {
            ("counter", "_total") => value >= 0.0,
            ("gauge", "") => true,
            ("info", "_info") => value == 1.0,
            ("histogram", "_sum") => value >= 0.0,
            ("histogram", "_count") => {
                buckets.clear();
                value >= 0.0
            }
            ("histogram", "_bucket") => {
                let le = labels
                    .get("le")
                    .and_then(|le| le.parse().ok())
                    .ok_or("le")?;
                let (above, more) = buckets.last().copied().unwrap_or((f64::NEG_INFINITY, 0.0));
                buckets.push((le, value));
                above < le && more <= value
            }
            _ => false,
        };
        if !fits || series.insert((name, labels), value).is_some() {
            return Err(line.to_owned());
        }
    }
    match buckets.last() {
        Some((le, all)) if le.is_infinite() => {
            let count = series
                .iter()
                .find(|((name, _), _)| name.ends_with("_count"));
            if count.is_none_or(|(_, count)| count != all) {
                return Err("count".to_owned());
            }
        }
        Some(_) => return Err("no last bucket".to_owned()),
        None => {}
    }
    Ok(series)
}

fn value(series: &Series, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels = labels
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    series.get(&(name.to_owned(), labels.collect())).copied()
}

#[test]
fn the_text_is_openmetrics_and_says_what_the_snapshot_says() {
    let text = render(snapshot()).expect("written");
    let series = check(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let hostile = "a\"b\\c\nlazaret_events_lost_total 9\n# EOF";
    for (name, labels, expected) in [
        ("lazaret_build_info", &[("version", "0.1.0")][..], 1.0),
        ("process_start_time_seconds", &[], 1_700_000_000.123),
        (
            "lazaret_containers",
            &[("phase", "serving"), ("state", "observed")],
            2.0,
        ),
        (
            "lazaret_containers",
            &[("phase", "none"), ("state", "unsupervised")],
            1.0,
        ),
        (
            "lazaret_asked_calls_total",
            &[
                ("container", "fhir"),
                ("phase", "serving"),
                ("answer", "denied"),
            ],
            5.0,
        ),
        (
            "lazaret_asked_calls_total",
            &[
                ("container", "fhir@aaaaaaaaaaaa"),
                ("phase", "startup"),
                ("answer", "allowed"),
            ],
            10.0,
        ),
        (
            "lazaret_asked_calls_total",
            &[
                ("container", "fhir@aaaaaaaaaaaaaaaa3"),
                ("phase", "startup"),
                ("answer", "denied"),
            ],
            0.0,
        ),
        (
            "lazaret_asked_calls_total",
            &[
                ("container", "bbbbbbbbbbbb"),
                ("phase", "serving"),
                ("answer", "allowed"),
            ],
            3.0,
        ),
        (
            "lazaret_asked_calls_total",
            &[
                ("container", hostile),
                ("phase", "serving"),
                ("answer", "allowed"),
            ],
            3.0,
        ),
        (
            "lazaret_policy_revision",
            &[("container", "fhir"), ("in", "force")],
            2.0,
        ),
        (
            "lazaret_policy_revision",
            &[("container", "fhir"), ("in", "kernel")],
            1.0,
        ),
        ("lazaret_containers_differing", &[], 5.0),
        ("lazaret_refusals_total", &[("check", "bundle")], 2.0),
        ("lazaret_admissions_total", &[], 4.0),
        ("lazaret_takeovers_total", &[("outcome", "taken_over")], 0.0),
        ("lazaret_events_lost_total", &[], 7.0),
        ("lazaret_events_waiting", &[], 3.0),
        ("lazaret_events_capacity", &[], 8192.0),
        ("lazaret_audit_queue_bytes", &[], 4096.0),
        ("lazaret_audit_waiting", &[], 12.0),
        ("lazaret_audit_last_sent_time_seconds", &[], 1_700_000_001.5),
        (
            "lazaret_audit_records_total",
            &[("outcome", "dropped")],
            2.0,
        ),
        ("lazaret_answer_seconds_bucket", &[("le", "0.00001")], 1.0),
        ("lazaret_answer_seconds_bucket", &[("le", "+Inf")], 2.0),
        ("lazaret_answer_seconds_count", &[], 2.0),
        ("lazaret_answer_seconds_sum", &[], 2.000_008),
    ] {
        assert_eq!(
            value(&series, name, labels),
            Some(expected),
            "{name} {labels:?}\n{text}"
        );
    }
    // only what lives now has a label: nothing of the old one
    assert!(!text.contains("old"));
}

#[test]
fn a_daemon_that_has_done_nothing_can_be_asked() {
    let empty = Snapshot {
        tallied: Tally::default().counted(),
        containers: Vec::new(),
        audit: None,
        ..snapshot()
    };
    let text = render(empty).expect("written");
    let series = check(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let answers = value(&series, "lazaret_answer_seconds_count", &[]);
    assert_eq!(answers, Some(0.0));
    assert!(!text.contains("audit"), "{text}");
}

#[test]
fn the_check_finds_what_is_wrong() {
    let good =
        "# TYPE a counter\na_total{x=\"1\"} 1\na_total{x=\"2\"} 1\n# TYPE b gauge\nb 1.5\n# EOF\n";
    assert!(check(good).is_ok(), "{:?}", check(good));
    for (from, to) in [
        ("# EOF\n", ""),
        ("# EOF\n", "# EOF\n\n"),
        ("a_total{x=\"2\"}", "a_total{x=\"1\"}"),
        ("a_total{x=\"2\"}", "b"),
        ("a_total{x=\"1\"}", "a{x=\"1\"}"),
        ("x=\"1\"", "x=\"\\q\""),
        ("x=\"1\"", "x=\"1\",x=\"2\""),
        ("x=\"1\"", "x=\"1\","),
        ("b 1.5", "b"),
        ("b 1.5", "b  1.5"),
        ("b 1.5", "b one"),
        ("b gauge", "b gouge"),
        ("b gauge", "a gauge"),
        ("b gauge\n", "b gauge\n# UNIT b seconds\n"),
        ("b 1.5\n", "b 1.5\n# HELP b late\n"),
        ("a_total{x=\"1\"} 1", "a_total{x=\"1\"} -1"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        assert!(check(&bad).is_err(), "{bad}");
    }
}

/// Debian's, whose modules are Debian's packages; another one may come first in `PATH`.
const PYTHON: &str = "/usr/bin/python3";

#[test]
fn the_official_python_parser_takes_the_text() {
    let script = "import sys\nfrom prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
                  print(len(list(parse(sys.stdin.read()))))";
    let there = Command::new(PYTHON)
        .args(["-c", "import prometheus_client"])
        .stderr(Stdio::null())
        .status();
    if !there.is_ok_and(|status| status.success()) {
        println!(
            "SKIP: {PYTHON} has no module prometheus_client (Debian's python3-prometheus-client)"
        );
        return;
    }
    let mut python = Command::new(PYTHON)
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let text = render(snapshot()).expect("written");
    python
        .stdin
        .take()
        .expect("piped")
        .write_all(text.as_bytes())
        .expect("written");
    let output = python.wait_with_output().expect("ended");
    let failed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "17",
        "{failed}\n{text}"
    );
}

/// What is said to a request until the end, or until the connection is reset: that is how a request ends that was not read
/// as a whole.
async fn asked(address: &Address, request: &str) -> String {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    let over = |outcome: std::io::Result<()>| match outcome {
        Err(error) if ![BrokenPipe, ConnectionReset].contains(&error.kind()) => panic!("{error}"),
        Ok(()) | Err(_) => {}
    };
    let mut said = Vec::new();
    match address {
        Address::Tcp(address) => {
            let mut stream = TcpStream::connect(address).await.expect("connected");
            over(stream.write_all(request.as_bytes()).await);
            over(stream.read_to_end(&mut said).await.map(drop));
        }
        Address::Unix(path) => {
            let mut stream = UnixStream::connect(path).await.expect("connected");
            over(stream.write_all(request.as_bytes()).await);
            over(stream.read_to_end(&mut said).await.map(drop));
        }
    }
    String::from_utf8(said).expect("text")
}

async fn is_served(address: &Address) {
    let get = "GET /metrics HTTP/1.1\r\nhost: here\r\n\r\n";
    let said = asked(address, get).await;
    let (head, body) = said.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(
        head.contains(kind) && head.contains("connection: close"),
        "{head}"
    );
    check(body).unwrap_or_else(|error| panic!("{error}\n{body}"));
    for (request, status) in [
        ("GET / HTTP/1.1\r\nhost: here\r\n\r\n", "404 Not Found"),
        (
            "GET /metrics/ HTTP/1.1\r\nhost: here\r\n\r\n",
            "404 Not Found",
        ),
        (
            "HEAD /metrics HTTP/1.1\r\nhost: here\r\n\r\n",
            "405 Method Not Allowed",
        ),
        (
            "POST /metrics HTTP/1.1\r\nhost: here\r\ncontent-length: 0\r\n\r\n",
            "405 Method Not Allowed",
        ),
        ("nonsense\r\n\r\n", "400 Bad Request"),
    ] {
        let said = asked(address, request).await;
        assert!(
            said.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{request}: {said}"
        );
    }
    let post = asked(address, "POST /metrics HTTP/1.1\r\nhost: here\r\n\r\n").await;
    assert!(post.contains("\r\nallow: GET\r\n"), "{post}");
    let long = format!(
        "GET /metrics HTTP/1.1\r\nhost: {}\r\n\r\n",
        "x".repeat(20_000)
    );
    let said = asked(address, &long).await;
    assert!(
        said.is_empty() || said.starts_with("HTTP/1.1 431 "),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_is_answered_over_tcp_and_unix_and_silent_clients_cost_places_for_seconds() {
    let bound = Bound::at(&"127.0.0.1:0".parse().expect("good")).expect("bound");
    let address = Address::Tcp(bound.tcp_address().expect("TCP"));
    let server = tokio::spawn(serve(bound, snapshot));
    is_served(&address).await;
    let Address::Tcp(tcp) = address else {
        panic!("TCP was asked for");
    };
    // every place taken by clients that say nothing: the next one is served when they are turned out
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(tcp).await.expect("connected"));
    }
    let address = Address::Tcp(tcp);
    let served = tokio::time::timeout(Duration::from_secs(60), is_served(&address));
    served.await.expect("in the end");
    server.abort();

    let folder = tempfile::tempdir().expect("folder");
    let address = Address::Unix(folder.path().join("own/metrics.sock"));
    let bound = Bound::at(&address).expect("bound");
    assert!(Bound::at(&address).is_err(), "taken twice");
    let server = tokio::spawn(serve(bound, snapshot));
    is_served(&address).await;
    server.abort();
}
