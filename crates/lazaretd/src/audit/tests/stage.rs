//! A log, a queue and an export of them, for one test.

use super::super::settings::{Settings, Written};
use super::super::{Handle, Metrics, Pace, spawn_at};
use super::fake::Fake;
use lazaret_core::event::{Event, What};
use serde_json::Value;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// As fast as a test wants it.
pub(super) const QUICK: Pace = Pace {
    poll: Duration::from_millis(5),
    first_wait: Duration::from_millis(5),
    longest_wait: Duration::from_millis(40),
    request: Duration::from_millis(500),
    tell: Duration::from_millis(50),
};

/// A bound that the tests fill quickly; the settings' own is checked by theirs.
pub(super) const SMALL: u64 = 64 << 10;

pub(super) struct Stage {
    folder: tempfile::TempDir,
    pub(super) settings: Settings,
}

impl Stage {
    pub(super) fn new(fake: &Fake) -> Stage {
        Stage::at(&format!("http://127.0.0.1:{}/fhir", fake.port()))
    }

    pub(super) fn at(endpoint: &str) -> Stage {
        let folder = tempfile::tempdir().expect("folder");
        let settings = Settings::new(Written {
            endpoint: endpoint.to_owned(),
            queue: folder.path().join("audit"),
            max_bytes: 8 << 20,
            token_file: None,
            ca_file: None,
            node_name: Some("node-7".to_owned()),
        });
        let settings = settings.expect("good settings");
        Stage { folder, settings }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path("events.jsonl")
    }

    /// Writes events into the log, one for each time; the container has the name given.
    pub(super) fn events(&self, container: &str, times: impl IntoIterator<Item = u64>) {
        let mut file = append(&self.log());
        for time_ms in times {
            let what = What::Ended { exec: false };
            write(&mut file, &event(container, time_ms, what));
        }
    }

    pub(super) fn export(&self) -> Handle {
        self.export_of(&self.settings)
    }

    pub(super) fn export_of(&self, settings: &Settings) -> Handle {
        let log = self.log();
        let tell = move |what| write(&mut append(&log), &event("", 0, what));
        spawn_at(QUICK, settings, &self.log(), tell).expect("it starts")
    }

    /// Names of the files in a folder of the queue.
    pub(super) fn files(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.settings.queue.join(folder)).expect("a folder");
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }
}

pub(super) fn event(container: &str, time_ms: u64, what: What) -> Event {
    Event {
        v: 1,
        time_ms,
        container: container.to_owned(),
        what,
    }
}

fn append(path: &Path) -> File {
    File::options()
        .append(true)
        .create(true)
        .open(path)
        .expect("the log opens")
}

fn write(file: &mut File, event: &Event) {
    let mut line = serde_json::to_vec(event).expect("plain data");
    line.push(b'\n');
    file.write_all(&line).expect("written");
}

pub(super) fn stop(handle: Handle) {
    handle.stop(Duration::from_secs(5));
}

/// Waits until the metrics are like this.
pub(super) fn wait(handle: &Handle, what: &str, holds: impl Fn(&Metrics) -> bool) -> Metrics {
    let until = Instant::now() + PATIENCE;
    loop {
        let metrics = handle.metrics();
        if holds(&metrics) {
            return metrics;
        }
        assert!(Instant::now() < until, "{what}: {metrics:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What was recorded of the containers named so, in the order in which it was stored first.
pub(super) fn recorded(fake: &Fake, container: &str) -> Vec<String> {
    let state = fake.state();
    let of = |resource: &Value| {
        let id = &resource["entity"][0]["what"]["identifier"]["value"];
        (id == container).then(|| resource["recorded"].as_str().expect("a time").to_owned())
    };
    state
        .order
        .iter()
        .filter_map(|id| of(&state.stored[id]))
        .collect()
}
