//! What must hold for any input: one function for each kind of text or bytes that comes from outside.
//!
//! Each function takes bytes as a fuzzer makes them and panics when something is wrong. The programs in `targets/` hand
//! them to libFuzzer (`cargo xtask fuzz`); `tests/replay.rs` runs them over the seeds and over every input that was ever a
//! finding. Which calls are tried is derived from the input: the same input always does the same.
#![forbid(unsafe_code)]

mod bpf;
mod calls;
mod oci;
mod policy;

pub use bpf::bpf;
pub use oci::oci_json;
pub use policy::policy_text;

/// What a target does with an input; it panics when something does not hold.
pub type Target = fn(&[u8]);

/// Every target: its name, as its program, its seeds and its findings are called, and its function.
pub const TARGETS: [(&str, Target); 3] = [
    ("policy_text", policy_text),
    ("oci_json", oci_json),
    ("bpf", bpf),
];
