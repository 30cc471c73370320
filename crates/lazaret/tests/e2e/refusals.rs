//! Papers that are not in order: the container does not start, and one sentence says why, where people look.

use crate::learn::learnt;
use crate::node::{Container, Node};
use crate::world::{HARDENED, Said, world};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Berth says this when it runs with a command that it does not know: the shortest proof of a start.
const STARTED: &str = "berth: unknown command";

/// `docker run` under the wrapper of something that would end at once, and the container that it leaves.
#[track_caller]
fn attempt(options: &[&str]) -> (Said, Container) {
    let runtime = world().runtime();
    let mut args = vec!["run", "--name=attempt", &runtime];
    args.extend(HARDENED);
    args.extend(options);
    args.extend([world().berth().reference.as_str(), "bogus"]);
    let said = world().docker(&args);
    let id = world().docker(&["inspect", "--format", "{{.Id}}", "attempt"]);
    (said, Container(id.good().to_owned()))
}

/// Whether berth ran, by what `docker run` said.
fn ran(said: &Said) -> bool {
    matches!(said.code, Some(0 | 2)) || format!("{}{}", said.out, said.err).contains(STARTED)
}

/// A start that the wrapper must refuse, with a sentence in which this stands: the container was never there.
#[track_caller]
fn refused_by_the_wrapper(options: &[&str], part: &str) {
    let (said, container) = attempt(options);
    // what docker says when its runtime creates nothing
    assert!(
        matches!(said.code, Some(125..=127)) && !ran(&said),
        "{said:?}"
    );
    assert!(
        container
            .inspect("{{.State.StartedAt}}")
            .starts_with("0001-")
    );
    let mut sentences = said.err.lines().filter(|line| line.contains("lazaret: "));
    let sentence = sentences.next().expect("a sentence");
    assert!(sentence.contains(part), "`{part}` is not in: {sentence}");
    assert_eq!(sentences.next(), None, "one sentence");
}

/// A start that the gate must refuse, with this check and a sentence in which this stands. By then runc has started the
/// container as far as docker can see: it ends with runc's own failure to execute anything.
#[track_caller]
fn refused_at_the_gate(node: &Node, check: &str, part: &str) {
    let (said, container) = attempt(&[]);
    assert!(!ran(&said), "{said:?}");
    let event = node.wait_event(&container.0, "refused", "check", check);
    let reason = event["reason"].as_str().expect("text");
    assert!(reason.contains(part), "`{part}` is not in: {reason}");
    let sentence = format!("lazaret: container not started: {reason}");
    let expected = format!("{sentence}\nexec /berth: permission denied\n");
    assert_eq!((&said.err, said.code), (&expected, Some(1)));
    assert_eq!(container.logs(), expected, "docker logs");
    let events = node.events(&container.0);
    assert!(
        events.iter().all(|event| event["type"] != "admitted"),
        "{events:?}"
    );
}

/// A node with good papers, under which it does start.
#[track_caller]
fn good() -> Node {
    let node = Node::with(&learnt().policy);
    starts(&node);
    node
}

#[track_caller]
fn starts(node: &Node) {
    let (said, container) = attempt(&[]);
    assert_eq!(said.code, Some(2), "{said:?}; {}", node.log());
    assert!(said.err.contains(STARTED), "{said:?}");
    node.wait_event(&container.0, "admitted", "mode", "enforce");
}

/// Changes a stored JSON file.
fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON");
    change(&mut value);
    fs::write(path, value.to_string()).expect("written");
}

