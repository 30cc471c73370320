//! The gate itself: killed under a container whose listener is kept or not, started twice, started where others can look in.

use crate::learn::learnt;
use crate::node::{Node, private};
use crate::world::{run, wait_for, world};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

const ENOSYS: (i64, i64) = (-1, 38);

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_server_whose_gate_died_is_held_by_the_next_one() {
    let mut node = Node::with(&learnt().policy);
    let server = node.serving();
    for _ in 0..3 {
        node.kill();
        assert_eq!(world().call("getppid"), (0, 0));
        let asked = std::thread::spawn(|| world().call("getpriority"));
        node.start();
        assert_eq!(asked.join().expect("answered"), (-1, 1));
        let status = node.status(&server.0).expect("it is known");
        assert_eq!(status["state"]["phase"], "serving");
        let probe = server.probe(&["getpriority"]);
        assert!(probe.good().contains("\"errno\": 1"), "{probe:?}");
    }
    let events = node.events(&server.0);
    let of = |kind: &str| events.iter().filter(|event| event["type"] == kind).count();
    assert_eq!((of("taken_over"), of("unsupervised")), (3, 0));
    world().docker(&["stop", &server.0]).good();
    assert_eq!(server.inspect("{{.State.ExitCode}}"), "0");
    wait_for("end of the container", || {
        node.status(&server.0).is_none().then_some(())
    });
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_server_whose_gate_died_serves_on_and_asks_in_vain() {
    let mut node = Node::new();
    node.install(&learnt().policy);
    // nothing is kept
    let mut gate = node.gate();
    gate.args(["--hold-for", "0"]);
    node.start_as(gate);
    let server = node.serving();
    node.kill();
    assert_eq!(world().call("getppid"), (0, 0));
    assert_eq!(world().call("getpriority"), ENOSYS);
    let probe = server.probe(&["getsid"]);
    assert_ne!(probe.code, Some(0), "nobody lets a process in: {probe:?}");
    assert!(probe.out.contains("gate.sock"), "{probe:?}");
    let down = run(&mut node.ask(&["status"]));
    assert_eq!(down.code, Some(3), "{down:?}");
    assert!(down.err.contains("is lazaretd running?"), "{down:?}");

    node.start();
    let status = node.status(&server.0).expect("it is known");
    assert_eq!(status["state"]["is"], "unsupervised");
    let pid = server.inspect("{{.State.Pid}}");
    assert_eq!(status["pid"].to_string(), pid);
    let events = node.events(&server.0);
    let told = events.iter().find(|event| event["type"] == "unsupervised");
    assert_eq!(told.expect("an event")["pid"].to_string(), pid);
    let text = run(&mut node.ask(&["status"]));
    assert!(text.good().contains("unsupervised"), "{text:?}");
    let moved = run(&mut node.ask(&["phase", &server.0, "stopping"]));
    assert_eq!(moved.code, Some(1), "{moved:?}");
    assert!(moved.err.contains("is not supervised"), "{moved:?}");
    // allowed calls go on, asked ones stay closed, and nobody new gets in
    assert_eq!(world().call("getppid"), (0, 0));
    assert_eq!(world().call("getpriority"), ENOSYS);
    let probe = server.probe(&["getsid"]);
    assert!(
        probe.err.contains("this gate did not admit container"),
        "{probe:?}"
    );

    world().docker(&["stop", &server.0]).good();
    assert_eq!(server.inspect("{{.State.ExitCode}}"), "0");
    wait_for("end of the container", || {
        node.status(&server.0).is_none().then_some(())
    });
    // started again it has a listener again
    world().docker(&["start", &server.0]).good();
    node.wait_phase(&server.0, "serving");
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_second_gate_on_the_same_sockets_leaves_the_first_alone() {
    let node = Node::with(&learnt().policy);
    let server = node.serving();
    let second = run(&mut node.gate());
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.err.contains("gate.sock"), "{second:?}");
    let status = node.status(&server.0).expect("the first answers");
    assert_eq!(status["state"]["phase"], "serving");
    let probe = server.probe(&["getsid"]);
    assert!(probe.good().contains("\"errno\": 0"), "{probe:?}");
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_socket_folder_that_others_can_enter_is_refused() {
    let mut node = Node::new();
    let folder = node.path("run");
    for mode in [0o755, 0o710] {
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).expect("ours");
        let said = run(&mut node.gate());
        assert_eq!(said.code, Some(3), "{said:?}");
        let path = folder.display().to_string();
        assert!(
            said.err.contains(&path) && said.err.contains(&format!("{mode:o}")),
            "{said:?}"
        );
        assert!(
            fs::read_dir(&folder).expect("a folder").next().is_none(),
            "nothing was made in it"
        );
    }
    private(&folder);
    node.start();
}
