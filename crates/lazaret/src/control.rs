//! `lazaret status`, `watch` and `phase`: talking to the gate on this node.

use crate::args::{Control, Format, PhaseArgs};
use crate::exit::{Exit, OrExit, Outcome, fail};
use anyhow::Context;
use lazaret_core::control::{ContainerState, ContainerStatus, Reply, Request, V1};
use lazaret_core::event::{Event, What};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Longest line that is read from the gate, in bytes.
const MAX_REPLY: u64 = 16 << 20;

struct Gate {
    lines: BufReader<UnixStream>,
}

impl Gate {
    fn connect(socket: &Path) -> Outcome<Gate> {
        let shown = socket.display();
        let stream = UnixStream::connect(socket)
            .with_context(|| {
                format!("cannot reach the gate on `{shown}` (hint: is lazaretd running?)")
            })
            .or_exit(Exit::HostCannot)?;
        Ok(Gate {
            lines: BufReader::new(stream),
        })
    }

    fn ask(&mut self, request: &Request) -> Outcome<Reply> {
        let mut line = serde_json::to_vec(request)
            .context("cannot write the request")
            .or_exit(Exit::HostCannot)?;
        line.push(b'\n');
        self.lines
            .get_mut()
            .write_all(&line)
            .context("cannot write to the gate")
            .or_exit(Exit::HostCannot)?;
        match self.reply()? {
            Some(Reply::Error { reason, .. }) => fail(Exit::No, reason),
            Some(reply) => Ok(reply),
            None => fail(Exit::HostCannot, "the gate hung up"),
        }
    }

    fn reply(&mut self) -> Outcome<Option<Reply>> {
        let mut line = String::new();
        let mut bounded = std::io::Read::take(&mut self.lines, MAX_REPLY);
        bounded
            .read_line(&mut line)
            .context("cannot read from the gate")
            .or_exit(Exit::HostCannot)?;
        if line.is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&line)
            .map(Some)
            .context("the gate answered something else")
            .or_exit(Exit::HostCannot)
    }
}

/// `lazaret status`
///
/// # Errors
/// Exit 3 when the gate cannot be reached.
pub fn status(args: &Control, format: Format) -> Outcome {
    let reply = Gate::connect(&args.control)?.ask(&Request::Status { v: V1 })?;
    let Reply::Status {
        version,
        containers,
        lost_events,
        ..
    } = &reply
    else {
        return fail(Exit::HostCannot, "the gate answered something else");
    };
    match format {
        Format::Json => println!(
            "{}",
            serde_json::to_string(&reply)
                .context("status")
                .or_exit(Exit::HostCannot)?
        ),
        Format::Text => {
            println!(
                "lazaretd {version}, {} containers, {lost_events} events lost",
                containers.len()
            );
            containers.iter().for_each(print_container);
        }
    }
    Ok(Exit::Yes)
}

fn print_container(container: &ContainerStatus) {
    let id: String = container.id.chars().take(12).collect();
    let name = if container.name.is_empty() {
        "-"
    } else {
        &container.name
    };
    match &container.state {
        ContainerState::Prelude => println!("{id}  {name}  prelude (papers not checked yet)"),
        ContainerState::PapersLost { reason } => {
            println!("{id}  {name}  papers lost, every asked call fails: {reason}");
        }
        ContainerState::Unsupervised => {
            println!(
                "{id}  {name}  unsupervised: its listener is gone, asked calls fail until it is started again"
            );
        }
        ContainerState::Admitted(admitted) => {
            println!(
                "{id}  {name}  {}  {}",
                admitted.phase, admitted.in_force.mode
            );
            println!(
                "  policy  {} revision {} ({})",
                admitted.in_force.policy, admitted.in_force.revision, admitted.in_force.digest
            );
            println!("  image   {}", admitted.image);
            println!("  key     {}", admitted.in_force.key);
            for (phase, counts) in &admitted.counts {
                println!(
                    "  {phase:<9} asked {} allowed {} denied {}",
                    counts.asked, counts.allowed, counts.denied
                );
            }
            if !admitted.stricter.is_empty() {
                println!(
                    "  kernel stricter than the policy: {}",
                    admitted.stricter.join(" ")
                );
            }
        }
    }
}

