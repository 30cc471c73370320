//! What the live table knows: containers as of the last status, rates between the last two, denials by kind, what is chosen.
//!
//! Pure: answers and keys go in with the time, [`super::draw`] reads it. Nothing here grows without a bound.

use crate::control::status;
use lazaret_core::control::{ContainerState, ContainerStatus, Counts, DriftEntry, Reply};
use lazaret_core::event::{Event, What};
use lazaret_core::phase::Phase;
use std::collections::{BTreeMap, VecDeque};

/// How many kinds of denials are kept; the ones longest ago go first.
const DENIALS: usize = 512;

/// How many other events are kept.
const EVENTS: usize = 64;

/// How the gate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// Not reached yet.
    Connecting,
    /// It answers.
    Here,
    /// It does not, since then, for this reason.
    Away { since_ms: u64, reason: String },
}

/// What came from the gate, or did not.
#[derive(Clone, Debug)]
pub(crate) enum Feed {
    /// An answer or an event.
    Reply(Box<Reply>),
    /// It cannot be reached.
    Away(String),
    /// Its events are read, or why they are not.
    Events(Result<(), String>),
}

/// Calls of the ask band in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    /// Calls that reached the gate.
    pub(crate) asked: f64,
    /// Of these: allowed.
    pub(crate) allowed: f64,
    /// Of these: denied, or would have been.
    pub(crate) denied: f64,
}

/// One container.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// As the gate told it.
    pub(crate) status: ContainerStatus,
    /// Over all phases, since its start.
    pub(crate) totals: Counts,
    /// None until there are two answers to compare, and after counts that began anew.
    pub(crate) rates: Option<Rates>,
}

/// Denials of one kind, since the table was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    pub(crate) container: String,
    pub(crate) phase: Phase,
    pub(crate) process: String,
    pub(crate) call: String,
    pub(crate) nr: u32,
    pub(crate) arch: String,
    pub(crate) args: [u64; 6],
    pub(crate) enforced: bool,
    pub(crate) times: u64,
    /// When the gate told of the last one, milliseconds since the Unix epoch.
    pub(crate) last_ms: u64,
}

/// What is known.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) link: Link,
    pub(crate) version: String,
    pub(crate) lost_events: u64,
    /// Events that this program was too slow for.
    pub(crate) missed: u64,
    /// By id.
    pub(crate) rows: BTreeMap<String, Row>,
    /// Last first.
    pub(crate) denials: VecDeque<Denial>,
    /// Other events, last first.
    pub(crate) events: VecDeque<Event>,
    /// Why no events come, while status does.
    pub(crate) no_events: Option<String>,
    /// When the last status came, milliseconds of a clock that never jumps.
    at_ms: Option<u64>,
}

impl Model {
    fn new() -> Model {
        Model {
            link: Link::Connecting,
            version: String::new(),
            lost_events: 0,
            missed: 0,
            rows: BTreeMap::new(),
            denials: VecDeque::new(),
            events: VecDeque::new(),
            no_events: None,
            at_ms: None,
        }
    }

    /// The container's name, or the beginning of its id.
    pub(crate) fn name_of(&self, id: &str) -> String {
        match self.rows.get(id) {
            Some(row) if !row.status.name.is_empty() => status::name(&row.status),
            _ => crate::control::short_id(id),
        }
    }

    fn away(&mut self, reason: String, now_ms: u64) {
        let since_ms = match self.link {
            Link::Away { since_ms, .. } => since_ms,
            _ => now_ms,
        };
        self.link = Link::Away { since_ms, reason };
        // what happens meanwhile is no rate of a second
        self.at_ms = None;
        for row in self.rows.values_mut() {
            row.rates = None;
        }
    }

