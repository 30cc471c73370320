//! The command line, the gate and the wrapper together, with real engines, real runc, real eBPF and signed bundles.
//!
//! `cargo xtask test` (or `cargo xtask test --only e2e`) starts private engines, builds programs and the image of
//! `testing/berth`, and says where they are (`xtask/src/test/e2e.rs`). The tests run one after the other: they have the
//! wrapper's configuration and a port in common. Each states what a user sees: exit codes, output, the event log.
//!
//! | module | what |
//! | --- | --- |
//! | [`learn`], [`interrupted`] | from an image to a policy, and what goes wrong on the way |
//! | [`phases`] | a confined container under Docker, from its start to its stop |
//! | [`wrapper`] | containers that nobody confines are what they are without the wrapper |
//! | [`refusals`] | papers that are not in order |
//! | [`daemon`] | the gate killed, started twice, started in a place that is not its own |
//! | [`inspect`] | what the kernel runs for containers that run, whoever started them, and whether it is what is meant |
//! | [`production`] | drift to rule, revisions, permits, fifty restarts of the gate under requests |
//! | [`profiles`] | static profiles under Docker, containerd, crun and podman, and Docker's own made plain; no gate |
//! | [`engines`] | the gate under podman, crun, containerd with the wrapper, and Docker without it |
//! | [`restored`] | a Docker engine that is restarted under a container |
//! | [`service`], [`systemd`] | the gate with the rights that its systemd unit leaves it, and under a real systemd |
//! | [`containerd`] | the same profile under containerd, without the wrapper |

mod containerd;
mod daemon;
mod engines;
mod inspect;
mod interrupted;
mod learn;
mod node;
mod phases;
mod podman;
mod production;
mod profiles;
mod refusals;
mod restored;
mod service;
mod systemd;
mod world;
mod wrapper;
