//! Where two meanings differ, by side and by region, each with a call that shows it.
//!
//! The decision is on the sets themselves; only the list of regions is cut. Whether a difference is acceptable is the
//! caller's business.

use super::bdd::Set;
use super::region::{self, Region, Span};
use super::word::{self, ARCHITECTURE, NUMBER};
use super::{Meaning, ProveError, Space, table};
use crate::abi::{Abi, X32_BIT};
use crate::rule::{Call, Verdict};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::ops::RangeInclusive;

/// The most differences that are listed of each kind.
pub const MAX_DIFFERENCES: usize = 256;

/// The most regions that are looked for, over all kinds.
const MAX_REGIONS: usize = 1 << 13;

/// The number −1, which is no call.
///
/// The kernel runs the filters for it like for any other number: they may kill, signal or set an errno. When they let it pass,
/// nothing follows: `do_syscall_64` and `do_syscall_32_irqs_on` (`arch/x86/entry/`) dispatch no number beyond their tables and
/// leave out even `sys_ni_syscall` for −1, `el0_svc_common` (`arch/arm64/kernel/syscall.c`) goes to its exit for `NO_SYSCALL`; the
/// caller gets `ENOSYS`. Tracers use it to skip a call, which is why libseccomp exempts it from its test for x32.
pub const NO_CALL: u32 = u32::MAX;

/// ENOSYS, the same on every architecture of [`Abi`] (`include/uapi/asm-generic/errno.h`).
const ENOSYS: u16 = 38;

/// Calls on which two sides differ in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Their `AUDIT_ARCH_*` words; one only, unless `abi` is `None`.
    pub architectures: RangeInclusive<u32>,
    /// Their convention; `None` for architectures that this crate has no table for.
    pub abi: Option<Abi>,
    /// Their numbers as a filter sees them, x32's bit included.
    pub numbers: RangeInclusive<u32>,
    /// Their arguments.
    pub when: Region,
    /// The smallest of them. Both verdicts were confirmed for it by evaluation.
    pub call: Call,
    /// Where it is made, when that matters for these calls.
    pub instruction_pointer: Option<u64>,
    /// What was expected.
    pub expected: Verdict,
    /// What was found.
    pub found: Verdict,
}

impl Difference {
    /// Whether programs act on the difference: not on one errno for another, unless one is `ENOSYS`, which they take as "this kernel
    /// does not have the call" and fall back.
    #[must_use]
    pub fn matters(&self) -> bool {
        match (self.expected, self.found) {
            (Verdict::Errno(expected), Verdict::Errno(found)) => {
                (expected == ENOSYS) != (found == ENOSYS)
            }
            _ => true,
        }
    }
}

/// How many differences are not listed; at least so many, when they are very many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Omitted {
    /// Of [`Comparison::looser`].
    pub looser: usize,
    /// Of [`Comparison::stricter`].
    pub stricter: usize,
    /// Of [`Comparison::other`].
    pub other: usize,
    /// Of [`Comparison::no_call`].
    pub no_call: usize,
}

/// What a comparison found. Each list is ordered by architecture (those with a convention first) and number, and holds at most
/// [`MAX_DIFFERENCES`]; a list is empty only when there is no such difference at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Found is more permissive than expected ([`Verdict::permissiveness`]).
    pub looser: Vec<Difference>,
    /// Found is less permissive.
    pub stricter: Vec<Difference>,
    /// The same action with another datum, above all another errno; see [`Difference::matters`].
    pub other: Vec<Difference>,
    /// Differences at [`NO_CALL`] under a known architecture, whichever side is more permissive: there is nothing to permit. Where
    /// somebody else would be asked to act (a supervisor, a tracer) the difference is in the other lists instead.
    pub no_call: Vec<Difference>,
    /// What the lists leave out.
    pub omitted: Omitted,
}

