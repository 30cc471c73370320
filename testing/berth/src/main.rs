//! A small server that the gate's end-to-end tests run in a container.
//!
//! It is ready when told to be, makes one harmless system call for each request that names one, and says what the kernel
//! answered: so a test can ask from outside what a container may do in each phase. It is linked statically, lies alone in an
//! image made `FROM scratch`, and is no part of Lazaret: it knows nothing of policies.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /ready` | 503 until `BERTH_READY_AFTER_MS` milliseconds after the start, then 200 |
//! | `GET /call/NAME` | makes the call; `?a0=…&a1=…` replaces arguments of calls that take numbers only |
//! | `GET /calls` | the names that `/call` knows |
//! | `GET /fork` | a child that ends at once |
//! | `GET /threads?n=N` | N threads (at most 64) that end at once |
//! | `GET /read?path=P` | the first 4 KiB of a file |
//!
//! Every answer is one line of JSON. On SIGTERM the call named in `BERTH_STOP_CALL` (`unlink` if not set) is made, its result
//! printed, and the server ends with code 0. `berth exec-probe [NAME…]` is for `docker exec`: it makes the calls in its own
//! process, prints a line for each, and ends with 0 when the server is ready, 1 when it is not.

mod calls;
mod http;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{Answer, Request};

/// Requests are served by this many threads, made before the port opens: serving makes none.
const WORKERS: usize = 4;

/// The most that `/threads` makes at once.
const MAX_THREADS: u64 = 64;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        None | Some("serve") => serve(),
        Some("exec-probe") => exec_probe(args),
        Some(other) => {
            eprintln!("berth: unknown command `{other}`; there are `serve` and `exec-probe`");
            ExitCode::from(2)
        }
    }
}

fn serve() -> ExitCode {
    let begin = Instant::now();
    let ready_after = Duration::from_millis(variable("BERTH_READY_AFTER_MS", 0));
    let stop = match calls::on_terminate() {
        Ok(stop) => stop,
        Err(error) => return fail("cannot block SIGTERM", &error),
    };
    let listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port())) {
        Ok(listener) => Arc::new(listener),
        Err(error) => return fail("cannot listen", &error),
    };
    for _ in 0..WORKERS {
        let listener = Arc::clone(&listener);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is its own affair.
                http::serve(stream, |request| {
                    answer(request, begin.elapsed() >= ready_after)
                })
                .ok();
            }
        });
    }
    println!("berth: listening on {}", port());
    stop.wait();
    let name = std::env::var("BERTH_STOP_CALL").unwrap_or_else(|_| "unlink".into());
    match calls::make(&name, &[]) {
        Some(result) => println!("berth: stopping: {}", result.json(&name)),
        None => println!("berth: stopping: no call `{name}`"),
    }
    ExitCode::SUCCESS
}

fn answer(request: &Request, ready: bool) -> Answer {
    let path = request.path.as_str();
    if let Some(name) = path.strip_prefix("/call/") {
        let numbers: Vec<Option<u64>> = (0..6).map(|n| request.number(&format!("a{n}"))).collect();
        return match calls::make(name, &numbers) {
            Some(result) => Answer::ok(result.json(name)),
            None => Answer::not_found(),
        };
    }
    match path {
        "/ready" if ready => Answer::ok("{\"ready\": true}".into()),
        "/ready" => Answer::unavailable("{\"ready\": false}".into()),
        "/calls" => Answer::ok(format!("{:?}", calls::names())),
        "/fork" => Answer::ok(calls::fork_once().json("fork")),
        "/threads" => threads(request.number("n").unwrap_or(1).min(MAX_THREADS)),
        "/read" => read(request.text("path").unwrap_or("/nonexistent")),
        _ => Answer::not_found(),
    }
}

fn threads(count: u64) -> Answer {
    let made: Vec<_> = (0..count)
        .map(|_| thread::Builder::new().spawn(|| {}))
        .collect();
    let failed = made
        .iter()
        .filter_map(|t| t.as_ref().err()?.raw_os_error())
        .next_back()
        .unwrap_or(0);
    let worked = made
        .into_iter()
        .flatten()
        .filter_map(|t| t.join().ok())
        .count();
    Answer::ok(format!(
        "{{\"asked\": {count}, \"made\": {worked}, \"errno\": {failed}}}"
    ))
}

fn read(path: &str) -> Answer {
    let mut bytes = Vec::new();
    let result = std::fs::File::open(path).and_then(|file| file.take(4096).read_to_end(&mut bytes));
    let errno = result.err().and_then(|e| e.raw_os_error()).unwrap_or(0);
    Answer::ok(format!(
        "{{\"errno\": {errno}, \"text\": {:?}}}",
        String::from_utf8_lossy(&bytes)
    ))
}

fn exec_probe(names: impl Iterator<Item = String>) -> ExitCode {
    for name in names {
        match calls::make(&name, &[]) {
            Some(result) => println!("{}", result.json(&name)),
            None => {
                eprintln!("berth: no call `{name}`");
                return ExitCode::from(2);
            }
        }
    }
    match probe() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail("cannot ask the server", &error),
    }
}

fn probe() -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port()))?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nHost: berth\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(status.ends_with(b" 200"))
}

fn port() -> u16 {
    variable("BERTH_PORT", 8080)
}

fn variable<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn fail(what: &str, error: &std::io::Error) -> ExitCode {
    eprintln!("berth: {what}: {error}");
    ExitCode::FAILURE
}
