//! From the text to a [`Policy`]: the only road in. Collects every problem, with its place, before it refuses.

use super::problem::{Place, PolicyError, Problem, What};
use super::{Allow, CallRules, Http, Mode, Policy, Scope, ServingWhen};
use crate::ceiling::{self, Reach};
use crate::digest::Digest;
use crate::format::policy::{
    API_VERSION, CeilingV1, ConditionV1, KIND, ModeV1, PolicyV1, RuleV1, ValueV1,
};
use crate::phase::Phase;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use lazaret_filter::abi::Abi;
use lazaret_filter::constants;
use lazaret_filter::rule::Condition;
use lazaret_filter::table::{self, ArgDef};

/// Largest policy that is read, in bytes. The largest sensible one (every call with its own reason) has about 100 KiB.
pub const MAX_BYTES: usize = 1 << 20;
const MAX_RULES: usize = 1024;
const MAX_DIGESTS: usize = 64;
const MAX_TEXT: usize = 512;

/// Calls without which a process cannot even be interrupted or end (KERNEL-FACTS, "restart_syscall, rt_sigreturn …"),
/// and `write`, which runc refuses to have asked (`libcontainer/seccomp/seccomp_linux.go`).
const REQUIRED: [(&str, &str); 5] = [
    ("exit", "threads end through it"),
    ("exit_group", "processes end through it"),
    (
        "restart_syscall",
        "the kernel restarts interrupted calls through it",
    ),
    ("rt_sigreturn", "signal handlers return through it"),
    (
        "write",
        "the runtime hands the listener over with it, so it cannot be asked",
    ),
];

impl TryFrom<PolicyV1> for Policy {
    type Error = PolicyError;

    fn try_from(mut wire: PolicyV1) -> Result<Policy, PolicyError> {
        let mut reader = Reader {
            problems: Vec::new(),
            unresolved: BTreeSet::new(),
        };
        // once in the order of the text, so that problems have the reader's places …
        reader.read(&wire);
        if !reader.problems.is_empty() {
            return Err(PolicyError::Problems {
                problems: reader.problems,
            });
        }
        // … and once in canonical order, so that rule numbers do not depend on it
        canonicalise(&mut wire);
        let parts = reader.read(&wire);
        match parts {
            Some(parts) if reader.problems.is_empty() => Ok(Policy {
                abi: parts.abi,
                mode: match wire.mode {
                    ModeV1::Enforce => Mode::Enforce,
                    ModeV1::Observe => Mode::Observe,
                },
                digests: wire.image.digests.iter().copied().collect(),
                ceiling: parts.ceiling,
                otherwise: parts.otherwise,
                serving: parts.serving,
                prelude: parts.prelude,
                calls: parts.calls,
                oldest_kernel: parts.oldest_kernel,
                unresolved: reader.unresolved,
                wire,
            }),
            _ => Err(PolicyError::Problems {
                problems: reader.problems,
            }),
        }
    }
}

/// Sorts every list whose order means nothing.
fn canonicalise(wire: &mut PolicyV1) {
    wire.image.digests.sort();
    wire.environment.libc.sort();
    wire.environment.runtimes.sort();
    if let CeilingV1::Calls(calls) = &mut wire.ceiling {
        calls.sort();
    }
    if let Some(prelude) = &mut wire.phases.prelude {
        prelude.calls.sort();
    }
    if let Some(evidence) = &mut wire.evidence {
        evidence.recordings.sort();
    }
    for rule in &mut wire.rules {
        for calls in [&mut rule.allow, &mut rule.deny, &mut rule.during]
            .into_iter()
            .flatten()
        {
            calls.sort();
        }
        for condition in &mut rule.when {
            condition.values.sort();
        }
        rule.when.sort();
    }
    wire.rules.sort();
}

