//! One event of each kind at least, and the place they stand at. The match below does not compile when a kind is missing.

use lazaret_core::event::{Event, What};
use lazaret_core::phase::Phase;
use lazaret_fhir::audit::{Node, Place, audit_event};
use serde_json::Value;
use std::collections::BTreeSet;

/// How many kinds of events there are.
const KINDS: usize = 18;

/// The id of a key, as cosign writes it.
const KEY: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

fn kind(what: &What) -> usize {
    match what {
        What::GateStarted { .. } => 0,
        What::GateStopped => 1,
        What::ListenerReceived { .. } => 2,
        What::Admitted { .. } => 3,
        What::Refused { .. } => 4,
        What::PhaseChanged { .. } => 5,
        What::DwellBegan { .. } => 6,
        What::RestartRefused { .. } => 7,
        What::Revised { .. } => 8,
        What::Permitted { .. } => 9,
        What::TakenOver { .. } => 10,
        What::PapersLost { .. } => 11,
        What::Denied { .. } => 12,
        What::Asked { .. } => 13,
        What::Unsupervised { .. } => 14,
        What::Ended { .. } => 15,
        What::EventsLost { .. } => 16,
        What::AuditLost { .. } => 17,
    }
}

fn digest(nibble: char) -> String {
    format!("sha256:{}", nibble.to_string().repeat(64))
}

fn denied(enforced: bool) -> What {
    What::Denied {
        times: 100_000,
        pid: 4711,
        process: "import-worker".to_owned(),
        nr: 425,
        arch: "x86_64".to_owned(),
        call: "io_uring_setup".to_owned(),
        args: [8, 0x7ffd_0000_1000, 0, 0, 0, 0],
        phase: Phase::Serving,
        enforced,
    }
}

/// Every kind of event, with values as the gate gives them.
pub(crate) fn samples() -> Vec<Event> {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let all = vec![
        What::GateStarted {
            version: "0.1.0".to_owned(),
        },
        What::GateStopped,
        What::ListenerReceived {
            pid: 4711,
            exec: false,
        },
        What::Admitted {
            image: digest('a'),
            policy: digest('b'),
            key: KEY.to_owned(),
            mode: "enforce".to_owned(),
            stricter: texts(&["clone3", "425"]),
        },
        What::Refused {
            check: "signature".to_owned(),
            reason: "no pinned key signed /var/lib/patients/policy".to_owned(),
        },
        What::PhaseChanged {
            from: Phase::Startup,
            to: Phase::Serving,
            cause: "readiness".to_owned(),
        },
        What::PhaseChanged {
            from: Phase::Serving,
            to: Phase::Stopping,
            cause: "something that was never heard of".to_owned(),
        },
        What::DwellBegan {
            phase: Phase::Serving,
            dwell_ms: 60_000,
        },
        What::RestartRefused {
            pid: 4711,
            process: "postgres".to_owned(),
            reason: "no restart is left".to_owned(),
        },
        What::Revised {
            from: digest('b'),
            to: digest('c'),
            revision: 7,
            key: KEY.to_owned(),
            until_restart: texts(&["ptrace"]),
        },
        What::Permitted {
            permit: digest('d'),
            key: KEY.to_owned(),
            reason: "the import of a ward stands still".to_owned(),
            until_ms: 1_800_000_000_000,
        },
        What::TakenOver {
            pid: 4711,
            exec: true,
            asked_again: 3,
        },
        What::PapersLost {
            check: "expired".to_owned(),
            reason: "the statement was good until yesterday".to_owned(),
        },
        denied(true),
        denied(false),
        What::Asked {
            phase: Phase::Startup,
            calls: [("openat".to_owned(), 12)].into(),
        },
        What::Unsupervised { pid: 4711 },
        What::Ended { exec: false },
        What::Ended { exec: true },
        What::EventsLost { lines: 9 },
        What::AuditLost {
            dropped: 1,
            rejected: 2,
            gaps: 3,
        },
    ];
    let kinds: BTreeSet<usize> = all.iter().map(kind).collect();
    assert_eq!(kinds, (0..KINDS).collect(), "a kind of event has no sample");
    all.into_iter()
        .zip(0..)
        .map(|(what, n)| Event {
            v: 1,
            time_ms: 1_700_000_000_000 + n,
            container: match what {
                What::GateStarted { .. } | What::GateStopped | What::AuditLost { .. } => {
                    String::new()
                }
                _ => "4f".repeat(32),
            },
            what,
        })
        .collect()
}

pub(crate) fn node() -> Node {
    Node::new("node-7.example").expect("a plain name")
}

pub(crate) fn place(offset: u64) -> Place {
    Place {
        log: [7; 32],
        offset,
    }
}

/// The samples that are exported, each with its resource.
pub(crate) fn exported() -> Vec<(Event, Value)> {
    samples()
        .into_iter()
        .zip(0..)
        .filter_map(|(event, offset)| {
            let resource = audit_event(&event, &node(), &place(offset))?;
            Some((event, resource))
        })
        .collect()
}
