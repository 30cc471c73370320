//! Whether a table keeps what its own documentation says, before anything is made of it.

use super::CompileError;
use crate::abi::{Abi, X32_BIT};
use crate::rule::{Condition, RuleTable, Verdict};

/// Refuses a table that breaks its own documentation.
pub(crate) fn check_table(table: &RuleTable) -> Result<(), CompileError> {
    let errno = |verdict: Verdict| match verdict {
        // MAX_ERRNO, include/linux/err.h: __seccomp_filter cuts a larger datum
        Verdict::Errno(errno) if errno > 4095 => Err(CompileError::Errno { errno }),
        _ => Ok(()),
    };
    errno(table.foreign)?;
    for (&abi, numbers) in &table.abis {
        errno(numbers.otherwise)?;
        for (&nr, entry) in &numbers.entries {
            if matches!(abi, Abi::X86_64 | Abi::X32) && nr & X32_BIT != 0 {
                return Err(CompileError::X32Bit { nr, abi });
            }
            errno(entry.otherwise)?;
            for branch in &entry.branches {
                errno(branch.verdict)?;
                if branch.all.is_empty() {
                    return Err(CompileError::NoCondition { nr });
                }
                for condition in &branch.all {
                    check_condition(nr, condition)?;
                }
            }
        }
    }
    Ok(())
}

fn check_condition(nr: u32, condition: &Condition) -> Result<(), CompileError> {
    let Condition { arg, mask, values } = condition;
    let (arg, mask) = (*arg, *mask);
    if arg > 5 {
        return Err(CompileError::Argument { nr, arg });
    }
    if values.is_empty() {
        return Err(CompileError::NoValue { nr, arg });
    }
    let mut ends = values
        .ranges()
        .flat_map(|range| [*range.start(), *range.end()]);
    match ends.find(|value| value & !mask != 0) {
        Some(value) => Err(CompileError::OutsideMask {
            nr,
            arg,
            value,
            mask,
        }),
        None => Ok(()),
    }
}
