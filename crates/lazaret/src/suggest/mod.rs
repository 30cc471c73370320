//! `lazaret suggest`: calls that a policy denied, or would have, as a change of its text.
//!
//! Finds the calls, in the running gate or in its event logs; what can be allowed, and how it is written, is decided in
//! `lazaret-core` and `lazaret-text`. Signs nothing, installs nothing.

mod log;

use crate::args::{Format, Suggest};
use crate::cleanup::write_file;
use crate::control::{Gate, json, shown};
use crate::exit::{Exit, OrExit, Outcome, fail};
use anyhow::Context as _;
use lazaret_core::control::{ContainerState, DriftEntry, Reply, Request, V1};
use lazaret_core::filter::abi::Abi;
use lazaret_core::phase::Phase;
use lazaret_core::policy::{MAX_BYTES, Policy};
use lazaret_core::suggest::Drift;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;

/// How many different arguments of one kind are kept.
const MAX_ARGS: usize = 64;

/// Denials of one kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    phase: Phase,
    arch: String,
    call: String,
    process: String,
}

/// What is known of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    times: u64,
    args: BTreeSet<[u64; 6]>,
    /// The day of the first one; empty when nobody says.
    since: String,
}

/// Kinds, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Kinds(BTreeMap<Kind, Seen>);

impl Kinds {
    fn add(&mut self, kind: Kind, times: u64, args: [u64; 6], since: &str) {
        let seen = self.0.entry(kind).or_default();
        if seen.since.is_empty() || (!since.is_empty() && *since < *seen.since) {
            seen.since = since.to_string();
        }
        seen.times = seen.times.saturating_add(times);
        if seen.args.len() < MAX_ARGS {
            seen.args.insert(args);
        }
    }

    /// Those of the policy's convention, and how many calls there were of others: no rule can speak of those, and a name may
    /// mean another call there.
    fn of(self, abi: Abi) -> (Vec<Drift>, BTreeMap<String, u64>) {
        let mut drift = Vec::new();
        let mut foreign: BTreeMap<String, u64> = BTreeMap::new();
        for (kind, seen) in self.0 {
            if kind.arch != abi.name() {
                let calls = foreign.entry(kind.arch).or_default();
                *calls = calls.saturating_add(seen.times);
                continue;
            }
            drift.push(Drift {
                phase: kind.phase,
                call: Drift::call_of(&kind.call),
                process: kind.process,
                args: seen.args.into_iter().collect(),
                times: seen.times,
                since: seen.since,
            });
        }
        (drift, foreign)
    }
}

/// `lazaret suggest`
///
/// # Errors
/// Exit 2 for a bad policy, log or container, 3 when the gate cannot be reached or the output not be written.
pub fn main(args: &Suggest, format: Format) -> Outcome {
    let text = read(&args.policy).or_exit(Exit::Usage)?;
    let policy = lazaret_text::policy::read(&args.policy).or_exit(Exit::Usage)?;
    let kinds = if args.events.is_empty() {
        from_gate(args, &policy)?
    } else {
        let (kinds, notes) = log::read(&args.events, &policy, args.container.as_deref())?;
        notes.iter().for_each(|note| eprintln!("note: {note}"));
        kinds
    };
    let (drift, foreign) = kinds.of(policy.abi());
    for (arch, times) in &foreign {
        eprintln!(
            "left out: {times} calls of {}: a policy for {} allows calls of that convention only",
            shown(arch),
            policy.abi()
        );
    }
    let suggested = lazaret_text::suggest(&text, &name(&args.policy), &drift)
        .with_context(|| format!("policy `{}`", args.policy.display()))
        .or_exit(Exit::Usage)?;
    for left in &suggested.left {
        eprintln!("left out: {}", shown(&left.to_string()));
    }
    let any = suggested.rules > 0;
    match format {
        Format::Text => print!("{}", suggested.diff),
        Format::Json => {
            let left: Vec<_> = suggested
                .left
                .iter()
                .map(|left| {
                    serde_json::json!({"call": left.call.to_string(), "phase": left.phase, "times": left.times, "why": left.why.to_string()})
                })
                .collect();
            let answer = serde_json::json!({"type": "suggestion", "v": 1, "rules": suggested.rules, "diff": suggested.diff, "left": left});
            println!("{}", json(&answer)?);
        }
    }
    if !any {
        let why = if drift.is_empty() {
            "no call of this policy's containers was denied"
        } else {
            "no call that was denied can be allowed by a rule"
        };
        eprintln!("nothing to suggest: {why}");
        return Ok(Exit::No);
    }
    if let Some(out) = &args.out {
        write_file(out, suggested.patched.as_bytes()).or_exit(Exit::HostCannot)?;
    }
    Ok(Exit::Yes)
}

/// The text as it stands, comments and all.
fn read(path: &Path) -> anyhow::Result<String> {
    let shown = path.display();
    let file =
        std::fs::File::open(path).with_context(|| format!("cannot open policy `{shown}`"))?;
    let mut text = String::new();
    // MAX_BYTES is far below 2^64
    let mut bounded = file.take(MAX_BYTES as u64 + 1);
    bounded
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read policy `{shown}`"))?;
    if text.len() > MAX_BYTES {
        anyhow::bail!("policy `{shown}` is longer than {MAX_BYTES} bytes");
    }
    Ok(text)
}

/// The file's name in the diff: as it was given, so that `patch -p1` finds it from here; an absolute one without its directory.
fn name(path: &Path) -> String {
    let name = if path.is_absolute() {
        path.file_name().map(Path::new).unwrap_or(path)
    } else {
        path.strip_prefix(".").unwrap_or(path)
    };
    name.display().to_string()
}

/// From the counts of the gate, which begin with the gate.
fn from_gate(args: &Suggest, policy: &Policy) -> Outcome<Kinds> {
    let mut gate = Gate::connect(&args.control)?;
    let reply = gate.ask(&Request::Status { v: V1 })?;
    let Reply::Status { containers, .. } = reply else {
        return Err(gate.unfit(&reply).into());
    };
    let reply = gate.ask(&Request::Drift {
        v: V1,
        container: args.container.clone(),
    })?;
    let Reply::Drift { drift, .. } = reply else {
        return Err(gate.unfit(&reply).into());
    };
    let ours: BTreeSet<&str> = containers
        .iter()
        .filter(|container| match &container.state {
            ContainerState::Admitted(admitted) => policy.image_digests().contains(&admitted.image),
            _ => false,
        })
        .map(|container| container.id.as_str())
        .collect();
    let (ours, others): (Vec<DriftEntry>, Vec<DriftEntry>) = drift
        .into_iter()
        .partition(|entry| ours.contains(entry.container.as_str()));
    if let (Some(container), Some(_)) = (&args.container, others.first()) {
        return fail(
            Exit::Usage,
            format!("container `{container}` is not of an image that the policy names"),
        );
    }
    let mut kinds = Kinds::default();
    for entry in ours {
        let kind = Kind {
            phase: entry.phase,
            arch: entry.arch,
            call: entry.call,
            process: entry.process,
        };
        kinds.add(kind, entry.times, entry.args, "");
    }
    Ok(kinds)
}
