//! Reads the event log from where it was left, over turns of the log and restarts.
//!
//! A log file is known by the SHA-256 of its first line, which neither a rename nor a copy changes; a place is that and a byte.
//! After a power failure a file may be shorter than what was read of it, or have other lines there: it is known by the line that was
//! read last, and read from its beginning then. What had arrived already has the same ids.
//! The log's writer turns `LOG` over to `LOG.1`, that to `LOG.2` and so on; each of them is read to its end before the next.
//! It never writes, and never waits for the writer.

use lazaret_core::event::Event;
use lazaret_fhir::audit::Place;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Bytes of a line; a longer one is no event of ours.
const MAX_LINE: u64 = 1 << 20;

/// Bytes that are read in one step, at least when there are as many.
const STEP: u64 = 4 << 20;

/// Up to where the log was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cursor {
    /// SHA-256 of the file's first line.
    pub(super) log: [u8; 32],
    /// The byte at which the next line begins.
    pub(super) offset: u64,
    /// The line before it; none at the beginning of the file.
    #[serde(default)]
    pub(super) last: Option<Last>,
}

impl Cursor {
    /// The beginning of a file.
    const fn begin(log: [u8; 32]) -> Cursor {
        Cursor {
            log,
            offset: 0,
            last: None,
        }
    }

    /// The place of the line that begins here.
    pub(super) const fn place(&self) -> Place {
        Place {
            log: self.log,
            offset: self.offset,
        }
    }
}

/// A line that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Last {
    /// The byte at which it begins.
    pub(super) begin: u64,
    /// SHA-256 of it, with its end.
    pub(super) digest: [u8; 32],
}

/// What one step found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Events in the order of the log, each with where it stands.
    pub(super) events: Vec<(Event, Cursor)>,
    /// Where to go on after all of them.
    pub(super) cursor: Option<Cursor>,
    /// Where the first of them stands, when there is a gap before it.
    pub(super) start: Option<Cursor>,
    /// The file in which the last step ended is gone, or is not what it was: what it had besides is not known.
    pub(super) gap: bool,
    /// Lines that are no events: cut by a full disk, or of another version.
    pub(super) unreadable: u64,
}

/// One file of the log.
struct Generation {
    file: File,
    log: [u8; 32],
}

/// Reads on after `cursor`, at most `max` events. With no cursor it begins with the oldest file.
///
/// # Errors
/// When a file cannot be read; nothing is known then.
pub(super) fn read(log: &Path, cursor: Option<Cursor>, max: usize) -> io::Result<Found> {
    let generations = generations(log)?;
    let mut found = Found {
        cursor,
        ..Found::default()
    };
    let mut first = 0;
    let mut from = None;
    if let Some(cursor) = cursor {
        // Of several alike the newest: it was written last.
        let at = generations.iter().rposition(|g| g.log == cursor.log);
        first = at.unwrap_or(0);
        let generation = generations.get(first);
        from = match generation {
            Some(generation) if at.is_some() && goes_on(&generation.file, cursor)? => Some(cursor),
            _ => None,
        };
        if from.is_none()
            && let Some(generation) = generation
        {
            found.gap = true;
            found.start = Some(Cursor::begin(generation.log));
        }
    }
    let mut left = STEP;
    for generation in generations.into_iter().skip(first) {
        let from = from.take().unwrap_or(Cursor::begin(generation.log));
        let read = lines(generation.file, from, max, left, &mut found)?;
        left = left.saturating_sub(read);
        if left == 0 || found.events.len() >= max {
            break;
        }
    }
    Ok(found)
}

/// Whether the line that was read last stands where it stood.
fn goes_on(file: &File, cursor: Cursor) -> io::Result<bool> {
    let Some(last) = cursor.last else {
        return Ok(cursor.offset == 0);
    };
    let mut line = Vec::new();
    let mut input = file;
    input.seek(SeekFrom::Start(last.begin))?;
    let length = cursor.offset.saturating_sub(last.begin);
    io::Read::read_to_end(&mut io::Read::take(input, length.min(MAX_LINE)), &mut line)?;
    Ok(line.len() as u64 == length && <[u8; 32]>::from(Sha256::digest(&line)) == last.digest)
}

