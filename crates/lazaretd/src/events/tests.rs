//! The log, its writer and its queue together, on real files.

use super::aggregate::{Aggregate, Comm, Sample};
use super::*;
use lazaret_core::phase::Phase;
use std::path::PathBuf;
use tempfile::TempDir;

/// The lines of a file, those that are no JSON left out; and how many these are.
fn read(path: &Path) -> (Vec<serde_json::Value>, usize) {
    let text = std::fs::read(path).unwrap_or_default();
    let mut cut = 0;
    let lines = text
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .filter_map(|line| {
            let parsed = serde_json::from_slice(line).ok();
            cut += usize::from(parsed.is_none());
            parsed
        })
        .collect();
    (lines, cut)
}

fn numbered(pid: u32) -> What {
    What::Unsupervised { pid }
}

/// The pids of `numbered` events.
fn pids(lines: &[serde_json::Value]) -> Vec<u64> {
    let told = lines.iter().filter(|line| line["type"] == "unsupervised");
    told.filter_map(|line| line["pid"].as_u64()).collect()
}

fn lost(lines: &[serde_json::Value]) -> u64 {
    let told = lines.iter().filter(|line| line["type"] == "events_lost");
    told.filter_map(|line| line["lines"].as_u64()).sum()
}

fn log_in(folder: &TempDir) -> PathBuf {
    folder.path().join("log/events.jsonl")
}

