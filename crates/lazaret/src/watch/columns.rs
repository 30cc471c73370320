//! The columns of the live table: which fit, how wide, what stands in them.

use super::state::{Rates, Row, state_word};
use crate::control::{short_id, shown, status};
use lazaret_core::control::{Admitted, ContainerState};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    Name,
    Id,
    Phase,
    Mode,
    Revision,
    AskedRate,
    AllowedRate,
    DeniedRate,
    Asked,
    Allowed,
    Denied,
    Permits,
    Execs,
}

/// In the order of the screen, with their widths.
const ALL: [(Column, u16); 13] = [
    (Column::Name, 12),
    (Column::Id, 12),
    (Column::Phase, 17),
    (Column::Mode, 7),
    (Column::Revision, 13),
    (Column::AskedRate, 8),
    (Column::AllowedRate, 9),
    (Column::DeniedRate, 8),
    (Column::Asked, 9),
    (Column::Allowed, 9),
    (Column::Denied, 8),
    (Column::Permits, 7),
    (Column::Execs, 5),
];

/// In the order of their worth.
const WORTH: [Column; 13] = [
    Column::Name,
    Column::Phase,
    Column::DeniedRate,
    Column::Mode,
    Column::Revision,
    Column::Denied,
    Column::AskedRate,
    Column::AllowedRate,
    Column::Execs,
    Column::Permits,
    Column::Id,
    Column::Asked,
    Column::Allowed,
];

/// The widest that the name gets.
const NAME: u16 = 40;

/// Those that fit into so many columns of the screen, in the screen's order; what is left goes to the name. There is always
/// one.
pub(crate) fn fitting(width: u16) -> Vec<(Column, u16)> {
    let mut chosen: Vec<Column> = Vec::new();
    let mut used = 0;
    for column in WORTH {
        let Some((_, wide)) = ALL.iter().find(|(known, _)| *known == column) else {
            continue;
        };
        let more = used + wide + u16::from(used > 0);
        if more > width && used > 0 {
            // a column of less worth does not take the place of one of more
            break;
        }
        used = more;
        chosen.push(column);
    }
    let left = width.saturating_sub(used);
    ALL.into_iter()
        .filter(|(column, _)| chosen.contains(column))
        .map(|(column, wide)| match column {
            Column::Name => (column, (wide + left).min(NAME)),
            _ => (column, wide),
        })
        .collect()
}

/// A line of all columns.
pub(crate) fn joined(columns: &[(Column, u16)], text: impl Fn(Column) -> String) -> String {
    let cells: Vec<String> = columns
        .iter()
        .map(|(column, width)| column.padded(&text(*column), *width))
        .collect();
    cells.join(" ")
}

impl Column {
    /// Its heading.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Column::Name => "container",
            Column::Id => "id",
            Column::Phase => "phase",
            Column::Mode => "mode",
            Column::Revision => "revision",
            Column::AskedRate => "asked/s",
            Column::AllowedRate => "allowed/s",
            Column::DeniedRate => "denied/s",
            Column::Asked => "asked",
            Column::Allowed => "allowed",
            Column::Denied => "denied",
            Column::Permits => "permits",
            Column::Execs => "execs",
        }
    }

    const fn is_number(self) -> bool {
        matches!(
            self,
            Column::AskedRate
                | Column::AllowedRate
                | Column::DeniedRate
                | Column::Asked
                | Column::Allowed
                | Column::Denied
                | Column::Permits
                | Column::Execs
        )
    }

    /// A cell as wide as its column: numbers to the right, what is too long cut with `…`.
    pub(crate) fn padded(self, text: &str, width: u16) -> String {
        let width = usize::from(width);
        let text = clipped(text, width);
        let space = " ".repeat(width.saturating_sub(text.width()));
        if self.is_number() {
            space + &text
        } else {
            text + &space
        }
    }
}

