//! What is on disk: wire types, strict, versioned. What they *mean* is in the modules above; `TryFrom` joins the two.

pub mod policy;
pub mod recording;
