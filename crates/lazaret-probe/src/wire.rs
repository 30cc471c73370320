//! Keys and values of the maps, as `src/bpf/recorder.bpf.c` lays them out. Native byte order, no padding that is not named.
//!
//! The kernel wrote these bytes by way of our own program, so a wrong size is a defect of this crate; it is still an
//! error and not a panic.

use lazaret_core::filter::abi::Abi;
use lazaret_core::phase::Phase;

/// Calls with numbers below this can have argument summaries (`CALLS`).
const CALLS: u32 = 1024;
/// Arguments of a call (`ARGS`).
pub(crate) const ARGS: usize = 6;

const fn abi_code(abi: Abi) -> Option<u8> {
    match abi {
        Abi::X86_64 => Some(0),
        Abi::I386 => Some(1),
        Abi::X32 => Some(2),
        Abi::Aarch64 => None,
    }
}

fn abi_of(code: u8) -> Option<Abi> {
    [Abi::X86_64, Abi::I386, Abi::X32]
        .into_iter()
        .find(|abi| abi_code(*abi) == Some(code))
}

/// The number that the program uses for a phase (`enum phase`).
pub(crate) const fn phase_code(phase: Phase) -> u8 {
    match phase {
        Phase::Prelude => 0,
        Phase::Startup => 1,
        Phase::Serving => 2,
        Phase::Stopping => 3,
        Phase::Exec => 4,
    }
}

fn phase_of(code: u8) -> Option<Phase> {
    Phase::ALL
        .into_iter()
        .find(|phase| phase_code(*phase) == code)
}

/// Where the summary of a call is kept; none past the end of the table.
pub(crate) fn summary_index(abi: Abi, nr: u32) -> Option<u32> {
    let abi = u32::from(abi_code(abi)?);
    // at most 2 * 1024 + 1023
    (nr < CALLS).then(|| abi * CALLS + nr)
}

/// `struct config`.
pub(crate) fn config(own_inum: u32, own_is_initial: bool, values_max: u32) -> Vec<u8> {
    [own_inum, u32::from(own_is_initial), values_max, 0]
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect()
}

/// `struct summary`: a bit for each argument that has a mask, and the masks.
pub(crate) fn summary(masks: &[Option<u64>; ARGS]) -> Vec<u8> {
    let bits = masks
        .iter()
        .enumerate()
        .filter(|(_, mask)| mask.is_some())
        .fold(0u64, |bits, (arg, _)| bits | 1 << arg);
    std::iter::once(bits)
        .chain(masks.iter().map(|mask| mask.unwrap_or(0)))
        .flat_map(u64::to_ne_bytes)
        .collect()
}

/// `struct call_key`. In `calls`, `arg` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CallKey {
    pub(crate) slot: u32,
    pub(crate) abi: Abi,
    pub(crate) nr: u32,
    pub(crate) phase: Phase,
    pub(crate) arg: u8,
}

impl CallKey {
    pub(crate) fn read(bytes: &[u8]) -> Option<CallKey> {
        let (slot, bytes) = u32_at_front(bytes)?;
        let (nr, bytes) = u32_at_front(bytes)?;
        let [abi, phase, arg, 0] = *bytes else {
            return None;
        };
        Some(CallKey {
            slot,
            abi: abi_of(abi)?,
            nr,
            phase: phase_of(phase)?,
            arg,
        })
    }
}

/// `struct call_value` of one CPU; times on `CLOCK_MONOTONIC`, meaningless while the count is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallValue {
    pub(crate) count: u64,
    pub(crate) first_ns: u64,
    pub(crate) last_ns: u64,
}

impl CallValue {
    pub(crate) fn read(bytes: &[u8]) -> Option<CallValue> {
        let (count, bytes) = u64_at_front(bytes)?;
        let (first_ns, bytes) = u64_at_front(bytes)?;
        let (last_ns, bytes) = u64_at_front(bytes)?;
        bytes.is_empty().then_some(CallValue {
            count,
            first_ns,
            last_ns,
        })
    }
}

/// `struct value_key`: the key of the argument, and the value.
pub(crate) fn value_key(bytes: &[u8]) -> Option<(CallKey, u64)> {
    let (key, bytes) = bytes.split_at_checked(12)?;
    let (_zero, bytes) = u32_at_front(bytes)?;
    Some((CallKey::read(key)?, u64_alone(bytes)?))
}

