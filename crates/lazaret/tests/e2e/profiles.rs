//! Profiles without a gate, as engines load them: what `compile --to oci --static` makes of a policy under runc, crun,
//! containerd and podman, what `compile --to oci` makes of Docker's own profile under Docker, and `--to bpf` in a process.
//!
//! A profile is judged by the kernel twice: by what calls bring, and by a proof about the filter that it runs. crun and podman
//! run in namespaces of their own, with their state in a folder of the test: nothing of the machine's is touched.

use crate::containerd::Task;
use crate::node::Container;
use crate::world::{HARDENED, Ours, Said, get, made, run, wait_for, world};
use lazaret::inspect::{Depth, Target, chains};
use lazaret_core::filter::program::Program;
use lazaret_core::filter::prove::{Comparison, Space};
use lazaret_kernel::{load, process, tasks};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// errno(3).
const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const ENOSYS: i32 = 38;

/// A policy of berth with every kind of rule.
///
/// The prelude is what runc 1.1.5 and crun 1.8.1 call between filter and `execve`, with and without `no_new_privs`, found by
/// elimination; and, since runc is a Go program, what Go's runtime may call at any time. `fcntl`, `openat2`, `sendmsg` and
/// `statx` are newer versions'.
fn policy(otherwise: i32) -> String {
    let otherwise = if otherwise == EPERM {
        "EPERM"
    } else {
        "EACCES"
    };
    let digest = &world().berth().config_digest;
    format!(
        r#"
apiVersion: lazaret.dev/v1
kind: SyscallPolicy
metadata: {{name: berth-static, revision: 1}}
image: {{name: lazaret/berth, digests: ["{digest}"]}}
environment: {{arch: x86_64, libc: [glibc 2.36], runtimes: [runc, crun], kernel: ">=5.11", noNewPrivileges: false}}
mode: enforce
phases:
  prelude:
    calls: [
      capget, capset, chdir, clone, close, epoll_create1, epoll_ctl, epoll_pwait, epoll_wait, execve, exit, faccessat2, fchdir,
      fcntl, fstat, fstatfs, futex, getcwd, getdents64, getpid, getppid, gettid, madvise, mmap, nanosleep, newfstatat,
      openat, openat2, prctl, read, rt_sigaction, rt_sigprocmask, rt_sigreturn, sched_yield, sendmsg, setgid, setgroups,
      setresgid, setresuid, setuid, statx, tgkill, write]
ceiling: default
otherwise: {{action: errno, errno: {otherwise}}}
rules:
  - allow: [exit, exit_group, read, restart_syscall, rt_sigreturn, write]
    why: the kernel and the runtime need them
  - allow: [
      accept4, arch_prctl, brk, clone, close, connect, fcntl, futex, getrandom, madvise, mmap, mprotect, munmap, poll, prlimit64,
      readlink, recvfrom, rseq, rt_sigaction, rt_sigprocmask, rt_sigtimedwait, sched_getaffinity, sendto, set_robust_list,
      set_tid_address, setsockopt, sigaltstack]
    why: a small server
  - allow: [getsid]
    why: looked at by the test
  - allow: [bind, listen, umask]
    until: serving
    why: start-up
  - allow: [socket]
    when: [{{arg: domain, in: [AF_INET, AF_INET6]}}]
    why: its port
  - allow: [unlink]
    during: [stopping]
    why: its lock file
  - ask: [rmdir]
    why: under review
  - deny: [memfd_create]
    errno: ENOSYS
    why: programs that are in no image
"#
    )
}