/// At most so many columns of the screen.
fn clipped(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_string();
    }
    let mut kept = String::new();
    let mut used = 1;
    for one in text.chars() {
        used += one.width().unwrap_or(0);
        if used > width {
            break;
        }
        kept.push(one);
    }
    kept.push('…');
    kept
}

/// What stands in a column.
pub(crate) fn cell(row: &Row, column: Column) -> String {
    let rate = |of: fn(&Rates) -> f64| match &row.rates {
        Some(rates) => number(of(rates)),
        None => "-".to_string(),
    };
    // what the gate does not hold has no counts
    let count = |value: u64| of_admitted(row, |_| value.to_string());
    match column {
        Column::Name if row.status.name.is_empty() => short_id(&row.status.id),
        Column::Name => status::name(&row.status),
        Column::Id => short_id(&row.status.id),
        Column::Phase => match &row.status.state {
            ContainerState::Admitted(admitted) => phase(admitted),
            // it has no phase: how the gate holds it
            other => state_word(other).to_string(),
        },
        Column::AskedRate => of_admitted(row, |_| rate(|rates| rates.asked)),
        Column::AllowedRate => of_admitted(row, |_| rate(|rates| rates.allowed)),
        Column::DeniedRate => of_admitted(row, |_| rate(|rates| rates.denied)),
        Column::Asked => count(row.totals.asked),
        Column::Allowed => count(row.totals.allowed),
        Column::Denied => count(row.totals.denied),
        Column::Mode => of_admitted(row, |admitted| shown(&admitted.in_force.mode)),
        Column::Revision => of_admitted(row, revision),
        Column::Permits => of_admitted(row, |admitted| admitted.permits.len().to_string()),
        Column::Execs => of_admitted(row, |admitted| admitted.execs.to_string()),
    }
}

fn of_admitted(row: &Row, of: impl Fn(&Admitted) -> String) -> String {
    match &row.status.state {
        ContainerState::Admitted(admitted) => of(admitted),
        _ => String::new(),
    }
}

/// `startup → serving`: during a dwell the phase to come stands there too.
fn phase(admitted: &Admitted) -> String {
    match admitted.dwell {
        Some(next) => format!("{} → {next}", admitted.phase),
        None => admitted.phase.to_string(),
    }
}

/// `4`, `4 kernel 3`, `4 kernel 3 +2` with two calls that are held only from the next start on.
fn revision(admitted: &Admitted) -> String {
    let mut text = admitted.in_force.revision.to_string();
    if admitted.in_kernel.digest != admitted.in_force.digest {
        text.push_str(&format!(" kernel {}", admitted.in_kernel.revision));
    }
    if !admitted.until_restart.is_empty() {
        text.push_str(&format!(" +{}", admitted.until_restart.len()));
    }
    text
}

/// A rate in at most eight characters.
fn number(rate: f64) -> String {
    if rate < 10.0 && rate.fract() != 0.0 {
        format!("{rate:.1}")
    } else if rate < 1e6 {
        format!("{rate:.0}")
    } else {
        format!("{:.1}M", rate / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_never_are_wider_than_the_screen() {
        for width in 12..300 {
            let columns = fitting(width);
            let line = joined(&columns, |column| column.title().repeat(4));
            assert!(line.width() <= usize::from(width), "{width}: {line}");
        }
        assert_eq!(fitting(0).len(), 1, "there is always one");
        assert_eq!(fitting(300).len(), ALL.len());
    }

    #[test]
    fn each_column_has_its_worth() {
        for (column, _) in ALL {
            assert!(WORTH.contains(&column), "{column:?}");
        }
    }

    #[test]
    fn cells_are_as_wide_as_their_column() {
        assert_eq!(Column::Name.padded("ключи", 4), "клю…");
        assert_eq!(Column::Name.padded("漢字漢字", 5), "漢字…");
        assert_eq!(Column::Denied.padded("7", 3), "  7");
        assert_eq!(number(0.04), "0.0");
        assert_eq!(number(12_345.6), "12346");
        assert_eq!(number(3_450_000.0), "3.5M");
    }
}
