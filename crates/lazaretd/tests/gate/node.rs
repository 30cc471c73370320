//! A node for tests: the daemon, a store with a signed policy, Docker's files, and a runtime.
//!
//! The runtime is this test program. A *container* is the same program again, run as its test `container` by
//! `unshare --pid --fork`: process 1 of a pid namespace of its own. It loads the filter, says the listener's number,
//! waits, and executes `/bin/sh`, which takes commands from its standard input.

use crate::paper::IMAGE;
pub(crate) use crate::paper::{Paper, STARTUP};
use lazaret_bundle::key::{Algorithm, PrivateKey, file};
use lazaret_core::digest::Digest;
use lazaret_core::filter::compile::compile;
use lazaret_core::filter::program::Program;
use lazaret_core::policy::Policy;
use lazaret_kernel::{load, pidfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader, IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Set for a container only: the file with its filter.
const FILTER: &str = "LAZARETD_TEST_FILTER";

/// Everything that is waited for takes milliseconds; this is for a machine under load.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A container and its image as Docker 20.10 recorded them.
const DOCKER: &str = include_str!("../../../../tests/vectors/engines/docker-config.v2.json");
const RECORDED_ID: &str = "1f0a23d70766c7302ccf646d56f5ea5412af8365e479b55a756e43dd22ba0730";

/// Whether this test cannot run here; says why.
pub(crate) fn skipped() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIP: not root, no gate can be started");
    }
    !root
}

/// The container's side of a test; does nothing when run by hand.
pub(crate) fn container() {
    let Ok(path) = std::env::var(FILTER) else {
        return;
    };
    let program = Program::from_bytes(&fs::read(path).expect("filter")).expect("a valid filter");
    let listener = load::load_with_listener(&program).expect("loaded");
    let mut out = fs::File::from(
        std::io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .expect("stdout"),
    );
    // one write(2), which the profile allows; libtest's own line may stand before it
    out.write_all(format!("\n@{}\n", listener.as_raw_fd()).as_bytes())
        .expect("written");
    let mut go = [0; 3];
    std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map(fs::File::from)
        .expect("stdin")
        .read_exact(&mut go)
        .expect("go");
    let error = Command::new("/bin/sh").env_clear().exec();
    // the runtime's last words
    out.write_all(format!("\n@exec: {error}\n").as_bytes())
        .expect("written");
    std::process::exit(1);
}

/// A process whose end is ours to see to.
pub(crate) struct Ours(pub(crate) Child);

impl Drop for Ours {
    fn drop(&mut self) {
        // it may have ended already
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A node: folders, keys, and the daemon once it is started.
pub(crate) struct Node {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) key: PrivateKey,
    /// Seconds for which listeners are kept while there is no daemon.
    pub(crate) hold_for: u32,
    /// Where the next daemon kills itself (`src/fault.rs`).
    pub(crate) fault: Option<String>,
    /// What the next daemon reads beside its options.
    pub(crate) configuration: String,
    daemon: Option<Ours>,
}

impl Node {
    /// A node with a pinned key and without a bundle.
    pub(crate) fn new() -> Node {
        let folder = tempfile::tempdir().expect("folder");
        let key = PrivateKey::generate(Algorithm::EcdsaP256).expect("key");
        let node = Node {
            folder,
            key,
            hold_for: 10,
            fault: None,
            configuration: String::new(),
            daemon: None,
        };
        let keys = node.path("store/keys");
        fs::create_dir_all(&keys).expect("keys");
        file::create_public(&keys.join("a.pem"), node.key.public()).expect("pinned");
        let images = node.path("docker/image/overlay2/imagedb/content/sha256");
        fs::create_dir_all(&images).expect("images");
        fs::write(images.join(Digest::of(IMAGE).hex()), IMAGE).expect("image");
        node
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// Installs a policy, signed by `key`, for the image that containers are made from.
    pub(crate) fn install(&self, policy: &Policy, key: &PrivateKey) {
        let bundle = lazaret_bundle::sign(policy, &[key]).expect("signed");
        self.install_bytes(policy, &bundle);
    }

    /// Puts these bytes where the bundle of a policy belongs. The gate reads no profile, and none is put there.
    pub(crate) fn install_bytes(&self, policy: &Policy, bundle: &[u8]) {
        let image = self.path("store/images").join(Digest::of(IMAGE).hex());
        let revision = format!("{}-{}", policy.revision(), policy.digest().hex());
        let folder = image.join(revision);
        fs::create_dir_all(&folder).expect("folder");
        fs::write(folder.join("bundle.json"), bundle).expect("bundle");
    }

    /// The daemon's command with every path inside the node.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lazaretd"));
        for (option, path) in [
            ("--listen", "run/gate.sock"),
            ("--control", "run/control.sock"),
            ("--state-dir", "run"),
            ("--store", "store"),
            ("--events", "events.jsonl"),
            ("--docker-root", "docker"),
        ] {
            command.arg(option).arg(self.path(path));
        }
        command.args(["--hold-for", &self.hold_for.to_string()]);
        if let Some(fault) = &self.fault {
            command.env("LAZARETD_FAULT", fault);
        }
        command
            .arg("--config")
            .arg(self.config())
            .stderr(Stdio::piped());
        command
    }

