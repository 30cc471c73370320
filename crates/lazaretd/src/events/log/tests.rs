//! The log file against what can happen to it: size, crashes, a full disk, lost permissions, other programs.

use super::*;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// Where a test that runs again in a process of its own finds its folder.
const FOLDER: &str = "LAZARET_TEST_FOLDER";

fn small(keep: u32) -> Limits {
    Limits::new(MIN_BYTES, keep).expect("good")
}

/// A line of about 100 bytes with a number in front.
fn line(number: u32) -> Vec<u8> {
    format!("{number:06}{}", "x".repeat(94)).into_bytes()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The numbers of the whole lines in a file.
fn numbers(path: &Path) -> Vec<u32> {
    let text = text(path);
    let whole = text.lines().filter(|line| line.len() == 100);
    whole
        .map(|line| line[..6].parse().expect("a number"))
        .collect()
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    assert!(Limits::new(MIN_BYTES, 1).is_ok() && Limits::new(u64::MAX, MAX_KEEP).is_ok());
    let error = Limits::new(MIN_BYTES - 1, 1).expect_err("too small");
    assert_eq!(
        error.to_string(),
        "log-max-bytes is 4095, expected 4096 or more"
    );
    for keep in [0, MAX_KEEP + 1] {
        let error = Limits::new(MIN_BYTES, keep).expect_err("no such number");
        assert_eq!(error, LimitsError::Keep { found: keep });
    }
}

#[test]
fn the_log_is_turned_over_at_its_limit_and_the_oldest_goes() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("events.jsonl");
    let mut log = Log::new(&path, small(2));
    for number in 0..200 {
        log.append(&line(number)).expect("written");
    }
    let mut all = Vec::new();
    for old in [2, 1, 0] {
        let name = numbered(&path, old);
        assert!(name.metadata().expect("there").len() <= MIN_BYTES);
        assert_eq!(name.metadata().expect("there").mode() & 0o777, 0o600);
        all.extend(numbers(&name));
    }
    // 40 lines of 101 bytes each
    assert_eq!(all, Vec::from_iter(80..200));
    assert!(!numbered(&path, 3).exists());
    // the next daemon goes on with the same file
    let mut log = Log::new(&path, small(2));
    log.append(&line(200)).expect("written");
    assert_eq!(numbers(&numbered(&path, 2)), Vec::from_iter(120..160));
    assert_eq!(numbers(&path), [200]);
}

#[test]
fn a_line_larger_than_the_limit_is_written_all_the_same() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("events.jsonl");
    let mut log = Log::new(&path, small(3));
    let large = "y".repeat(10_000);
    for _ in 0..3 {
        log.append(large.as_bytes()).expect("written");
    }
    for old in 0..3 {
        assert_eq!(text(&numbered(&path, old)), format!("{large}\n"));
    }
}

/// Old files as a model: number → content.
type Model = BTreeMap<u32, u32>;

#[test]
fn a_crash_between_two_moves_loses_nothing_and_mixes_nothing_up() {
    const KEEP: u32 = 5;
    // every set of files that could be there
    for present in 0_u32..1 << KEEP {
        let mut before: Model = (1..=KEEP)
            .filter(|n| present & (1 << (n - 1)) != 0)
            .map(|n| (n, 1000 - n))
            .collect();
        before.insert(0, 1000);
        let steps = moves(|n| before.contains_key(&n), KEEP).count();
        for crash_after in 0..=steps {
            let mut files = before.clone();
            let turn_over = |files: &mut Model, limit: usize| {
                let taken = files.clone();
                for (from, to) in moves(|n| taken.contains_key(&n), KEEP).take(limit) {
                    let moved = files.remove(&from).expect("moves name what is there");
                    let full = taken.len() == KEEP as usize + 1;
                    let over = files.insert(to, moved);
                    assert!(over.is_none() || (full && to == KEEP), "{from} over {to}");
                }
            };
            turn_over(&mut files, crash_after);
            let expected =
                before.len() - usize::from(present == (1 << KEEP) - 1 && crash_after > 0);
            assert_eq!(files.len(), expected);
            // The next start writes into file 0, a new one when it had been moved; then the log turns over again.
            files.entry(0).or_insert(1001);
            turn_over(&mut files, usize::MAX);
            files.insert(0, 1002);
            // the newest first, none twice
            assert!(files.values().rev().is_sorted(), "{files:?}");
            let oldest_kept = before
                .values()
                .filter(|age| files.values().any(|kept| kept == *age));
            assert!(oldest_kept.count() + 2 > before.len().min(KEEP as usize));
        }
    }
}

