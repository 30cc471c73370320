//! From a profile to a policy text: every rule with its reason.
//!
//! Nothing is guessed silently: what is allowed without having been seen (what the kernel returns through, the vDSO's
//! fallbacks, equivalents) says so in its rule, and what was seen but cannot be allowed is a [`Warning`].

mod rules;

use crate::digest::Digest;
use crate::format::policy::{
    API_VERSION, CeilingV1, EnvironmentV1, EvidenceV1, ImageV1, KIND, MetadataV1, ModeV1,
    OtherwiseV1, PhasesV1, PolicyV1, PreludeV1,
};
use crate::phase::Phase;
use crate::policy::Serving;
use crate::profile::{Profile, Unseen};
use crate::recording::{Gap, Recording};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use lazaret_filter::abi::Abi;
use rules::Calls;

/// Oldest kernel with the allow bitmap and a notification that can be trusted with phases (DESIGN §10).
const OLDEST_KERNEL: &str = ">=5.11";

/// Which calls are allowed beside those seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// None.
    Exact,
    /// Those that differ only by C library and version.
    Equivalent,
}

/// What the policy shall say beside its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its name.
    pub name: String,
    /// Its revision.
    pub revision: u64,
    /// When it serves.
    pub serving: Option<Serving>,
    /// See [`Stability`].
    pub stability: Stability,
}

/// A profile that no policy can be made from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SynthError {
    /// No recording.
    #[error("no recording was given")]
    Nothing,
    /// Recordings of different images.
    #[error("the recordings are of different images: `{one}` and `{other}` share no digest")]
    Images {
        /// One.
        one: String,
        /// Another.
        other: String,
    },
    /// Recordings of different machines.
    #[error("the recordings are of different architectures: {one} and {other}")]
    Architectures {
        /// One.
        one: Abi,
        /// Another.
        other: Abi,
    },
    /// An incomplete recording.
    #[error("recording {recording} is incomplete: {gap}")]
    Incomplete {
        /// Its digest.
        recording: Digest,
        /// Why.
        gap: Gap,
    },
    /// Calls by a convention that the policy closes.
    #[error(
        "{count} calls by {abi} were recorded, for example number {nr}: a policy closes every convention but the native one"
    )]
    Foreign {
        /// The convention.
        abi: Abi,
        /// How often.
        count: u64,
        /// One number.
        nr: u32,
    },
}

/// Something that was seen and is not in the policy, or is in it and deserves a look.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// Seen, and under the ceiling.
    #[error(
        "`{call}` was made {count} times during {phase} and is under the ceiling: it will be denied"
    )]
    UnderCeiling {
        /// The call.
        call: String,
        /// The phase.
        phase: Phase,
        /// How often.
        count: u64,
    },
    /// Seen, and not in the tables.
    #[error(
        "call number {nr} was made {count} times during {phase} and has no name in the tables: the policy allows it by number, which no OCI profile can say"
    )]
    Nameless {
        /// The number.
        nr: u32,
        /// The phase.
        phase: Phase,
        /// How often.
        count: u64,
    },
    /// A dangerous call that the server itself makes while serving.
    #[error(
        "`{call}` was made {count} times while serving: the policy leaves it open to whoever takes the server over"
    )]
    OpenWhileServing {
        /// The call.
        call: String,
        /// How often.
        count: u64,
    },
}

/// A policy text and what to know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synthesis {
    /// The text; passes every check of the language.
    pub policy: PolicyV1,
    /// In the order of the calls.
    pub warnings: Vec<Warning>,
}

