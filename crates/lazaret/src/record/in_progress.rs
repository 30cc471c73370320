//! The calls that a container's threads wait in when a phase begins.
//!
//! They were made in the phase before, and counted there. But a call that is cut short (a signal, a stop, a freezer) is made
//! again, and then decided under the phase in force: a server whose main thread has waited in `rt_sigtimedwait` since it began
//! would be denied it at the first `docker pause`. So they count in the phase that begins as well.

use crate::exit::{Exit, OrExit, Outcome};
use anyhow::Context;
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::table;
use lazaret_core::phase::Phase;
use lazaret_core::recording::{ArgSummary, Observation};
use lazaret_kernel::process::{self, CurrentCall, NamespaceId, ProcessError};
use lazaret_kernel::tasks;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

/// A call that waited when a phase began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    abi: Abi,
    call: CurrentCall,
    phase: Phase,
    at_ns: u64,
}

/// What the threads of a pid namespace wait in now. Threads that end meanwhile wait in nothing.
///
/// # Errors
/// Exit 3 when `/proc` does not say.
pub(super) fn waiting(
    namespace: NamespaceId,
    native: Abi,
    phase: Phase,
    at_ns: u64,
) -> Outcome<Vec<Waiting>> {
    let mut found = Vec::new();
    for pid in tasks::processes().or_exit(Exit::HostCannot)? {
        if !matches!(tasks::is_within(pid, namespace), Ok(true)) {
            continue;
        }
        let abi = if is_32_bit(pid) { Abi::I386 } else { native };
        for tid in tasks::threads(pid).unwrap_or_default() {
            let call = match process::current_call(tid) {
                Ok(call) => call,
                Err(error) if error.is_gone() => None,
                Err(error) => return unreadable(tid, error),
            };
            found.extend(call.map(|call| Waiting {
                abi,
                call,
                phase,
                at_ns,
            }));
        }
    }
    Ok(found)
}

fn unreadable<T>(tid: u32, error: ProcessError) -> Outcome<T> {
    Err::<T, _>(error)
        .with_context(|| format!("cannot tell what thread {tid} of the container waits in"))
        .or_exit(Exit::HostCannot)
}

/// Whether the process's program is one of 32 bits (`EI_CLASS` of its ELF header, elf(5)).
fn is_32_bit(pid: u32) -> bool {
    const ELFCLASS32: u8 = 1;
    let mut header = [0; 5];
    let read =
        File::open(format!("/proc/{pid}/exe")).and_then(|mut exe| exe.read_exact(&mut header));
    read.is_ok() && header == [0x7f, b'E', b'L', b'F', ELFCLASS32]
}

/// Adds calls that waited to what was seen in their phase; those that were seen there as well add nothing. Arguments are
/// summarised as they were for the call that waits.
pub(super) fn add(observations: &mut Vec<Observation>, waiting: &[Waiting]) {
    let mut added: BTreeMap<(Abi, u32, Phase), Observation> = BTreeMap::new();
    for one in waiting {
        let (abi, nr, phase) = (one.abi, one.call.nr, one.phase);
        let of_call = |seen: &&Observation| seen.abi == abi && seen.nr == nr;
        let mut same = observations.iter().filter(of_call);
        if same.any(|seen| seen.phase == phase) {
            continue;
        }
        let observation = added
            .entry((abi, nr, phase))
            .or_insert_with(|| Observation {
                abi,
                nr,
                phase,
                count: 0,
                first_ns: one.at_ns,
                last_ns: one.at_ns,
                args: summarised(observations, abi, nr),
            });
        observation.count += 1;
        for summary in &mut observation.args {
            let value = one.call.args.get(usize::from(summary.arg)).copied();
            let value = value.unwrap_or_default() & mask(abi, nr, summary.arg);
            *summary.values.entry(value).or_default() += 1;
        }
    }
    observations.extend(added.into_values());
    observations.sort_by_key(|seen| (seen.abi, seen.nr, seen.phase));
}

/// Empty summaries of the arguments that the recorder has summarised for the call.
fn summarised(observations: &[Observation], abi: Abi, nr: u32) -> Vec<ArgSummary> {
    let seen = observations
        .iter()
        .find(|seen| seen.abi == abi && seen.nr == nr);
    let args = seen.map(|seen| seen.args.as_slice()).unwrap_or_default();
    args.iter()
        .map(|summary| ArgSummary {
            arg: summary.arg,
            values: BTreeMap::new(),
            complete: true,
        })
        .collect()
}

/// The bits of an argument that its declared width has, as the recorder counts them.
fn mask(abi: Abi, nr: u32, arg: u8) -> u64 {
    let args = table::name_of(abi, nr)
        .and_then(table::args_of)
        .unwrap_or_default();
    args.get(usize::from(arg))
        .map_or(u64::MAX, |definition| definition.width.mask())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(name: &str, phase: Phase, args: &[(u8, u64)]) -> Observation {
        Observation {
            abi: Abi::X86_64,
            nr: table::nr_of(Abi::X86_64, name).expect("known"),
            phase,
            count: 3,
            first_ns: 1,
            last_ns: 2,
            args: args
                .iter()
                .map(|&(arg, value)| ArgSummary {
                    arg,
                    values: [(value, 3)].into(),
                    complete: true,
                })
                .collect(),
        }
    }

    fn waits(name: &str, first_arg: u64) -> Waiting {
        Waiting {
            abi: Abi::X86_64,
            call: CurrentCall {
                nr: table::nr_of(Abi::X86_64, name).expect("known"),
                args: [first_arg, 0x1_0000_0005, 0, 0, 0, 0],
            },
            phase: Phase::Serving,
            at_ns: 9,
        }
    }

    #[test]
    fn a_call_that_waits_counts_in_the_phase_that_begins() {
        let startup = [
            seen("pause", Phase::Startup, &[]),
            seen("fcntl", Phase::Startup, &[(1, 7)]),
        ];
        let mut found = startup.to_vec();
        let fcntl = waits("fcntl", 3);
        add(&mut found, &[waits("pause", 0), fcntl, fcntl]);
        let of = |name: &str| {
            let nr = table::nr_of(Abi::X86_64, name);
            let mut same = found
                .iter()
                .filter(|seen| Some(seen.nr) == nr && seen.phase == Phase::Serving);
            (same.next().cloned(), same.count())
        };
        let (Some(pause), 0) = of("pause") else {
            panic!("{found:?}");
        };
        assert_eq!((pause.count, pause.first_ns, pause.args.len()), (1, 9, 0));
        let (Some(fcntl), 0) = of("fcntl") else {
            panic!("{found:?}");
        };
        // `cmd` has 32 bits: what the caller left above them does not count
        assert_eq!(fcntl.count, 2);
        assert_eq!(fcntl.args[0].values, BTreeMap::from([(5, 2)]));
        for before in &startup {
            assert!(found.contains(before), "{before:?}");
        }
    }

    #[test]
    fn what_was_seen_in_the_phase_stays_as_it_was() {
        let serving = seen("fcntl", Phase::Serving, &[(1, 7)]);
        let mut found = vec![serving.clone()];
        add(&mut found, &[waits("fcntl", 3)]);
        assert_eq!(found, [serving]);
    }
}
