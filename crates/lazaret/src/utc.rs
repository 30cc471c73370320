//! Times for people, in UTC. Knows no time zone and no leap second, as Unix time does not.

/// Date and time of day in UTC, from milliseconds since the Unix epoch.
#[must_use]
pub fn date(ms: u64) -> String {
    let minutes = ms / 60_000;
    let (year, month, day) = civil(minutes / 1_440);
    let (hour, minute) = (minutes / 60 % 24, minutes % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// The date, as RFC 3339 writes it; in UTC, from milliseconds since the Unix epoch.
#[must_use]
pub fn day(ms: u64) -> String {
    let (year, month, day) = civil(ms / 86_400_000);
    format!("{year}-{month:02}-{day:02}")
}

/// Date, time of day and milliseconds, as RFC 3339 writes it; in UTC, from milliseconds since the Unix epoch.
#[must_use]
pub fn stamp(ms: u64) -> String {
    format!("{}T{}.{:03}Z", day(ms), time(ms), ms % 1_000)
}

/// Time of day in UTC with its seconds, from milliseconds since the Unix epoch.
#[must_use]
pub fn time(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (hour, minute) = (seconds / 3_600 % 24, seconds / 60 % 60);
    format!("{hour:02}:{minute:02}:{:02}", seconds % 60)
}

/// Year, month and day of the Gregorian calendar from days since 1970-01-01 (Howard Hinnant, "chrono-compatible low-level
/// date algorithms", `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468; // days < 2⁶⁴ / 86 400 000, no overflow; from 0000-03-01
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (ms, expected) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_400_000, "2000-02-29 00:00 UTC"),
            (1_709_251_199_999, "2024-02-29 23:59 UTC"),
            (4_107_542_400_000, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(date(ms), expected);
        }
        assert!(date(u64::MAX).ends_with("UTC"));
    }

    #[test]
    fn stamps() {
        assert_eq!(stamp(1_709_251_199_007), "2024-02-29T23:59:59.007Z");
        assert_eq!(time(86_400_000 - 1), "23:59:59");
        assert_eq!(time(86_400_000), "00:00:00");
    }
}
