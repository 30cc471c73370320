//! Revisions that are put in force on a container that runs: in both directions, and those that are not.

use crate::node::{Client, Node, Paper, Sandbox, Watch, skipped};
use crate::paper::policy_of;
use lazaret_bundle::key::{Algorithm, PrivateKey};
use lazaret_core::digest::Digest;
use lazaret_core::policy::Policy;
use serde_json::{Value, json};

/// The ordinary policy under this number, with these changes.
fn revision(number: u64, change: impl FnOnce(&mut Value)) -> Policy {
    let mut text = Paper::default().text();
    text["metadata"]["revision"] = json!(number);
    change(&mut text);
    policy_of(text)
}

fn allow(text: &mut Value, rule: Value) {
    text["rules"].as_array_mut().expect("rules").push(rule);
}

/// One that allows `chdir` in every phase.
fn looser(number: u64) -> Policy {
    revision(number, |text| {
        allow(
            text,
            json!({"ask": ["chdir"], "why": "it may go elsewhere"}),
        );
    })
}

/// A container in serving, under revision 3.
struct Running {
    node: Node,
    events: Watch,
    container: Sandbox,
    policy: Policy,
}

impl Running {
    fn under(policy: Policy) -> Running {
        let mut node = Node::new();
        node.install(&policy, &node.key);
        node.start();
        let mut events = node.watch();
        let container = serving(&node, &mut events, &policy);
        Running {
            node,
            events,
            container,
            policy,
        }
    }

    fn install(&self, policy: &Policy) {
        self.node.install(policy, &self.node.key);
    }

    fn revise(&self, number: u64) -> Value {
        revise(&mut self.node.client(), &self.container, number, "whole")
    }

    /// Asserts that this revision is refused, for this reason, and nothing has changed.
    #[track_caller]
    fn refuses(&self, number: u64, reason: &str) {
        let before = self.node.status_of(&self.container);
        let reply = self.revise(number);
        assert_eq!(reply["type"], "error", "{reply}");
        let said = reply["reason"].as_str().expect("text");
        assert!(said.contains(reason), "{said}");
        assert_eq!(self.node.status_of(&self.container), before);
    }

    /// Digests `(in force, in the kernel)`.
    fn digests(&self) -> (Value, Value) {
        let state = &self.node.status_of(&self.container)["state"];
        let digest = |which: &str| state[which]["digest"].clone();
        (digest("in_force"), digest("in_kernel"))
    }
}

fn serving(node: &Node, events: &mut Watch, policy: &Policy) -> Sandbox {
    let mut container = node.create(policy);
    container.go();
    events.until_phase("startup");
    assert!(container.try_chdir());
    let to = json!({"type": "phase", "v": 1, "container": container.id, "to": "serving"});
    assert_eq!(node.client().ask(&to)["type"], "done");
    container
}

fn revise(client: &mut Client, container: &Sandbox, number: u64, kernel: &str) -> Value {
    client.ask(&json!({
        "type": "revise", "v": 1, "container": container.id, "revision": number, "kernel": kernel
    }))
}

fn of(policy: &Policy) -> Value {
    json!(policy.digest().to_string())
}

#[test]
fn a_revision_loosens_and_tightens_without_a_restart() {
    if skipped() {
        return;
    }
    let mut running = Running::under(Paper::default().policy());
    assert!(!running.container.try_chdir(), "denied");
    let four = looser(4);
    running.install(&four);
    assert!(!running.container.try_chdir(), "installed is not in force");
    let reply = running.revise(4);
    assert_eq!(reply["type"], "revised", "{reply}");
    assert_eq!(
        (&reply["from"]["revision"], &reply["to"]["revision"]),
        (&json!(3), &json!(4))
    );
    assert!(running.container.try_chdir(), "allowed");
    let three = of(&running.policy);
    assert_eq!(running.digests(), (of(&four), three.clone()));
    let told = running.events.until("revised");
    assert_eq!((&told["from"], &told["to"]), (&three, &of(&four)));
    assert_eq!(told["key"], running.node.key.public().id().as_str());
    assert_eq!(told["until_restart"], json!([]));
    running.refuses(4, "in force already");

    // a process that is put in comes with the policy in the kernel, and is held to the one in force
    let metadata = running.policy.digest().to_string();
    let mut exec = running
        .node
        .exec(&running.container, &running.policy, &metadata);
    exec.go();
    running.events.until_phase("exec");
    assert!(exec.try_chdir(), "by revision 4");

    // the next daemon knows
    running.node.kill();
    running.node.start();
    assert_eq!(running.digests(), (of(&four), three.clone()));
    assert!(running.container.try_chdir());
    assert!(exec.try_chdir());

    assert_eq!(running.revise(3)["type"], "revised");
    assert_eq!(running.digests(), (three.clone(), three));
    assert!(!running.container.try_chdir(), "denied again");
    assert!(!exec.try_chdir());
    assert!(running.container.try_write());
}

