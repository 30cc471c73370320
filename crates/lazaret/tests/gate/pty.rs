//! A program in a pseudo-terminal, and what its screen shows.

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long anything may take: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Terminal {
    keys: File,
    /// Kept open, so that the terminal can be looked at after its program.
    side: OwnedFd,
    output: Receiver<Vec<u8>>,
    screen: vt100::Parser,
    child: Child,
    raw: Vec<u8>,
    before: Termios,
}

impl Terminal {
    pub(crate) fn run(mut command: Command, columns: u16, rows: u16) -> Terminal {
        let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&main).expect("granted");
        unlockpt(&main).expect("unlocked");
        let name = ptsname(&main, Vec::new()).expect("a name");
        let side = rustix::fs::open(
            name.as_c_str(),
            OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .expect("its side");
        resize(&side, columns, rows);
        let before = tcgetattr(&side).expect("its settings");
        let descriptor = || side.try_clone().expect("a descriptor");
        let child = command
            .env("TERM", "xterm-256color")
            .stdin(descriptor())
            .stdout(descriptor())
            .stderr(descriptor())
            .spawn()
            .expect("runs");
        let keys = File::from(main);
        let mut reader = keys.try_clone().expect("a descriptor");
        let (send, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                if send.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal {
            keys,
            side,
            output,
            screen: vt100::Parser::new(sized(rows), sized(columns), 0),
            child,
            raw: Vec::new(),
            before,
        }
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("pressed");
    }

    pub(crate) fn resize(&mut self, columns: u16, rows: u16) {
        resize(&self.side, columns, rows);
        self.screen
            .screen_mut()
            .set_size(sized(rows), sized(columns));
        // the program's terminal is not its controlling one here, so the kernel tells nobody
        self.signal(rustix::process::Signal::WINCH);
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("sent");
    }

    /// Waits until the screen shows it.
    #[track_caller]
    pub(crate) fn until(&mut self, said: &str) -> String {
        self.until_so(said, |shown| shown.contains(said))
    }

    /// Waits until the screen does not show it.
    #[track_caller]
    pub(crate) fn until_not(&mut self, said: &str) {
        self.until_so(said, |shown| !shown.contains(said));
    }

    #[track_caller]
    fn until_so(&mut self, said: &str, so: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let shown = self.screen.screen().contents();
            if so(&shown) {
                return shown;
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.take(&bytes),
                Err(error) => panic!("waited in vain for `{said}` ({error}):\n{shown}"),
            }
        }
    }

    /// The program has ended; all that it wrote is on the screen.
    #[track_caller]
    pub(crate) fn end(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("waited for") {
                while let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(50)) {
                    self.take(&bytes);
                }
                return status;
            }
            match self.output.recv_timeout(Duration::from_millis(50)) {
                Ok(bytes) => self.take(&bytes),
                Err(RecvTimeoutError::Timeout) if Instant::now() < end => {}
                Err(error) => panic!("it does not end ({error})"),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.raw.extend(bytes);
        self.screen.process(bytes);
    }

    /// The usual screen, a cursor, and the settings of before.
    #[track_caller]
    pub(crate) fn check_as_before(&self) {
        assert!(
            !self.screen.screen().alternate_screen(),
            "the screen is back"
        );
        assert!(!self.screen.screen().hide_cursor(), "the cursor is back");
        let now = tcgetattr(&self.side).expect("its settings");
        assert_eq!(format!("{now:?}"), format!("{:?}", self.before));
    }

    /// Whether the program has the terminal for itself.
    pub(crate) fn is_taken(&self) -> bool {
        let now = tcgetattr(&self.side).expect("its settings");
        self.screen.screen().alternate_screen()
            && format!("{now:?}") != format!("{:?}", self.before)
    }

    /// Every byte that was written.
    pub(crate) fn raw(&self) -> String {
        String::from_utf8_lossy(&self.raw).into_owned()
    }

    /// What the screen shows.
    pub(crate) fn shown(&self) -> String {
        self.screen.screen().contents()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // one that has ended is waited for already
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn sized(cells: u16) -> NonZero<u16> {
    NonZero::new(cells).expect("a size")
}

fn resize(side: &OwnedFd, columns: u16, rows: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(side, size).expect("a size");
}
