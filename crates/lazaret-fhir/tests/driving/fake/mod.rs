//! A tiny FHIR server in memory that does what the exercise checks, and on request does one thing wrong.

mod store;

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
pub(crate) use store::Fault;
use store::Store;

pub(crate) const CAPABILITY: &str = include_str!("../../vectors/hapi-8.8.0-capability.json");

/// How the server behaves.
#[derive(Clone, Debug)]
pub(crate) enum Scenario {
    /// As it should.
    Correct,
    /// As it should, but declares this.
    Declares(Value),
    /// Answers `/metadata` with this.
    Metadata(u16, &'static str, Vec<u8>),
    /// Never answers.
    Hangs,
    /// Answers requests of this method whose path has this part with this status.
    Answers(&'static str, &'static str, u16),
    /// Breaks every connection from the n-th request on.
    DiesAfter(usize),
    /// Answers the first n requests with 503.
    StartsAfter(usize),
    /// Does one thing wrong.
    Wrong(Fault),
}

#[derive(Default)]
struct State {
    /// `GET Patient/1`, in order of arrival.
    log: Vec<String>,
    connections: Vec<TcpStream>,
    /// All there ever were.
    accepted: usize,
    down: bool,
    store: Store,
}

/// The server. It ends with the process of the test; its port is free again when its listener is.
pub(crate) struct Fake {
    port: u16,
    shared: Arc<(Mutex<State>, Condvar)>,
}

pub(crate) struct Request {
    pub(crate) method: String,
    /// Below `/fhir/`, with the query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        Some(&found.1)
    }
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        let outcome = json!({"resourceType": "OperationOutcome", "issue": [{"diagnostics": format!("because {status}")}]});
        Self::json(status, &outcome)
    }

    pub(crate) fn json(status: u16, value: &Value) -> Self {
        Self::raw(
            status,
            "application/fhir+json",
            value.to_string().into_bytes(),
        )
    }

    pub(crate) fn raw(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type", content_type.to_owned())],
            body,
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl Fake {
    pub(crate) fn start(scenario: Scenario) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a bound socket").port();
        let shared = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let of_server = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, scenario) = (Arc::clone(&of_server), scenario.clone());
                thread::spawn(move || serve(stream, &shared, &scenario));
            }
        });
        Self { port, shared }
    }

    pub(crate) fn base(&self) -> String {
        format!("http://127.0.0.1:{}/fhir", self.port)
    }

    pub(crate) fn log(&self) -> Vec<String> {
        lock(&self.shared).log.clone()
    }

    pub(crate) fn accepted(&self) -> usize {
        lock(&self.shared).accepted
    }

    /// Waits until `more` further requests have arrived.
    pub(crate) fn wait_for_more(&self, more: usize) {
        let state = lock(&self.shared);
        let until = state.log.len() + more;
        drop(
            self.shared
                .1
                .wait_while(state, |s| s.log.len() < until)
                .expect("no panic in the server"),
        );
    }

    /// Breaks all connections, and every new one.
    pub(crate) fn down(&self) {
        take_down(&mut lock(&self.shared));
    }

    pub(crate) fn up(&self) {
        lock(&self.shared).down = false;
    }
}

fn lock(shared: &(Mutex<State>, Condvar)) -> MutexGuard<'_, State> {
    shared.0.lock().expect("no panic in the server")
}

fn take_down(state: &mut State) {
    state.down = true;
    for connection in state.connections.drain(..) {
        // It may be gone already.
        connection.shutdown(Shutdown::Both).ok();
    }
}

fn serve(stream: TcpStream, shared: &(Mutex<State>, Condvar), scenario: &Scenario) {
    let Ok(clone) = stream.try_clone() else {
        return;
    };
    let mut state = lock(shared);
    state.connections.push(clone);
    state.accepted += 1;
    drop(state);
    let Ok(mut out) = stream.try_clone() else {
        return;
    };
    let mut input = BufReader::new(stream);
    while let Some(request) = read(&mut input) {
        let mut state = lock(shared);
        // A request that meets a server that is down counts as well: the tests wait for it.
        state
            .log
            .push(format!("{} {}", request.method, request.path));
        let seen = state.log.len();
        shared.1.notify_all();
        if matches!(scenario, Scenario::DiesAfter(n) if seen > *n) {
            take_down(&mut state);
        }
        if state.down {
            out.shutdown(Shutdown::Both).ok();
            return;
        }
        let answer = answer(&request, seen, &mut state, scenario);
        drop(state);
        let Some(answer) = answer else {
            // Hangs: until the client gives up, which ends the read.
            input.read_to_end(&mut Vec::new()).ok();
            return;
        };
        let mut head = format!(
            "HTTP/1.1 {} x\r\nContent-Length: {}\r\n",
            answer.status,
            answer.body.len()
        );
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        // One write: two would wait for each other (Nagle, delayed ACK). The client may stop reading a body that is too large.
        let bytes = [head.as_bytes(), &answer.body].concat();
        if out.write_all(&bytes).is_err() {
            return;
        }
    }
}

fn answer(
    request: &Request,
    seen: usize,
    state: &mut State,
    scenario: &Scenario,
) -> Option<Answer> {
    let metadata = request.path.split('?').next() == Some("metadata");
    match scenario {
        Scenario::Hangs => return None,
        Scenario::Metadata(status, content_type, body) if metadata => {
            return Some(Answer::raw(*status, content_type, body.clone()));
        }
        Scenario::Declares(value) if metadata => return Some(Answer::json(200, value)),
        Scenario::Answers(method, part, status)
            if request.method == *method && has(&request.path, part) =>
        {
            return Some(Answer::status(*status));
        }
        Scenario::StartsAfter(n) if seen <= *n => return Some(Answer::status(503)),
        _ => {}
    }
    if metadata {
        return Some(Answer::raw(
            200,
            "application/fhir+json",
            CAPABILITY.as_bytes().to_vec(),
        ));
    }
    let fault = match scenario {
        Scenario::Wrong(fault) => Some(*fault),
        _ => None,
    };
    Some(state.store.handle(request, fault))
}

/// An empty part is the base itself.
fn has(path: &str, part: &str) -> bool {
    if part.is_empty() {
        path.is_empty()
    } else {
        path.contains(part)
    }
}

fn read(input: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    input.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let rest = target.strip_prefix("/fhir").unwrap_or("elsewhere");
    let mut request = Request {
        method,
        path: rest.trim_start_matches('/').to_owned(),
        headers,
        body: Vec::new(),
    };
    let length: usize = request
        .header("content-length")
        .map_or(0, |l| l.parse().expect("a length"));
    request.body = vec![0; length];
    input.read_exact(&mut request.body).ok()?;
    Some(request)
}
