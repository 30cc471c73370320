//! What is compiled: Docker's default profile, and the policy that `lazaret learn` made for a HAPI FHIR server.

use anyhow::Context;
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::oci::{self, Architecture, Listener, OciSeccomp};
use lazaret_core::filter::oci::{Engine, Host, meaning};
use lazaret_core::filter::rule::{RuleTable, Verdict};
use std::collections::BTreeSet;

/// One set of rules, as a profile for libseccomp and as a table for the others.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) profile: OciSeccomp,
    pub(crate) table: RuleTable,
}

/// What is compared.
pub(crate) fn all() -> anyhow::Result<Vec<Subject>> {
    let docker = docker()?;
    let alone = OciSeccomp {
        architectures: vec![Architecture::X86_64],
        ..docker.clone()
    };
    let policy = lazaret_text::policy::parse(include_str!("../data/hapi-policy.yaml"))
        .context("cannot read the policy")?;
    let listener = Listener {
        path: "/run/lazaret/gate.sock".to_owned(),
        metadata: String::new(),
    };
    Ok(vec![
        from_profile("Docker's default profile, x86-64 with i386 and x32", docker)?,
        from_profile("Docker's default profile, x86-64 alone", alone)?,
        from_table(
            "FHIR server's policy, asked calls included",
            policy.kernel_table(),
            Some(&listener),
        )?,
        from_table("FHIR server's policy, static", policy.static_table(), None)?,
        from_table(
            "FHIR server's policy, static, with one errno",
            one_errno(policy.static_table()),
            None,
        )?,
    ])
}

/// Without calls that are denied in another way than the rest: seccompiler has two actions for a filter.
fn one_errno(mut table: RuleTable) -> RuleTable {
    for numbers in table.abis.values_mut() {
        numbers
            .entries
            .retain(|_, entry| !entry.branches.is_empty() || entry.otherwise == Verdict::Allow);
    }
    table
}

/// As Docker gives it to a container with its default capabilities.
fn docker() -> anyhow::Result<OciSeccomp> {
    let document = oci::read::parse(include_bytes!(
        "../../../crates/lazaret-filter/tests/data/profiles/moby-20.10.24.json"
    ))?;
    let capabilities: BTreeSet<String> = BTreeSet::new();
    let host = Host {
        abi: Abi::X86_64,
        kernel: (6, 1),
        capabilities: &capabilities,
    };
    Ok(document.resolve(&host).profile)
}

fn from_profile(name: &'static str, profile: OciSeccomp) -> anyhow::Result<Subject> {
    let (table, _) = meaning(&profile, &Engine::debian12().without_stub())?;
    Ok(Subject {
        name,
        profile,
        table,
    })
}

fn from_table(
    name: &'static str,
    table: RuleTable,
    listener: Option<&Listener>,
) -> anyhow::Result<Subject> {
    let profile = oci::profile(&table, listener)?;
    Ok(Subject {
        name,
        profile,
        table,
    })
}
