//! runc's stub: ENOSYS for calls newer than any that the profile names (`libcontainer/seccomp/patchbpf/enosys_linux.go`).
//!
//! Only its short jumps: no architecture of ours makes it long enough for the others.

use std::collections::BTreeMap;

use lazaret_filter::abi::{Abi, X32_BIT};
use lazaret_filter::oci::{Action, Architecture, OciSeccomp};
use lazaret_filter::program::{Instruction, code};
use lazaret_filter::rule::Verdict;

use crate::{JudgeError, number};

const ENOSYS: Verdict = Verdict::Errno(38);

/// `seccomp_data`'s words.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

/// The instructions before libseccomp's, for architectures in a fixed order; runc's order is that of a Go map.
pub(crate) fn stub(profile: &OciSeccomp) -> Result<Vec<Instruction>, JudgeError> {
    let permissive = matches!(
        profile.default_action,
        Action::Allow | Action::Log | Action::Trace
    );
    // sic: compares an errno with the filter's word for ENOSYS
    if permissive || profile.default_errno_ret == Some(ENOSYS.to_raw()) {
        return Ok(Vec::new());
    }
    let last = last_calls(profile);
    let architectures = last.len();
    let short =
        |distance: usize| u8::try_from(distance).map_err(|_| JudgeError::Stub { architectures });
    let mut tail = vec![
        Instruction::statement(code::JA, 1),
        Instruction::statement(code::RET_K, ENOSYS.to_raw()),
    ];
    // measured from the end
    let mut sections = BTreeMap::new();
    for (&native, calls) in &last {
        let enosys = tail.len() - 1;
        let to_filter = Instruction::statement(code::JA, (enosys + 1) as u32);
        let load = Instruction::statement(code::LD_W_ABS, NUMBER);
        let x86_64 = calls.get(&Abi::X86_64);
        let x32 = calls.get(&Abi::X32);
        let mut section = vec![load];
        match (x86_64, x32) {
            (Some(&x86_64), Some(&x32)) => section.extend([
                Instruction::jump(code::JSET_K, X32_BIT, 1, 0),
                Instruction::jump(code::JGT_K, x86_64, short(enosys + 2)?, 1),
                Instruction::jump(code::JGT_K, x32, short(enosys + 1)?, 0),
                to_filter,
            ]),
            (Some(&nr), None) => section.extend([
                Instruction::jump(code::JSET_K, X32_BIT, 1, 0),
                Instruction::jump(code::JGT_K, nr, short(enosys + 1)?, 0),
                to_filter,
            ]),
            (None, Some(&nr)) => section.extend([
                Instruction::jump(code::JSET_K, X32_BIT, 0, 1),
                Instruction::jump(code::JGT_K, nr, short(enosys + 1)?, 0),
                to_filter,
            ]),
            (None, None) => {
                let Some(&nr) = calls.values().next() else {
                    continue; // an architecture without a call: runc jumps into the filter
                };
                section.extend([
                    Instruction::jump(code::JGT_K, nr, short(enosys + 1)?, 0),
                    to_filter,
                ]);
            }
        }
        section.append(&mut tail);
        tail = section;
        sections.insert(native, tail.len());
    }
    let to_filter = Instruction::statement(code::JA, tail.len() as u32);
    tail.insert(0, to_filter);
    for native in last.keys() {
        let distance = tail.len() - sections.get(native).copied().unwrap_or(0);
        let jump = Instruction::jump(code::JEQ_K, *native, short(distance)?, 0);
        tail.insert(0, jump);
    }
    tail.insert(0, Instruction::statement(code::LD_W_ABS, ARCH));
    Ok(tail)
}

/// runc's `findLastSyscalls`: by `AUDIT_ARCH_*`, the largest number that a rule names.
fn last_calls(profile: &OciSeccomp) -> BTreeMap<u32, BTreeMap<Abi, u32>> {
    let mut last: BTreeMap<u32, BTreeMap<Abi, u32>> = BTreeMap::new();
    for architecture in &profile.architectures {
        let Some(abi) = architecture.abi() else {
            continue;
        };
        let calls = last.entry(abi.audit_arch()).or_default();
        let largest = profile
            .syscalls
            .iter()
            .flat_map(|rule| &rule.names)
            .filter_map(|call| number(Architecture::of(abi), call))
            .filter_map(|number| u32::try_from(number).ok())
            .max();
        if let Some(largest) = largest.filter(|largest| *largest != 0) {
            calls.insert(abi, largest);
        }
    }
    last
}
