//! System call tables, rule tables, a compiler to classic BPF, an interpreter and the comparison of what a kernel runs
//! with what was meant.
//!
//! Pure: no operating system, no `unsafe`, no policy language. What a *policy* is, phases and the ask band are in
//! `lazaret-core`; loading a filter is `lazaret-kernel`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod abi;
pub mod compare;
pub mod compile;
pub mod constants;
pub mod disasm;
pub mod interpret;
#[cfg(feature = "serde")]
pub mod oci;
pub mod program;
pub mod rule;
pub mod table;