    /// The node's, so that the machine's own is not read.
    fn config(&self) -> PathBuf {
        let path = self.path("lazaretd.toml");
        fs::write(&path, &self.configuration).expect("configuration");
        path
    }

    /// Starts the daemon and waits until it listens.
    pub(crate) fn start(&mut self) {
        let mut daemon = Ours(self.command().spawn().expect("daemon"));
        let mut log = BufReader::new(daemon.0.stderr.take().expect("piped"));
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            assert!(
                log.read_line(&mut line).expect("log") > 0,
                "the daemon ended"
            );
        }
        // it goes on writing: read on, show it with a failing test
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                println!("lazaretd: {line}");
            }
        });
        self.daemon = Some(daemon);
    }

    /// A node with this policy installed and the daemon running.
    pub(crate) fn with(paper: &Paper) -> Node {
        Node::holding_for(paper, 10)
    }

    /// The same, where listeners are kept for so many seconds.
    pub(crate) fn holding_for(paper: &Paper, seconds: u32) -> Node {
        let mut node = Node::new();
        node.hold_for = seconds;
        node.install(&paper.policy(), &node.key);
        node.start();
        node
    }

    /// Kills the daemon as a crash would.
    pub(crate) fn kill(&mut self) {
        self.daemon = None;
    }

    /// The daemon's process.
    pub(crate) fn daemon(&mut self) -> &mut Child {
        &mut self.daemon.as_mut().expect("started").0
    }

    pub(crate) fn client(&self) -> Client {
        let stream = UnixStream::connect(self.path("run/control.sock")).expect("control socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("limit");
        Client {
            read: BufReader::new(stream.try_clone().expect("clone")),
            write: stream,
        }
    }

    /// Events from now on.
    pub(crate) fn watch(&self) -> Watch {
        let mut client = self.client();
        assert_eq!(
            client.ask(&json!({"type": "watch", "v": 1}))["type"],
            "watching"
        );
        Watch { client }
    }

    pub(crate) fn status(&self) -> Value {
        self.client().ask(&json!({"type": "status", "v": 1}))
    }

    /// The status of one container.
    pub(crate) fn status_of(&self, container: &Sandbox) -> Value {
        let status = self.status();
        let all = status["containers"].as_array().expect("containers");
        let found = all.iter().find(|one| one["id"] == container.id.as_str());
        found.cloned().unwrap_or(Value::Null)
    }

    /// Whether the event log holds an event of this type for this container.
    pub(crate) fn has_logged(&self, kind: &str, id: &str) -> bool {
        let log = fs::read_to_string(self.path("events.jsonl")).unwrap_or_default();
        let mut events = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.any(|event| event["type"] == kind && event["container"] == id)
    }

    /// Whether the next daemon would find this container in this state of its life.
    pub(crate) fn is_recorded(&self, state: &str, id: &str) -> bool {
        let Ok(records) = fs::read_dir(self.path("run/listeners")) else {
            return false;
        };
        let records = records.flatten().filter_map(|entry| {
            let text = fs::read_to_string(entry.path()).ok()?;
            serde_json::from_str::<Value>(&text).ok()
        });
        records
            .into_iter()
            .any(|record| record["claim"]["id"] == id && record["life"]["state"] == state)
    }

    /// Docker's files for a new container; returns its id.
    pub(crate) fn docker_container(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let id = format!("{:064x}", NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = self.path("docker/containers").join(&id);
        fs::create_dir_all(&folder).expect("folder");
        fs::write(
            folder.join("config.v2.json"),
            DOCKER.replace(RECORDED_ID, &id),
        )
        .expect("file");
        id
    }

    /// Makes a container under the kernel's filter for `policy` and hands it over.
    pub(crate) fn create(&self, policy: &Policy) -> Sandbox {
        let program = compile(&policy.kernel_table()).expect("compiled");
        self.create_with(&program, &policy.digest().to_string())
    }

    /// The same under an id that is in use.
    pub(crate) fn create_again(&self, id: &str, policy: &Policy) -> Sandbox {
        let program = compile(&policy.kernel_table()).expect("compiled");
        self.create_named(id, &program, &policy.digest().to_string())
    }

    /// The same with any filter and `listenerMetadata`.
    pub(crate) fn create_with(&self, program: &Program, metadata: &str) -> Sandbox {
        self.create_named(&self.docker_container(), program, metadata)
    }

    fn create_named(&self, id: &str, program: &Program, metadata: &str) -> Sandbox {
        let sandbox = self.unshared(id, program);
        self.hand_over(&sandbox, metadata, "creating");
        sandbox
    }

    /// A container that was not handed over yet.
    pub(crate) fn unshared(&self, id: &str, program: &Program) -> Sandbox {
        let unshare = ["unshare", "--pid", "--fork", "--kill-child", "--"];
        Sandbox::start(self.folder.path(), id, &unshare, program)
    }

    /// Puts a process into a container, as `docker exec` does.
    pub(crate) fn exec(&self, container: &Sandbox, policy: &Policy, metadata: &str) -> Sandbox {
        let program = compile(&policy.kernel_table()).expect("compiled");
        let sandbox = self.entered(container, container.pid, &program);
        self.hand_over(&sandbox, metadata, "running");
        sandbox
    }

    /// A container of its own in the pid namespace of another (`docker run --pid=container:`): its first process is not
    /// the namespace's.
    pub(crate) fn create_inside(&self, other: &Sandbox, policy: &Policy) -> Sandbox {
        let program = compile(&policy.kernel_table()).expect("compiled");
        let namespace = format!("--pid=/proc/{}/ns/pid", other.pid);
        let enter = ["nsenter", &namespace, "--"];
        let id = self.docker_container();
        let sandbox = Sandbox::start(self.folder.path(), &id, &enter, &program);
        self.hand_over(&sandbox, &policy.digest().to_string(), "creating");
        sandbox
    }

    /// A process for a container, in the pid namespace of process `of`, that was not handed over yet.
    pub(crate) fn entered(&self, container: &Sandbox, of: u32, program: &Program) -> Sandbox {
        let namespace = format!("--pid=/proc/{of}/ns/pid");
        let enter = ["nsenter", &namespace, "--"];
        Sandbox::start(self.folder.path(), &container.id, &enter, program)
    }

    pub(crate) fn hand_over(&self, sandbox: &Sandbox, metadata: &str, status: &str) {
        let stream = UnixStream::connect(self.path("run/gate.sock")).expect("gate's socket");
        send_handover(&stream, sandbox, metadata, status);
    }
}

/// What a runtime sends (OCI runtime specification, "The Container Process State").
pub(crate) fn send_handover(stream: &UnixStream, sandbox: &Sandbox, metadata: &str, status: &str) {
    let id = &sandbox.id;
    let message = json!({
        "ociVersion": "1.0.2",
        "fds": ["seccompFd"],
        "pid": sandbox.pid,
        "metadata": metadata,
        "state": {
            "ociVersion": "1.0.2", "id": id, "status": status, "pid": sandbox.pid, "annotations": {"a": "b"},
            "bundle": format!("/run/containerd/io.containerd.runtime.v2.task/moby/{id}"),
        }
    });
    let text = message.to_string();
    let fds = [sandbox.listener.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    let sent = sendmsg(
        stream,
        &[IoSlice::new(text.as_bytes())],
        &mut ancillary,
        SendFlags::empty(),
    );
    assert_eq!(sent.ok(), Some(text.len()));
}

/// A connection to the control socket.
pub(crate) struct Client {
    read: BufReader<UnixStream>,
    write: UnixStream,
}

impl Client {
    pub(crate) fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.write, "{request}").expect("asked");
        self.hear().expect("an answer")
    }

    /// The next reply; none when the daemon has hung up.
    pub(crate) fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.read.read_line(&mut line).expect("a line in time") {
            0 => None,
            _ => Some(serde_json::from_str(&line).expect("JSON")),
        }
    }
}

