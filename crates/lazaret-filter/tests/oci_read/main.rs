//! Profiles as input: what is read, what a host gets of it, and what it means.
#![cfg(feature = "serde")]

mod meaning;
mod read;
mod resolve;
