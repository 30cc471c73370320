//! "Did you mean": the known name that is nearest to what was written.

/// The nearest of `known`, if one is near: at most one edit for each three characters. Of several the first.
pub(crate) fn nearest<'k>(
    written: &str,
    known: impl IntoIterator<Item = &'k str>,
) -> Option<&'k str> {
    let written: Vec<char> = written.chars().take(MAX_CHARS + 1).collect();
    if written.len() > MAX_CHARS {
        return None;
    }
    let limit = (written.len() / 3).max(1);
    let mut best: Option<(usize, &str)> = None;
    for name in known {
        let far = distance(&written, &name.chars().collect::<Vec<_>>());
        if far <= limit && best.is_none_or(|(so_far, _)| far < so_far) {
            best = Some((far, name));
        }
    }
    best.map(|(_, name)| name)
}

/// No name that is known is longer.
const MAX_CHARS: usize = 64;

/// Edits between two names: characters put in, left out, changed, or two neighbours exchanged (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    // rows of the table of distances between the first i of `a` and the first j of `b`; each row has b.len() + 1 columns,
    // so every index below is inside
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let changed = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + changed);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found() {
        let known = ["socket", "socketpair", "read", "readv", "write", "openat"];
        let cases = [
            ("soket", Some("socket")),
            ("raed", Some("read")),
            ("wrte", Some("write")),
            ("open_at", Some("openat")),
            ("x", None),
            ("mount", None),
            ("", None),
        ];
        for (written, wanted) in cases {
            assert_eq!(nearest(written, known), wanted, "{written}");
        }
        assert_eq!(nearest(&"a".repeat(100_000), known), None);
    }
}
