//! The holder process: what it outlives, what it gives back, when it lets go, and whom it refuses.

use crate::keep::{Choice, KeepError, Keeper, Manager, Place, Refusal};
use crate::node::{Daemon, Node, hear, is_closed, names, open_files, say, threads, until, write};
use std::io::{BufRead as _, PipeReader, PipeWriter};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
const NOW: Duration = Duration::ZERO;

fn pipe() -> (PipeReader, PipeWriter) {
    std::io::pipe().expect("pipe")
}

#[test]
fn a_daemon_that_is_killed_loses_nothing() {
    let node = Node::new();
    let mut first = Daemon::start(&node);
    let holder = node.holder().expect("it listens");
    first.kill();
    let (keeper, kept) = node.open(30);
    assert_eq!(node.holder(), Some(holder), "the same process");
    assert_eq!(names(&kept), ["stdout"]);
    write(&kept[0], "from the next daemon\n");
    let mut line = String::new();
    while line != "from the next daemon\n" {
        line.clear();
        assert!(first.said.read_line(&mut line).expect("a line") > 0);
    }
    // the holder has its own still
    drop((kept, keeper));
    let (_keeper, kept) = node.open(30);
    assert_eq!(names(&kept), ["stdout"]);
}

#[test]
fn the_holder_is_small_alone_and_private() {
    let node = Node::new();
    let (keeper, kept) = node.open(30);
    assert_eq!((keeper.place(), names(&kept)), (Place::Holder, vec![]));
    let pid = node.holder().expect("it listens");
    assert_eq!(threads(pid), 1);
    let raw = pid.as_raw_nonzero();
    for fd in 0..3 {
        let target = std::fs::read_link(format!("/proc/{raw}/fd/{fd}")).expect("open");
        assert_eq!(target.to_str(), Some("/dev/null"));
    }
    // 0, 1, 2, lock, socket, epoll, connection; and for a moment the one of `node.holder`
    until("no more descriptors than its own", || open_files(pid) <= 7);
    let root = std::fs::read_link(format!("/proc/{raw}/cwd")).expect("a directory");
    assert_eq!(root.to_str(), Some("/"));
    assert_eq!(rustix::process::getsid(Some(pid)).ok(), Some(pid));
    let environment = std::fs::read(format!("/proc/{raw}/environ")).expect("there");
    assert!(environment.is_empty());
    let mode = |path| {
        let metadata = std::fs::metadata(path).expect("there");
        metadata.permissions().mode() & 0o7777
    };
    assert_eq!(mode(node.socket()), 0o600);
    let status = std::fs::read_to_string(format!("/proc/{raw}/status")).expect("there");
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let rss = rss.and_then(|rss| rss.trim().strip_suffix(" kB")?.parse::<u32>().ok());
    assert!(rss.is_some_and(|kib| kib < 16 * 1024), "{rss:?} KiB");
}

#[test]
fn when_nobody_comes_in_time_everything_is_let_go() {
    let node = Node::new();
    let (keeper, _) = node.open(1);
    let pid = node.holder().expect("it listens");
    let (reader, writer) = pipe();
    let gate = node.folder.path().join("gate.sock");
    let listening = UnixListener::bind(&gate).expect("bound");
    keeper.put("c1-0", writer.as_fd()).expect("kept");
    keeper.put("gate", listening.as_fd()).expect("kept");
    assert_eq!(keeper.count(), 2);
    drop((writer, listening));
    let gone = Instant::now();
    drop(keeper);
    assert!(!is_closed(&reader, Duration::from_millis(300)));
    // a runtime waits in the backlog meanwhile
    assert!(UnixStream::connect(&gate).is_ok());
    assert!(is_closed(&reader, SOON));
    assert!(gone.elapsed() >= Duration::from_millis(900));
    until("nobody accepts on the gate's socket", || {
        UnixStream::connect(&gate)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    });
    until("it exits", || {
        node.holder().is_none() && !node.socket().exists()
    });
    assert_ne!(node.open(30).0.count(), 1);
    assert_ne!(node.holder(), Some(pid));
}

#[test]
fn what_is_removed_is_closed_and_a_name_is_used_once() {
    let node = Node::new();
    let (keeper, _) = node.open(30);
    let (reader, writer) = pipe();
    keeper.put("one", writer.as_fd()).expect("kept");
    let twice = keeper.put("one", writer.as_fd()).expect_err("in use");
    assert!(matches!(twice, KeepError::Refused(Refusal::Exists)));
    drop(writer);
    assert!(!is_closed(&reader, Duration::from_millis(50)));
    keeper.remove("one").expect("removed");
    assert!(is_closed(&reader, NOW), "closed when it is acknowledged");
    keeper.remove("one").expect("no error");
    for name in ["", "a:b", "a b", &"n".repeat(256)] {
        let refused = keeper.put(name, reader.as_fd());
        assert!(matches!(refused, Err(KeepError::Name { .. })), "{name}");
    }
}

