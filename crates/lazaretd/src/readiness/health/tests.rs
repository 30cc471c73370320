//! Answers of Docker 20.10.24, recorded, and played back over a Unix socket.

use super::*;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;

const STARTING: &[u8] =
    include_bytes!("../../../../../tests/vectors/engines/docker-inspect-starting.http");
const UNHEALTHY: &[u8] =
    include_bytes!("../../../../../tests/vectors/engines/docker-inspect-unhealthy.http");
const HEALTHY: &[u8] =
    include_bytes!("../../../../../tests/vectors/engines/docker-inspect-healthy.http");
/// An image without a health check.
const PLAIN: &[u8] =
    include_bytes!("../../../../../tests/vectors/engines/docker-inspect-plain.http");
/// `docker run --no-healthcheck`.
const NO_CHECK: &[u8] =
    include_bytes!("../../../../../tests/vectors/engines/docker-inspect-nocheck.http");
const MISSING: &[u8] =
    include_bytes!("../../../../../tests/vectors/engines/docker-inspect-missing.http");

/// How the fake engine treats a question.
enum Scenario {
    /// It gives this answer, and keeps the connection as Docker does.
    Answers(Vec<u8>),
    /// It gives this answer and hangs up.
    BreaksOff(Vec<u8>),
    /// It says nothing and keeps the connection.
    Silent,
    /// It hangs up.
    HangsUp,
}

/// What one question to a fake engine brings, and the question's first line.
fn outcome(scenario: Scenario) -> (Result<bool, HealthError>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("docker.sock");
    let engine = UnixListener::bind(&socket).expect("a socket");
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = engine.accept().expect("a question");
        let mut lines = BufReader::new(stream.try_clone().expect("clone"));
        let mut first = String::new();
        lines.read_line(&mut first).expect("a line");
        let mut rest = String::new();
        while lines.read_line(&mut rest).expect("a line") > 2 {
            rest.clear();
        }
        match scenario {
            Scenario::Answers(answer) => drop(stream.write_all(&answer)),
            Scenario::BreaksOff(answer) => {
                stream.write_all(&answer).expect("answered");
                return first;
            }
            Scenario::Silent => {}
            Scenario::HangsUp => return first,
        }
        // until the client hangs up, which it may do before it has read all
        if let Err(error) = lines.read_line(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
        first
    });
    let answer = asked(&socket);
    let question = serving.join().expect("served");
    (answer, question.trim().to_owned())
}

/// Asks as the daemon does: on a thread that may block.
fn asked(socket: &Path) -> Result<bool, HealthError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let socket = socket.to_path_buf();
    let asking = runtime.spawn_blocking(move || ask(&socket, "c1"));
    runtime.block_on(asking).expect("it does not panic")
}

fn answers(answer: &[u8]) -> Result<bool, HealthError> {
    let (answer, question) = outcome(Scenario::Answers(answer.to_vec()));
    assert_eq!(question, "GET /containers/c1/json HTTP/1.1");
    answer
}

#[track_caller]
fn says(answer: Result<bool, HealthError>, wanted: &str) {
    let error = anyhow::Error::from(answer.expect_err(wanted));
    assert!(format!("{error:#}").contains(wanted), "{error:#}");
}

#[test]
fn healthy_is_ready_and_nothing_else_is() {
    assert!(answers(HEALTHY).expect("an answer"));
    assert!(!answers(STARTING).expect("an answer"));
    assert!(!answers(UNHEALTHY).expect("an answer"));
}

#[test]
fn a_container_without_a_health_check_is_an_error() {
    says(answers(PLAIN), "container c1 has no health check");
    says(answers(NO_CHECK), "container c1 has no health check");
    // podman's service says it with an empty status (from its source: pkg/api/handlers/compat/containers.go)
    for health in [r#"{"Status":"none"}"#, r#"{"Status":""}"#] {
        let body = format!(r#"{{"State":{{"Health":{health}}}}}"#);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let answer = format!("{head}{body}");
        says(
            answers(answer.as_bytes()),
            "container c1 has no health check",
        );
    }
}

#[test]
fn an_engine_that_does_not_know_it_is_an_error() {
    says(
        answers(MISSING),
        "the engine's API answers 404 Not Found for container c1",
    );
}

#[test]
fn what_is_no_answer_is_an_error() {
    let plain = |body: &str| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        (head + body).into_bytes()
    };
    says(answers(b"nonsense\r\n\r\n"), "cannot ask the engine's API");
    says(answers(&plain("{}")), "cannot understand");
    says(answers(&plain("[1")), "cannot understand");
    // cut in the middle of the body
    let cut = HEALTHY.get(..HEALTHY.len() / 2).expect("a part");
    says(
        outcome(Scenario::BreaksOff(cut.to_vec())).0,
        "cannot read the engine's answer",
    );
    let long = plain(&format!("\"{}\"", "x".repeat(MAX_ANSWER)));
    says(
        outcome(Scenario::Answers(long)).0,
        "at most 1048576 bytes are read",
    );
    says(outcome(Scenario::HangsUp).0, "cannot ask the engine's API");
    says(outcome(Scenario::Silent).0, "no answer in 2 s");
}

#[test]
fn no_engine_is_an_error_that_names_the_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("docker.sock");
    says(
        asked(&socket),
        &format!("cannot reach the engine's API at `{}`", socket.display()),
    );
}