/// Events as they come.
pub(crate) struct Watch {
    client: Client,
}

impl Watch {
    /// The next event of this type, whatever comes before it.
    pub(crate) fn until(&mut self, kind: &str) -> Value {
        loop {
            let event = self.client.hear().expect("an event")["event"].clone();
            if event["type"] == kind {
                return event;
            }
        }
    }

    /// The next event of a phase change to `phase`.
    pub(crate) fn until_phase(&mut self, phase: &str) -> Value {
        loop {
            let event = self.until("phase_changed");
            if event["to"] == phase {
                return event;
            }
        }
    }
}

/// A container, or a process put into one.
pub(crate) struct Sandbox {
    pub(crate) id: String,
    /// In the host's numbering.
    pub(crate) pid: u32,
    outer: Ours,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    stderr: Option<ChildStderr>,
    listener: OwnedFd,
}

impl Sandbox {
    fn start(folder: &Path, id: &str, enter: &[&str], program: &Program) -> Sandbox {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let filter = folder.join(format!("filter{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::write(&filter, program.to_bytes()).expect("filter");
        let (first, rest) = enter.split_first().expect("a command");
        let mut outer = Command::new(first)
            .args(rest)
            .arg(std::env::current_exe().expect("own path"))
            .args(["--exact", "container", "--nocapture", "--test-threads=1"])
            .env(FILTER, &filter)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map(Ours)
            .expect("started");
        let stdin = outer.0.stdin.take();
        let stderr = outer.0.stderr.take();
        let mut stdout = BufReader::new(outer.0.stdout.take().expect("piped"));
        let fd = hear(&mut stdout).parse().expect("a number");
        let parent = outer.0.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let pid = children
            .expect("children")
            .trim()
            .parse()
            .expect("one child");
        Sandbox {
            id: id.to_owned(),
            pid,
            outer,
            stdin,
            stdout,
            stderr,
            listener: pidfd::take(pid, fd).expect("listener"),
        }
    }

    /// Lets go of the listener, as a runtime does, and lets the process go on to its first `execve`.
    pub(crate) fn go(&mut self) {
        self.listener = fs::File::open("/dev/null").expect("there").into();
        self.send("go\n");
    }

    /// Lets its shell do this.
    pub(crate) fn send(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("open");
        stdin.write_all(text.as_bytes()).expect("it reads");
    }

    /// What the container says next.
    pub(crate) fn hear(&mut self) -> String {
        hear(&mut self.stdout)
    }

    /// Lets the shell change its folder: `chdir`. Returns whether it could.
    pub(crate) fn try_chdir(&mut self) -> bool {
        self.begin_chdir();
        self.ended_chdir()
    }

    /// Lets it begin to.
    pub(crate) fn begin_chdir(&mut self) {
        self.send("cd /tmp && echo @yes || echo @no\n");
    }

    /// Whether it could, once it knows.
    pub(crate) fn ended_chdir(&mut self) -> bool {
        self.hear() == "yes"
    }

    /// Lets the shell do something that only allowed calls are needed for.
    pub(crate) fn try_write(&mut self) -> bool {
        self.send("echo @written\n");
        self.hear() == "written"
    }

    /// Ends the shell, and returns everything that the container wrote on its standard error.
    pub(crate) fn end(mut self) -> String {
        drop(self.stdin.take());
        let mut text = String::new();
        let mut stderr = self.stderr.take().expect("piped");
        stderr.read_to_string(&mut text).expect("text");
        // its descriptors close before it is gone
        self.outer.0.wait().expect("ended");
        text
    }
}

pub(crate) fn hear(from: &mut BufReader<ChildStdout>) -> String {
    loop {
        let mut line = String::new();
        assert!(
            from.read_line(&mut line).expect("a line") > 0,
            "the container is gone"
        );
        if let Some(said) = line.trim().strip_prefix('@') {
            return said.to_owned();
        }
    }
}

/// Set for a client that is not root: the socket, and what to say on it.
const CLIENT: [&str; 2] = ["LAZARETD_TEST_SOCKET", "LAZARETD_TEST_WORDS"];

/// What a daemon answers to user 65534 before it hangs up.
pub(crate) fn as_nobody(socket: &Path, words: &str) -> String {
    // the test program lies where nobody else may go: hand it over open
    let program = fs::File::open(std::env::current_exe().expect("own path")).expect("program");
    let path = format!("/proc/self/fd/{}", program.as_raw_fd());
    rustix::io::fcntl_setfd(&program, rustix::io::FdFlags::empty()).expect("inherited");
    let output = Command::new(path)
        .args(["--exact", "nobody", "--nocapture", "--test-threads=1"])
        .env(CLIENT[0], socket)
        .env(CLIENT[1], words)
        .uid(65534)
        .gid(65534)
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

/// The client's side of [`as_nobody`]; does nothing when run by hand.
pub(crate) fn nobody() {
    let [Ok(socket), Ok(words)] = CLIENT.map(std::env::var) else {
        return;
    };
    let mut answer = String::new();
    let mut stream = UnixStream::connect(socket).expect("connected");
    // it may have hung up already
    drop(stream.write_all(words.as_bytes()));
    drop(stream.read_to_string(&mut answer));
    println!("@answer:{answer}@end");
}
