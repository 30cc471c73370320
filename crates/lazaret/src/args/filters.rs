//! Policies, profiles and filters: what is shown, compared, compiled and proved.

use super::{number, phase};
use clap::{Args, Subcommand, ValueEnum};
use lazaret_core::filter::abi::Abi;
use std::path::PathBuf;

/// `lazaret policy`
#[derive(Debug, Subcommand)]
pub enum PolicyVerb {
    /// Check a policy; every problem with its line and column.
    ///
    /// Exit codes: 0 a policy, 2 none.
    Check {
        /// The policy text.
        file: PathBuf,
    },
    /// Show a policy, or a seccomp profile, as a table.
    Show {
        /// The policy text, or a seccomp profile (JSON).
        file: PathBuf,
        /// For which host a profile is read.
        #[command(flatten)]
        host: ProfileHost,
    },
    /// Say what a policy does with one call, phase by phase, why, and how it would be allowed.
    ///
    /// Exit codes: 0 explained, whatever the verdicts (`decide` tells one by its exit code), 2 bad input.
    Explain {
        /// The policy text.
        file: PathBuf,
        /// The call's name or number.
        #[arg(value_name = "NAME|NR")]
        call: String,
    },
    /// Find what a policy says and its author may not want.
    ///
    /// Exit codes: 0 nothing, or notes alone, 1 a warning, 2 bad input.
    Lint {
        /// The policy text.
        file: PathBuf,
    },
    /// Compare two policies or profiles by meaning.
    ///
    /// Exit codes: 0 they mean the same, 1 they differ, or a profile cannot be known wholly, 2 bad input.
    Diff {
        /// The older one: a policy text, or a seccomp profile (JSON).
        a: PathBuf,
        /// The newer one.
        b: PathBuf,
        /// For which host a profile is read.
        #[command(flatten)]
        host: ProfileHost,
    },
    /// Make a policy with the meaning of a seccomp profile; notes say what engines make of the profile.
    ///
    /// Exit codes: 0 written, 2 bad input or a profile that no policy can say, 3 the policy cannot be written.
    Import(Import),
}

/// `lazaret policy import`
#[derive(Debug, Args)]
pub struct Import {
    /// The seccomp profile: JSON in the form of Docker, podman or the OCI runtime specification.
    pub file: PathBuf,
    /// The policy text.
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
    /// The policy's name [default: from the profile's file].
    #[arg(long)]
    pub name: Option<String>,
    /// The image's name, for people [default: the policy's].
    #[arg(long)]
    pub image: Option<String>,
    /// A digest of the image that the policy is for, `sha256:…`; may be given many times. A profile names no image.
    #[arg(long = "digest", value_name = "DIGEST", required = true)]
    pub digests: Vec<lazaret_core::digest::Digest>,
    /// Containers run with `no_new_privs`.
    #[arg(long)]
    pub no_new_privileges: bool,
    /// For which host the profile is read.
    #[command(flatten)]
    pub host: ProfileHost,
}

/// For which host a seccomp profile is read: its `includes`, `excludes` and `archMap` depend on that.
#[derive(Debug, Args)]
pub struct ProfileHost {
    /// A capability of the container's bounding set, as CAP_SYS_ADMIN; may be given many times, `none` for none [default:
    /// the fourteen that Docker gives].
    #[arg(long = "cap", value_name = "CAP", value_parser = capability)]
    pub capabilities: Vec<String>,
    /// The host's architecture [default: x86_64].
    #[arg(long, value_name = "ARCH", value_parser = native)]
    pub arch: Option<Abi>,
    /// The host's kernel, as 6.1 [default: this host's].
    #[arg(long, value_name = "MAJOR.MINOR", value_parser = kernel)]
    pub kernel: Option<(u16, u16)>,
}

impl ProfileHost {
    /// Whether anything of it was typed.
    #[must_use]
    pub fn is_given(&self) -> bool {
        !self.capabilities.is_empty() || self.arch.is_some() || self.kernel.is_some()
    }
}

/// `lazaret compile`
#[derive(Debug, Args)]
pub struct Compile {
    /// The policy text, or a seccomp profile (JSON).
    pub file: PathBuf,
    /// To what.
    #[arg(long, value_enum)]
    pub to: Target,
    /// One ordinary filter for hosts without the daemon: every phase's calls, everything else an errno. A profile always
    /// becomes one.
    #[arg(long = "static")]
    pub static_mode: bool,
    /// The gate's socket that an OCI profile names [default: /run/lazaret/gate.sock].
    #[arg(long, value_name = "SOCKET", conflicts_with = "static_mode")]
    pub listener: Option<PathBuf>,
    /// Recordings of a server: what it called often while it served is tested first. The filter means the same without.
    #[arg(long = "recording", value_name = "REC", num_args = 1..)]
    pub recordings: Vec<PathBuf>,
    /// The output [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// For which host a profile is read.
    #[command(flatten)]
    pub host: ProfileHost,
}

