//! What can go wrong, one enum per operation and one variant per step.
//!
//! Errors that end with a hint say their reason themselves and have no source, so that the hint comes last however the
//! chain is printed.

use std::io;

use lazaret_core::phase::Phase;

/// A pid namespace could not be looked up.
#[derive(Debug, thiserror::Error)]
#[error("cannot open pid namespace `{path}`")]
pub struct NamespaceError {
    /// The file under `/proc`.
    pub(crate) path: String,
    pub(crate) source: io::Error,
}

/// The recorder could not be put into the kernel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// `CONFIG_DEBUG_INFO_BTF` is off.
    #[error(
        "the kernel's type information, which the recorder needs, cannot be found at `{path}`: {reason}\nhint: run `lazaret doctor`"
    )]
    NoTypeInformation {
        /// Where it should be.
        path: &'static str,
        /// Why it could not be looked at.
        reason: io::Error,
    },
    /// The recorder's own namespace, which it must not record.
    #[error("cannot tell the recorder's own pid namespace")]
    OwnNamespace {
        /// Which file.
        source: NamespaceError,
    },
    /// A limit of 0.
    #[error("limit `{limit}` is 0, at least 1 is needed")]
    ZeroLimit {
        /// Field of [`Limits`](crate::Limits).
        limit: &'static str,
    },
    /// libbpf does not understand the embedded object.
    #[error("cannot open the recorder's eBPF object")]
    Open {
        /// libbpf's reason.
        source: libbpf_rs::Error,
    },
    /// The embedded object is not the one this crate was written for.
    #[error("the recorder's eBPF object has no {kind} `{name}`")]
    Missing {
        /// `map` or `program`.
        kind: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// A map could not be given its size.
    #[error("cannot give map `{map}` {entries} entries")]
    Resize {
        /// The map.
        map: &'static str,
        /// Its entries.
        entries: u32,
        /// libbpf's reason.
        source: libbpf_rs::Error,
    },
    /// `bpf(2)` says EPERM for both kinds of program.
    #[error(
        "the kernel does not let this process load eBPF programs: permission denied, CAP_SYS_ADMIN is needed\nhint: run `lazaret doctor`"
    )]
    NotPermitted,
    /// The kernel takes neither kind.
    #[error(
        "the kernel refuses the recorder's programs as {kind}: {reason}\nhint: run `lazaret doctor`"
    )]
    Refused {
        /// The kind that was tried last.
        kind: crate::AttachKind,
        /// libbpf's reason.
        reason: libbpf_rs::Error,
    },
    /// What the programs are told before they run.
    #[error("cannot write map `{map}`")]
    Configure {
        /// The map.
        map: &'static str,
        /// libbpf's reason.
        source: libbpf_rs::Error,
    },
}

/// The loaded recorder could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The kernel refuses one of the programs.
    #[error("cannot attach probe `{tracepoint}`: {reason}\nhint: run `lazaret doctor`")]
    Attach {
        /// The tracepoint.
        tracepoint: &'static str,
        /// libbpf's reason.
        reason: libbpf_rs::Error,
    },
    /// The embedded object is not the one this crate was written for.
    #[error("the recorder's eBPF object has no program `{program}`")]
    Missing {
        /// Its name.
        program: &'static str,
    },
}

/// A phase could not be set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PhaseError {
    /// *prelude* and *exec* follow from what processes do.
    #[error("phase {phase} cannot be set, only startup, serving and stopping can")]
    NotSettable {
        /// What was asked for.
        phase: Phase,
    },
    /// The namespace was not seen, or could not be looked up.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The map could not be written.
    #[error("cannot write map `phases`")]
    Write {
        /// libbpf's reason.
        source: libbpf_rs::Error,
    },
}

/// What was recorded could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No process of the namespace was seen.
    #[error("the probe has seen no process of pid namespace {inum}")]
    NotSeen {
        /// Its inode number.
        inum: u32,
    },
    /// The probe's last runs could not be waited for.
    #[error("cannot wait for the probe's last runs to end")]
    Settle {
        /// `membarrier(2)`'s reason; EINVAL on kernels with `nohz_full` CPUs.
        source: io::Error,
    },
    /// The embedded object is not the one this crate was written for.
    #[error("the recorder's eBPF object has no map `{map}`")]
    Missing {
        /// Its name.
        map: &'static str,
    },
    /// A map could not be read.
    #[error("cannot read map `{map}`")]
    Lookup {
        /// The map.
        map: &'static str,
        /// libbpf's reason.
        source: libbpf_rs::Error,
    },
    /// A map holds what the programs never write.
    #[error("map `{map}` holds an entry of unknown form")]
    Malformed {
        /// The map.
        map: &'static str,
    },
    /// The kernel does not say how many runs of a program it skipped.
    #[error("cannot ask the kernel about program `{program}`")]
    ProgramInfo {
        /// The program.
        program: &'static str,
    },
}
