//! `lazaret compile`, `decide` and `policy`: what a policy means, in every form.

use crate::args::{Compile, Decide, Format, PolicyVerb, Target};
use crate::cleanup::write_file;
use crate::exit::{Exit, OrExit, Outcome, fail};
use anyhow::Context;
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::rule::{Call, RuleTable, Verdict};
use lazaret_core::filter::{compile, disasm, oci, table};
use lazaret_core::phase::Phase;
use lazaret_core::policy::Policy;
use lazaret_text::policy as policy_text;
use std::io::Write;
use std::path::Path;

/// `lazaret compile`
///
/// # Errors
/// Exit 2 for a bad policy or one that the target cannot express.
pub fn main(args: &Compile) -> Outcome {
    let policy = policy_text::read(&args.file).or_exit(Exit::Usage)?;
    let bytes = match (args.to, args.static_mode) {
        (Target::Oci, false) => profile(&policy, &args.listener)?,
        (Target::Oci, true) => oci_json(&policy.static_table(), None)?,
        (Target::Bpf, fixed) => program(&policy, fixed)?.to_bytes(),
        (Target::Disasm, fixed) => {
            disasm::disassemble(&program(&policy, fixed)?, policy.abi()).into_bytes()
        }
    };
    if args.to == Target::Oci && !args.static_mode {
        notes(&policy);
    }
    match &args.out {
        Some(path) => write_file(path, &bytes).or_exit(Exit::HostCannot)?,
        None => std::io::stdout()
            .write_all(&bytes)
            .context("cannot write to standard output")
            .or_exit(Exit::HostCannot)?,
    }
    Ok(Exit::Yes)
}

fn program(policy: &Policy, fixed: bool) -> Outcome<lazaret_core::filter::program::Program> {
    let table = if fixed {
        policy.static_table()
    } else {
        policy.bpf_table()
    };
    compile::compile(&table)
        .context("cannot compile to BPF")
        .or_exit(Exit::Usage)
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
    let mut json = serde_json::to_vec_pretty(&profile)
        .context("cannot write the profile")
        .or_exit(Exit::HostCannot)?;
    json.push(b'\n');
    Ok(json)
}

/// What a profile does that its reader may not expect.
fn notes(policy: &Policy) {
    for name in policy.unresolved() {
        eprintln!(
            "warning: `{name}` is no call of {}: it allows nothing",
            policy.abi()
        );
    }
    let names: Vec<&str> = policy
        .unseen()
        .iter()
        .filter_map(|unseen| table::name_of(policy.abi(), unseen.nr))
        .collect();
    if !names.is_empty() {
        eprintln!(
            "note: outside their conditions these are denied by the kernel itself, and the gate does not see it: {}",
            names.join(" ")
        );
    }
}

/// `lazaret decide`
///
/// # Errors
/// Exit 2 for a bad policy or an unknown call. The verdict is the exit code: 0 allowed, 1 denied.
pub fn decide(args: &Decide, format: Format) -> Outcome {
    let policy = policy_text::read(&args.file).or_exit(Exit::Usage)?;
    let abi = args.arch.unwrap_or(policy.abi());
    let nr = match args.call.parse::<u32>() {
        Ok(nr) => nr,
        Err(_) => match table::nr_of(abi, &args.call) {
            Some(nr) => nr,
            None => {
                return fail(
                    Exit::Usage,
                    format_args!("unknown system call `{}` for {abi}", args.call),
                );
            }
        },
    };
    let mut call = Call::new(abi, nr);
    for (slot, value) in call.args.iter_mut().zip(&args.args) {
        *slot = *value;
    }
    let decision = policy.decide(args.phase, &call);
    let kernel = policy.kernel_table().decide(&call);
    let why = decision
        .rule
        .and_then(|rule| policy.wire().rules.get(rule))
        .map(|rule| rule.why.as_str());
    let why = why.unwrap_or(match decision.verdict {
        Verdict::Allow => "the prelude is the runtime's own",
        Verdict::KillProcess => "a foreign calling convention",
        _ => "under the ceiling, or without a rule",
    });
    let band = band(kernel);
    let name = name(abi, nr);
    match format {
        Format::Text => println!(
            "{name} in {}: {} ({band} band; {why})",
            args.phase,
            shown(decision.verdict)
        ),
        Format::Json => println!(
            "{}",
            serde_json::json!({
                "type": "decision", "v": 1, "call": name, "nr": nr, "arch": abi, "phase": args.phase,
                "verdict": shown(decision.verdict), "band": band, "rule": decision.rule, "why": why,
            })
        ),
    }
    Ok(if decision.verdict == Verdict::Allow {
        Exit::Yes
    } else {
        Exit::No
    })
}

