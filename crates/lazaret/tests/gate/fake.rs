//! A gate that says what it is told to.

use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use tempfile::TempDir;

/// What the gate does when a request of a type comes.
#[derive(Clone)]
pub(crate) enum Play {
    /// Answers with these lines and waits for the next request.
    Say(Vec<Value>),
    /// Writes these bytes and hangs up.
    Raw(Vec<u8>),
}

/// For each type of request what is played, one after the other; the last one again and again.
type Scenario = Vec<(&'static str, Vec<Play>)>;

pub(crate) struct Gate {
    dir: TempDir,
    requests: Arc<Mutex<Vec<Value>>>,
    /// Connections that are open, to be cut.
    open: Arc<Mutex<Vec<UnixStream>>>,
}

impl Gate {
    pub(crate) fn plays(scenario: Scenario) -> Gate {
        let gate = Gate {
            dir: TempDir::new().expect("a directory"),
            requests: Arc::default(),
            open: Arc::default(),
        };
        gate.listen(scenario);
        gate
    }

    /// Listens; again after [`Gate::goes`].
    pub(crate) fn listen(&self, scenario: Scenario) {
        let listener = UnixListener::bind(self.socket()).expect("a socket");
        let plays: Vec<(&str, VecDeque<Play>)> = scenario
            .into_iter()
            .map(|(kind, plays)| (kind, plays.into()))
            .collect();
        let plays = Arc::new(Mutex::new(plays));
        let requests = Arc::clone(&self.requests);
        let open = Arc::clone(&self.open);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (plays, requests) = (Arc::clone(&plays), Arc::clone(&requests));
                open.lock()
                    .expect("a lock")
                    .push(stream.try_clone().expect("a descriptor"));
                thread::spawn(move || serve(stream, &plays, &requests));
            }
        });
    }

    /// Cuts every connection and takes no new ones: the socket's name is gone.
    pub(crate) fn goes(&self) {
        std::fs::remove_file(self.socket()).expect("removed");
        for stream in self.open.lock().expect("a lock").drain(..) {
            // one that the client has closed is gone already
            drop(stream.shutdown(std::net::Shutdown::Both));
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn requests(&self) -> Vec<Value> {
        self.requests.lock().expect("a lock").clone()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lazaret"));
        command
            .args(args)
            .arg("--control")
            .arg(self.socket())
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("lazaret runs")
    }

    /// Runs it; what it wrote, standard output first.
    #[track_caller]
    pub(crate) fn check(&self, args: &[&str], code: i32, said: &[&str]) -> String {
        let output = self.run(args);
        let all = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.status.code(), Some(code), "{args:?}: {all}");
        for part in said {
            assert!(all.contains(part), "{args:?}: `{part}` is not in: {all}");
        }
        all
    }
}

fn serve(
    mut stream: UnixStream,
    plays: &Mutex<Vec<(&str, VecDeque<Play>)>>,
    requests: &Mutex<Vec<Value>>,
) {
    let mut lines = BufReader::new(stream.try_clone().expect("a descriptor"));
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
        let request: Value = serde_json::from_str(&line).expect("JSON");
        line.clear();
        let kind = request["type"].as_str().expect("a type").to_string();
        requests.lock().expect("a lock").push(request);
        let play = {
            let mut plays = plays.lock().expect("a lock");
            plays
                .iter_mut()
                .find(|(known, _)| *known == kind)
                .and_then(|(_, plays)| match plays.len() {
                    0 | 1 => plays.front().cloned(),
                    _ => plays.pop_front(),
                })
        };
        let done = match play {
            Some(Play::Say(values)) => values
                .iter()
                .try_for_each(|value| stream.write_all(format!("{value}\n").as_bytes())),
            Some(Play::Raw(bytes)) => {
                // the client may have had enough before the end
                drop(stream.write_all(&bytes));
                return drop(stream.shutdown(std::net::Shutdown::Both));
            }
            None => stream.write_all(format!("{}\n", json!({"type": "error", "v": 1, "reason": format!("unknown variant `{kind}`, expected one of `status`, `watch`")})).as_bytes()),
        };
        if done.is_err() {
            return;
        }
    }
}

pub(crate) fn digest(of: char) -> String {
    format!("sha256:{}", of.to_string().repeat(64))
}

pub(crate) fn in_force(revision: u64, of: char) -> Value {
    json!({"policy": "fhir", "revision": revision, "digest": digest(of), "key": "site", "mode": "enforce"})
}

pub(crate) const ID: &str = "1111111111112222";

/// A container named `hapi` under revision 4, which denied so many calls.
pub(crate) fn status(denied: u64) -> Value {
    json!({"type": "status", "v": 1, "version": "0.0.9", "lost_events": 0, "containers": [{
        "id": ID, "name": "hapi", "pid": 7, "state": {
            "is": "admitted", "image": digest('a'), "in_force": in_force(4, 'b'), "in_kernel": in_force(3, 'c'),
            "until_restart": ["kill"], "phase": "serving", "permits": ["sha256:9999"], "execs": 1,
            "counts": {"serving": {"asked": denied + 1, "allowed": 1, "denied": denied}}, "stricter": []
        }
    }]})
}

pub(crate) fn denied(times: u64, call: &str, nr: u32) -> Value {
    json!({"v": 1, "time_ms": 1_709_251_190_000_u64, "container": ID, "type": "denied", "times": times, "pid": 7,
        "process": "java", "nr": nr, "arch": "x86_64", "call": call, "args": [4096, 493, 0, 0, 0, 0],
        "phase": "serving", "enforced": true})
}

pub(crate) fn drift(times: u64, call: &str, nr: u32) -> Value {
    json!({"container": ID, "name": "hapi", "digest": digest('b'), "phase": "serving", "call": call, "nr": nr,
        "arch": "x86_64", "process": "java", "args": [4096, 493, 0, 0, 0, 0], "times": times, "enforced": true})
}

pub(crate) fn event(event: &Value) -> Value {
    json!({"type": "event", "v": 1, "event": event})
}
