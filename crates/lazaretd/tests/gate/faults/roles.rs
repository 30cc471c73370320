//! Who may do what on the control socket: real users, real groups.

use super::stage::{Stage, moved, revised};
use crate::nobody::as_member;
use crate::node::{Node, Paper, skipped};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

/// Groups that nobody else is in; numbers need no entry in `/etc/group`.
const OPERATE: u32 = 64_901;
const READ: u32 = 64_902;
const OTHER: u32 = 64_903;

#[test]
fn those_who_may_look_do_not_change_anything_and_others_do_neither() {
    if skipped() {
        return;
    }
    let mut node = Node::new();
    for (option, group) in [("--operate-group", OPERATE), ("--read-group", READ)] {
        node.options.extend([option.to_owned(), group.to_string()]);
    }
    let open = fs::Permissions::from_mode(0o711);
    fs::set_permissions(node.folder.path(), open).expect("open to others");
    let stage = Stage::set(node, &Paper::default());
    let socket = stage.node.path("run/control.sock");
    let line = |request: &serde_json::Value| format!("{request}\n");
    let look = [
        "{\"type\":\"status\",\"v\":1}\n".to_owned(),
        "{\"type\":\"drift\",\"v\":1}\n".to_owned(),
        "{\"type\":\"watch\",\"v\":1}\n".to_owned(),
    ];
    let stopping = serde_json::json!({"type": "stopping", "v": 1, "container": stage.startup.id});
    let change = [
        line(&revised(&stage.startup)),
        line(&moved(&stage.startup, "serving")),
        line(&stopping),
    ];
    let phase = || stage.node.status_of(&stage.startup)["state"]["phase"].clone();
    for request in &look {
        let answer = as_member(&socket, request, READ);
        assert!(
            answer.contains("\"type\":\"") && !answer.contains("error"),
            "{answer}"
        );
        assert_eq!(as_member(&socket, request, OTHER), "", "{request}");
    }
    for request in &change {
        let answer = as_member(&socket, request, READ);
        assert!(answer.contains("this needs the role operate"), "{answer}");
        assert_eq!(as_member(&socket, request, OTHER), "", "{request}");
    }
    assert_eq!(phase(), "startup", "nobody has moved it");
    for (request, answered) in change.iter().zip(["revised", "done", "done"]) {
        let answer = as_member(&socket, request, OPERATE);
        assert!(answer.contains(answered), "{answer}");
    }
    assert_eq!(phase(), "stopping");
    stage.end();
}

#[test]
fn the_socket_of_runtimes_is_for_root_whatever_the_roles_are() {
    if skipped() {
        return;
    }
    let mut node = Node::new();
    for (option, group) in [("--operate-group", OPERATE), ("--read-group", READ)] {
        node.options.extend([option.to_owned(), group.to_string()]);
    }
    let open = fs::Permissions::from_mode(0o711);
    fs::set_permissions(node.folder.path(), open).expect("open to others");
    let stage = Stage::set(node, &Paper::default());
    let answer = as_member(&stage.node.path("run/gate.sock"), "{}", OPERATE);
    assert_eq!(answer, "", "hung up");
    stage.end();
}
