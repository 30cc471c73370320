//! podman in namespaces of a test: its storage is in the test's folder, and nothing of the machine's is touched.

use crate::node::Node;
use crate::world::{HARDENED, Ours, Said, run, wait_for, world};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// podman in some process's namespaces; dropping it removes its containers.
pub(crate) struct Podman {
    pid: u32,
    /// How `nsenter` gets there.
    enter: Vec<String>,
    folder: PathBuf,
    runtime: &'static str,
    /// Keeps the namespaces, when they are podman's own.
    _holder: Option<Ours>,
}

/// podman writes below `/var/lib` and `/dev/shm` whatever it is told, and crun refuses to see both versions of cgroups. The
/// machine's files in `/etc/containers` are covered, so that `lazaret install` can be used as it is.
const FIT: &str = r#"
ip link set lo up
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /etc/containers
echo '{"default": [{"type": "insecureAcceptAnything"}]}' > /etc/containers/policy.json
if [ -d /sys/fs/cgroup/unified ]; then umount /sys/fs/cgroup/unified; fi
touch "$0"
exec sleep infinity
"#;

impl Podman {
    /// In a network and a mount namespace of its own.
    #[track_caller]
    pub(crate) fn new(node: &Node, runtime: &'static str) -> Podman {
        let ready = node.path("namespaces");
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount", "--propagation=slave", "--"]);
        unshare.args(["sh", "-ec", FIT]).arg(&ready);
        unshare.stdin(Stdio::null());
        let holder = Ours(unshare.spawn().expect("unshare"));
        wait_for("namespaces", || ready.exists().then_some(()));
        let pid = holder.0.id();
        let enter = vec![
            format!("--net=/proc/{pid}/ns/net"),
            format!("--mount=/proc/{pid}/ns/mnt"),
        ];
        Podman {
            pid,
            enter,
            folder: node.path("podman"),
            runtime,
            _holder: Some(holder),
        }
        .loaded()
    }

    /// In the namespaces of a process that others keep.
    #[track_caller]
    pub(crate) fn beside(node: &Node, pid: u32, runtime: &'static str) -> Podman {
        Podman {
            pid,
            enter: vec![format!("--target={pid}"), "--all".to_owned()],
            folder: node.path("podman"),
            runtime,
            _holder: None,
        }
        .loaded()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// A program in podman's namespaces.
    fn inside(&self, program: impl AsRef<Path>) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(&self.enter).arg("--").arg(program.as_ref());
        nsenter
    }

    /// `podman` with these arguments.
    pub(crate) fn podman(&self, args: &[&str]) -> Command {
        let mut podman = self.inside("podman");
        for (option, below) in [("root", "root"), ("runroot", "run"), ("tmpdir", "tmp")] {
            podman.arg(format!("--{option}={}", self.folder.join(below).display()));
        }
        let runtime = self.folder.join("runtime");
        podman.arg(format!("--runtime-flag=root={}", runtime.display()));
        if self.runtime == "lazaret" {
            let config = world().runtime_config.display();
            podman.arg(format!("--runtime-flag=lazaret-config={config}"));
        }
        podman.arg(format!("--runtime={}", self.runtime));
        podman.args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs"]);
        podman.arg("--events-backend=none").args(args);
        podman
    }

    #[track_caller]
    fn loaded(self) -> Podman {
        let archive = self.folder.with_extension("tar").display().to_string();
        let image = &world().berth().reference;
        world()
            .docker(&["save", "--output", &archive, image])
            .good();
        let mut load = self.podman(&["load", "--quiet", "--input", &archive]);
        // the wrapper's name is not known before it is installed
        if self.runtime == "lazaret" {
            let mut install = self.inside(world().program("lazaret"));
            install.args(["install", "podman", "--runtime"]);
            run(install.arg(world().program("lazaret-runtime"))).good();
        }
        run(&mut load).good();
        self
    }

    /// `podman run` of berth, in the background; what podman said.
    pub(crate) fn start(&self, options: &[&str]) -> Said {
        let mut start = self.podman(&["run", "--detach"]);
        // no more than the machine gives
        start.args(["--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"]);
        start.args(HARDENED).args(options);
        run(start.arg(&world().berth().reference))
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        run(&mut self.podman(&["rm", "--all", "--force", "--time=0"]));
    }
}

/// `podman-root` and `podman-run` in the gate's words and in the wrapper's.
pub(crate) fn storage(folder: &Path, between: char) -> String {
    let line = |key: &str, below: &str| {
        let folder = folder.join(below);
        format!("podman{between}{key} = '{}'\n", folder.display())
    };
    line("root", "root") + &line("run", "run")
}
