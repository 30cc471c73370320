//! The kernel boundary: seccomp notifications and their handover by a runtime, the filters of live processes, pidfds,
//! descriptors that go from process to process, network namespaces, the allocator, and what `/proc` says about processes and threads.
//!
//! Decides nothing. Every function is one operation on one process or descriptor, and says in its error which step of
//! it failed. Facts about the kernel are cited where they are used; figures were measured on Linux 6.18.

pub mod fds;
pub mod filters;
pub mod handover;
pub mod load;
pub mod memory;
pub mod netns;
pub mod notify;
pub mod pidfd;
pub mod process;
pub mod renotify;
pub mod signals;
pub mod tasks;

mod returned;