/// Lets the kernel allow a call that the policy has asked.
fn loosen(profile: &Path, call: &str) {
    edit(profile, |profile| {
        let rules = profile["syscalls"].as_array_mut().expect("a list");
        let mut found = 0;
        for rule in rules
            .iter_mut()
            .filter(|rule| rule["action"] == "SCMP_ACT_NOTIFY")
        {
            let names = rule["names"].as_array_mut().expect("a list");
            let before = names.len();
            names.retain(|name| name != call);
            found += before - names.len();
        }
        assert_eq!(found, 1, "{call} is asked");
        rules.push(json!({"names": [call], "action": "SCMP_ACT_ALLOW"}));
    });
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn bundles_that_are_not_in_order() {
    let node = good();
    let bundle = node.papers().join("bundle.json");
    let signed = fs::read_to_string(&bundle).expect("a bundle");

    // one character of what was signed, and one of the signature
    for member in ["\"payload\":\"", "\"sig\":\""] {
        let mut changed = signed.clone().into_bytes();
        let at = signed.find(member).expect("a member") + member.len() + 20;
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        fs::write(&bundle, changed).expect("written");
        refused_at_the_gate(&node, "signature", "no signature by a pinned key");
    }

    node.key("stranger");
    fs::copy(node.sign(&learnt().policy, "stranger"), &bundle).expect("copied");
    refused_at_the_gate(&node, "signature", "no signature by a pinned key");

    let text = fs::read_to_string(&learnt().policy).expect("a policy");
    let digest = world().berth().config_digest.as_str();
    let other = format!("sha256:{}", "5".repeat(64));
    let elsewhere = node.path("other.yaml");
    fs::write(&elsewhere, text.replace(digest, &other)).expect("written");
    fs::copy(node.sign(&elsewhere, "site"), &bundle).expect("copied");
    refused_at_the_gate(&node, "image", &other);

    fs::remove_file(&bundle).expect("it was there");
    refused_at_the_gate(&node, "no-bundle", digest);

    node.install(&learnt().policy);
    starts(&node);
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn keys_that_are_not_pinned_properly() {
    let node = good();
    let key = node.path("store/keys/site.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o666)).expect("ours");
    refused_at_the_gate(&node, "keys", "site.pem");
    fs::remove_file(&key).expect("it was there");
    refused_at_the_gate(&node, "keys", "store/keys");
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn profiles_that_are_not_the_policys() {
    let node = good();
    let profile = node.papers().join("profile.json");
    loosen(&profile, "getpriority");
    refused_at_the_gate(
        &node,
        "filter-looser",
        "looser than the policy: getpriority is allowed instead of asked",
    );

    node.install(&learnt().policy);
    let other = format!("sha256:{}", "5".repeat(64));
    edit(&profile, |profile| {
        profile["listenerMetadata"] = json!(other)
    });
    refused_at_the_gate(&node, "metadata", &other);

    node.install(&learnt().policy);
    edit(&profile, |profile| {
        profile["listenerPath"] = json!("/run/elsewhere.sock")
    });
    refused_by_the_wrapper(&[], "hands the listener to `/run/elsewhere.sock`");

    fs::remove_file(&profile).expect("it was there");
    refused_by_the_wrapper(&[], "profile.json` is missing");
}

/// A filter that does not ask about `execve` hides the moment of the check: what it would start is killed, in runc's hands or
/// in its first steps, and runc tells of that in more than one way.
#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_profile_that_hides_the_first_execve() {
    let node = good();
    loosen(&node.papers().join("profile.json"), "execve");
    let (said, container) = attempt(&[]);
    assert!(!ran(&said), "{said:?}");
    node.wait_event(&container.0, "refused", "check", "execve-unasked");
    assert_eq!(container.inspect("{{.State.Running}}"), "false");
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn containers_that_must_be_confined_and_cannot() {
    let mut node = Node::new();
    let part = "must be confined (it is labelled `dev.lazaret.confine=required`)";
    refused_by_the_wrapper(&["--label=dev.lazaret.confine=required"], part);
    let part = "label `dev.lazaret.confine` is `yes`";
    refused_by_the_wrapper(&["--label=dev.lazaret.confine=yes"], part);
    // without the label nobody asks for it
    assert!(ran(&attempt(&[]).0));

    // the papers are good, and nobody is at the gate
    node.install(&learnt().policy);
    let (said, container) = attempt(&[]);
    assert!(matches!(said.code, Some(125..=127)), "{said:?}");
    assert!(!said.err.contains(STARTED), "{said:?}");
    assert!(said.err.contains("gate.sock"), "{said:?}");
    drop(container);
    node.start();
    starts(&node);
}
