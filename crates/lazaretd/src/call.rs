//! Names for calls as a filter shows them.

use lazaret_core::filter::abi::{Abi, X32_BIT};
use lazaret_core::filter::rule::Call;
use lazaret_core::filter::table;

/// The convention that a call arrived by; none for an architecture without a table.
pub(crate) fn convention(call: &Call) -> Option<Abi> {
    Abi::ALL.into_iter().find(|abi| {
        let x32 = call.nr & X32_BIT != 0;
        abi.audit_arch() == call.arch
            && match abi {
                Abi::X86_64 => !x32,
                Abi::X32 => x32,
                Abi::I386 | Abi::Aarch64 => true,
            }
    })
}

/// The call's name; none when the tables do not have it.
pub(crate) fn name(call: &Call) -> Option<&'static str> {
    let abi = convention(call)?;
    let nr = match abi {
        Abi::X32 => call.nr & !X32_BIT,
        _ => call.nr,
    };
    table::name_of(abi, nr)
}

/// Whether the call would execute another program, by any convention.
pub(crate) fn is_execve(call: &Call) -> bool {
    matches!(name(call), Some("execve" | "execveat"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn execve_is_known_by_every_convention() {
        for (abi, numbers) in [
            (Abi::X86_64, [59, 322]),
            (Abi::I386, [11, 358]),
            (Abi::X32, [520, 545]),
            (Abi::Aarch64, [221, 281]),
        ] {
            for nr in numbers {
                let call = Call::new(abi, nr);
                assert!(is_execve(&call), "{abi} {nr}");
                assert_eq!(convention(&call), Some(abi));
            }
        }
        for (abi, nr) in [(Abi::X86_64, 11), (Abi::I386, 59), (Abi::X86_64, 520)] {
            assert!(!is_execve(&Call::new(abi, nr)), "{abi} {nr}");
        }
        let foreign = Call {
            arch: 7,
            ..Call::new(Abi::X86_64, 59)
        };
        assert_eq!((convention(&foreign), name(&foreign)), (None, None));
    }
}
