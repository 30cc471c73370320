//! The service's unit under a real systemd: hardened as it is, the gate does its work, and comes back when it is killed.
//!
//! systemd runs as process 1 of namespaces of its own, with its own `/run`, `/etc/systemd/system` and `/var/lib`, and a part of
//! the machine's cgroups that is removed afterwards; nothing but these units and `basic.target` is started. podman and crun
//! make the container inside, as the gate must see the pids that a runtime reports.

use crate::learn::learnt;
use crate::node::Node;
use crate::podman::{Podman, storage};
use crate::world::{Ours, Said, made, run, wait_for, world};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Units that would reach for the machine: devices, modules, the clock, the journal, mounts.
const MASKED: &str = "dev-hugepages.mount dev-mqueue.mount getty.target modprobe@.service proc-sys-fs-binfmt_misc.automount \
    sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    systemd-binfmt.service systemd-journal-flush.service systemd-journald-audit.socket systemd-journald-dev-log.socket \
    systemd-journald.service systemd-journald.socket systemd-logind.service systemd-modules-load.service \
    systemd-random-seed.service systemd-remount-fs.service systemd-sysctl.service systemd-sysusers.service \
    systemd-timesyncd.service systemd-tmpfiles-setup-dev.service systemd-tmpfiles-setup.service \
    systemd-udev-trigger.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udevd.service \
    systemd-update-utmp.service";

/// `$0` is the cgroup, `$1` the folder of the units, `$2` the folder that must stay in sight. The cgroup namespace begins at the
/// cgroup that it is made in, so systemd has no way to any other; without cgroups v2, as crun refuses to see both.
const BOOT: &str = r#"
echo $$ > "$0/cgroup.procs"
exec unshare --pid --fork --kill-child --mount-proc --mount --propagation=private --net --uts --ipc --cgroup -- sh -ec '
for path in /var/lib /var/log /dev/shm /etc/systemd/system /etc/containers; do mount -t tmpfs tmpfs $path; done
cp -RP "$0"/. /etc/systemd/system/
echo "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}" > /etc/containers/policy.json
mount -t tmpfs tmpfs /mnt
mkdir /mnt/keep
mount --bind "$1" /mnt/keep
mount -t tmpfs tmpfs /run
mkdir -p "$1" /run/lock /run/systemd/system
mount --move /mnt/keep "$1"
mount -t tmpfs tmpfs /sys/fs/cgroup
mkdir /sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
ip link set lo up
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=unshare \
    SYSTEMD_PROC_CMDLINE=systemd.legacy_systemd_cgroup_controller=yes \
    /lib/systemd/systemd --system --unit=basic.target --log-target=console --show-status=no' "$1" "$2"
"#;

/// A systemd with our units; dropping it ends all that runs under it.
struct Systemd {
    outer: Option<Ours>,
    cgroup: PathBuf,
    pid: u32,
}

impl Systemd {
    #[track_caller]
    fn boot(node: &Node) -> Systemd {
        let units = node.path("units");
        fs::create_dir(&units).expect("a folder");
        for name in MASKED.split_whitespace() {
            symlink("/dev/null", units.join(name)).expect("masked");
        }
        // the gate makes its sockets itself and says nothing of its start: without the socket units, and not awaited
        let packaged = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd");
        let unit = fs::read_to_string(packaged.join("lazaretd.service")).expect("the unit");
        let lines = unit.lines().filter(|line| !line.contains(".socket"));
        let text = lines.collect::<Vec<_>>().join("\n") + "\n";
        let text = text.replace("Type=notify", "Type=exec");
        fs::write(units.join("lazaretd.service"), text).expect("written");
        let drop_in = units.join("lazaretd.service.d");
        fs::create_dir(&drop_in).expect("a folder");
        let text = format!(
            "[Service]\nExecStart=\nExecStart={} --config {} --store {}\n",
            world().program("lazaretd").display(),
            node.path("lazaretd.toml").display(),
            node.path("store").display(),
        );
        fs::write(drop_in.join("test.conf"), text).expect("written");
        let own = fs::read_to_string("/proc/self/cgroup").expect("/proc");
        let own = own
            .lines()
            .find_map(|line| line.split_once(":name=systemd:"));
        let (_, own) = own.expect("systemd's hierarchy of cgroups v1");
        let cgroup = Path::new("/sys/fs/cgroup/systemd")
            .join(own.trim_start_matches('/'))
            .join(format!("lazaret-systemd-{}", std::process::id()));
        fs::create_dir(&cgroup).expect("a cgroup");
        let log = fs::File::create(node.path("systemd.log")).expect("a log");
        let mut boot = Command::new("sh");
        boot.args(["-ec", BOOT]).arg(&cgroup).arg(&units);
        boot.arg(node.path("")).stdin(Stdio::null());
        boot.stdout(log.try_clone().expect("a file")).stderr(log);
        let outer = Ours(boot.spawn().expect("sh"));
        let parent = outer.0.id().to_string();
        let pid = wait_for("process 1", || {
            let children = run(Command::new("pgrep").args(["--parent", &parent]));
            children.out.lines().next()?.parse().ok()
        });
        let systemd = Systemd {
            outer: Some(outer),
            cgroup,
            pid,
        };
        wait_for("start of systemd", || {
            let state = systemd.systemctl(&["is-system-running"]);
            (state.out.trim() == "running").then_some(())
        });
        systemd
    }