/// Takes whole lines of one file; how many bytes they are.
fn lines(file: File, start: Cursor, max: usize, left: u64, found: &mut Found) -> io::Result<u64> {
    let mut cursor = start;
    let mut input = BufReader::new(file);
    input.seek(SeekFrom::Start(start.offset))?;
    let mut line = Vec::new();
    while found.events.len() < max && cursor.offset.saturating_sub(start.offset) < left {
        line.clear();
        let read = io::Read::take(&mut input, MAX_LINE).read_until(b'\n', &mut line)?;
        let whole = line.last() == Some(&b'\n');
        if !whole && read as u64 != MAX_LINE {
            // The writer is in the middle of it, or the log ends here.
            break;
        }
        match serde_json::from_slice::<Event>(&line) {
            Ok(event) if whole => found.events.push((event, cursor)),
            _ if line.trim_ascii().is_empty() => {}
            _ => found.unreadable = found.unreadable.saturating_add(1),
        }
        cursor = Cursor {
            log: start.log,
            // A file's length fits 64 bits.
            offset: cursor.offset.saturating_add(read as u64),
            last: Some(Last {
                begin: cursor.offset,
                digest: Sha256::digest(&line).into(),
            }),
        };
    }
    found.cursor = Some(cursor);
    Ok(cursor.offset.saturating_sub(start.offset))
}

/// How often the files are looked at again when the log is turned over meanwhile.
const ATTEMPTS: usize = 20;

/// A file of the log by its name, with the device and number that say which one it is.
type Stamp = (PathBuf, (u64, u64));

/// The files of the log that have a whole first line, oldest first.
///
/// A turn of the log renames them one by one. Only a look during which nothing was renamed counts, or a file could be missed.
///
/// # Errors
/// A file cannot be read, or the log is turned over all the time.
fn generations(log: &Path) -> io::Result<Vec<Generation>> {
    for _ in 0..ATTEMPTS {
        let stamps = stamps(log)?;
        let found = open(&stamps)?;
        if self::stamps(log)? == stamps {
            return Ok(found);
        }
    }
    Err(io::Error::other("it is being turned over all the time"))
}

fn stamps(log: &Path) -> io::Result<Vec<Stamp>> {
    let mut found = Vec::new();
    for path in [log.to_owned()].into_iter().chain(older(log)?) {
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => {
                let metadata = other?;
                found.push((path, (metadata.dev(), metadata.ino())));
            }
        }
    }
    Ok(found)
}

/// Opens them, the last one first.
fn open(stamps: &[Stamp]) -> io::Result<Vec<Generation>> {
    let mut found = Vec::new();
    for (path, _) in stamps.iter().rev() {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let mut first = Vec::new();
        io::Read::take(&mut BufReader::new(&mut file), MAX_LINE).read_until(b'\n', &mut first)?;
        if first.last() == Some(&b'\n') {
            let log = Sha256::digest(&first).into();
            found.push(Generation { file, log });
        }
    }
    Ok(found)
}