/// Makes a policy.
///
/// # Guarantees
/// The same profile and request give the same text on every machine.
///
/// # Errors
/// See [`SynthError`]: incomplete evidence is refused, never papered over.
pub fn synthesise(profile: &Profile, request: &Request) -> Result<Synthesis, SynthError> {
    let first = profile
        .recordings()
        .values()
        .next()
        .ok_or(SynthError::Nothing)?;
    agree(profile, first)?;
    let abi = first.environment.arch;
    let seen = profile.seen();
    if let Some(((abi, nr, _), seen)) = seen.iter().find(|((other, _, _), _)| *other != abi) {
        return Err(SynthError::Foreign {
            abi: *abi,
            count: seen.count,
            nr: *nr,
        });
    }
    let mut calls = Calls::new(profile.recordings().len());
    for ((_, nr, phase), seen) in &seen {
        calls.add(abi, *nr, *phase, seen);
    }
    let rules = calls.rules(abi, request.stability);
    let policy = PolicyV1 {
        api_version: API_VERSION.to_string(),
        ceiling: CeilingV1::Named("default".to_string()),
        environment: environment(profile, abi),
        evidence: Some(evidence(profile)),
        image: image(profile, first),
        kind: KIND.to_string(),
        metadata: MetadataV1 {
            name: request.name.clone(),
            revision: request.revision,
        },
        mode: ModeV1::Enforce,
        otherwise: OtherwiseV1 {
            action: "errno".to_string(),
            errno: "EPERM".to_string(),
        },
        phases: PhasesV1 {
            prelude: Some(PreludeV1 {
                calls: calls.prelude.iter().cloned().collect(),
            }),
            serving: request.serving.as_ref().map(Serving::wire),
            ..PhasesV1::default()
        },
        rules,
    };
    Ok(Synthesis {
        policy,
        warnings: calls.warnings,
    })
}

fn agree(profile: &Profile, first: &Recording) -> Result<(), SynthError> {
    for (digest, recording) in profile.recordings() {
        if let Some(gap) = recording.gaps().first() {
            return Err(SynthError::Incomplete {
                recording: *digest,
                gap: *gap,
            });
        }
        if !recording
            .subject
            .digests
            .iter()
            .any(|digest| first.subject.digests.contains(digest))
        {
            let (one, other) = (first.subject.name.clone(), recording.subject.name.clone());
            return Err(SynthError::Images { one, other });
        }
        if recording.environment.arch != first.environment.arch {
            return Err(SynthError::Architectures {
                one: first.environment.arch,
                other: recording.environment.arch,
            });
        }
    }
    Ok(())
}

fn environment(profile: &Profile, abi: Abi) -> EnvironmentV1 {
    let runtimes: BTreeSet<&String> = profile
        .recordings()
        .values()
        .map(|recording| &recording.environment.runtime)
        .collect();
    EnvironmentV1 {
        arch: abi.to_string(),
        kernel: OLDEST_KERNEL.to_string(),
        libc: Vec::new(),
        no_new_privileges: profile
            .recordings()
            .values()
            .all(|recording| recording.environment.no_new_privileges),
        runtimes: runtimes.into_iter().cloned().collect(),
    }
}

fn image(profile: &Profile, first: &Recording) -> ImageV1 {
    let digests: BTreeSet<Digest> = profile
        .recordings()
        .values()
        .flat_map(|recording| &recording.subject.digests)
        .copied()
        .collect();
    ImageV1 {
        digests: digests.into_iter().collect(),
        name: first.subject.name.clone(),
    }
}

fn evidence(profile: &Profile) -> EvidenceV1 {
    let recordings = profile.recordings();
    let counted = recordings
        .values()
        .filter_map(|recording| recording.exercise.as_ref());
    let fewest = counted
        .filter(|exercise| exercise.declared > 0)
        .min_by_key(|exercise| exercise.succeeded);
    EvidenceV1 {
        complete: recordings
            .values()
            .all(|recording| recording.gaps().is_empty()),
        interactions: fewest.map_or_else(
            || "none".to_string(),
            |exercise| format!("{}/{}", exercise.succeeded, exercise.declared),
        ),
        lost: recordings
            .values()
            .map(|recording| recording.losses.total())
            .sum(),
        recordings: recordings.keys().copied().collect(),
        since_last_new: recordings
            .values()
            .map(Recording::since_last_new_ns)
            .min()
            .unwrap_or(0)
            / 1_000_000_000,
        stopped: recordings.values().all(|recording| recording.stopped),
        unseen: match profile.unseen() {
            Unseen::Unknown => "unknown".to_string(),
            Unseen::PerMille(share) => format!("{}.{} %", share / 10, share % 10),
        },
    }
}
