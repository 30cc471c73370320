//! Denials from event logs of the gate, as it wrote and rotated them.
//!
//! A crash may cut a line: such lines are left out and told. A file that does not begin with an event is no log.

use super::{Kind, Kinds};
use crate::exit::{Exit, OrExit, Outcome, fail};
use crate::utc;
use anyhow::Context as _;
use lazaret_core::event::{Event, What};
use lazaret_core::policy::Policy;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

/// The longest line, in bytes with its newline.
const MAX_LINE: u64 = 1 << 20;

/// The most containers that are told apart.
const MAX_CONTAINERS: usize = 1 << 20;

/// What the logs say, before it is known whose it is.
#[derive(Default)]
struct Logs {
    /// Container → digests of its image's admissions.
    images: BTreeMap<String, String>,
    denials: BTreeMap<String, Kinds>,
    notes: Vec<String>,
}

/// Denials of containers whose image the policy names, or of the one whose id begins so; and what has to be told.
pub(super) fn read(
    files: &[PathBuf],
    policy: &Policy,
    container: Option<&str>,
) -> Outcome<(Kinds, Vec<String>)> {
    let mut logs = Logs::default();
    for path in files {
        logs.file(path)?;
    }
    let Logs {
        images,
        denials,
        mut notes,
    } = logs;
    if let Some(begin) = container {
        one(denials.keys().chain(images.keys()), begin)?;
    }
    let mut kinds = Kinds::default();
    let mut unknown: u64 = 0;
    for (id, denied) in denials {
        let ours = match (container, images.get(&id)) {
            (Some(begin), _) => id.starts_with(begin),
            (None, Some(image)) => policy
                .image_digests()
                .iter()
                .any(|digest| digest.to_string() == *image),
            (None, None) => {
                let times = denied.0.values().map(|seen| seen.times);
                unknown = times.fold(unknown, u64::saturating_add);
                false
            }
        };
        if ours {
            for (kind, seen) in denied.0 {
                let mut times = seen.times;
                // the first set of arguments carries the count, the others none
                for args in seen.args {
                    kinds.add(kind.clone(), times, args, &seen.since);
                    times = 0;
                }
            }
        }
    }
    if unknown > 0 {
        notes.push(format!(
            "{unknown} denials left out: of containers whose start is not in these logs (give the logs before, or --container)"
        ));
    }
    Ok((kinds, notes))
}

/// The one id that begins so.
fn one<'i>(ids: impl Iterator<Item = &'i String>, begin: &str) -> Outcome<()> {
    let found: BTreeSet<&String> = ids.filter(|id| id.starts_with(begin)).collect();
    match found.len() {
        1 => Ok(()),
        0 => fail(
            Exit::Usage,
            format!("no container in these logs has an id that begins with `{begin}`"),
        ),
        several => fail(
            Exit::Usage,
            format!("{several} containers in these logs have ids that begin with `{begin}`"),
        ),
    }
}

impl Logs {
    fn file(&mut self, path: &Path) -> Outcome<()> {
        let shown = path.display();
        let file = File::open(path)
            .with_context(|| format!("cannot open event log `{shown}`"))
            .or_exit(Exit::Usage)?;
        let mut lines = BufReader::new(file);
        let mut bad: Vec<u64> = Vec::new();
        let mut number: u64 = 0;
        loop {
            let mut line = Vec::new();
            let mut bounded = (&mut lines).take(MAX_LINE);
            bounded
                .read_until(b'\n', &mut line)
                .with_context(|| format!("cannot read event log `{shown}`"))
                .or_exit(Exit::Usage)?;
            if line.is_empty() {
                break;
            }
            number += 1;
            // at most MAX_LINE bytes, which fit
            let whole = line.ends_with(b"\n");
            if !whole && line.len() as u64 == MAX_LINE {
                return fail(
                    Exit::Usage,
                    format!("event log `{shown}`: line {number} is longer than {MAX_LINE} bytes"),
                );
            }
            match serde_json::from_slice::<Event>(&line) {
                Ok(event) if event.v == 1 => self.event(event)?,
                // the last line of a log that is being written, or was when the machine went down
                _ if !whole => {
                    let note = format!("`{shown}`: the last line, {number}, is cut off");
                    self.notes.push(note);
                }
                _ if number == 1 => {
                    return fail(
                        Exit::Usage,
                        format!("`{shown}` is no event log: its first line is no event"),
                    );
                }
                _ => bad.push(number),
            }
        }
        if let Some(first) = bad.first() {
            self.notes.push(format!(
                "`{shown}`: {} lines are no events that lazaret {} knows, the first is line {first}",
                bad.len(),
                env!("CARGO_PKG_VERSION")
            ));
        }
        Ok(())
    }

    fn event(&mut self, event: Event) -> Outcome<()> {
        match event.what {
            What::Admitted { image, .. } => {
                self.images.insert(event.container, image);
            }
            What::Denied {
                times,
                process,
                arch,
                call,
                args,
                phase,
                ..
            } => {
                let since = utc::day(event.time_ms);
                let kind = Kind {
                    phase,
                    arch,
                    call,
                    process,
                };
                let kinds = self.denials.entry(event.container).or_default();
                kinds.add(kind, times, args, &since);
            }
            _ => {}
        }
        if self.denials.len().max(self.images.len()) > MAX_CONTAINERS {
            return fail(
                Exit::Usage,
                format!("the event logs hold more than {MAX_CONTAINERS} containers"),
            );
        }
        Ok(())
    }
}
