//! Denials that were collected are told when their time has come.

use super::Daemon;
use crate::events;
use crate::events::aggregate::Told;
use lazaret_core::control::DriftEntry;
use lazaret_core::event::What;
use std::sync::Arc;
use std::time::Duration;

/// How often is looked; well below the window in which denials are collected.
const INTERVAL: Duration = Duration::from_millis(250);

impl Daemon {
    /// Tells what is due, for ever.
    pub(crate) async fn tell_denials(self: Arc<Self>) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let now_ms = self.now_ms();
            for container in self.all_live() {
                for told in container.due(now_ms) {
                    if let Err(told) = self.events.offer(&container.id, told) {
                        container.give_back(told);
                    }
                }
            }
        }
    }

    /// Every kind of denial of these containers since the daemon began, most frequent first.
    pub(crate) fn drift(&self, wanted: Option<&str>) -> Result<Vec<DriftEntry>, super::FindError> {
        let containers = match wanted {
            Some(wanted) => vec![self.find(wanted)?],
            None => self.all_live(),
        };
        let mut drift = Vec::new();
        for container in containers {
            let Some(papers) = container.papers() else {
                continue;
            };
            drift.extend(container.drift().iter().filter_map(|told| {
                let mut entry = entry(told)?;
                entry.container.clone_from(&container.id);
                entry.name.clone_from(&papers.name);
                entry.digest = papers.in_force.digest;
                Some(entry)
            }));
        }
        drift.sort_by_key(|entry| std::cmp::Reverse(entry.times));
        Ok(drift)
    }
}

fn entry(told: &Told) -> Option<DriftEntry> {
    match events::what(told) {
        What::Denied {
            times,
            process,
            nr,
            arch,
            call,
            args,
            phase,
            enforced,
            ..
        } => Some(DriftEntry {
            container: String::new(),
            name: String::new(),
            digest: lazaret_core::digest::Digest::of(b""),
            phase,
            call,
            nr,
            arch,
            process,
            args,
            times,
            enforced,
        }),
        _ => None,
    }
}
