//! The gate as its systemd unit runs it: with those capabilities and no others, and without new privileges.

use crate::containerd::Task;
use crate::learn::learnt;
use crate::node::{Container, Node};
use crate::world::{HARDENED, world};
use std::process::Command;

const UNIT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../packaging/systemd/lazaretd.service"
);

/// The capabilities that the unit leaves to the gate, as setpriv(1) names them.
fn capabilities() -> Vec<String> {
    let unit = std::fs::read_to_string(UNIT).expect("the unit");
    let set = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .expect("it is bounded");
    let names = set.split_whitespace();
    names
        .map(|name| {
            let name = name.strip_prefix("CAP_").expect("a capability");
            name.to_ascii_lowercase()
        })
        .collect()
}

/// A node whose gate has these capabilities only.
fn node_with(capabilities: &[String]) -> Node {
    let mut node = Node::new();
    node.install(&learnt().policy);
    let gate = node.gate();
    let mut set = "-all".to_owned();
    for name in capabilities {
        set += &format!(",+{name}");
    }
    let mut bounded = Command::new("setpriv");
    bounded.args(["--no-new-privs", "--inh-caps=-all", "--bounding-set", &set]);
    bounded.arg(gate.get_program()).args(gate.get_args());
    node.start_as(bounded);
    node
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn the_units_capabilities_are_enough() {
    let node = node_with(&capabilities());
    let server = node.serving();
    assert_eq!(world().call("getpriority"), (-1, 1));
    let probe = server.probe(&["getsid"]);
    assert!(probe.good().contains("\"errno\": 0"), "{probe:?}");
    world().docker(&["stop", "--time=30", &server.0]).good();

    // containerd, which is asked through a child
    let profile = node.papers().join("profile.json").display().to_string();
    let options = ["--seccomp-profile", profile.as_str()];
    let (server, said) = Task::run(&node.path(""), "bounded", &options);
    said.good();
    node.wait_phase(server.name, "serving");
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn without_tracing_or_administration_nothing_is_admitted() {
    for left_out in ["sys_ptrace", "sys_admin"] {
        let mut fewer = capabilities();
        let before = fewer.len();
        fewer.retain(|name| name != left_out);
        assert_eq!(fewer.len(), before - 1, "{left_out} is in the unit");
        let node = node_with(&fewer);
        let runtime = world().runtime();
        let mut args = vec!["run", "--name=fewer", "--user=10001", &runtime];
        args.extend(HARDENED);
        args.extend([world().berth().reference.as_str(), "bogus"]);
        let said = world().docker(&args);
        let id = world().docker(&["inspect", "--format={{.Id}}", "fewer"]);
        let server = Container(id.good().to_owned());
        let events = node.events(&server.0);
        let all = format!("{left_out}: {said:?} {events:?} {}", node.log());
        // berth says 2 for a command that it does not know
        assert!(!matches!(said.code, Some(0 | 2)), "{all}");
        assert!(
            events.iter().all(|event| event["type"] != "admitted"),
            "{all}"
        );
    }
}
