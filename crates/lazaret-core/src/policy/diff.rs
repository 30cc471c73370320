//! What one policy allows and another does not, by meaning: phase by phase, over every number and every argument.
//!
//! The order of a text, its reasons and its evidence do not matter here, nor who wrote it: a profile's meaning can stand on
//! either side. A profile knows no phases; its one meaning counts for each of a container's.

use super::{ExecStart, Policy};
use crate::format::policy::PolicyV1;
use crate::phase::Phase;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use lazaret_filter::abi::Abi;
use lazaret_filter::prove::{Comparison, Difference, ProveError, Space};
use lazaret_filter::rule::{RuleTable, Verdict};

/// The phases of a container that a profile can speak of: all but the prelude, which a policy leaves to the runtime.
const LIFE: [Phase; 4] = [Phase::Startup, Phase::Serving, Phase::Stopping, Phase::Exec];

/// One side of a comparison.
#[derive(Clone, Copy, Debug)]
pub enum Side<'s> {
    /// A policy.
    Policy(&'s Policy),
    /// What the filter of a profile means.
    Table(&'s RuleTable),
}

impl Side<'_> {
    fn kernel(&self) -> RuleTable {
        match self {
            Side::Policy(policy) => policy.kernel_table(),
            Side::Table(table) => (*table).clone(),
        }
    }

    fn abi(&self) -> Option<Abi> {
        match self {
            Side::Policy(policy) => Some(policy.abi()),
            Side::Table(_) => None,
        }
    }
}

/// One difference, and where it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The phases with this difference; none where it is the kernel's verdict that differs.
    pub phases: Vec<Phase>,
    /// Numbers, arguments, verdicts (`expected` is A's, `found` is B's) and a call that shows it.
    pub difference: Difference,
}

/// A field with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldChange {
    /// The field, from the root of the document.
    pub field: &'static str,
    /// A's value, as people read it.
    pub a: String,
    /// B's.
    pub b: String,
}

/// How B differs from A.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// B lets through what A does not.
    pub opened: Vec<Change>,
    /// A lets through what B does not.
    pub closed: Vec<Change>,
    /// Refused by both, in another way.
    pub refused: Vec<Change>,
    /// Who decides has changed: the kernel or the gate.
    pub bands: Vec<Change>,
    /// Differences in the lists above that are not listed, because there are too many.
    pub omitted: usize,
    /// Two policies' other fields.
    pub fields: Vec<FieldChange>,
}

impl Diff {
    /// Whether the two mean the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let changes = [&self.opened, &self.closed, &self.refused, &self.bands];
        changes.into_iter().all(Vec::is_empty) && self.fields.is_empty()
    }
}

/// Why two sides cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiffError {
    /// Their numbers are other calls.
    #[error("one policy is for {a}, the other for {b}: their numbers mean different calls")]
    Architectures {
        /// A's.
        a: Abi,
        /// B's.
        b: Abi,
    },
    /// The conditions are too many.
    #[error("cannot compare the meanings")]
    Prove(#[from] ProveError),
}

/// How `b` differs from `a`.
///
/// # Guarantees
/// Empty exactly when every call gets the same verdict from both in every phase and from the kernel, and no field that a
/// container's fate depends on differs.
///
/// # Errors
/// Policies for different architectures, or conditions beyond the prover's bound.
pub fn diff(a: Side<'_>, b: Side<'_>) -> Result<Diff, DiffError> {
    if let (Some(a), Some(b)) = (a.abi(), b.abi())
        && a != b
    {
        return Err(DiffError::Architectures { a, b });
    }
    let mut diff = Diff::default();
    let mut space = Space::new();
    for (phase, a, b) in phases(a, b) {
        let a = space.of_table(&a)?;
        let b = space.of_table(&b)?;
        let Comparison {
            looser,
            stricter,
            other,
            omitted,
            // the kernel dispatches nothing there
            no_call: _,
        } = space.compare(&a, &b)?;
        diff.omitted += omitted.looser + omitted.stricter + omitted.other;
        for (list, found) in [
            (&mut diff.opened, looser),
            (&mut diff.closed, stricter),
            (&mut diff.refused, other),
        ] {
            found.into_iter().for_each(|one| add(list, phase, one));
        }
    }
    let a_kernel = space.of_table(&a.kernel())?;
    let b_kernel = space.of_table(&b.kernel())?;
    let kernel = space.compare(&a_kernel, &b_kernel)?;
    diff.omitted += kernel.omitted.looser + kernel.omitted.stricter;
    let bands = kernel.looser.into_iter().chain(kernel.stricter);
    diff.bands = bands
        .filter(|one| [one.expected, one.found].contains(&Verdict::Ask))
        .map(|difference| Change {
            phases: Vec::new(),
            difference,
        })
        .collect();
    if let (Side::Policy(a), Side::Policy(b)) = (a, b) {
        diff.fields = fields(a, b);
    }
    Ok(diff)
}

