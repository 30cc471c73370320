//! `phases`: the trigger of serving, the restarts, what exec admits; and what of them needs certain rules.

use super::super::problem::{Place, What};
use super::super::{CallRules, ExecStart, Http, Serving, Trigger};
use super::Reader;
use crate::format::policy::{HttpV1, PolicyV1, StartV1, WhenV1};
use crate::phase::Phase;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use lazaret_filter::abi::Abi;
use lazaret_filter::table;

/// The longest duration, milliseconds: 24 hours.
const MAX_MS: u64 = 24 * 3_600_000;

/// The most restarts inside one container.
const MAX_RESTARTS: u32 = 1000;

fn duration_ms(text: &str) -> Option<u64> {
    let (number, unit) = text
        .strip_suffix("ms")
        .map(|n| (n, 1))
        .or_else(|| text.strip_suffix('s').map(|n| (n, 1000)))?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // at most a day: larger numbers fail to parse or to multiply
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(unit)
        .filter(|ms| *ms <= MAX_MS)
}

impl Reader {
    pub(super) fn serving(&mut self, wire: &PolicyV1) -> Option<Serving> {
        let when = &wire.phases.serving.as_ref()?.when;
        let place = Place::field("phases").at("serving").at("when");
        let trigger = self.trigger(&place, when);
        let settle_ms = self.duration(place.at("settle"), when.settle.as_deref());
        let dwell_ms = self.duration(place.at("dwell"), when.dwell.as_deref());
        Some(Serving {
            trigger: trigger?,
            settle_ms,
            dwell_ms,
        })
    }

    /// The one trigger; checks every one that stands there.
    fn trigger(&mut self, place: &Place, when: &WhenV1) -> Option<Trigger> {
        let http = when.http.as_ref().map(|http| {
            self.http(&place.at("http"), http);
            Trigger::Http(Http {
                port: http.port,
                path: http.path.clone(),
                status: http.status,
            })
        });
        let tcp = when.tcp.as_ref().map(|tcp| {
            self.port(place.at("tcp").at("port"), tcp.port);
            Trigger::Tcp { port: tcp.port }
        });
        let health = when.health.map(|_| Trigger::Health);
        let quiet = when.quiet.as_ref().map(|quiet| {
            let place = place.at("quiet");
            let before = self.problems.len();
            let for_ms = self.duration(place.clone(), Some(quiet));
            if for_ms == 0 && self.problems.len() == before {
                self.problem(place, What::NoTime);
            }
            Trigger::Quiet { for_ms }
        });
        let mut triggers = [http, tcp, health, quiet].into_iter().flatten();
        match (triggers.next(), triggers.next()) {
            (Some(trigger), None) => Some(trigger),
            _ => {
                self.problem(place.clone(), What::OneTrigger);
                None
            }
        }
    }

    fn http(&mut self, place: &Place, http: &HttpV1) {
        self.port(place.at("port"), http.port);
        if !(100..600).contains(&http.status) {
            let found = http.status.to_string();
            self.problem(
                place.at("status"),
                What::Http {
                    found,
                    wanted: "HTTP status",
                },
            );
        }
        // a request line takes it as it is: no spaces, no control characters (RFC 9112, 3.2.1)
        let fits = http.path.starts_with('/') && http.path.len() <= 1024;
        if !fits || !http.path.bytes().all(|byte| byte.is_ascii_graphic()) {
            let found = format!("`{}`", http.path.chars().take(80).collect::<String>());
            self.problem(
                place.at("path"),
                What::Http {
                    found,
                    wanted: "path of at most 1024 characters beginning with `/`",
                },
            );
        }
    }

    fn port(&mut self, place: Place, port: u16) {
        if port == 0 {
            self.problem(
                place,
                What::Http {
                    found: "0".to_string(),
                    wanted: "TCP port",
                },
            );
        }
    }

    /// 0 for an absent one and, together with a problem, for one that is none.
    fn duration(&mut self, place: Place, text: Option<&str>) -> u64 {
        let Some(text) = text else { return 0 };
        duration_ms(text).unwrap_or_else(|| {
            self.problem(
                place,
                What::Duration {
                    found: text.chars().take(80).collect(),
                },
            );
            0
        })
    }

    pub(super) fn restarts(&mut self, wire: &PolicyV1) -> u32 {
        let restarts = wire.phases.startup.as_ref().map_or(0, |one| one.restarts);
        if restarts > MAX_RESTARTS {
            self.problem(
                Place::field("phases").at("startup").at("restarts"),
                What::Restarts {
                    count: restarts,
                    limit: MAX_RESTARTS,
                },
            );
        }
        restarts
    }

    pub(super) fn exec_start(wire: &PolicyV1) -> ExecStart {
        match wire.phases.exec.as_ref().map(|exec| exec.start) {
            None | Some(StartV1::Admit) => ExecStart::Admit,
            Some(StartV1::Refuse) => ExecStart::Refuse,
        }
    }

    /// What the phases need of each other and of the rules: `quiet` and restarts are told by calls that only startup allows.
    pub(super) fn phases_fit(
        &mut self,
        serving: Option<&Serving>,
        restarts: u32,
        wire: &PolicyV1,
        calls: &BTreeMap<u32, CallRules>,
        abi: Abi,
    ) {
        let startup_only = |rules: &CallRules| {
            let allowed = |phase| rules.allows.iter().any(|allow| allow.scope.holds(phase));
            rules.deny.is_none() && allowed(Phase::Startup) && !allowed(Phase::Serving)
        };
        let health = matches!(serving, Some(one) if one.trigger == Trigger::Health);
        if health && Self::exec_start(wire) == ExecStart::Refuse {
            let when = Place::field("phases").at("serving").at("when");
            self.problem(when.at("health"), What::HealthNeedsExec);
        }
        let quiet = matches!(serving, Some(one) if matches!(one.trigger, Trigger::Quiet { .. }));
        if quiet && !calls.values().any(startup_only) {
            let when = Place::field("phases").at("serving").at("when");
            self.problem(when.at("quiet"), What::NeverQuiet);
        }
        if restarts == 0 {
            return;
        }
        let place = Place::field("phases").at("startup").at("restarts");
        if wire.phases.serving.is_none() {
            self.problem(place.clone(), What::RestartsByHand);
        }
        let starts = ["execve", "execveat"]
            .into_iter()
            .filter_map(|name| calls.get(&table::nr_of(abi, name)?));
        if !starts.into_iter().any(startup_only) {
            self.problem(place, What::NeverRestarts);
        }
    }
}
