//! The holder: `lazaretd hold`, a process that holds descriptors while daemons come and go.
//!
//! One thread, one poll loop. It never reads a notification and never answers one: while no daemon is there, asked calls
//! wait. When none comes within the time it was told, it closes everything and exits, and they fail with `ENOSYS`.
//!
//! It leads a session of its own and so outlives the daemon's process group and terminal. It stays in the daemon's cgroup: whoever
//! kills that (systemd with `KillMode=control-group`) kills it too.

use super::protocol::{MAX_MESSAGE, Name, Refusal, Reply, Request};
use lazaret_kernel::fds::{self, FdsError, MAX_IN_MESSAGE};
use lazaret_kernel::handover::peer;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Resource, Rlimit};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What it says on standard output when it can be connected to.
pub(super) const READY: &str = "ready\n";

/// The exit code when another holder has the socket.
pub(super) const EXIT_TAKEN: i32 = 1;

/// Descriptors held at most, whatever the limit of open files.
const MAX_HELD: u64 = 65_536;

/// Descriptors for itself: three standard ones, lock, socket, epoll, connection, and one more while each is replaced.
const RESERVED: u64 = 16;

/// How long a peer may take to say what it is, and to read an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Events taken from the kernel at once.
const EVENTS: usize = 64;

/// Tokens of its own descriptors; held ones have higher numbers.
const LISTENER: u64 = 0;
const CONNECTION: u64 = 1;

/// The holder cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum HoldError {
    /// It changes its directory.
    #[error("`{}` is no absolute path", path.display())]
    Relative {
        /// The socket.
        path: PathBuf,
    },
    /// Another holder has the socket.
    #[error("another holder has `{}`", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// The lock beside the socket.
    #[error("cannot lock `{}`", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `bind(2)`, `listen(2)`.
    #[error("cannot listen on `{}`", path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A step of becoming a process of its own.
    #[error("cannot {step}")]
    Detach {
        /// What.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `epoll_wait(2)`.
    #[error("cannot wait for daemons")]
    Wait(#[source] io::Error),
}

/// Holds until nobody needs it any more.
///
/// # Flow
/// Directory, inherited descriptors, session, mask, limit; lock, socket; `ready` on standard output; then standard input, output and error become
/// `/dev/null`.
///
/// # Errors
/// One variant for each step.
pub(crate) fn run(socket: &Path, hold_for: Duration) -> Result<(), HoldError> {
    if !socket.is_absolute() {
        return Err(HoldError::Relative {
            path: socket.to_owned(),
        });
    }
    let detach = |step| {
        move |error: Errno| HoldError::Detach {
            step,
            source: error.into(),
        }
    };
    rustix::process::chdir("/").map_err(detach("change directory to /"))?;
    fds::close_inherited().map_err(|source| HoldError::Detach {
        step: "close what it was given",
        source,
    })?;
    match rustix::process::setsid() {
        // it leads a process group already: somebody has put it into one of its own
        Ok(_) | Err(Errno::PERM) => {}
        Err(error) => return Err(detach("begin a session")(error)),
    }
    rustix::process::umask(Mode::from_bits_truncate(0o177));
    let limit = descriptor_limit();
    let claim = claim(socket)?;
    let mut holder = Holder::new(&claim, limit, hold_for).map_err(detach("watch its socket"))?;

    let mut stdout = io::stdout();
    let said = stdout
        .write_all(READY.as_bytes())
        .and_then(|()| stdout.flush());
    said.map_err(|source| HoldError::Detach {
        step: "say that it is ready",
        source,
    })?;
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|source| HoldError::Detach {
        step: "open /dev/null",
        source,
    })?;
    let quiet = rustix::stdio::dup2_stdin(&null)
        .and_then(|()| rustix::stdio::dup2_stdout(&null))
        .and_then(|()| rustix::stdio::dup2_stderr(&null));
    quiet.map_err(detach("leave standard input and output"))?;
    drop(null);

    while holder.step().map_err(HoldError::Wait)? {}
    Ok(())
}

/// Raises the limit of open files as far as it goes; how many descriptors may be held.
fn descriptor_limit() -> usize {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // with the limit as it is it holds fewer
    let current = match rustix::process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let most = current.unwrap_or(u64::MAX).saturating_sub(RESERVED);
    // at most MAX_HELD
    most.min(MAX_HELD) as usize
}

/// The socket, for as long as the lock is held.
struct Claim {
    listener: OwnedFd,
    path: PathBuf,
    _lock: File,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // The lock is still held, so it is ours. Nobody is left to tell when it fails; the next holder takes it over.
        drop(std::fs::remove_file(&self.path));
    }
}