    fn reply(&mut self, reply: Reply, now_ms: u64) {
        match reply {
            Reply::Status {
                version,
                containers,
                lost_events,
                ..
            } => {
                self.link = Link::Here;
                self.version = version;
                self.lost_events = lost_events;
                self.status(containers, now_ms);
            }
            Reply::Event { event, .. } => self.event(event),
            Reply::Missed { events, .. } => self.missed = self.missed.saturating_add(events),
            // drift is taken in by State; the others answer what the table never asks, and errors come as Feed::Away
            Reply::Drift { .. }
            | Reply::Watching { .. }
            | Reply::Revised { .. }
            | Reply::Done { .. }
            | Reply::Error { .. } => {}
        }
    }

    fn status(&mut self, containers: Vec<ContainerStatus>, now_ms: u64) {
        let elapsed_ms = self.at_ms.map(|at_ms| now_ms.saturating_sub(at_ms));
        let before = std::mem::take(&mut self.rows);
        for status in containers {
            let totals = totals(&status);
            let rates = before
                .get(&status.id)
                .zip(elapsed_ms)
                .and_then(|(before, elapsed_ms)| rates(before.totals, totals, elapsed_ms));
            let row = Row {
                totals,
                rates,
                status,
            };
            self.rows.insert(row.status.id.clone(), row);
        }
        self.at_ms = Some(now_ms);
    }

    fn event(&mut self, event: Event) {
        let What::Denied {
            times,
            process,
            nr,
            arch,
            call,
            args,
            phase,
            enforced,
            ..
        } = event.what
        else {
            self.events.push_front(event);
            self.events.truncate(EVENTS);
            return;
        };
        let same = |known: &Denial| {
            known.container == event.container
                && known.phase == phase
                && known.nr == nr
                && known.arch == arch
                && known.process == process
                && known.enforced == enforced
        };
        let known = self.denials.iter().position(same);
        let before = known.and_then(|at| self.denials.remove(at));
        self.denials.push_front(Denial {
            times: before.map_or(times, |before| before.times.saturating_add(times)),
            container: event.container,
            phase,
            process,
            call,
            nr,
            arch,
            args,
            enforced,
            last_ms: event.time_ms,
        });
        self.denials.truncate(DENIALS);
    }
}

/// Over all phases.
fn totals(status: &ContainerStatus) -> Counts {
    let ContainerState::Admitted(admitted) = &status.state else {
        return Counts::default();
    };
    admitted
        .counts
        .values()
        .fold(Counts::default(), |sum, counts| Counts {
            asked: sum.asked.saturating_add(counts.asked),
            allowed: sum.allowed.saturating_add(counts.allowed),
            denied: sum.denied.saturating_add(counts.denied),
        })
}

/// None for counts that went down (they began anew) and for answers at the same moment.
fn rates(before: Counts, now: Counts, elapsed_ms: u64) -> Option<Rates> {
    if elapsed_ms == 0 {
        return None;
    }
    // counts and milliseconds of a session are far below 2^53
    let rate =
        |before: u64, now: u64| Some(now.checked_sub(before)? as f64 * 1_000.0 / elapsed_ms as f64);
    Some(Rates {
        asked: rate(before.asked, now.asked)?,
        allowed: rate(before.allowed, now.allowed)?,
        denied: rate(before.denied, now.denied)?,
    })
}

/// By what the table is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Name,
    Phase,
    DeniedRate,
    Denied,
    AskedRate,
}

impl Sort {
    const fn next(self) -> Sort {
        match self {
            Sort::Name => Sort::Phase,
            Sort::Phase => Sort::DeniedRate,
            Sort::DeniedRate => Sort::Denied,
            Sort::Denied => Sort::AskedRate,
            Sort::AskedRate => Sort::Name,
        }
    }

    /// For the title.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Sort::Name => "name",
            Sort::Phase => "phase",
            Sort::DeniedRate => "denied/s",
            Sort::Denied => "denied",
            Sort::AskedRate => "asked/s",
        }
    }
}

/// What is on the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum View {
    Table,
    /// One container, scrolled down by so many lines.
    Details {
        id: String,
        scrolled: usize,
    },
}

/// What a key means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Enter,
    Escape,
    Backspace,
    Interrupt,
    Char(char),
}

