//! A server whose readiness is asked for.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::atomic::Ordering;

/// A server on 127.0.0.1 that answers 503 until it is told to be ready.
pub(crate) struct Server {
    pub(crate) port: u16,
    ready: std::sync::Arc<std::sync::atomic::AtomicBool>,
    /// One for each question that was answered.
    pub(crate) asked: std::sync::mpsc::Receiver<()>,
}

impl Server {
    pub(crate) fn start() -> Server {
        let socket = TcpListener::bind("127.0.0.1:0").expect("port");
        let port = socket.local_addr().expect("address").port();
        let ready = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (tell, asked) = std::sync::mpsc::channel();
        let is_ready = std::sync::Arc::clone(&ready);
        std::thread::spawn(move || {
            for stream in socket.incoming().map_while(Result::ok) {
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                if lines.by_ref().find(String::is_empty).is_none() {
                    continue;
                }
                let status = if is_ready.load(Ordering::SeqCst) {
                    "200 OK"
                } else {
                    "503 Not yet"
                };
                let answer =
                    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                if (&stream).write_all(answer.as_bytes()).is_err() || tell.send(()).is_err() {
                    return;
                }
            }
        });
        Server { port, ready, asked }
    }

    pub(crate) fn be_ready(&self) {
        self.ready.store(true, Ordering::SeqCst);
    }

    /// Until it is told otherwise again.
    pub(crate) fn be_down(&self) {
        self.ready.store(false, Ordering::SeqCst);
    }
}