    fn inside(&self, program: impl AsRef<Path>) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(format!("--target={}", self.pid)).arg("--all");
        nsenter.arg("--").arg(program.as_ref());
        nsenter
    }

    fn systemctl(&self, args: &[&str]) -> Said {
        run(self.inside("systemctl").args(args))
    }

    /// A property of the gate's service.
    fn property(&self, name: &str) -> String {
        let name = format!("--property={name}");
        let said = self.systemctl(&["show", "--value", &name, "lazaretd.service"]);
        said.good().to_owned()
    }

    /// What `lazaret status` says of a container.
    fn status(&self, id: &str) -> Option<Value> {
        let mut status = self.inside(world().program("lazaret"));
        let said = run(status.args(["status", "--format", "json"]));
        let status: Value = serde_json::from_str(said.out.trim()).ok()?;
        let containers = status["containers"].as_array()?.clone();
        containers.into_iter().find(|one| one["id"] == id)
    }

    #[track_caller]
    fn wait_serving(&self, id: &str, node: &Node) {
        let log = || fs::read_to_string(node.path("systemd.log")).unwrap_or_default();
        let what = format!("serving container {id}");
        let begin = std::time::Instant::now();
        wait_for(&what, || {
            assert!(begin.elapsed().as_secs() < 50, "{}", log());
            self.status(id)
                .filter(|status| status["state"]["phase"] == "serving")
        });
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // its end is the end of its pid namespace
        drop(self.outer.take());
        // its processes end a moment later
        wait_for("end of systemd's processes", || {
            let mut find = Command::new("find");
            find.arg(&self.cgroup);
            find.args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]);
            run(&mut find);
            (!self.cgroup.exists()).then_some(())
        });
    }
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn the_hardened_service_does_its_work_and_comes_back() {
    let node = Node::new();
    let bundle = node.sign(&learnt().policy, "site");
    let mut install = world().lazaret(&["bundle", "install"]);
    install.arg(&bundle).arg("--store").arg(node.path("store"));
    run(install.args(["--listener", "/run/lazaret/gate.sock"])).good();
    let storage = storage(&node.path("podman"), '-');
    fs::write(node.path("lazaretd.toml"), storage).expect("written");
    let profile = node.papers().join("profile.json");
    let option = format!("--security-opt=seccomp={}", profile.display());

    let systemd = Systemd::boot(&node);
    systemd.systemctl(&["start", "lazaretd"]).good();
    let podman = Podman::beside(&node, systemd.pid, "crun");
    for name in ["first", "second"] {
        let name = format!("--name={name}");
        let said = podman.start(&[&name, "--cgroups=disabled", &option]);
        let id = said.good().to_owned();
        systemd.wait_serving(&id, &node);
        assert_eq!(made(podman.pid(), "getpriority"), (-1, 1));
        assert_eq!(made(podman.pid(), "getppid"), (0, 0));
        run(&mut podman.podman(&["stop", "--time=30", &name[7..]])).good();

        let before = systemd.property("MainPID");
        let gate = format!("/proc/{before}/status");
        let status = run(systemd.inside("cat").arg(gate));
        assert!(status.good().contains("\nSeccomp:\t0\n"), "{status:?}");
        assert!(status.good().contains("\nNoNewPrivs:\t1\n"), "{status:?}");
        let kill = ["kill", "--signal=KILL", "lazaretd"];
        systemd.systemctl(&kill).good();
        wait_for("another gate", || {
            let now = systemd.property("MainPID");
            let answers = systemd.status("").is_none() && now != "0" && now != before;
            answers.then_some(())
        });
    }
    assert_eq!(systemd.property("NRestarts"), "2");
}
