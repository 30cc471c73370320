//! The least that can answer a listener: receive, *continue*, again. What the gate's answers are measured against.

use crate::sandbox::Sandbox;
use lazaret_kernel::notify::{Answer, Listener, Polled};
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

/// A container whose calls are answered by the least that can.
#[derive(Debug)]
pub(crate) struct Bare {
    sandbox: Option<Sandbox>,
    supervisor: Option<JoinHandle<()>>,
}

impl Bare {
    /// Takes over the listener of a container that waits before its `execve`, and waits until its program runs.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn supervise(mut sandbox: Sandbox, listener: OwnedFd) -> anyhow::Result<Bare> {
        let listener = Listener::new(listener)?;
        let supervisor = std::thread::spawn(move || {
            if let Err(error) = answer(&listener) {
                eprintln!("bare supervisor: {:#}", anyhow::Error::from(error));
            }
        });
        sandbox.go()?;
        sandbox.wait_ready()?;
        Ok(Bare {
            sandbox: Some(sandbox),
            supervisor: Some(supervisor),
        })
    }

    /// The container.
    pub(crate) fn sandbox(&mut self) -> &mut Sandbox {
        let Some(sandbox) = &mut self.sandbox else {
            unreachable!("taken by drop only")
        };
        sandbox
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        drop(self.sandbox.take());
        if let Some(supervisor) = self.supervisor.take() {
            // a panic has been printed
            drop(supervisor.join());
        }
    }
}

/// Two system calls for an answer: `RECV` blocks until there is a call, and fails when nobody is left.
fn answer(listener: &Listener) -> Result<(), lazaret_kernel::notify::NotifyError> {
    loop {
        match listener.recv()? {
            Some(asked) => drop(listener.respond(asked.id, Answer::Continue)?),
            None => {
                if listener.poll(0)? == Polled::HungUp {
                    return Ok(());
                }
            }
        }
    }
}
