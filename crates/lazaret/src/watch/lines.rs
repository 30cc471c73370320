//! Events one by one: a sentence or a JSON object per line, until the gate hangs up or nobody reads on.

use crate::args::{Control, Format};
use crate::control::{Gate, GateError, json, sentence};
use crate::exit::{Exit, OrExit as _, Outcome};
use anyhow::Context as _;
use lazaret_core::control::Reply;
use std::io::{ErrorKind, Write as _};

pub(super) fn main(args: &Control, format: Format) -> Outcome {
    let mut gate = Gate::connect(&args.control)?.watch()?;
    while let Some(reply) = gate.reply()? {
        let line = match (&reply, format) {
            (Reply::Event { event, .. }, Format::Text) => sentence(event),
            (Reply::Event { event, .. }, Format::Json) => json(event)?,
            (Reply::Missed { events, .. }, Format::Text) => {
                format!("… {events} events left out, this reader is too slow")
            }
            (Reply::Missed { .. }, Format::Json) => json(&reply)?,
            _ => return Err(gate.unfit(&reply).into()),
        };
        let mut out = std::io::stdout().lock();
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            // the reader has what it wanted
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Exit::Yes),
            other => other
                .context("cannot write to standard output")
                .or_exit(Exit::HostCannot)?,
        }
    }
    Err(GateError::HungUp.into())
}