/// `6.18.44-anything` → (6, 18).
pub(super) fn release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(['.', '-', '+', '~']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn errno(name: &str) -> Option<u16> {
    // include/uapi/asm-generic/errno-base.h, errno.h
    match name {
        "EPERM" => Some(1),
        "EACCES" => Some(13),
        "ENOSYS" => Some(38),
        _ => None,
    }
}

fn duration_ms(text: &str) -> Option<u64> {
    let (number, unit) = text
        .strip_suffix("ms")
        .map(|n| (n, 1))
        .or_else(|| text.strip_suffix('s').map(|n| (n, 1000)))?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // at most an hour: larger numbers fail to parse or to multiply
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(unit)
        .filter(|ms| *ms <= 3_600_000)
}

struct Parts {
    abi: Abi,
    ceiling: BTreeMap<u32, Reach>,
    otherwise: u16,
    serving: Option<ServingWhen>,
    prelude: BTreeSet<u32>,
    calls: BTreeMap<u32, CallRules>,
    oldest_kernel: (u32, u32),
}

struct Reader {
    problems: Vec<Problem>,
    unresolved: BTreeSet<String>,
}

impl Reader {
    fn problem(&mut self, place: Place, what: What) {
        self.problems.push(Problem { place, what });
    }

    /// All parts that could be read; `None` only together with a problem.
    fn read(&mut self, wire: &PolicyV1) -> Option<Parts> {
        self.fixed(Place::field("apiVersion"), &wire.api_version, API_VERSION);
        self.fixed(Place::field("kind"), &wire.kind, KIND);
        self.metadata(wire);
        self.image(wire);
        let abi = self.arch(&wire.environment.arch)?;
        let oldest_kernel = self.kernel(&wire.environment.kernel);
        self.texts(wire);
        let ceiling = self.ceiling(&wire.ceiling, abi);
        let otherwise = self.otherwise(wire);
        let serving = self.serving(wire);
        let prelude = wire
            .phases
            .prelude
            .as_ref()
            .map_or_else(BTreeSet::new, |prelude| {
                let place = Place::field("phases").at("prelude").at("calls");
                self.names(&place, &prelude.calls, abi, true)
                    .into_iter()
                    .map(|(_, _, nr)| nr)
                    .collect()
            });
        let calls = self.rules(&wire.rules, abi, &ceiling);
        self.required(&calls, abi);
        Some(Parts {
            abi,
            ceiling,
            otherwise,
            serving,
            prelude,
            calls,
            oldest_kernel: oldest_kernel?,
        })
    }

    fn fixed(&mut self, place: Place, found: &str, expected: &'static str) {
        if found != expected {
            self.problem(
                place,
                What::Unsupported {
                    found: found.chars().take(80).collect(),
                    expected,
                },
            );
        }
    }

    fn metadata(&mut self, wire: &PolicyV1) {
        self.name(Place::field("metadata").at("name"), &wire.metadata.name);
        if wire.metadata.revision == 0 {
            self.problem(Place::field("metadata").at("revision"), What::Revision);
        }
    }

    fn name(&mut self, place: Place, name: &str) {
        let first = name
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let all = name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'/'));
        if !first || !all || name.len() > 128 {
            self.problem(
                place,
                What::Name {
                    found: name.chars().take(80).collect(),
                },
            );
        }
    }

    fn text(&mut self, place: Place, text: &str) {
        let chars = text.chars().count();
        if chars > MAX_TEXT || text.chars().any(char::is_control) {
            self.problem(
                place,
                What::Text {
                    chars,
                    limit: MAX_TEXT,
                },
            );
        }
    }

    fn texts(&mut self, wire: &PolicyV1) {
        let environment = Place::field("environment");
        for (field, list) in [
            ("libc", &wire.environment.libc),
            ("runtimes", &wire.environment.runtimes),
        ] {
            for (index, text) in list.iter().enumerate() {
                self.text(environment.at(field).index(index), text);
            }
        }
        if let Some(evidence) = &wire.evidence {
            self.text(
                Place::field("evidence").at("interactions"),
                &evidence.interactions,
            );
            self.text(Place::field("evidence").at("unseen"), &evidence.unseen);
            self.distinct(
                &Place::field("evidence").at("recordings"),
                &evidence.recordings,
            );
        }
    }

    fn image(&mut self, wire: &PolicyV1) {
        let place = Place::field("image").at("digests");
        self.text(Place::field("image").at("name"), &wire.image.name);
        if wire.image.digests.is_empty() {
            self.problem(place.clone(), What::Empty);
        }
        self.bounded(&place, wire.image.digests.len(), MAX_DIGESTS);
        self.distinct(&place, &wire.image.digests);
    }

    fn distinct(&mut self, place: &Place, digests: &[Digest]) {
        let mut seen = BTreeSet::new();
        for (index, digest) in digests.iter().enumerate() {
            if !seen.insert(digest) {
                self.problem(
                    place.index(index),
                    What::Twice {
                        name: digest.to_string(),
                    },
                );
            }
        }
    }

    fn bounded(&mut self, place: &Place, count: usize, limit: usize) {
        if count > limit {
            self.problem(place.clone(), What::TooMany { count, limit });
        }
    }

    fn arch(&mut self, arch: &str) -> Option<Abi> {
        let abi = arch
            .parse()
            .ok()
            .filter(|abi| matches!(abi, Abi::X86_64 | Abi::Aarch64));
        if abi.is_none() {
            let found = arch.chars().take(80).collect();
            self.problem(
                Place::field("environment").at("arch"),
                What::Unsupported {
                    found,
                    expected: "x86_64 or aarch64",
                },
            );
        }
        abi
    }

    fn kernel(&mut self, bound: &str) -> Option<(u32, u32)> {
        let oldest = bound
            .strip_prefix(">=")
            .and_then(release)
            .filter(|release| *release >= (5, 11));
        if oldest.is_none() {
            let found = bound.chars().take(80).collect();
            self.problem(
                Place::field("environment").at("kernel"),
                What::Kernel { found },
            );
        }
        oldest
    }

    fn otherwise(&mut self, wire: &PolicyV1) -> u16 {
        self.fixed(
            Place::field("otherwise").at("action"),
            &wire.otherwise.action,
            "errno",
        );
        self.errno(Place::field("otherwise").at("errno"), &wire.otherwise.errno)
    }

    fn errno(&mut self, place: Place, name: &str) -> u16 {
        errno(name).unwrap_or_else(|| {
            self.problem(
                place,
                What::Errno {
                    found: name.chars().take(80).collect(),
                },
            );
            1
        })
    }

    fn serving(&mut self, wire: &PolicyV1) -> Option<ServingWhen> {
        let when = &wire.phases.serving.as_ref()?.when;
        let place = Place::field("phases").at("serving").at("when");
        let http = place.at("http");
        if when.http.port == 0 {
            self.problem(
                http.at("port"),
                What::Http {
                    found: "0".to_string(),
                    wanted: "TCP port",
                },
            );
        }
        if !(100..600).contains(&when.http.status) {
            let found = when.http.status.to_string();
            self.problem(
                http.at("status"),
                What::Http {
                    found,
                    wanted: "HTTP status",
                },
            );
        }
        // a request line takes it as it is: no spaces, no control characters (RFC 9112, 3.2.1)
        let fits = when.http.path.starts_with('/') && when.http.path.len() <= 1024;
        if !fits || !when.http.path.bytes().all(|byte| byte.is_ascii_graphic()) {
            let found = format!("`{}`", when.http.path.chars().take(80).collect::<String>());
            self.problem(
                http.at("path"),
                What::Http {
                    found,
                    wanted: "path of at most 1024 characters beginning with `/`",
                },
            );
        }
        let settle_ms = duration_ms(&when.settle).unwrap_or_else(|| {
            self.problem(
                place.at("settle"),
                What::Duration {
                    found: when.settle.chars().take(80).collect(),
                },
            );
            0
        });
        let Http { port, path, status } = Http {
            port: when.http.port,
            path: when.http.path.clone(),
            status: when.http.status,
        };
        Some(ServingWhen {
            http: Http { port, path, status },
            settle_ms,
        })
    }

    fn ceiling(&mut self, ceiling: &CeilingV1, abi: Abi) -> BTreeMap<u32, Reach> {
        let place = Place::field("ceiling");
        match ceiling {
            CeilingV1::Named(name) => ceiling::named(name).map_or_else(
                || {
                    self.problem(
                        place.clone(),
                        What::UnknownCeiling {
                            found: name.chars().take(80).collect(),
                        },
                    );
                    BTreeMap::new()
                },
                |set| {
                    // an architecture without the call needs no ceiling over it
                    set.iter()
                        .filter_map(|call| Some((table::nr_of(abi, call.call)?, call.reach)))
                        .collect()
                },
            ),
            CeilingV1::Calls(calls) => self
                .names(&place, calls, abi, false)
                .into_iter()
                .map(|(_, _, nr)| (nr, Reach::Always))
                .collect(),
        }
    }

    /// Resolves names; unknown ones are problems, or (where they can only allow) noted. (place, name, number)
    fn names<'n>(
        &mut self,
        place: &Place,
        names: &'n [String],
        abi: Abi,
        allows: bool,
    ) -> Vec<(Place, &'n str, u32)> {
        self.bounded(place, names.len(), 1024);
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let at = place.index(index);
            if !seen.insert(name) {
                self.problem(at, What::Twice { name: name.clone() });
                continue;
            }
            match table::nr_of(abi, name) {
                Some(nr) => found.push((at, name.as_str(), nr)),
                // a name of another architecture allows nothing here; one that nobody knows is a slip of the pen
                None if allows
                    && Abi::ALL
                        .iter()
                        .any(|other| table::nr_of(*other, name).is_some()) =>
                {
                    self.unresolved.insert(name.clone());
                }
                None => {
                    let name = name.chars().take(80).collect();
                    self.problem(
                        at,
                        What::UnknownCall {
                            name,
                            arch: abi.name(),
                        },
                    );
                }
            }
        }
        found
    }

    fn rules(
        &mut self,
        rules: &[RuleV1],
        abi: Abi,
        ceiling: &BTreeMap<u32, Reach>,
    ) -> BTreeMap<u32, CallRules> {
        let place = Place::field("rules");
        self.bounded(&place, rules.len(), MAX_RULES);
        let mut calls: BTreeMap<u32, CallRules> = BTreeMap::new();
        // denials first: then a contradiction is told at the allow, wherever it stands
        for (index, rule) in rules.iter().enumerate() {
            if let (None, Some(names)) = (&rule.allow, &rule.deny) {
                self.deny(&place.index(index), index, rule, names, abi, &mut calls);
            }
        }
        for (index, rule) in rules.iter().enumerate() {
            let at = place.index(index);
            self.text(at.at("why"), &rule.why);
            match (&rule.allow, &rule.deny) {
                (Some(names), None) => {
                    self.allow(&at, index, rule, names, abi, ceiling, &mut calls)
                }
                (None, Some(_)) => {}
                _ => self.problem(at, What::AllowOrDeny),
            }
        }
        calls
    }

    fn deny(
        &mut self,
        at: &Place,
        index: usize,
        rule: &RuleV1,
        names: &[String],
        abi: Abi,
        calls: &mut BTreeMap<u32, CallRules>,
    ) {
        for (field, present) in [
            ("when", !rule.when.is_empty()),
            ("until", rule.until.is_some()),
            ("during", rule.during.is_some()),
        ] {
            if present {
                self.problem(
                    at.at(field),
                    What::NotWith {
                        field,
                        action: "deny",
                    },
                );
            }
        }
        let errno = rule
            .errno
            .as_ref()
            .map_or(1, |name| self.errno(at.at("errno"), name));
        let list = at.at("deny");
        if names.is_empty() {
            self.problem(list.clone(), What::Empty);
        }
        for (place, name, nr) in self.names(&list, names, abi, false) {
            let entry = calls.entry(nr).or_default();
            match entry.deny {
                Some((other, _)) => self.problem(
                    place,
                    What::DeniedTwice {
                        name: name.to_string(),
                        other,
                    },
                ),
                None => entry.deny = Some((index, errno)),
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one rule with all it is checked against, called in one place"
    )]
    fn allow(
        &mut self,
        at: &Place,
        index: usize,
        rule: &RuleV1,
        names: &[String],
        abi: Abi,
        ceiling: &BTreeMap<u32, Reach>,
        calls: &mut BTreeMap<u32, CallRules>,
    ) {
        if rule.errno.is_some() {
            self.problem(
                at.at("errno"),
                What::NotWith {
                    field: "errno",
                    action: "allow",
                },
            );
        }
        let scope = self.scope(at, rule);
        let list = at.at("allow");
        if names.is_empty() {
            self.problem(list.clone(), What::Empty);
        }
        for (place, name, nr) in self.names(&list, names, abi, true) {
            if ceiling.get(&nr) == Some(&Reach::Always) {
                self.problem(
                    place.clone(),
                    What::UnderCeiling {
                        name: name.to_string(),
                    },
                );
            }
            let conditions = self.conditions(at, name, &rule.when);
            let entry = calls.entry(nr).or_default();
            if let Some((other, _)) = entry.deny {
                self.problem(
                    place,
                    What::Contradiction {
                        name: name.to_string(),
                        other,
                    },
                );
            }
            entry.allows.push(Allow {
                rule: index,
                scope,
                conditions,
            });
        }
    }

    fn scope(&mut self, at: &Place, rule: &RuleV1) -> Scope {
        match (rule.until.as_deref(), &rule.during) {
            (None, None) => Scope::ALWAYS,
            (Some("serving"), None) => Scope::of(&[Phase::Startup]),
            (Some("stopping"), None) => Scope::of(&[Phase::Startup, Phase::Serving]),
            (Some(other), None) => {
                let found = other.chars().take(80).collect();
                self.problem(
                    at.at("until"),
                    What::Phase {
                        found,
                        expected: "serving or stopping",
                    },
                );
                Scope::ALWAYS
            }
            (Some(_), Some(_)) => {
                self.problem(at.at("until"), What::UntilAndDuring);
                Scope::ALWAYS
            }
            (None, Some(names)) => self.during(&at.at("during"), names),
        }
    }

    fn during(&mut self, place: &Place, names: &[String]) -> Scope {
        const EXPECTED: &str = "startup, serving, stopping or exec";
        let mut phases = Vec::new();
        for (index, name) in names.iter().enumerate() {
            match Phase::ALL
                .into_iter()
                .find(|phase| phase.name() == name && *phase != Phase::Prelude)
            {
                Some(phase) if phases.contains(&phase) => {
                    self.problem(place.index(index), What::Twice { name: name.clone() });
                }
                Some(phase) => phases.push(phase),
                None => {
                    let found = name.chars().take(80).collect();
                    self.problem(
                        place.index(index),
                        What::Phase {
                            found,
                            expected: EXPECTED,
                        },
                    );
                }
            }
        }
        let scope = Scope::of(&phases);
        if phases.is_empty() {
            self.problem(place.clone(), What::Empty);
        } else if scope == Scope::ALWAYS {
            self.problem(place.clone(), What::AllPhases);
        } else if phases == [Phase::Startup] {
            self.problem(place.clone(), What::WriteUntil { until: "serving" });
        } else if scope == Scope::of(&[Phase::Startup, Phase::Serving]) {
            self.problem(place.clone(), What::WriteUntil { until: "stopping" });
        }
        scope
    }

    fn conditions(&mut self, at: &Place, call: &str, wire: &[ConditionV1]) -> Vec<Condition> {
        let mut found: Vec<Condition> = Vec::new();
        let arguments = table::args_of(call).unwrap_or(&[]);
        for (index, condition) in wire.iter().enumerate() {
            let place = at.at("when").index(index);
            let Some((arg, definition)) = table::arg(call, &condition.arg) else {
                self.unknown_arg(&place, call, condition, arguments);
                continue;
            };
            if found.iter().any(|other| other.arg == arg) {
                let arg = condition.arg.clone();
                self.problem(place.at("arg"), What::ArgTwice { arg });
                continue;
            }
            if let Some(condition) = self.condition(&place, call, arg, definition, condition) {
                found.push(condition);
            }
        }
        found.sort();
        found
    }

    fn unknown_arg(
        &mut self,
        place: &Place,
        call: &str,
        condition: &ConditionV1,
        arguments: &[ArgDef],
    ) {
        let names: Vec<&str> = arguments.iter().map(|argument| argument.name).collect();
        let known = if names.is_empty() {
            ", its arguments are not in the table".to_string()
        } else {
            format!(", it has {}", names.join(", "))
        };
        let arg = condition.arg.chars().take(80).collect();
        self.problem(
            place.at("arg"),
            What::UnknownArg {
                call: call.to_string(),
                arg,
                known,
            },
        );
    }

    fn condition(
        &mut self,
        place: &Place,
        call: &str,
        arg: u8,
        definition: &ArgDef,
        wire: &ConditionV1,
    ) -> Option<Condition> {
        let full = definition.width.mask();
        let width = full.count_ones();
        let mask = wire.mask.unwrap_or(full);
        if mask == 0 || mask & !full != 0 {
            self.problem(place.at("mask"), What::Mask { mask, width });
            return None;
        }
        if wire.values.is_empty() {
            self.problem(place.at("in"), What::Empty);
            return None;
        }
        self.bounded(&place.at("in"), wire.values.len(), 256);
        let mut values = BTreeSet::new();
        for (index, value) in wire.values.iter().enumerate() {
            let at = place.at("in").index(index);
            let number = match value {
                ValueV1::Number(number) => *number,
                ValueV1::Name(name) => match constants::value(call, definition.name, name) {
                    Some(number) => number,
                    None => {
                        let name = name.chars().take(80).collect();
                        let what = What::UnknownConstant {
                            name,
                            arg: wire.arg.clone(),
                            call: call.to_string(),
                        };
                        self.problem(at, what);
                        continue;
                    }
                },
            };
            if number & !mask != 0 {
                self.problem(
                    at,
                    What::OutsideMask {
                        value: number,
                        mask,
                    },
                );
            } else if !values.insert(number) {
                self.problem(
                    at,
                    What::Twice {
                        name: format!("{number:#x}"),
                    },
                );
            }
        }
        Some(Condition { arg, mask, values })
    }

    fn required(&mut self, calls: &BTreeMap<u32, CallRules>, abi: Abi) {
        for (name, why) in REQUIRED {
            let allowed = table::nr_of(abi, name)
                .and_then(|nr| calls.get(&nr))
                .is_some_and(|rules| {
                    rules
                        .allows
                        .iter()
                        .any(|allow| allow.scope == Scope::ALWAYS && allow.conditions.is_empty())
                });
            if !allowed {
                self.problem(Place::field("rules"), What::Missing { name, why });
            }
        }
    }
}
