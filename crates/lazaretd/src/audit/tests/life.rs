//! What the export goes through: restarts, crashes, full disks, floods, clocks.

use super::super::queue::Queue;
use super::super::{AuditError, QueueError};
use super::fake::{Fake, Scenario};
use super::stage::{QUICK, SMALL, Stage, recorded, stop, wait};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Several batches of the largest size fit, and the test's events do not.
const FILLED: u64 = 512 << 10;

fn times(fake: &Fake, container: &str) -> Vec<String> {
    recorded(fake, container)
}

fn instants(times: impl IntoIterator<Item = u64>) -> Vec<String> {
    times
        .into_iter()
        .map(|ms| format!("1970-01-01T00:00:00.{ms:03}Z"))
        .collect()
}

#[test]
fn a_restart_goes_on_and_sends_nothing_twice() {
    let fake = Fake::start(Scenario::Correct);
    let stage = Stage::new(&fake);
    stage.events("c", 0..250);
    let export = stage.export();
    wait(&export, "all posted", |m| m.posted == 250);
    stop(export);
    stage.events("c", 250..300);
    let export = stage.export();
    wait(&export, "the rest posted", |m| m.posted == 50);
    let metrics = wait(&export, "nothing left", |m| m.queued_files == 0);
    assert_eq!((metrics.dropped, metrics.rejected, metrics.gaps), (0, 0, 0));
    assert!(metrics.last_success_ms.is_some() && metrics.failing.is_none());
    assert_eq!(times(&fake, "c"), instants(0..300));
    assert_eq!(fake.state().puts, 300);
    assert_eq!(fake.state().most_open, 1);
    stop(export);
}

#[test]
fn a_clock_that_jumps_changes_nothing() {
    let fake = Fake::start(Scenario::Correct);
    let stage = Stage::new(&fake);
    stage.events("c", [500, 400, 999, 400, 400, 0]);
    let export = stage.export();
    wait(&export, "all posted", |m| m.posted == 6);
    assert_eq!(times(&fake, "c"), instants([500, 400, 999, 400, 400, 0]));
    stop(export);
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").args([from, to]).status();
    assert!(status.expect("cp runs").success());
}

#[test]
fn a_crash_between_post_and_removal_sends_the_same_again() {
    let fake = Fake::start(Scenario::Correct);
    let stage = Stage::new(&fake);
    stage.events("c", 0..100);
    let (queue, crashed) = (stage.settings.queue.clone(), stage.path("crashed"));
    let to = crashed.clone();
    // The server has the batch, the node does not know it yet: what a crash would leave.
    fake.when_taken(move || copy(&queue, &to));
    let export = stage.export();
    wait(&export, "all posted", |m| m.posted == 100);
    stop(export);
    assert_eq!(fake.state().puts, 100);

    let mut settings = stage.settings.clone();
    settings.queue = crashed;
    stage.events("c", 100..110);
    let export = stage.export_of(&settings);
    wait(&export, "posted again", |m| m.posted == 110);
    let state = fake.state();
    assert_eq!((state.puts, state.stored.len()), (210, 110));
    drop(state);
    assert_eq!(times(&fake, "c"), instants(0..110));
    stop(export);
}

#[test]
fn a_lost_queue_makes_the_same_resources_of_the_log() {
    let fake = Fake::start(Scenario::Correct);
    let stage = Stage::new(&fake);
    stage.events("c", 0..20);
    let export = stage.export();
    wait(&export, "posted", |m| m.posted == 20);
    stop(export);
    std::fs::remove_dir_all(&stage.settings.queue).expect("removed");
    let export = stage.export();
    wait(&export, "posted again", |m| m.posted == 20);
    assert_eq!(fake.state().stored.len(), 20);
    stop(export);
}