#[test]
fn nothing_is_moved_over_a_file_that_appears_meanwhile() {
    let folder = tempfile::tempdir().expect("folder");
    let (from, to) = (folder.path().join("a"), folder.path().join("b"));
    std::fs::write(&from, "a").expect("written");
    std::fs::write(&to, "b").expect("written");
    let error = rename_to_free(&from, &to).expect_err("taken");
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!((text(&from).as_str(), text(&to).as_str()), ("a", "b"));
}

#[test]
fn a_line_that_a_crash_cut_is_ended_before_the_next() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("events.jsonl");
    std::fs::write(&path, "whole\n{\"cu").expect("written");
    Log::new(&path, small(1)).append(b"next").expect("written");
    assert_eq!(text(&path), "whole\n{\"cu\nnext\n");
    Log::new(&path, small(1)).append(b"last").expect("written");
    assert_eq!(text(&path), "whole\n{\"cu\nnext\nlast\n");
    // also where the next line goes into another file: whoever follows the log waits for a newline
    let full = "x".repeat(5000);
    std::fs::write(&path, &full).expect("written");
    Log::new(&path, small(1)).append(b"next").expect("written");
    assert_eq!(text(&numbered(&path, 1)), format!("{full}\n"));
    assert_eq!(text(&path), "next\n");
    let moved = folder.path().join("moved");
    std::fs::write(&path, "cut").expect("written");
    let mut log = Log::new(&path, small(1));
    log.reopen().expect("opened");
    std::fs::rename(&path, &moved).expect("moved");
    log.reopen().expect("opened");
    assert_eq!((text(&moved).as_str(), text(&path).as_str()), ("cut\n", ""));
}

#[test]
fn logrotate_may_move_the_file_and_nothing_is_moved_that_is_not_ours() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("events.jsonl");
    let moved = folder.path().join("moved");
    let mut log = Log::new(&path, small(2));
    log.append(&line(1)).expect("written");
    std::fs::rename(&path, &moved).expect("moved");
    // not told yet: still into the old one
    log.append(&line(2)).expect("written");
    assert_eq!(numbers(&moved), [1, 2]);
    log.reopen().expect("opened");
    log.append(&line(3)).expect("written");
    assert_eq!(numbers(&path), [3]);
    // somebody else's file at the path is neither moved nor overwritten when ours is full
    std::fs::rename(&path, &moved).expect("moved");
    std::fs::write(&path, "theirs\n").expect("written");
    for number in 0..50 {
        log.append(&line(number)).expect("written");
    }
    assert!(text(&path).starts_with("theirs\n"));
    assert!(!numbered(&path, 1).exists());
    assert_eq!(numbers(&moved).len() + numbers(&path).len(), 51);
}

#[test]
fn a_device_is_never_moved() {
    let mut log = Log::new(Path::new("/dev/null"), small(1));
    for number in 0..100 {
        log.append(&line(number)).expect("written");
    }
    assert!(!Path::new("/dev/null.1").exists());
    let mut full = Log::new(Path::new("/dev/full"), small(1));
    assert!(matches!(full.append(b"x"), Err(LogError::Write { .. })));
}

/// Runs one of the ignored tests below in a process of its own.
fn again(test: &str, folder: &Path, mut command: Command) {
    command.env(FOLDER, folder).stdin(Stdio::null());
    let output = command.output().expect("started");
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test}: {said}{failed}");
    assert!(
        said.contains("1 passed"),
        "{test} did not run: {said}{failed}"
    );
}

fn name_of(test: &str) -> [String; 4] {
    let name = format!(
        "{}::{test}",
        module_path!().split_once("::").expect("in a crate").1
    );
    [
        "--exact".into(),
        "--ignored".into(),
        "--nocapture".into(),
        name,
    ]
}

