//! How a refusal is said: on standard error, and in the runtime's log file, from which engines take their message.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Writes one sentence to standard error and, if the engine named a log file, one line to it in the format it asked for.
/// A log that cannot be written is no reason to say less: that is said as well.
pub(crate) fn refusal(sentence: &str, log: Option<&Path>, json: bool) {
    let sentence = sentence.replace(['\n', '\r'], " ");
    eprintln!("{sentence}");
    let Some(path) = log else { return };
    let since_epoch = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    if let Err(error) = append(path, &line(&sentence, json, since_epoch.as_secs())) {
        eprintln!(
            "lazaret-runtime: cannot write `{}`: {error}",
            path.display()
        );
    }
}

/// A line as runc's logger writes it (logrus, `JSONFormatter` and `TextFormatter` without a terminal).
fn line(sentence: &str, json: bool, seconds: u64) -> String {
    let time = rfc3339(seconds);
    // a string as JSON is what logrus' `%q` gives, but for characters that stand in no message of ours
    let quoted = serde_json::Value::from(sentence);
    if json {
        format!("{{\"level\":\"error\",\"msg\":{quoted},\"time\":\"{time}\"}}\n")
    } else {
        format!("time=\"{time}\" level=error msg={quoted}\n")
    }
}

/// Appends; opened as runc opens it (`main.go`), but a pipe without a reader is not waited for.
fn append(path: &Path, line: &str) -> io::Result<()> {
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    File::options()
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags(nonblock)
        .open(path)?
        .write_all(line.as_bytes())
}

/// Seconds since the Unix epoch as RFC 3339 in UTC. Days to a date by Howard Hinnant's `civil_from_days`: years that
/// begin in March, eras of 400 years (146,097 days).
fn rfc3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 {
        (month + 3, era * 400 + year_of_era)
    } else {
        (month - 9, era * 400 + year_of_era + 1)
    };
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        // from `date -u -d @… +%FT%TZ`
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (68_169_599, "1972-02-28T23:59:59Z"),
            (68_169_600, "1972-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_795_368_091, "2026-11-22T17:21:31Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), expected);
        }
    }

    #[test]
    fn lines() {
        assert_eq!(
            line("no \"policy\"", true, 0),
            "{\"level\":\"error\",\"msg\":\"no \\\"policy\\\"\",\"time\":\"1970-01-01T00:00:00Z\"}\n"
        );
        assert_eq!(
            line("no", false, 0),
            "time=\"1970-01-01T00:00:00Z\" level=error msg=\"no\"\n"
        );
    }
}
