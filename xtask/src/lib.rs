//! What Lazaret's developer commands stand on: a prepared machine, images made from nothing, private engines.
//!
//! `cargo xtask` is the first thing compiled on a bare machine, so this has few dependencies and none of Lazaret's crates.

#![forbid(unsafe_code)]

pub mod audit;
pub mod bench;
pub mod cleanup;
pub mod command;
pub mod demo;
pub mod deny;
pub mod engine;
pub mod fuzz;
pub mod host;
pub mod image;
pub mod loop_disk;
pub mod network;
pub mod nostd;
pub mod packages;
pub mod process;
pub mod programs;
pub mod setup;
pub mod steps;
pub mod tables;
pub mod test;
pub mod tidy;
