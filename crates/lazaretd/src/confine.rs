//! The daemon under a policy of its own: `lazaretd.policy.yaml`, compiled in, loaded once it can do its work and before it answers
//! anything.
//!
//! Read the text for what it allows and why. It is the static filter of that policy, as any host without a gate would run
//! it: nobody is asked, phases do not matter. What this program starts later (`ctr`, a new holder) is under it as well.

use lazaret_core::filter::compile::{CompileError, compile};
use lazaret_core::filter::rule::{Entry, RuleTable, Verdict};
use lazaret_core::format::policy::PolicyV1;
use lazaret_core::policy::{Policy, PolicyError};
use lazaret_kernel::load::{self, LoadError};
use serde::Deserialize;

/// The canonical form of `lazaretd.policy.yaml`; a test of `lazaret-text` compares them.
const POLICY: &[u8] = include_bytes!("../lazaretd.policy.json");

/// The convention this program is built for, by the name that policies use.
#[cfg(target_arch = "x86_64")]
const ARCH: &str = "x86_64";
#[cfg(target_arch = "aarch64")]
const ARCH: &str = "aarch64";

/// `EPERM` (asm-generic/errno-base.h): what a call without a rule gets.
const EPERM: u16 = 1;

/// Whether the daemon is held to its policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Confine {
    /// A call outside of it fails with `EPERM`.
    #[default]
    Enforce,
    /// The kernel logs a call outside of it and lets it pass.
    Observe,
    /// No filter is loaded.
    Off,
}

/// The daemon cannot be confined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConfineError {
    /// No JSON; cannot happen, it is compiled in and tested.
    #[error("own policy cannot be read")]
    Shape(#[source] serde_json::Error),
    /// No policy; as above.
    #[error("own policy is not valid")]
    Policy(#[source] PolicyError),
    /// No filter; as above.
    #[error("own policy cannot be compiled")]
    Compile(#[source] CompileError),
    /// The kernel.
    #[error("cannot be confined by the own policy; `confine = \"off\"` does without")]
    Load(#[from] LoadError),
}

/// Holds every thread of this process to the policy, now and for good.
///
/// # Guarantees
/// All threads, or an error. `no_new_privs` is set with it: nothing that is executed from here on gains rights.
///
/// # Caveats
/// From here on this process cannot read filters: [`crate::reader`] must run already.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn confine(choice: Confine) -> Result<(), ConfineError> {
    if choice == Confine::Off {
        tracing::warn!("not confined: `confine` is `off`");
        return Ok(());
    }
    let table = table(&policy()?, choice);
    let program = compile(&table).map_err(ConfineError::Compile)?;
    load::set_no_new_privs()?;
    load::confine_self(&program)?;
    if choice == Confine::Observe {
        tracing::warn!(
            "the own policy is observed, not enforced: calls outside of it are in the kernel's log"
        );
    } else {
        tracing::info!("confined by the own policy");
    }
    Ok(())
}

/// The compiled-in policy, for the convention that this program is built for: names that it does not have allow nothing.
fn policy() -> Result<Policy, ConfineError> {
    policy_for(ARCH)
}

fn policy_for(arch: &str) -> Result<Policy, ConfineError> {
    let mut wire: PolicyV1 = serde_json::from_slice(POLICY).map_err(ConfineError::Shape)?;
    arch.clone_into(&mut wire.environment.arch);
    Policy::try_from(wire).map_err(ConfineError::Policy)
}

/// What the filter means.
fn table(policy: &Policy, choice: Confine) -> RuleTable {
    let mut table = policy.static_table();
    // half a gate would leave calls waiting; and nothing of it is of another convention
    table.foreign = Verdict::KillProcess;
    if choice == Confine::Observe {
        for numbers in table.abis.values_mut() {
            numbers.entries.values_mut().for_each(logged_entry);
            logged(&mut numbers.otherwise);
        }
    }
    table
}

fn logged_entry(entry: &mut Entry) {
    entry
        .branches
        .iter_mut()
        .for_each(|branch| logged(&mut branch.verdict));
    logged(&mut entry.otherwise);
}

/// `ENOSYS` stays: programs ask with such calls whether the kernel has them, and go on without.
fn logged(verdict: &mut Verdict) {
    if *verdict == Verdict::Errno(EPERM) {
        *verdict = Verdict::Log;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lazaret_core::digest::Digest;
    use lazaret_core::filter::abi::Abi;
    use lazaret_core::filter::rule::Call;
    use lazaret_core::filter::table;

    fn verdict(table: &RuleTable, name: &str, args: [u64; 6]) -> Verdict {
        let call = Call {
            nr: table::nr_of(Abi::X86_64, name).expect("known"),
            arch: Abi::X86_64.audit_arch(),
            args,
        };
        table.decide(&call)
    }

    #[test]
    fn it_is_a_policy_for_both_conventions() {
        for arch in ["x86_64", "aarch64"] {
            let policy = policy_for(arch).expect("valid");
            for choice in [Confine::Enforce, Confine::Observe] {
                compile(&table(&policy, choice)).expect("fits");
            }
            // the language wants an image and this program is in none
            let image = policy.image_digests().first().copied();
            assert_eq!(image, Some(Digest::of(b"lazaretd")));
        }
    }

    #[test]
    fn what_the_work_needs_is_open_and_its_neighbour_is_not() {
        let policy = policy_for("x86_64").expect("valid");
        let enforced = table(&policy, Confine::Enforce);
        let observed = table(&policy, Confine::Observe);
        let eperm = Verdict::Errno(EPERM);
        let first = |first| [first, 0, 0, 0, 0, 0];
        let second = |second| [0, second, 0, 0, 0, 0];
        for (name, allowed, denied) in [
            // the network namespace only
            ("setns", second(0x4000_0000), second(0x2000_0000)),
            ("setns", second(0x4000_0000), second(0)),
            // AF_UNIX, AF_INET6; not AF_PACKET, AF_ALG
            ("socket", first(1), first(17)),
            ("socket", first(10), first(38)),
            // a thread; not a namespace
            ("clone", first(0x003d_0f00), first(0x1002_0000)),
            // SECCOMP_IOCTL_NOTIF_RECV; not TIOCSTI
            ("ioctl", second(0xc050_2100), second(0x5412)),
            // SECCOMP_IOCTL_NOTIF_SET_FLAGS; not TIOCLINUX
            ("ioctl", second(0x4008_2104), second(0x541c)),
            ("prctl", first(15), first(22)),
        ] {
            let case = format!("{name} {allowed:x?} {denied:x?}");
            assert_eq!(verdict(&enforced, name, allowed), Verdict::Allow, "{case}");
            assert_eq!(verdict(&enforced, name, denied), eperm, "{case}");
            assert_eq!(verdict(&observed, name, allowed), Verdict::Allow, "{case}");
            assert_eq!(verdict(&observed, name, denied), Verdict::Log, "{case}");
        }
        for name in [
            "mount",
            "ptrace",
            "unshare",
            "bpf",
            "init_module",
            "process_vm_writev",
            "process_vm_readv",
            "io_uring_setup",
            "chroot",
            "keyctl",
            "perf_event_open",
            "kexec_load",
            "userfaultfd",
            "setuid",
            "mknod",
            "open_by_handle_at",
            "reboot",
        ] {
            assert_eq!(verdict(&enforced, name, [0; 6]), eperm, "{name}");
        }
        // the C library takes clone instead
        let enosys = Verdict::Errno(38);
        assert_eq!(verdict(&enforced, "clone3", [0; 6]), enosys);
        assert_eq!(verdict(&observed, "clone3", [0; 6]), enosys);
    }
}