#[test]
fn what_hangs_up_is_not_kept() {
    let node = Node::new();
    let (keeper, _) = node.open(30);
    let (reader, writer) = pipe();
    keeper.put("dead", reader.as_fd()).expect("kept");
    keeper.put("alive", writer.as_fd()).expect("kept");
    let file = std::fs::File::open("/dev/null").expect("there");
    keeper.put("file", file.as_fd()).expect("kept, unwatched");
    let pid = node.holder().expect("it listens");
    until("all are open", || open_files(pid) == 7 + 3);
    keeper.remove("alive").expect("removed");
    drop(writer); // nobody writes any more
    until("it noticed", || open_files(pid) == 7 + 1);
    drop(keeper);
    let (_keeper, kept) = node.open(30);
    assert_eq!(names(&kept), ["file"]);
}

#[test]
fn one_daemon_at_a_time_and_nonsense_is_hung_up_on() {
    let node = Node::new();
    let (keeper, _) = node.open(30);
    let (reader, writer) = pipe();
    keeper.put("one", writer.as_fd()).expect("kept");
    drop(writer);
    let second = node.connect().expect("it listens");
    assert_eq!(hear(&second).as_deref(), Some(&b"Nb"[..]), "busy");
    assert_eq!(hear(&second), None);
    drop(keeper);

    let hello = b"H\x01\x1e\0\0\0";
    for (first, message) in [
        (&b"P"[..], &b""[..]),
        (b"Pname", b""), // no hello, no descriptor
        (b"garbage", b""),
        (b"H\x02\x1e\0\0\0", b""), // a version that does not exist
        (&[b'x'; 4096], b""),
        (hello, b"Pname"), // a descriptor is missing
        (hello, b"Pa:b"),
        (hello, hello),
        (hello, &[b'R'; 300]),
    ] {
        let case = format!("{first:?} {message:?}");
        until("the last one is forgotten", || {
            let peer = node.connect().expect("it listens");
            if hear(&peer).as_deref() != Some(b"V\x01") {
                return false;
            }
            let mut heard = say(&peer, first);
            if !message.is_empty() {
                assert_eq!(heard.as_deref(), Some(&b"W\x01\0\0\0"[..]), "{case}");
                assert_eq!(hear(&peer).as_deref(), Some(&b"Kone"[..]), "{case}");
                heard = say(&peer, message);
            }
            assert!(heard.is_none() || heard.as_deref() == Some(b"Nn"), "{case}");
            assert_eq!(hear(&peer), None, "{case}");
            true
        });
    }
    // someone who says nothing keeps nobody out for long
    let silent = node.connect().expect("it listens");
    let (_keeper, kept) = node.open(30);
    assert_eq!(names(&kept), ["one"]);
    drop(silent);
    assert!(!is_closed(&reader, NOW));
}

#[test]
fn another_user_is_not_listened_to() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP: not root, cannot be somebody else");
        return;
    }
    let node = Node::new();
    let (keeper, _) = node.open(30);
    drop(keeper);
    for path in [node.folder.path().to_owned(), node.socket()] {
        let all = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(path, all).expect("opened to everybody");
    }
    // says whether it connected, and how many bytes it heard
    let script = "socket(my $s, AF_UNIX, SOCK_SEQPACKET, 0); \
                  print connect($s, sockaddr_un($ARGV[0])) ? 'connects ' : 'fails '; \
                  my $heard = ''; recv($s, $heard, 9, 0); print length $heard";
    let hears = |uid: &str| {
        let output = Command::new("setpriv")
            .args(["--reuid", uid, "--clear-groups"])
            .args(["/usr/bin/perl", "-MSocket", "-e", script])
            .arg(node.socket())
            .output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Some(root) = hears("0") else {
        println!("SKIP: no setpriv or perl");
        return;
    };
    assert_eq!(root, "connects 2");
    assert_eq!(hears("65534").as_deref(), Some("connects 0"));
}

