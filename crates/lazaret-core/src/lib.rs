//! Every pure decision of Lazaret: recordings and their merge, the policy language, synthesis, the phase machine.
//!
//! No files, clocks, sockets or system calls: shells around this crate do those and pass in what they read.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod ceiling;
pub mod control;
pub mod digest;
pub mod event;
pub mod format;
pub mod life;
pub mod phase;
pub mod policy;
pub mod profile;
pub mod recording;
pub mod suggest;
pub mod synth;

pub use lazaret_filter as filter;
