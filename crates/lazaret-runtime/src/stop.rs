//! At `kill` with the container's stop signal: the gate is told before the signal is sent, so that the calls of a clean
//! stop are decided as *stopping*.
//!
//! Best effort within [`BOUND`]: nothing that goes wrong here is reported or changes the kill. Without the message the
//! container is stopped all the same, and what it does then is judged as *serving*.

use crate::config::Config;
use lazaret_core::control::{Request, V1};
use lazaret_image::Origin;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// The longest that a kill is held up.
pub(crate) const BOUND: Duration = Duration::from_millis(200);

/// Names of the signals 1 to 31 (`asm-generic/signal.h`; x86 and ARM have the same).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// First and last real-time signal as the C library shows them (signal(7)); engines write `SIGRTMIN+3`.
const REAL_TIME: (u32, u32) = (34, 64);

/// The number behind `15`, `TERM`, `sigterm` or `SIGRTMIN+3` (runc `utils_linux.go`, Docker `pkg/signal`).
fn number(text: &str) -> Option<u32> {
    if let Ok(number) = text.parse() {
        return (1..=REAL_TIME.1).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(at) = NAMES.iter().position(|known| *known == name) {
        // at most 30
        return u32::try_from(at).ok().map(|at| at + 1);
    }
    let (first, last) = REAL_TIME;
    let number = if let Some(above) = name.strip_prefix("RTMIN") {
        first.checked_add(offset(above, '+')?)?
    } else {
        last.checked_sub(offset(name.strip_prefix("RTMAX")?, '-')?)?
    };
    (first..=last).contains(&number).then_some(number)
}

fn offset(text: &str, sign: char) -> Option<u32> {
    if text.is_empty() {
        return Some(0);
    }
    text.strip_prefix(sign)?.parse().ok()
}

/// Tells the gate that `id` is being asked to stop, if `signal` is its stop signal. Gives nothing back by intent.
///
/// A container that podman's or CRI-O's storage has is theirs; they say nothing of themselves on the command line. For any other the
/// namespace is the last part of `root`: containerd keeps the runtime's state by namespace (`pkg/process/init.go`, `NewRunc`).
pub(crate) fn announce(config: &Config, root: Option<&Path>, id: &OsStr, signal: &OsStr) {
    // Instant plus a fifth of a second: overflow is centuries away
    let deadline = Instant::now() + BOUND;
    let _told: Option<()> = try_announce(config, root, id, signal, deadline);
}

fn try_announce(
    config: &Config,
    root: Option<&Path>,
    id: &OsStr,
    signal: &OsStr,
    deadline: Instant,
) -> Option<()> {
    let (id, signal) = (id.to_str()?, number(signal.to_str()?)?);
    // first of all: without a gate nothing else needs to be found out
    let mut gate = connect(&config.control_socket)?;
    let roots = config.roots();
    let origin = match Origin::in_storage(&roots, id) {
        Some(origin) => origin,
        None => Origin::new(root?.file_name()?.to_str()?, id).ok()?,
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let stop_signal = lazaret_image::stop_signal(&origin, &roots, left).ok()?;
    if number(stop_signal.as_deref().unwrap_or("TERM"))? != signal {
        return None;
    }
    let request = Request::Stopping {
        v: V1,
        container: id.to_owned(),
    };
    let mut line = serde_json::to_vec(&request).ok()?;
    line.push(b'\n');
    // the socket does not block: a gate that reads nothing is given up
    gate.write_all(&line).ok()?;
    // any answer, or the gate's hanging up, means that the message was read
    let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok()?;
    let ready = poll(&mut [PollFd::new(&gate, PollFlags::IN)], Some(&left)).ok()?;
    let mut answer = [0; 256];
    (ready == 1 && gate.read(&mut answer).is_ok()).then_some(())
}

/// A connection that never blocks, not even while the gate's queue is full (`EAGAIN`, connect(2)).
fn connect(path: &Path) -> Option<File> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .ok()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path).ok()?).ok()?;
    Some(File::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for (text, expected) in [
            ("15", Some(15)),
            ("TERM", Some(15)),
            ("SIGTERM", Some(15)),
            ("sigquit", Some(3)),
            ("SIGSYS", Some(31)),
            ("HUP", Some(1)),
            ("SIGRTMIN", Some(34)),
            ("RTMIN+3", Some(37)),
            ("SIGRTMAX-14", Some(50)),
            ("RTMAX", Some(64)),
            ("64", Some(64)),
            ("65", None),
            ("0", None),
            ("-15", None),
            ("RTMIN+31", None),
            ("RTMIN-1", None),
            ("RTMAX-99", None),
            ("SIG", None),
            ("", None),
            ("SIGSIGTERM", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
    }
}
