//! The positive control of the demonstration's attacks: each does reach its aim when nothing stands in its way.
//!
//! It needs root, Debian's engine and the rogue image; `cargo xtask test` runs it.

use std::collections::BTreeMap;
use std::time::Duration;

use xtask::command::run;
use xtask::loop_disk::{CONTENT, LoopDisk};
use xtask::network;
use xtask::setup::Setup;

/// Its own port, so that a server of another test is never asked.
const PORT: u16 = 18082;
const LIMIT: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs root, docker.io and the rogue image; run by `cargo xtask test`"]
fn each_attack_works_in_an_unconfined_container_with_the_privileges_it_needs() {
    let setup = Setup::without_packages().expect("the workspace is there");
    let hapi = setup.hapi().expect("the target image is made");
    let rogue = setup.rogue(&hapi).expect("the rogue layer is made");
    let disk = LoopDisk::create(&setup.target).expect("root and loop devices are there");
    let docker = setup.docker(&BTreeMap::new()).expect("dockerd starts");
    docker
        .load(&setup.steps, &rogue)
        .expect("the image loads under its own digest");
    let device = disk.device().display().to_string();
    let args = [
        "run",
        "--detach",
        "--name=rogue",
        "--network=host",
        "--read-only",
        "--tmpfs=/tmp",
        "--tmpfs=/data",
    ];
    let privileges = [
        "--user=0:0",
        "--cap-drop=ALL",
        "--cap-add=SYS_ADMIN",
        "--security-opt=seccomp=unconfined",
    ];
    let port = format!("--env=ROGUE_PORT={PORT}");
    run(docker
        .docker(args)
        .args(privileges)
        .args(["--device", &device, &port, rogue.reference()]))
    .expect("it starts");

    // The rogue listens before the FHIR server begins to start.
    docker
        .within(|| network::wait_answering(PORT, LIMIT))
        .expect("the rogue class listens");
    let attack = |what: &str| {
        docker
            .within(|| network::get(PORT, &format!("/attack/{what}"), LIMIT))
            .expect("an answer")
            .1
    };
    assert_eq!(disk.read_back().expect("debugfs"), CONTENT);
    for name in [
        format!("mount?device={device}&content=escaped%0a"),
        "shell".into(),
        "unshare".into(),
        "ptrace".into(),
        "io_uring".into(),
    ] {
        let answer = attack(&name);
        assert!(answer.contains(r#""worked": true"#), "{name}: {answer}");
    }
    assert_eq!(disk.read_back().expect("debugfs"), "escaped\n");
    // What cannot work is not said to have worked: there is no such device.
    let answer = attack("mount?device=/dev/loop-none");
    assert!(
        answer.contains(r#""worked": false, "errno": 2"#),
        "{answer}"
    );
}
