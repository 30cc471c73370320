//! What `/proc` says about a process: name, start time, namespaces, executed program.
//!
//! Everything here can be stale when it is returned, except for a task that cannot go on meanwhile (it waits in a
//! notification, or is seized). A pid alone names nobody for long; [`Identity`] does.

use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;

/// Bytes read of one `/proc` file at most. `stat` has about 350, `status` about 1500 and up to 700 KiB for a process with
/// 65536 supplementary groups (`NGROUPS_MAX`).
const MAX_PROC_FILE: u64 = 1024 * 1024;

/// A question to `/proc` was not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// The file could not be read; `NotFound` means that the process is gone.
    #[error("cannot read /proc/{pid}/{file}")]
    Read {
        /// The process or thread.
        pid: u32,
        /// The file below its folder.
        file: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not as `proc(5)` says.
    #[error("/proc/{pid}/{file} is not as proc(5) says")]
    Malformed {
        /// The process or thread.
        pid: u32,
        /// The file below its folder.
        file: &'static str,
    },
}

impl ProcessError {
    /// Whether the process does not exist (any more).
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match self {
            // ESRCH: it went away between open and read
            ProcessError::Read { source, .. } => {
                source.kind() == io::ErrorKind::NotFound
                    || source.raw_os_error() == Some(libc::ESRCH)
            }
            ProcessError::Malformed { .. } => false,
        }
    }
}

/// A pid together with the time its process began: no two processes of one boot share both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Process or thread id in this program's pid namespace.
    pub pid: u32,
    /// Clock ticks after boot (`/proc/PID/stat`, field 22).
    pub start_ticks: u64,
}

/// Which program a process runs, and which execution of it: `execve` changes at least one field.
///
/// The stack's start is placed at random by each `execve` (unless address randomisation is off), so this tells even a
/// program that executes itself. Changing either value otherwise takes `CAP_SYS_RESOURCE` (`prctl(PR_SET_MM)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    device: u64,
    inode: u64,
    start_stack: u64,
}

/// The inode of a pid or network namespace (`/proc/PID/ns/*`): its identity while a process is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NamespaceId(pub(crate) u64);

pub(crate) fn failed(pid: u32, file: &'static str) -> impl FnOnce(io::Error) -> ProcessError {
    move |source| ProcessError::Read { pid, file, source }
}

pub(crate) fn read(pid: u32, file: &'static str) -> Result<Vec<u8>, ProcessError> {
    let mut content = Vec::new();
    let length = File::open(format!("/proc/{pid}/{file}"))
        .and_then(|open| open.take(MAX_PROC_FILE).read_to_end(&mut content))
        .map_err(failed(pid, file))?;
    if length as u64 == MAX_PROC_FILE {
        return Err(ProcessError::Malformed { pid, file });
    }
    Ok(content)
}

/// A numeric field of `/proc/PID/stat`, counted from 1 as in `proc(5)`, after the name (field 2).
fn stat_field(stat: &[u8], field: usize) -> Option<u64> {
    // the name is in parentheses and may hold any byte, so the last one closes it
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_ascii_whitespace()
        .nth(field.checked_sub(3)?)?
        .parse()
        .ok()
}

/// The name of a task (`/proc/TID/comm`, at most 15 bytes); bytes that are not printable ASCII become `?`.
///
/// # Errors
/// When the task is gone.
pub fn comm(tid: u32) -> Result<String, ProcessError> {
    let content = read(tid, "comm")?;
    let name = content.strip_suffix(b"\n").unwrap_or(&content);
    Ok(name
        .iter()
        .map(|&byte| match byte {
            b' '..=b'~' => char::from(byte),
            _ => '?',
        })
        .collect())
}

/// A call that a thread waits in, as it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentCall {
    /// The number, in the numbering of the convention that it was made by.
    pub nr: u32,
    /// The argument registers.
    pub args: [u64; 6],
}

/// The call that a thread is in; nothing while it runs or is stopped outside of a call (`/proc/TID/syscall`, proc(5)). The calling
/// thread is in the call by which it reads the file.
///
/// # Errors
/// When the thread is gone, or may not be inspected.
pub fn current_call(tid: u32) -> Result<Option<CurrentCall>, ProcessError> {
    let file = "syscall";
    let content = read(tid, file)?;
    parse_current_call(&content).ok_or(ProcessError::Malformed { pid: tid, file })
}

/// `running`, `-1 SP PC`, or the number, six arguments, stack pointer and program counter.
fn parse_current_call(content: &[u8]) -> Option<Option<CurrentCall>> {
    let text = std::str::from_utf8(content).ok()?.trim_end();
    if text == "running" || text.starts_with("-1 ") {
        return Some(None);
    }
    let mut words = text.split(' ');
    let nr = words.next()?.parse().ok()?;
    let mut args = [0; 6];
    for arg in &mut args {
        *arg = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
    }
    // stack pointer and program counter
    (words.count() == 2).then_some(Some(CurrentCall { nr, args }))
}

