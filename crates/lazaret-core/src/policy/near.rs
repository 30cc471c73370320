//! "Did you mean": the known name that is nearest to what was written. For messages only, and the only place that says what
//! is near; nothing is ever taken for the name that was meant.

use alloc::vec;
use alloc::vec::Vec;

/// No known name is longer, in characters.
const MAX_CHARS: usize = 64;

/// Most edits, however long the name.
const MAX_EDITS: usize = 3;

/// The nearest of `known`, the first of several; none when none is near: at most one edit for each three characters, three
/// altogether, and never more than half of the name.
#[must_use]
pub fn nearest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let written: Vec<char> = written.chars().take(MAX_CHARS + 1).collect();
    let length = written.len();
    if length > MAX_CHARS {
        return None;
    }
    let limit = (length / 3).clamp(1, MAX_EDITS).min(length / 2);
    let mut best: Option<(usize, &str)> = None;
    for name in known {
        let letters: Vec<char> = name.chars().take(MAX_CHARS + 1).collect();
        // a distance is never smaller than the difference in length: most names need no more than that
        if letters.len().abs_diff(length) > limit {
            continue;
        }
        let far = distance(&written, &letters);
        if far <= limit && best.is_none_or(|(nearest, _)| far < nearest) {
            best = Some((far, name));
        }
    }
    best.map(|(_, name)| name)
}

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
        before = core::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    #[test]
    fn an_edit_is_a_letter_or_two_neighbours_exchanged() {
        for (one, other, wanted) in [
            ("", "", 0),
            ("", "ab", 2),
            ("read", "read", 0),
            ("reed", "read", 1),
            ("raed", "read", 1),
            ("openta", "openat", 1),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
        ] {
            let letters = |text: &str| text.chars().collect::<Vec<char>>();
            assert_eq!(distance(&letters(one), &letters(other)), wanted, "{one}");
            assert_eq!(distance(&letters(other), &letters(one)), wanted, "{other}");
        }
    }

    #[test]
    fn the_nearest_name_is_found_and_no_far_one() {
        let known = [
            "in",
            "open",
            "openat",
            "openat2",
            "read",
            "readv",
            "socket",
            "socketpair",
            "write",
        ];
        for (written, wanted) in [
            ("soket", Some("socket")),
            ("opennat", Some("openat")),
            ("raed", Some("read")),
            ("wrte", Some("write")),
            ("sokcetapir", Some("socketpair")),
            ("open_at", Some("openat")),
            ("reab", Some("read")),
            ("raeb", None),
            ("mount", None),
            ("im", Some("in")),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, known), wanted, "{written}");
        }
        let long: String = core::iter::repeat_n('a', 100_000).collect();
        assert_eq!(nearest(&long, known), None);
        assert_eq!(nearest("read", [long.as_str()]), None);
    }
}
