//! The gate under other engines and runtimes: podman with runc and crun, containerd with the wrapper, Docker with crun
//! underneath, and Docker from 23.0 on without the wrapper. Each: admitted, serving, a denied call, an exec, the stop, and
//! papers that are missing.
//!
//! podman runs in a network and a mount namespace of the test, with its storage in a folder of the test; not in a pid
//! namespace, as the gate must see the pids that a runtime reports.

use crate::containerd::{Task, ctr};
use crate::learn::learnt;
use crate::node::{Container, Node};
use crate::podman::{Podman, storage};
use crate::world::{HARDENED, Said, get, made, run, wait_for, world};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

const CRUN: &str = "/usr/bin/crun";

fn runc() -> String {
    world().runc.display().to_string()
}

/// A node with a bundle, whose wrapper runs this runtime; its gate does not run yet.
fn node(runtime: &Path, more: &str) -> Node {
    let node = Node::new();
    node.install(&learnt().policy);
    let config = fs::read_to_string(&world().runtime_config).expect("the wrapper's");
    let config = config.replace(&runc(), &runtime.display().to_string());
    fs::write(&world().runtime_config, config + more).expect("written");
    node
}

/// A program of the test's: a shell script.
fn script(node: &Node, name: &str, text: &str) -> PathBuf {
    let path = node.path(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
    path
}

/// Serving, held in the server and in an exec, and known by its image.
#[track_caller]
fn is_held(node: &Node, id: &str, network: u32, exec: impl Fn(&str) -> Said) {
    node.wait_phase(id, "serving");
    let status = node.status(id).expect("it is known");
    assert_eq!(status["state"]["image"], world().berth().config_digest);
    assert_eq!(made(network, "getppid"), (0, 0));
    assert_eq!(made(network, "getpriority"), (-1, 1));
    let denied = node.wait_event(id, "denied", "call", "getpriority");
    assert_eq!(denied["phase"], "serving");
    let (good, held) = (exec("getsid"), exec("getpriority"));
    assert!(good.good().contains("\"errno\": 0"), "{good:?}");
    assert!(held.good().contains("\"errno\": 1"), "{held:?}");
    assert!(node.status(id).is_some(), "{}", node.log());
}

#[track_caller]
fn is_gone(node: &Node, id: &str) {
    wait_for("end of the container", || {
        node.status(id).is_none().then_some(())
    });
}

/// The wrapper told the gate of the signal.
#[track_caller]
fn stopped_clean(node: &Node, id: &str) {
    let phases = node.phases(id);
    let last = phases.last().map(String::as_str).unwrap_or_default();
    assert!(last.starts_with("serving>stopping ("), "{phases:?}");
}

/// podman with this runtime underneath: the whole life, and a container without papers.
#[track_caller]
fn podman_lives(runtime: &'static str, program: &str) {
    let mut node = node(Path::new(program), "");
    let podman_folder = node.path("podman");
    let mut config = fs::read_to_string(&world().runtime_config).expect("the wrapper's");
    config += &storage(&podman_folder, '_');
    fs::write(&world().runtime_config, config).expect("written");
    fs::write(node.path("lazaretd.toml"), storage(&podman_folder, '-')).expect("written");
    node.start();
    let podman = Podman::new(&node, runtime);
    let profile = node.papers().join("profile.json");
    let option = format!("--security-opt=seccomp={}", profile.display());
    // the wrapper puts the profile in, whatever podman was told
    let parent = format!("--cgroup-parent={}", world().containerd.cgroup);
    let options: &[&str] = if runtime == "lazaret" {
        &["--name=held", &parent]
    } else {
        &["--name=held", &parent, &option]
    };
    let said = podman.start(options);
    let id = said.good().to_owned();
    is_held(&node, &id, podman.pid(), |call| {
        run(&mut podman.podman(&["exec", "held", "/berth", "exec-probe", call]))
    });
    run(&mut podman.podman(&["stop", "--time=30", "held"])).good();
    is_gone(&node, &id);
    let code = run(&mut podman.podman(&["inspect", "--format={{.State.ExitCode}}", "held"]));
    assert_eq!(code.good(), "0");
    if runtime == "lazaret" {
        stopped_clean(&node, &id);
    }

    fs::remove_file(node.papers().join("bundle.json")).expect("it was there");
    let refused = [&["--name=refused"][..], &options[1..]].concat();
    let said = podman.start(&refused);
    let id = run(&mut podman.podman(&["inspect", "--format={{.Id}}", "refused"]));
    let event = node.wait_event(id.good(), "refused", "check", "no-bundle");
    let reason = event["reason"].as_str().expect("text");
    assert!(reason.contains(&world().berth().config_digest), "{reason}");
    assert!(get(podman.pid(), "/ready").is_none(), "{said:?}");
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn podman_with_runc_by_its_profile() {
    podman_lives("runc", &runc());
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn podman_with_crun_by_its_profile() {
    podman_lives("crun", CRUN);
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn podman_with_the_wrapper_over_runc() {
    podman_lives("lazaret", &runc());
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn podman_with_the_wrapper_over_crun() {
    podman_lives("lazaret", CRUN);
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn containerd_with_the_wrapper() {
    let containerd = &world().containerd;
    let roots = format!(
        "containerd_root = '{}'\ncontainerd_address = '{}'\n",
        containerd.data_root.display(),
        containerd.socket.display()
    );
    let mut node = node(Path::new(&runc()), &roots);
    node.start();
    let wrapper = format!(
        "exec '{}' --lazaret-config '{}' \"$@\"",
        world().program("lazaret-runtime").display(),
        world().runtime_config.display()
    );
    let wrapper = script(&node, "wrapper", &wrapper).display().to_string();
    let (server, said) = Task::run(&node.path(""), "wrapped", &["--runc-binary", &wrapper]);
    said.good();
    is_held(&node, server.name, containerd.pid, |call| {
        let probe = ["tasks", "exec", "--exec-id", call, server.name];
        run(ctr(&probe).args(["/berth", "exec-probe", call]))
    });
    run(&mut ctr(&[
        "tasks",
        "kill",
        "--signal",
        "SIGTERM",
        server.name,
    ]))
    .good();
    is_gone(&node, server.name);
    stopped_clean(&node, server.name);
    fs::remove_file(node.papers().join("bundle.json")).expect("it was there");
    let options = ["--runc-binary", wrapper.as_str()];
    let (refused, _) = Task::run(&node.path(""), "wrapped-refused", &options);
    node.wait_event(refused.name, "refused", "check", "no-bundle");
}

/// crun refuses to see both versions of cgroups: it gets a mount namespace in which it sees one.
const CRUN_ALONE: &str = r#"exec unshare --mount --propagation=slave -- sh -c '
if [ -d /sys/fs/cgroup/unified ]; then umount /sys/fs/cgroup/unified; fi
exec /usr/bin/crun "$@"' crun "$@""#;

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn docker_with_crun_under_the_wrapper() {
    let mut node = node(Path::new(&runc()), "");
    let crun = script(&node, "crun", CRUN_ALONE);
    let config = fs::read_to_string(&world().runtime_config).expect("the wrapper's");
    let config = config.replace(&runc(), &crun.display().to_string());
    fs::write(&world().runtime_config, config).expect("written");
    node.start();
    let server = node.berth(&[]);
    docker_lives(&node, &server);
    stopped_clean(&node, &server.0);
}

#[track_caller]
fn docker_lives(node: &Node, server: &Container) {
    is_held(node, &server.0, world().docker_pid(), |call| {
        server.probe(&[call])
    });
    world().docker(&["stop", "--time=30", &server.0]).good();
    assert_eq!(server.inspect("{{.State.ExitCode}}"), "0");
    is_gone(node, &server.0);
}

/// From 23.0 on Docker hands `listenerPath` on. Before, the profile has calls to be asked about and nobody to ask: runc
/// refuses it, and the container does not start.
#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn docker_without_the_wrapper() {
    let version = world().docker(&["version", "--format", "{{.Server.Version}}"]);
    let major = version.good().split('.').next().expect("a word");
    let major: u32 = major.parse().expect("a number");
    let mut node = node(Path::new(&runc()), "");
    node.start();
    let profile = node.papers().join("profile.json");
    let option = format!("--security-opt=seccomp={}", profile.display());
    let start = |name: &str| {
        let name = format!("--name={name}");
        let mut args = vec!["run", "--detach", &option, &name];
        args.extend(HARDENED);
        args.push(&world().berth().reference);
        let said = world().docker(&args);
        let id = world().docker(&["inspect", "--format={{.Id}}", &name[7..]]);
        (said, Container(id.good().to_owned()))
    };
    let (said, server) = start("by-profile");
    if major < 23 {
        assert_ne!(said.code, Some(0), "{said:?}");
        assert!(node.events(&server.0).is_empty());
        return;
    }
    said.good();
    docker_lives(&node, &server);
    fs::remove_file(node.papers().join("bundle.json")).expect("it was there");
    let (_, refused) = start("by-profile-refused");
    node.wait_event(&refused.0, "refused", "check", "no-bundle");
    let logs = refused.logs();
    assert!(logs.contains("lazaret: container not started: "), "{logs}");
}