#[test]
fn a_full_disk_cuts_lines_and_loses_none_that_was_called_written() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP: mounting a small file system needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let mut command = Command::new("unshare");
    let script = format!("mount -t tmpfs -o size=64k none \"${FOLDER}\" && exec \"$0\" \"$@\"");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .arg(std::env::current_exe().expect("this program"))
        .args(name_of("on_a_small_disk"));
    again("on_a_small_disk", folder.path(), command);
}

#[test]
#[ignore = "run by a_full_disk_cuts_lines_and_loses_none_that_was_called_written, on a disk of 64 KiB"]
fn on_a_small_disk() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("given"));
    let path = folder.join("events.jsonl");
    // also turned over: the limits do not fit on this disk
    for limits in [Limits::default(), Limits::new(30_000, 4).expect("good")] {
        let mut log = Log::new(&path, limits);
        let ballast = folder.join("ballast");
        std::fs::write(&ballast, vec![0; 16 * 1024]).expect("written");
        let mut written = Vec::new();
        let mut refused = 0;
        // with many lengths, so that pages end inside of lines
        let long = |number: u32| format!("{number:06}{}", "z".repeat(100 + number as usize % 97));
        for number in 0..1000 {
            match log.append(long(number).as_bytes()) {
                Ok(()) => written.push(number),
                Err(error) => {
                    refused += 1;
                    let said = format!("{:#}", anyhow::Error::from(error));
                    assert!(said.contains("No space left on device"), "{said}");
                }
            }
            if number == 700 {
                std::fs::remove_file(&ballast).expect("removed");
            }
        }
        assert!(
            refused > 100 && written.len() > 200,
            "{refused} {}",
            written.len()
        );
        assert!(written.iter().any(|number| *number > 700), "never again");
        let mut there = Vec::new();
        let mut cut = 0;
        for old in (0..=4).rev() {
            for line in text(&numbered(&path, old)).lines() {
                let number = line.get(..6).and_then(|number| number.parse().ok());
                match number {
                    Some(number) if line == long(number) => there.push(number),
                    _ => cut += 1,
                }
            }
            // for the next round
            drop(std::fs::remove_file(numbered(&path, old)));
        }
        assert_eq!(there, written);
        assert!(cut > 0, "the test cut no line");
    }
    // all but the newline fits: the line is there, and said to be
    let ballast = folder.join("ballast");
    let mut log = Log::new(&path, Limits::default());
    log.append(&line(0)).expect("written");
    let fill = std::fs::write(&ballast, vec![0; 64 * 1024]);
    assert!(fill.is_err(), "the disk is larger than it should be");
    // of x86-64; a larger one of other machines leaves room for the whole line
    let page = 4096;
    let rest = "r".repeat(page - 101);
    log.append(rest.as_bytes()).expect("written");
    assert!(log.append(b"no room").is_err());
    std::fs::remove_file(&ballast).expect("removed");
    log.append(b"last").expect("written");
    let first = String::from_utf8(line(0)).expect("ASCII");
    assert_eq!(text(&path), format!("{first}\n{rest}\nlast\n"));
}

#[test]
fn permissions_that_are_lost_lose_no_line() {
    let folder = tempfile::tempdir().expect("folder");
    let exe = std::env::current_exe().expect("this program");
    let copied = folder.path().join("test");
    let mut command = Command::new(&copied);
    if rustix::process::geteuid().is_root() {
        // root may write everywhere; this user may execute only what it can reach
        std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).expect("given away");
        command.uid(65534).gid(65534);
    }
    if std::fs::hard_link(&exe, &copied).is_err() {
        std::fs::copy(&exe, &copied).expect("copied");
    }
    command.args(name_of("as_a_user"));
    again("as_a_user", folder.path(), command);
}

