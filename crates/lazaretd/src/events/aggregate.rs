//! Denials of one container, folded: the first of a kind is told at once, those that follow within a window in one
//! line with their number.
//!
//! Pure: no clock, no file, no queue. Nothing is ever dropped here. What was told, what is held for later, and what the
//! queue gave back always add up to the calls that were added ([`Aggregate::added`]).

use lazaret_core::phase::Phase;
use std::collections::BTreeMap;
use std::fmt;

/// Denials of one kind that come within so many milliseconds of the last line are told together.
pub(crate) const WINDOW_MS: u64 = 1000;

/// Kinds that are kept with the process's name and the call.
const EXACT: usize = 192;
/// Kinds that are kept with the call alone, after that.
const UNNAMED: usize = 54;
/// All kinds: beyond both, denials are kept by phase and by whether they were enforced.
#[cfg(test)]
pub(crate) const MAX_KEYS: usize = EXACT + UNNAMED + 2 * Phase::ALL.len();

/// What stands for a process or a call that is not kept by itself.
pub(crate) const MORE: &str = "…";

/// A process's name as the kernel keeps it: at most 15 bytes (`TASK_COMM_LEN`, `include/linux/sched.h`), printable ASCII.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Comm {
    bytes: [u8; 15],
    length: u8,
}

impl Comm {
    /// Takes what `/proc/TID/comm` says: a newline at the end is not part of it, bytes that are not printable ASCII
    /// become `?`, what is longer than the kernel keeps is cut.
    pub(crate) fn new(name: &[u8]) -> Comm {
        let name = name.strip_suffix(b"\n").unwrap_or(name);
        let mut comm = Comm {
            bytes: [0; 15],
            length: 0,
        };
        for (to, from) in comm.bytes.iter_mut().zip(name) {
            *to = match from {
                b' '..=b'~' => *from,
                _ => b'?',
            };
            comm.length += 1;
        }
        comm
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        let used = self.bytes.get(..usize::from(self.length));
        // only `new` makes one, of ASCII
        used.and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// A call as the filter sees it: its number and the audit architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CallId {
    /// `AUDIT_ARCH_*`.
    pub(crate) arch: u32,
    /// Its number, with the bit of x32.
    pub(crate) nr: u32,
}

/// Who called what. With [`MAX_KEYS`] kinds at most, a container that changes names or numbers without end cannot make this
/// grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// This process, this call.
    Exact(CallId, Comm),
    /// One of the processes that have no room of their own, this call.
    Unnamed(CallId),
    /// Neither has room.
    Rest,
}

impl Kind {
    /// The process's name; `…` when it has no room of its own.
    pub(crate) fn process(&self) -> &str {
        match self {
            Kind::Exact(_, comm) => comm.as_str(),
            Kind::Unnamed(_) | Kind::Rest => MORE,
        }
    }

    /// The call, when it has room of its own.
    pub(crate) fn call(&self) -> Option<CallId> {
        match self {
            Kind::Exact(call, _) | Kind::Unnamed(call) => Some(*call),
            Kind::Rest => None,
        }
    }
}

/// What denials are told together by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// By the rules of this phase.
    pub(crate) phase: Phase,
    /// False when the call went on all the same.
    pub(crate) enforced: bool,
    /// Who called what.
    pub(crate) kind: Kind,
}

/// What is shown of the last call of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Process id in the host's numbering.
    pub(crate) pid: u32,
    /// The call; the key of [`Kind::Rest`] does not have it.
    pub(crate) call: CallId,
    /// The six register arguments.
    pub(crate) args: [u64; 6],
}

/// One line to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "these denials are told by nobody else: offer them, or give them back"]
pub(crate) struct Told {
    /// The kind.
    pub(crate) key: Key,
    /// The last call that this line stands for.
    pub(crate) last: Sample,
    /// The calls that this line stands for; never 0.
    pub(crate) times: u64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    last: Sample,
    /// Added and not told.
    held: u64,
    /// Added since the beginning.
    total: u64,
    /// Until then calls are held.
    until_ms: u64,
}

/// The denials of one container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aggregate {
    slots: BTreeMap<Key, Slot>,
    exact: usize,
    unnamed: usize,
    added: u64,
    /// The end of the first window that holds something.
    due_ms: Option<u64>,
}

