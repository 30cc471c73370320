//! `lazaret compile`: a policy in the form that a kernel or a runtime loads.

use crate::args::{Compile, Target};
use crate::cleanup::write_file;
use crate::exit::{Exit, OrExit, Outcome};
use crate::given::{self, Given};
use crate::policy::check::notes;
use anyhow::Context;
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::rule::RuleTable;
use lazaret_core::filter::{chain, compile, disasm, oci};
use lazaret_core::policy::Policy;
use std::io::Write;
use std::path::Path;

/// `lazaret compile`
///
/// # Errors
/// Exit 2 for a bad policy or profile, or one that the target cannot express.
pub fn main(args: &Compile) -> Outcome {
    let bytes = match given::read(&args.file, &args.host)? {
        Given::Policy(policy) => of_policy(args, &policy)?,
        Given::Profile(profile) => match args.to {
            Target::Oci => pretty(&profile.resolved)?,
            Target::Bpf => program(&profile.table)?.to_bytes(),
            Target::Disasm => disassembled(&profile.table, profile.abi)?,
        },
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

fn of_policy(args: &Compile, policy: &Policy) -> Outcome<Vec<u8>> {
    let table = || match args.static_mode {
        true => policy.static_table(),
        false => policy.bpf_table(),
    };
    match args.to {
        Target::Oci if args.static_mode => oci_json(&policy.static_table(), None),
        Target::Oci => {
            notes(policy);
            profile(policy, &args.listener)
        }
        Target::Bpf => Ok(program(&table())?.to_bytes()),
        Target::Disasm => disassembled(&table(), policy.abi()),
    }
}

fn program(table: &RuleTable) -> Outcome<lazaret_core::filter::program::Program> {
    let program = compile::compile(table)
        .context("cannot compile to BPF")
        .or_exit(Exit::Usage)?;
    chain::check_length(std::slice::from_ref(&program))
        .context("the kernel would refuse the filter")
        .or_exit(Exit::Usage)?;
    Ok(program)
}

fn disassembled(table: &RuleTable, abi: Abi) -> Outcome<Vec<u8>> {
    Ok(disasm::disassemble(&program(table)?, abi).into_bytes())
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