impl Comparison {
    /// Whether every call gets the same verdict, [`NO_CALL`] included.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.is_equal_for_calls() && self.no_call.is_empty()
    }

    /// Whether everything that the kernel could dispatch gets the same verdict.
    #[must_use]
    pub fn is_equal_for_calls(&self) -> bool {
        self.looser.is_empty() && self.stricter.is_empty() && self.other.is_empty()
    }

    /// Whether no call gets a more permissive verdict than expected.
    #[must_use]
    pub fn is_at_least_as_strict(&self) -> bool {
        self.looser.is_empty()
    }
}

/// A difference before it is read out.
struct Raw {
    kind: Kind,
    architectures: RangeInclusive<u32>,
    abi: Option<Abi>,
    numbers: RangeInclusive<u32>,
    arguments: Set,
    expected: Verdict,
    found: Verdict,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Looser,
    Stricter,
    Other,
    NoCall,
}

impl Kind {
    /// For numbers that are calls.
    fn of(expected: Verdict, found: Verdict) -> Kind {
        match found.permissiveness().cmp(&expected.permissiveness()) {
            Ordering::Greater => Kind::Looser,
            Ordering::Less => Kind::Stricter,
            Ordering::Equal => Kind::Other,
        }
    }
}

impl Space {
    /// Compares two meanings of this space.
    ///
    /// # Guarantees
    /// As [`super::prove`], with the origins of the meanings for the table and the chain.
    ///
    /// # Errors
    /// [`ProveError::TooLarge`], [`ProveError::OtherSpace`]; [`ProveError::Unconfirmed`] should not happen.
    pub fn compare(
        &mut self,
        expected: &Meaning,
        found: &Meaning,
    ) -> Result<Comparison, ProveError> {
        self.check(expected)?;
        self.check(found)?;
        let nothing = self.no_call()?;
        let mut raw = Vec::new();
        for (&expected, &expected_calls) in &expected.sets {
            for (&found, &found_calls) in &found.sets {
                let calls = self.diagrams.and(expected_calls, found_calls)?;
                if expected == found || calls == Set::NONE {
                    continue;
                }
                let kind = Kind::of(expected, found);
                if matches!(found, Verdict::Ask | Verdict::Trace(_)) {
                    self.regions(calls, expected, found, kind, &mut raw);
                    continue;
                }
                let no_calls = self.diagrams.and(calls, nothing)?;
                let calls = self.diagrams.and(calls, !nothing)?;
                self.regions(calls, expected, found, kind, &mut raw);
                self.regions(no_calls, expected, found, Kind::NoCall, &mut raw);
            }
        }
        raw.sort_by_key(|raw| {
            let first = (*raw.architectures.start(), *raw.numbers.start());
            (raw.abi.is_none(), first, raw.expected, raw.found)
        });
        let mut known = BTreeMap::new();
        let mut comparison = Comparison::default();
        for raw in raw {
            let Comparison {
                looser,
                stricter,
                other,
                no_call,
                omitted,
            } = &mut comparison;
            let (list, omitted) = match raw.kind {
                Kind::Looser => (looser, &mut omitted.looser),
                Kind::Stricter => (stricter, &mut omitted.stricter),
                Kind::Other => (other, &mut omitted.other),
                Kind::NoCall => (no_call, &mut omitted.no_call),
            };
            if list.len() < MAX_DIFFERENCES {
                list.push(self.difference(raw, expected, found, &mut known)?);
            } else {
                *omitted += 1;
            }
        }
        Ok(comparison)
    }

    /// The calls at [`NO_CALL`] under a known architecture.
    fn no_call(&mut self) -> Result<Set, ProveError> {
        let mut known = Set::NONE;
        for abi in Abi::ALL {
            let convention = table::convention(&mut self.diagrams, abi)?;
            known = self.diagrams.or(known, convention)?;
        }
        let number = word::input(&mut self.diagrams, NUMBER)?;
        let none = word::equal(&mut self.diagrams, &number, &word::constant(NO_CALL))?;
        Ok(self.diagrams.and(known, none)?)
    }

