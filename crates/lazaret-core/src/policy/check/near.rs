//! The name that was meant: the nearest of those there are, for messages only.

use alloc::vec::Vec;

/// How many letters may be wrong, missing or too many.
const MOST: usize = 2;

/// The candidate nearest to `name`, the first of several; none when all are farther than [`MOST`], or when the name is so
/// short that most of it would be wrong.
pub(super) fn nearest(
    name: &str,
    candidates: impl IntoIterator<Item = &'static str>,
) -> Option<&'static str> {
    let most = MOST.min(name.len() / 2);
    candidates
        .into_iter()
        // a distance is never smaller than the difference in length: most candidates need no more than that
        .filter(|candidate| candidate.len().abs_diff(name.len()) <= most)
        .map(|candidate| (distance(name.as_bytes(), candidate.as_bytes()), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, row by row.
fn distance(one: &[u8], other: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, a) in (1..).zip(one) {
        let mut left = line;
        let mut corner = line - 1;
        // the first field of a row is its number, and `row` has one field more than `other`
        for (field, b) in row
            .iter_mut()
            .zip(core::iter::once(None).chain(other.iter().map(Some)))
        {
            let Some(b) = b else {
                *field = line;
                continue;
            };
            let changed = corner + usize::from(a != b);
            corner = *field;
            left = changed.min(corner + 1).min(left + 1);
            *field = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_levenshteins() {
        for (one, other, wanted) in [
            ("", "", 0),
            ("", "ab", 2),
            ("read", "read", 0),
            ("reed", "read", 1),
            ("openta", "openat", 2),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
        ] {
            assert_eq!(
                distance(one.as_bytes(), other.as_bytes()),
                wanted,
                "{one} {other}"
            );
            assert_eq!(
                distance(other.as_bytes(), one.as_bytes()),
                wanted,
                "{other} {one}"
            );
        }
    }

    #[test]
    fn the_nearest_within_two_letters_is_named() {
        let names = ["open", "openat", "openat2", "read"];
        assert_eq!(nearest("opennat", names), Some("openat"));
        assert_eq!(nearest("redad", names), Some("read"));
        assert_eq!(nearest("mount", names), None);
        assert_eq!(nearest("ab", names), None, "half of it would be wrong");
    }
}
