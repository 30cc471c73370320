//! Laws of the aggregate: nothing is lost, nothing is told twice, nothing grows without bound.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const X86_64: u32 = 0xc000_003e;

fn sample(pid: u32, nr: u32) -> Sample {
    Sample {
        pid,
        call: CallId { arch: X86_64, nr },
        args: [u64::from(pid); 6],
    }
}

fn add(aggregate: &mut Aggregate, name: &str, nr: u32, now_ms: u64) -> Option<Told> {
    let comm = Comm::new(name.as_bytes());
    aggregate.add(Phase::Serving, true, comm, sample(7, nr), now_ms)
}

fn times(told: &[Told]) -> u64 {
    told.iter().map(|told| told.times).sum()
}

#[test]
fn the_first_is_told_at_once_and_the_rest_when_the_window_is_over() {
    let mut denials = Aggregate::default();
    let first = add(&mut denials, "sh", 1, 50).expect("told at once");
    assert_eq!((first.times, first.key.kind.process()), (1, "sh"));
    assert_eq!(
        (first.key.kind.call(), denials.due_ms()),
        (Some(first.last.call), None)
    );
    for now in 51..1050 {
        assert_eq!(add(&mut denials, "sh", 1, now), None);
    }
    // another call, another process: kinds of their own
    assert_eq!(
        add(&mut denials, "sh", 2, 60).map(|told| told.times),
        Some(1)
    );
    assert_eq!(
        add(&mut denials, "ls", 1, 60).map(|told| told.times),
        Some(1)
    );
    assert_eq!((denials.held(), denials.due_ms()), (999, Some(1050)));
    assert_eq!(denials.due(1049), []);
    assert_eq!(times(&denials.due(1050)), 999);
    // the flood goes on: the next line comes a window later, not at once
    assert_eq!(add(&mut denials, "sh", 1, 1051), None);
    assert_eq!(denials.due_ms(), Some(2050));
    assert_eq!(times(&denials.due(2050)), 1);
    // and after a quiet window at once again
    assert_eq!(denials.due_ms(), None);
    assert_eq!(
        add(&mut denials, "sh", 1, 3050).map(|told| told.times),
        Some(1)
    );
    assert_eq!((denials.added(), denials.held()), (1004, 0));
}

#[test]
fn the_last_call_is_the_one_that_is_shown() {
    let mut denials = Aggregate::default();
    for pid in 1..=3 {
        let told = denials.add(Phase::Exec, false, Comm::new(b"a"), sample(pid, 1), 0);
        assert_eq!(told.is_some(), pid == 1);
    }
    let told = denials.drain();
    assert_eq!((told[0].last, told[0].times), (sample(3, 1), 2));
    assert_eq!(
        (told[0].key.phase, told[0].key.enforced),
        (Phase::Exec, false)
    );
    let row = denials.table()[0];
    assert_eq!((row.last, row.times), (sample(3, 1), 3));
}

#[test]
fn what_is_given_back_comes_with_the_next_line_of_its_kind() {
    let mut denials = Aggregate::default();
    let told = add(&mut denials, "sh", 1, 0).expect("first");
    denials.give_back(told);
    assert_eq!((denials.held(), denials.due_ms()), (1, Some(WINDOW_MS)));
    assert_eq!(add(&mut denials, "sh", 1, 10), None);
    let told = denials.due(WINDOW_MS);
    assert_eq!(times(&told), 2);
    denials.give_back(told[0]);
    // after a quiet time it is told with the call that comes
    let late = add(&mut denials, "sh", 1, 10 * WINDOW_MS).expect("at once");
    assert_eq!((late.times, denials.held()), (3, 0));
    assert_eq!(denials.due(20 * WINDOW_MS), []);
    // given back by the end of the container: offered again
    denials.give_back(late);
    assert_eq!(denials.drain(), [late]);
    assert_eq!(denials.drain(), []);
}

#[test]
fn a_container_that_changes_names_and_numbers_without_end_has_256_kinds() {
    assert_eq!(MAX_KEYS, 256);
    let mut denials = Aggregate::default();
    let mut told = 0;
    for number in 0..100_000_u32 {
        let phase = Phase::ALL[number as usize % Phase::ALL.len()];
        let comm = Comm::new(format!("worker-{number}").as_bytes());
        let line = denials.add(phase, number % 2 == 0, comm, sample(number, number), 0);
        told += line.map_or(0, |line| line.times);
    }
    let table = denials.table();
    assert_eq!(table.len(), MAX_KEYS);
    assert_eq!(table.iter().map(|row| row.times).sum::<u64>(), 100_000);
    assert_eq!(told, MAX_KEYS as u64);
    assert_eq!(times(&denials.due(WINDOW_MS)) + told, 100_000);
    let rest = |row: &&Told| row.key.kind == Kind::Rest;
    assert_eq!(table.iter().filter(rest).count(), 10);
    let rest = table.iter().find(rest).expect("there");
    assert_eq!((rest.key.kind.process(), rest.key.kind.call()), ("…", None));
    // a kind that has room keeps it
    let known = denials.add(
        Phase::Prelude,
        true,
        Comm::new(b"worker-0"),
        sample(1, 0),
        9999,
    );
    assert_eq!(
        known.map(|told| told.key.kind.process().to_owned()),
        Some("worker-0".to_owned())
    );
}