fn name(abi: Abi, nr: u32) -> String {
    table::name_of(abi, nr).map_or_else(|| nr.to_string(), ToString::to_string)
}

fn band(kernel: Verdict) -> &'static str {
    match kernel {
        Verdict::Allow => "allow",
        Verdict::Ask => "ask",
        _ => "deny",
    }
}

fn shown(verdict: Verdict) -> String {
    match verdict {
        Verdict::Allow => "allow".to_string(),
        Verdict::Errno(1) => "EPERM".to_string(),
        Verdict::Errno(13) => "EACCES".to_string(),
        Verdict::Errno(38) => "ENOSYS".to_string(),
        Verdict::Errno(errno) => format!("errno {errno}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// `lazaret policy`
///
/// # Errors
/// Exit 2 for a bad policy.
pub fn policy(verb: &PolicyVerb, format: Format) -> Outcome {
    match verb {
        PolicyVerb::Check { file } => {
            let policy = policy_text::read(file).or_exit(Exit::Usage)?;
            notes(&policy);
            match format {
                Format::Text => println!(
                    "{} revision {}: {}",
                    policy.name(),
                    policy.revision(),
                    policy.digest()
                ),
                Format::Json => println!(
                    "{}",
                    serde_json::json!({
                        "type": "policy", "v": 1, "name": policy.name(), "revision": policy.revision(),
                        "digest": policy.digest(), "unresolved": policy.unresolved(),
                    })
                ),
            }
            Ok(Exit::Yes)
        }
        PolicyVerb::Show { file } => {
            show(&policy_text::read(file).or_exit(Exit::Usage)?, format);
            Ok(Exit::Yes)
        }
    }
}

/// A row for every call that some phase allows: band, phases, conditions, reason.
fn show(policy: &Policy, format: Format) {
    let kernel = policy.kernel_table();
    if format == Format::Text {
        println!("{:<20} {:<5} {:<34} why", "call", "band", "allowed in");
    }
    for (nr, name) in table::calls(policy.abi()) {
        let allowed: Vec<&str> = Phase::ALL
            .into_iter()
            .filter(|phase| {
                *phase != Phase::Prelude && policy.allowed_in(*phase).any(|other| other == nr)
            })
            .map(Phase::name)
            .collect();
        if allowed.is_empty() {
            continue;
        }
        let rules = policy.wire().rules.iter().filter(|rule| {
            let mut calls = rule.allow.iter().chain(&rule.ask).flatten();
            calls.any(|call| call == name)
        });
        let rules: Vec<_> = rules.collect();
        let why: Vec<&str> = rules.iter().map(|rule| rule.why.as_str()).collect();
        let conditions = rules.iter().flat_map(|rule| &rule.when).count();
        let widest = kernel
            .abis
            .get(&policy.abi())
            .map_or(kernel.foreign, |numbers| numbers.widest(nr));
        let band = band(widest);
        match format {
            Format::Text => {
                let mark = if conditions > 0 { " (conditions)" } else { "" };
                println!(
                    "{name:<20} {band:<5} {:<34} {}{mark}",
                    allowed.join(" "),
                    why.join("; ")
                );
            }
            Format::Json => println!(
                "{}",
                serde_json::json!({
                    "type": "call", "v": 1, "call": name, "nr": nr, "band": band, "phases": allowed,
                    "conditions": conditions, "why": why,
                })
            ),
        }
    }
}
