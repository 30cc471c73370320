//! The packaged units under a real systemd: the gate starts when a runtime comes, hardened as it is, and a container lives over
//! its restarts, crashes and hangs, as systemd keeps its listener.
//!
//! systemd runs as process 1 of namespaces of its own, with its own `/run`, `/etc/systemd/system` and `/var/lib`, and a part of
//! the machine's cgroups that is removed afterwards; nothing but these units and `basic.target` is started. podman and crun
//! make the container inside, as the gate must see the pids that a runtime reports.

use crate::learn::learnt;
use crate::node::Node;
use crate::podman::{Podman, storage};
use crate::world::{Ours, Said, get, made, run, wait_for, world};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const UNITS: [&str; 3] = [
    "lazaretd.service",
    "lazaretd.socket",
    "lazaretd-control.socket",
];

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
        let packaged = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd");
        let program = format!(
            "ExecStart={} --config {} --store {} ",
            world().program("lazaretd").display(),
            node.path("lazaretd.toml").display(),
            node.path("store").display(),
        );
        for name in UNITS {
            let text = fs::read_to_string(packaged.join(name)).expect("the unit");
            let text = text.replace("ExecStart=/usr/bin/lazaretd ", &program);
            // a gate that hangs is noticed while the test waits
            let text = text.replace("WatchdogSec=30s", "WatchdogSec=2s");
            fs::write(units.join(name), text).expect("written");
        }
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
            let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
            children.ok()?.split_whitespace().next()?.parse().ok()
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

    /// Descriptors that systemd keeps for it.
    fn stored(&self) -> u32 {
        let stored = self.property("NFileDescriptorStore");
        stored.parse().expect("a number")
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

/// Asks berth's server without a pause; how many answers were no answers, and how many there were.
struct Visitor {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u32, u32)>,
}

impl Visitor {
    fn begin(pid: u32) -> Visitor {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut failed, mut all) = (0, 0);
            while !until.load(Ordering::Relaxed) {
                all += 1;
                failed += u32::from(get(pid, "/ready").is_none_or(|(status, _)| status != 200));
                std::thread::sleep(Duration::from_millis(5));
            }
            (failed, all)
        });
        Visitor { stop, thread }
    }

    fn end(self) -> (u32, u32) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("visited")
    }
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_container_lives_over_restarts_crashes_and_hangs_of_the_service() {
    let node = Node::new();
    let bundle = node.sign(&learnt().policy, "site");
    let mut install = world().lazaret(&["bundle", "install"]);
    install.arg(&bundle).arg("--store").arg(node.path("store"));
    run(install.args(["--listener", "/run/lazaret/gate.sock"])).good();
    let profile = node.papers().join("profile.json");
    let option = format!("--security-opt=seccomp={}", profile.display());
    let storage = storage(&node.path("podman"), '-');
    fs::write(node.path("lazaretd.toml"), storage).expect("written");

    let systemd = Systemd::boot(&node);
    let log = || fs::read_to_string(node.path("systemd.log")).unwrap_or_default();
    let sockets = ["start", "lazaretd.socket", "lazaretd-control.socket"];
    systemd.systemctl(&sockets).good();
    assert_eq!(systemd.property("ActiveState"), "inactive");
    // the runtime's connection starts the gate, and waits for it
    let podman = Podman::beside(&node, systemd.pid, "crun");
    let start = |name: &str| {
        let said = podman.start(&[&format!("--name={name}"), "--cgroups=disabled", &option]);
        said.good().to_owned()
    };
    let id = start("held");
    systemd.wait_serving(&id, &node);
    assert_eq!(systemd.property("ActiveState"), "active");
    let held = || {
        assert_eq!(made(podman.pid(), "getppid"), (0, 0));
        // ENOSYS, 38, is what it would be without the listener
        made(podman.pid(), "getpriority")
    };
    assert_eq!(held(), (-1, 1));
    assert_eq!(systemd.stored(), 1);

    let visitor = Visitor::begin(podman.pid());
    for way in ["restart", "KILL", "restart", "KILL", "KILL", "STOP"] {
        let before = systemd.property("MainPID");
        let gate = format!("/proc/{before}/status");
        let status = run(systemd.inside("cat").arg(gate));
        // the only filter is the one that it loads itself, after its reader was started
        assert!(
            status
                .good()
                .contains("\nSeccomp:\t2\nSeccomp_filters:\t1\n"),
            "{status:?}"
        );
        assert!(status.good().contains("\nNoNewPrivs:\t1\n"), "{status:?}");
        let signal = format!("--signal={way}");
        let said = match way {
            "restart" => systemd.systemctl(&["restart", "lazaretd"]),
            _ => systemd.systemctl(&["kill", "--kill-who=main", &signal, "lazaretd"]),
        };
        said.good();
        // also while there is no gate: it is waited for
        assert_eq!(held(), (-1, 1), "{way}: {}", log());
        wait_for("another gate", || {
            let now = systemd.property("MainPID");
            (now != "0" && now != before).then_some(())
        });
        systemd.wait_serving(&id, &node);
        assert_eq!(held(), (-1, 1), "{way}: {}", log());
        assert_eq!(systemd.stored(), 1, "{way}");
    }
    // since the last restart by hand: two were killed, and one did not say that it was alive
    assert_eq!(systemd.property("NRestarts"), "3", "{}", log());
    let (failed, all) = visitor.end();
    assert!(failed == 0 && all > 100, "{failed} of {all} failed");
    run(&mut podman.podman(&["stop", "--time=30", "held"])).good();
    wait_for("empty store", || (systemd.stored() == 0).then_some(()));

    // a stop for good: nobody keeps the listener, and what is asked fails at once
    let id = start("left");
    systemd.wait_serving(&id, &node);
    assert_eq!(held(), (-1, 1));
    let stop = [&["stop"][..], &UNITS].concat();
    systemd.systemctl(&stop).good();
    assert_eq!(systemd.property("ActiveState"), "inactive");
    assert_eq!(made(podman.pid(), "getpriority"), (-1, 38), "{}", log());
}
