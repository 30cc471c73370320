//! Each paper that is not in order: the container does not start, and its standard error says why in one sentence.

use crate::node::{Node, Paper, skipped};
use lazaret_bundle::key::{Algorithm, PrivateKey};
use lazaret_core::digest::Digest;
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::compile::compile;
use lazaret_core::filter::program::{Instruction, Program, code};
use lazaret_core::filter::rule::{Entry, Numbers, RuleTable, Verdict};
use lazaret_core::policy::Policy;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

fn numbers(table: &mut RuleTable) -> &mut Numbers {
    table.abis.get_mut(&Abi::X86_64).expect("served")
}

/// A container on this node is refused by `check`, with a sentence that begins with `reason`.
fn check(node: &mut Node, check: &str, reason: &str) {
    check_under(node, &Paper::default().policy(), check, reason);
}

/// As [`check`], of a container with the profile of this policy.
fn check_under(node: &mut Node, policy: &Policy, check: &str, reason: &str) {
    let program = compile(&policy.kernel_table()).expect("compiled");
    check_with(node, &program, &policy.digest().to_string(), check, reason);
}

fn check_with(node: &mut Node, program: &Program, metadata: &str, check: &str, reason: &str) {
    node.start();
    let mut events = node.watch();
    let mut container = node.create_with(program, metadata);
    container.go();
    let refused = events.until("refused");
    assert_eq!(refused["check"], check, "{refused}");
    assert_eq!(refused["container"], container.id.as_str());
    // the runtime is told by its execve, and can say so
    assert_eq!(container.hear(), "exec: Permission denied (os error 13)");
    let said = container.end();
    let sentence = said
        .strip_prefix("lazaret: container not started: ")
        .expect(&said);
    assert!(sentence.starts_with(reason), "{sentence}");
    assert_eq!(
        sentence.matches('\n').count(),
        1,
        "once, on one line: {sentence:?}"
    );
    assert_eq!(
        sentence.trim_end(),
        refused["reason"].as_str().expect("text")
    );
    events.until("ended");
    node.kill();
}

#[test]
fn no_bundle() {
    if skipped() {
        return;
    }
    check(
        &mut Node::new(),
        "no-bundle",
        "no policy is installed for image sha256:",
    );
}

#[test]
fn another_signer() {
    if skipped() {
        return;
    }
    let mut node = Node::new();
    let stranger = PrivateKey::generate(Algorithm::Ed25519).expect("key");
    node.install(&Paper::default().policy(), &stranger);
    check(
        &mut node,
        "signature",
        "bundle refused: no signature by a pinned key",
    );
}

#[test]
fn one_changed_byte() {
    if skipped() {
        return;
    }
    let mut node = Node::new();
    let policy = Paper::default().policy();
    let bundle = lazaret_bundle::sign(&policy, &[&node.key]).expect("signed");
    let mut envelope: serde_json::Value = serde_json::from_slice(&bundle).expect("JSON");
    let payload = envelope["payload"].as_str().expect("base64").to_owned();
    // another letter of the same alphabet in the middle
    let (before, rest) = payload.split_at(payload.len() / 2);
    let other = if rest.starts_with('A') { "B" } else { "A" };
    envelope["payload"] = format!("{before}{other}{}", &rest[1..]).into();
    node.install_bytes(&policy, envelope.to_string().as_bytes());
    check(
        &mut node,
        "signature",
        "bundle refused: no signature by a pinned key",
    );
}

#[test]
fn another_image() {
    if skipped() {
        return;
    }
    let mut node = Node::new();
    let other = Paper {
        image: Digest::of(b"another image"),
        ..Paper::default()
    };
    let other = other.policy();
    node.install(&other, &node.key);
    check_under(&mut node, &other, "image", "bundle is for sha256:");
}

#[test]
fn no_bundle_at_all_but_bytes() {
    if skipped() {
        return;
    }
    let mut node = Node::new();
    node.install_bytes(&Paper::default().policy(), b"not a bundle");
    check(&mut node, "bundle-format", "bundle refused");
}

#[test]
fn another_environment() {
    if skipped() {
        return;
    }
    let mut node = Node::new();
    let newer = Paper {
        kernel: ">=99.1",
        ..Paper::default()
    };
    let newer = newer.policy();
    node.install(&newer, &node.key);
    check_under(
        &mut node,
        &newer,
        "environment",
        "the policy needs kernel 99.1 or newer",
    );
}

#[test]
fn a_profile_for_another_policy() {
    if skipped() {
        return;
    }
    let mut node = Node::new();
    let policy = Paper::default().policy();
    node.install(&policy, &node.key);
    let program = compile(&policy.kernel_table()).expect("compiled");
    let installed = format!("installed are revisions 3 ({})", policy.digest());
    let check = |node: &mut Node, metadata: &str, said: &str| {
        let reason = format!("the container's profile is for policy {said}, {installed}");
        check_with(node, &program, metadata, "metadata", &reason);
    };
    check(&mut node, "", "none");
    let other = Digest::of(b"other").to_string();
    check(&mut node, &other, &other);
    check(&mut node, "../../keys", "../../keys");
}

