//! The doing of what the phase machine says.

use super::Daemon;
use crate::container::{Container, asked};
use crate::readiness::{self, Where};
use lazaret_core::event::What;
use lazaret_core::life::{ByHandError, Effect, Input};
use lazaret_kernel::netns::NetworkNamespace;
use lazaret_kernel::process::{self, Identity};
use std::sync::Arc;
use std::time::Duration;

impl Daemon {
    /// Moves a container's phase machine and does what it says; gives it back. The next daemon is told on another thread.
    ///
    /// # Errors
    /// As the phase machine's, for what is asked by hand.
    pub(crate) fn step(
        self: &Arc<Self>,
        container: &Arc<Container>,
        input: Input,
    ) -> Result<Vec<Effect>, ByHandError> {
        let stepped = container.step(input, self.now_ms())?;
        let mut ended = stepped.ended;
        if stepped.deadline_ms.is_some() {
            self.wait_for_deadline(container);
        }
        for effect in &stepped.effects {
            if let Effect::Changed { from, .. } = effect
                && let Some(calls) = ended.take()
            {
                self.events.tell(&container.id, asked(*from, calls));
            }
        }
        self.carry_out(container, &stepped.effects);
        if !stepped.effects.is_empty() {
            crate::fault::point("phase-changed");
            self.save(container);
        }
        Ok(stepped.effects)
    }

    /// Does what a phase machine says, but for the calls of the phase that ended.
    pub(super) fn carry_out(self: &Arc<Self>, container: &Arc<Container>, effects: &[Effect]) {
        for effect in effects {
            match *effect {
                Effect::Changed { from, to, cause } => {
                    let cause = cause.name().to_owned();
                    let what = What::PhaseChanged { from, to, cause };
                    self.events.tell(&container.id, what);
                }
                Effect::AskReadiness => self.ask_readiness(container),
                Effect::EndReadiness => container.end_readiness(),
                Effect::BeginDwell { dwell_ms } => {
                    let phase = lazaret_core::phase::Phase::Serving;
                    let what = What::DwellBegan { phase, dwell_ms };
                    self.events.tell(&container.id, what);
                }
                // told by whoever sees the call
                Effect::RestartRefused | Effect::EndDwell => {}
            }
        }
    }

    /// An input that cannot fail.
    pub(crate) fn happened(
        self: &Arc<Self>,
        container: &Arc<Container>,
        input: Input,
    ) -> Vec<Effect> {
        self.step(container, input).unwrap_or_else(|error| {
            tracing::error!("container {}: {error}", container.id);
            Vec::new()
        })
    }

    fn ask_readiness(self: &Arc<Self>, container: &Arc<Container>) {
        let asking = Arc::clone(self).until_ready(Arc::clone(container));
        container.keep_readiness(self.runtime.spawn(asking).abort_handle());
    }

    async fn until_ready(self: Arc<Self>, container: Arc<Container>) {
        let mut namespace = None;
        let mut interval = tokio::time::interval(readiness::INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut said = None;
        loop {
            interval.tick().await;
            let Ok(_turn) = self.questions.acquire().await else {
                return;
            };
            // of the policy in force now
            let Some(papers) = container.papers() else {
                return;
            };
            let Some(serving) = papers.in_force.policy.serving() else {
                continue;
            };
            let found = match &namespace {
                Some(found) => Arc::clone(found),
                None => match network(container.first) {
                    Ok(found) => Arc::clone(namespace.insert(found)),
                    Err(error) => {
                        once(&container, &mut said, error);
                        continue;
                    }
                },
            };
            let trigger = serving.trigger.clone();
            let place = Where {
                namespace: found,
                engine: papers.engine,
                id: container.id.clone(),
                docker_socket: self.config.docker_socket.clone(),
            };
            let asked = tokio::task::spawn_blocking(move || readiness::ask(&trigger, &place));
            match asked.await {
                Ok(Ok(true)) => {
                    crate::fault::point("ready");
                    // ends this task (Effect::EndReadiness)
                    self.happened(&container, Input::Ready);
                    return;
                }
                Ok(Ok(false)) => {
                    self.happened(&container, Input::NotReady);
                }
                Ok(Err(error)) => once(&container, &mut said, error.into()),
                Err(error) => tracing::error!("container {}: {error}", container.id),
            }
        }
    }

    /// Sends a tick at the deadline; a deadline that has moved meanwhile is waited for again.
    pub(super) fn wait_for_deadline(self: &Arc<Self>, container: &Arc<Container>) {
        let (daemon, waiting) = (Arc::clone(self), Arc::clone(container));
        let task = self.runtime.spawn(async move {
            while let Some(deadline_ms) = waiting.deadline_ms() {
                let left = deadline_ms.saturating_sub(daemon.now_ms());
                if left == 0 {
                    // the step that follows may set another, which has a task of its own
                    daemon.happened(&waiting, Input::Tick);
                    return;
                }
                tokio::time::sleep(Duration::from_millis(left)).await;
            }
        });
        container.keep_timer(task.abort_handle());
    }
}

/// The network of a container, by its first process. While another thread than the first of that process executes a program, the
/// process has none for a moment (`de_thread` in the kernel's `fs/exec.c` lets the first thread end): ask again.
fn network(first: Identity) -> anyhow::Result<Arc<NetworkNamespace>> {
    let namespace = NetworkNamespace::of(first.pid)?;
    // looked at afterwards: it was this process's, not one's that has its number now
    anyhow::ensure!(process::is_alive(first), "its first process is gone");
    Ok(Arc::new(namespace))
}

/// Says why nobody can be asked: once, not four times a second.
fn once(container: &Container, said: &mut Option<String>, error: anyhow::Error) {
    let text = format!("{error:#}");
    if said.as_ref() != Some(&text) {
        tracing::warn!("container {} stays in startup: {text}", container.id);
        *said = Some(text);
    }
}
