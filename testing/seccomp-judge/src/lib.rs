//! What the real libseccomp and runc make of seccomp profiles: the filter that a container gets, as a program.
//!
//! The same calls into the library, in the same order, as runc makes them (`libcontainer/seccomp/seccomp_linux.go`), and a
//! model of the stub that it puts before the result ([`stub`]). No filter is ever loaded here. Not a model of libseccomp: that is
//! `lazaret_filter::oci::meaning`, which the tests hold against this.
#![forbid(unsafe_code)]

mod stub;

use std::io::{Read, Seek};
use std::time::{Duration, Instant};

use lazaret_filter::oci::{Action, Architecture, OciArg, OciSeccomp, Operator};
use lazaret_filter::program::{Program, ProgramError};
use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};

/// How libseccomp looks for a call's number (`SCMP_FLTATR_CTL_OPTIMIZE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// One comparison after the other: libseccomp's default, and runc's before 1.2.
    Linear,
    /// A binary tree: runc from 1.2 on, for profiles with more than 32 rules.
    Tree,
}

/// Why a profile has no filter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JudgeError {
    /// The library refused a step.
    #[error("libseccomp cannot {step}")]
    Library {
        /// What was asked of it.
        step: String,
        /// Its answer.
        source: libseccomp::error::SeccompError,
    },
    /// runc refuses to ask for everything.
    #[error("runc refuses SCMP_ACT_NOTIFY as the default action")]
    DefaultAsk,
    /// runc refuses to ask for `write`.
    #[error("runc refuses SCMP_ACT_NOTIFY for write")]
    WriteAsk,
    /// An architecture that runc does not know.
    #[error("runc does not know {0:?}")]
    Architecture(Architecture),
    /// The exported program did not come back from its file.
    #[error("exported filter cannot be read back")]
    Export(#[source] std::io::Error),
    /// The kernel would not load it.
    #[error("libseccomp's filter is not loadable")]
    Program(#[from] ProgramError),
    /// runc's stub jumps further than an instruction can.
    #[error("stub for {architectures} architectures needs jumps of more than 255 instructions")]
    Stub {
        /// How many.
        architectures: usize,
    },
}

/// libseccomp's filter for a profile, without runc's stub, and the time from an empty context to the exported program.
///
/// # Errors
/// What runc or the library refuse.
pub fn compile(profile: &OciSeccomp) -> Result<(Program, Duration), JudgeError> {
    compile_for(profile, Search::Linear)
}

/// [`compile`] with a choice.
///
/// # Errors
/// As [`compile`].
pub fn compile_for(
    profile: &OciSeccomp,
    search: Search,
) -> Result<(Program, Duration), JudgeError> {
    let mut file = tempfile::tempfile().map_err(JudgeError::Export)?;
    let start = Instant::now();
    let filter = filter(profile, search)?;
    filter
        .export_bpf(&file)
        .map_err(library("export the filter"))?;
    let took = start.elapsed();
    let mut bytes = Vec::new();
    file.rewind().map_err(JudgeError::Export)?;
    file.read_to_end(&mut bytes).map_err(JudgeError::Export)?;
    Ok((Program::from_bytes(&bytes)?, took))
}

/// The filter that runc loads for a profile: its stub for newer calls, where it has one, and libseccomp's.
///
/// # Errors
/// As [`compile`].
pub fn runc(profile: &OciSeccomp) -> Result<Program, JudgeError> {
    let (filter, _) = compile(profile)?;
    let mut instructions = stub::stub(profile)?;
    instructions.extend(filter.instructions());
    Ok(Program::new(instructions)?)
}

/// The number that the library has for a name; negative for calls of other architectures only.
#[must_use]
pub fn number(architecture: Architecture, call: &str) -> Option<i32> {
    let number = ScmpSyscall::from_name_by_arch(call, arch(architecture).ok()?).ok()?;
    Some(number.as_raw_syscall())
}

fn library(step: impl Into<String>) -> impl FnOnce(libseccomp::error::SeccompError) -> JudgeError {
    let step = step.into();
    |source| JudgeError::Library { step, source }
}

/// runc's `InitSeccomp`, up to the loading.
fn filter(profile: &OciSeccomp, search: Search) -> Result<ScmpFilterContext, JudgeError> {
    let default = action(profile.default_action, profile.default_errno_ret);
    let asks = |call: &str| {
        profile
            .syscalls
            .iter()
            .any(|rule| rule.action == Action::Notify && rule.names.iter().any(|name| name == call))
    };
    if asks("write") {
        return Err(JudgeError::WriteAsk);
    }
    if default == ScmpAction::Notify {
        return Err(JudgeError::DefaultAsk);
    }
    let mut filter = ScmpFilterContext::new(default).map_err(library("make a context"))?;
    for &architecture in &profile.architectures {
        let arch = arch(architecture)?;
        let present = filter
            .is_arch_present(arch)
            .map_err(library("look for an architecture"))?;
        if !present {
            let step = format!("add {architecture:?}");
            filter.add_arch(arch).map_err(library(step))?;
        }
    }
    if search == Search::Tree {
        filter
            .set_ctl_optimize(2)
            .map_err(library("search by a tree"))?;
    }
    for rule in &profile.syscalls {
        for call in &rule.names {
            let verdict = action(rule.action, rule.errno_ret);
            if verdict != default {
                add(&mut filter, call, verdict, &rule.args)?;
            }
        }
    }
    Ok(filter)
}

/// runc's `matchCall`.
fn add(
    filter: &mut ScmpFilterContext,
    call: &str,
    verdict: ScmpAction,
    args: &[OciArg],
) -> Result<(), JudgeError> {
    let Ok(number) = ScmpSyscall::from_name(call) else {
        return Ok(()); // "assume it is not supported by this kernel"
    };
    let step = || format!("add a rule for {call}");
    if args.is_empty() {
        filter.add_rule(verdict, number).map_err(library(step()))?;
        return Ok(());
    }
    let comparators: Vec<ScmpArgCompare> = args.iter().map(comparator).collect();
    let mut indices: Vec<u8> = args.iter().map(|arg| arg.index).collect();
    indices.sort_unstable();
    let twice = indices.windows(2).any(|pair| pair[0] == pair[1]);
    let rules: Vec<&[ScmpArgCompare]> = if twice {
        comparators.chunks(1).collect()
    } else {
        vec![&comparators]
    };
    for rule in rules {
        filter
            .add_rule_conditional(verdict, number, rule)
            .map_err(library(step()))?;
    }
    Ok(())
}

/// runc's `getAction`.
fn action(action: Action, errno: Option<u32>) -> ScmpAction {
    let datum = (errno.unwrap_or(1) & 0xffff) as u16;
    match action {
        Action::Allow => ScmpAction::Allow,
        Action::Notify => ScmpAction::Notify,
        Action::Errno => ScmpAction::Errno(datum.into()),
        Action::Log => ScmpAction::Log,
        Action::Trace => ScmpAction::Trace(datum),
        Action::Trap => ScmpAction::Trap,
        Action::Kill | Action::KillThread => ScmpAction::KillThread,
        Action::KillProcess => ScmpAction::KillProcess,
    }
}

fn comparator(arg: &OciArg) -> ScmpArgCompare {
    let (op, datum) = match arg.op {
        Operator::NotEqual => (ScmpCompareOp::NotEqual, arg.value),
        Operator::Less => (ScmpCompareOp::Less, arg.value),
        Operator::LessOrEqual => (ScmpCompareOp::LessOrEqual, arg.value),
        Operator::Equal => (ScmpCompareOp::Equal, arg.value),
        Operator::GreaterOrEqual => (ScmpCompareOp::GreaterEqual, arg.value),
        Operator::Greater => (ScmpCompareOp::Greater, arg.value),
        Operator::MaskedEqual => (ScmpCompareOp::MaskedEqual(arg.value), arg.value_two),
    };
    ScmpArgCompare::new(arg.index.into(), op, datum)
}

fn arch(architecture: Architecture) -> Result<ScmpArch, JudgeError> {
    Ok(match architecture {
        Architecture::X86_64 => ScmpArch::X8664,
        Architecture::X86 => ScmpArch::X86,
        Architecture::X32 => ScmpArch::X32,
        Architecture::Aarch64 => ScmpArch::Aarch64,
        Architecture::Arm => ScmpArch::Arm,
        other => return Err(JudgeError::Architecture(other)),
    })
}
