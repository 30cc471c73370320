//! Which calls the kernel allows without running a filter.
//!
//! From Linux 5.11 on a chain of filters carries a bitmap of the calls that it allows whatever the arguments, found by
//! following each filter with nothing known but the architecture and the number (`seccomp_is_const_allow`,
//! `seccomp_cache_prepare`, `kernel/seccomp.c`). The kernel gives up early: a filter can allow a call whatever the arguments
//! and still not get the bit. [`share`] counts how many.
//!
//! Whether the running kernel has the bitmap at all is not known here.

use crate::abi::{Abi, X32_BIT};
use crate::program::{Program, code};
use crate::rule::{Call, Verdict};
use crate::table;
use alloc::vec::Vec;

/// Whether the kernel answers this call from its bitmap, under a chain of filters. For x32 without [`X32_BIT`].
///
/// # Flow
/// As `seccomp_cache_prepare_bitmap` (`kernel/seccomp.c`): before any filter each call has its bit, and keeps it as long as
/// each filter certainly allows it.
///
/// # Caveats
/// - Calls of x32 never have a bit: their numbers are beyond the end of the bitmap (`arch/x86/include/asm/seccomp.h`).
/// - Other numbers beyond the kernel's own calls have none either, and fail with `ENOSYS` when filters let them through. For
///   them this says what it would be if there were such a call.
/// - [`is_exempt`] calls always have their bit on kernels that know the exception, which is not counted here.
#[must_use]
pub fn allows(chain: &[Program], abi: Abi, nr: u32) -> bool {
    abi != Abi::X32
        && nr & X32_BIT == 0
        && chain
            .iter()
            .all(|filter| is_const_allow(filter, &Call::new(abi, nr)))
}

/// `seccomp_is_const_allow`: follows what depends on number and architecture only.
fn is_const_allow(filter: &Program, call: &Call) -> bool {
    let instructions = filter.instructions();
    let mut a: u32 = 0;
    let mut at: usize = 0;
    loop {
        // `Program::new` has checked that jumps stay inside and that the last instruction returns
        let i = instructions[at];
        at += 1;
        let skip = |holds: bool| usize::from(if holds { i.jt } else { i.jf });
        match (i.code, i.k) {
            (code::LD_W_ABS, 0) => a = call.nr,
            (code::LD_W_ABS, 4) => a = call.arch,
            (code::RET_K, k) => return k == Verdict::Allow.to_raw(),
            // at most 4096
            (code::JA, k) => at += k as usize,
            (code::JEQ_K, k) => at += skip(a == k),
            (code::JGE_K, k) => at += skip(a >= k),
            (code::JGT_K, k) => at += skip(a > k),
            (code::JSET_K, k) => at += skip(a & k != 0),
            (code::AND_K, k) => a &= k,
            _ => return false,
        }
    }
}

/// Calls that newer kernels let through whatever filters say, because the kernel itself puts them into programs that it
/// traces: `uretprobe` (Linux 6.14, and in stable kernels) and `uprobe` (6.18) of x86-64 (`seccomp_uprobe_exception`,
/// `kernel/seccomp.c`).
#[must_use]
pub const fn is_exempt(abi: Abi, nr: u32) -> bool {
    matches!((abi, nr), (Abi::X86_64, 335 | 336))
}

/// How many of a convention's known calls a chain allows without looking at arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The kernel runs no filter for these.
    pub in_bitmap: usize,
    /// No path through any filter that number and architecture leave open ends in anything but "allow". A lower bound
    /// where filters calculate: see [`mod@crate::prove`] for what is exact.
    pub allowed_by_number: usize,
}

/// Counts the calls of [`table::calls`] that [`allows`] has, and those that could have been there.
#[must_use]
pub fn share(chain: &[Program], abi: Abi) -> Share {
    let mut share = Share {
        in_bitmap: 0,
        allowed_by_number: 0,
    };
    for (nr, _) in table::calls(abi) {
        let call = Call::new(abi, nr);
        let by_number = chain.iter().all(|filter| allows_whatever(filter, &call));
        share.allowed_by_number += usize::from(by_number);
        share.in_bitmap += usize::from(allows(chain, abi, nr));
    }
    share
}

/// Whether every path that number and architecture leave open allows. One pass, because jumps only go forward; where paths
/// meet, the accumulator is only known if they agree. Follows neither `X` nor memory nor arithmetic.
fn allows_whatever(filter: &Program, call: &Call) -> bool {
    let instructions = filter.instructions();
    // what the accumulator is before each instruction that a path leads to
    let mut before: Vec<Option<Option<u32>>> = alloc::vec![None; instructions.len()];
    if let Some(first) = before.first_mut() {
        *first = Some(Some(0));
    }
    for (at, i) in instructions.iter().enumerate() {
        let Some(a) = before[at] else {
            continue;
        };
        let test = |holds: fn(u32, u32) -> bool| match a.map(|a| holds(a, i.k)) {
            Some(true) => [Some(i.jt), None],
            Some(false) => [None, Some(i.jf)],
            None => [Some(i.jt), Some(i.jf)],
        };
        let (jumps, after) = match i.code {
            code::RET_K if i.k == Verdict::Allow.to_raw() => continue,
            code::RET_K | code::RET_A => return false,
            // by zero it returns 0
            code::DIV_X => return false,
            code::JEQ_K => (test(|a, k| a == k), a),
            code::JGT_K => (test(|a, k| a > k), a),
            code::JGE_K => (test(|a, k| a >= k), a),
            code::JSET_K => (test(|a, k| a & k != 0), a),
            code::JEQ_X | code::JGT_X | code::JGE_X | code::JSET_X => ([Some(i.jt), Some(i.jf)], a),
            code::LD_W_ABS if i.k == 0 => ([Some(0), None], Some(call.nr)),
            code::LD_W_ABS if i.k == 4 => ([Some(0), None], Some(call.arch)),
            code::AND_K => ([Some(0), None], a.map(|a| a & i.k)),
            code::JA | code::TAX | code::ST | code::STX => ([Some(0), None], a),
            code::LDX_IMM | code::LDX_MEM | code::LDX_W_LEN => ([Some(0), None], a),
            _ => ([Some(0), None], None),
        };
        // the only jump over more than 255 instructions; at most 4096
        let far = if i.code == code::JA { i.k as usize } else { 0 };
        for skip in jumps.into_iter().flatten() {
            // `Program::new` has checked that jumps stay inside and that the last instruction returns
            let next = &mut before[at + 1 + far + usize::from(skip)];
            *next = Some(next.map_or(after, |other| other.filter(|_| other == after)));
        }
    }
    true
}