/// What is to be done after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Stay,
    Quit,
    Interrupted,
}

/// How many rows a page moves.
const PAGE: usize = 10;

/// The longest filter, in characters.
const FILTER: usize = 64;

/// All of it.
#[derive(Clone, Debug)]
pub(crate) struct State {
    live: Model,
    /// What is shown while paused.
    held: Option<Box<Model>>,
    /// Of the container whose details are shown: all its denials since the gate began, most frequent first. None before the
    /// gate has told.
    pub(crate) drift: Option<Vec<DriftEntry>>,
    pub(crate) now_ms: u64,
    pub(crate) view: View,
    pub(crate) sort: Sort,
    pub(crate) filter: String,
    /// A filter is being typed.
    pub(crate) typing: bool,
    pub(crate) help: bool,
    /// The id of the chosen container.
    pub(crate) chosen: Option<String>,
    pub(crate) colour: Colour,
}

/// Whether colours are used (`NO_COLOR`, <https://no-color.org>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Yes,
    No,
}

impl State {
    /// Nothing is known yet.
    pub(crate) fn new(colour: Colour) -> State {
        State {
            live: Model::new(),
            held: None,
            drift: None,
            now_ms: 0,
            view: View::Table,
            sort: Sort::Name,
            filter: String::new(),
            typing: false,
            help: false,
            chosen: None,
            colour,
        }
    }

    /// Takes in what came; `now_ms` is of a clock that never jumps.
    pub(crate) fn apply(&mut self, feed: Feed, now_ms: u64) {
        self.now_ms = now_ms;
        match feed {
            Feed::Reply(reply) => match *reply {
                Reply::Drift { drift, .. } => self.drifted(drift),
                other => self.live.reply(other, now_ms),
            },
            Feed::Away(reason) => self.live.away(reason, now_ms),
            Feed::Events(outcome) => self.live.no_events = outcome.err(),
        }
    }

