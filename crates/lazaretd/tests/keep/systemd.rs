//! systemd's side of the descriptor store, played by this program: sd_notify(3) as its manual says, and nothing of what
//! systemd does beside that. The real one is not run here.

use crate::keep::{self, Choice, KeepError, Keeper, Manager, Place};
use crate::node::{Node, PATIENCE, is_closed, names};
use lazaret_kernel::fds;
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

/// A service manager on a socket.
struct Fake {
    socket: UnixDatagram,
    path: String,
    store: BTreeMap<String, OwnedFd>,
    /// Lines that it was told and that are not about the store.
    said: Vec<String>,
}

impl Fake {
    fn new(node: &Node) -> Fake {
        let path = node.folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bound");
        let limit = Some(Duration::from_millis(20));
        socket.set_read_timeout(limit).expect("set");
        Fake {
            socket,
            path: path.to_str().expect("text").to_owned(),
            store: BTreeMap::new(),
            said: Vec::new(),
        }
    }

    fn manager(&self, limit: Option<usize>) -> Manager {
        Manager {
            notify: Some(self.path.clone()),
            fdstore: limit,
        }
    }

    /// Reads one message, if there is one.
    fn step(&mut self) {
        let mut buffer = [0; 1024];
        let Ok(Some(message)) = fds::receive(&self.socket, &mut buffer, 1) else {
            return;
        };
        let text = String::from_utf8_lossy(&buffer[..message.length]).into_owned();
        let mut fields: BTreeMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .collect();
        let name = fields.remove("FDNAME").unwrap_or("stored").to_owned();
        let fd = message.descriptors.into_iter().next();
        match (fields.remove("FDSTORE"), fields.remove("FDSTOREREMOVE"), fd) {
            (Some("1"), None, Some(fd)) => assert!(self.store.insert(name, fd).is_none()),
            (None, Some("1"), None) => drop(self.store.remove(&name)),
            // BARRIER=1: closed by now
            (None, None, _) => self.said.push(text.trim().to_owned()),
            other => panic!("{text}: {other:?}"),
        }
    }

    /// Serves while a daemon does something.
    fn serve<T: Send>(&mut self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let worker = scope.spawn(work);
            while !worker.is_finished() {
                self.step();
            }
            // what was sent last and is not waited for
            self.step();
            worker.join().expect("done")
        })
    }

    /// What the next start gets.
    fn inherited(&self) -> Vec<fds::Inherited> {
        self.store
            .iter()
            .map(|(name, fd)| fds::Inherited {
                name: name.clone(),
                fd: fd.try_clone().expect("copied"),
            })
            .collect()
    }
}

