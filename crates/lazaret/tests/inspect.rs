//! Which filters hold a container and a systemd service, with the kernel, cgroups and systemd of this machine but nothing
//! of its own: everything looked at is a child of the test, in namespaces and a cgroup of its own.
//!
//! Ignored in the ordinary run, since they need root, and cgroups that can be written:
//! `cargo test -p lazaret --test inspect -- --ignored`.

use lazaret::exit::Exit;
use lazaret::inspect::{Depth, Target, ThreadGroup, chains};
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::interpret::eval_chain;
use lazaret_core::filter::program::{Instruction, Program, code};
use lazaret_core::filter::rule::{Call, Verdict};
use lazaret_core::filter::table::nr_of;
use lazaret_kernel::filters::Chain;
use lazaret_kernel::process::{self, Seccomp};
use lazaret_kernel::{load, tasks};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Set for the child only.
const CHILD: &str = "LAZARET_INSPECT_TEST_CHILD";

/// Everything here takes at most a second; this is for a machine under load.
const PATIENCE: Duration = Duration::from_secs(20);

/// A child that dies with this test, and with it all that is in its pid namespace; then its cgroup goes.
struct Started {
    unshare: Child,
    cgroup: PathBuf,
}

impl Drop for Started {
    fn drop(&mut self) {
        // --kill-child: process 1 of the pid namespace dies with its unshare, and the kernel ends the others
        self.unshare.kill().expect("ours to kill");
        self.unshare.wait().expect("ours to wait for");
        let begin = Instant::now();
        while remove(&self.cgroup).is_err() && begin.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
    }
}

/// Removes a cgroup and those in it.
fn remove(cgroup: &Path) -> std::io::Result<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    for inner in std::fs::read_dir(cgroup)?.filter_map(Result::ok) {
        if inner.path().is_dir() {
            remove(&inner.path())?;
        }
    }
    std::fs::remove_dir(cgroup)
}

/// A folder of a cgroup hierarchy that is mounted: version 2, or the `pids` controller of version 1.
fn hierarchy(kinds: &[&str]) -> PathBuf {
    let found = kinds.iter().map(PathBuf::from);
    let mut found = found.filter(|path| path.join("cgroup.procs").exists());
    found.next().expect("a cgroup hierarchy")
}

/// errno(3).
const EPERM: u16 = 1;

const VERSION_2: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// Runs a shell script in a new cgroup of this name, whose first words are to enter it.
fn start(cgroup: PathBuf, script: &str) -> (Started, BufReader<std::process::ChildStdout>) {
    std::fs::create_dir(&cgroup).expect("a cgroup");
    let mut unshare = Command::new("sh")
        .args([
            "-ec",
            &format!("echo $$ > \"$CGROUP/cgroup.procs\"; {script}"),
        ])
        .env("CGROUP", &cgroup)
        .env("SELF", std::env::current_exe().expect("own path"))
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh starts");
    let output = BufReader::new(unshare.stdout.take().expect("piped above"));
    (Started { unshare, cgroup }, output)
}

fn marked(marker: u32) -> Program {
    Program::new(vec![
        Instruction::statement(code::LD_IMM, marker), // tells programs apart
        Instruction::statement(code::RET_K, Verdict::Allow.to_raw()),
    ])
    .expect("valid")
}

/// The child's side: a process with a thread without filters and one with two; as a test of its own it does nothing.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    load::set_no_new_privs().expect("no_new_privs");
    for marker in [1, 2] {
        load::load(&marked(marker)).expect("loaded");
    }
    println!("\n@ready");
    // until the test ends
    std::io::stdin()
        .read_to_end(&mut Vec::new())
        .expect("nothing");
    std::process::exit(0);
}

fn filters(groups: &[ThreadGroup]) -> Vec<(usize, usize)> {
    let counts = |group: &ThreadGroup| (group.programs().len(), group.threads.len());
    groups.iter().map(counts).collect()
}

