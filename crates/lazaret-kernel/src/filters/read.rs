//! Reads the filters of a thread that stands still, and checks that they are all of them.

use super::ReadError;
use super::stop::Seized;
use crate::process::{self, Seccomp};
use crate::returned::check;
use lazaret_core::filter::program::{Instruction, MAX_INSTRUCTIONS, Program};
use std::io;

/// Filters in one chain at most: the kernel's bound on a chain's length allows no more than 32768 / 5
/// (`MAX_INSNS_PER_PATH`, kernel/seccomp.c), no runtime installs more than three, and systemd about twenty for a unit with
/// every `Restrict…=` and `SystemCallFilter=` (one per setting and architecture, core/exec-invoke.c).
const MAX_FILTERS: u32 = 64;

/// Times that a chain is read again when another thread of the process added to it meanwhile (`SECCOMP_FILTER_FLAG_TSYNC`).
const ATTEMPTS: u32 = 4;

/// `PTRACE_SECCOMP_GET_FILTER` (`include/uapi/linux/ptrace.h`); libc does not name it.
const PTRACE_SECCOMP_GET_FILTER: libc::c_uint = 0x420c;

/// Every filter, the first installed first; exactly as many as `/proc` counts.
pub(super) fn chain(seized: &Seized) -> Result<Vec<Program>, ReadError> {
    let tid = seized.tid();
    let mut found = 0;
    let mut told = 0;
    for _ in 0..ATTEMPTS {
        let programs = all(seized)?;
        let status = process::status(tid).map_err(|source| ReadError::Process { tid, source })?;
        told = match status.seccomp {
            Seccomp::Filters(told) => told,
            Seccomp::Disabled | Seccomp::Strict => 0,
        };
        // at most MAX_FILTERS
        found = programs.len() as u32;
        if found == told {
            return Ok(programs);
        }
    }
    Err(ReadError::Count { tid, found, told })
}

fn all(seized: &Seized) -> Result<Vec<Program>, ReadError> {
    let tid = seized.tid();
    let mut programs = Vec::new();
    for index in 0..=MAX_FILTERS {
        match one(seized.number(), index) {
            Ok(_) if index == MAX_FILTERS => break,
            Ok(instructions) => programs.push(
                Program::new(instructions).map_err(|source| ReadError::Program {
                    tid,
                    index,
                    source,
                })?,
            ),
            // past the last one (kernel/seccomp.c, get_nth_filter)
            Err(error) if index > 0 && error.raw_os_error() == Some(libc::ENOENT) => {
                return Ok(programs);
            }
            Err(source) => return Err(ReadError::Filter { tid, index, source }),
        }
    }
    Err(ReadError::TooMany {
        tid,
        limit: MAX_FILTERS,
    })
}

fn one(number: i32, index: u32) -> io::Result<Vec<Instruction>> {
    let mut instructions = vec![
        libc::sock_filter {
            code: 0,
            jt: 0,
            jf: 0,
            k: 0,
        };
        MAX_INSTRUCTIONS
    ];
    // JUSTIFICATION: rustix has no ptrace.
    // SAFETY: the kernel writes the filter's instructions, at most BPF_MAXINSNS (bpf_check_basics_ok), to the pointer,
    // behind which exactly so many are exclusively borrowed.
    let returned = unsafe {
        libc::ptrace(
            PTRACE_SECCOMP_GET_FILTER,
            number,
            libc::c_ulong::from(index),
            instructions.as_mut_ptr(),
        )
    };
    let length = usize::try_from(check(returned)?).unwrap_or_default();
    Ok(instructions
        .iter()
        .take(length)
        .map(|read| Instruction {
            code: read.code,
            jt: read.jt,
            jf: read.jf,
            k: read.k,
        })
        .collect())
}
