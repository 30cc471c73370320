//! Two threads that keep the live table fed: one asks for status (and one container's denials) every second, one reads events.
//!
//! Each has a connection of its own and makes a new one, a second later, whenever it breaks: the gate is restarted under the
//! table at every upgrade. The channel is bounded: when the table is slow, the gate tells how many events it left out.

use super::state::Feed;
use crate::control::{Gate, GateError};
use lazaret_core::control::{Reply, Request, V1};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How often status is asked for, and how long until another attempt.
const EVERY: Duration = Duration::from_secs(1);

/// How long the gate may take for an answer before it counts as away.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How much may wait for the table.
const WAITING: usize = 1_024;

/// The container whose denials are asked for; none while no details are shown.
#[derive(Clone, Default)]
pub(crate) struct Asked(Arc<Mutex<Option<String>>>);

impl Asked {
    /// From the next second on.
    pub(crate) fn set(&self, container: Option<String>) {
        // a value is written whole: a panic elsewhere leaves it usable
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = container;
    }

    fn get(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Starts both threads; they end with the receiver.
pub(crate) fn start(socket: PathBuf, asked: Asked) -> std::io::Result<Receiver<Feed>> {
    let (send, receive) = sync_channel(WAITING);
    let polling = (socket.clone(), send.clone());
    thread::Builder::new()
        .name("status".to_string())
        .spawn(move || poll(&polling.0, &asked, &polling.1))?;
    thread::Builder::new()
        .name("events".to_string())
        .spawn(move || listen(&socket, &send))?;
    Ok(receive)
}

fn poll(socket: &std::path::Path, asked: &Asked, send: &SyncSender<Feed>) {
    let mut gate: Option<Gate> = None;
    loop {
        let outcome = match gate.take() {
            Some(gate) => Ok(gate),
            None => Gate::connect_for(socket, ANSWER_WITHIN),
        }
        .and_then(|mut gate| Ok((once(&mut gate, asked.get())?, gate)));
        let feeds = match outcome {
            Ok((replies, open)) => {
                gate = Some(open);
                replies
                    .into_iter()
                    .map(|one| Feed::Reply(Box::new(one)))
                    .collect()
            }
            Err(error) => vec![Feed::Away(said(error))],
        };
        for feed in feeds {
            if send.send(feed).is_err() {
                return;
            }
        }
        thread::sleep(EVERY);
    }
}

/// Status, and the denials of one container. The connection is used up when a request of it is refused.
fn once(gate: &mut Gate, about: Option<String>) -> Result<Vec<Reply>, GateError> {
    let mut replies = vec![gate.ask(&Request::Status { v: V1 })?];
    if let Some(container) = about {
        let request = Request::Drift {
            v: V1,
            container: Some(container),
        };
        match gate.ask(&request) {
            Ok(drift) => replies.push(drift),
            // it has ended, or the gate does not know this request: the table goes on without
            Err(GateError::Refused { .. } | GateError::NotSpoken { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(replies)
}

fn listen(socket: &std::path::Path, send: &SyncSender<Feed>) {
    loop {
        let outcome = Gate::connect_for(socket, ANSWER_WITHIN).and_then(Gate::watch);
        let error = match outcome {
            Ok(mut gate) => {
                if send.send(Feed::Events(Ok(()))).is_err() {
                    return;
                }
                loop {
                    match gate.reply() {
                        Ok(Some(reply)) => {
                            if send.send(Feed::Reply(Box::new(reply))).is_err() {
                                return;
                            }
                        }
                        Ok(None) => break GateError::HungUp,
                        Err(error) => break error,
                    }
                }
            }
            Err(error) => error,
        };
        if send.send(Feed::Events(Err(said(error)))).is_err() {
            return;
        }
        thread::sleep(EVERY);
    }
}

/// The error and what it came from, without hints.
fn said(error: GateError) -> String {
    let text = format!("{:#}", anyhow::Error::from(error));
    match text.split_once(" (hint: ") {
        Some((before, after)) => match after.split_once(')') {
            Some((_, rest)) => format!("{before}{rest}"),
            None => before.to_string(),
        },
        None => text,
    }
}
