//! The recorder on the running kernel (T3): needs root, and makes its own pid namespaces.
//!
//! Every test starts a *workload*, this same program once more with a script (see `workload.rs`), in a new pid namespace.
//! Workload and test take turns over pipes; nothing sleeps.

mod container;
mod workload;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use container::Container;
use lazaret_core::filter::abi::Abi;
use lazaret_core::phase::Phase;
use lazaret_core::recording::{ArgSummary, Observation};
use lazaret_probe::{
    AttachKind, Limits, PhaseError, PidNamespace, Probe, ReadError, Recorded, probe_support,
};

/// Calls that no runtime library makes by itself.
const GETPPID: u32 = 110;
const GETPGRP: u32 = 111;

/// One probe at a time: each slows all calls of the machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn as_root() -> Option<MutexGuard<'static, ()>> {
    if !rustix::process::geteuid().is_root() {
        // not through println!, which the test harness keeps to itself
        writeln!(std::io::stderr(), "SKIP: the recorder's tests need root")
            .expect("standard error");
        return None;
    }
    Some(ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner))
}

fn count(recorded: &Recorded, abi: Abi, nr: u32) -> BTreeMap<Phase, u64> {
    recorded
        .observations
        .iter()
        .filter(|seen| (seen.abi, seen.nr) == (abi, nr))
        .map(|seen| (seen.phase, seen.count))
        .collect()
}

fn find(recorded: &Recorded, nr: u32, phase: Phase) -> &Observation {
    recorded
        .observations
        .iter()
        .find(|seen| (seen.abi, seen.nr, seen.phase) == (Abi::X86_64, nr, phase))
        .unwrap_or_else(|| panic!("no call {nr} in {phase}: {recorded:?}"))
}

fn assert_nothing_lost(recorded: &Recorded) {
    assert_eq!(recorded.losses.total(), 0, "{:?}", recorded.losses);
    assert!(recorded.from_start);
}

fn attached() -> Probe<lazaret_probe::Attached> {
    Probe::load(Limits::default()).unwrap().attach().unwrap()
}

/// The re-executed test program; does nothing when it is run as a test.
#[test]
fn workload() {
    workload::run_if_asked();
}

#[test]
fn this_host_is_supported() {
    let Some(_guard) = as_root() else { return };
    probe_support().unwrap();
    let limits = Limits {
        values: 0,
        ..Limits::default()
    };
    assert_eq!(
        Probe::load(limits).unwrap_err().to_string(),
        "limit `values` is 0, at least 1 is needed"
    );
}

#[test]
fn a_million_calls_of_four_processes_are_counted_exactly() {
    let Some(_guard) = as_root() else { return };
    for kind in [AttachKind::TpBtf, AttachKind::RawTp] {
        let probe = Probe::load_as(kind, Limits::default())
            .unwrap()
            .attach()
            .unwrap();
        let container = Container::start("say;wait;spawn 4 call 110 250000");
        let namespace = container.end();
        let recorded = probe.finish(&namespace).unwrap();
        assert_nothing_lost(&recorded);
        assert_eq!(recorded.attach_kind, kind);
        assert_eq!(
            count(&recorded, Abi::X86_64, GETPPID),
            BTreeMap::from([(Phase::Startup, 1_000_000)])
        );
    }
}

