//! Threads that answer asked calls and do nothing else.
//!
//! A listener comes here when its container's own program runs. Each thread has an `epoll(7)` instance of its own; an answer takes no
//! task, no queue and no other thread: receive, decide, send. Measured against a bare supervisor by `cargo xtask bench gate`.
//!
//! A listener that always has a call waiting gets a bounded number of answers before the others have their turn.

use crate::serve::opened::Opened;
use lazaret_kernel::notify::{Listener, NotifyError, Polled};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::event::{EventfdFlags, eventfd};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Calls of one listener answered before others get their turn.
const BATCH: usize = 32;

/// Listeners looked at in one round.
const ROUND: usize = 64;

/// Threads at most. A second one helps when one container floods; more take time from the containers.
const MAX_THREADS: usize = 2;

/// The token of the descriptor that wakes a thread.
const WAKE: u64 = 0;

/// There are no threads for answers.
#[derive(Debug, thiserror::Error)]
#[error("cannot start a thread that answers calls")]
pub(crate) struct StartError(#[from] io::Error);

/// A listener with what answers it.
#[derive(Debug)]
pub(crate) struct Answering {
    /// The listener.
    pub(crate) listener: Listener,
    /// What answers it.
    pub(crate) opened: Opened,
}

/// How a listener ended.
#[derive(Debug)]
pub(crate) struct Over {
    /// What answered it.
    pub(crate) opened: Opened,
    /// Every process is gone, or why no more could be answered.
    pub(crate) outcome: Result<(), NotifyError>,
}

#[derive(Debug)]
struct Adopted {
    answering: Answering,
    over: oneshot::Sender<Over>,
}

#[derive(Debug)]
struct Inbox {
    adopted: Mutex<Vec<Adopted>>,
    wake: OwnedFd,
}

/// The threads.
#[derive(Debug)]
pub(crate) struct Answers {
    inboxes: Vec<Arc<Inbox>>,
    next: AtomicUsize,
}

impl Answers {
    /// Starts the threads.
    ///
    /// # Errors
    /// When there are none to be had.
    pub(crate) fn start() -> Result<Answers, StartError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut inboxes = Vec::new();
        for number in 0..cores.min(MAX_THREADS) {
            let inbox = Arc::new(Inbox {
                adopted: Mutex::default(),
                wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                    .map_err(io::Error::from)?,
            });
            let mut thread = Thread::new(Arc::clone(&inbox))?;
            std::thread::Builder::new()
                .name(format!("answers-{number}"))
                .spawn(move || thread.run())?;
            inboxes.push(inbox);
        }
        Ok(Answers {
            inboxes,
            next: AtomicUsize::new(0),
        })
    }

    /// Answers a listener from now on; what is returned comes when its processes are gone.
    pub(crate) fn adopt(&self, answering: Answering) -> oneshot::Receiver<Over> {
        let (over, receiver) = oneshot::channel();
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.inboxes.len().max(1);
        // `start` makes at least one, so there is always one
        if let Some(inbox) = self.inboxes.get(at) {
            inbox
                .adopted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(Adopted { answering, over });
            // EAGAIN: the counter is full, so the thread is awake already
            if let Err(error) = rustix::io::write(&inbox.wake, &1u64.to_ne_bytes())
                && error != rustix::io::Errno::AGAIN
            {
                tracing::error!("cannot wake a thread that answers: {error}");
            }
        }
        receiver
    }
}

struct Thread {
    inbox: Arc<Inbox>,
    epoll: OwnedFd,
    next: u64,
    slots: BTreeMap<u64, Adopted>,
}

impl Thread {
    fn new(inbox: Arc<Inbox>) -> io::Result<Thread> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = epoll::EventData::new_u64(WAKE);
        epoll::add(&epoll, &inbox.wake, wake, epoll::EventFlags::IN)?;
        Ok(Thread {
            inbox,
            epoll,
            next: WAKE + 1,
            slots: BTreeMap::new(),
        })
    }

    fn run(&mut self) {
        let mut events = Vec::with_capacity(ROUND);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // a crash is answered by a restart, which takes every listener over
                Err(error) => panic!("cannot wait for seccomp notifications: {error}"),
            }
            for event in &events {
                match event.data.u64() {
                    WAKE => self.adopt(),
                    token => self.look_at(token),
                }
            }
        }
    }

    fn adopt(&mut self) {
        let mut count = [0; 8];
        // the count itself says nothing: the inbox tells
        if let Err(error) = rustix::io::read(&self.inbox.wake, &mut count)
            && error != rustix::io::Errno::AGAIN
        {
            tracing::error!("cannot read what wakes a thread: {error}");
        }
        let adopted = std::mem::take(
            &mut *self
                .inbox
                .adopted
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for one in adopted {
            let token = self.next;
            self.next += 1; // 2^64 listeners do not happen
            let data = epoll::EventData::new_u64(token);
            let listener = &one.answering.listener;
            // calls of several threads at once take a third less time by it; without it they are answered all the same
            if let Err(error) = listener.wake_synchronously() {
                tracing::warn!("{:#}", anyhow::Error::from(error));
            }
            match epoll::add(&self.epoll, listener, data, epoll::EventFlags::IN) {
                Ok(()) => {
                    self.slots.insert(token, one);
                }
                Err(error) => over(one, Err(NotifyError::Poll(error.into()))),
            }
        }
    }

    fn look_at(&mut self, token: u64) {
        let Some(slot) = self.slots.get_mut(&token) else {
            return;
        };
        let outcome = match drain(&mut slot.answering) {
            Ok(Drained::Waits) => return,
            Ok(Drained::Over) => Ok(()),
            Err(error) => Err(error),
        };
        if let Some(slot) = self.slots.remove(&token) {
            if let Err(error) = epoll::delete(&self.epoll, &slot.answering.listener) {
                tracing::error!("cannot forget a listener: {error}");
            }
            over(slot, outcome);
        }
    }
}

fn over(slot: Adopted, outcome: Result<(), NotifyError>) {
    let Adopted { answering, over } = slot;
    let opened = answering.opened;
    // nobody waits any more when the daemon ends
    drop(over.send(Over { opened, outcome }));
}

enum Drained {
    Waits,
    Over,
}

/// Answers what waits.
fn drain(answering: &mut Answering) -> Result<Drained, NotifyError> {
    let Answering { listener, opened } = answering;
    for _ in 0..BATCH {
        match listener.poll(0)? {
            Polled::Waiting => {
                if let Some(notification) = listener.recv()? {
                    crate::fault::point("received");
                    opened.answer(listener, &notification)?;
                }
            }
            Polled::HungUp => return Ok(Drained::Over),
            Polled::Nothing => return Ok(Drained::Waits),
        }
    }
    Ok(Drained::Waits)
}
