//! The view of one container: all that the gate says of it, and every kind of call that it denied.

use super::draw::{Paint, titled};
use super::rule;
use super::state::State;
use crate::control::{call, denied_verb, shown, status};
use crate::utc;
use lazaret_core::control::DriftEntry;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Wrap};

/// Draws the view, scrolled down by so many lines.
pub(crate) fn draw(
    state: &State,
    id: &str,
    scrolled: usize,
    paint: &Paint,
    frame: &mut Frame<'_>,
    area: Rect,
) {
    let mut lines = lines(state, id, paint);
    // the last line stays
    let scrolled = scrolled.min(lines.len().saturating_sub(1));
    lines.drain(..scrolled);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), area);
}

fn lines(state: &State, id: &str, paint: &Paint) -> Vec<Line<'static>> {
    let model = state.model();
    let mut lines = vec![Line::styled(titled(model, id), paint.bold)];
    match model.rows.get(id) {
        Some(row) => {
            for line in status::lines(&row.status) {
                lines.push(Line::styled(line, paint.plain));
            }
        }
        None => lines.push(Line::styled("it is no longer at the gate", paint.odd)),
    }
    lines.push(Line::default());
    lines.push(Line::styled("Denials since the gate began", paint.bold));
    match &state.drift {
        None => lines.push(Line::styled("the gate has not told yet", paint.faint)),
        Some(drift) if drift.is_empty() => lines.push(Line::styled("none", paint.faint)),
        Some(drift) => {
            for entry in drift {
                lines.extend(entry_lines(entry, paint));
            }
        }
    }
    let mut events = model.events.iter().filter(|event| event.container == id);
    if let Some(last) = events.next() {
        lines.push(Line::default());
        lines.push(Line::styled(
            "Events since this table was opened",
            paint.bold,
        ));
        for event in std::iter::once(last).chain(events) {
            lines.push(Line::styled(crate::control::sentence(event), paint.plain));
        }
    }
    let mut last = model.denials.iter().filter(|denial| denial.container == id);
    if let Some(last) = last.next() {
        lines.push(Line::styled(
            format!("last denial told at {}", utc::stamp(last.last_ms)),
            paint.faint,
        ));
    }
    lines
}

fn entry_lines(entry: &DriftEntry, paint: &Paint) -> [Line<'static>; 2] {
    let style = if entry.enforced { paint.bad } else { paint.odd };
    let missing = rule::missing(entry.phase, &entry.arch, entry.nr, &entry.call, &entry.args);
    [
        Line::styled(
            format!(
                "{} {}× {}  {} in {}",
                denied_verb(entry.enforced),
                entry.times,
                call(&entry.arch, entry.nr, &entry.call, &entry.args),
                shown(&entry.process),
                entry.phase
            ),
            style,
        ),
        Line::styled(format!("    {missing}"), paint.faint),
    ]
}
