//! The eBPF recorder: which system calls the processes of a pid namespace make, how often, in which phase and, for a short
//! list of calls, with which arguments.
//!
//! # What it does
//! Four small programs (`src/bpf/recorder.bpf.c`) at the tracepoints `sys_enter`, `sched_process_fork`,
//! `sched_process_exec` and `sched_process_exit` count inside the kernel. Every pid namespace but the recorder's own is
//! recorded from its first process on, so a container is recorded before anybody knows its id. Nothing is streamed: the
//! counts stay in maps until they are read, and what found no room in a map is itself counted
//! ([`Losses`](lazaret_core::recording::Losses)).
//!
//! ```no_run
//! use lazaret_core::phase::Phase;
//! use lazaret_probe::{Limits, PidNamespace, Probe};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut probe = Probe::load(Limits::default())?.attach()?;
//! // … a container starts; 4711 is its first process …
//! let namespace = PidNamespace::of_pid(4711)?;
//! // … it serves …
//! probe.set_phase(&namespace, Phase::Serving)?;
//! // … it ends …
//! let recorded = probe.finish(&namespace)?;
//! assert_eq!(recorded.losses.total(), 0);
//! # Ok(())
//! # }
//! ```
//!
//! # Phases
//! | phase | calls of |
//! | --- | --- |
//! | prelude | process 1 and its descendants until process 1 first executes a program; a process that was put into the namespace from outside, and its descendants, until each executes one |
//! | startup | process 1 and its descendants after that |
//! | serving, stopping | the same, after [`Probe::set_phase`] |
//! | exec | a process that was put into the namespace from outside and its descendants, also when they are orphaned to process 1 |
//!
//! *Put into from outside* means: the forking task was in another pid namespace, and the child is not process 1. That is
//! how runc and crun carry out `docker exec`. It is decided at the fork, once, and inherited; names, command lines and the
//! present parent play no part. The `execve` that ends a prelude still belongs to it, and one that fails ends nothing.
//!
//! A phase changes while other threads are inside calls. A call belongs to the phase that the program read when the call
//! was entered: after [`Probe::set_phase`] returns, every CPU may still finish one run of the program, a few hundred
//! nanoseconds long, that has read the old phase. A call that blocks over the change belongs to the phase it was entered in.
//!
//! # Arguments
//! See [`arguments::SUMMARISED`]. Values are cut to the argument's declared width before they are compared and counted.
//! Of each argument at most [`arguments::VALUES_MAX`] distinct values are kept per namespace, convention, phase and call;
//! past that the summary says that it is not complete.
//!
//! # What it deliberately does not do
//! - It does not see calls that a seccomp filter denies: the kernel asks the filter first (`syscall_trace_enter`,
//!   `kernel/entry/common.c`). Never learn on top of a denying filter.
//! - It does not follow pointers: no paths, no `clone3` or `openat2` structures.
//! - It does not know containers. Processes in namespaces of their own below a container's are other namespaces;
//!   [`Recorded::nested`] says how many there were. Containers that share a pid namespace are told apart only as
//!   *native* and *exec*.
//! - It does not know the phases of a namespace that is older than the recorder: its processes count as *startup*, a child
//!   of a process outside as *exec*, and [`Recorded::from_start`] is false.
//! - It runs on x86-64 only (native, i386 and x32 calls).

pub mod arguments;
mod error;
mod fold;
mod namespace;
mod probe;
mod wire;

pub use error::{AttachError, LoadError, NamespaceError, PhaseError, ReadError};
pub use fold::Recorded;
pub use namespace::{PidNamespace, Seen};
pub use probe::{AttachKind, Attached, Limits, Loaded, Probe, probe_support};