    fn drifted(&mut self, drift: Vec<DriftEntry>) {
        let asked = self.asks_about();
        // an answer about a container whose details were left meanwhile
        let stale = drift
            .iter()
            .any(|one| Some(&one.container) != asked.as_ref());
        if !stale && (self.drift.is_none() || !self.paused()) {
            self.drift = Some(drift);
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// What is shown: the live state, or the one at the pause.
    pub(crate) fn model(&self) -> &Model {
        self.held.as_deref().unwrap_or(&self.live)
    }

    /// Whether the screen stands still.
    pub(crate) fn paused(&self) -> bool {
        self.held.is_some()
    }

    /// The container whose denials the gate is asked for.
    pub(crate) fn asks_about(&self) -> Option<String> {
        match &self.view {
            View::Table => None,
            View::Details { id, .. } => Some(id.clone()),
        }
    }

    /// The rows that pass the filter, sorted.
    pub(crate) fn rows(&self) -> Vec<&Row> {
        let wanted = self.filter.to_lowercase();
        let mut rows: Vec<&Row> = self
            .model()
            .rows
            .values()
            .filter(|row| matches(row, &wanted))
            .collect();
        // stable: equal ones stay by id
        match self.sort {
            Sort::Name => rows.sort_by(|a, b| a.status.name.cmp(&b.status.name)),
            Sort::Phase => rows.sort_by_key(|row| phase(row)),
            Sort::Denied => rows.sort_by_key(|row| std::cmp::Reverse(row.totals.denied)),
            Sort::DeniedRate => by_rate(&mut rows, |rates| rates.denied),
            Sort::AskedRate => by_rate(&mut rows, |rates| rates.asked),
        }
        rows
    }

    /// Where the chosen row stands among [`State::rows`].
    pub(crate) fn chosen_at(&self, rows: &[&Row]) -> Option<usize> {
        let chosen = self.chosen.as_ref()?;
        rows.iter().position(|row| row.status.id == *chosen)
    }

    /// Does what a key means.
    pub(crate) fn press(&mut self, key: Key) -> Then {
        if key == Key::Interrupt {
            return Then::Interrupted;
        }
        if self.typing {
            self.type_filter(key);
            return Then::Stay;
        }
        if self.help {
            // any key closes it
            self.help = false;
            return match key {
                Key::Char('q') => Then::Quit,
                _ => Then::Stay,
            };
        }
        match key {
            Key::Char('q') => return Then::Quit,
            Key::Char('?') => self.help = true,
            Key::Char(' ') => {
                self.held = match self.held {
                    Some(_) => None,
                    None => Some(Box::new(self.live.clone())),
                };
            }
            Key::Up | Key::Char('k') => self.step(|at| at.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.step(|at| at.saturating_add(1)),
            Key::PageUp => self.step(|at| at.saturating_sub(PAGE)),
            Key::PageDown => self.step(|at| at.saturating_add(PAGE)),
            Key::First | Key::Char('g') => self.step(|_| 0),
            Key::Last | Key::Char('G') => self.step(|_| usize::MAX),
            Key::Escape | Key::Backspace if self.view != View::Table => self.view = View::Table,
            Key::Escape => self.filter.clear(),
            Key::Enter if self.view == View::Table => self.open(),
            Key::Char('/') if self.view == View::Table => self.typing = true,
            Key::Char('s') if self.view == View::Table => self.sort = self.sort.next(),
            _ => {}
        }
        Then::Stay
    }

    fn type_filter(&mut self, key: Key) {
        match key {
            Key::Enter => self.typing = false,
            Key::Escape => {
                self.typing = false;
                self.filter.clear();
            }
            Key::Backspace => {
                self.filter.pop();
            }
            Key::Char(one) if self.filter.chars().count() < FILTER => self.filter.push(one),
            _ => {}
        }
    }

    fn open(&mut self) {
        let rows = self.rows();
        let at = self.chosen_at(&rows).unwrap_or(0);
        let Some(row) = rows.get(at) else { return };
        let id = row.status.id.clone();
        self.drift = None;
        self.chosen = Some(id.clone());
        self.view = View::Details { id, scrolled: 0 };
    }

    fn step(&mut self, to: impl Fn(usize) -> usize) {
        if let View::Details { scrolled, .. } = &mut self.view {
            // the drawing stops at the last line
            *scrolled = to(*scrolled).min(SCROLLED);
            return;
        }
        let rows = self.rows();
        let Some(last) = rows.len().checked_sub(1) else {
            return;
        };
        let at = match self.chosen_at(&rows) {
            Some(at) => to(at).min(last),
            None => 0,
        };
        self.chosen = rows.get(at).map(|row| row.status.id.clone());
    }
}

/// The furthest that details scroll: more lines than one container can have.
const SCROLLED: usize = 4_096;

fn matches(row: &Row, wanted: &str) -> bool {
    let status = &row.status;
    wanted.is_empty()
        || status.id.starts_with(wanted)
        || status.name.to_lowercase().contains(wanted)
        || state_word(&status.state).contains(wanted)
        || match &status.state {
            ContainerState::Admitted(admitted) => {
                admitted.phase.name().contains(wanted)
                    || admitted.in_force.mode.contains(wanted)
                    || admitted.in_force.policy.contains(wanted)
            }
            _ => false,
        }
}

/// How the gate holds it, in a word.
pub(crate) fn state_word(state: &ContainerState) -> &'static str {
    match state {
        ContainerState::Prelude => "prelude",
        ContainerState::Admitted(_) => "held",
        ContainerState::PapersLost { .. } => "papers lost",
        ContainerState::Unsupervised => "unsupervised",
    }
}

fn phase(row: &Row) -> Option<Phase> {
    match &row.status.state {
        ContainerState::Admitted(admitted) => Some(admitted.phase),
        _ => None,
    }
}

fn by_rate(rows: &mut [&Row], of: impl Fn(&Rates) -> f64) {
    let rate = |row: &Row| row.rates.as_ref().map_or(-1.0, &of);
    rows.sort_by(|a, b| rate(b).total_cmp(&rate(a)));
}
