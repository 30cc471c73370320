//! The private engines with a real container: it runs, answers, is stopped, and nothing of it stays.
//!
//! They need root and Debian's engines; `cargo xtask test` runs them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use xtask::command::{output, run};
use xtask::network;
use xtask::setup::Setup;

const LIMIT: Duration = Duration::from_secs(30);

fn setup() -> Setup {
    Setup::without_packages().expect("the workspace is there")
}

#[test]
#[ignore = "needs root and docker.io; run by `cargo xtask test`"]
fn a_container_of_the_private_dockerd_answers_and_stops_when_told() {
    let setup = setup();
    let berth = setup.berth().expect("berth builds");
    let docker = setup.docker(&BTreeMap::new()).expect("dockerd starts");
    docker
        .load(&setup.steps, &berth)
        .expect("the image loads under its own digest");
    let args = [
        "run",
        "--detach",
        "--name=berth",
        "--network=host",
        "--read-only",
        "--tmpfs=/tmp",
        "--cap-drop=ALL",
    ];
    let ready_after = [
        "--env=BERTH_READY_AFTER_MS=300",
        "--env=BERTH_PORT=18080",
        berth.reference(),
    ];
    run(docker.docker(args).args(ready_after)).expect("it starts");
    let get = |path: &'static str| {
        docker
            .within(move || network::get(18080, path, LIMIT))
            .expect("berth answers")
            .1
    };

    let waited = docker
        .within(|| network::wait_ready(18080, "/ready", LIMIT, || false))
        .expect("it becomes ready");
    assert!(waited < LIMIT);
    assert_eq!(
        get("/call/getppid").trim(),
        r#"{"call": "getppid", "result": 0, "errno": 0}"#,
        "it is process 1"
    );
    assert!(
        get("/call/sethostname").contains(r#""errno": 1"#),
        "the engine's own profile, or no capability"
    );
    assert!(get("/fork").contains(r#""errno": 0"#));
    assert!(get("/threads?n=8").contains(r#""made": 8"#));
    let probe = |port| {
        let args = ["exec", port, "berth", "/berth", "exec-probe", "getppid"];
        output(&mut docker.docker(args))
    };
    assert!(
        probe("--env=BERTH_PORT=18080")
            .expect("it is ready")
            .contains(r#""call": "getppid""#)
    );
    assert!(probe("--env=BERTH_PORT=1").is_err(), "nobody listens there");

    // Nobody outside has this port: the container's network is the engine's.
    assert!(network::get(18080, "/ready", Duration::from_secs(1)).is_err());
    run(&mut docker.docker(["stop", "berth"])).expect("it stops");
    let log = output(&mut docker.docker(["logs", "berth"])).expect("there is a log");
    assert!(
        log.contains(r#"stopping: {"call": "unlink", "result": -1, "errno": 2}"#),
        "{log}"
    );
    let code = output(&mut docker.docker(["inspect", "--format={{.State.ExitCode}}", "berth"]))
        .expect("it is there");
    assert_eq!(code.trim(), "0", "ended by itself, not killed");

    let (pid, data, socket) = (
        docker.pid().expect("runs"),
        docker.data_root(),
        docker.socket().to_owned(),
    );
    let cgroup = docker.cgroup();
    drop(docker);
    assert!(!Path::new(&format!("/proc/{pid}")).exists() && !data.exists() && !socket.exists());
    for hierarchy in fs::read_dir("/sys/fs/cgroup")
        .expect("cgroups are mounted")
        .flatten()
    {
        assert!(
            !hierarchy
                .path()
                .join(cgroup.trim_start_matches('/'))
                .exists()
        );
    }
}

#[test]
#[ignore = "needs root and containerd; run by `cargo xtask test`"]
fn a_container_of_the_private_containerd_answers() {
    let setup = setup();
    let berth = setup.berth().expect("berth builds");
    let containerd = setup.containerd().expect("containerd starts");
    containerd
        .load(&setup.steps, &berth)
        .expect("the image is imported");
    let name = format!("docker.io/{}", berth.reference());
    let cgroup = format!("--cgroup={}/berth", containerd.cgroup());
    let args = [
        "run",
        "--detach",
        "--net-host",
        "--env=BERTH_PORT=18081",
        &cgroup,
        &name,
        "berth",
    ];
    run(&mut containerd.ctr(args).expect("containerd runs")).expect("it starts");
    containerd
        .within(|| network::wait_ready(18081, "/ready", LIMIT, || false))
        .expect("it becomes ready");
    let pid = containerd.pid().expect("runs");
    // No `remove`: the engine's end is the container's.
    drop(containerd);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}