/// `lazaret watch`
///
/// # Errors
/// Exit 3 when the gate cannot be reached or hangs up.
pub fn watch(args: &Control, format: Format) -> Outcome {
    let mut gate = Gate::connect(&args.control)?;
    let Reply::Watching { .. } = gate.ask(&Request::Watch { v: V1 })? else {
        return fail(Exit::HostCannot, "the gate answered something else");
    };
    while let Some(reply) = gate.reply()? {
        match (&reply, format) {
            (Reply::Event { event, .. }, Format::Text) => println!("{}", sentence(event)),
            (Reply::Event { event, .. }, Format::Json) => {
                println!(
                    "{}",
                    serde_json::to_string(event)
                        .context("event")
                        .or_exit(Exit::HostCannot)?
                );
            }
            (Reply::Missed { events, .. }, Format::Text) => {
                println!("… {events} events left out, this terminal is too slow")
            }
            (Reply::Missed { .. }, Format::Json) => {
                println!(
                    "{}",
                    serde_json::to_string(&reply)
                        .context("event")
                        .or_exit(Exit::HostCannot)?
                );
            }
            _ => return fail(Exit::HostCannot, "the gate answered something else"),
        }
    }
    fail(Exit::HostCannot, "the gate hung up")
}

fn sentence(event: &Event) -> String {
    let id: String = event.container.chars().take(12).collect();
    let what = match &event.what {
        What::Denied {
            times,
            pid,
            process,
            call,
            args,
            phase,
            enforced,
            ..
        } => {
            let verb = if *enforced { "denied" } else { "would deny" };
            let args: Vec<String> = args.iter().map(|arg| format!("{arg:#x}")).collect();
            format!(
                "{verb} {call}({}) by {process}[{pid}] in {phase}, {times} times",
                args.join(", ")
            )
        }
        What::PhaseChanged { from, to, cause } => format!("{from} → {to} ({cause})"),
        What::Admitted {
            policy, key, mode, ..
        } => format!("admitted under {policy}, signed by {key}, mode {mode}"),
        What::Refused { check, reason } => format!("refused ({check}): {reason}"),
        What::ListenerReceived { pid, exec } => {
            format!(
                "{} of process {pid} at the gate",
                if *exec { "exec" } else { "start" }
            )
        }
        What::Asked { phase, calls } => {
            format!("{} asked calls in {phase}", calls.values().sum::<u64>())
        }
        What::DwellBegan { phase, dwell_ms } => {
            format!("{phase} in {dwell_ms} ms, its denials are reported until then")
        }
        What::RestartRefused {
            pid,
            process,
            reason,
        } => format!("restart of {process}[{pid}] not allowed: {reason}"),
        What::Revised { to, revision, .. } => format!("revision {revision} in force ({to})"),
        What::Permitted { permit, reason, .. } => format!("exec under permit {permit}: {reason}"),
        What::TakenOver {
            pid, asked_again, ..
        } => format!("taken over (process {pid}), {asked_again} calls asked again"),
        What::PapersLost { check, reason } => format!("papers lost ({check}): {reason}"),
        What::GateStopped => "gate stopped".to_string(),
        What::GateStarted { version } => format!("gate started, lazaretd {version}"),
        What::Unsupervised { pid } => {
            format!("unsupervised since the gate was restarted (process {pid})")
        }
        What::EventsLost { lines } => format!("{lines} events were not written"),
        What::AuditLost {
            dropped,
            rejected,
            gaps,
        } => format!(
            "audit events that were not exported: {dropped} dropped, {rejected} rejected; {gaps} gaps in what was read"
        ),
        What::Ended { exec } => (if *exec { "exec ended" } else { "ended" }).to_string(),
    };
    format!("{} {id} {what}", event.time_ms)
}

/// `lazaret phase`
///
/// # Errors
/// Exit 1 when the gate says no, 3 when it cannot be reached.
pub fn phase(args: &PhaseArgs) -> Outcome {
    let request = Request::Phase {
        v: V1,
        container: args.container.clone(),
        to: args.to,
    };
    match Gate::connect(&args.control.control)?.ask(&request)? {
        Reply::Done { .. } => Ok(Exit::Yes),
        _ => fail(Exit::HostCannot, "the gate answered something else"),
    }
}
