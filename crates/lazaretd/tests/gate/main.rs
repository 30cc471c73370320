//! The daemon from outside: this program is the runtime, the engine's files and the clients.
//!
//! Needs root: pid namespaces, and a gate that may read other users' processes.

mod confined;
mod daemon;
mod faults;
mod lives;
mod nameless;
mod nobody;
mod node;
mod paper;
mod permits;
mod phases;
mod refusals;
mod revisions;
mod runc;
mod sandbox;
mod server;
mod take_over;
mod triggers;

/// Runs in a container only, see [`node`].
#[test]
fn container() {
    node::container();
}

/// Runs as a client that is not root only, see [`mod@nobody`].
#[test]
fn nobody() {
    nobody::nobody();
}