/// Calls of berth's, and what each comes back with: 0, an errno of the kernel's own for a call that was let through, or the
/// policy's.
fn cases(otherwise: i32) -> [(&'static str, i32); 13] {
    [
        // by number; in one phase only, as a static profile has no phases; asked, as there is nobody to ask
        ("getsid", 0),
        ("umask", 0),
        ("unlink", ENOENT),
        ("rmdir", ENOENT),
        // by condition: AF_INET, also with what the kernel does not look at, AF_NETLINK, AF_UNIX
        ("socket?a0=2&a1=1", 0),
        ("socket?a0=0x100000002&a1=1", 0),
        ("socket?a0=16&a1=3", otherwise),
        ("socket?a0=1&a1=1", otherwise),
        // no rule
        ("getpriority", otherwise),
        ("eventfd2", otherwise),
        // under the ceiling; without a filter it succeeds
        ("personality", otherwise),
        // errnos of their own
        ("clone3", ENOSYS),
        ("memfd_create", ENOSYS),
    ]
}

/// Whether berth in the network of a process is held to the policy.
#[track_caller]
fn is_held(pid: u32, otherwise: i32) {
    for (call, errno) in cases(otherwise) {
        assert_eq!(made(pid, call).1, i64::from(errno), "{call}");
    }
    for (path, answer) in [("/threads?n=3", "\"made\": 3"), ("/fork", "\"errno\": 0")] {
        let (_, said) = get(pid, path).expect("berth answers");
        assert!(said.contains(answer), "{path}: {said}");
    }
}

/// A policy and the static profile that is made of it, in a folder of the test.
struct Made {
    folder: tempfile::TempDir,
    policy: PathBuf,
    profile: PathBuf,
}

impl Made {
    #[track_caller]
    fn new(otherwise: i32) -> Made {
        let folder = world().folder();
        let made = Made {
            policy: folder.path().join("policy.yaml"),
            profile: folder.path().join("static.json"),
            folder,
        };
        fs::write(&made.policy, policy(otherwise)).expect("written");
        compile(&made.policy, &made.profile, &["--to", "oci", "--static"]);
        made
    }

    /// Whether what runs is proved to be at least as strict as the policy; and not as one that allows a call less.
    #[track_caller]
    fn is_proved(&self, target: &[&str]) {
        let prove = |policy: &Path| {
            let mut prove = world().lazaret(&["prove", "--static", "--at-least-as-strict"]);
            prove.env("CONTAINERD_ADDRESS", &world().containerd.socket);
            run(prove.arg(policy).args(target))
        };
        let said = prove(&self.policy);
        assert!(said.good().contains(": at least as strict\n"), "{said:?}");
        let text = fs::read_to_string(&self.policy).expect("a policy");
        let less = self.folder.path().join("less.yaml");
        fs::write(&less, text.replace("allow: [getsid]", "deny: [getsid]")).expect("written");
        let said = prove(&less);
        assert_eq!(said.code, Some(1), "{said:?}");
        let difference =
            said.out.contains(": looser\n") && said.out.contains("\n    getsid: EPERM → allow");
        assert!(difference, "{said:?}");
    }
}

/// `lazaret compile FILE -o OUT`
#[track_caller]
fn compile(file: &Path, out: &Path, options: &[&str]) {
    let mut compile = world().lazaret(&["compile"]);
    compile.arg(file).arg("--out").arg(out).args(options);
    run(&mut compile).good();
}

/// The engine's own, in which the tests are; [`HARDENED`] has it too.
const NETWORK: &str = "--network=host";

/// Berth under plain runc by Docker, with this profile and these options, when it answers.
#[track_caller]
fn docker(profile: &Path, options: &[&str]) -> Container {
    let profile = format!("--security-opt=seccomp={}", profile.display());
    let mut args = vec!["run", "--detach", &profile];
    args.extend(options);
    args.push(&world().berth().reference);
    let container = Container(world().docker(&args).good().to_owned());
    world().wait_answering();
    container
}

/// Docker before 23.0 ignores `defaultErrnoRet`: whatever the policy says, calls without a rule fail with EPERM there.
#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_static_profile_holds_under_docker() {
    let version = world().docker(&["version", "--format", "{{.Server.Version}}"]);
    let major = version.good().split('.').next().map(str::parse::<u32>);
    let major = major.expect("a version").expect("a number");
    // runc loads the filter before it drops privileges, or after
    let without = [NETWORK, "--tmpfs=/tmp:mode=1777"];
    for (otherwise, options) in [(EPERM, &HARDENED[..]), (EACCES, &without)] {
        let made = Made::new(otherwise);
        let otherwise = if major < 23 { EPERM } else { otherwise };
        let server = docker(&made.profile, options);
        let pid = server.inspect("{{.State.Pid}}").parse().expect("a pid");
        is_held(pid, otherwise);
        // before the probe's process can be one of those that are looked at
        made.is_proved(&["--container", &server.0]);
        let Said { code, out, err } = server.probe(&["getsid", "getpriority"]);
        assert_eq!(code, Some(0), "{err}");
        let lines: Vec<Value> = out
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let errnos: Vec<&Value> = lines.iter().map(|line| &line["errno"]).collect();
        assert_eq!(errnos, [&json!(0), &json!(otherwise)], "{out}");
        world().docker(&["stop", "--time=30", &server.0]).good();
        assert_eq!(server.inspect("{{.State.ExitCode}}"), "0");
        let logs = server.logs();
        let stop = "{\"call\": \"unlink\", \"result\": -1, \"errno\": 2}";
        assert!(logs.contains(stop), "{logs}");
    }
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_static_profile_holds_under_containerd() {
    let made = Made::new(EACCES);
    let profile = made.profile.display().to_string();
    let options = ["--seccomp-profile", profile.as_str()];
    let (server, said) = Task::run(made.folder.path(), "static", &options);
    said.good();
    let pid = world().containerd.pid;
    wait_for("answer of berth", || get(pid, "/ready"));
    is_held(pid, EACCES);
    made.is_proved(&["--container", server.name]);
}

/// What runs in namespaces of its own, and ends with all that it started when this is dropped.
struct Apart {
    unshare: Ours,
    log: PathBuf,
}

/// Makes the namespaces fit: podman writes below `/var/lib` and `/dev/shm` whatever it is told, and crun refuses to see both
/// versions of cgroups.
const FIT: &str = r#"
ip link set lo up
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /dev/shm
if [ -d /sys/fs/cgroup/unified ]; then umount /sys/fs/cgroup/unified; fi
exec "$@"
"#;

impl Apart {
    fn start(folder: &Path, command: &[&str]) -> Apart {
        let log = folder.join("engine.log");
        let file = File::create(&log).expect("a log");
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount", "--propagation=slave", "--mount-proc"]);
        unshare.args(["--pid", "--fork", "--kill-child", "--"]);
        unshare.args(["sh", "-ec", FIT, "sh"]).args(command);
        unshare.stdin(Stdio::null());
        unshare
            .stdout(file.try_clone().expect("a file"))
            .stderr(file);
        Apart {
            unshare: Ours(unshare.spawn().expect("unshare")),
            log,
        }
    }

    /// Waits until berth answers there; its pid.
    #[track_caller]
    fn answering(&mut self) -> u32 {
        let pid = wait_for("answer of berth", || {
            let ended = self.unshare.0.try_wait().expect("a child of ours");
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            assert!(ended.is_none(), "{ended:?}: {}", log());
            let pid = berth_in_the_network_of(self.unshare.0.id())?;
            get(pid, "/ready").map(|_| pid)
        });
        let status = process::status(pid).expect("it runs");
        assert!(matches!(status.seccomp, process::Seccomp::Filters(_)));
        pid
    }
}

fn berth_in_the_network_of(other: u32) -> Option<u32> {
    let network = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let theirs = network(other)?;
    if Some(&theirs) == network(std::process::id()).as_ref() {
        return None; // it has not left ours yet
    }
    let mut all = tasks::processes().expect("/proc").into_iter();
    all.find(|pid| {
        network(*pid).as_ref() == Some(&theirs)
            && process::comm(*pid).is_ok_and(|name| name == "berth")
    })
}

/// A bundle as crun runs it: `config.json` and the image's files.
fn bundle(folder: &Path, profile: &Path, no_new_privs: bool) -> PathBuf {
    let bundle = folder.join(format!("bundle-{no_new_privs}"));
    let root = bundle.join("rootfs");
    fs::create_dir_all(&root).expect("a folder");
    let image = &world().berth().reference;
    let container = Container(world().docker(&["create", image]).good().to_owned());
    let tar = folder.join("rootfs.tar");
    world()
        .docker(&[
            "export",
            "--output",
            &tar.display().to_string(),
            &container.0,
        ])
        .good();
    let mut unpack = Command::new("tar");
    run(unpack.arg("-xf").arg(&tar).arg("-C").arg(&root)).good();
    let profile: Value =
        serde_json::from_slice(&fs::read(profile).expect("a profile")).expect("JSON");
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 10001, "gid": 10001},
            "args": ["/berth"],
            "env": ["PATH=/"],
            "cwd": "/",
            "noNewPrivileges": no_new_privs,
        },
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]},
        ],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}],
            "seccomp": profile,
        },
    });
    fs::write(bundle.join("config.json"), config.to_string()).expect("written");
    bundle
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_static_profile_holds_under_crun() {
    let made = Made::new(EACCES);
    for no_new_privs in [false, true] {
        let bundle = bundle(made.folder.path(), &made.profile, no_new_privs);
        let state = made.folder.path().join("crun");
        let state = format!("--root={}", state.display());
        let bundle = format!("--bundle={}", bundle.display());
        let name = format!("static-{no_new_privs}");
        let crun = [
            "crun",
            &state,
            "--cgroup-manager=disabled",
            "run",
            &bundle,
            &name,
        ];
        let mut server = Apart::start(made.folder.path(), &crun);
        let pid = server.answering();
        is_held(pid, EACCES);
        made.is_proved(&["--pid", &pid.to_string()]);
    }
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_static_profile_holds_under_podman() {
    let made = Made::new(EACCES);
    let image = &world().berth().reference;
    let path = |name: &str| made.folder.path().join(name).display().to_string();
    let archive = path("berth.tar");
    world()
        .docker(&["save", "--output", &archive, image])
        .good();
    let security = format!("--security-opt=seccomp={}", made.profile.display());
    let parent = format!("--cgroup-parent={}", world().containerd.cgroup);
    // podman knows that crun can do without cgroups and that runc cannot
    for (runtime, cgroups) in [("crun", "--cgroups=disabled"), ("runc", parent.as_str())] {
        // `$0` is the image's archive, `$@` the arguments of `podman run`
        let script = format!(
            "podman() {{ command podman --root={} --runroot={} --tmpdir={} --runtime-flag=root={} --runtime={runtime} \
             --storage-driver=vfs --cgroup-manager=cgroupfs --events-backend=none \"$@\"; }}\n\
             podman load --quiet --input \"$0\"\npodman run \"$@\"",
            path("root"),
            path("runroot"),
            path("tmp"),
            path("runtime"),
        );
        let mut podman = vec!["sh", "-ec", &script, &archive, cgroups, &security];
        // no more than the machine gives
        podman.extend(["--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"]);
        podman.extend(["--name", runtime]);
        podman.extend(HARDENED);
        podman.push(image);
        let mut server = Apart::start(made.folder.path(), &podman);
        let pid = server.answering();
        is_held(pid, EACCES);
        made.is_proved(&["--pid", &pid.to_string()]);
    }
}

/// The one filter that a container runs.
#[track_caller]
fn filter(container: &Container) -> Program {
    let target = Target::Container(container.0.clone());
    let groups = chains(&target, Depth::EveryThread).expect("read");
    let [group] = groups.as_slice() else {
        panic!("threads under different filters: {groups:?}");
    };
    let [program] = group.programs() else {
        panic!("not one filter: {groups:?}");
    };
    program.clone()
}

#[track_caller]
fn compare(expected: &Program, found: &Program) -> Comparison {
    let mut space = Space::new();
    let mut meaning = |program: &Program| {
        space
            .of_chain(std::slice::from_ref(program))
            .expect("a runtime's filter can be followed")
    };
    let (expected, found) = (meaning(expected), meaning(found));
    space.compare(&expected, &found).expect("small")
}

/// Docker reads its own profile for the container's capabilities; `compile` reads it for those that it is told.
#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn dockers_profile_made_plain_is_what_docker_makes_of_it() {
    let original = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../lazaret-filter/tests/data/profiles/moby-20.10.24.json"
    );
    let folder = world().folder();
    let plain = folder.path().join("plain.json");
    let mut filters = Vec::new();
    for (options, capabilities) in [
        (&[NETWORK][..], &[][..]),
        (&[NETWORK, "--cap-drop=ALL"], &["--cap=none"]),
        (
            &[NETWORK, "--cap-drop=ALL", "--cap-add=SYS_PTRACE"],
            &["--cap=SYS_PTRACE"],
        ),
    ] {
        let options_of_compile = [&["--to", "oci"], capabilities].concat();
        compile(Path::new(original), &plain, &options_of_compile);
        let theirs = filter(&docker(Path::new(original), options));
        let ours = filter(&docker(&plain, options));
        let comparison = compare(&theirs, &ours);
        assert!(comparison.is_equal(), "{options:?}: {comparison:?}");
        filters.push(ours);
    }
    // fewer capabilities, fewer calls: the proof sees the difference
    let [usual, none, tracing] = filters.as_slice() else {
        panic!("as many as above");
    };
    for (more, less) in [(usual, none), (tracing, none)] {
        let comparison = compare(more, less);
        assert!(!comparison.is_equal() && comparison.is_at_least_as_strict());
        assert!(!compare(less, more).is_at_least_as_strict());
    }
}

