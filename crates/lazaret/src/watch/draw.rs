//! The live table on a screen of any size: what [`State`] holds, drawn. Changes nothing and asks nobody.
//!
//! Columns go by their worth when the screen is narrow, the lower half when it is low. Texts from elsewhere have lost their
//! control characters before they come here.

use super::columns::{self, Column};
use super::details;
use super::rule;
use super::state::{Colour, Denial, Link, Model, Row, State, View};
use crate::control::{call, denied_verb, short_id, shown};
use crate::utc;
use lazaret_core::control::ContainerState;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};

/// Rows that the table keeps before the denials get any.
const TABLE_ROWS: u16 = 6;

/// Draws everything.
pub(crate) fn draw(state: &State, frame: &mut Frame<'_>) {
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let paint = Paint::of(state);
    frame.render_widget(Paragraph::new(title(state, &paint)), head);
    match &state.view {
        View::Table => {
            let [table, denials] = halves(state, body);
            draw_table(state, &paint, frame, table);
            draw_denials(state.model(), &paint, frame, denials);
        }
        View::Details { id, scrolled } => details::draw(state, id, *scrolled, &paint, frame, body),
    }
    frame.render_widget(Paragraph::new(foot_line(state, &paint)), foot);
    if state.help {
        draw_help(frame);
    }
}

/// The styles; everything is dim while the gate is away.
pub(crate) struct Paint {
    pub(crate) plain: Style,
    pub(crate) bold: Style,
    pub(crate) bad: Style,
    pub(crate) odd: Style,
    pub(crate) good: Style,
    pub(crate) faint: Style,
    pub(crate) chosen: Style,
    /// For what must be seen although the rest is dim.
    pub(crate) alarm: Style,
}

impl Paint {
    fn of(state: &State) -> Paint {
        let base = match state.model().link {
            Link::Away { .. } => Style::new().add_modifier(Modifier::DIM),
            Link::Connecting | Link::Here => Style::new(),
        };
        let colour = |colour: Color| match state.colour {
            Colour::Yes => base.fg(colour),
            Colour::No => base,
        };
        Paint {
            plain: base,
            bold: base.add_modifier(Modifier::BOLD),
            bad: colour(Color::Red).add_modifier(Modifier::BOLD),
            odd: colour(Color::Yellow),
            good: colour(Color::Green),
            faint: base.add_modifier(Modifier::DIM),
            chosen: base.add_modifier(Modifier::REVERSED),
            alarm: Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED),
        }
    }
}

fn title(state: &State, paint: &Paint) -> Line<'static> {
    let model = state.model();
    let mut spans = vec![Span::styled("lazaret watch", paint.bold)];
    let mut add = |text: String, style: Style| {
        spans.push(Span::raw("  "));
        spans.push(Span::styled(text, style));
    };
    match &model.link {
        Link::Connecting => add("reaching the gate".to_string(), paint.odd),
        Link::Here => {}
        Link::Away { since_ms, reason } => {
            let seconds = state.now_ms.saturating_sub(*since_ms) / 1_000;
            add(
                format!(" GATE AWAY for {seconds} s: {} ", shown(reason)),
                paint.alarm,
            );
        }
    }
    if state.paused() {
        add(" PAUSED ".to_string(), paint.alarm);
    }
    if !model.version.is_empty() {
        add(format!("lazaretd {}", shown(&model.version)), paint.plain);
        let shown_rows = state.rows().len();
        let all = model.rows.len();
        let containers = if shown_rows == all {
            format!("{all} containers")
        } else {
            format!("{shown_rows} of {all} containers")
        };
        add(containers, paint.plain);
    }
    if model.lost_events > 0 {
        add(
            format!("{} events not written", model.lost_events),
            paint.odd,
        );
    }
    if model.missed > 0 {
        add(format!("{} events missed here", model.missed), paint.odd);
    }
    if let Some(reason) = &model.no_events {
        add(format!("no events: {}", shown(reason)), paint.odd);
    }
    Line::from(spans)
}

fn foot_line(state: &State, paint: &Paint) -> Line<'static> {
    if state.typing {
        return Line::styled(format!("/{}▏", shown(&state.filter)), paint.bold);
    }
    let mut text = match state.view {
        View::Table => "? help  q quit  ⏎ details  / filter  s sort".to_string(),
        View::Details { .. } => "? help  q quit  Esc back".to_string(),
    };
    if state.view == View::Table {
        text.push_str(&format!(" ({})", state.sort.name()));
        if !state.filter.is_empty() {
            text.push_str(&format!("  filter `{}`", shown(&state.filter)));
        }
    }
    Line::styled(text, paint.faint)
}

/// The table's part and the denials'; a low screen has the table alone.
fn halves(state: &State, body: Rect) -> [Rect; 2] {
    let rows = u16::try_from(state.rows().len()).unwrap_or(u16::MAX);
    // its heading and one row for "none"
    let table = rows.max(1).saturating_add(1);
    let denials = if body.height < TABLE_ROWS + 3 {
        0
    } else {
        body.height.saturating_sub(table).max(body.height / 2)
    };
    Layout::vertical([Constraint::Min(0), Constraint::Length(denials)]).areas(body)
}