/// The directory's name says that it is the policy of the profile; what was signed is another.
#[test]
fn a_bundle_in_another_policys_place() {
    if skipped() {
        return;
    }
    let mut node = Node::new();
    let observing = Paper {
        mode: "observe",
        ..Paper::default()
    };
    let bundle = lazaret_bundle::sign(&observing.policy(), &[&node.key]).expect("signed");
    let policy = Paper::default().policy();
    node.install_bytes(&policy, &bundle);
    let reason = format!(
        "the container's profile is for policy {}, the signed policy is {}",
        policy.digest(),
        observing.policy().digest()
    );
    check(&mut node, "metadata", &reason);
}

#[test]
fn a_store_of_the_earlier_layout() {
    if skipped() {
        return;
    }
    let mut node = Node::new();
    let policy = Paper::default().policy();
    node.install(&policy, &node.key);
    let bundle = node.path("store/images");
    let image = fs::read_dir(bundle).expect("a folder").next();
    let image = image.expect("an image").expect("readable").path();
    fs::write(image.join("bundle.json"), "{}").expect("written");
    check(&mut node, "store", "`");
}

/// Two revisions are installed: each container is held to the one that its profile names.
#[test]
fn the_revision_that_the_profile_names() {
    if skipped() {
        return;
    }
    let mut node = Node::new();
    let enforcing = Paper::default().policy();
    let observing = Paper {
        mode: "observe",
        ..Paper::default()
    };
    let observing = observing.policy();
    for policy in [&enforcing, &observing] {
        node.install(policy, &node.key);
    }
    node.start();
    let mut events = node.watch();
    for (policy, mode) in [(&enforcing, "enforce"), (&observing, "observe")] {
        let program = compile(&policy.kernel_table()).expect("compiled");
        let mut container = node.create_with(&program, &policy.digest().to_string());
        container.go();
        let admitted = events.until("admitted");
        assert_eq!(admitted["mode"], mode, "{admitted}");
        assert_eq!(admitted["policy"], policy.digest().to_string().as_str());
        drop(container);
        events.until("ended");
    }
}

#[test]
fn a_looser_filter_in_the_kernel() {
    if skipped() {
        return;
    }
    let mut node = Node::new();
    let policy = Paper::default().policy();
    node.install(&policy, &node.key);
    let mut table = policy.kernel_table();
    // one call of the ceiling, opened by whoever made the profile
    let mount = lazaret_core::filter::table::nr_of(Abi::X86_64, "mount").expect("known");
    numbers(&mut table)
        .entries
        .insert(mount, Entry::always(Verdict::Allow));
    let program = compile(&table).expect("compiled");
    let reason = "the kernel's filter is looser than the policy: mount is allowed instead of denied with errno 1";
    check_with(
        &mut node,
        &program,
        &policy.digest().to_string(),
        "filter-looser",
        reason,
    );
}

/// One product of two arguments decides whether everything is allowed: nobody can say what that filter does.
#[test]
fn a_filter_that_cannot_be_followed() {
    if skipped() {
        return;
    }
    let mut node = Node::new();
    let policy = Paper::default().policy();
    node.install(&policy, &node.key);
    let mut instructions = vec![
        Instruction::statement(code::LD_W_ABS, 16),
        Instruction::statement(code::TAX, 0),
        Instruction::statement(code::LD_W_ABS, 24),
        Instruction::statement(code::MUL_X, 0),
        Instruction::jump(code::JEQ_K, 0x1234_5677, 0, 1),
        Instruction::statement(code::RET_K, Verdict::Allow.to_raw()),
    ];
    let program = compile(&policy.kernel_table()).expect("compiled");
    instructions.extend(program.instructions());
    let program = Program::new(instructions).expect("the kernel takes it");
    node.start();
    let mut events = node.watch();
    let mut container = node.create_with(&program, &policy.digest().to_string());
    container.go();
    let refused = events.until("refused");
    assert_eq!(refused["check"], "filter-undecided", "{refused}");
    assert_eq!(
        refused["reason"],
        "undecided: filter 0, instruction 3: its result cannot be followed, and instruction 4 depends on it"
    );
    events.until("ended");
    drop(container);
}

#[test]
fn keys_that_others_can_write() {
    if skipped() {
        return;
    }
    let mut node = Node::new();
    node.install(&Paper::default().policy(), &node.key);
    let keys = node.path("store/keys");
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o777)).expect("set");
    check(&mut node, "keys", "");
}

#[test]
fn an_image_that_the_engine_does_not_know() {
    if skipped() {
        return;
    }
    let mut node = Node::new();
    node.install(&Paper::default().policy(), &node.key);
    fs::remove_dir_all(node.path("docker/image")).expect("removed");
    check(&mut node, "image-unknown", "");
}

#[test]
fn a_stricter_filter_is_admitted_and_listed() {
    if skipped() {
        return;
    }
    let mut node = Node::new();
    let policy = Paper::default().policy();
    node.install(&policy, &node.key);
    let mut table = policy.kernel_table();
    // as a runtime does whose libseccomp does not know the name
    let nr = lazaret_core::filter::table::nr_of(Abi::X86_64, "cachestat").expect("known");
    numbers(&mut table).entries.remove(&nr);
    let program = compile(&table).expect("compiled");
    node.start();
    let mut events = node.watch();
    let mut container = node.create_with(&program, &policy.digest().to_string());
    container.go();
    assert_eq!(
        events.until("admitted")["stricter"],
        serde_json::json!(["cachestat"])
    );
    assert!(container.try_write());
}
