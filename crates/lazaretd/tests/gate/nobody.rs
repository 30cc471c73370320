//! A client of the daemon that is not root.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// Set for a client that is not root: the socket, and what to say on it.
const CLIENT: [&str; 2] = ["LAZARETD_TEST_SOCKET", "LAZARETD_TEST_WORDS"];

/// What a daemon answers to user 65534 before it hangs up.
pub(crate) fn as_nobody(socket: &Path, words: &str) -> String {
    as_member(socket, words, 65534)
}

/// The same to user 65534 in this group. No socket, no words: it says why.
pub(crate) fn as_member(socket: &Path, words: &str, group: u32) -> String {
    // the test program lies where nobody else may go: hand it over open
    let program = fs::File::open(std::env::current_exe().expect("own path")).expect("program");
    let path = format!("/proc/self/fd/{}", program.as_raw_fd());
    rustix::io::fcntl_setfd(&program, rustix::io::FdFlags::empty()).expect("inherited");
    let output = Command::new(path)
        .args(["--exact", "nobody", "--nocapture", "--test-threads=1"])
        .env(CLIENT[0], socket)
        .env(CLIENT[1], words)
        .uid(65534)
        .gid(group)
        .output()
        .expect("ran");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let answer = said
        .split("@answer:")
        .nth(1)
        .and_then(|rest| rest.split("@end").next());
    answer
        .unwrap_or_else(|| panic!("no answer in {said:?}"))
        .to_owned()
}

/// The client's side of [`as_member`]; does nothing when run by hand.
pub(crate) fn nobody() {
    let [Ok(socket), Ok(words)] = CLIENT.map(std::env::var) else {
        return;
    };
    let mut answer = String::new();
    let mut stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error) => {
            println!("@answer:{error}@end");
            return;
        }
    };
    // it may have hung up already
    drop(stream.write_all(words.as_bytes()));
    drop(stream.shutdown(Shutdown::Write));
    drop(stream.read_to_string(&mut answer));
    println!("@answer:{answer}@end");
}
