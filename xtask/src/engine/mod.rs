//! Private container engines that leave the machine's own engine and network alone.
//!
//! [`Docker`] is Debian's `dockerd`, [`Containerd`] a plain `containerd`; both live in an [`enclosure`]. Neither talks to
//! a registry: images are made by [`crate::image`] and loaded.

mod containerd;
mod docker;
mod enclosure;
pub mod newer;

pub use containerd::Containerd;
pub use docker::{Docker, Programs, Runtime};