#[test]
fn a_full_queue_drops_the_oldest_counts_them_and_says_so() {
    let fake = Fake::start(Scenario::Answers(503, None));
    let mut stage = Stage::new(&fake);
    stage.settings.max_bytes = FILLED;
    let total = 1200;
    let export = stage.export();
    // in pieces, so that there are many batches
    for piece in 0..total / 20 {
        stage.events("c", piece * 20..piece * 20 + 20);
        wait(&export, "read", |m| {
            m.dropped + m.queued_events >= (piece + 1) * 20
        });
        let metrics = export.metrics();
        assert!(metrics.queued_bytes <= FILLED, "{metrics:?}");
    }
    let metrics = wait(&export, "full", |m| m.dropped > 0);
    assert!(metrics.failing.is_some());
    fake.behave(Scenario::Correct);
    // The loss is told by an event, which arrives as well. It may be told before and after the last of them.
    let told = |fake: &Fake| {
        let state = fake.state();
        let lost = |r: &&serde_json::Value| r["subtype"][0]["code"] == "audit-lost";
        let details = state
            .stored
            .values()
            .filter(lost)
            .map(|r| r["entity"][0]["detail"].clone());
        details.collect::<Vec<_>>()
    };
    let metrics = wait(&export, "told", |m| {
        let exact = json!({"type": "dropped", "valueString": m.dropped.to_string()});
        m.queued_files == 0
            && told(&fake)
                .iter()
                .any(|d| d.as_array().is_some_and(|d| d.contains(&exact)))
    });
    let arrived = times(&fake, "c").len() as u64;
    let own = fake.state().stored.len() as u64 - arrived;
    // Of those told meanwhile some were dropped themselves.
    let written = std::fs::read_to_string(stage.log())
        .expect("the log")
        .lines()
        .count() as u64;
    assert_eq!(arrived + own + metrics.dropped, written, "exact");
    assert!(written > total && arrived < total);
    // The newest are there.
    assert_eq!(
        times(&fake, "c").last().expect("some"),
        "1970-01-01T00:00:01.199Z"
    );
    stop(export);
}

#[test]
fn a_log_that_was_turned_over_unread_is_told_as_a_gap() {
    let fake = Fake::start(Scenario::Correct);
    let stage = Stage::new(&fake);
    stage.events("c", 0..5);
    let export = stage.export();
    wait(&export, "posted", |m| m.posted == 5);
    stop(export);
    std::fs::remove_file(stage.log()).expect("removed");
    stage.events("c", 10..15);
    let export = stage.export();
    wait(&export, "posted and told", |m| m.gaps == 1 && m.posted == 6);
    stop(export);
    let export = stage.export();
    stage.events("c", 20..21);
    wait(&export, "posted", |m| m.posted == 1);
    assert_eq!(export.metrics().gaps, 1, "counted once");
    stop(export);
}

#[test]
fn lines_below_the_cursor_arrive_after_a_power_failure() {
    let fake = Fake::start(Scenario::Correct);
    let stage = Stage::new(&fake);
    stage.events("c", 0..5);
    let export = stage.export();
    wait(&export, "posted", |m| m.posted == 5);
    stop(export);
    let text = std::fs::read_to_string(stage.log()).expect("a log");
    let kept: usize = text.split_inclusive('\n').take(3).map(str::len).sum();
    std::fs::write(stage.log(), &text[..kept]).expect("cut");
    stage.events("d", 10..12);
    let export = stage.export();
    // the loss itself is told in the log, and arrives too
    wait(&export, "posted and told", |m| m.gaps == 1 && m.posted == 6);
    assert_eq!(times(&fake, "d").len(), 2);
    assert_eq!(times(&fake, "c").len(), 5, "no duplicates on the server");
    stop(export);
}

#[test]
fn only_one_process_exports() {
    let fake = Fake::start(Scenario::Correct);
    let stage = Stage::new(&fake);
    let export = stage.export();
    let second = super::super::spawn_at(QUICK, &stage.settings, &stage.log(), |_| {});
    assert!(matches!(
        second,
        Err(AuditError::Queue(QueueError::Locked { .. }))
    ));
    stop(export);
}

/// A queue with three batches of four.
fn queue(folder: &Path) -> Queue {
    let mut queue = Queue::open(folder, SMALL).expect("opened");
    for batch in 0..3 {
        let entries = (0..4)
            .map(|n| json!({"id": format!("{batch}-{n}")}))
            .collect();
        queue.push(entries, None).expect("pushed");
    }
    queue
}