#[test]
fn a_known_call_of_a_process_without_room_is_still_named() {
    let mut denials = Aggregate::default();
    for number in 0..1000 {
        let told = add(&mut denials, &format!("w{number}"), 5, 0);
        assert_eq!(told.is_some(), number <= EXACT);
    }
    let table = denials.table();
    assert_eq!(table.len(), EXACT + 1);
    let unnamed = table.last().expect("there");
    assert_eq!(
        unnamed.key.kind,
        Kind::Unnamed(CallId {
            arch: X86_64,
            nr: 5
        })
    );
    assert_eq!(
        (unnamed.key.kind.process(), unnamed.times),
        ("…", 1000 - EXACT as u64)
    );
}

#[test]
fn a_clock_that_goes_back_or_ends_loses_nothing() {
    let mut denials = Aggregate::default();
    let told = add(&mut denials, "a", 1, u64::MAX).map_or(0, |told| told.times);
    assert_eq!(add(&mut denials, "a", 1, 0), None);
    assert_eq!(times(&denials.due(u64::MAX)) + told, 2);
}

#[test]
fn a_name_is_cut_and_cleaned_as_it_can_be_hostile() {
    for (given, expected) in [
        (&b"java\n"[..], "java"),
        (b"", ""),
        (b"\n", ""),
        (b"a\"b\\ c", "a\"b\\ c"),
        (b"\xff\x00\x1b[2J\n", "???[2J"),
        ("…".as_bytes(), "???"),
        (b"0123456789abcdefghij\n", "0123456789abcde"),
    ] {
        assert_eq!(Comm::new(given).as_str(), expected);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Add {
        name: u16,
        nr: u32,
        phase: usize,
        enforced: bool,
    },
    Pass(u64),
    Due,
    Drain,
    /// What was refused comes back: others may have been added meanwhile, by another thread.
    Return,
}

fn step() -> impl Strategy<Value = Step> {
    let adds = (0..400_u16, 0..80_u32, 0..Phase::ALL.len(), any::<bool>());
    prop_oneof![
        20 => adds.prop_map(|(name, nr, phase, enforced)| Step::Add { name, nr, phase, enforced }),
        // mostly the same few, as in a flood
        20 => (0..3_u16).prop_map(|name| Step::Add { name, nr: 1, phase: 2, enforced: true }),
        4 => (0..1500_u64).prop_map(Step::Pass),
        4 => Just(Step::Due),
        1 => Just(Step::Drain),
        4 => Just(Step::Return),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn told_and_held_are_what_was_added(
        steps in proptest::collection::vec((step(), any::<bool>()), 0..400)
    ) {
        let mut denials = Aggregate::default();
        let mut now_ms = 0;
        let mut accepted: BTreeMap<Key, u64> = BTreeMap::new();
        let mut added = 0;
        let mut out: Vec<Told> = Vec::new();
        let mut at_once: BTreeMap<Key, u64> = BTreeMap::new();
        for (step, refuse) in steps {
            let offered = match step {
                Step::Add { name, nr, phase, enforced } => {
                    added += 1;
                    let comm = Comm::new(format!("p{name}").as_bytes());
                    let told = denials.add(Phase::ALL[phase], enforced, comm, sample(1, nr), now_ms);
                    if let Some(told) = &told {
                        // never more than one line of a kind per window
                        if let Some(before) = at_once.insert(told.key, now_ms) {
                            prop_assert!(before + WINDOW_MS <= now_ms);
                        }
                    }
                    Vec::from_iter(told)
                }
                Step::Pass(ms) => {
                    now_ms += ms;
                    Vec::new()
                }
                Step::Due => {
                    let due = denials.due_ms().is_some_and(|due| due <= now_ms);
                    let told = denials.due(now_ms);
                    prop_assert!(due || told.is_empty());
                    prop_assert!(denials.due_ms().is_none_or(|due| due > now_ms));
                    told
                }
                Step::Return => {
                    for told in out.drain(..) {
                        denials.give_back(told);
                    }
                    Vec::new()
                }
                Step::Drain => {
                    let told = denials.drain();
                    prop_assert_eq!(denials.held(), 0);
                    told
                }
            };
            for told in offered {
                prop_assert!(told.times > 0);
                if refuse {
                    out.push(told);
                } else {
                    *accepted.entry(told.key).or_default() += told.times;
                }
            }
            prop_assert_eq!(accepted.values().sum::<u64>() + times(&out) + denials.held(), added);
            prop_assert!(denials.held() == 0 || denials.due_ms().is_some());
        }
        prop_assert_eq!(denials.added(), added);
        prop_assert!(denials.table().len() <= MAX_KEYS);
        // and by kind
        for told in denials.drain().into_iter().chain(out) {
            *accepted.entry(told.key).or_default() += told.times;
        }
        let table: BTreeMap<Key, u64> = denials.table().iter().map(|row| (row.key, row.times)).collect();
        prop_assert_eq!(accepted, table);
    }
}

#[test]
#[ignore = "a measurement; run it with --release and --nocapture"]
fn what_a_repeated_denial_costs() {
    for kinds in [1, 8, MAX_KEYS as u32] {
        let mut denials = Aggregate::default();
        let comms: Vec<_> = (0..kinds)
            .map(|kind| Comm::new(format!("p{kind}").as_bytes()))
            .collect();
        let mut told = 0;
        let began = std::time::Instant::now();
        for number in 0..100_000_u32 {
            let kind = number % kinds;
            let comm = comms[kind as usize];
            let line = denials.add(Phase::Serving, true, comm, sample(number, 1), 5);
            told += line.map_or(0, |line| line.times);
        }
        let each = began.elapsed().as_nanos() / 100_000;
        println!("{kinds} kinds: {each} ns for each of 100,000 denials");
        assert_eq!(told + times(&denials.drain()), 100_000);
    }
}
