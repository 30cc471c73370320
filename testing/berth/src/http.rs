//! As much of HTTP/1.1 as the tests need: one GET for each connection, no body, an answer of one line of JSON.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A request line and its headers are refused when longer than this, in bytes.
const MAX_REQUEST: u64 = 8192;

/// A client that says nothing for this long is left.
const PATIENCE: Duration = Duration::from_secs(10);

/// A GET request.
#[derive(Debug)]
pub(crate) struct Request {
    /// Without the query.
    pub(crate) path: String,
    query: Vec<(String, String)>,
}

impl Request {
    /// A value of the query as it was sent, not decoded.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// A value of the query that is a number, decimal or after `0x` hexadecimal.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        let text = self.text(name)?;
        match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let target = line.strip_prefix("GET ")?.split(' ').next()?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| (k.into(), v.into()));
        Some(Self {
            path: path.to_owned(),
            query: query.collect(),
        })
    }
}

/// A status line and a body.
#[derive(Debug)]
pub(crate) struct Answer {
    status: &'static str,
    body: String,
}

impl Answer {
    pub(crate) fn ok(body: String) -> Self {
        Self {
            status: "200 OK",
            body,
        }
    }

    pub(crate) fn unavailable(body: String) -> Self {
        Self {
            status: "503 Service Unavailable",
            body,
        }
    }

    pub(crate) fn not_found() -> Self {
        Self {
            status: "404 Not Found",
            body: "{\"error\": \"no such request\"}".into(),
        }
    }
}

/// Reads one request and writes what `answer` makes of it.
pub(crate) fn serve(mut stream: TcpStream, answer: impl Fn(&Request) -> Answer) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new((&stream).take(MAX_REQUEST));
    let mut first = String::new();
    lines.read_line(&mut first)?;
    let mut header = String::new();
    while lines.read_line(&mut header)? > 2 {
        header.clear();
    }
    let answer = match Request::parse(first.trim_end()) {
        Some(request) => answer(&request),
        None => Answer {
            status: "400 Bad Request",
            body: "{\"error\": \"only GET\"}".into(),
        },
    };
    write!(
        stream,
        "HTTP/1.1 {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}\n",
        answer.status,
        answer.body.len() + 1,
        answer.body
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_lines() {
        let request =
            Request::parse("GET /call/socket?a0=16&a1=0x80003 HTTP/1.1").expect("it is a GET");
        assert_eq!(request.path, "/call/socket");
        assert_eq!(
            (
                request.number("a0"),
                request.number("a1"),
                request.number("a2")
            ),
            (Some(16), Some(0x80003), None)
        );
        assert_eq!(request.text("a0"), Some("16"));
        assert!(Request::parse("POST / HTTP/1.1").is_none());
    }
}