fn ids(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[test]
fn a_batch_can_be_settled_in_part_and_the_rest_comes_last() {
    let folder = tempfile::tempdir().expect("folder");
    let mut queue = queue(folder.path());
    let (name, _) = queue.take().expect("read").expect("one");
    queue
        .settle(name, ids(&["0-0"]), ids(&["0-2"]))
        .expect("settled");
    assert_eq!((queue.filling().events, queue.counts().rejected), (10, 1));
    for expected in ["1-0", "2-0", "0-1"] {
        let (name, entries) = queue.take().expect("read").expect("one");
        assert_eq!(entries[0]["id"], expected);
        if expected == "0-1" {
            assert_eq!(entries.len(), 2);
        }
        queue.delivered(name).expect("removed");
    }
    assert!(queue.take().expect("read").is_none());
    let rejected = std::fs::read_dir(folder.path().join("rejected")).expect("a folder");
    assert_eq!(rejected.count(), 1);
}

#[test]
fn a_batch_of_which_nothing_is_settled_stays_and_comes_last() {
    let folder = tempfile::tempdir().expect("folder");
    let mut queue = queue(folder.path());
    let (name, _) = queue.take().expect("read").expect("one");
    queue.settle(name, ids(&[]), ids(&[])).expect("settled");
    drop(queue);
    let mut queue = Queue::open(folder.path(), SMALL).expect("opened");
    assert_eq!(queue.filling().events, 12);
    assert_eq!(queue.take().expect("read").expect("one").1[0]["id"], "0-0");
}

#[test]
fn a_step_that_was_counted_and_not_done_is_done_at_the_next_start_and_counted_once() {
    for (step, dropped, rejected, events) in [
        (json!({"drop": {"name": {"seq": 0, "count": 4}}}), 4, 0, 8),
        (
            json!({"settle": {"name": {"seq": 0, "count": 4}, "delivered": ["0-0"], "rejected": ["0-1", "0-2"]}}),
            0,
            2,
            9,
        ),
    ] {
        let folder = tempfile::tempdir().expect("folder");
        drop(queue(folder.path()));
        let path = folder.path().join("state.json");
        let text = std::fs::read(&path).expect("a state");
        let mut state: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        state["step"] = step;
        state["counts"] = json!({"dropped": dropped, "rejected": rejected, "gaps": 0});
        std::fs::write(&path, state.to_string()).expect("written");
        for _ in 0..2 {
            let queue = Queue::open(folder.path(), SMALL).expect("opened");
            let counts = queue.counts();
            assert_eq!((counts.dropped, counts.rejected), (dropped, rejected));
            assert_eq!(queue.filling().events, events);
        }
    }
}

#[test]
fn a_batch_written_before_the_state_is_found() {
    let folder = tempfile::tempdir().expect("folder");
    let state = folder.path().join("state.json");
    let mut queue = queue(folder.path());
    let before = std::fs::read(&state).expect("a state");
    let cursor = super::super::follow::Cursor {
        log: [1; 32],
        offset: 77,
        last: None,
    };
    queue
        .push(vec![json!({"id": "x"})], Some(cursor))
        .expect("pushed");
    drop(queue);
    std::fs::write(&state, before).expect("written");
    std::fs::write(folder.path().join("pending/half.tmp"), "{").expect("written");
    let mut queue = Queue::open(folder.path(), SMALL).expect("opened");
    assert_eq!(queue.cursor(), Some(cursor));
    assert!(!folder.path().join("pending/half.tmp").exists());
    queue.push(vec![json!({"id": "y"})], None).expect("pushed");
    assert_eq!(queue.filling().files, 5);
}

#[test]
fn a_batch_that_is_being_posted_is_not_dropped() {
    let folder = tempfile::tempdir().expect("folder");
    let mut queue = Queue::open(folder.path(), 8192).expect("opened");
    queue.push(vec![json!({"id": "a"})], None).expect("pushed");
    queue.push(vec![json!({"id": "b"})], None).expect("pushed");
    let (name, _) = queue.take().expect("read").expect("one");
    queue.push(vec![json!({"id": "c"})], None).expect("pushed");
    assert_eq!(queue.counts().dropped, 1);
    queue.delivered(name).expect("there");
    assert_eq!(queue.take().expect("read").expect("one").1[0]["id"], "c");
    let big = vec![json!({"id": "d", "text": "x".repeat(9000)})];
    assert!(matches!(
        queue.push(big, None),
        Err(QueueError::Full { .. })
    ));
    assert_eq!(queue.counts().dropped, 1, "not for one that cannot fit");
}