/// The identity of the process or thread that has this id now.
///
/// # Errors
/// When there is none.
pub fn identity(pid: u32) -> Result<Identity, ProcessError> {
    let start_ticks = stat_field(&read(pid, "stat")?, 22);
    start_ticks
        .map(|start_ticks| Identity { pid, start_ticks })
        .ok_or(ProcessError::Malformed { pid, file: "stat" })
}

/// Whether the process that [`identity`] saw still exists and has a thread that runs.
///
/// A leader that is a zombie means nothing by itself: it may have ended before its threads, and for a moment it is one
/// in every `execve` by another thread (`de_thread`, fs/exec.c).
#[must_use]
pub fn is_alive(identity: Identity) -> bool {
    read(identity.pid, "stat").is_ok_and(|stat| runs_since(&stat, identity.start_ticks))
}

fn runs_since(stat: &[u8], start_ticks: u64) -> bool {
    let state = stat
        .iter()
        .rposition(|&byte| byte == b')')
        .and_then(|end| stat.get(end + 2));
    let over = match state {
        // field 20 counts the threads that are not gone, the leader included
        Some(b'Z' | b'X') => stat_field(stat, 20).is_none_or(|threads| threads <= 1),
        Some(_) => false,
        None => true,
    };
    !over && stat_field(stat, 22) == Some(start_ticks)
}

/// The parent of a process (field 4 of `/proc/PID/stat`); 0 when it is outside of our pid namespace.
///
/// # Errors
/// When it is gone.
pub fn parent(pid: u32) -> Result<u32, ProcessError> {
    let file = "stat";
    let field = stat_field(&read(pid, file)?, 4);
    field
        .and_then(|parent| parent.try_into().ok())
        .ok_or(ProcessError::Malformed { pid, file })
}

/// The process that a thread belongs to (`Tgid` of `/proc/TID/status`).
///
/// # Errors
/// When the thread is gone.
pub fn process_of(tid: u32) -> Result<u32, ProcessError> {
    status(tid).map(|status| status.process)
}

/// Whether a task is the kernel's own: it has no program and cannot be traced.
///
/// # Errors
/// When the task is gone.
pub fn is_kernel_thread(tid: u32) -> Result<bool, ProcessError> {
    /// `PF_KTHREAD` (`include/linux/sched.h`), a bit of `flags`, field 9 of `/proc/TID/stat`.
    const PF_KTHREAD: u64 = 0x0020_0000;
    let flags = stat_field(&read(tid, "stat")?, 9);
    flags
        .map(|flags| flags & PF_KTHREAD != 0)
        .ok_or(ProcessError::Malformed {
            pid: tid,
            file: "stat",
        })
}

/// What `/proc/TID/status` says about a thread, all of it at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The process it belongs to (`Tgid`).
    pub process: u32,
    /// That process's parent (`PPid`); 0 when it has none in this pid namespace.
    pub parent: u32,
    /// The thread that traces it, if any (`TracerPid`).
    pub tracer: Option<u32>,
    /// One letter (`State`): `S` sleeps, `D` sleeps and takes no signal, `T` is stopped, `Z` has ended …
    pub state: char,
    /// Its id in each pid namespace from this program's to its own (`NSpid`).
    pub ids: Vec<u32>,
    /// What confines it.
    pub seccomp: Seccomp,
}

/// How seccomp confines a thread (`Seccomp` and `Seccomp_filters` of `/proc/TID/status`; the latter from Linux 5.9 on).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seccomp {
    /// Nothing.
    Disabled,
    /// Strict mode: `read`, `write`, `_exit` and `rt_sigreturn` only (seccomp(2), `SECCOMP_SET_MODE_STRICT`).
    Strict,
    /// So many filters.
    Filters(u32),
}

