//! The daemon's side of the holder: starts it, takes back what it holds, and fills a new one when it dies.
//!
//! Everything that is held is open here as well, so nothing is lost when the holder dies; and everything is open there, so
//! nothing is lost when this process dies. Both at once lose all, and then asked calls fail with `ENOSYS`.

use super::protocol::{MAX_MESSAGE, Name, Refusal, Reply, Request};
use super::{KeepError, Kept, hold};
use lazaret_kernel::fds::{self, FdsError};
use lazaret_kernel::handover::peer;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::collections::BTreeMap;
use std::io::{self, PipeReader, PipeWriter, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the holder may take for one answer; it takes some 20 µs.
const REPLY_LIMIT: Duration = Duration::from_secs(2);

/// How long a holder is sought or started. The last daemon may be on its way out still, and the last holder too.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// Between two attempts to replace a holder that could not be replaced.
const LONG_PAUSE: Duration = Duration::from_secs(1);

/// Where the holder is and how it is started.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) socket: PathBuf,
    pub(super) hold_for_s: u32,
    pub(super) program: PathBuf,
}

/// A connection on which the holder has said everything it holds.
struct Link {
    socket: OwnedFd,
}

impl Drop for Link {
    fn drop(&mut self) {
        // the watch has a copy: without this the holder would not notice, and refuse the next one. It is connected.
        rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both).ok();
    }
}

/// Why a connection was not made.
enum NoLink {
    /// Nobody listens.
    Nobody,
    /// Somebody does, and will not talk now.
    NotNow,
    Failed(KeepError),
}

impl Link {
    /// Connects and takes copies of everything.
    fn take(settings: &Settings) -> Result<(Link, BTreeMap<Name, OwnedFd>), NoLink> {
        let failed = |error: Errno| NoLink::Failed(KeepError::Connect(error.into()));
        let address = SocketAddrUnix::new(&settings.socket).map_err(failed)?;
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(failed)?;
        set_socket_timeout(&socket, Timeout::Send, Some(REPLY_LIMIT)).map_err(failed)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(REPLY_LIMIT)).map_err(failed)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::CONNREFUSED) => return Err(NoLink::Nobody),
            Err(Errno::AGAIN) => return Err(NoLink::NotNow),
            Err(error) => return Err(failed(error)),
        }
        let holder = peer(&socket).map_err(|source| NoLink::Failed(KeepError::Peer(source)))?;
        if holder.uid != rustix::process::geteuid().as_raw() {
            return Err(NoLink::Failed(KeepError::Foreign { uid: holder.uid }));
        }
        let link = Link { socket };
        match link.hear() {
            Ok((Reply::Here, None)) => {}
            // it exits, or has another daemon, just now
            Ok((Reply::Refused(Refusal::Busy), None)) | Err(KeepError::Gone) => {
                return Err(NoLink::NotNow);
            }
            Ok(_) => return Err(NoLink::Failed(KeepError::Nonsense)),
            Err(error) => return Err(NoLink::Failed(error)),
        }
        match link.all(settings.hold_for_s) {
            Ok(held) => Ok((link, held)),
            Err(KeepError::Gone) => Err(NoLink::NotNow),
            Err(error) => Err(NoLink::Failed(error)),
        }
    }

    fn all(&self, hold_for_s: u32) -> Result<BTreeMap<Name, OwnedFd>, KeepError> {
        self.say(&Request::Hello { hold_for_s }, None)?;
        let (Reply::Welcome { count }, None) = self.hear()? else {
            return Err(KeepError::Nonsense);
        };
        let mut held = BTreeMap::new();
        for _ in 0..count {
            let (Reply::Kept(name), Some(fd)) = self.hear()? else {
                return Err(KeepError::Nonsense);
            };
            held.insert(name, fd);
        }
        Ok(held)
    }

    fn say(&self, request: &Request, fd: Option<&OwnedFd>) -> Result<(), KeepError> {
        let fd: Vec<_> = fd.map(|fd| fd.as_fd()).into_iter().collect();
        fds::send(&self.socket, &request.to_bytes(), &fd).map_err(KeepError::of)
    }

    fn hear(&self) -> Result<(Reply, Option<OwnedFd>), KeepError> {
        let mut buffer = [0; MAX_MESSAGE];
        let message = fds::receive(&self.socket, &mut buffer, 1).map_err(KeepError::of)?;
        let message = message.ok_or(KeepError::Gone)?;
        let reply = Reply::parse(buffer.get(..message.length).unwrap_or_default());
        let reply = reply.ok_or(KeepError::Nonsense)?;
        Ok((reply, message.descriptors.into_iter().next()))
    }

    fn ask(&self, request: &Request, fd: Option<&OwnedFd>) -> Result<(), KeepError> {
        self.say(request, fd)?;
        match self.hear()? {
            (Reply::Done, None) => Ok(()),
            (Reply::Refused(why), None) => Err(KeepError::Refused(why)),
            _ => Err(KeepError::Nonsense),
        }
    }
}

