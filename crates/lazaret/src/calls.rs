//! Calls as people name them on the command line.

use crate::exit::{Exit, Outcome, fail};
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::table;

/// The number of a call given by name or number.
///
/// # Errors
/// Exit 2 for a name that the convention does not have, with the nearest one that it has.
pub fn number(abi: Abi, call: &str) -> Outcome<u32> {
    if let Some(nr) = call.parse().ok().or_else(|| table::nr_of(abi, call)) {
        return Ok(nr);
    }
    let nearest = table::calls(abi)
        .map(|(_, name)| (distance(call, name), name))
        .min()
        .filter(|(far, _)| *far <= (call.chars().count() / 3).max(1));
    let hint = nearest.map_or(String::new(), |(_, name)| {
        format!(", did you mean `{name}`?")
    });
    let shown: String = call.chars().take(80).collect();
    fail(
        Exit::Usage,
        format_args!("unknown system call `{shown}` for {abi}{hint}"),
    )
}

/// How many characters must be put in, left out or changed (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (at, x) in a.chars().take(64).enumerate() {
        let mut diagonal = at;
        let mut left = at + 1;
        for (slot, y) in row.iter_mut().skip(1).zip(b.chars()) {
            let best = (diagonal + usize::from(x != y))
                .min(left + 1)
                .min(*slot + 1);
            diagonal = *slot;
            *slot = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = at + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_slips_of_the_pen() {
        assert_eq!(distance("socket", "soket"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(number(Abi::X86_64, "read").ok(), Some(0));
        assert_eq!(number(Abi::X86_64, "9999").ok(), Some(9999));
        let failed = number(Abi::X86_64, "soket").expect_err("no call");
        assert_eq!(failed.exit, Exit::Usage);
        assert!(failed.error.to_string().ends_with("did you mean `socket`?"));
        let failed = number(Abi::X86_64, "nonsense-of-all-kinds").expect_err("no call");
        assert!(!failed.error.to_string().contains("did you mean"));
    }
}
