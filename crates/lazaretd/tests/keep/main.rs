//! The keeper as the daemon uses it, with the holder as the process that it is, and with a program that plays systemd.
//!
//! The module under test is part of the program `lazaretd`, so it is included here.

#[path = "../../src/fault.rs"]
mod fault;
#[expect(
    dead_code,
    reason = "the holder's own side runs as the program, and the watchdog is for the daemon"
)]
#[path = "../../src/keep/mod.rs"]
mod keep;

mod holder;
mod node;
mod systemd;

/// A daemon that is killed: see [`node`].
#[test]
fn child() {
    node::child();
}