/// The pairs of meanings that are compared.
fn phases(a: Side<'_>, b: Side<'_>) -> Vec<(Phase, RuleTable, RuleTable)> {
    if let (Side::Policy(a), Side::Policy(b)) = (a, b) {
        return Phase::ALL
            .into_iter()
            .map(|phase| (phase, a.phase_table(phase), b.phase_table(phase)))
            .collect();
    }
    let table = |side: Side<'_>, phase| match side {
        Side::Policy(policy) => RuleTable {
            // how other conventions die is the engine's choice, not the policy's
            foreign: policy.kernel_table().foreign,
            ..policy.phase_table(phase)
        },
        Side::Table(table) => table.clone(),
    };
    LIFE.into_iter()
        .map(|phase| (phase, table(a, phase), table(b, phase)))
        .collect()
}

/// Adds a difference, or its phase to the same difference of other phases.
fn add(changes: &mut Vec<Change>, phase: Phase, difference: Difference) {
    let same = |change: &&mut Change| {
        let other = &change.difference;
        (
            &other.architectures,
            &other.numbers,
            &other.when,
            other.expected,
            other.found,
        ) == (
            &difference.architectures,
            &difference.numbers,
            &difference.when,
            difference.expected,
            difference.found,
        )
    };
    match changes.iter_mut().find(same) {
        Some(change) => change.phases.push(phase),
        None => changes.push(Change {
            phases: [phase].into(),
            difference,
        }),
    }
}

/// The fields that a container's fate depends on, and what each says.
fn fields(a: &Policy, b: &Policy) -> Vec<FieldChange> {
    let values = |policy: &Policy| -> Vec<(&'static str, String)> {
        let wire: &PolicyV1 = policy.wire();
        let digests: Vec<String> = wire.image.digests.iter().map(ToString::to_string).collect();
        let serving = policy
            .serving()
            .map_or("by hand".to_string(), ToString::to_string);
        let exec = match policy.exec_start() {
            ExecStart::Admit => "admit",
            ExecStart::Refuse => "refuse",
        };
        let prelude = wire.phases.prelude.as_ref().map_or(Vec::new(), |prelude| {
            prelude.calls.iter().map(ToString::to_string).collect()
        });
        Vec::from([
            ("environment.kernel", wire.environment.kernel.clone()),
            ("environment.libc", wire.environment.libc.join(", ")),
            (
                "environment.noNewPrivileges",
                wire.environment.no_new_privileges.to_string(),
            ),
            ("environment.runtimes", wire.environment.runtimes.join(", ")),
            ("image.digests", digests.join(" ")),
            ("mode", format!("{:?}", policy.mode()).to_lowercase()),
            ("phases.exec.start", exec.to_string()),
            ("phases.prelude.calls", prelude.join(" ")),
            ("phases.serving", serving),
            ("phases.startup.restarts", policy.restarts().to_string()),
        ])
    };
    values(a)
        .into_iter()
        .zip(values(b))
        .filter(|(a, b)| a.1 != b.1)
        .map(|((field, a), (_, b))| FieldChange { field, a, b })
        .collect()
}
