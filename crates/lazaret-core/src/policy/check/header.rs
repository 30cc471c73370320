//! Everything but phases and rules: names, image, environment, ceiling.

use super::super::problem::{Place, What};
use super::calls::Use;
use super::{MAX_DIGESTS, MAX_TEXT, Reader, release};
use crate::ceiling::{self, Reach};
use crate::digest::Digest;
use crate::format::policy::{CeilingV1, PolicyV1};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::ToString;
use lazaret_filter::abi::Abi;
use lazaret_filter::table;

fn errno(name: &str) -> Option<u16> {
    // include/uapi/asm-generic/errno-base.h, errno.h
    match name {
        "EPERM" => Some(1),
        "EACCES" => Some(13),
        "ENOSYS" => Some(38),
        _ => None,
    }
}

impl Reader {
    pub(super) fn metadata(&mut self, wire: &PolicyV1) {
        self.name(Place::field("metadata").at("name"), &wire.metadata.name);
        if wire.metadata.revision == 0 {
            self.problem(Place::field("metadata").at("revision"), What::Revision);
        }
    }

    pub(super) fn name(&mut self, place: Place, name: &str) {
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

    pub(super) fn text(&mut self, place: Place, text: &str) {
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

    pub(super) fn texts(&mut self, wire: &PolicyV1) {
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

    pub(super) fn image(&mut self, wire: &PolicyV1) {
        let place = Place::field("image").at("digests");
        self.text(Place::field("image").at("name"), &wire.image.name);
        if wire.image.digests.is_empty() {
            self.problem(place.clone(), What::Empty);
        }
        self.bounded(&place, wire.image.digests.len(), MAX_DIGESTS);
        self.distinct(&place, &wire.image.digests);
    }

    pub(super) fn distinct(&mut self, place: &Place, digests: &[Digest]) {
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

    pub(super) fn bounded(&mut self, place: &Place, count: usize, limit: usize) {
        if count > limit {
            self.problem(place.clone(), What::TooMany { count, limit });
        }
    }

    pub(super) fn arch(&mut self, arch: &str) -> Option<Abi> {
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

    pub(super) fn kernel(&mut self, bound: &str) -> Option<(u32, u32)> {
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

    pub(super) fn otherwise(&mut self, wire: &PolicyV1) -> u16 {
        self.fixed(
            Place::field("otherwise").at("action"),
            &wire.otherwise.action,
            "errno",
        );
        self.errno(Place::field("otherwise").at("errno"), &wire.otherwise.errno)
    }

    pub(super) fn errno(&mut self, place: Place, name: &str) -> u16 {
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

    pub(super) fn ceiling(&mut self, ceiling: &CeilingV1, abi: Abi) -> BTreeMap<u32, Reach> {
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
                .calls(&place, calls, abi, Use::Closing)
                .into_iter()
                .map(|call| (call.nr, Reach::Always))
                .collect(),
        }
    }
}