/// Where filters come from: exactly one.
#[derive(Debug, Args)]
#[group(required = true, multiple = false, id = "source")]
pub struct Source {
    /// A running container, by id, the beginning of it, or name: every filter that the kernel runs for it.
    #[arg(long, value_name = "ID")]
    pub container: Option<String>,
    /// A process.
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// A file with a raw array of `sock_filter`, as `compile --to bpf` writes it.
    #[arg(long, value_name = "FILE")]
    pub bpf: Option<PathBuf>,
    /// A seccomp profile (JSON): what a runtime's libseccomp makes of it.
    #[arg(long, value_name = "FILE")]
    pub oci: Option<PathBuf>,
}

/// `lazaret inspect`
#[derive(Debug, Args)]
pub struct Inspect {
    /// Where the filters come from.
    #[command(flatten)]
    pub source: Source,
    /// Only this filter of the chain, from 1, the first installed, as text with call names.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), conflicts_with = "oci")]
    pub filter: Option<u16>,
    /// For which host a profile is read.
    #[command(flatten)]
    pub host: ProfileHost,
}

/// `lazaret prove`
#[derive(Debug, Args)]
pub struct Prove {
    /// What is meant: a policy text, or a seccomp profile (JSON).
    pub file: PathBuf,
    /// Where the filters come from.
    #[command(flatten)]
    pub source: Source,
    /// The policy's one filter for hosts without the daemon is meant (`compile --static`).
    #[arg(long = "static")]
    pub static_mode: bool,
    /// Filters that are stricter will do: a runtime's libseccomp drops names that it does not know.
    #[arg(long)]
    pub at_least_as_strict: bool,
    /// For which host a profile is read.
    #[command(flatten)]
    pub host: ProfileHost,
}

/// To what a policy is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// The raw array of `sock_filter`, native byte order.
    Bpf,
    /// `linux.seccomp` of an OCI configuration, as runtimes and containerd load it.
    Oci,
    /// The filter as text, with call names.
    Disasm,
}

/// `lazaret decide`
#[derive(Debug, Args)]
pub struct Decide {
    /// The policy text, or a seccomp profile (JSON).
    pub file: PathBuf,
    /// The phase; a profile knows none.
    #[arg(long, value_parser = phase)]
    pub phase: lazaret_core::phase::Phase,
    /// The calling convention [default: the policy's; x86_64 for a profile].
    #[arg(long)]
    pub arch: Option<Abi>,
    /// The call's name or number.
    #[arg(long, value_name = "NAME|NR")]
    pub call: String,
    /// Up to six register arguments, decimal or 0x…, separated by commas; the others are 0.
    #[arg(long, value_delimiter = ',', value_parser = number, value_name = "A0,A1,…")]
    pub args: Vec<u64>,
    /// A capability of the container's bounding set, for a profile, as in `lazaret compile`.
    #[arg(long = "cap", value_name = "CAP", value_parser = capability)]
    pub capabilities: Vec<String>,
    /// The host's kernel, for a profile, as 6.1 [default: this host's].
    #[arg(long, value_name = "MAJOR.MINOR", value_parser = kernel)]
    pub kernel: Option<(u16, u16)>,
}

fn capability(text: &str) -> Result<String, String> {
    let upper = text.to_ascii_uppercase();
    if upper == "NONE" {
        return Ok(String::new());
    }
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if name.is_empty()
        || !name
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    {
        return Err("expected a capability as CAP_SYS_ADMIN, or none".to_string());
    }
    Ok(format!("CAP_{name}"))
}

fn native(text: &str) -> Result<Abi, String> {
    text.parse()
        .ok()
        .filter(|abi| matches!(abi, Abi::X86_64 | Abi::Aarch64))
        .ok_or_else(|| "expected x86_64 or aarch64".to_string())
}

fn kernel(text: &str) -> Result<(u16, u16), String> {
    let parts = text.split_once('.');
    let numbers = parts.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    numbers.ok_or_else(|| "expected MAJOR.MINOR, as 6.1".to_string())
}