#[test]
fn what_the_kernel_cannot_hold_is_refused_or_shown() {
    if skipped() {
        return;
    }
    let three = revision(3, |text| {
        allow(
            text,
            json!({"allow": ["sysinfo", "times"], "why": "figures"}),
        );
    });
    let running = Running::under(three);
    let four = revision(4, |text| {
        allow(text, json!({"allow": ["times"], "why": "figures"}));
    });
    running.install(&four);
    running.refuses(
        4,
        "until the container is started again: sysinfo (hint: --partly",
    );
    let reply = revise(&mut running.node.client(), &running.container, 4, "partly");
    assert_eq!(reply["until_restart"], json!(["sysinfo"]), "{reply}");
    let status = running.node.status_of(&running.container);
    assert_eq!(status["state"]["until_restart"], json!(["sysinfo"]));
    assert_eq!(status["state"]["in_force"]["revision"], 4);
    // back to what the kernel has: nothing is left over
    assert_eq!(running.revise(3)["until_restart"], json!([]));
    let status = running.node.status_of(&running.container);
    assert_eq!(status["state"]["until_restart"], json!([]));
}

#[test]
fn the_mode_changes_by_revision_in_both_directions() {
    if skipped() {
        return;
    }
    let observe = revision(4, |text| text["mode"] = json!("observe"));
    let mut running = Running::under(Paper::default().policy());
    running.install(&observe);
    assert!(!running.container.try_chdir());
    assert_eq!(running.events.until("denied")["enforced"], true);
    let reply = running.revise(4);
    assert_eq!(reply["to"]["mode"], "observe", "{reply}");
    assert!(running.container.try_chdir());
    assert_eq!(running.events.until("denied")["enforced"], false);
    let drift = running.node.client().ask(&json!({"type": "drift", "v": 1}));
    let drift = drift["drift"].as_array().expect("a list").clone();
    let mut kinds: Vec<_> = drift
        .iter()
        .map(|one| {
            assert_eq!(
                (&one["call"], &one["phase"], &one["process"]),
                (&json!("chdir"), &json!("serving"), &json!("sh"))
            );
            assert_eq!(one["digest"], of(&observe));
            (one["enforced"].as_bool(), one["times"].as_u64())
        })
        .collect();
    kinds.sort_unstable();
    assert_eq!(kinds, [(Some(false), Some(1)), (Some(true), Some(1))]);
    assert_eq!(running.revise(3)["to"]["mode"], "enforce");
    assert!(!running.container.try_chdir());
}

#[test]
fn papers_that_are_not_in_order_change_nothing() {
    if skipped() {
        return;
    }
    let mut running = Running::under(Paper::default().policy());
    running.refuses(
        4,
        "revision 4 is not installed for the container's image, installed: 3",
    );
    let stranger = PrivateKey::generate(Algorithm::Ed25519).expect("key");
    let node = &running.node;

    node.install(&looser(4), &stranger);
    running.refuses(4, "revision refused (signature)");

    let unsigned = looser(5);
    node.install_bytes(
        &unsigned,
        br#"{"payloadType": "x", "payload": "", "signatures": []}"#,
    );
    running.refuses(5, "revision refused (");

    let foreign = revision(6, |text| {
        text["image"]["digests"] = json!([Digest::of(b"another image")]);
        allow(text, json!({"ask": ["chdir"], "why": "somewhere else"}));
    });
    node.install(&foreign, &node.key);
    running.refuses(6, "image");

    // signed, and put under another number
    let bundle = lazaret_bundle::sign(&looser(8), &[&node.key]).expect("signed");
    node.install_bytes(&looser(7), &bundle);
    running.refuses(7, "the bundle under revision 7");

    // two with one number
    node.install(&looser(9), &node.key);
    let other = revision(9, |text| text["mode"] = json!("observe"));
    node.install(&other, &node.key);
    running.refuses(9, "installed twice");

    let newer = revision(10, |text| {
        text["environment"]["kernel"] = json!(">=99.0");
    });
    node.install(&newer, &node.key);
    running.refuses(10, "99.0");
    let nobody = json!({"type": "revise", "v": 1, "container": "nobody", "kernel": "whole"});
    assert_eq!(node.client().ask(&nobody)["type"], "error");
    assert!(!running.container.try_chdir());
}

#[test]
fn containers_of_two_revisions_run_side_by_side() {
    if skipped() {
        return;
    }
    let mut running = Running::under(Paper::default().policy());
    let four = looser(4);
    running.install(&four);
    let mut newer = serving(&running.node, &mut running.events, &four);
    assert!(newer.try_chdir(), "by revision 4");
    assert!(!running.container.try_chdir(), "by revision 3");
    running.node.kill();
    running.node.start();
    assert!(newer.try_chdir());
    assert!(!running.container.try_chdir());
    let status = running.node.status_of(&newer);
    assert_eq!(
        (
            &status["state"]["in_force"]["revision"],
            &status["state"]["in_kernel"]["revision"]
        ),
        (&json!(4), &json!(4))
    );
    // each by its own
    let reply = revise(&mut running.node.client(), &newer, 3, "whole");
    assert_eq!(reply["type"], "revised", "{reply}");
    assert!(!newer.try_chdir());
    assert_eq!(running.revise(4)["type"], "revised");
    assert!(running.container.try_chdir());
}
