//! Figures as people read them. Pure; what is absent is written [`NOT_MEASURED`].

use super::data::Spread;

/// What stands in the place of a figure that nobody measured.
pub(super) const NOT_MEASURED: &str = "not measured";

/// The text of a figure, or [`NOT_MEASURED`].
pub(super) fn or_not_measured<T>(figure: Option<T>, text: impl FnOnce(T) -> String) -> String {
    figure.map_or_else(|| NOT_MEASURED.to_owned(), text)
}

/// A whole number with its thousands apart by narrow blanks that do not break.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A figure with about three significant digits: enough for any conclusion that noise leaves.
pub(super) fn figure(number: f64) -> String {
    match number.abs() {
        size if size >= 1e7 => format!("{number:.2e}"),
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        size if size >= 0.1 => format!("{number:.2}"),
        size if size > 0.0 => format!("{number:.4}"),
        _ => "0".to_owned(),
    }
}

/// A ratio: three decimals, for differences of a few thousandths are what it is looked at for.
pub(super) fn ratio(number: f64) -> String {
    format!("{number:.3}×")
}

/// Median, and 10th to 90th percentile in brackets, each written by `one`.
pub(super) fn spread(spread: &Spread, one: impl Fn(f64) -> String) -> String {
    format!(
        "{} ({} – {})",
        one(spread.median),
        one(spread.low),
        one(spread.high)
    )
}

/// A text cut to `most` characters, the cut shown.
pub(super) fn clip(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => {
            let kept: String = text.chars().take(most.saturating_sub(1)).collect();
            kept + "…"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        assert_eq!(count(999), "999");
        assert_eq!(count(1_204_332), "1\u{202f}204\u{202f}332");
        assert_eq!(
            [0.0, 0.00123, 0.5, 3.456, 34.56, 345.6, 12_345.6, 2e9].map(figure),
            [
                "0", "0.0012", "0.50", "3.46", "34.6", "346", "12346", "2.00e9"
            ]
        );
        assert_eq!(ratio(0.99849), "0.998×");
        assert_eq!(or_not_measured(None::<u64>, count), "not measured");
        assert_eq!(or_not_measured(Some(0), count), "0");
        assert_eq!(clip("ключи", 5), "ключи");
        assert_eq!(clip("ключик", 5), "ключ…");
    }
}