impl KeepError {
    /// From a message that did not go through.
    fn of(error: FdsError) -> KeepError {
        let (FdsError::Send { source, .. } | FdsError::Receive(source)) = &error else {
            return KeepError::Message(error);
        };
        match source.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => KeepError::Gone,
            io::ErrorKind::WouldBlock => KeepError::Slow { limit: REPLY_LIMIT },
            _ => KeepError::Message(error),
        }
    }

    /// Whether it says nothing about the connection, which can be used on.
    fn is_answer(&self) -> bool {
        matches!(self, KeepError::Refused(Refusal::Full | Refusal::Exists))
    }
}

/// Takes over what a holder has for this socket, and ends it; nothing when there is none.
pub(super) fn dissolve(settings: &Settings) -> Result<Vec<Kept>, KeepError> {
    let begin = Instant::now();
    loop {
        match Link::take(settings) {
            Ok((link, held)) => {
                link.ask(&Request::LetGo, None)?;
                return Ok(held.into_iter().map(Kept::from).collect());
            }
            Err(NoLink::Nobody) => return Ok(Vec::new()),
            Err(NoLink::NotNow) if begin.elapsed() < START_LIMIT => std::thread::sleep(PAUSE),
            Err(NoLink::NotNow) => return Err(KeepError::Busy { limit: START_LIMIT }),
            Err(NoLink::Failed(error)) => return Err(error),
        }
    }
}

/// What is held, by this process and by the holder.
struct State {
    link: Option<Link>,
    /// Counts links; tells whether it is still the one that was looked at.
    links: u64,
    held: BTreeMap<Name, OwnedFd>,
    /// Holders that this process started, until they are waited for.
    children: Vec<Child>,
}

/// The holder, as long as this daemon needs one.
pub(super) struct Holder {
    shared: Arc<Shared>,
    /// Its end ends the watch.
    stop: Option<PipeWriter>,
    watch: Option<JoinHandle<()>>,
}

struct Shared {
    settings: Settings,
    state: Mutex<State>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // every change is one statement
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A connection to a holder that holds exactly what this process does; a new holder when there is none.
    fn connect(&mut self, settings: &Settings) -> Result<(), KeepError> {
        self.link = None;
        let (link, theirs) = self.find(settings)?;
        self.links += 1;
        for name in theirs.keys() {
            if !self.held.contains_key(name) {
                link.ask(&Request::Remove(name.clone()), None)?;
            }
        }
        for (name, fd) in &self.held {
            if !theirs.contains_key(name) {
                link.ask(&Request::Put(name.clone()), Some(fd))?;
            }
        }
        self.link = Some(link);
        Ok(())
    }

