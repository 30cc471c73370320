//! Trust: keys, DSSE envelopes, in-toto statements, the verifiers of policies and permits, and the node's store of them.
//!
//! The only crate that can make a [`Verified`] value, and the only roads to one are [`verify()`] and [`verify_permit()`]:
//! enforcement takes nothing else. Signatures are checked over the bytes that were signed before anything inside them is parsed.
//!
//! Deliberately not here: registries and images (`lazaret-image`), the policy language (`lazaret-core`), clocks,
//! revocation and rollback (a verification server's business), certificate chains and transparency logs: a node pins
//! public keys and works offline.
//!
//! [`dsse`], [`statement`], [`signed`], [`verify`](mod@verify), [`permit`] and [`key`] are pure; [`key::file`], [`key::trusted`],
//! [`read`] and [`store`] are the shells that touch files.
#![forbid(unsafe_code)]

pub mod dsse;
pub mod key;
pub mod permit;
pub mod read;
pub mod signed;
pub mod statement;
pub mod store;
pub mod verify;

pub use key::trusted::TrustedKeys;
pub use permit::{Permit, PermitError, sign_permit, verify_permit, verify_permit_for_any_image};
pub use signed::{SignedError, Verified};
pub use verify::{VerifyError, sign, verify, verify_for_any_image};
