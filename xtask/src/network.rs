//! Asks servers in a private engine's network, without a helper program and without leaving our own network for longer.
//!
//! As much of HTTP/1.1 as that needs: GET, whole answers, no redirects. The exerciser in `lazaret-fhir` is the real client.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 1 << 20;

/// How long one question to a server that may not be ready may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a server that is not ready is asked again.
const POLL: Duration = Duration::from_millis(50);

/// Does `work` in the network namespace `namespace` (`/proc/PID/ns/net`), in a thread of its own that ends with it: setns(2)
/// moves the calling thread only.
///
/// # Errors
/// When the namespace is gone or cannot be entered; `work`'s own.
///
/// # Panics
/// When `work` does.
pub fn within<T: Send>(
    namespace: &Path,
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    let file =
        File::open(namespace).with_context(|| format!("cannot open {}", namespace.display()))?;
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("cannot enter {}", namespace.display()))?;
            work()
        });
        inside
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Status and body of `GET path` at `127.0.0.1:port`.
///
/// # Errors
/// When the server cannot be reached, takes longer than `limit` to say something, or does not speak HTTP.
pub fn get(port: u16, path: &str, limit: Duration) -> anyhow::Result<(u16, String)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, limit)
        .with_context(|| format!("cannot reach {address}"))?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream
        .take(MAX_ANSWER)
        .read_to_end(&mut answer)
        .with_context(|| format!("{address} broke off"))?;
    parse(&answer).ok_or_else(|| anyhow!("{address} did not answer in HTTP"))
}

/// Asks until `path` is answered with 200; how long that took.
///
/// # Errors
/// When it is not within `limit`, or when `gone` says that the server has ended.
pub fn wait_ready(
    port: u16,
    path: &str,
    limit: Duration,
    gone: impl Fn() -> bool,
) -> anyhow::Result<Duration> {
    wait(port, limit, gone, || {
        get(port, path, PATIENCE).is_ok_and(|(status, _)| status == 200)
    })
}

/// Asks until anything is answered; how long that took.
///
/// # Errors
/// When nothing is within `limit`.
pub fn wait_answering(port: u16, limit: Duration) -> anyhow::Result<Duration> {
    wait(port, limit, || false, || get(port, "/", PATIENCE).is_ok())
}

fn wait(
    port: u16,
    limit: Duration,
    gone: impl Fn() -> bool,
    ready: impl Fn() -> bool,
) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    loop {
        if ready() {
            return Ok(begin.elapsed());
        }
        if gone() {
            bail!(
                "the server at port {port} ended after {:.1} s without being ready",
                begin.elapsed().as_secs_f64()
            );
        }
        if begin.elapsed() > limit {
            bail!(
                "the server at port {port} was not ready after {} s",
                limit.as_secs()
            );
        }
        thread::sleep(POLL);
    }
}

fn parse(answer: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head
        .strip_prefix("HTTP/1.")?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    #[test]
    fn status_and_body() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let server = thread::spawn(move || {
            for text in [
                "HTTP/1.1 503 Busy\r\n\r\n",
                "HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody",
                "nonsense",
            ] {
                let (mut stream, _) = listener.accept().expect("a client comes");
                let mut request = BufReader::new(&stream).lines();
                while request
                    .next()
                    .expect("a blank line ends it")
                    .is_ok_and(|line| !line.is_empty())
                {}
                stream.write_all(text.as_bytes()).expect("it listens");
            }
        });
        let second = Duration::from_secs(10);
        wait_ready(port, "/ready", second, || false).expect("ready at the second time");
        assert!(get(port, "/", second).is_err());
        server.join().expect("it served three times");
        let ended =
            wait_ready(port, "/ready", second, || true).expect_err("nobody listens any more");
        assert!(ended.to_string().contains("ended"), "{ended}");
    }

    #[test]
    fn answers_are_taken_apart() {
        assert_eq!(
            parse(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nx"),
            Some((200, "x".into()))
        );
        assert_eq!(parse(b"HTTP/1.1 abc\r\n\r\n"), None);
        assert_eq!(parse(b""), None);
    }
}