/// `LOG.1`, `LOG.2` …, as far as there are any, in this order.
fn older(log: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name()) else {
        return Ok(Vec::new());
    };
    let mut prefix = OsString::from(name);
    prefix.push(".");
    let entries = match std::fs::read_dir(folder) {
        // the log's folder is gone: nothing is there to be read
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut numbered = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let number = name
            .strip_prefix(&*prefix.to_string_lossy())
            .and_then(|rest| rest.parse::<u32>().ok());
        numbered.extend(number.map(|number| (number, path.clone())));
    }
    numbered.sort();
    Ok(numbered.into_iter().map(|(_, path)| path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lazaret_core::event::What;
    use std::io::Write as _;

    const ALL: usize = usize::MAX;

    fn line(number: u32) -> String {
        let event = Event {
            v: 1,
            time_ms: u64::from(number),
            container: String::new(),
            what: What::Unsupervised { pid: number },
        };
        format!("{}\n", serde_json::to_string(&event).expect("plain data"))
    }

    fn append(path: &Path, text: &str) {
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(path)
            .expect("opened");
        file.write_all(text.as_bytes()).expect("written");
    }

    fn numbers(found: &Found) -> Vec<u64> {
        found
            .events
            .iter()
            .map(|(event, _)| event.time_ms)
            .collect()
    }

    fn turn_over(log: &Path, kept: u32) {
        let name = |number: u32| PathBuf::from(format!("{}.{number}", log.display()));
        for number in (1..kept).rev() {
            std::fs::rename(name(number), name(number + 1)).ok();
        }
        std::fs::rename(log, name(1)).expect("turned over");
    }

    #[test]
    fn goes_on_where_it_was_left() {
        let folder = tempfile::tempdir().expect("folder");
        let log = folder.path().join("events.jsonl");
        assert!(read(&log, None, ALL).expect("no log yet").cursor.is_none());
        append(&log, &line(1));
        append(&log, &line(2));
        let first = read(&log, None, 1).expect("read");
        assert_eq!(numbers(&first), [1]);
        let second = read(&log, first.cursor, ALL).expect("read");
        assert_eq!(numbers(&second), [2]);
        assert_ne!(first.events[0].1.place(), second.events[0].1.place());
        // half a line waits for its other half
        let (half, rest) = (&line(3)[..20], &line(3)[20..]);
        append(&log, half);
        let none = read(&log, second.cursor, ALL).expect("read");
        assert_eq!((numbers(&none), none.cursor), (vec![], second.cursor));
        append(&log, rest);
        assert_eq!(numbers(&read(&log, none.cursor, ALL).expect("read")), [3]);
    }

    #[test]
    fn turns_of_the_log_lose_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let log = folder.path().join("events.jsonl");
        for number in 1..=3 {
            append(&log, &line(number));
        }
        let read_one = read(&log, None, 1).expect("read");
        for number in 4..=6 {
            turn_over(&log, 9);
            append(&log, &line(number));
        }
        let rest = read(&log, read_one.cursor, ALL).expect("read");
        assert_eq!((numbers(&rest), rest.gap), (vec![2, 3, 4, 5, 6], false));
        assert_eq!(
            numbers(&read(&log, rest.cursor, ALL).expect("read")),
            [0; 0]
        );
        // turned over, and the next file is not there yet
        append(&log, &line(7));
        turn_over(&log, 9);
        let seventh = read(&log, rest.cursor, ALL).expect("read");
        assert_eq!(numbers(&seventh), [7]);
        append(&log, &line(8));
        assert_eq!(
            numbers(&read(&log, seventh.cursor, ALL).expect("read")),
            [8]
        );
    }

    #[test]
    fn a_log_that_is_turned_over_meanwhile_is_read_once_and_whole() {
        let folder = tempfile::tempdir().expect("folder");
        let log = folder.path().join("events.jsonl");
        let total = 400;
        append(&log, &line(0));
        let path = log.clone();
        let writer = std::thread::spawn(move || {
            for number in 1..total {
                if number % 4 == 0 {
                    turn_over(&path, 200);
                }
                append(&path, &line(number));
            }
        });
        let (mut seen, mut cursor) = (Vec::new(), None);
        while seen.len() < total as usize {
            let ended = writer.is_finished();
            // an error is tried again at the next look, as the reader does
            let Ok(found) = read(&log, cursor, 7) else {
                continue;
            };
            assert!(!found.gap, "after {}", seen.len());
            assert!(!ended || !found.events.is_empty(), "after {}", seen.len());
            seen.extend(numbers(&found));
            cursor = found.cursor;
        }
        writer.join().expect("written");
        assert_eq!(seen, (0..u64::from(total)).collect::<Vec<_>>());
    }

    #[test]
    fn a_file_that_is_gone_is_a_gap() {
        let folder = tempfile::tempdir().expect("folder");
        let log = folder.path().join("events.jsonl");
        append(&log, &line(1));
        let first = read(&log, None, ALL).expect("read");
        std::fs::remove_file(&log).expect("removed");
        let nothing = read(&log, first.cursor, ALL).expect("read");
        assert!(!nothing.gap && nothing.cursor == first.cursor);
        append(&log, &line(2));
        let after = read(&log, first.cursor, ALL).expect("read");
        assert_eq!((numbers(&after), after.gap), (vec![2], true));
        assert!(!read(&log, after.cursor, ALL).expect("read").gap);
    }

    /// A power failure takes back what was written last; what is written then stands below the cursor.
    #[test]
    fn a_file_that_is_shorter_or_other_than_it_was_is_read_again() {
        let folder = tempfile::tempdir().expect("folder");
        let log = folder.path().join("events.jsonl");
        let text = |numbers: &[u32]| numbers.iter().copied().map(line).collect::<String>();
        let write = |numbers: &[u32]| std::fs::write(&log, text(numbers)).expect("written");
        write(&[1, 2, 3, 4]);
        let before = read(&log, None, ALL).expect("read");
        let go_on = || {
            let found = read(&log, before.cursor, ALL).expect("read");
            if found.gap {
                let start = found.start.expect("a gap is counted with where it goes on");
                assert_eq!((start.offset, start.last), (0, None));
            }
            (numbers(&found), found.gap, found.cursor)
        };
        // as it was
        assert_eq!(go_on(), (vec![], false, before.cursor));
        // shorter, also in the middle of a line
        write(&[1, 2]);
        assert_eq!((go_on().0, go_on().1), (vec![1, 2], true));
        std::fs::write(&log, &text(&[1, 2, 3])[..text(&[1, 2]).len() + 9]).expect("written");
        assert_eq!((go_on().0, go_on().1), (vec![1, 2], true));
        // shorter, and written on up to the very byte and over it
        write(&[1, 2, 5, 6]);
        assert_eq!((go_on().0, go_on().1), (vec![1, 2, 5, 6], true));
        write(&[1, 2, 5, 6, 7]);
        let (found, gap, cursor) = go_on();
        assert_eq!((found, gap), (vec![1, 2, 5, 6, 7], true));
        // longer lines: the cursor is in the middle of one
        write(&[1, 2, 100_000, 6, 7]);
        assert_eq!((go_on().0, go_on().1), (vec![1, 2, 100_000, 6, 7], true));
        // what had arrived arrives under the same place
        let again = read(&log, before.cursor, ALL).expect("read");
        let places = |found: &Found| {
            let places = found.events.iter().map(|(_, cursor)| cursor.place());
            places.take(2).collect::<Vec<_>>()
        };
        assert_eq!(places(&again), places(&before));
        // told once
        write(&[1, 2, 5, 6, 7, 8]);
        let once = read(&log, cursor, ALL).expect("read");
        assert_eq!((numbers(&once), once.gap), (vec![8], false));
        // an older file that was cut, and what came after it
        write(&[1, 2]);
        turn_over(&log, 9);
        append(&log, &line(9));
        assert_eq!((go_on().0, go_on().1), (vec![1, 2, 9], true));
    }

    #[test]
    fn lines_that_are_no_events_are_counted() {
        let folder = tempfile::tempdir().expect("folder");
        let log = folder.path().join("events.jsonl");
        append(&log, &format!("{}{{\"v\":1,\n\n", line(1)));
        append(&log, &"x".repeat(3 << 20));
        append(&log, &format!("\n{}", line(2)));
        let found = read(&log, None, ALL).expect("read");
        assert_eq!(numbers(&found), [1, 2]);
        assert!(found.unreadable >= 2, "{}", found.unreadable);
    }
}