#[test]
#[ignore = "needs root and cgroups"]
fn every_thread_of_a_container_is_seen() {
    let id = format!(
        "{:064x}",
        u64::from(std::process::id()) | 0xfeed_0000_0000_0000
    );
    let pids = hierarchy(&[
        "/sys/fs/cgroup/pids",
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup",
    ]);
    let (container, output) = start(
        pids.join(&id),
        "exec unshare --pid --fork --kill-child -- \"$SELF\" --exact child --nocapture --test-threads=1",
    );
    let mut lines = output.lines();
    assert!(lines.any(|line| line.expect("a line") == "@ready"));
    let target = Target::Container(id.clone());
    let groups = chains(&target, Depth::EveryThread).expect("read");
    assert_eq!(filters(&groups), [(0, 1), (2, 1)], "{groups:?}");
    assert_eq!(groups[0].chain, Chain::Unfiltered);
    assert_eq!(groups[1].programs(), [marked(1), marked(2)]);
    assert_eq!(groups[1].read, groups[1].threads);

    // as `docker exec` under another profile: in the container's namespace, and not its child
    let init = groups[0].threads[0].to_string();
    let mut added = Command::new("nsenter")
        .args(["--target", &init, "--pid", "--", "cat"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("nsenter starts");
    let begin = Instant::now();
    loop {
        let groups = chains(&target, Depth::Representatives).expect("read");
        if filters(&groups) == [(0, 2), (2, 1)] {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{groups:?}");
    }
    drop(added.stdin.take());
    added.wait().expect("ours");

    // by the beginning of the id nothing else is meant, by less than that nothing at all
    let short = Target::Container(id[..id.len() - 4].to_owned());
    assert!(chains(&short, Depth::EveryThread).is_ok());
    drop(container);
    let failure = chains(&target, Depth::EveryThread).expect_err("it has ended");
    assert_eq!(failure.exit, Exit::Usage);
}

/// What makes a systemd believe that it runs a machine: cgroup version 2 only, an empty `/run`, one unit.
const SYSTEMD: &str = r#"
exec unshare --cgroup --pid --fork --kill-child --mount --mount-proc --uts --ipc --net sh -ec '
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /run/systemd/system
cd /run/systemd/system
printf "[Unit]\nRequires=demo.service\nDefaultDependencies=no\nAllowIsolate=yes\n" > demo.target
printf "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/sleep 3600\n" > demo.service
printf "SystemCallFilter=@system-service\nSystemCallErrorNumber=EPERM\nSystemCallArchitectures=native\n" >> demo.service
exec env -i container=lazaret PATH=/usr/sbin:/usr/bin \
    SYSTEMD_PROC_CMDLINE=systemd.unified_cgroup_hierarchy=1 \
    /lib/systemd/systemd --system --unit=demo.target --log-target=null --show-status=0
'"#;

/// The service's process: the child of our systemd that has filters.
fn service(unshare: u32) -> u32 {
    let begin = Instant::now();
    loop {
        assert!(begin.elapsed() < PATIENCE, "service does not start");
        for pid in tasks::processes().expect("/proc") {
            let Ok(status) = process::status(pid) else {
                continue;
            };
            let parent = process::status(status.parent).map(|parent| parent.parent);
            let ready = process::comm(pid).is_ok_and(|name| name == "sleep")
                && matches!(status.seccomp, Seccomp::Filters(_));
            if ready && parent.is_ok_and(|parent| parent == unshare) {
                return pid;
            }
        }
    }
}

#[test]
#[ignore = "needs root, cgroup version 2 and systemd"]
fn the_filters_of_a_systemd_service_are_read() {
    if !Path::new("/lib/systemd/systemd").exists() {
        println!("SKIP: no systemd on this machine");
        return;
    }
    let name = format!("lazaret-test-{}", std::process::id());
    let (systemd, _output) = start(hierarchy(&VERSION_2).join(name), SYSTEMD);
    let pid = service(systemd.unshare.id());
    let groups = chains(&Target::Process(pid), Depth::EveryThread).expect("read");
    let [group] = groups.as_slice() else {
        panic!("one thread, so one group: {groups:?}");
    };
    assert_eq!(
        (group.comm.as_str(), &*group.threads),
        ("sleep", &[pid][..])
    );
    assert_eq!(group.read, [pid]);
    let verdict = |abi: Abi, name: &str| {
        let call = Call::new(abi, nr_of(abi, name).expect("a call"));
        let evaluated = eval_chain(group.programs(), &call).expect("evaluated");
        evaluated.verdict
    };
    assert_eq!(verdict(Abi::X86_64, "read"), Verdict::Allow);
    assert_eq!(verdict(Abi::X86_64, "reboot"), Verdict::Errno(EPERM));
    assert_ne!(
        verdict(Abi::I386, "read"),
        Verdict::Allow,
        "native calls only"
    );
}
