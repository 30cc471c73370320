//! Which filters hold a container, a systemd service and a program that uses libseccomp, with the kernel, cgroups and
//! systemd of this machine but nothing of its own: everything looked at is a child of the test, in namespaces and a cgroup
//! of its own.
//!
//! Ignored in the ordinary run, since they need root, cgroups that can be written, and the packages of `cargo xtask test`,
//! which runs them: `cargo test -p lazaret --test inspect -- --ignored`.

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
fn hierarchy(kinds: &[&str]) -> Option<PathBuf> {
    let mut found = kinds.iter().map(PathBuf::from);
    found.find(|path| path.join("cgroup.procs").exists())
}

/// errno(3).
const EPERM: u16 = 1;

/// Version 2 beside version 1, or alone; in the root of version 1 there is no `cgroup.procs`.
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

/// An id of 64 digits that no engine gives, of this test and with this last digit.
fn id(digit: u8) -> String {
    let number = u64::from(std::process::id()) << 4 | u64::from(digit);
    format!("{:064x}", number | 0xfeed_0000_0000_0000)
}

/// A container of this id: a cgroup of that name and a pid namespace, with [`child`] as its first process.
fn container(id: &str) -> Started {
    let pids = hierarchy(&[
        "/sys/fs/cgroup/pids",
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup",
    ]);
    let pids = pids.expect("a cgroup hierarchy");
    let (container, output) = start(
        pids.join(id),
        "exec unshare --pid --fork --kill-child -- \"$SELF\" --exact child --nocapture --test-threads=1",
    );
    let mut lines = output.lines();
    assert!(lines.any(|line| line.expect("a line") == "@ready"));
    container
}

#[test]
#[ignore = "needs root and cgroups"]
fn every_thread_of_a_container_is_seen() {
    let id = id(0);
    let container = container(&id);
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

#[test]
#[ignore = "needs root and cgroups"]
fn a_beginning_that_two_containers_share_is_nobodys_name() {
    let (one, other) = (id(1), id(2));
    let _started = [container(&one), container(&other)];
    let chains = |given: &str| chains(&Target::Container(given.to_owned()), Depth::EveryThread);
    for shared in [&one[..63], &one[..12]] {
        let failure = chains(shared).expect_err("two are meant");
        assert_eq!(failure.exit, Exit::Usage);
        let said = format!("{:#}", failure.error);
        assert!(said.contains(&one) && said.contains(&other), "{said}");
    }
    for whole in [&one, &other] {
        assert_eq!(filters(&chains(whole).expect("read")), [(0, 1), (2, 1)]);
    }
}

/// A program as others write it: everything is allowed but two calls, one of them by its arguments.
const WITH_LIBSECCOMP: &str = r#"
#include <seccomp.h>
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
int main(void) {
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    if (!filter
        || seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(mkdir), 0)
        || seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_NE, AF_UNIX))
        || seccomp_load(filter))
        return 1;
    puts("@ready");
    fflush(stdout);
    return getchar() == EOF ? 0 : 1;
}
"#;

#[test]
#[ignore = "needs gcc and libseccomp-dev"]
fn the_filter_of_a_program_with_libseccomp_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, program) = (folder.path().join("held.c"), folder.path().join("held"));
    std::fs::write(&source, WITH_LIBSECCOMP).expect("written");
    let mut gcc = Command::new("gcc");
    gcc.arg(&source).arg("-o").arg(&program).arg("-lseccomp");
    assert!(gcc.status().expect("gcc starts").success());
    let mut held = Command::new(&program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let output = BufReader::new(held.stdout.take().expect("piped above"));
    let mut lines = output.lines();
    assert!(lines.any(|line| line.expect("a line") == "@ready"));

    let lazaret = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lazaret"));
        command.args(args).args(["--pid", &held.id().to_string()]);
        let output = command.output().expect("it starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout) + &text(&output.stderr),
        )
    };
    let (code, shown) = lazaret(&["inspect"]);
    assert_eq!(code, Some(0), "{shown}");
    let flat = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "1 thread of `held`",
        "EACCES (1 call) mkdir",
        "socket: allow if family (64 bits) = AF_UNIX, else kill process",
        "i386: kill thread, whatever the call",
        // of what libseccomp leaves open that must not be
        "ptrace: reads and writes other processes",
    ] {
        assert!(flat.contains(part), "`{part}` is not in:\n{shown}");
    }
    let profile = |mkdir: &str| {
        let path = folder.path().join(format!("{mkdir}.json"));
        let text = format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
                {{"names": ["mkdir"], "action": "{mkdir}", "errnoRet": 13}},
                {{"names": ["socket"], "action": "SCMP_ACT_KILL_PROCESS",
                  "args": [{{"index": 0, "value": 1, "op": "SCMP_CMP_NE"}}]}}]}}"#
        );
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("text").to_owned()
    };
    let same = profile("SCMP_ACT_ERRNO");
    let (code, proved) = lazaret(&["prove", &same, "--at-least-as-strict"]);
    assert_eq!(code, Some(0), "{proved}");
    // libseccomp closes what is no call of any convention, and a profile cannot say so
    let (code, proved) = lazaret(&["prove", &same]);
    assert_eq!(code, Some(1), "{proved}");
    let closed = "    2147483648..=3221225471: allow → kill thread";
    assert!(proved.contains(closed), "{proved}");
    assert!(!proved.contains("mkdir"), "{proved}");
    let (code, proved) = lazaret(&["prove", &profile("SCMP_ACT_ALLOW")]);
    assert_eq!(code, Some(1), "{proved}");
    assert!(proved.contains("    mkdir: allow → EACCES"), "{proved}");
    let (code, proved) = lazaret(&["prove", &profile("SCMP_ACT_KILL"), "--at-least-as-strict"]);
    assert_eq!(code, Some(1), "{proved}");
    assert!(
        proved.contains("    mkdir: kill thread → EACCES"),
        "{proved}"
    );

    // it ends as it would have
    drop(held.stdin.take());
    assert!(held.wait().expect("ours").success());
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
    let Some(version_2) = hierarchy(&VERSION_2) else {
        println!("SKIP: no cgroup v2 is mounted, which systemd wants");
        return;
    };
    let name = format!("lazaret-test-{}", std::process::id());
    let (systemd, _output) = start(version_2.join(name), SYSTEMD);
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
