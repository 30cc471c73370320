//! `lazaret compile`: a policy in the form that a kernel or a runtime loads.

use crate::args::{Compile, Target};
use crate::cleanup::write_file;
use crate::exit::{Exit, OrExit, Outcome, fail};
use crate::given::{self, Given, Profile};
use crate::learn::load;
use crate::policy::check::notes;
use anyhow::Context;
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::compile::{Weights, compile_weighted};
use lazaret_core::filter::program::Program;
use lazaret_core::filter::rule::RuleTable;
use lazaret_core::filter::{chain, disasm, oci};
use lazaret_core::phase::Phase;
use lazaret_core::policy::Policy;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The gate's socket where none is given.
const LISTENER: &str = "/run/lazaret/gate.sock";

/// `lazaret compile`
///
/// # Errors
/// Exit 2 for a bad policy, profile or recording, or what the target cannot express; 5 for a recording without serving.
pub fn main(args: &Compile) -> Outcome {
    let given = given::read(&args.file, &args.host)?;
    given::host_for(given.is_profile(), &args.host)?;
    if args.to != Target::Oci && args.listener.is_some() {
        return fail(
            Exit::Usage,
            "--listener is named by an OCI profile (`--to oci`), a filter names none",
        );
    }
    if args.to == Target::Oci && !args.recordings.is_empty() {
        return fail(
            Exit::Usage,
            "--recording orders a filter's tests (`--to bpf`), an OCI profile has none",
        );
    }
    let abi = match &given {
        Given::Policy(policy) => policy.abi(),
        Given::Profile(profile) => profile.abi,
    };
    let weights = weights(&args.recordings, abi)?;
    let bytes = match &given {
        Given::Policy(policy) => of_policy(args, policy, &weights)?,
        Given::Profile(profile) => of_profile(args, profile, &weights)?,
    };
    match &args.out {
        Some(path) => write_file(path, &bytes).or_exit(Exit::HostCannot)?,
        None => std::io::stdout()
            .write_all(&bytes)
            .context("cannot write to standard output")
            .or_exit(Exit::HostCannot)?,
    }
    Ok(Exit::Yes)
}

fn of_policy(args: &Compile, policy: &Policy, weights: &Weights) -> Outcome<Vec<u8>> {
    let table = || match args.static_mode {
        true => policy.static_table(),
        false => policy.bpf_table(),
    };
    match args.to {
        Target::Oci if args.static_mode => oci_json(&policy.static_table(), None),
        Target::Oci => {
            notes(policy);
            let listener = args.listener.as_deref();
            profile(policy, listener.unwrap_or(Path::new(LISTENER)))
        }
        Target::Bpf => Ok(program(&table(), weights)?.to_bytes()),
        Target::Disasm => disassembled(&table(), weights, policy.abi()),
    }
}

fn of_profile(args: &Compile, profile: &Profile, weights: &Weights) -> Outcome<Vec<u8>> {
    if args.listener.is_some() {
        return fail(
            Exit::Usage,
            "--listener is for policies; a profile has its own `listenerPath`, or none",
        );
    }
    if args.to != Target::Oci {
        profile.tell_without_table("are closed");
    }
    match args.to {
        Target::Oci => pretty(&profile.resolved),
        Target::Bpf => Ok(program(&profile.table, weights)?.to_bytes()),
        Target::Disasm => disassembled(&profile.table, weights, profile.abi),
    }
}

/// How often each call was made while a server served, in all the recordings together.
fn weights(recordings: &[PathBuf], abi: Abi) -> Outcome<Weights> {
    let mut counts: Vec<((Abi, u32), u64)> = Vec::new();
    for path in recordings {
        let shown = path.display();
        let recording = load(path)?;
        let recorded = recording.environment.arch;
        if recorded != abi {
            return fail(
                Exit::Usage,
                format_args!("recording `{shown}` is of {recorded}, the filter is for {abi}"),
            );
        }
        let observations = recording.observations.iter();
        let serving = observations.filter(|seen| seen.phase == Phase::Serving);
        let mut calls = serving
            .map(|seen| ((seen.abi, seen.nr), seen.count))
            .peekable();
        if calls.peek().is_none() {
            return fail(
                Exit::Incomplete,
                format_args!("recording `{shown}` has no call that was made while serving"),
            );
        }
        counts.extend(calls);
        let lost = recording.losses.total();
        if lost > 0 {
            eprintln!(
                "note: recording `{shown}` lost {lost} calls, the order of tests does not count them"
            );
        }
    }
    Ok(counts.into_iter().collect())
}

fn program(table: &RuleTable, weights: &Weights) -> Outcome<Program> {
    let program = compile_weighted(table, weights)
        .context("cannot compile to BPF")
        .or_exit(Exit::Usage)?;
    chain::check_length(std::slice::from_ref(&program))
        .context("the kernel would refuse the filter")
        .or_exit(Exit::Usage)?;
    Ok(program)
}

fn disassembled(table: &RuleTable, weights: &Weights, abi: Abi) -> Outcome<Vec<u8>> {
    Ok(disasm::disassemble(&program(table, weights)?, abi).into_bytes())
}

/// The OCI profile of a policy with the gate as its listener.
///
/// # Errors
/// Exit 2 when a profile cannot express it.
pub fn profile(policy: &Policy, listener: &Path) -> Outcome<Vec<u8>> {
    let path = listener
        .to_str()
        .context("the listener's path is no UTF-8")
        .or_exit(Exit::Usage)?
        .to_string();
    let listener = oci::Listener {
        path,
        metadata: policy.digest().to_string(),
    };
    oci_json(&policy.kernel_table(), Some(&listener))
}

/// Writes [`profile`] to a file.
///
/// # Errors
/// As [`profile`]; 3 for the disk.
pub fn write_profile(policy: &Policy, listener: &Path, out: &Path) -> Outcome<()> {
    notes(policy);
    write_file(out, &profile(policy, listener)?).or_exit(Exit::HostCannot)
}

fn oci_json(table: &RuleTable, listener: Option<&oci::Listener>) -> Outcome<Vec<u8>> {
    let profile = oci::profile(table, listener)
        .context("cannot compile to an OCI profile")
        .or_exit(Exit::Usage)?;
    pretty(&profile)
}

fn pretty(profile: &oci::OciSeccomp) -> Outcome<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(profile)
        .context("cannot write the profile")
        .or_exit(Exit::HostCannot)?;
    json.push(b'\n');
    Ok(json)
}
