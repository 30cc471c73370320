//! `lazaret status` as text, and the words for a container's state that the live table uses too.

use super::{short_id, shown};
use lazaret_core::control::{Admitted, ContainerState, ContainerStatus, InForce};
use std::fmt::Write as _;

/// The whole answer.
pub(crate) fn text(version: &str, containers: &[ContainerStatus], lost_events: u64) -> String {
    let mut text = format!(
        "lazaretd {}, {} containers, {lost_events} events lost\n",
        shown(version),
        containers.len()
    );
    for container in containers {
        for line in lines(container) {
            // a String takes every write
            writeln!(text, "{line}").unwrap_or_default();
        }
    }
    text
}

/// One container: a line, and what belongs to it indented.
pub(crate) fn lines(container: &ContainerStatus) -> Vec<String> {
    let id = short_id(&container.id);
    let name = name(container);
    let head = |said: &str| format!("{id}  {name}  {said}");
    match &container.state {
        ContainerState::Prelude => vec![head("prelude (papers not checked yet)")],
        ContainerState::PapersLost { reason } => vec![head(&format!(
            "papers lost, every asked call fails: {}",
            shown(reason)
        ))],
        ContainerState::Unsupervised => vec![head(
            "unsupervised: its listener is gone, asked calls fail until it is started again",
        )],
        ContainerState::Admitted(admitted) => {
            let mut lines = vec![head(&format!(
                "{}  {}",
                phase(admitted),
                shown(&admitted.in_force.mode)
            ))];
            lines.extend(
                details(admitted)
                    .into_iter()
                    .map(|line| format!("  {line}")),
            );
            lines
        }
    }
}

/// What is known of an admitted container beside its phase.
fn details(admitted: &Admitted) -> Vec<String> {
    let mut lines = vec![format!("in force   {}", signed(&admitted.in_force))];
    if admitted.in_kernel.digest != admitted.in_force.digest {
        lines.push(format!("in kernel  {}", signed(&admitted.in_kernel)));
    }
    if !admitted.until_restart.is_empty() {
        lines.push(format!(
            "until restart: {} (denied by the policy in force, allowed by the kernel's filter)",
            joined(&admitted.until_restart)
        ));
    }
    lines.push(format!("image      {}", admitted.image));
    if admitted.execs > 0 {
        lines.push(format!("execs      {}", admitted.execs));
    }
    if !admitted.permits.is_empty() {
        lines.push(format!("permits    {}", joined(&admitted.permits)));
    }
    for (phase, counts) in &admitted.counts {
        lines.push(format!(
            "{:<9}  asked {} allowed {} denied {}",
            phase.name(),
            counts.asked,
            counts.allowed,
            counts.denied
        ));
    }
    if !admitted.stricter.is_empty() {
        lines.push(format!(
            "kernel stricter than the policy: {}",
            joined(&admitted.stricter)
        ));
    }
    lines
}

fn signed(policy: &InForce) -> String {
    format!(
        "{} revision {} ({}), signed by {}",
        shown(&policy.policy),
        policy.revision,
        policy.digest,
        shown(&policy.key)
    )
}

fn joined(words: &[String]) -> String {
    shown(&words.join(" "))
}

/// The container's name, `-` when it has none.
pub(crate) fn name(container: &ContainerStatus) -> String {
    if container.name.is_empty() {
        "-".to_string()
    } else {
        shown(&container.name)
    }
}

/// `startup`, or during a dwell `startup → serving in dwell`.
pub(crate) fn phase(admitted: &Admitted) -> String {
    match admitted.dwell {
        Some(next) => format!("{} → {next} in dwell", admitted.phase),
        None => admitted.phase.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lazaret_core::control::Counts;
    use lazaret_core::digest::Digest;
    use lazaret_core::phase::Phase;

    fn policy(revision: u64) -> InForce {
        InForce {
            policy: "fhir".to_string(),
            revision,
            digest: Digest::of(&revision.to_le_bytes()),
            key: "site".to_string(),
            mode: "enforce".to_string(),
        }
    }

    fn admitted() -> Admitted {
        let counts = Counts {
            asked: 9,
            allowed: 7,
            denied: 2,
        };
        Admitted {
            image: Digest::of(b"image"),
            in_force: policy(4),
            in_kernel: policy(4),
            until_restart: Vec::new(),
            phase: Phase::Serving,
            dwell: None,
            permits: Vec::new(),
            execs: 0,
            counts: [(Phase::Serving, counts)].into(),
            stricter: Vec::new(),
        }
    }

    fn container(state: ContainerState) -> ContainerStatus {
        ContainerStatus {
            id: "0123456789abcdef".to_string(),
            name: "hapi".to_string(),
            pid: 7,
            state,
        }
    }

    fn said(state: ContainerState) -> String {
        text("0.1.0", &[container(state)], 3)
    }

    #[test]
    fn nothing_is_said_of_what_is_as_usual() {
        let text = said(ContainerState::Admitted(Box::new(admitted())));
        let expected = format!(
            "lazaretd 0.1.0, 1 containers, 3 events lost\n\
             0123456789ab  hapi  serving  enforce\n  \
             in force   fhir revision 4 ({}), signed by site\n  \
             image      {}\n  \
             serving    asked 9 allowed 7 denied 2\n",
            policy(4).digest,
            Digest::of(b"image")
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn everything_that_is_not_as_usual_is_said() {
        let mut admitted = admitted();
        admitted.in_kernel = policy(3);
        admitted.until_restart = vec!["kill".to_string(), "mkdir".to_string()];
        admitted.phase = Phase::Startup;
        admitted.dwell = Some(Phase::Serving);
        admitted.permits = vec!["sha256:ab".to_string()];
        admitted.execs = 2;
        let text = said(ContainerState::Admitted(Box::new(admitted)));
        for part in [
            "hapi  startup → serving in dwell  enforce\n",
            "in kernel  fhir revision 3 (",
            "until restart: kill mkdir (",
            "permits    sha256:ab\n",
            "execs      2\n",
        ] {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
    }

    #[test]
    fn states_without_papers_say_what_it_means() {
        let lost = ContainerState::PapersLost {
            reason: "no key \u{1b}[2J".to_string(),
        };
        let text = said(lost);
        assert!(text.contains("papers lost, every asked call fails: no key \\u{1b}[2J"));
        assert!(said(ContainerState::Unsupervised).contains("asked calls fail until"));
        assert!(said(ContainerState::Prelude).contains("prelude"));
    }
}