#[test]
fn phases_set_from_outside_are_told_apart() {
    let Some(_guard) = as_root() else { return };
    let before = Instant::now();
    let mut probe = attached();
    let mut container =
        Container::start("say;wait;call 111 10;say;wait;call 111 20;say;wait;call 111 30");
    container.step();
    let early = probe.snapshot(&container.namespace).unwrap();
    assert_eq!(
        count(&early, Abi::X86_64, GETPGRP),
        BTreeMap::from([(Phase::Startup, 10)])
    );
    probe
        .set_phase(&container.namespace, Phase::Serving)
        .unwrap();
    container.step();
    probe
        .set_phase(&container.namespace, Phase::Stopping)
        .unwrap();
    let namespace = container.end();
    let recorded = probe.finish(&namespace).unwrap();
    assert_nothing_lost(&recorded);
    assert_eq!(
        count(&recorded, Abi::X86_64, GETPGRP),
        BTreeMap::from([
            (Phase::Startup, 10),
            (Phase::Serving, 20),
            (Phase::Stopping, 30),
        ])
    );
    let elapsed = u64::try_from(before.elapsed().as_nanos()).unwrap();
    let mut end_of_last_phase = 0;
    for phase in [Phase::Startup, Phase::Serving, Phase::Stopping] {
        let seen = find(&recorded, GETPGRP, phase);
        assert!(end_of_last_phase < seen.first_ns, "{seen:?}");
        assert!(seen.first_ns < seen.last_ns, "{seen:?}");
        end_of_last_phase = seen.last_ns;
    }
    assert!(end_of_last_phase < elapsed);
    let keys: Vec<_> = recorded
        .observations
        .iter()
        .map(|seen| (seen.abi, seen.nr, seen.phase))
        .collect();
    assert!(keys.is_sorted());
}

#[test]
fn phases_that_follow_from_processes_cannot_be_set() {
    let Some(_guard) = as_root() else { return };
    let mut probe = attached();
    let container = Container::start("say;wait");
    for phase in [Phase::Prelude, Phase::Exec] {
        assert!(matches!(
            probe.set_phase(&container.namespace, phase),
            Err(PhaseError::NotSettable { .. })
        ));
    }
    container.end();
}

#[test]
fn the_prelude_ends_when_process_1_executes() {
    let Some(_guard) = as_root() else { return };
    for kind in [AttachKind::TpBtf, AttachKind::RawTp] {
        let probe = Probe::load_as(kind, Limits::default())
            .unwrap()
            .attach()
            .unwrap();
        // process 1 calls 7 times, a child of it 5 times before it executes, a failing execve, 3 times
        // more, then executes
        let mut container = Container::outside("new 7 5 3|say;wait;call 111 11");
        container.adopt_grandchild();
        let namespace = container.end();
        let recorded = probe.finish(&namespace).unwrap();
        assert_nothing_lost(&recorded);
        assert_eq!(
            count(&recorded, Abi::X86_64, GETPGRP),
            BTreeMap::from([(Phase::Prelude, 15), (Phase::Startup, 11)])
        );
    }
}

#[test]
fn a_process_put_in_from_outside_is_exec_with_all_its_descendants() {
    let Some(_guard) = as_root() else { return };
    for kind in [AttachKind::TpBtf, AttachKind::RawTp] {
        let mut probe = Probe::load_as(kind, Limits::default())
            .unwrap()
            .attach()
            .unwrap();
        let container = Container::start("say;wait;call 111 1000");
        probe
            .set_phase(&container.namespace, Phase::Serving)
            .unwrap();
        // before it executes: itself 7, a child 5, itself 3; after: 11, two children 20 each, a child that loses a thread
        // 30, an orphan 600, and 40 after a thread other than the leader has executed once more
        let mut joined = Container::outside(&format!(
            "join {} 7 5 3|call 111 11;spawn 2 call 111 20;spawn 1 thread 30;orphan 600;exec|\
             call 111 40;say",
            container.pid
        ));
        joined.hear();
        joined.wait();
        let namespace = container.end();
        let recorded = probe.finish(&namespace).unwrap();
        assert_nothing_lost(&recorded);
        assert_eq!(
            count(&recorded, Abi::X86_64, GETPGRP),
            BTreeMap::from([
                (Phase::Prelude, 15),
                (Phase::Serving, 1000),
                (Phase::Exec, 721),
            ])
        );
    }
}

