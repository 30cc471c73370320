//! What is told of each event: its codes, its fixed sentence and the details that may leave. The table is in the module above.

use super::clean;
use super::codes::{Action, Family, Outcome};
use lazaret_core::event::What;

/// Calls that are named one by one; the count says when there are more.
const MAX_CALLS: usize = 64;

/// Who wanted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requestor {
    /// A process of the container.
    Process,
    /// The gate itself.
    Gate,
    /// Somebody whom the event does not name: an operator, the engine.
    Somebody,
}

/// All that an `AuditEvent` says besides who, where and when.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) code: &'static str,
    pub(super) display: &'static str,
    pub(super) family: Family,
    pub(super) dicom: Option<(&'static str, &'static str)>,
    pub(super) action: Action,
    pub(super) outcome: Outcome,
    pub(super) sentence: &'static str,
    pub(super) requestor: Requestor,
    pub(super) details: Vec<(&'static str, String)>,
}

const START: (&str, &str) = ("110120", "Application Start");
const STOP: (&str, &str) = ("110121", "Application Stop");
const OVERRIDE: (&str, &str) = ("110127", "Emergency Override Started");
const CONFIGURATION: (&str, &str) = ("110129", "Security Configuration");
const RESTRICTED: (&str, &str) = ("110132", "Use of Restricted Function");

impl Told {
    fn activity(code: &'static str, display: &'static str, sentence: &'static str) -> Told {
        Told {
            code,
            display,
            family: Family::Activity,
            dicom: None,
            action: Action::Execute,
            outcome: Outcome::Success,
            sentence,
            requestor: Requestor::Somebody,
            details: Vec::new(),
        }
    }

    fn alert(
        code: &'static str,
        display: &'static str,
        outcome: Outcome,
        sentence: &'static str,
    ) -> Told {
        Told {
            family: Family::Alert,
            outcome,
            ..Told::activity(code, display, sentence)
        }
    }

    fn dicom(mut self, dicom: (&'static str, &'static str)) -> Told {
        self.dicom = Some(dicom);
        self
    }

    fn by(mut self, requestor: Requestor) -> Told {
        self.requestor = requestor;
        self
    }

    /// A detail that is of its form, or none.
    fn text(mut self, name: &'static str, value: Option<&str>) -> Told {
        self.details
            .extend(value.map(|value| (name, value.to_owned())));
        self
    }

    fn number(mut self, name: &'static str, value: impl Into<u64>) -> Told {
        self.details.push((name, value.into().to_string()));
        self
    }

    /// How many, and their names.
    fn calls(mut self, count: &'static str, name: &'static str, calls: &[String]) -> Told {
        self.details.push((count, calls.len().to_string()));
        for call in calls.iter().take(MAX_CALLS) {
            self = self.text(name, clean::word(call));
        }
        self
    }
}

const fn process_kind(exec: bool) -> &'static str {
    if exec { "exec" } else { "container" }
}

/// Causes of a change of phase that the gate is known to give; others are sentences, which do not leave.
const CAUSES: [&str; 8] = [
    "execve",
    "readiness",
    "quiet",
    "health",
    "stop signal",
    "process gone",
    "by hand",
    "restart",
];

