//! The report as one HTML page. Pure.
//!
//! The page asks nothing of anybody: no script, no style sheet, font or picture from elsewhere, and a content security
//! policy that says so. Every text of the report is data: maud and plotters escape it. Works on paper and on a telephone.

mod cost;
mod held;
mod learnt;

use super::data::{Digests, Report, Versions};
use super::plot::{Plot, PlotError};
use super::text::NOT_MEASURED;
use super::verdict::{Outcome, Verdict, verdicts};
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Nothing may be fetched, run or framed; inline styles are the page's own.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

const STYLE: &str = include_str!("style.css");

/// The sections: their `id` and title, in the order of the page.
const SECTIONS: [(&str, &str); 12] = [
    ("shown", "What it must show"),
    ("bands", "Three bands"),
    ("calls", "System calls per phase"),
    ("asked", "Asked in the start"),
    ("coverage", "Coverage of the exercise"),
    ("enforced", "The exercise under enforcement"),
    ("gate", "Papers not in order"),
    ("attacks", "Attacks"),
    ("restart", "Daemon killed and started again"),
    ("cost", "What it costs"),
    ("versions", "Versions and digests"),
    ("rounds", "Raw figures"),
];

/// The page.
#[must_use]
pub fn render(report: &Report) -> String {
    let title = format!("Lazaret: {}", report.subject);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(CONTENT_SECURITY_POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content="no-referrer";
                title { (title) }
                // The style sheet is the program's own text, not data.
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    p {
                        "What this server needs from the kernel was recorded, turned into a signed policy, and enforced. "
                        "This page holds what was measured."
                    }
                    p .soft { (made(report)) }
                    (summary(&verdicts(report)))
                    nav aria-label="Sections" {
                        @for (id, title) in SECTIONS.iter().skip(1) {
                            a href={ "#" (id) } { (title) } " "
                        }
                    }
                }
                main {
                    (learnt::bands(report))
                    (learnt::calls(report))
                    (learnt::asked(report))
                    (learnt::coverage(report))
                    (held::enforced(report))
                    (held::gate(report))
                    (held::attacks(report))
                    (held::restart(report))
                    (cost::cost(report))
                    (versions(report))
                    (cost::rounds(report))
                }
                footer {
                    "Figures, names and digests are those of " code { "report.json" } " beside this page. "
                    "What nobody measured is written “" (NOT_MEASURED) "”."
                }
            }
        }
    };
    page.into_string()
}

fn made(report: &Report) -> String {
    let Versions {
        lazaret, kernel, ..
    } = &report.versions;
    let mut line = crate::utc::date(report.made_ms);
    if let Some(lazaret) = lazaret {
        line += &format!(" · Lazaret {lazaret}");
    }
    if let Some(kernel) = kernel {
        line += &format!(" · Linux {kernel}");
    }
    line
}

fn summary(verdicts: &[Verdict]) -> Markup {
    let shown = verdicts
        .iter()
        .filter(|verdict| verdict.outcome == Outcome::Shown)
        .count();
    html! {
        section .summary id="shown" {
            h2 { "What it must show: " (shown) " of " (verdicts.len()) " shown" }
            ul .verdicts {
                @for verdict in verdicts {
                    li {
                        (mark(verdict.outcome))
                        span { (verdict.claim) }
                        span .figure { (verdict.figure) }
                    }
                }
            }
        }
    }
}

/// The outcome as sign, word and colour: none of the three alone.
fn mark(outcome: Outcome) -> Markup {
    match outcome {
        Outcome::Shown => html! { span .mark.yes { "✓ shown" } },
        Outcome::NotShown => html! { span .mark.no { "✗ not shown" } },
        Outcome::NotMeasured => html! { span .mark.none { "– " (NOT_MEASURED) } },
    }
}

/// A section with the title that [`SECTIONS`] gives it.
fn section(id: &str, body: Markup) -> Markup {
    let title = SECTIONS.iter().find(|(known, _)| *known == id);
    html! {
        section id=(id) {
            h2 { (title.map_or(id, |(_, title)| *title)) }
            (body)
        }
    }
}

/// The line that stands where a section has nothing.
fn absent() -> Markup {
    html! { p .absent { (NOT_MEASURED) } }
}

/// A figure, or the mark that there is none.
fn value<T>(figure: Option<T>, text: impl FnOnce(T) -> String) -> Markup {
    match figure {
        Some(figure) => html! { (text(figure)) },
        None => html! { span .absent { (NOT_MEASURED) } },
    }
}

/// A plot with its title above and its explanation below; `alt` says in words what it shows.
fn figure(title: &str, alt: &str, plot: Result<Plot, PlotError>, note: Markup) -> Markup {
    html! {
        figure {
            h3 { (title) }
            @match plot {
                Ok(Plot { body, view_box }) => {
                    svg viewBox=(view_box) role="img" aria-label=(alt) {
                        // Drawn by plotters, which escapes every text.
                        (PreEscaped(body))
                    }
                }
                Err(PlotError::Empty) => (absent()),
                Err(error) => p .absent { "not drawn: " (error) },
            }
            figcaption { (note) }
        }
    }
}

fn versions(report: &Report) -> Markup {
    let Versions {
        lazaret,
        kernel,
        docker,
        containerd,
        runc,
        java,
        hapi,
    } = &report.versions;
    let Digests {
        image,
        policy,
        bundle,
        key,
    } = &report.digests;
    let versions = [
        ("Lazaret", lazaret),
        ("Linux", kernel),
        ("Docker", docker),
        ("containerd", containerd),
        ("runc", runc),
        ("Java", java),
        ("FHIR server", hapi),
    ];
    let digest = |digest: &Option<_>| value(digest.as_ref(), ToString::to_string);
    section(
        "versions",
        html! {
            dl {
                @for (name, version) in versions {
                    dt { (name) } dd { (value(version.as_ref(), Clone::clone)) }
                }
                dt { "Image" } dd .mono { (digest(image)) }
                dt { "Policy" } dd .mono { (digest(policy)) }
                dt { "Bundle" } dd .mono { (digest(bundle)) }
                dt { "Signed by key" } dd .mono { (value(key.as_ref(), Clone::clone)) }
            }
        },
    )
}

#[cfg(test)]
mod tests;
