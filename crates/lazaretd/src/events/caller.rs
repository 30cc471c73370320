//! Who made a denied call: the process and its name, asked of `/proc` while the caller waits for its answer.
//!
//! A name can change at any moment: by `prctl(PR_SET_NAME)`, by `execve`, by another thread that writes `/proc/TID/comm`. The gate
//! sees only those of these that its policy asks about, so a name that is remembered for a while could be
//! wrong, and it would then count under the wrong kind. What is remembered instead is the open file: reading it again is one
//! call, tells the name of this moment, and fails when the thread is gone, even if its number was given to another.

use super::aggregate::Comm;
use lazaret_kernel::process;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Threads of one listener whose file stays open: each holds a descriptor until it is crowded out or the listener ends.
const OPEN: usize = 8;

/// Longer than any name with its newline.
const NAME: usize = 64;

/// Who made a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Process id in the host's numbering; the thread's when it went away.
    pub(crate) pid: u32,
    /// The thread's name; empty when it went away.
    pub(crate) comm: Comm,
}

/// The threads of one listener that were denied something lately.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    /// The last one used is the last.
    open: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    tid: u32,
    pid: u32,
    comm: File,
}

impl Callers {
    /// Who waits for an answer under this thread id.
    pub(crate) fn of(&mut self, tid: u32) -> Caller {
        if let Some(at) = self.open.iter().position(|thread| thread.tid == tid) {
            // `position` found it
            let thread = self.open.remove(at);
            if let Some(comm) = thread.name() {
                let pid = thread.pid;
                self.open.push(thread);
                return Caller { pid, comm };
            }
        }
        let gone = Caller {
            pid: tid,
            comm: Comm::default(),
        };
        let Ok(comm) = File::open(format!("/proc/{tid}/comm")) else {
            return gone;
        };
        let pid = process::process_of(tid).unwrap_or(tid);
        let thread = Thread { tid, pid, comm };
        let Some(comm) = thread.name() else {
            return Caller { pid, ..gone };
        };
        if self.open.len() >= OPEN {
            self.open.remove(0);
        }
        self.open.push(thread);
        Caller { pid, comm }
    }
}

impl Thread {
    /// `None` when the thread is gone (`ESRCH`, `comm_show` in `fs/proc/base.c`).
    fn name(&self) -> Option<Comm> {
        let mut name = [0; NAME];
        let length = self.comm.read_at(&mut name, 0).ok()?;
        name.get(..length).map(Comm::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command, Stdio};

    /// A process that waits for a line, then becomes `cat`, which waits for the end.
    fn shell() -> Child {
        Command::new("/bin/sh")
            .args([
                "-c",
                "echo begun; read line; printf 0123456789 > /proc/$$/comm; echo named; read line; exec cat",
            ])
            .arg0("sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh")
    }

    #[test]
    fn a_name_is_the_one_of_this_moment_and_a_dead_thread_has_none() {
        use std::io::{BufRead as _, BufReader, Write as _};
        let mut child = shell();
        let mut input = child.stdin.take().expect("piped");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        // a name is set by execve after the one who spawned goes on
        let mut line = String::new();
        output.read_line(&mut line).expect("read");
        let mut callers = Callers::default();
        let named = |caller: Caller| (caller.pid, caller.comm.as_str().to_owned());
        assert_eq!(named(callers.of(child.id())), (child.id(), "sh".to_owned()));
        input.write_all(b"go\n").expect("written");
        line.clear();
        output.read_line(&mut line).expect("read");
        assert_eq!(line, "named\n");
        assert_eq!(callers.open.len(), 1);
        assert_eq!(
            named(callers.of(child.id())),
            (child.id(), "0123456789".to_owned())
        );
        // cat answers when it is executed
        input.write_all(b"exec\nthere\n").expect("written");
        line.clear();
        output.read_line(&mut line).expect("read");
        assert_eq!(line, "there\n");
        assert_eq!(
            named(callers.of(child.id())),
            (child.id(), "cat".to_owned())
        );
        drop(input);
        child.wait().expect("ended");
        assert_eq!(named(callers.of(child.id())), (child.id(), String::new()));
        assert_eq!(callers.open.len(), 0);
    }

    #[test]
    fn few_threads_stay_open_and_a_thread_is_told_with_its_process() {
        let mut callers = Callers::default();
        let (send, done) = std::sync::mpsc::channel::<()>();
        let done = std::sync::Arc::new(std::sync::Mutex::new(done));
        let threads: Vec<_> = (0..2 * OPEN)
            .map(|number| {
                let (tell, told) = std::sync::mpsc::channel();
                let done = std::sync::Arc::clone(&done);
                let thread = std::thread::Builder::new()
                    .name(format!("worker-{number}"))
                    .spawn(move || {
                        tell.send(rustix::thread::gettid()).expect("sent");
                        // fails when the sender is dropped
                        drop(done.lock().map(|done| done.recv()));
                    })
                    .expect("a thread");
                (told.recv().expect("told"), number, thread)
            })
            .collect();
        for _ in 0..2 {
            for (tid, number, _) in &threads {
                let tid = u32::try_from(tid.as_raw_nonzero().get()).expect("positive");
                let caller = callers.of(tid);
                assert_eq!(caller.pid, std::process::id());
                assert_eq!(caller.comm.as_str(), format!("worker-{number}"));
                assert!(callers.open.len() <= OPEN);
            }
        }
        drop(send);
        for (_, _, thread) in threads {
            thread.join().expect("ended");
        }
    }

    #[test]
    #[ignore = "a measurement; run it with --release and --nocapture"]
    fn what_asking_costs() {
        const ROUNDS: u32 = 100_000;
        let tid = u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).expect("positive");
        let mut callers = Callers::default();
        let known = callers.of(tid);
        let began = std::time::Instant::now();
        for _ in 0..ROUNDS {
            assert_eq!(callers.of(tid), known);
        }
        let again = began.elapsed() / ROUNDS;
        let began = std::time::Instant::now();
        for _ in 0..ROUNDS {
            assert_eq!(Callers::default().of(tid), known);
        }
        let new = began.elapsed() / ROUNDS;
        println!("{again:?} for a known thread, {new:?} for a new one");
    }
}