#[test]
fn calling_conventions_are_kept_apart() {
    let Some(_guard) = as_root() else { return };
    for kind in [AttachKind::TpBtf, AttachKind::RawTp] {
        let probe = Probe::load_as(kind, Limits::default())
            .unwrap()
            .attach()
            .unwrap();
        // 65 is getpgrp in i386; 0x4000006f is x32's; 5000 and 0x40001388 are nobody's
        let container = Container::start(
            "say;wait;call 111 1;int80 65 2;call 1073741935 3;call 5000 4;call 1073746824 5",
        );
        let namespace = container.end();
        let recorded = probe.finish(&namespace).unwrap();
        assert_nothing_lost(&recorded);
        let startup = |times| BTreeMap::from([(Phase::Startup, times)]);
        for (abi, nr, times) in [
            (Abi::X86_64, 111, 1),
            (Abi::I386, 65, 2),
            (Abi::X32, 111, 3),
            (Abi::X86_64, 5000, 4),
            (Abi::X32, 5000, 5),
        ] {
            assert_eq!(count(&recorded, abi, nr), startup(times), "{abi} {nr}");
        }
        // semop, the native meaning of 65, was not called
        assert_eq!(count(&recorded, Abi::X86_64, 65), BTreeMap::new());
    }
}

#[test]
fn argument_values_are_exact_and_cut_to_their_width() {
    let Some(_guard) = as_root() else { return };
    for kind in [AttachKind::TpBtf, AttachKind::RawTp] {
        let probe = Probe::load_as(kind, Limits::default())
            .unwrap()
            .attach()
            .unwrap();
        // socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) and socket(AF_INET, SOCK_DGRAM, IPPROTO_UDP), each with rubbish in
        // the upper half of an argument; i386 kill(0x7fffffff, 0)
        let container = Container::start(
            "say;wait;call 41 3 1 0xdead000000080001 0;call 41 2 0xbeef00000002 2 17;\
             call 135 4 0xffffffff;int80 37 6 0x7fffffff 0",
        );
        let namespace = container.end();
        let recorded = probe.finish(&namespace).unwrap();
        assert_nothing_lost(&recorded);
        let summary = |arg, values: &[(u64, u64)]| ArgSummary {
            arg,
            values: values.iter().copied().collect(),
            complete: true,
        };
        assert_eq!(
            find(&recorded, 41, Phase::Startup).args,
            [
                summary(0, &[(1, 3), (2, 2)]),
                summary(1, &[(0x80001, 3), (2, 2)]),
                summary(2, &[(0, 3), (17, 2)]),
            ]
        );
        assert_eq!(
            find(&recorded, 135, Phase::Startup).args,
            [summary(0, &[(0xffff_ffff, 4)])]
        );
        let kill = recorded
            .observations
            .iter()
            .find(|seen| (seen.abi, seen.nr) == (Abi::I386, 37))
            .unwrap();
        assert_eq!(kill.args, [summary(1, &[(0, 6)])]);
        // not in the list
        assert_eq!(find(&recorded, 0, Phase::Startup).args, []);
        // all values of all complete arguments add up to the calls
        for seen in &recorded.observations {
            for arg in &seen.args {
                assert!(arg.complete);
                assert_eq!(arg.values.values().sum::<u64>(), seen.count, "{seen:?}");
            }
        }
    }
}

#[test]
fn too_many_argument_values_are_flagged() {
    let Some(_guard) = as_root() else { return };
    for (distinct, complete) in [(64, true), (65, false)] {
        let probe = attached();
        let container =
            Container::start(&format!("say;wait;each 135 {distinct};each 135 {distinct}"));
        let namespace = container.end();
        let recorded = probe.finish(&namespace).unwrap();
        assert_nothing_lost(&recorded);
        let seen = find(&recorded, 135, Phase::Startup);
        assert_eq!(seen.count, 2 * distinct);
        let [personality] = &seen.args[..] else {
            panic!("{seen:?}")
        };
        assert_eq!(personality.complete, complete);
        assert_eq!(personality.values.len(), 64);
        assert!(personality.values.values().all(|&count| count == 2));
    }
}

