//! Plain HTTP GET inside the engine's network, for readiness and attacks. One request a connection, bounded answer.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Most of an answer that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// The network namespace of a process.
#[derive(Debug)]
pub(super) struct Network(File);

impl Network {
    /// Of this process.
    pub(super) fn of(pid: u32) -> anyhow::Result<Network> {
        let path = format!("/proc/{pid}/ns/net");
        File::open(&path)
            .map(Network)
            .with_context(|| format!("cannot open {path}"))
    }

    /// Runs something on a thread of its own in this network.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok::<T, rustix::io::Errno>(work())
            });
            let result = inside
                .join()
                .map_err(|_| anyhow!("work in the engine's network panicked"))?;
            result.context("cannot enter the engine's network")
        })
    }
}

/// `GET http://127.0.0.1:PORT/PATH` in this thread's network: status and body.
pub(super) fn get(port: u16, path: &str, timeout: Duration) -> anyhow::Result<(u16, String)> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.take(LIMIT).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .context("no HTTP status")?;
    Ok((status, body.to_owned()))
}
