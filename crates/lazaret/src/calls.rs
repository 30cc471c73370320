//! Calls as people name them on the command line.

use crate::exit::{Exit, Outcome, fail};
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::table;
use lazaret_core::policy::near::nearest;

/// The number of a call given by name or number.
///
/// # Errors
/// Exit 2 for a name that the convention does not have, with the nearest one that it has.
pub fn number(abi: Abi, call: &str) -> Outcome<u32> {
    if let Some(nr) = call.parse().ok().or_else(|| table::nr_of(abi, call)) {
        return Ok(nr);
    }
    let near = nearest(call, table::calls(abi).map(|(_, name)| name));
    let hint = near.map_or(String::new(), |name| format!(", did you mean `{name}`?"));
    let shown: String = call.chars().take(80).collect();
    fail(
        Exit::Usage,
        format_args!("unknown system call `{shown}` for {abi}{hint}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_slips_of_the_pen() {
        assert_eq!(number(Abi::X86_64, "read").ok(), Some(0));
        assert_eq!(number(Abi::X86_64, "9999").ok(), Some(9999));
        let failed = number(Abi::X86_64, "soket").expect_err("no call");
        assert_eq!(failed.exit, Exit::Usage);
        assert!(failed.error.to_string().ends_with("did you mean `socket`?"));
        let failed = number(Abi::X86_64, "nonsense-of-all-kinds").expect_err("no call");
        assert!(!failed.error.to_string().contains("did you mean"));
    }
}
