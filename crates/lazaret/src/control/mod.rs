//! `lazaret status`, `phase` and `revise`, and the connection to the gate on this node that `watch` and `suggest` use too.
//!
//! Decides nothing about containers: the gate does, and says why not.

pub(crate) mod connection;
mod sentences;
pub(crate) mod status;

pub(crate) use connection::{Gate, GateError};
pub(crate) use sentences::{call, denied_verb, sentence, short_id, shown};

use crate::args::{Control, Format, PhaseArgs, Revise};
use crate::exit::{Exit, OrExit, Outcome};
use anyhow::Context;
use lazaret_core::control::{InForce, Kernel, Reply, Request, V1};
use serde::Serialize;
use std::fmt::Write as _;

/// One line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Outcome<String> {
    serde_json::to_string(value)
        .context("cannot write the answer as JSON")
        .or_exit(Exit::HostCannot)
}

/// `lazaret status`
///
/// # Errors
/// Exit 3 when the gate cannot be reached.
pub fn status(args: &Control, format: Format) -> Outcome {
    let mut gate = Gate::connect(&args.control)?;
    let reply = gate.ask(&Request::Status { v: V1 })?;
    let Reply::Status {
        version,
        containers,
        lost_events,
        ..
    } = &reply
    else {
        return Err(gate.unfit(&reply).into());
    };
    match format {
        Format::Json => println!("{}", json(&reply)?),
        Format::Text => print!("{}", status::text(version, containers, *lost_events)),
    }
    Ok(Exit::Yes)
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
    let mut gate = Gate::connect(&args.control.control)?;
    match gate.ask(&request)? {
        Reply::Done { .. } => Ok(Exit::Yes),
        other => Err(gate.unfit(&other).into()),
    }
}

/// `lazaret revise`
///
/// # Errors
/// Exit 1 when the gate says no, 3 when it cannot be reached.
pub fn revise(args: &Revise, format: Format) -> Outcome {
    let request = Request::Revise {
        v: V1,
        container: args.container.clone(),
        revision: args.revision,
        kernel: if args.partly {
            Kernel::Partly
        } else {
            Kernel::Whole
        },
    };
    let mut gate = Gate::connect(&args.control.control)?;
    let reply = gate.ask(&request)?;
    let Reply::Revised {
        container,
        from,
        to,
        until_restart,
        ..
    } = &reply
    else {
        return Err(gate.unfit(&reply).into());
    };
    match format {
        Format::Json => println!("{}", json(&reply)?),
        Format::Text => print!("{}", revised(container, from, to, until_restart)),
    }
    Ok(Exit::Yes)
}

fn revised(container: &str, from: &InForce, to: &InForce, until_restart: &[String]) -> String {
    let mut text = format!(
        "{}: {} revision {} ({}) → {} revision {} ({})\n",
        short_id(container),
        shown(&from.policy),
        from.revision,
        from.mode,
        shown(&to.policy),
        to.revision,
        to.mode
    );
    // a String takes every write
    let mut line = |line: std::fmt::Arguments<'_>| text.write_fmt(line).unwrap_or_default();
    line(format_args!(
        "in force  {}, signed by {}\n",
        to.digest,
        shown(&to.key)
    ));
    if from.digest == to.digest {
        line(format_args!("it was in force already\n"));
    }
    if !until_restart.is_empty() {
        line(format_args!(
            "until restart: {} (denied by the revision, allowed by the filter in the kernel)\n",
            until_restart.join(" ")
        ));
    }
    text
}
