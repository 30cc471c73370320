//! Tests of the page: structure, escaping, that it asks nothing of anybody, and that absent is not zero.

use super::*;
use crate::report::data::Attack;
use lazaret_core::phase::Phase;
use std::collections::BTreeMap;

fn sample() -> Report {
    let sample = include_bytes!("../../../tests/data/report.json");
    Report::from_json(sample).expect("the sample is a report")
}

/// The page's tags with their attributes, in order. In a page that is escaped as it should be, `<` begins a tag.
fn tags(page: &str) -> Vec<&str> {
    let (_, body) = page.split_once("</style>").expect("a style element");
    let tags = body.split('<').skip(1);
    tags.map(|tag| tag.split_once('>').expect("a closed tag").0)
        .collect()
}

/// The page's text without tags.
fn words(html: &str) -> String {
    let pieces = html.split('<').map(|piece| match piece.split_once('>') {
        Some((_, text)) => text,
        None => piece,
    });
    pieces.collect::<Vec<_>>().join(" ")
}

/// Section of a page by its id.
fn section_of<'a>(page: &'a str, id: &str) -> &'a str {
    let (_, rest) = page
        .split_once(&format!("id=\"{id}\""))
        .unwrap_or_else(|| panic!("no section {id}"));
    rest.split_once("</section>").expect("a closed section").0
}

#[test]
fn every_section_once_and_linked() {
    for report in [sample(), Report::empty("nothing", 0)] {
        let page = render(&report);
        for (id, title) in SECTIONS {
            assert_eq!(page.matches(&format!(" id=\"{id}\"")).count(), 1, "{id}");
            assert!(words(section_of(&page, id)).contains(title), "{id}");
            if id != "shown" {
                assert!(page.contains(&format!("href=\"#{id}\"")), "{id}");
            }
        }
        assert_eq!(page.matches("<section").count(), SECTIONS.len());
    }
}

/// The box on top says each claim with its figure.
#[test]
fn every_verdict_is_in_the_summary() {
    let report = sample();
    let page = render(&report);
    let summary = words(section_of(&page, "shown"));
    for verdict in verdicts(&report) {
        assert!(summary.contains(&verdict.claim), "{}", verdict.name);
        assert!(summary.contains(&verdict.figure), "{}", verdict.name);
    }
    assert!(summary.contains("12 of 12 shown"));
}

/// Every tag that opens is closed, in order: browsers would forgive, and show something else.
#[test]
fn tags_are_balanced() {
    for report in [sample(), Report::empty("nothing", 0)] {
        let page = render(&report);
        let mut open = vec!["html", "head"];
        for tag in tags(&page) {
            let name = tag.split([' ', '/']).next().unwrap_or_default();
            if let Some(closed) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(closed), "{tag}");
            } else if !tag.ends_with('/') {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }
}

#[test]
fn the_page_asks_nothing_of_anybody() {
    let page = render(&sample());
    for wrong in [
        "http://",
        "https://",
        "src=",
        "srcset",
        "url(",
        "@import",
        "<script",
        "<link",
        "<img",
        "<iframe",
        "<object",
        "<form",
        "javascript:",
        "data:",
    ] {
        assert!(!page.contains(wrong), "{wrong}");
    }
    for tag in tags(&page) {
        assert!(!tag.contains(" on"), "event handler in {tag}");
        if let Some((_, target)) = tag.split_once("href=\"") {
            assert!(target.starts_with('#'), "{tag}");
        }
    }
    assert!(page.contains("http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';"));
    assert!(page.contains("name=\"viewport\""));
}

/// The sample with every text replaced by `text`, made distinct where it is a key.
fn filled(text: &str) -> Report {
    let mut report = sample();
    let one = || Some(text.to_owned());
    let many = || {
        Some(
            (0..50)
                .map(|index| format!("{text}{index}"))
                .collect::<Vec<_>>(),
        )
    };
    let calls = || -> BTreeMap<String, u64> {
        (0..9_u64)
            .map(|index| (format!("{text}{index}"), index + 1))
            .collect()
    };
    report.subject = text.to_owned();
    report.versions = Versions {
        lazaret: one(),
        kernel: one(),
        docker: one(),
        containerd: one(),
        runc: one(),
        java: one(),
        hapi: one(),
    };
    report.digests.key = one();
    report.policy.name = one();
    report.policy.allow_serving = many();
    report.policy.ask_names = many();
    report.policy.deny_names = many();
    report.histogram = Phase::ALL
        .into_iter()
        .map(|phase| (phase, calls()))
        .collect();
    report.asked_in_start = Some(calls());
    report.enforced.denied_calls = calls();
    report.enforced.differing_steps = many().unwrap_or_default();
    for refusal in &mut report.gate.refusals {
        refusal.case = text.to_owned();
        refusal.reason = text.to_owned();
    }
    for Attack {
        name,
        detail,
        errno,
        ..
    } in &mut report.attacks
    {
        *name = text.to_owned();
        *detail = text.to_owned();
        *errno = one();
    }
    if let Some(coverage) = &mut report.coverage {
        coverage.remarks = many().unwrap_or_default();
        for row in &mut coverage.rows {
            row.name = text.to_owned();
        }
    }
    report
}