fn claim(path: &Path) -> Result<Claim, HoldError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let locked = |source| HoldError::Lock {
        path: lock_path.clone(),
        source,
    };
    let lock = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock_path)
        .map_err(locked)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(HoldError::Taken {
                path: path.to_owned(),
            });
        }
        Err(TryLockError::Error(source)) => return Err(locked(source)),
    }
    // nobody else has the lock, so whatever stands there is a dead holder's
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(HoldError::Bind {
                path: path.to_owned(),
                source: error,
            });
        }
        _ => {}
    }
    let bind = |error: Errno| HoldError::Bind {
        path: path.to_owned(),
        source: error.into(),
    };
    let listener = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(bind)?;
    let address = SocketAddrUnix::new(path).map_err(bind)?;
    rustix::net::bind(&listener, &address).map_err(bind)?;
    rustix::net::listen(&listener, 16).map_err(bind)?;
    Ok(Claim {
        listener,
        path: path.to_owned(),
        _lock: lock,
    })
}

struct Held {
    fd: OwnedFd,
    token: u64,
}

struct Connection {
    socket: OwnedFd,
    since: Instant,
    /// Has said `Hello`.
    greeted: bool,
}

/// What becomes of the connection after a message.
enum Next {
    Stay,
    Drop,
    Exit,
}

struct Holder<'a> {
    listener: &'a OwnedFd,
    epoll: OwnedFd,
    held: BTreeMap<Name, Held>,
    by_token: BTreeMap<u64, Name>,
    next_token: u64,
    limit: usize,
    connection: Option<Connection>,
    hold_for: Duration,
    /// When everything is let go, unless a daemon is connected then.
    deadline: Instant,
}

impl<'a> Holder<'a> {
    fn new(claim: &'a Claim, limit: usize, hold_for: Duration) -> rustix::io::Result<Holder<'a>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let token = epoll::EventData::new_u64(LISTENER);
        epoll::add(&epoll, &claim.listener, token, epoll::EventFlags::IN)?;
        Ok(Holder {
            listener: &claim.listener,
            epoll,
            held: BTreeMap::new(),
            by_token: BTreeMap::new(),
            next_token: CONNECTION + 1,
            limit,
            connection: None,
            hold_for,
            deadline: Instant::now() + hold_for,
        })
    }

    /// Waits for something and does it; `false` when it is time to exit.
    fn step(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        let until = match &self.connection {
            Some(connection) if connection.greeted => None,
            Some(connection) => Some(self.deadline.min(connection.since + PATIENCE)),
            None => Some(self.deadline),
        };
        let timeout = until.map(|until| timespec(until.saturating_duration_since(now)));
        let mut events = Vec::with_capacity(EVENTS);
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            timeout.as_ref(),
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // the listener last (it has the lowest token): a daemon that has gone is noticed before the next one
        let mut tokens: Vec<u64> = events.iter().map(|event| event.data.u64()).collect();
        tokens.sort_unstable_by(|a, b| b.cmp(a));
        for token in tokens {
            let go_on = match token {
                LISTENER => self.accept(),
                CONNECTION => self.serve(),
                _ => {
                    self.hung_up(token);
                    true
                }
            };
            if !go_on {
                return Ok(false);
            }
        }
        let now = Instant::now();
        if let Some(connection) = &self.connection {
            if connection.greeted {
                return Ok(true);
            }
            if now >= connection.since + PATIENCE {
                self.hang_up();
            }
        }
        Ok(now < self.deadline)
    }

