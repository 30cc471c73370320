//! Drives a FHIR R4 server so that everything it does while serving is done at least once while a recorder watches,
//! and says in numbers how much of what the server declares was reached.
//!
//! | module | does |
//! | --- | --- |
//! | [`audit`] | events of the gate as `AuditEvent`; pure |
//! | [`base`] | the server's base URL; every request stays on it |
//! | [`capability`] | reads the CapabilityStatement |
//! | [`data`] | fictional resources, the same from run to run |
//! | [`exercise`] | the run: one named row per interaction |
//! | [`coverage`] | the rows, the counts, the comparison of two runs |
//! | [`load`] | a bounded load for benchmarks |
//! | [`ready`] | waits for a server |
//!
//! The servers driven are on the loopback or a container's network: plain HTTP only, no proxy, no redirect. This crate does
//! not start servers, sends no signals, writes no files, and is no conformance test of FHIR: an answer is checked just far
//! enough to know that the server did the work and did not merely answer.

#![forbid(unsafe_code)]

pub mod audit;
pub mod base;
pub mod capability;
mod client;
pub mod coverage;
pub mod data;
pub mod exercise;
pub mod kind;
pub mod load;
mod random;
pub mod ready;

pub use client::{BODY_LIMIT, TransportError};