/// Waits until the writer has nothing to do; a bound for a machine that is busy.
fn drained(events: &Events) {
    for _ in 0..2000 {
        if events.waiting() == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{} events still wait", events.waiting());
}

fn denial(aggregate: &mut Aggregate, now_ms: u64) -> Option<Told> {
    let sample = Sample {
        pid: 9,
        call: CallId {
            arch: 0xc000_003e,
            nr: 59,
        },
        args: [1, 2, 3, 4, 5, 6],
    };
    aggregate.add(Phase::Serving, true, Comm::new(b"sh"), sample, now_ms)
}

#[test]
fn every_event_is_a_line_and_the_log_is_appended_to() {
    let folder = tempfile::tempdir().expect("folder");
    let path = log_in(&folder);
    for _ in 0..2 {
        let (events, writer) = start(&path, Limits::default()).expect("started");
        events.tell("c1", numbered(7));
        let told = denial(&mut Aggregate::default(), 0).expect("told");
        events.offer("c2", told).expect("room");
        events.tell("", What::GateStopped);
        assert_eq!(events.lost(), 0);
        writer.finish();
    }
    let (lines, cut) = read(&path);
    let types: Vec<_> = lines.iter().map(|line| line["type"].as_str()).collect();
    let once = [Some("unsupervised"), Some("denied"), Some("gate_stopped")];
    assert_eq!((types, cut), ([once, once].concat(), 0));
    assert_eq!(
        (&lines[0]["container"], &lines[0]["v"]),
        (&"c1".into(), &1.into())
    );
    let denied = &lines[1];
    assert_eq!(
        (&denied["call"], &denied["arch"]),
        (&"execve".into(), &"x86_64".into())
    );
    assert_eq!(
        (&denied["process"], &denied["times"]),
        (&"sh".into(), &1.into())
    );
    assert_eq!(
        (&denied["phase"], &denied["enforced"]),
        (&"serving".into(), &true.into())
    );
}

#[test]
fn a_kind_without_room_of_its_own_has_no_name() {
    let told = |kind| Told {
        key: aggregate::Key {
            phase: Phase::Exec,
            enforced: false,
            kind,
        },
        last: Sample {
            pid: 1,
            call: CallId { arch: 7, nr: 999 },
            args: [0; 6],
        },
        times: 5,
    };
    let call = CallId { arch: 7, nr: 999 };
    for (kind, expected) in [
        (aggregate::Kind::Unnamed(call), ("…", "999")),
        (aggregate::Kind::Rest, ("…", "…")),
    ] {
        let What::Denied {
            process,
            call,
            arch,
            times,
            ..
        } = what(&told(kind))
        else {
            panic!("another event");
        };
        assert_eq!((process.as_str(), call.as_str()), expected);
        assert_eq!((arch.as_str(), times), ("0x7", 5));
    }
}

#[test]
fn a_full_queue_loses_events_says_so_and_gives_denials_back() {
    let folder = tempfile::tempdir().expect("folder");
    let path = log_in(&folder);
    // no writer yet
    let queue = Arc::new(Queue::default());
    let events = Events {
        queue: Arc::clone(&queue),
        watchers: broadcast::Sender::new(1),
    };
    let mut denials = Aggregate::default();
    let mut taken = 0;
    for now in 0..CAPACITY as u64 {
        // each in a window of its own
        let told = denial(&mut denials, now * 10_000).expect("told");
        match events.offer("c", told) {
            Ok(()) => taken += told.times,
            Err(told) => denials.give_back(told),
        }
    }
    assert_eq!(taken, FOR_DENIALS as u64);
    assert_eq!(taken + denials.held(), CAPACITY as u64);
    // what else happens still has room
    let others = CAPACITY - FOR_DENIALS + 5;
    for _ in 0..others {
        events.tell("c", numbered(1));
    }
    assert_eq!((events.lost(), events.waiting()), (5, CAPACITY));
    // and the end of a container too
    events.leave("c", denials.drain());
    assert_eq!((events.lost(), events.waiting()), (5, CAPACITY + 1));
    queue.close();
    write(&queue, Log::new(&path, Limits::default()));
    let (lines, cut) = read(&path);
    let times = lines.iter().filter_map(|line| line["times"].as_u64());
    assert_eq!((times.sum::<u64>(), cut), (CAPACITY as u64, 0));
    assert_eq!(pids(&lines).len() + 5, others);
    assert_eq!(lost(&lines), 5);
    // nobody reads what comes now
    events.tell("c", numbered(1));
    assert!(
        events
            .offer("c", denial(&mut Aggregate::default(), 0).expect("told"))
            .is_err()
    );
    assert_eq!(events.lost(), 6);
}

#[test]
fn watchers_see_what_was_taken_and_nothing_twice() {
    let folder = tempfile::tempdir().expect("folder");
    let (events, writer) = start(&log_in(&folder), Limits::default()).expect("started");
    let mut watcher = events.watch();
    let mut denials = Aggregate::default();
    let told = denial(&mut denials, 0).expect("told");
    events.offer("c", told).expect("room");
    writer.finish();
    // full for ever: given back, and not shown
    assert_eq!(events.offer("c", told), Err(told));
    events.tell("c", numbered(3));
    let seen = watcher.try_recv().expect("shown");
    assert!(matches!(seen.what, What::Denied { times: 1, .. }));
    assert_eq!(watcher.try_recv().map(|event| event.what), Ok(numbered(3)));
    assert!(watcher.try_recv().is_err());
}

#[test]
fn many_tell_at_once_while_the_log_turns_over_and_is_opened_again() {
    let folder = tempfile::tempdir().expect("folder");
    let path = log_in(&folder);
    let limits = Limits::new(16 * 1024, 100).expect("good");
    let (events, writer) = start(&path, limits).expect("started");
    let threads: Vec<_> = (0..4_u32)
        .map(|thread| {
            let events = events.clone();
            std::thread::spawn(move || {
                for number in 0..1500 {
                    events.tell("c", numbered(thread * 10_000 + number));
                    if number % 100 == 0 {
                        events.reopen();
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("ended");
    }
    writer.finish();
    assert_eq!(events.lost(), 0);
    let mut files = 0;
    let mut all = Vec::new();
    for number in (0..=100).rev() {
        let name = match number {
            0 => path.clone(),
            _ => format!("{}.{number}", path.display()).into(),
        };
        let (lines, cut) = read(&name);
        assert_eq!(cut, 0);
        files += usize::from(!lines.is_empty());
        assert!(name.metadata().map_or(0, |found| found.len()) <= 16 * 1024);
        all.extend(pids(&lines));
    }
    assert!(files > 10, "{files} files");
    // each teller's events in its order, over the files from the oldest to the newest
    for thread in 0..4 {
        let of: Vec<_> = all.iter().filter(|pid| **pid / 10_000 == thread).collect();
        assert!(of.is_sorted());
        assert_eq!(of.len(), 1500);
    }
}

#[test]
fn a_folder_that_is_removed_while_lines_come_is_made_again() {
    let folder = tempfile::tempdir().expect("folder");
    let path = log_in(&folder);
    let (events, writer) = start(&path, Limits::default()).expect("started");
    for number in 0..10 {
        events.tell("c", numbered(number));
        drained(&events);
        std::fs::remove_dir_all(folder.path().join("log")).expect("removed");
    }
    events.tell("c", numbered(10));
    writer.finish();
    let (lines, cut) = read(&path);
    // those before were written, and removed with their folder
    assert_eq!((pids(&lines), events.lost(), cut), (vec![10], 0, 0));
}

#[test]
fn what_cannot_be_written_waits_and_what_is_left_at_the_end_is_counted() {
    let folder = tempfile::tempdir().expect("folder");
    let path = log_in(&folder);
    // a file where the folder should be: also root cannot
    let blocker = folder.path().join("log");
    std::fs::write(&blocker, "").expect("written");
    let (events, writer) = start(&path, Limits::default()).expect("started all the same");
    for number in 0..5 {
        events.tell("c", numbered(number));
    }
    std::fs::remove_file(&blocker).expect("removed");
    drained(&events);
    assert_eq!(pids(&read(&path).0), [0, 1, 2, 3, 4]);
    std::fs::remove_dir_all(&blocker).expect("removed");
    std::fs::write(&blocker, "").expect("written");
    for number in 5..12 {
        events.tell("c", numbered(number));
    }
    writer.finish();
    assert_eq!(events.lost(), 7);

    let device = Path::new("/dev/full");
    let (events, writer) = start(device, Limits::default()).expect("started");
    events.tell("c", numbered(1));
    writer.finish();
    assert_eq!(events.lost(), 1);
}

#[test]
fn a_flood_of_many_threads_is_exact_though_the_disk_refuses_for_a_while() {
    const THREADS: u64 = 4;
    const EACH: u64 = 20_000;
    let folder = tempfile::tempdir().expect("folder");
    let path = log_in(&folder);
    let blocker = folder.path().join("log");
    std::fs::write(&blocker, "").expect("written");
    let (events, writer) =
        start(&path, Limits::new(256 * 1024, 100).expect("good")).expect("started");
    let container = std::sync::Mutex::new(Aggregate::default());
    let lock = || container.lock().expect("no panic under it");
    let offer = |told| {
        if let Err(told) = events.offer("c", told) {
            lock().give_back(told);
            return 1;
        }
        0
    };
    let refused: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let mut refused = 0;
                    for number in 0..EACH {
                        // some kinds come back within their window, most do not
                        let now_ms = number * 50;
                        let sample = Sample {
                            pid: 1,
                            call: CallId {
                                arch: 0xc000_003e,
                                nr: (number % 30) as u32,
                            },
                            args: [thread; 6],
                        };
                        let comm = Comm::new(format!("t{thread}").as_bytes());
                        let told = lock().add(Phase::Startup, true, comm, sample, now_ms);
                        refused += told.map_or(0, offer);
                        if number % 500 == 0 {
                            let due = lock().due(now_ms);
                            refused += due.into_iter().map(offer).sum::<u64>();
                        }
                    }
                    refused
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("ended"))
            .sum()
    });
    assert!(refused > 1000, "the queue was never full: {refused}");
    std::fs::remove_file(&blocker).expect("removed");
    // the end of the container, with the queue still full or not
    let last = lock().drain();
    events.leave("c", last);
    drained(&events);
    writer.finish();
    let mut times: std::collections::BTreeMap<(String, u64), u64> =
        std::collections::BTreeMap::new();
    for number in 0..=100 {
        let name = match number {
            0 => path.clone(),
            _ => format!("{}.{number}", path.display()).into(),
        };
        for line in read(&name).0 {
            let process = line["process"].as_str().expect("a denial").to_owned();
            let nr = line["nr"].as_u64().expect("a number");
            *times.entry((process, nr)).or_default() += line["times"].as_u64().expect("a number");
        }
    }
    assert_eq!(events.lost(), 0);
    // 4 × 30 kinds
    assert_eq!(times.len(), 120);
    assert_eq!(times.values().sum::<u64>(), THREADS * EACH);
    for (kind, times) in times {
        assert!(
            (EACH / 30..=EACH / 30 + 1).contains(&times),
            "{kind:?}: {times}"
        );
    }
}

#[test]
#[ignore = "a measurement; run it with --release and --nocapture"]
fn what_telling_costs() {
    let folder = tempfile::tempdir().expect("folder");
    let (events, writer) = start(&log_in(&folder), Limits::default()).expect("started");
    let mut denials = Aggregate::default();
    let rounds = FOR_DENIALS as u64;
    let began = std::time::Instant::now();
    for now in 0..rounds {
        let told = denial(&mut denials, now * 10_000).expect("told");
        events.offer("c", told).expect("room");
    }
    let told = began.elapsed() / FOR_DENIALS as u32;
    writer.finish();
    let written = began.elapsed() / FOR_DENIALS as u32;
    println!("{told:?} to tell, {written:?} until it is in the log");
}