#[test]
#[ignore = "run by permissions_that_are_lost_lose_no_line, as a user who is not root"]
fn as_a_user() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("given")).join("log");
    let path = folder.join("events.jsonl");
    let mode = |mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&folder, permissions).expect("changed");
    };
    let mut log = Log::new(&path, small(3));
    log.append(&line(0)).expect("written");
    assert_eq!(folder.metadata().expect("there").mode() & 0o777, 0o700);
    // nothing can be made or moved: the log grows to twice its size, and then refuses
    mode(0o500);
    let mut written = 1;
    while log.append(&line(written)).is_ok() {
        written += 1;
        assert!(written < 1000, "without bound");
    }
    assert_eq!(numbers(&path), Vec::from_iter(0..written));
    assert!((MIN_BYTES..=2 * MIN_BYTES).contains(&path.metadata().expect("there").len()));
    let error = log.append(&line(written)).expect_err("full");
    assert!(matches!(error, LogError::TurnOver { .. }));
    mode(0o700);
    log.append(&line(written)).expect("written");
    assert_eq!(numbers(&path), [written]);
    assert_eq!(numbers(&numbered(&path, 1)), Vec::from_iter(0..written));
    // moved away, and the path cannot be made: still into the old one
    let moved = folder.join("moved");
    std::fs::rename(&path, &moved).expect("moved");
    mode(0o500);
    assert!(matches!(log.reopen(), Err(LogError::Open { .. })));
    log.append(&line(77)).expect("written");
    assert_eq!(numbers(&moved), [written, 77]);
    mode(0o700);
    log.reopen().expect("opened");
    log.append(&line(78)).expect("written");
    assert_eq!(numbers(&path), [78]);
    // removed, and the path cannot be made: refused, not written to where nobody reads
    std::fs::remove_file(&path).expect("removed");
    mode(0o500);
    assert!(matches!(log.append(&line(79)), Err(LogError::Open { .. })));
    mode(0o700);
    log.append(&line(79)).expect("written");
    assert_eq!(numbers(&path), [79]);
}

#[test]
fn a_writer_that_is_killed_again_and_again_loses_nothing_that_it_called_written() {
    use std::io::{BufRead as _, BufReader};
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("events.jsonl");
    let mut written = Vec::new();
    for round in 0..25_u32 {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(name_of("as_one_to_be_killed"))
            .env(FOLDER, folder.path())
            .env(ROUND, round.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        // not always at the same place
        let until = 60 + 17 * round as usize;
        let mut lines = output.lines().map_while(Result::ok);
        let said: Vec<u32> = lines
            .by_ref()
            .filter_map(|line| line.strip_prefix("written ")?.parse().ok())
            .take(until)
            .collect();
        assert_eq!(said.len(), until);
        child.kill().expect("killed");
        written.extend(said);
        // what it said between the last line that was read and its end
        written.extend(lines.filter_map(|line| line.strip_prefix("written ")?.parse::<u32>().ok()));
        child.wait().expect("ended");
    }
    let files = (0..=MAX_KEEP).rev().map(|old| numbered(&path, old));
    let there: Vec<u32> = files.flat_map(|name| numbers(&name)).collect();
    // in order, none twice; at most the one line of each round whose word was cut off is more
    assert!(there.is_sorted_by(|one, next| one < next));
    let missing = written
        .iter()
        .filter(|number| there.binary_search(number).is_err());
    assert_eq!(missing.count(), 0);
    assert!((written.len()..=written.len() + 25).contains(&there.len()));
    assert!(numbered(&path, 5).exists(), "hardly turned over");
}

/// Which time a writer is started.
const ROUND: &str = "LAZARET_TEST_ROUND";

#[test]
#[ignore = "run by a_writer_that_is_killed_again_and_again_loses_nothing_that_it_called_written"]
fn as_one_to_be_killed() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("given"));
    let round: u32 = std::env::var(ROUND)
        .expect("given")
        .parse()
        .expect("a number");
    let mut log = Log::new(
        &folder.join("events.jsonl"),
        Limits::new(60_000, MAX_KEEP).expect("good"),
    );
    // so many that 25 rounds fit into the files that are kept
    for number in round * 10_000..round * 10_000 + 2000 {
        log.append(&line(number)).expect("written");
        // one write, as a whole or not at all
        let said = format!("written {number}\n");
        io::stdout().write_all(said.as_bytes()).expect("said");
    }
    loop {
        std::thread::park();
    }
}