/// Hostile texts change the page's words and nothing else: its tags are those of the same report with a harmless text.
#[test]
fn hostile_texts_stay_text() {
    let harmless = render(&filled("x"));
    for hostile in [
        "<script>alert(1)</script>",
        "</title></style></svg></section><img src=x onerror=alert(1)>",
        "\" onload=\"alert(1)\" x=\"",
        "' onload='alert(1)",
        "--><b>",
        "]]>&lt;b&gt;&#60;b>",
    ] {
        let page = render(&filled(hostile));
        assert!(
            words(&page).contains("&lt;") || !hostile.contains('<'),
            "{hostile}"
        );
        assert_eq!(tags(&page), tags(&harmless), "{hostile}");
        assert!(
            !page.contains(hostile) || !hostile.contains(['<', '"']),
            "{hostile}"
        );
    }
}

/// A report without figures says so everywhere, and no digit stands where a figure would.
#[test]
fn absent_is_said_and_never_zero() {
    let page = render(&Report::empty("nothing", 0));
    for (id, _) in SECTIONS {
        let words = words(section_of(&page, id));
        assert!(words.contains(NOT_MEASURED), "{id}");
        if !["shown", "cost"].contains(&id) {
            assert!(
                !words.contains(|c: char| c.is_ascii_digit()),
                "{id}: {words}"
            );
        }
    }
    for dd in page.split("<dd").skip(1) {
        let text = words(dd.split_once("</dd>").expect("closed").0);
        assert!(text.contains(NOT_MEASURED), "{text}");
    }
    let figures = section_of(&page, "cost").split("<figure>").skip(1);
    for figure in figures {
        assert!(words(figure).contains(NOT_MEASURED), "{figure}");
        assert!(!figure.contains("<svg"), "{figure}");
    }
    let verdicts = section_of(&page, "shown");
    assert_eq!(verdicts.matches(NOT_MEASURED).count(), 12);
    assert!(!verdicts.contains('✓') && !verdicts.contains('✗'));
}

/// Measured nothing is not the same as nothing measured.
#[test]
fn zero_is_a_figure() {
    let mut report = Report::empty("nothing", 0);
    report.recording.lost = Some(0);
    report.asked_in_start = Some(BTreeMap::new());
    report.histogram.insert(Phase::Exec, BTreeMap::new());
    let page = render(&report);
    let calls = section_of(&page, "calls");
    assert!(calls.contains("<dt>Calls lost</dt><dd>0</dd>"));
    assert!(words(calls).contains("exec: 0 different calls"));
    let asked = section_of(&page, "asked");
    assert!(words(asked).contains("Start: 0 different calls, 0 in all"));
    assert!(!section_of(&page, "asked").contains(NOT_MEASURED));
}

/// What failed is seen to have failed.
#[test]
fn failures_are_marked() {
    let mut report = sample();
    report.enforced.denied_serving = Some(3);
    for refusal in &mut report.gate.refusals {
        refusal.started = true;
        refusal.reason.clear();
    }
    for attack in &mut report.attacks {
        attack.worked = true;
    }
    let page = render(&report);
    assert_eq!(section_of(&page, "shown").matches("✗ not shown").count(), 4);
    assert_eq!(section_of(&page, "gate").matches("✗ started").count(), 4);
    assert_eq!(section_of(&page, "gate").matches("✗ none").count(), 4);
    // Red in Lazaret's columns only: four attacks in both phases, one in one.
    assert_eq!(
        section_of(&page, "attacks")
            .matches("class=\"cell no\"")
            .count(),
        9
    );
}

/// The plots hold the figures: a bar for each call of each phase, in falling order.
#[test]
fn every_call_has_its_bar() {
    let report = sample();
    let page = render(&report);
    let calls = section_of(&page, "calls");
    let svgs: Vec<&str> = calls.split("<svg").skip(1).collect();
    assert_eq!(svgs.len(), Phase::ALL.len());
    for (phase, svg) in Phase::ALL.iter().zip(svgs) {
        for call in report
            .histogram
            .get(phase)
            .into_iter()
            .flat_map(BTreeMap::keys)
        {
            let texts = svg
                .split('>')
                .filter(|text| text.trim().starts_with(&format!("{call}\n<")));
            assert_eq!(texts.count(), 1, "{phase}: {call}");
        }
    }
}