impl Status {
    /// Whether the thread has ended; its id is not free yet.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// What `/proc/TID/status` says about a thread.
///
/// # Errors
/// When the thread is gone, or the kernel is older than 5.9 and does not count filters.
pub fn status(tid: u32) -> Result<Status, ProcessError> {
    parse_status(&read(tid, "status")?).ok_or(ProcessError::Malformed {
        pid: tid,
        file: "status",
    })
}

fn parse_status(content: &[u8]) -> Option<Status> {
    // the name (first line) has its newlines escaped (proc(5)), so no line of it looks like another field
    let field = |name: &str| {
        let line = content
            .split(|&byte| byte == b'\n')
            .find_map(|line| line.strip_prefix(name.as_bytes()));
        std::str::from_utf8(line?).ok().map(str::trim)
    };
    let number = |name: &str| field(name)?.parse::<u32>().ok();
    let filters = number("Seccomp_filters:")?;
    Some(Status {
        process: number("Tgid:")?,
        parent: number("PPid:")?,
        tracer: Some(number("TracerPid:")?).filter(|&tracer| tracer != 0),
        state: field("State:")?.chars().next()?,
        ids: field("NSpid:")?
            .split_ascii_whitespace()
            .map(|id| id.parse().ok())
            .collect::<Option<Vec<u32>>>()?,
        seccomp: match number("Seccomp:")? {
            0 => Seccomp::Disabled,
            1 => Seccomp::Strict,
            2 => Seccomp::Filters(filters),
            _ => return None,
        },
    })
}

/// Which execution of which program a process runs now.
///
/// # Errors
/// When the process is gone, or is a kernel thread.
pub fn execution(pid: u32) -> Result<Execution, ProcessError> {
    let file = "exe";
    let program = std::fs::metadata(format!("/proc/{pid}/{file}")).map_err(failed(pid, file))?;
    let start_stack = stat_field(&read(pid, "stat")?, 28);
    start_stack
        .map(|start_stack| Execution {
            device: program.dev(),
            inode: program.ino(),
            start_stack,
        })
        .ok_or(ProcessError::Malformed { pid, file: "stat" })
}

/// The pid namespace of a process.
///
/// # Errors
/// When the process is gone.
pub fn pid_namespace(pid: u32) -> Result<NamespaceId, ProcessError> {
    let file = "ns/pid";
    std::fs::metadata(format!("/proc/{pid}/{file}"))
        .map(|namespace| NamespaceId(namespace.ino()))
        .map_err(failed(pid, file))
}

/// The pid namespace of this program.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn own_pid_namespace() -> Result<NamespaceId, ProcessError> {
    pid_namespace(std::process::id())
}

/// Whether a thread waits for a supervisor's answer: `/proc/TID/wchan` is `seccomp_do_user_notification`, to which a
/// compiler may have added a suffix (`.isra.0` on Linux 6.18).
///
/// # Errors
/// When the thread is gone.
pub fn waits_in_notification(tid: u32) -> Result<bool, ProcessError> {
    Ok(waits_in(tid)? == Wait::Notification)
}

/// What a thread sleeps in (`/proc/TID/wchan`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// A supervisor's answer.
    Notification,
    /// Something else.
    Other,
    /// It runs or is about to, or has ended: `0` (proc(5)).
    Nothing,
}

pub(crate) fn waits_in(tid: u32) -> Result<Wait, ProcessError> {
    let place = read(tid, "wchan")?;
    Ok(if place.starts_with(b"seccomp_do_user_notification") {
        Wait::Notification
    } else if matches!(place.as_slice(), b"0" | b"") {
        Wait::Nothing
    } else {
        Wait::Other
    })
}