    /// Reads `calls` as architectures and numbers; at least one region is added when there are any.
    fn regions(
        &self,
        calls: Set,
        expected: Verdict,
        found: Verdict,
        kind: Kind,
        raw: &mut Vec<Raw>,
    ) {
        let limit = MAX_REGIONS.saturating_sub(raw.len()).max(1);
        let end = raw.len() + limit;
        let mut architectures = Vec::new();
        region::spans(
            &self.diagrams,
            calls,
            &region::levels(ARCHITECTURE),
            limit,
            &mut architectures,
        );
        for architecture in architectures {
            let mut numbers = Vec::new();
            region::spans(
                &self.diagrams,
                architecture.rest,
                &region::levels(NUMBER),
                end.saturating_sub(raw.len()),
                &mut numbers,
            );
            for architectures in by_architecture(&architecture) {
                for span in &numbers {
                    for (abi, numbers) in by_convention(&architectures, span) {
                        raw.push(Raw {
                            kind,
                            architectures: architectures.clone(),
                            abi,
                            numbers,
                            arguments: span.rest,
                            expected,
                            found,
                        });
                    }
                }
            }
        }
    }

    fn difference(
        &mut self,
        raw: Raw,
        expected: &Meaning,
        found: &Meaning,
        known: &mut BTreeMap<Set, Region>,
    ) -> Result<Difference, ProveError> {
        let (arguments, instruction_pointer) = region::smallest(&self.diagrams, raw.arguments);
        let call = Call {
            arch: *raw.architectures.start(),
            nr: *raw.numbers.start(),
            ..arguments
        };
        let confirmed = |meaning: &Meaning, verdict| {
            meaning.decide(&call, instruction_pointer) == Some(verdict)
        };
        if !confirmed(expected, raw.expected) || !confirmed(found, raw.found) {
            return Err(ProveError::Unconfirmed { call });
        }
        let from = region::INSTRUCTION_POINTER;
        let matters = region::looks_beyond(&self.diagrams, raw.arguments, from);
        Ok(Difference {
            architectures: raw.architectures,
            abi: raw.abi,
            numbers: raw.numbers,
            when: self.region_of(raw.arguments, known)?,
            call,
            instruction_pointer: matters.then_some(instruction_pointer),
            expected: raw.expected,
            found: raw.found,
        })
    }
}

/// A span of architectures, cut so that each known one stands alone.
fn by_architecture(span: &Span) -> Vec<RangeInclusive<u32>> {
    let mut known: Vec<u32> = Abi::ALL.into_iter().map(Abi::audit_arch).collect();
    known.sort_unstable();
    known.dedup();
    let mut pieces = Vec::new();
    // spans of 32 levels hold 32-bit numbers
    let (mut first, last) = (span.first as u32, span.last as u32);
    for known in known {
        if !(first..=last).contains(&known) {
            continue;
        }
        if first < known {
            pieces.push(first..=known - 1);
        }
        pieces.push(known..=known);
        match known.checked_add(1) {
            Some(next) if next <= last => first = next,
            _ => return pieces,
        }
    }
    pieces.push(first..=last);
    pieces
}

/// A span of numbers under an architecture (or a range without a known one), cut where the convention changes.
fn by_convention(
    architectures: &RangeInclusive<u32>,
    span: &Span,
) -> Vec<(Option<Abi>, RangeInclusive<u32>)> {
    let architecture = *architectures.start();
    // as in `by_architecture`
    let (first, last) = (span.first as u32, span.last as u32);
    let abi = |number| Abi::of(architecture, number).map(|(abi, _)| abi);
    // x32's bit is constant over each quarter of the numbers
    let quarters = (0..=3u32).map(|quarter| {
        let start = quarter * X32_BIT;
        (start, start | (X32_BIT - 1))
    });
    let mut pieces: Vec<(Option<Abi>, RangeInclusive<u32>)> = Vec::new();
    for (start, end) in quarters {
        let (from, to) = (first.max(start), last.min(end));
        if from > to {
            continue;
        }
        match pieces.last_mut() {
            Some((before, range)) if *before == abi(from) => *range = *range.start()..=to,
            _ => pieces.push((abi(from), from..=to)),
        }
    }
    pieces
}
