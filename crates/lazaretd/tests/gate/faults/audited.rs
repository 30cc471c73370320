//! A FHIR server that takes AuditEvents, and whether every event of the log arrived there.

use super::stage::{eventually, log_lines};
use crate::node::Node;
use lazaret_fhir::audit::{self, Place, audit_event};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What the server has, by id.
type Stored = Arc<Mutex<BTreeMap<String, Value>>>;

/// An export under way.
pub(super) struct Export {
    stored: Stored,
}

impl Export {
    /// The node's next daemons export to a server that has nothing yet.
    pub(super) fn to_new_server(node: &mut Node) -> Export {
        let socket = TcpListener::bind("127.0.0.1:0").expect("port");
        let port = socket.local_addr().expect("address").port();
        let stored = Stored::default();
        let taken = Arc::clone(&stored);
        std::thread::spawn(move || {
            for stream in socket.incoming().map_while(Result::ok) {
                let taken = Arc::clone(&taken);
                std::thread::spawn(move || while serve(&stream, &taken).is_some() {});
            }
        });
        let queue = node.own("audit").display().to_string();
        for (option, value) in [
            ("--audit-endpoint", format!("http://127.0.0.1:{port}/fhir")),
            ("--audit-queue", queue),
            ("--node", "node-1".to_owned()),
        ] {
            node.options.extend([option.to_owned(), value]);
        }
        Export { stored }
    }

    /// Waits until every event of the log that is exported has arrived, each once.
    pub(super) fn is_complete(&self, node: &mut Node) {
        let own = audit::Node::new("node-1").expect("a name");
        let place = Place {
            log: [0; 32],
            offset: 0,
        };
        eventually("every event is exported", || {
            let lines = log_lines(node);
            let events = lines
                .iter()
                .filter_map(|line| serde_json::from_str(line).ok());
            let exported = events.filter_map(|event| audit_event(&event, &own, &place));
            let expected = exported.count();
            let arrived = self.stored.lock().expect("stored").len();
            assert!(arrived <= expected || log_lines(node).len() > lines.len());
            expected > 5 && arrived == expected
        });
    }
}

/// Answers one request; none at the end.
fn serve(stream: &TcpStream, stored: &Stored) -> Option<()> {
    let mut read = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if read.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    read.read_exact(&mut body).ok()?;
    let bundle: Value = serde_json::from_slice(&body).expect("JSON");
    let mut answers = Vec::new();
    for entry in bundle["entry"].as_array().expect("entries") {
        let resource = &entry["resource"];
        let id = resource["id"].as_str().expect("an id").to_owned();
        let before = stored.lock().expect("stored").insert(id, resource.clone());
        assert!(before.is_none_or(|before| before == *resource));
        answers.push(json!({"response": {"status": "201 Created"}}));
    }
    let answer = json!({"resourceType": "Bundle", "type": "batch-response", "entry": answers});
    let answer = answer.to_string();
    let mut write = stream;
    write!(
        write,
        "HTTP/1.1 200 OK\r\nContent-Type: application/fhir+json\r\nContent-Length: {}\r\n\r\n{answer}",
        answer.len()
    )
    .ok()
}