fn draw_table(state: &State, paint: &Paint, frame: &mut Frame<'_>, area: Rect) {
    if area.height == 0 {
        return;
    }
    let columns = columns::fitting(area.width);
    let mut lines = vec![Line::styled(
        columns::joined(&columns, |column| column.title().to_string()),
        paint.bold,
    )];
    let rows = state.rows();
    // the heading is one line
    let room = usize::from(area.height - 1);
    let chosen = state.chosen_at(&rows);
    // the chosen row is always to be seen
    let first = chosen.map_or(0, |at| (at + 1).saturating_sub(room));
    for (at, row) in rows.iter().enumerate().skip(first).take(room) {
        let line = row_line(row, &columns, paint);
        let style = if chosen == Some(at) {
            paint.chosen
        } else {
            Style::new()
        };
        lines.push(line.patch_style(style));
    }
    if rows.is_empty() {
        let why = match (&state.model().link, state.filter.is_empty()) {
            (Link::Connecting, _) => "",
            (_, true) => "no containers at the gate",
            (_, false) => "no container passes the filter (Esc clears it)",
        };
        lines.push(Line::styled(why, paint.faint));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn row_line(row: &Row, columns: &[(Column, u16)], paint: &Paint) -> Line<'static> {
    let mut spans = Vec::new();
    for (column, width) in columns {
        if !spans.is_empty() {
            spans.push(Span::raw(" "));
        }
        let text = columns::cell(row, *column);
        spans.push(Span::styled(
            column.padded(&text, *width),
            cell_style(row, *column, paint),
        ));
    }
    Line::from(spans)
}

fn cell_style(row: &Row, column: Column, paint: &Paint) -> Style {
    let admitted = match &row.status.state {
        ContainerState::Admitted(admitted) => admitted,
        ContainerState::Prelude => return paint.plain,
        ContainerState::PapersLost { .. } | ContainerState::Unsupervised => return paint.bad,
    };
    match column {
        Column::DeniedRate if row.rates.is_some_and(|rates| rates.denied > 0.0) => paint.bad,
        Column::Denied if row.totals.denied > 0 => paint.odd,
        Column::Mode if admitted.in_force.mode != "enforce" => paint.odd,
        Column::Phase if admitted.dwell.is_some() => paint.odd,
        Column::Phase if admitted.phase == lazaret_core::phase::Phase::Serving => paint.good,
        Column::Revision
            if admitted.in_force.digest != admitted.in_kernel.digest
                || !admitted.until_restart.is_empty() =>
        {
            paint.odd
        }
        Column::Permits if !admitted.permits.is_empty() => paint.odd,
        _ => paint.plain,
    }
}

fn draw_denials(model: &Model, paint: &Paint, frame: &mut Frame<'_>, area: Rect) {
    if area.height == 0 {
        return;
    }
    let mut lines = vec![Line::styled(
        "Denials since this table was opened (UTC)",
        paint.bold,
    )];
    if model.denials.is_empty() {
        lines.push(Line::styled("none", paint.faint));
    }
    // two lines each, and one that is cut is better than none
    let room = usize::from(area.height);
    for denial in model.denials.iter().take(room) {
        lines.extend(denial_lines(model, denial, paint));
    }
    lines.truncate(room);
    frame.render_widget(Paragraph::new(lines), area);
}

fn denial_lines(model: &Model, denial: &Denial, paint: &Paint) -> [Line<'static>; 2] {
    let verb = denied_verb(denial.enforced);
    let style = if denial.enforced {
        paint.bad
    } else {
        paint.odd
    };
    let first = Line::from(vec![
        Span::styled(format!("{} ", utc::time(denial.last_ms)), paint.faint),
        Span::styled(format!("{} ", model.name_of(&denial.container)), paint.bold),
        Span::styled(format!("{} {}× ", verb, denial.times), style),
        Span::styled(
            format!(
                "{}  {} in {}",
                call(&denial.arch, denial.nr, &denial.call, &denial.args),
                shown(&denial.process),
                denial.phase
            ),
            paint.plain,
        ),
    ]);
    let missing = rule::missing(
        denial.phase,
        &denial.arch,
        denial.nr,
        &denial.call,
        &denial.args,
    );
    [first, Line::styled(format!("    {missing}"), paint.faint)]
}

/// The help, over everything.
fn draw_help(frame: &mut Frame<'_>) {
    const HELP: &str = "\
↑ ↓ j k       choose a container, scroll details
PgUp PgDn g G ten at a time, first, last
Enter, Esc    details of the chosen one, back
/             filter: name, id, state, phase, mode, policy
s             sort: name, phase, denied/s, denied, asked/s
space         pause, go on
q, Ctrl-C     quit

asked, allowed, denied: calls that the kernel hands to the
gate. Calls that the kernel allows by itself cost nothing
and are not counted. `would deny`: the call went on (mode
observe, or a dwell). kernel N: the filter was made from
revision N at the start. +N: calls that the policy denies
and the filter allows until restart.";
    // the constant has few lines and columns
    let height = HELP.lines().count() as u16 + 2;
    let width = HELP
        .lines()
        .map(|line| line.chars().count())
        .max()
        .unwrap_or(0) as u16
        + 2;
    let area = frame.area();
    let over = Rect {
        x: area.x + area.width.saturating_sub(width) / 2,
        y: area.y + area.height.saturating_sub(height) / 2,
        width: width.min(area.width),
        height: height.min(area.height),
    };
    frame.render_widget(Clear, over);
    let block = Block::bordered().title("help");
    frame.render_widget(Paragraph::new(HELP).block(block), over);
}

/// The id as a title shows it.
pub(crate) fn titled(model: &Model, id: &str) -> String {
    format!("{} ({})", model.name_of(id), short_id(id))
}