pub(super) fn told(what: &What) -> Option<Told> {
    Some(match what {
        What::ListenerReceived { .. } | What::DwellBegan { .. } | What::Asked { .. } => return None,
        What::GateStarted { version } => {
            Told::activity("gate-started", "Gate started", "the gate began to answer")
                .dicom(START)
                .by(Requestor::Gate)
                .text("version", clean::version(version))
        }
        What::GateStopped => Told::activity("gate-stopped", "Gate stopped", "the gate was told to end")
            .dicom(STOP),
        What::Admitted {
            image,
            policy,
            key,
            mode,
            stricter,
        } => Told::activity(
            "admitted",
            "Process admitted",
            "the papers were in order and the process was started",
        )
        .dicom(START)
        .by(Requestor::Process)
        .text("image", clean::digest(image))
        .text("policy", clean::digest(policy))
        .text("key", clean::key(key))
        .text("mode", clean::word(mode))
        .calls("calls-held-more-strictly", "call-held-more-strictly", stricter),
        What::Refused { check, .. } => Told::alert(
            "refused",
            "Start refused",
            Outcome::Serious,
            "the papers were not in order and the process was not started",
        )
        .by(Requestor::Process)
        .text("check", clean::word(check)),
        What::PhaseChanged { from, to, cause } => Told::activity(
            "phase-changed",
            "Phase changed",
            "another phase of the policy holds",
        )
        .text("from", Some(from.name()))
        .text("to", Some(to.name()))
        .text("cause", CAUSES.into_iter().find(|known| known == cause)),
        What::RestartRefused { .. } => Told::alert(
            "restart-refused",
            "Restart refused",
            Outcome::Minor,
            "the server tried to begin again and its policy does not let it",
        )
        .dicom(RESTRICTED)
        .by(Requestor::Process),
        What::Revised {
            from,
            to,
            revision,
            key,
            until_restart,
        } => {
            let mut told = Told::alert(
                "revised",
                "Policy revised",
                Outcome::Success,
                "another signed revision of the policy is in force",
            );
            told.action = Action::Update;
            told.dicom(CONFIGURATION)
                .text("policy-before", clean::digest(from))
                .text("policy", clean::digest(to))
                .number("revision", *revision)
                .text("key", clean::key(key))
                .calls("calls-open-until-restart", "call-open-until-restart", until_restart)
        }
        What::Permitted {
            permit,
            key,
            until_ms,
            ..
        } => Told::alert(
            "permitted",
            "Entry under a permit",
            Outcome::Success,
            "a process was put into the container under a signed permit",
        )
        .dicom(OVERRIDE)
        .text("permit", clean::digest(permit))
        .text("key", clean::key(key))
        .text("until", Some(&super::instant(*until_ms))),
        What::TakenOver {
            exec, asked_again, ..
        } => Told::activity(
            "taken-over",
            "Taken over",
            "the gate goes on with a process of the gate before it",
        )
        .by(Requestor::Gate)
        .text("process", Some(process_kind(*exec)))
        .number("asked-again", *asked_again),
        What::PapersLost { check, .. } => Told::alert(
            "papers-lost",
            "Papers lost",
            Outcome::Major,
            "the papers of a running container are no longer in order and its asked calls fail",
        )
        .by(Requestor::Gate)
        .text("check", clean::word(check)),
        What::Denied {
            times,
            nr,
            arch,
            call,
            phase,
            enforced,
            ..
        } => {
            let (outcome, sentence) = if *enforced {
                (Outcome::Minor, "calls were denied")
            } else {
                (Outcome::Success, "calls went on that the policy would deny")
            };
            Told::alert("denied", "Calls denied", outcome, sentence)
                .dicom(RESTRICTED)
                .by(Requestor::Process)
                .text("call", clean::word(call))
                .number("number", *nr)
                .text("convention", clean::word(arch))
                .text("phase", Some(phase.name()))
                .number("times", *times)
                .text("enforced", Some(if *enforced { "true" } else { "false" }))
        }
        What::Unsupervised { .. } => Told::alert(
            "unsupervised",
            "Container unsupervised",
            Outcome::Serious,
            "a container runs whose asked calls nobody answers",
        )
        .by(Requestor::Gate),
        What::Ended { exec } => Told::activity("ended", "Processes ended", "all its processes are gone")
            .dicom(STOP)
            .text("process", Some(process_kind(*exec))),
        What::EventsLost { lines } => Told::alert(
            "events-lost",
            "Events lost",
            Outcome::Serious,
            "events are missing in the node's log",
        )
        .by(Requestor::Gate)
        .number("lines", *lines),
        What::AuditLost {
            dropped,
            rejected,
            gaps,
        } => Told::alert(
            "audit-lost",
            "Audit events lost",
            Outcome::Serious,
            "audit events did not reach this server; the totals count from the making of the node's queue",
        )
        .by(Requestor::Gate)
        .number("dropped", *dropped)
        .number("rejected", *rejected)
        .number("gaps", *gaps),
    })
}
