//! A Docker engine that is restarted while a confined container runs (`live-restore`): the container is held on, and by the engine
//! that comes after.
//!
//! The engine is a second one, of this test, in the namespaces of the private engine; it and its containers end with that at the latest.

use crate::learn::learnt;
use crate::node::Node;
use crate::world::{Ours, Said, run, wait_for, world};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const EPERM: (i64, i64) = (-1, 1);

/// A `dockerd` of the test's own.
struct Engine {
    folder: PathBuf,
    daemon: Option<Ours>,
}

impl Engine {
    fn new(folder: &Path) -> Engine {
        let engine = Engine {
            folder: folder.join("engine"),
            daemon: None,
        };
        fs::create_dir(&engine.folder).expect("a folder");
        let config = serde_json::json!({
            "hosts": [format!("unix://{}", engine.socket().display())],
            "data-root": engine.data(),
            "exec-root": engine.folder.join("exec"),
            "pidfile": engine.folder.join("pid"),
            "bridge": "none",
            "iptables": false,
            "ip-forward": false,
            "ip-masq": false,
            "userland-proxy": false,
            "cgroup-parent": world().docker.cgroup,
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "storage-driver": "overlay2",
            "live-restore": true,
            "runtimes": {"lazaret": {
                "path": world().program("lazaret-runtime"),
                "runtimeArgs": ["--lazaret-config", &world().runtime_config],
            }},
        });
        fs::write(engine.folder.join("daemon.json"), config.to_string()).expect("written");
        engine
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("sock")
    }

    /// On a disk, and gone with the private engine's.
    fn data(&self) -> PathBuf {
        world().docker.data_root.join("second")
    }

    /// Starts it in the private engine's network and mounts, and waits until it answers.
    fn start(&mut self) {
        let pid = world().docker.pid();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .expect("a log");
        let daemon = Command::new("nsenter")
            .arg(format!("--net=/proc/{pid}/ns/net"))
            .arg(format!("--mount=/proc/{pid}/ns/mnt"))
            .args(["--", "dockerd"])
            .arg(format!(
                "--config-file={}",
                self.folder.join("daemon.json").display()
            ))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("dockerd");
        self.daemon = Some(Ours(daemon));
        wait_for("answer of the second engine", || {
            (self.docker(&["version"]).code == Some(0)).then_some(())
        });
    }

    /// Ends it as `systemctl restart docker` does, and waits for that.
    ///
    /// Not by `SIGKILL`: its containerd then dies with it and stays a zombie of process 1 for a while, which the next
    /// `dockerd` takes for running (libcontainerd/supervisor, 20.10).
    fn end(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        kill_process(Pid::from_child(&daemon.0), Signal::TERM).expect("ours");
        wait_for("end of the second engine", || {
            daemon.0.try_wait().expect("a child of ours")
        });
    }

    fn docker(&self, args: &[&str]) -> Said {
        let mut docker = world().with_docker("docker");
        docker.env("DOCKER_HOST", format!("unix://{}", self.socket().display()));
        run(docker.args(args))
    }

    /// Copies an image from the private engine.
    fn load(&self, reference: &str) {
        let archive = self.folder.join("image.tar");
        let to = archive.to_str().expect("text");
        world().docker(&["save", "--output", to, reference]).good();
        self.docker(&["load", "--input", to]).good();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.join("log"));
            println!("{}", log.unwrap_or_default());
        }
        if self.daemon.is_none() {
            return;
        }
        let left = self.docker(&["ps", "--all", "--quiet"]);
        for id in left.out.split_whitespace() {
            drop(self.docker(&["rm", "--force", id]));
        }
        self.end();
    }
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_container_is_held_over_restarts_of_its_engine() {
    let mut node = Node::new();
    node.install(&learnt().policy);
    let mut engine = Engine::new(&node.path(""));
    let theirs = world().docker.data_root.display().to_string();
    let config = fs::read_to_string(&world().runtime_config).expect("the wrapper's");
    let config = config.replace(&theirs, &engine.data().display().to_string());
    fs::write(&world().runtime_config, config).expect("written");
    engine.start();
    engine.load(&world().berth().reference);
    let gate = node.gate_of(&engine.data());
    node.start_as(gate);

    let mut args = vec!["run", "--detach", "--runtime=lazaret"];
    args.extend(crate::world::HARDENED);
    args.push(&world().berth().reference);
    let id = engine.docker(&args).good().to_owned();
    node.wait_phase(&id, "serving");
    assert_eq!(world().call("getpriority"), EPERM);
    for _ in 0..2 {
        engine.end();
        assert_eq!(world().call("getppid"), (0, 0), "it serves on");
        assert_eq!(world().call("getpriority"), EPERM, "and is held");
        engine.start();
        assert_eq!(world().call("getpriority"), EPERM);
        let status = node.status(&id).expect("it is known");
        assert_eq!(status["state"]["phase"], "serving");
        let probe = engine.docker(&["exec", &id, "/berth", "exec-probe", "getpriority"]);
        assert!(probe.good().contains("\"errno\": 1"), "{probe:?}");
    }
    let events = node.events(&id);
    assert!(events.iter().all(|event| event["type"] != "taken_over"));
    engine.docker(&["stop", &id]).good();
    let code = engine.docker(&["inspect", "--format", "{{.State.ExitCode}}", &id]);
    assert_eq!(code.good(), "0");
    wait_for("end of the container", || {
        node.status(&id).is_none().then_some(())
    });
    let stopping = node.events(&id);
    let stopping = stopping.iter().find(|event| event["to"] == "stopping");
    assert_eq!(stopping.expect("told")["cause"], "stop signal");
}
