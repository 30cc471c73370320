//! A node for tests: the daemon, a store with a signed policy, Docker's files, and a runtime.
//!
//! The runtime is this test program. A *container* is the same program again, run as its test `container` by
//! `unshare --pid --fork`: process 1 of a pid namespace of its own. It loads the filter, says the listener's number,
//! waits, and executes `/bin/sh`, which takes commands from its standard input.

use crate::paper::IMAGE;
pub(crate) use crate::paper::{Paper, STARTUP};
pub(crate) use crate::sandbox::Sandbox;
use lazaret_bundle::key::{Algorithm, PrivateKey, file};
use lazaret_core::digest::Digest;
use lazaret_core::filter::compile::compile;
use lazaret_core::filter::program::Program;
use lazaret_core::policy::Policy;
use lazaret_kernel::load;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader, IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Set for a container only: the file with its filter.
pub(crate) const FILTER: &str = "LAZARETD_TEST_FILTER";

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
    // without a gate a panic could not wake the thread that waits for this one: a runtime ends then
    std::panic::set_hook(Box::new(|_| std::process::exit(1)));
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
    // as a runtime does: who holds a listener keeps those waiting who ask
    drop(listener);
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
    /// The event log.
    pub(crate) log: String,
    /// More options of the daemon.
    pub(crate) options: Vec<String>,
    /// More of its environment.
    pub(crate) env: Vec<(String, String)>,
    /// What the daemon is started by: a command that executes what follows.
    pub(crate) enter: Vec<String>,
    /// Before the paths of its files, when it has another root.
    pub(crate) view: PathBuf,
    /// Lines that the daemon has logged.
    pub(crate) said: Arc<Mutex<Vec<String>>>,
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
            log: "events.jsonl".to_owned(),
            options: Vec::new(),
            env: Vec::new(),
            enter: Vec::new(),
            view: PathBuf::new(),
            said: Arc::default(),
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

    /// A path of the node, as the daemon says it.
    pub(crate) fn own(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// The same, as this program finds it.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        let mut path = self.view.clone().into_os_string();
        path.push(self.own(below));
        path.into()
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
        let mut words = self.enter.clone();
        words.push(env!("CARGO_BIN_EXE_lazaretd").to_owned());
        let mut words = words.into_iter();
        let mut command = Command::new(words.next().expect("one at least"));
        command.args(words);
        for (option, path) in [
            ("--listen", "run/gate.sock"),
            ("--control", "run/control.sock"),
            ("--state-dir", "run"),
            ("--store", "store"),
            ("--events", self.log.as_str()),
            ("--docker-root", "docker"),
        ] {
            command.arg(option).arg(self.own(path));
        }
        command.args(["--hold-for", &self.hold_for.to_string()]);
        command.args(&self.options);
        command.envs(self.env.iter().cloned());
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
        assert!(self.try_start(), "the daemon ended");
    }

    /// The same; false when it ends instead.
    pub(crate) fn try_start(&mut self) -> bool {
        let mut daemon = Ours(self.command().spawn().expect("daemon"));
        let mut log = BufReader::new(daemon.0.stderr.take().expect("piped"));
        let said = Arc::clone(&self.said);
        let keep = move |line: &str| {
            println!("lazaretd: {}", line.trim_end());
            said.lock().expect("lines").push(line.trim_end().to_owned());
        };
        self.daemon = Some(daemon);
        loop {
            let mut line = String::new();
            if log.read_line(&mut line).expect("log") == 0 {
                return false;
            }
            keep(&line);
            if line.contains("listening on") {
                break;
            }
        }
        // it goes on writing: read on, show it with a failing test
        std::thread::spawn(move || {
            log.lines()
                .map_while(Result::ok)
                .for_each(|line| keep(&line))
        });
        true
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