/// `struct value_set`: whether values were left out.
pub(crate) fn set_overflowed(bytes: &[u8]) -> Option<bool> {
    let (_distinct, bytes) = u32_at_front(bytes)?;
    Some(u32_alone(bytes)? != 0)
}

/// `struct namespace`. `parent` is the slot of the namespace it was made from, or a number that is no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NamespaceValue {
    pub(crate) inum: u32,
    pub(crate) parent: u32,
    pub(crate) from_start: bool,
}

impl NamespaceValue {
    pub(crate) fn read(bytes: &[u8]) -> Option<NamespaceValue> {
        let (inum, bytes) = u32_at_front(bytes)?;
        let (parent, bytes) = u32_at_front(bytes)?;
        let (from_start, bytes) = u32_at_front(bytes)?;
        u32_alone(bytes)?;
        Some(NamespaceValue {
            inum,
            parent,
            from_start: from_start != 0,
        })
    }
}

/// A value of `phases`.
pub(crate) fn phase(bytes: &[u8]) -> Option<Phase> {
    phase_of(u8::try_from(u32_alone(bytes)?).ok()?)
}

fn u32_at_front(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (front, rest) = bytes.split_first_chunk()?;
    Some((u32::from_ne_bytes(*front), rest))
}

fn u64_at_front(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (front, rest) = bytes.split_first_chunk()?;
    Some((u64::from_ne_bytes(*front), rest))
}

/// A `u32` that is all there is.
pub(crate) fn u32_alone(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// A `u64` that is all there is.
pub(crate) fn u64_alone(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use libbpf_rs::btf::types::{MemberAttr, Struct};
    use libbpf_rs::btf::{Btf, HasSize};

    /// What the functions above take apart, against what clang laid out.
    #[test]
    fn layouts_are_those_of_the_program() {
        let btf = Btf::from_raw("recorder", crate::probe::OBJECT)
            .unwrap()
            .unwrap();
        let check = |name: &str, size: usize, expected: &[(&str, u32)]| {
            let found = btf.type_by_name::<Struct<'_>>(name).unwrap();
            let members: Vec<_> = found
                .iter()
                .map(|member| {
                    let MemberAttr::Normal { offset } = member.attr else {
                        panic!("{name} has a bit field")
                    };
                    (member.name.unwrap().to_str().unwrap(), offset / 8)
                })
                .collect();
            assert_eq!((found.size(), &members[..]), (size, expected), "{name}");
        };
        check(
            "config",
            16,
            &[
                ("own_inum", 0),
                ("own_is_initial", 4),
                ("values_max", 8),
                ("zero", 12),
            ],
        );
        check("summary", 56, &[("args", 0), ("masks", 8)]);
        check(
            "call_key",
            12,
            &[
                ("slot", 0),
                ("nr", 4),
                ("abi", 8),
                ("phase", 9),
                ("arg", 10),
                ("zero", 11),
            ],
        );
        check(
            "call_value",
            24,
            &[("count", 0), ("first_ns", 8), ("last_ns", 16)],
        );
        check("value_key", 24, &[("call", 0), ("zero", 12), ("value", 16)]);
        check("value_set", 8, &[("distinct", 0), ("overflow", 4)]);
        check(
            "namespace",
            16,
            &[("inum", 0), ("parent", 4), ("from_start", 8), ("zero", 12)],
        );
    }

    #[test]
    fn entries_of_another_form_are_refused() {
        let key = [[1, 0, 0, 0], [2, 0, 0, 0], [1, 2, 3, 0]].concat();
        assert_eq!(
            CallKey::read(&key),
            Some(CallKey {
                slot: 1,
                abi: Abi::I386,
                nr: 2,
                phase: Phase::Serving,
                arg: 3
            })
        );
        for (at, byte) in [(8, 3), (9, 5), (11, 1)] {
            let mut other = key.clone();
            other[at] = byte;
            assert_eq!(CallKey::read(&other), None, "byte {at}");
        }
        assert_eq!(CallKey::read(&key[..11]), None);
        assert_eq!(CallValue::read(&[0; 25]), None);
        assert_eq!(value_key(&[0; 23]), None);
        assert_eq!(NamespaceValue::read(&[0; 20]), None);
    }
}
