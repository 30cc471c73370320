//! A FHIR server in memory that takes batches of `AuditEvent`s, and on request does one thing wrong. One thread per connection.

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// How the server behaves.
#[derive(Clone, Debug)]
pub(super) enum Scenario {
    /// As it should.
    Correct,
    /// Breaks each connection before it reads.
    Down,
    /// Reads, and never answers.
    Hangs,
    /// Answers with this status and header, and takes nothing.
    Answers(u16, Option<(&'static str, String)>),
    /// Answers each entry that tells of this container with this status, and takes the others.
    Entry(&'static str, u16),
    /// Refuses a whole batch with this status when one of its entries tells of this container.
    Batch(&'static str, u16),
    /// Takes everything and breaks the connection in the middle of the answer.
    Cut,
    /// Takes everything, but not without this token.
    Token(&'static str),
}

#[derive(Default)]
pub(super) struct State {
    scenario: Option<Scenario>,
    /// What it has, by id.
    pub(super) stored: BTreeMap<String, Value>,
    /// Ids in the order in which they came first.
    pub(super) order: Vec<String>,
    /// How often each came.
    pub(super) puts: u64,
    /// Batches that came.
    pub(super) requests: u64,
    /// Connections at this moment, and the most there were.
    open: u64,
    pub(super) most_open: u64,
    /// Called when a batch was taken, before it is answered.
    taken: Option<Box<dyn FnMut() + Send>>,
}

/// The server. It ends with the process of the test.
#[derive(Clone)]
pub(super) struct Fake {
    port: u16,
    shared: Arc<(Mutex<State>, Condvar)>,
}

/// A stream that is read and written.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Fake {
    pub(super) fn start(scenario: Scenario) -> Fake {
        Fake::listen(scenario, None)
    }

    pub(super) fn start_tls(scenario: Scenario, config: ServerConfig) -> Fake {
        Fake::listen(scenario, Some(Arc::new(config)))
    }

    fn listen(scenario: Scenario, tls: Option<Arc<ServerConfig>>) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let state = State {
            scenario: Some(scenario),
            ..State::default()
        };
        let fake = Fake {
            port,
            shared: Arc::new((Mutex::new(state), Condvar::new())),
        };
        let server = fake.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (server, tls) = (server.clone(), tls.clone());
                std::thread::spawn(move || server.connection(stream, tls));
            }
        });
        fake
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().expect("no panic in the server")
    }

    pub(super) fn behave(&self, scenario: Scenario) {
        self.state().scenario = Some(scenario);
    }

    /// Does this between the taking of the next batch and its answer.
    pub(super) fn when_taken(&self, work: impl FnMut() + Send + 'static) {
        self.state().taken = Some(Box::new(work));
    }

    /// Waits until this holds.
    pub(super) fn wait(&self, what: &str, holds: impl Fn(&State) -> bool) {
        let waited = self
            .shared
            .1
            .wait_timeout_while(self.state(), PATIENCE, |state| !holds(state))
            .expect("no panic in the server");
        assert!(
            !waited.1.timed_out(),
            "{what}: {} stored",
            waited.0.stored.len()
        );
    }

    fn connection(&self, stream: TcpStream, tls: Option<Arc<ServerConfig>>) {
        {
            let mut state = self.state();
            state.open += 1;
            state.most_open = state.most_open.max(state.open);
        }
        match tls {
            None => self.serve(stream),
            Some(config) => {
                let session = ServerConnection::new(config).expect("a session");
                self.serve(StreamOwned::new(session, stream));
            }
        }
        self.state().open -= 1;
    }

    /// Requests of one connection until it ends.
    fn serve(&self, stream: impl Stream) {
        let mut stream = BufReader::new(stream);
        while self.request(&mut stream).is_some() {}
    }

    fn request(&self, stream: &mut BufReader<impl Stream>) -> Option<()> {
        let (mut length, mut token) = (0, None);
        let mut first = String::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            if lower.starts_with("authorization:") {
                token = line
                    .split_once("Bearer ")
                    .map(|(_, token)| token.to_owned());
            }
            if first.is_empty() {
                line.clone_into(&mut first);
            }
        }
        assert_eq!(first, "POST /fhir HTTP/1.1");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        let bundle: Value = serde_json::from_slice(&body).expect("JSON");
        let mut state = self.state();
        state.requests += 1;
        let scenario = state.scenario.clone().expect("a scenario");
        let answer = match &scenario {
            Scenario::Down => None,
            Scenario::Hangs => {
                drop(state);
                self.shared.1.notify_all();
                stream.read_to_end(&mut Vec::new()).ok();
                return None;
            }
            Scenario::Answers(status, header) => Some((*status, header.clone(), Value::Null)),
            Scenario::Batch(container, status) if bundle.to_string().contains(container) => {
                Some((*status, None, Value::Null))
            }
            Scenario::Token(wanted) if token.as_deref() != Some(wanted) => {
                Some((401, None, Value::Null))
            }
            Scenario::Entry(container, status) => Some((
                200,
                None,
                state.take(&bundle, |entry| {
                    entry.to_string().contains(container).then_some(*status)
                }),
            )),
            Scenario::Correct | Scenario::Batch(..) | Scenario::Token(_) | Scenario::Cut => {
                Some((200, None, state.take(&bundle, |_| None)))
            }
        };
        if let Some(mut work) = state.taken.take() {
            work();
        }
        drop(state);
        let (status, header, body) = answer?;
        let body = body.to_string();
        let header = header.map_or(String::new(), |(name, value)| {
            format!("{name}: {value}\r\n")
        });
        let mut text = format!(
            "HTTP/1.1 {status} X\r\n{header}Content-Type: application/fhir+json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let cut = matches!(scenario, Scenario::Cut);
        if cut {
            text.truncate(text.len() - body.len() / 2);
        }
        stream.get_mut().write_all(text.as_bytes()).ok()?;
        stream.get_mut().flush().ok()?;
        self.shared.1.notify_all();
        (!cut).then_some(())
    }
}

impl State {
    /// Takes what `refuse` lets pass; the batch-response.
    fn take(&mut self, bundle: &Value, refuse: impl Fn(&Value) -> Option<u16>) -> Value {
        assert_eq!(bundle["type"], "batch");
        let mut answers = Vec::new();
        for entry in bundle["entry"].as_array().expect("entries") {
            let id = entry["resource"]["id"].as_str().expect("an id").to_owned();
            assert_eq!(entry["request"]["url"], format!("AuditEvent/{id}"));
            let status = match refuse(entry) {
                Some(status) => status.to_string(),
                None => {
                    self.puts += 1;
                    let before = self.stored.insert(id.clone(), entry["resource"].clone());
                    match before {
                        None => {
                            self.order.push(id);
                            "201 Created".to_owned()
                        }
                        Some(before) => {
                            assert_eq!(before, entry["resource"], "one id, two contents");
                            "200 OK".to_owned()
                        }
                    }
                }
            };
            answers.push(json!({"response": {"status": status}}));
        }
        json!({"resourceType": "Bundle", "type": "batch-response", "entry": answers})
    }
}
