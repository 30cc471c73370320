//! A node: keys, store, the wrapper's configuration, a gate, and the containers that run on it.

use crate::world::{HARDENED, Ours, Said, World, run, wait_for, world};
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A node of one test. Dropping it ends its gate and removes its files.
pub(crate) struct Node {
    folder: tempfile::TempDir,
    gate: Option<Ours>,
}

impl Node {
    /// A node with one pinned key, an empty store and no gate. The wrapper is told to use it.
    pub(crate) fn new() -> Node {
        let node = Node {
            folder: world().folder(),
            gate: None,
        };
        for made in ["run", "store/keys"] {
            fs::create_dir_all(node.path(made)).expect("a folder");
        }
        private(&node.path("run"));
        node.key("site");
        fs::copy(node.path("site.pub"), node.path("store/keys/site.pem")).expect("pinned");
        // an empty one, so that the machine's own is not read
        fs::write(node.path("lazaretd.toml"), "").expect("written");
        let config = format!(
            "runtime = '{}'\nstore = '{}'\nlistener_socket = '{}'\ncontrol_socket = '{}'\n\
             docker_data_root = '{}'\n",
            world().runc.display(),
            node.path("store").display(),
            node.listener().display(),
            node.control().display(),
            world().docker.data_root.display(),
        );
        fs::write(&world().runtime_config, config).expect("written");
        node
    }

    /// A node with a bundle of this policy text and a running gate.
    pub(crate) fn with(policy: &Path) -> Node {
        let mut node = Node::new();
        node.install(policy);
        node.start();
        node
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn listener(&self) -> PathBuf {
        self.path("run/gate.sock")
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.path("run/control.sock")
    }

    /// The folder of berth's only revision in the store.
    #[track_caller]
    pub(crate) fn papers(&self) -> PathBuf {
        let digest = world().berth().config_digest.trim_start_matches("sha256:");
        let image = self.path("store/images").join(digest);
        let mut revisions = fs::read_dir(image).expect("it is in the store");
        let folder = revisions.next().expect("a revision").expect("readable");
        assert!(revisions.next().is_none(), "one revision");
        folder.path()
    }

    /// Makes a key pair with this name.
    pub(crate) fn key(&self, name: &str) {
        run(world()
            .lazaret(&["key", "generate", "--out"])
            .arg(self.path(name)))
        .good();
    }

    /// The bundle of a policy text, signed with the key of this name.
    pub(crate) fn sign(&self, policy: &Path, key: &str) -> PathBuf {
        let bundle = self.path("bundle.json");
        let mut sign = world().lazaret(&["sign"]);
        sign.arg(policy).arg("--key").arg(self.path(key));
        run(sign.arg("--out").arg(&bundle)).good();
        bundle
    }

    /// Signs a policy text with the pinned key and installs the bundle.
    pub(crate) fn install(&self, policy: &Path) {
        let mut install = world().lazaret(&["bundle", "install"]);
        install.arg(self.sign(policy, "site"));
        install.arg("--store").arg(self.path("store"));
        run(install.arg("--listener").arg(self.listener())).good();
    }

    /// The gate's command with everything inside the node.
    pub(crate) fn gate(&self) -> Command {
        self.gate_of(&world().docker.data_root)
    }

    /// The same, for the Docker engine with this data root.
    pub(crate) fn gate_of(&self, docker_root: &Path) -> Command {
        let world: &World = world();
        let mut gate = Command::new(world.program("lazaretd"));
        for (option, path) in [
            ("--config", self.path("lazaretd.toml")),
            ("--listen", self.listener()),
            ("--control", self.control()),
            ("--state-dir", self.path("run")),
            ("--store", self.path("store")),
            ("--events", self.path("events.jsonl")),
            ("--docker-root", docker_root.to_owned()),
            ("--containerd-root", world.containerd.data_root.clone()),
            ("--containerd-address", world.containerd.socket.clone()),
        ] {
            gate.arg(option).arg(path);
        }
        gate
    }

    /// Starts the gate and waits until it answers.
    pub(crate) fn start(&mut self) {
        self.start_as(self.gate());
    }

    /// Starts a gate by this command and waits until it answers.
    pub(crate) fn start_as(&mut self, mut gate: Command) {
        let log = self.path("lazaretd.log");
        let file = File::options().create(true).append(true).open(&log);
        gate.stdin(Stdio::null()).stdout(Stdio::null());
        let child = gate.stderr(file.expect("a log")).spawn().expect("lazaretd");
        let mut gate = Ours(child);
        wait_for("answer of lazaretd", || {
            let ended = gate.0.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "{}", self.log());
            UnixStream::connect(self.control()).ok()
        });
        self.gate = Some(gate);
    }