    fn accept(&mut self) -> bool {
        // what the old daemon said last, and its end, come before the new one
        while self.connection.as_ref().is_some_and(has_hung_up) {
            if !self.serve() {
                return false;
            }
        }
        let Ok(socket) = rustix::net::accept_with(self.listener, SocketFlags::CLOEXEC) else {
            // whoever it was has gone
            return true;
        };
        let own = rustix::process::geteuid().as_raw();
        if !peer(&socket).is_ok_and(|peer| peer.uid == own) {
            return true;
        }
        let limited = set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))
            .and_then(|()| set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE)));
        if limited.is_err() {
            return true;
        }
        if self.connection.is_some() {
            // it is hung up on, whether it hears why or not
            drop(say(&socket, &Reply::Refused(Refusal::Busy), None));
            return true;
        }
        let token = epoll::EventData::new_u64(CONNECTION);
        let watched = epoll::add(&self.epoll, &socket, token, epoll::EventFlags::IN);
        if watched.is_err() || say(&socket, &Reply::Here, None).is_err() {
            return true;
        }
        self.connection = Some(Connection {
            socket,
            since: Instant::now(),
            greeted: false,
        });
        true
    }

    /// One message of the peer, or its end; `false` when it is time to exit.
    fn serve(&mut self) -> bool {
        let Some(connection) = self.connection.take() else {
            return true;
        };
        let (connection, next) = self.answer(connection);
        // hang_up and the next step look at it
        self.connection = Some(connection);
        match next {
            Next::Stay => true,
            Next::Drop => {
                self.hang_up();
                true
            }
            Next::Exit => false,
        }
    }

    fn answer(&mut self, mut connection: Connection) -> (Connection, Next) {
        let mut buffer = [0; MAX_MESSAGE];
        let received = fds::receive(&connection.socket, &mut buffer, MAX_IN_MESSAGE);
        let reply = match received {
            Ok(Some(message)) => {
                let request = Request::parse(buffer.get(..message.length).unwrap_or_default());
                let count = message.descriptors.len();
                match request.filter(|request| request.descriptors() == count) {
                    Some(request) => {
                        let fd = message.descriptors.into_iter().next();
                        self.carry_out(&mut connection, request, fd)
                    }
                    None => Err(Refusal::Nonsense),
                }
            }
            // too many open files in this process; the peer has still got it
            Err(FdsError::Lost { .. }) if connection.greeted => {
                Ok((Reply::Refused(Refusal::Full), Next::Stay))
            }
            Ok(None) | Err(_) => return (connection, Next::Drop),
        };
        let (reply, next) = match reply {
            Ok(pair) => pair,
            Err(refusal) => (Reply::Refused(refusal), Next::Drop),
        };
        let said = say(&connection.socket, &reply, None);
        let given = match (said, reply) {
            (Ok(()), Reply::Welcome { .. }) => self.give(&connection.socket),
            (said, _) => said,
        };
        let next = match (given, next) {
            (Err(_), Next::Stay) => Next::Drop,
            (_, next) => next,
        };
        (connection, next)
    }

    fn carry_out(
        &mut self,
        connection: &mut Connection,
        request: Request,
        fd: Option<OwnedFd>,
    ) -> Result<(Reply, Next), Refusal> {
        let stay = |reply| Ok((reply, Next::Stay));
        match (request, fd) {
            (Request::Hello { hold_for_s }, None) if !connection.greeted => {
                connection.greeted = true;
                self.hold_for = Duration::from_secs(hold_for_s.into());
                // at most MAX_HELD
                let count = self.held.len() as u32;
                stay(Reply::Welcome { count })
            }
            (Request::Put(name), Some(fd)) if connection.greeted => {
                if self.held.contains_key(&name) {
                    stay(Reply::Refused(Refusal::Exists))
                } else if self.held.len() >= self.limit {
                    stay(Reply::Refused(Refusal::Full))
                } else {
                    self.hold(name, fd);
                    stay(Reply::Done)
                }
            }
            (Request::Remove(name), None) if connection.greeted => {
                self.let_go(&name);
                stay(Reply::Done)
            }
            (Request::LetGo, None) if connection.greeted => Ok((Reply::Done, Next::Exit)),
            _ => Err(Refusal::Nonsense),
        }
    }

    /// Gives copies of everything; the peer has to keep up.
    fn give(&self, socket: &OwnedFd) -> Result<(), FdsError> {
        self.held
            .iter()
            .try_for_each(|(name, held)| say(socket, &Reply::Kept(name.clone()), Some(&held.fd)))
    }

    fn hold(&mut self, name: Name, fd: OwnedFd) {
        let token = self.next_token;
        self.next_token += 1; // 2^64 do not pass through here
        // Nothing but hang-ups, which epoll always tells (epoll_ctl(2)). What cannot be watched (a file) is held unwatched.
        let data = epoll::EventData::new_u64(token);
        if epoll::add(&self.epoll, &fd, data, epoll::EventFlags::empty()).is_ok() {
            self.by_token.insert(token, name.clone());
        }
        self.held.insert(name, Held { fd, token });
    }

    fn let_go(&mut self, name: &Name) {
        if let Some(held) = self.held.remove(name)
            && self.by_token.remove(&held.token).is_some()
        {
            // Closing is not enough: the daemon has the same open file, and epoll forgets it with the last descriptor only
            // (epoll(7), "Questions and answers"). It cannot fail: it was added above.
            epoll::delete(&self.epoll, &held.fd).ok();
        }
    }

    /// Every task behind a listener is gone, or the other end of something else: nothing will ever come from it.
    fn hung_up(&mut self, token: u64) {
        if let Some(name) = self.by_token.get(&token).cloned() {
            self.let_go(&name);
        }
    }

    /// The peer is gone or is no daemon.
    fn hang_up(&mut self) {
        if let Some(connection) = self.connection.take() {
            // as for held ones: the peer's own copies must not wake us
            epoll::delete(&self.epoll, &connection.socket).ok();
            if connection.greeted {
                self.deadline = Instant::now() + self.hold_for;
            }
        }
    }
}

fn has_hung_up(connection: &Connection) -> bool {
    let mut fds = [PollFd::new(&connection.socket, PollFlags::empty())];
    let now = timespec(Duration::ZERO);
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

fn say(socket: &OwnedFd, reply: &Reply, fd: Option<&OwnedFd>) -> Result<(), FdsError> {
    let fd: Vec<_> = fd.map(AsFd::as_fd).into_iter().collect();
    fds::send(socket, &reply.to_bytes(), &fd)
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        // hold_for is at most 2^32 seconds
        tv_sec: duration.as_secs().cast_signed(),
        // below 1e9
        tv_nsec: duration.subsec_nanos().into(),
    }
}