/// How long a thread has run on a processor, in nanoseconds (`/proc/TID/schedstat`, first field; sched-stats).
pub(crate) fn ran_ns(tid: u32) -> Result<u64, ProcessError> {
    let file = "schedstat";
    let content = read(tid, file)?;
    std::str::from_utf8(&content)
        .ok()
        .and_then(|text| text.split_ascii_whitespace().next()?.parse().ok())
        .ok_or(ProcessError::Malformed { pid: tid, file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_threads_wait_in() {
        let parse = |text: &str| parse_current_call(text.as_bytes());
        assert_eq!(parse("running\n"), Some(None));
        assert_eq!(parse("-1 0x7ffd 0x4011\n"), Some(None));
        assert_eq!(
            parse("128 0x7f 0x0 0x1 0xffffffffffffffff 0x8 0x0 0x7ffd 0x4011\n"),
            Some(Some(CurrentCall {
                nr: 128,
                args: [0x7f, 0, 1, u64::MAX, 8, 0],
            }))
        );
        for wrong in [
            "",
            "128",
            "128 0x7f 0x0 0x1 0x0 0x8 0x0",
            "x 0x0 0x0 0x0 0x0 0x0 0x0 0x0 0x0",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_child_names_its_parent() {
        let mut child = std::process::Command::new("/bin/cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("a child");
        assert_eq!(parent(child.id()).ok(), Some(std::process::id()));
        drop(child.stdin.take());
        assert!(child.wait().is_ok());
        assert!(parent(child.id()).is_err_and(|error| error.is_gone()));
    }

    #[test]
    fn a_waiting_thread_tells_its_call() {
        let (reader, writer) = std::io::pipe().expect("pipe");
        let (send, receive) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || {
            send.send(rustix::thread::gettid().as_raw_nonzero().get())
                .expect("received");
            let mut byte = [0];
            let mut reader = reader;
            std::io::Read::read(&mut reader, &mut byte)
        });
        let tid = receive.recv().expect("sent").cast_unsigned();
        let call = loop {
            // it may not be there yet
            match current_call(tid).expect("told") {
                Some(call) if i64::from(call.nr) == libc::SYS_read => break call,
                _ => std::thread::yield_now(),
            }
        };
        assert_eq!(call.args[2], 1, "{call:?}");
        drop(writer);
        assert_eq!(waiting.join().expect("ended").expect("read"), 0);
    }

    #[test]
    fn own_process_is_itself() {
        let pid = std::process::id();
        let Ok(me) = identity(pid) else {
            panic!("own stat must be readable")
        };
        assert!(is_alive(me));
        let earlier = Identity {
            start_ticks: me.start_ticks + 1,
            ..me
        };
        assert!(!is_alive(earlier), "same pid, other start");
        assert_eq!(process_of(pid).ok(), Some(pid));
        assert_eq!(execution(pid).ok(), execution(pid).ok());
        assert!(execution(pid).is_ok());
        assert_eq!(waits_in_notification(pid).ok(), Some(false));
    }

    #[test]
    fn stat_fields_count_from_the_last_parenthesis() {
        let stat =
            b"7 (a) S (b c) R 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 77123 9 9 9 9 9 4242 0";
        assert_eq!(stat_field(stat, 22), Some(77123));
        assert_eq!(stat_field(stat, 28), Some(4242));
        assert_eq!(stat_field(stat, 99), None);
        assert_eq!(stat_field(b"7", 22), None);
    }

    #[test]
    fn status_is_read_whole_or_not_at_all() {
        let text = "Name:\ta\nState:\tS (sleeping)\nTgid:\t7\nPid:\t8\nPPid:\t3\nTracerPid:\t0\n\
                    NSpid:\t8\t2\nSeccomp:\t2\nSeccomp_filters:\t3\n";
        let expected = Status {
            process: 7,
            parent: 3,
            tracer: None,
            state: 'S',
            ids: vec![8, 2],
            seccomp: Seccomp::Filters(3),
        };
        assert_eq!(parse_status(text.as_bytes()), Some(expected.clone()));
        let traced = text.replace("TracerPid:\t0", "TracerPid:\t5");
        let traced = parse_status(traced.as_bytes()).expect("whole");
        assert_eq!(traced.tracer, Some(5));
        for (mode, expected) in [(0, Seccomp::Disabled), (1, Seccomp::Strict)] {
            let other = text.replace("Seccomp:\t2", &format!("Seccomp:\t{mode}"));
            let other = parse_status(other.as_bytes()).expect("whole");
            assert_eq!(other.seccomp, expected);
        }
        let fields = [
            "State:",
            "Tgid:",
            "PPid:",
            "TracerPid:",
            "NSpid:",
            "Seccomp:",
            "Seccomp_filters:",
        ];
        for missing in fields {
            let less = text.replace(missing, "Other:");
            assert_eq!(parse_status(less.as_bytes()), None, "without {missing}");
        }
        let unknown = text.replace("Seccomp:\t2", "Seccomp:\t9");
        assert_eq!(parse_status(unknown.as_bytes()), None);
    }

    #[test]
    fn the_kernels_own_threads_are_told_apart() {
        // kthreadd is process 2 of the first pid namespace (init/main.c, rest_init); elsewhere this says nothing
        if comm(2).is_ok_and(|name| name == "kthreadd") {
            assert_eq!(is_kernel_thread(2).ok(), Some(true));
        }
        assert_eq!(is_kernel_thread(std::process::id()).ok(), Some(false));
    }

    #[test]
    fn a_zombie_is_over_unless_it_has_threads() {
        for (state, threads, start, expected) in [
            ("S", 1, 77, true),
            ("R", 9, 77, true),
            ("S", 1, 78, false),
            ("Z", 1, 77, false),
            ("Z", 2, 77, true),
            ("X", 0, 77, false),
        ] {
            let stat = format!(
                "7 (a) {state} 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 {threads} 0 {start} 9 9"
            );
            assert_eq!(runs_since(stat.as_bytes(), 77), expected, "{stat}");
        }
        assert!(!runs_since(b"", 77));
    }

    #[test]
    fn a_process_that_is_not_there_is_gone() {
        // larger than the largest pid_max (proc(5), /proc/sys/kernel/pid_max: 2^22)
        let nobody = 1 << 23;
        let error = comm(nobody).expect_err("no such process");
        assert!(error.is_gone(), "{error}");
        assert!(!is_alive(Identity {
            pid: nobody,
            start_ticks: 0
        }));
    }
}