    fn find(&mut self, settings: &Settings) -> Result<(Link, BTreeMap<Name, OwnedFd>), KeepError> {
        let begin = Instant::now();
        loop {
            match Link::take(settings) {
                Ok(found) => return Ok(found),
                Err(NoLink::Failed(error)) => return Err(error),
                Err(NoLink::Nobody) => {
                    self.children
                        .retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
                    match start(settings) {
                        Ok(child) => {
                            self.children.push(child);
                            continue;
                        }
                        // the last one is about to exit, or a new one about to listen
                        Err(KeepError::Taken) => {}
                        Err(error) => return Err(error),
                    }
                }
                Err(NoLink::NotNow) => {}
            }
            if begin.elapsed() > START_LIMIT {
                return Err(KeepError::Busy { limit: START_LIMIT });
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Asks the holder; one that is gone is replaced, and `held` given to the new one.
    fn ask(
        &mut self,
        settings: &Settings,
        request: &Request,
        fd: Option<&OwnedFd>,
    ) -> Result<(), KeepError> {
        let Some(link) = &self.link else {
            return self.connect(settings);
        };
        match link.ask(request, fd) {
            Ok(()) => Ok(()),
            Err(error) if error.is_answer() => Err(error),
            Err(error) => {
                tracing::warn!("holder: {:#}", anyhow::Error::from(error));
                self.connect(settings)
            }
        }
    }
}

impl Holder {
    /// Finds or starts the holder, and takes copies of all it holds.
    pub(super) fn open(settings: Settings) -> Result<(Holder, Vec<Kept>), KeepError> {
        let mut state = State {
            link: None,
            links: 0,
            held: BTreeMap::new(),
            children: Vec::new(),
        };
        let (link, held) = state.find(&settings)?;
        let mut kept = Vec::with_capacity(held.len());
        for (name, fd) in &held {
            let fd = fd.try_clone().map_err(KeepError::Copy)?;
            kept.push(Kept::from((name.clone(), fd)));
        }
        state.link = Some(link);
        state.held = held;
        let shared = Arc::new(Shared {
            settings,
            state: Mutex::new(state),
        });
        let (stopped, stop) = io::pipe().map_err(KeepError::Watch)?;
        let watched = Arc::clone(&shared);
        let watch = std::thread::Builder::new()
            .name("keep".to_owned())
            .spawn(move || watch(&watched, &stopped))
            .map_err(KeepError::Watch)?;
        let holder = Holder {
            shared,
            stop: Some(stop),
            watch: Some(watch),
        };
        Ok((holder, kept))
    }

    pub(super) fn put(&self, name: Name, fd: OwnedFd) -> Result<(), KeepError> {
        let mut state = self.shared.lock();
        if state.held.contains_key(&name) {
            return Err(KeepError::Refused(Refusal::Exists));
        }
        let sent = fd.try_clone().map_err(KeepError::Copy)?;
        // before it is asked: a holder that has to be replaced on the way gets it with the rest
        state.held.insert(name.clone(), fd);
        crate::fault::point("keeping");
        let put = state.ask(
            &self.shared.settings,
            &Request::Put(name.clone()),
            Some(&sent),
        );
        if put.is_err() {
            state.held.remove(&name);
        }
        crate::fault::point("keep-acknowledged");
        put
    }

    pub(super) fn remove(&self, name: &Name) -> Result<(), KeepError> {
        let mut state = self.shared.lock();
        if state.held.remove(name).is_none() {
            return Ok(());
        }
        crate::fault::point("unkeeping");
        state.ask(&self.shared.settings, &Request::Remove(name.clone()), None)
    }

    pub(super) fn count(&self) -> usize {
        self.shared.lock().held.len()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.end_watch();
    }
}

impl Holder {
    fn end_watch(&mut self) {
        drop(self.stop.take());
        if let Some(watch) = self.watch.take() {
            // it panics nowhere, and there is nobody to tell
            drop(watch.join());
        }
    }
}

/// Replaces the holder whenever it dies, until told to stop.
fn watch(shared: &Shared, stopped: &PipeReader) {
    loop {
        let seen = {
            let state = shared.lock();
            let socket = state.link.as_ref().map(|link| link.socket.try_clone());
            (state.links, socket)
        };
        match seen {
            (links, Some(Ok(socket))) => {
                if ends(stopped, Some(&socket), None) {
                    return;
                }
                drop(socket);
                let mut state = shared.lock();
                // `put` may have been faster
                if state.links == links {
                    tracing::warn!("holder is gone, starting another");
                    replace(&mut state, &shared.settings);
                }
            }
            (links, _) => {
                if ends(stopped, None, Some(LONG_PAUSE)) {
                    return;
                }
                let mut state = shared.lock();
                if state.links == links && state.link.is_none() {
                    replace(&mut state, &shared.settings);
                }
            }
        }
    }
}

fn replace(state: &mut State, settings: &Settings) {
    match state.connect(settings) {
        Ok(()) => tracing::info!("a holder has all {} descriptors again", state.held.len()),
        Err(error) => tracing::error!(
            "no holder, a restart of this daemon loses its containers: {:#}",
            anyhow::Error::from(error)
        ),
    }
}

/// Waits until the holder hangs up or the time is over; whether the watch was told to end instead.
fn ends(stopped: &PipeReader, holder: Option<&OwnedFd>, limit: Option<Duration>) -> bool {
    let limit = limit.map(|limit| Timespec {
        tv_sec: limit.as_secs().cast_signed(), // a second
        tv_nsec: 0,
    });
    let mut fds = vec![PollFd::new(stopped, PollFlags::empty())];
    fds.extend(holder.map(|holder| PollFd::new(holder, PollFlags::empty())));
    loop {
        match poll(&mut fds, limit.as_ref()) {
            Err(Errno::INTR) => {}
            // out of memory: no watching then, but no busy loop either
            Err(_) => {
                std::thread::sleep(LONG_PAUSE);
                return false;
            }
            Ok(_) => return fds.first().is_some_and(|first| !first.revents().is_empty()),
        }
    }
}

/// Starts a holder and waits until it listens.
fn start(settings: &Settings) -> Result<Child, KeepError> {
    let mut child = Command::new(&settings.program)
        .arg0("lazaretd")
        .arg("hold")
        .arg("--socket")
        .arg(&settings.socket)
        .arg("--for")
        .arg(settings.hold_for_s.to_string())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // until it is ready, so that what it says is seen where this daemon's log is
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(KeepError::Start)?;
    let said = child.stdout.take().map(|mut stdout| {
        let limit = Timespec {
            tv_sec: START_LIMIT.as_secs().cast_signed(), // ten
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(&stdout, PollFlags::IN)];
        let mut said = [0; hold::READY.len()];
        match poll(&mut fds, Some(&limit)) {
            Ok(ready) if ready > 0 => stdout.read_exact(&mut said).is_ok(),
            _ => false,
        }
    });
    if said == Some(true) {
        return Ok(child);
    }
    // our own child, not waited for yet, so the number is still its own
    child.kill().map_err(KeepError::Start)?;
    let status = child.wait().map_err(KeepError::Start)?;
    if status.code() == Some(hold::EXIT_TAKEN) {
        Err(KeepError::Taken)
    } else {
        Err(KeepError::NotReady { status })
    }
}