impl Aggregate {
    /// Counts a denial. `Some` is to be told now: the first of its kind, or the first after a quiet window. Otherwise it is
    /// held until [`Aggregate::due`].
    ///
    /// `now_ms` is of a clock that does not go back; if it does, denials are held longer and nothing is lost.
    pub(crate) fn add(
        &mut self,
        phase: Phase,
        enforced: bool,
        comm: Comm,
        sample: Sample,
        now_ms: u64,
    ) -> Option<Told> {
        self.added = self.added.saturating_add(1);
        let key = |kind| Key {
            phase,
            enforced,
            kind,
        };
        let mut found = key(Kind::Exact(sample.call, comm));
        if self.exact >= EXACT && !self.slots.contains_key(&found) {
            found = key(Kind::Unnamed(sample.call));
            if self.unnamed >= UNNAMED && !self.slots.contains_key(&found) {
                found = key(Kind::Rest);
            }
        }
        let (exact, unnamed) = (&mut self.exact, &mut self.unnamed);
        let slot = self.slots.entry(found).or_insert_with(|| {
            match found.kind {
                Kind::Exact(..) => *exact += 1,
                Kind::Unnamed(_) => *unnamed += 1,
                Kind::Rest => {}
            }
            Slot {
                last: sample,
                held: 0,
                total: 0,
                until_ms: now_ms,
            }
        });
        slot.last = sample;
        slot.total = slot.total.saturating_add(1);
        slot.held = slot.held.saturating_add(1);
        if now_ms < slot.until_ms {
            self.due_ms = Some(
                self.due_ms
                    .map_or(slot.until_ms, |due| due.min(slot.until_ms)),
            );
            return None;
        }
        slot.until_ms = now_ms.saturating_add(WINDOW_MS);
        slot.take(found)
    }

    /// When [`Aggregate::due`] has something to tell, on the clock of `now_ms`; `None` while nothing is held.
    #[cfg(test)]
    pub(crate) fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// What windows that are over have collected. Each kind then collects for another window.
    #[must_use = "these denials are told by nobody else: offer them, or give them back"]
    pub(crate) fn due(&mut self, now_ms: u64) -> Vec<Told> {
        if self.due_ms.is_none_or(|due| now_ms < due) {
            return Vec::new();
        }
        let mut told = Vec::new();
        self.due_ms = None;
        for (key, slot) in self.slots.iter_mut().filter(|(_, slot)| slot.held > 0) {
            if slot.until_ms <= now_ms {
                slot.until_ms = now_ms.saturating_add(WINDOW_MS);
                told.extend(slot.take(*key));
            } else {
                self.due_ms = Some(
                    self.due_ms
                        .map_or(slot.until_ms, |due| due.min(slot.until_ms)),
                );
            }
        }
        told
    }

    /// Everything that is held, whether its window is over or not: at the end of a phase or of the container. Windows stay
    /// as they are, so a phase that changes again and again brings no more lines.
    #[must_use = "these denials are told by nobody else: offer them, or give them back"]
    pub(crate) fn drain(&mut self) -> Vec<Told> {
        self.due_ms = None;
        self.slots
            .iter_mut()
            .filter_map(|(key, slot)| slot.take(*key))
            .collect()
    }

    /// Takes back a line that the queue had no room for: its calls are told with the next line of their kind.
    pub(crate) fn give_back(&mut self, told: Told) {
        // A key that was told is never removed.
        let Some(slot) = self.slots.get_mut(&told.key) else {
            debug_assert!(false, "not told by this container: {told:?}");
            return;
        };
        slot.held = slot.held.saturating_add(told.times);
        self.due_ms = Some(
            self.due_ms
                .map_or(slot.until_ms, |due| due.min(slot.until_ms)),
        );
    }

    /// The denials since the beginning, by kind, with the last call of each: what `lazaret status` and `suggest` show.
    pub(crate) fn table(&self) -> Vec<Told> {
        let rows = self.slots.iter().map(|(key, slot)| Told {
            key: *key,
            last: slot.last,
            times: slot.total,
        });
        rows.collect()
    }

    /// Every denial since the beginning.
    #[cfg(test)]
    pub(crate) fn added(&self) -> u64 {
        self.added
    }

    /// Denials that no line has told yet.
    #[cfg(test)]
    pub(crate) fn held(&self) -> u64 {
        self.slots.values().map(|slot| slot.held).sum()
    }
}

impl Slot {
    fn take(&mut self, key: Key) -> Option<Told> {
        let times = std::mem::take(&mut self.held);
        (times > 0).then_some(Told {
            key,
            last: self.last,
            times,
        })
    }
}

#[cfg(test)]
mod tests;
