//! What the cases share: a folder with a holder's socket, pipes that tell when they are closed, and a daemon as a process of
//! its own, this program again.

use crate::keep::{Choice, KeepConfig, Keeper, Kept, Manager};
use lazaret_kernel::{fds, handover, tasks};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};
use std::io::{BufRead as _, BufReader, PipeReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// For a machine under load; what is waited for takes milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Set for the child only: the configuration's socket.
const CHILD: &str = "LAZARET_KEEP_TEST_CHILD";

pub(crate) struct Node {
    pub(crate) folder: TempDir,
}

impl Node {
    pub(crate) fn new() -> Node {
        Node {
            folder: tempfile::tempdir().expect("folder"),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("hold.sock")
    }

    pub(crate) fn config(&self, choice: Choice, hold_for_s: u32) -> KeepConfig {
        KeepConfig {
            choice,
            socket: self.socket(),
            hold_for_s,
            program: env!("CARGO_BIN_EXE_lazaretd").into(),
        }
    }

    /// A daemon's keeper in this process, and what it got back, by name.
    pub(crate) fn open(&self, hold_for_s: u32) -> (Keeper, Vec<Kept>) {
        let config = self.config(Choice::Holder, hold_for_s);
        let (keeper, mut kept) =
            Keeper::open(&config, &Manager::default(), Vec::new()).expect("opened");
        kept.sort_by(|a, b| a.name.cmp(&b.name));
        (keeper, kept)
    }

    /// The holder, by its socket's credentials; nothing when nobody listens.
    pub(crate) fn holder(&self) -> Option<Pid> {
        let socket = self.connect()?;
        let peer = handover::peer(&socket).expect("credentials");
        Pid::from_raw(peer.pid.cast_signed())
    }

    pub(crate) fn connect(&self) -> Option<OwnedFd> {
        // holders of other cases are started meanwhile
        let socket = rustix::net::socket_with(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .expect("socket");
        let address = rustix::net::SocketAddrUnix::new(self.socket()).expect("short");
        rustix::net::connect(&socket, &address).ok()?;
        Some(socket)
    }

    pub(crate) fn kill_holder(&self) -> Pid {
        let pid = self.holder().expect("it listens");
        assert_ne!(pid, rustix::process::getpid());
        rustix::process::kill_process(pid, Signal::KILL).expect("ours");
        pid
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // a holder that is left would end by itself, later
        if let Some(pid) = self.holder() {
            rustix::process::kill_process(pid, Signal::KILL).ok();
        }
    }
}

pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether every writing end is closed, now or within this time.
pub(crate) fn is_closed(reader: &PipeReader, within: Duration) -> bool {
    let timeout = Timespec {
        tv_sec: within.as_secs().cast_signed(),
        tv_nsec: within.subsec_nanos().into(),
    };
    let mut fds = [PollFd::new(reader, PollFlags::IN)];
    poll(&mut fds, Some(&timeout)).expect("poll");
    fds[0].revents().contains(PollFlags::HUP)
}

pub(crate) fn names(kept: &[Kept]) -> Vec<&str> {
    kept.iter().map(|kept| kept.name.as_str()).collect()
}

/// One message to the holder and its answer; nothing when it hangs up.
pub(crate) fn say(socket: &OwnedFd, message: &[u8]) -> Option<Vec<u8>> {
    // it may have hung up already
    drop(fds::send(socket, message, &[]));
    hear(socket)
}

pub(crate) fn hear(socket: &OwnedFd) -> Option<Vec<u8>> {
    let mut buffer = [0; 512];
    let message = fds::receive(socket, &mut buffer, 1).ok()??;
    Some(buffer[..message.length].to_vec())
}

/// A daemon in a process of its own, that keeps one end of a pipe: its standard output.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    pub(crate) said: BufReader<std::process::ChildStdout>,
}

impl Daemon {
    pub(crate) fn start(node: &Node) -> Daemon {
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(CHILD, node.socket())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let said = BufReader::new(child.stdout.take().expect("piped"));
        let mut daemon = Daemon { child, said };
        let mut line = String::new();
        while line.trim() != "@kept" {
            line.clear();
            assert!(daemon.said.read_line(&mut line).expect("a line") > 0);
        }
        daemon
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("ours");
        self.child.wait().expect("ours");
    }
}

/// The daemon's side; as a test of its own it does nothing.
pub(crate) fn child() {
    let Ok(socket) = std::env::var(CHILD) else {
        return;
    };
    let config = KeepConfig {
        choice: Choice::Holder,
        socket: socket.into(),
        hold_for_s: 30,
        program: env!("CARGO_BIN_EXE_lazaretd").into(),
    };
    let (keeper, _) = Keeper::open(&config, &Manager::default(), Vec::new()).expect("opened");
    let stdout = std::io::stdout();
    keeper.put("stdout", stdout.as_fd()).expect("kept");
    println!("\n@kept");
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .expect("killed before");
}

/// Writes through a descriptor that came back.
pub(crate) fn write(kept: &Kept, text: &str) {
    let copy = kept.fd.try_clone().expect("copied");
    let mut file = std::fs::File::from(copy);
    file.write_all(text.as_bytes()).expect("written");
}

pub(crate) fn open_files(pid: Pid) -> usize {
    let folder = format!("/proc/{}/fd", pid.as_raw_nonzero());
    std::fs::read_dir(folder).expect("there").count()
}

pub(crate) fn threads(pid: Pid) -> usize {
    let pid = pid.as_raw_nonzero().get().cast_unsigned();
    tasks::threads(pid).expect("there").len()
}