    /// SIGKILL, as a crash would end it.
    pub(crate) fn kill(&mut self) {
        drop(self.gate.take().expect("it runs"));
    }

    /// SIGTERM, as an upgrade ends it; waits for its end.
    pub(crate) fn terminate(&mut self) {
        let mut gate = self.gate.take().expect("it runs");
        let pid = rustix::process::Pid::from_child(&gate.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("ours");
        let status = wait_for("end of lazaretd", || {
            gate.0.try_wait().expect("a child of ours")
        });
        assert!(status.success(), "{}", self.log());
    }

    /// What the gate wrote to its standard error.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("lazaretd.log")).unwrap_or_default()
    }

    /// `lazaret VERB … --control SOCKET`
    pub(crate) fn ask(&self, args: &[&str]) -> Command {
        let mut command = world().lazaret(args);
        command.arg("--control").arg(self.control());
        command
    }

    /// What `lazaret status` says of a container.
    #[track_caller]
    pub(crate) fn status(&self, id: &str) -> Option<Value> {
        let said = run(&mut self.ask(&["status", "--format", "json"]));
        let status: Value = serde_json::from_str(said.good()).expect("JSON");
        let containers = status["containers"].as_array().expect("a list").clone();
        containers.into_iter().find(|one| one["id"] == id)
    }

    /// Waits until the gate holds a container in this phase.
    #[track_caller]
    pub(crate) fn wait_phase(&self, id: &str, phase: &str) {
        let what = format!("phase {phase} of {id}; the gate says: {}", self.log());
        wait_for(&what, || {
            self.status(id)
                .filter(|status| status["state"]["phase"] == phase)
        });
    }

    /// The events of a container, in their order.
    pub(crate) fn events(&self, id: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path("events.jsonl")).expect("an event log");
        let lines = text.lines();
        // the last line may be half written
        let events = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["container"] == id).collect()
    }

    /// Waits for an event of a container: of this type, with this member being so.
    #[track_caller]
    pub(crate) fn wait_event(&self, id: &str, kind: &str, member: &str, value: &str) -> Value {
        wait_for(&format!("event {kind} with {member} {value}"), || {
            self.events(id)
                .into_iter()
                .find(|event| event["type"] == kind && event[member] == value)
        })
    }

    /// The phases that a container itself went through, as `from>to (cause)`.
    pub(crate) fn phases(&self, id: &str) -> Vec<String> {
        let events = self.events(id);
        let changes = events
            .iter()
            .filter(|event| event["type"] == "phase_changed" && event["to"] != "exec");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        changes
            .map(|event| {
                let (from, to) = (text(&event["from"]), text(&event["to"]));
                format!("{from}>{to} ({})", text(&event["cause"]))
            })
            .collect()
    }

    /// Starts berth under the wrapper with these options besides those of all.
    #[track_caller]
    pub(crate) fn berth(&self, options: &[&str]) -> Container {
        let runtime = world().runtime();
        let mut args = vec!["run", "--detach", &runtime];
        args.extend(HARDENED);
        args.extend(options);
        args.push(&world().berth().reference);
        Container(world().docker(&args).good().to_owned())
    }

    /// Starts berth and waits until it is held to the serving rules.
    #[track_caller]
    pub(crate) fn serving(&self) -> Container {
        let container = self.berth(&[]);
        self.wait_phase(&container.0, "serving");
        container
    }
}

/// Lets nobody else in.
pub(crate) fn private(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).expect("ours");
}

/// A container of Docker's by its id. Removed when dropped.
pub(crate) struct Container(pub(crate) String);

impl Container {
    /// `docker exec` of berth's probe, which makes these calls.
    pub(crate) fn probe(&self, calls: &[&str]) -> Said {
        let mut args = vec!["exec", &self.0, "/berth", "exec-probe"];
        args.extend(calls);
        world().docker(&args)
    }

    /// `docker inspect --format`
    #[track_caller]
    pub(crate) fn inspect(&self, format: &str) -> String {
        let said = world().docker(&["inspect", "--format", format, &self.0]);
        said.good().to_owned()
    }

    /// Both its outputs.
    pub(crate) fn logs(&self) -> String {
        let said = world().docker(&["logs", &self.0]);
        format!("{}{}", said.out, said.err)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // a failure here is seen by the next test, which finds the port taken
        world().docker(&["rm", "--force", "--volumes", &self.0]);
    }
}
