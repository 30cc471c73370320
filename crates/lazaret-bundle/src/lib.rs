//! Trust: keys, DSSE envelopes, in-toto statements, the verifier and the node's store of verified bundles.
//!
//! The only crate that can make a [`Verified`] value, and the only road to one is [`verify()`]: enforcement takes
//! nothing else. Signatures are checked over the bytes that were signed before anything inside them is parsed.
//!
//! Deliberately not here: registries and images (`lazaret-image`), the policy language (`lazaret-core`), clocks,
//! revocation and rollback (a verification server's business), certificate chains and transparency logs: a node pins
//! public keys and works offline.
//!
//! [`dsse`], [`statement`], [`verify`](mod@verify) and [`key`] are pure; [`key::file`], [`key::trusted`],
//! [`read`] and [`store`] are the shells that touch files.
#![forbid(unsafe_code)]

pub mod dsse;
pub mod key;
pub mod read;
pub mod statement;
pub mod store;
pub mod verify;

pub use key::trusted::TrustedKeys;
pub use verify::{Verified, VerifyError, sign, verify, verify_for_any_image};