/// Names the filter that the child loads; set for children only.
const CHILD: &str = "LAZARET_PROFILES_TEST_CHILD";

/// The child's side: calls that std makes, and what they brought; as a test of its own it does nothing.
#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn child() {
    let Some(filter) = std::env::var_os(CHILD) else {
        return;
    };
    if !filter.is_empty() {
        let bytes = fs::read(filter).expect("a filter");
        let program = Program::from_bytes(&bytes).expect("a filter");
        load::set_no_new_privs().expect("no_new_privs");
        load::load(&program).expect("loaded");
    }
    let brought = [
        errno(fs::remove_dir("/nonexistent")),        // rmdir
        errno(fs::create_dir("/nonexistent/folder")), // mkdir
        errno(UdpSocket::bind("127.0.0.1:0")),        // socket(AF_INET …)
        errno(UnixDatagram::unbound()),               // socket(AF_UNIX …)
    ];
    println!("\n@{brought:?}");
    std::process::exit(0);
}

fn errno<T>(result: io::Result<T>) -> i32 {
    result.map_or_else(|error| error.raw_os_error().expect("the kernel's"), |_| 0)
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_raw_filter_of_a_policy_holds_a_process() {
    let made = Made::new(EACCES);
    let bpf = made.folder.path().join("static.bpf");
    compile(&made.policy, &bpf, &["--to", "bpf", "--static"]);
    let brought = |filter: &Path| {
        let mut child = Command::new(std::env::current_exe().expect("own path"));
        child.args(["profiles::child", "--exact", "--ignored", "--nocapture"]);
        let said = run(child.env(CHILD, filter));
        let line = said.good().lines().find_map(|line| line.strip_prefix('@'));
        line.map(str::to_owned).expect("what calls brought")
    };
    let expect = |errnos: [i32; 4]| format!("{errnos:?}");
    assert_eq!(brought(&bpf), expect([ENOENT, EACCES, 0, EACCES]));
    assert_eq!(brought(Path::new("")), expect([ENOENT, ENOENT, 0, 0]));
}
