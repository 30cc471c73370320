//! Which texts may leave the node: each has a form, and one that is not of its form does not leave.
//!
//! Not here: which fields of an event are exported at all.

use sha2::{Digest as _, Sha256};

/// Bytes of a container's id that leaves as it is. Docker's have 64.
const MAX_CONTAINER: usize = 128;

fn made_of(text: &str, max: usize, allowed: impl Fn(u8) -> bool) -> Option<&str> {
    let fits = (1..=max).contains(&text.len()) && text.bytes().all(allowed);
    fits.then_some(text)
}

/// `A-Z a-z 0-9 . _ -`, 1 to `max` bytes.
#[must_use]
pub fn name(text: &str, max: usize) -> Option<&str> {
    made_of(text, max, |b| {
        b.is_ascii_alphanumeric() || b"._-".contains(&b)
    })
}

/// A short name out of the programs' own lists: a call, a check, a calling convention, a mode.
#[must_use]
pub fn word(text: &str) -> Option<&str> {
    made_of(text, 40, |b| {
        b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b)
    })
}

/// `sha256:` and 64 hexadecimal digits; the prefix may be missing.
#[must_use]
pub fn digest(text: &str) -> Option<&str> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    made_of(hex, 64, is_hex).filter(|hex| hex.len() == 64)?;
    Some(text)
}

/// The id of a key: the base64 of its SHA-256, as cosign's hint.
#[must_use]
pub fn key(text: &str) -> Option<&str> {
    let digits = text.strip_suffix('=')?;
    made_of(digits, 43, |b| {
        b.is_ascii_alphanumeric() || b"+/".contains(&b)
    })
    .filter(|digits| digits.len() == 43)?;
    Some(text)
}

/// A version of a program.
#[must_use]
pub fn version(text: &str) -> Option<&str> {
    made_of(text, 40, |b| {
        b.is_ascii_alphanumeric() || b".+-".contains(&b)
    })
}

/// A container's id. Engines let people choose some; one with other characters than [`name`]'s leaves as `sha256:` and its
/// SHA-256, so that its events can still be put together.
#[must_use]
pub fn container(id: &str) -> String {
    match name(id, MAX_CONTAINER) {
        Some(id) => id.to_owned(),
        None => {
            let digest: [u8; 32] = Sha256::digest(id.as_bytes()).into();
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("sha256:{hex}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_has_two_sides() {
        let hex = "0a".repeat(32);
        let check = |f: fn(&str) -> Option<&str>, good: &[&str], bad: &[&str]| {
            for text in good {
                assert_eq!(f(text), Some(*text));
            }
            for text in bad {
                assert_eq!(f(text), None, "{text}");
            }
        };
        check(
            word,
            &["io_uring_setup", "bundle-size", "425"],
            &["", "Müller", "Anna Ek", "A", "a\n"],
        );
        check(
            digest,
            &[&hex, &format!("sha256:{hex}")],
            &[
                "",
                "sha256:",
                &hex[1..],
                &format!("md5:{hex}"),
                &format!("{hex}0"),
                &"g".repeat(64),
            ],
        );
        check(
            key,
            &["f8qYdmFxUw0kh7Rl5m1s5CRICKKTW8HSvPOTTmVGTfg="],
            &[
                "",
                "0f",
                "/data/patients/17",
                &"a".repeat(44),
                &format!("{}=", "a".repeat(42)),
            ],
        );
        check(
            version,
            &["0.1.0", "1.2.3-rc.1+g0"],
            &["", "v 1", &"1".repeat(41)],
        );
        assert_eq!(container("web-1"), "web-1");
        let hidden = container("patient Anna Ek");
        assert!(
            digest(&hidden).is_some() && hidden == container("patient Anna Ek"),
            "{hidden}"
        );
        assert_ne!(hidden, container("patient Anna Eg"));
    }
}