#[test]
fn a_holder_that_is_killed_is_replaced_and_filled() {
    let node = Node::new();
    let (keeper, _) = node.open(30);
    let (reader, writer) = pipe();
    keeper.put("one", writer.as_fd()).expect("kept");
    keeper.put("gone", writer.as_fd()).expect("kept");
    keeper.remove("gone").expect("removed");
    drop(writer);
    let dead = node.kill_holder();
    until("another one listens", || {
        node.holder().is_some_and(|pid| pid != dead)
    });
    // at the worst moment: between its death and the notice of it
    let (_second, other) = pipe();
    node.kill_holder();
    keeper.put("two", other.as_fd()).expect("kept by a new one");
    node.kill_holder();
    keeper.remove("two").expect("removed, or never there");
    keeper.put("three", other.as_fd()).expect("kept");
    drop(keeper);
    let (_keeper, kept) = node.open(30);
    assert_eq!(names(&kept), ["one", "three"]);
    assert!(!is_closed(&reader, NOW));
}

#[test]
fn a_daemon_that_is_to_keep_nothing_ends_the_holder() {
    let node = Node::new();
    let (keeper, _) = node.open(30);
    let (reader, writer) = pipe();
    keeper.put("one", writer.as_fd()).expect("kept");
    drop((keeper, writer));

    // a daemon that is to keep nothing takes it and lets it go
    let (keeper, kept) = node.open(0);
    assert_eq!(
        (keeper.place(), names(&kept)),
        (Place::Nowhere, vec!["one"])
    );
    until("it exits", || node.holder().is_none());
    keeper.put("two", kept[0].fd.as_fd()).expect("done nothing");
    assert_eq!(keeper.count(), 0);
    drop(kept);
    assert!(is_closed(&reader, NOW));
}

#[test]
fn two_thousand_listeners_come_back() {
    const COUNT: usize = 2000;
    let node = Node::new();
    let (keeper, _) = node.open(30);
    let (reader, writer) = pipe();
    let begin = Instant::now();
    for index in 0..COUNT {
        let name = format!("container-{index:04}");
        keeper.put(&name, writer.as_fd()).expect("kept");
    }
    println!("{COUNT} puts: {:?}", begin.elapsed());
    drop(writer);
    let pid = node.holder().expect("it listens");
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
    let status = status.expect("there");
    println!(
        "holder: {:?}",
        status.lines().find(|line| line.starts_with("VmRSS"))
    );
    let begin = Instant::now();
    node.kill_holder();
    until("all are in a new one", || {
        node.holder()
            .is_some_and(|new| new != pid && open_files(new) >= COUNT)
    });
    println!("filled again: {:?}", begin.elapsed());
    drop(keeper);
    let begin = Instant::now();
    let (_keeper, kept) = node.open(30);
    println!("given back: {:?}", begin.elapsed());
    assert_eq!(kept.len(), COUNT);
    assert_eq!(kept[COUNT - 1].name, "container-1999");
    assert!(!is_closed(&reader, NOW));
}

#[test]
fn a_holder_by_hand_says_what_is_wrong() {
    let node = Node::new();
    let hold = |socket: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_lazaretd"))
            .args(["hold", "--for", "1", "--socket", socket])
            .stdin(Stdio::null())
            .output()
            .expect("runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text)
    };
    let (code, text) = hold("relative");
    assert_eq!(code, Some(3));
    assert!(text.contains("`relative` is no absolute path"), "{text}");
    let (code, text) = hold("/nonexistent/x");
    assert_eq!(code, Some(3));
    assert!(text.contains("cannot lock `/nonexistent/x.lock`"), "{text}");
    let (keeper, _) = node.open(30);
    let (code, text) = hold(node.socket().to_str().expect("text"));
    assert_eq!(code, Some(1));
    assert!(text.contains("another holder has"), "{text}");
    drop(keeper);
}

#[test]
fn a_stale_socket_and_a_holder_that_cannot_start() {
    let node = Node::new();
    drop(UnixListener::bind(node.socket()).expect("bound"));
    assert!(node.socket().exists());
    drop(node.open(30));
    node.kill_holder();
    until("it is gone", || node.holder().is_none());
    let mut config = node.config(Choice::Holder, 30);
    for (program, starts) in [("/nonexistent", false), ("/bin/false", true)] {
        config.program = program.into();
        let error = Keeper::open(&config, &Manager::default(), Vec::new());
        match error.err() {
            Some(KeepError::Start(_)) => assert!(!starts),
            // `false` exits with 1, as a holder that finds another one
            Some(KeepError::Busy { .. } | KeepError::NotReady { .. }) => assert!(starts),
            other => panic!("{program}: {other:?}"),
        }
    }
}