#[test]
fn what_finds_no_room_is_counted_as_lost() {
    let Some(_guard) = as_root() else { return };
    let full = Limits::default();
    for (limits, lost_at_least) in [
        (Limits { calls: 4, ..full }, 500),
        (Limits { values: 4, ..full }, 1),
        (
            Limits {
                value_sets: 4,
                ..full
            },
            1,
        ),
        (
            Limits {
                processes: 1,
                ..full
            },
            500,
        ),
    ] {
        let probe = Probe::load(limits).unwrap().attach().unwrap();
        let container = Container::start("say;wait;each 135 10;spawn 1 call 111 500");
        let namespace = container.end();
        let recorded = probe.finish(&namespace).unwrap();
        assert!(
            recorded.losses.failed_insertions >= lost_at_least,
            "{limits:?} {:?}",
            recorded.losses
        );
    }
}

#[test]
fn dead_processes_make_room() {
    let Some(_guard) = as_root() else { return };
    let limits = Limits {
        processes: 500,
        ..Limits::default()
    };
    let probe = Probe::load(limits).unwrap().attach().unwrap();
    let container = Container::start("say;wait;forks 2000");
    let namespace = container.end();
    let recorded = probe.finish(&namespace).unwrap();
    assert_nothing_lost(&recorded);
    assert_eq!(
        count(&recorded, Abi::X86_64, GETPGRP),
        BTreeMap::from([(Phase::Startup, 2000)])
    );
}

#[test]
fn the_recorders_own_namespace_is_not_recorded() {
    let Some(_guard) = as_root() else { return };
    let probe = attached();
    let container = Container::start("say;wait;call 111 10");
    workload::call(GETPGRP, 1000, [0; 6]);
    let own = PidNamespace::of_pid(std::process::id()).unwrap();
    assert!(matches!(
        probe.snapshot(&own),
        Err(ReadError::NotSeen { .. })
    ));
    let seen = probe.namespaces().unwrap();
    assert!(seen.iter().all(|seen| seen.inum != own.inum()));
    assert!(
        seen.iter()
            .any(|seen| seen.inum == container.namespace.inum() && seen.from_start)
    );
    let namespace = container.end();
    let recorded = probe.finish(&namespace).unwrap();
    assert_eq!(
        count(&recorded, Abi::X86_64, GETPGRP),
        BTreeMap::from([(Phase::Startup, 10)])
    );
}

#[test]
fn a_namespace_older_than_the_probe_says_so() {
    let Some(_guard) = as_root() else { return };
    let container = Container::start("say;wait;call 111 10");
    let probe = attached();
    let namespace = container.end();
    let recorded = probe.finish(&namespace).unwrap();
    assert!(!recorded.from_start);
    assert_eq!(
        count(&recorded, Abi::X86_64, GETPGRP),
        BTreeMap::from([(Phase::Startup, 10)])
    );
}

#[test]
fn a_namespace_with_the_number_of_a_dead_one_starts_empty() {
    let Some(_guard) = as_root() else { return };
    let probe = attached();
    let mut numbers = BTreeMap::new();
    for round in 1..=50 {
        let container = Container::start("say;wait;call 111 1");
        let inum = container.namespace.inum();
        if numbers.insert(inum, round).is_some() {
            let namespace = container.end();
            let recorded = probe.finish(&namespace).unwrap();
            assert_nothing_lost(&recorded);
            assert_eq!(
                count(&recorded, Abi::X86_64, GETPGRP),
                BTreeMap::from([(Phase::Startup, 1)])
            );
            return;
        }
        // lets the number go
        drop(container.end());
    }
    panic!("the kernel gave no number twice in 50 rounds: {numbers:?}");
}

#[test]
fn a_namespace_below_is_another_one_and_is_mentioned() {
    let Some(_guard) = as_root() else { return };
    let probe = attached();
    let container = Container::start("say;wait;call 111 10;new 7 5 3|call 111 100");
    let namespace = container.end();
    let recorded = probe.finish(&namespace).unwrap();
    assert_nothing_lost(&recorded);
    assert_eq!(recorded.nested, 1);
    assert_eq!(
        count(&recorded, Abi::X86_64, GETPGRP),
        BTreeMap::from([(Phase::Startup, 10)])
    );
}