#[test]
fn the_store_keeps_gives_back_and_forgets() {
    let node = Node::new();
    let mut fake = Fake::new(&node);
    let config = node.config(Choice::Auto, 30);
    let manager = fake.manager(Some(3));
    let (keeper, kept) = Keeper::open(&config, &manager, Vec::new()).expect("opened");
    assert_eq!((keeper.place(), names(&kept)), (Place::Systemd, vec![]));
    assert!(node.holder().is_none(), "no holder is started");

    let (reader, writer) = std::io::pipe().expect("pipe");
    let put = |fake: &mut Fake, name: &str| fake.serve(|| keeper.put(name, writer.as_fd()));
    put(&mut fake, "one").expect("kept");
    put(&mut fake, "two").expect("kept");
    assert_eq!(fake.store.keys().collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(fake.said, ["BARRIER=1", "BARRIER=1"]);
    let twice = put(&mut fake, "one").expect_err("in use");
    assert!(matches!(twice, KeepError::Refused(_)), "{twice}");
    put(&mut fake, "three").expect("kept");
    // systemd would drop it without a word
    let full = put(&mut fake, "four").expect_err("no room");
    assert!(matches!(full, KeepError::Full { limit: 3 }), "{full}");
    fake.serve(|| keeper.remove("two")).expect("removed");
    assert_eq!(fake.store.keys().collect::<Vec<_>>(), ["one", "three"]);

    drop((keeper, writer));
    assert!(!is_closed(&reader, Duration::ZERO));
    // the next start, and `FDSTORE` is unknown to an older systemd
    let manager = fake.manager(None);
    let inherited = fake.inherited();
    let (keeper, kept) = Keeper::open(&config, &manager, inherited).expect("opened");
    assert_eq!((keeper.place(), keeper.count()), (Place::Systemd, 2));
    assert_eq!(names(&kept), ["one", "three"]);
    drop(kept);
    fake.serve(|| keeper.remove("one")).expect("removed");
    fake.serve(|| keeper.remove("three")).expect("removed");
    assert!(fake.store.is_empty());
    assert!(is_closed(&reader, PATIENCE));
}

#[test]
fn a_manager_that_does_not_read_is_given_up() {
    let node = Node::new();
    let fake = Fake::new(&node);
    let config = node.config(Choice::Systemd, 30);
    let (keeper, _) = Keeper::open(&config, &fake.manager(None), Vec::new()).expect("opened");
    let (_reader, writer) = std::io::pipe().expect("pipe");
    let error = keeper.put("one", writer.as_fd()).expect_err("nobody reads");
    assert!(matches!(error, KeepError::Slow { .. }), "{error}");
    assert_eq!(keeper.count(), 0);
    let error = Keeper::open(&config, &Manager::default(), Vec::new());
    assert!(matches!(error.err(), Some(KeepError::NoSystemd)));
}

#[test]
fn what_is_kept_moves_from_the_one_keeper_to_the_other() {
    let node = Node::new();
    let mut fake = Fake::new(&node);
    let (reader, writer) = std::io::pipe().expect("pipe");
    let (keeper, _) = node.open(30);
    keeper.put("one", writer.as_fd()).expect("kept");
    drop((keeper, writer));

    let config = node.config(Choice::Auto, 30);
    let manager = fake.manager(Some(9));
    let (keeper, kept) = fake
        .serve(|| Keeper::open(&config, &manager, Vec::new()))
        .expect("opened");
    assert_eq!(
        (keeper.place(), names(&kept)),
        (Place::Systemd, vec!["one"])
    );
    assert_eq!(fake.store.keys().collect::<Vec<_>>(), ["one"]);
    crate::node::until("the holder exits", || node.holder().is_none());
    drop((keeper, kept));

    // and back
    let config = node.config(Choice::Holder, 30);
    let inherited = fake.inherited();
    let (keeper, kept) = fake
        .serve(|| Keeper::open(&config, &manager, inherited))
        .expect("opened");
    assert_eq!((keeper.place(), names(&kept)), (Place::Holder, vec!["one"]));
    assert!(fake.store.is_empty());
    drop((keeper, kept));
    assert!(!is_closed(&reader, Duration::ZERO));
    assert_eq!(names(&node.open(30).1), ["one"]);
}

/// Set for the child only.
const TELLS: &str = "LAZARET_KEEP_TEST_TELLS";

/// The child of the next test; as a test of its own it does nothing.
#[test]
fn tells() {
    if std::env::var_os(TELLS).is_none() {
        return;
    }
    keep::systemd::ready().expect("told");
    keep::systemd::reloading().expect("told");
    keep::systemd::alive().expect("told");
    keep::systemd::stopping().expect("told");
    let half = keep::systemd::watchdog();
    assert_eq!(half, Some(Duration::from_secs(3)));
    let manager = Manager::from_environment();
    assert_eq!(manager.fdstore, Some(77));
    assert!(manager.notify.is_some());
}

#[test]
fn a_manager_is_told_of_the_daemons_life() {
    let node = Node::new();
    let mut fake = Fake::new(&node);
    let output = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "systemd::tells"])
        .env(TELLS, "1")
        .env("NOTIFY_SOCKET", &fake.path)
        .env("FDSTORE", "77")
        .env("WATCHDOG_USEC", "6000000")
        .env_remove("WATCHDOG_PID")
        .output()
        .expect("runs");
    assert!(output.status.success(), "{output:?}");
    for _ in 0..4 {
        fake.step();
    }
    let mut said = fake.said.iter().map(|text| text.lines().next());
    let expected = ["READY=1", "RELOADING=1", "WATCHDOG=1", "STOPPING=1"];
    assert!(said.by_ref().eq(expected.map(Some)), "{:?}", fake.said);
    assert!(fake.said[1].contains("MONOTONIC_USEC="));
    // without a manager nothing is told, and that is no error
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        keep::systemd::ready().expect("no error");
    }
}
