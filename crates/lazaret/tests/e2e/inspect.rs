//! `lazaret inspect` and `lazaret prove` on what runs: containers of Docker and containerd under the engines' own profiles,
//! under none, and under the gate.
//!
//! A process of the machine, a program with libseccomp and a systemd service are in `tests/inspect.rs`, which needs no
//! engine.

use crate::containerd::Task;
use crate::learn::learnt;
use crate::node::{Container, Node};
use crate::world::{Said, run, wait_for, world};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The profile that is inside Docker 20.10, as a file.
const DOCKER: (&str, &str) = ("20.10.", "moby-20.10.24.json");

/// The profile that is inside containerd 1.6, for the capabilities that it gives.
const CONTAINERD: (&str, &str) = ("v1.6.", "containerd-1.6.20.json");

fn profile(name: &str) -> PathBuf {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../lazaret-filter/tests/data/profiles"
    );
    Path::new(folder).join(name)
}

/// Starts berth under plain runc with these options, and waits until it answers.
fn plain(options: &[&str]) -> Container {
    let mut args = vec!["run", "--detach", "--network=host"];
    args.extend(options);
    args.push(&world().berth().reference);
    let container = Container(world().docker(&args).good().to_owned());
    world().wait_answering();
    container
}

/// Starts berth under Docker's default profile; where Docker is another version, under the one that is tested here.
fn by_default() -> (Container, PathBuf) {
    let file = profile(DOCKER.1);
    let version = world().docker(&["version", "--format", "{{.Server.Version}}"]);
    let container = if version.good().starts_with(DOCKER.0) {
        plain(&[])
    } else {
        plain(&[&format!("--security-opt=seccomp={}", file.display())])
    };
    (container, file)
}

fn inspect(args: &[&str]) -> Said {
    run(world().lazaret(&["inspect"]).args(args))
}

fn prove(file: &Path, args: &[&str]) -> Said {
    run(world().lazaret(&["prove"]).arg(file).args(args))
}

/// The objects that were printed.
#[track_caller]
fn rows(said: &Said) -> Vec<Value> {
    let rows = said.out.lines();
    rows.map(|row| serde_json::from_str(row).expect("JSON"))
        .collect()
}

/// The objects of this type, and of this convention.
fn of<'r>(rows: &'r [Value], kind: &str, arch: &str) -> Vec<&'r Value> {
    let wanted = |row: &&Value| row["type"] == kind && row["arch"] == arch;
    rows.iter().filter(wanted).collect()
}

/// What `inspect` says of a call.
#[track_caller]
fn verdict<'r>(rows: &'r [Value], arch: &str, call: &str) -> &'r str {
    let mut found = of(rows, "calls", arch).into_iter().filter(|row| {
        let calls = row["calls"].as_array().expect("a list");
        calls.iter().any(|one| one == call)
    });
    let row = found.next().expect("each call has a verdict");
    assert!(found.next().is_none(), "{call} of {arch} has two");
    row["verdict"].as_str().expect("text")
}

/// The calls of the differences of this kind that `prove` named.
fn differing(rows: &[Value], kind: &str) -> BTreeSet<String> {
    let rows = rows
        .iter()
        .filter(|row| row["type"] == "difference" && row["kind"] == kind);
    let calls = rows.flat_map(|row| row["calls"].as_array().expect("a list"));
    calls
        .map(|call| call.as_str().expect("a name").to_owned())
        .collect()
}

/// The result of a proof of one group of threads.
#[track_caller]
fn result(rows: &[Value]) -> &str {
    let proofs: Vec<&Value> = rows.iter().filter(|row| row["type"] == "proof").collect();
    let [proof] = proofs.as_slice() else {
        panic!("not one proof: {rows:?}");
    };
    proof["result"].as_str().expect("text")
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn dockers_default_profile_is_shown() {
    let (server, _) = by_default();
    let id = server.0.as_str();
    let said = inspect(&["--container", id, "--format", "json"]);
    said.good();
    let rows = rows(&said);
    for arch in ["x86_64", "i386", "x32"] {
        assert_eq!(verdict(&rows, arch, "read"), "allow", "{arch}");
        assert_eq!(verdict(&rows, arch, "mount"), "EPERM", "{arch}");
        assert_eq!(verdict(&rows, arch, "clone3"), "ENOSYS", "{arch}");
        let dangers = of(&rows, "danger", arch);
        let danger = |call: &str| dangers.iter().any(|row| row["call"] == call);
        assert!(danger("ptrace") && danger("chroot"), "{arch}: {dangers:?}");
        assert!(!danger("mount") && !danger("read"), "{arch}: {dangers:?}");
        let clone = of(&rows, "conditional", arch)
            .into_iter()
            .find(|row| row["calls"] == json!(["clone"]));
        let clone = clone.expect("its flags are looked at")["verdict"].to_string();
        assert!(
            clone.contains("clone_flags & 0x7e020000 = 0"),
            "{arch}: {clone}"
        );
    }
    let foreign = of(&rows, "calls", "aarch64");
    assert_eq!(foreign.len(), 1, "{foreign:?}");
    assert_eq!(foreign[0]["verdict"], "kill thread");

    let chain = rows.iter().find(|row| row["type"] == "chain");
    let chain = chain.expect("its length");
    assert_eq!(
        chain["filters"].as_array().map(Vec::len),
        Some(1),
        "{chain}"
    );
    for share in chain["bitmap"].as_array().expect("a list") {
        let (inside, allowed) = (&share["in_bitmap"], &share["allowed_by_number"]);
        assert!(allowed.as_u64() > Some(200), "{share}");
        // the kernel has none for x32
        let expected = if share["arch"] == "x32" {
            &json!(0)
        } else {
            allowed
        };
        assert_eq!(inside, expected, "{share}");
    }

    // the same for people
    let said = inspect(&["--container", id]);
    for part in [
        "`berth`",
        ": 1 filter\n",
        "x86_64",
        "i386",
        "x32",
        "dangerous among what is allowed",
        "ptrace: reads and writes other processes",
        "clone: allow if clone_flags & 0x7e020000 = 0, else EPERM",
    ] {
        assert!(said.good().contains(part), "`{part}` is not in {said:?}");
    }
    let one = inspect(&["--container", id, "--filter", "1"]);
    assert!(one.good().contains("; futex_waitv"), "{one:?}");
    let two = inspect(&["--container", id, "--filter", "2"]);
    assert_eq!(two.code, Some(2), "{two:?}");
    assert!(two.err.contains("the chain has 1"), "{two:?}");
}

/// A profile with a call more or less in its first list.
fn edited(file: &Path, into: &Path, edit: impl FnOnce(&mut Vec<Value>)) {
    let text = fs::read(file).expect("a profile");
    let mut profile: Value = serde_json::from_slice(&text).expect("JSON");
    let names = profile["syscalls"][0]["names"].as_array_mut();
    edit(names.expect("a list of names"));
    fs::write(into, profile.to_string()).expect("written");
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn dockers_default_profile_is_proved() {
    let (server, file) = by_default();
    let on = ["--container", server.0.as_str(), "--format", "json"];
    let said = prove(&file, &on);
    said.good();
    assert_eq!(result(&rows(&said)), "equal");

    let folder = world().folder();
    let other = folder.path().join("other.json");
    // less is meant than the kernel allows
    edited(&file, &other, |names| names.retain(|name| name != "getcwd"));
    for more in [&[][..], &["--at-least-as-strict"]] {
        let said = prove(&other, &[&on, more].concat());
        assert_eq!(said.code, Some(1), "{said:?}");
        let rows = rows(&said);
        assert_eq!(result(&rows), "looser");
        assert_eq!(differing(&rows, "looser"), ["getcwd".to_owned()].into());
        assert_eq!(differing(&rows, "stricter"), BTreeSet::new());
    }
    // more is meant than the kernel allows
    edited(&file, &other, |names| names.push("mount".into()));
    let said = prove(&other, &on);
    assert_eq!(said.code, Some(1), "{said:?}");
    let found = rows(&said);
    assert_eq!(result(&found), "at least as strict");
    assert_eq!(differing(&found, "stricter"), ["mount".to_owned()].into());
    assert_eq!(differing(&found, "looser"), BTreeSet::new());
    let said = prove(&other, &[&on[..], &["--at-least-as-strict"]].concat());
    assert_eq!(said.code, Some(0), "{said:?}");

    // the profile for other capabilities than those that the container has
    let said = prove(&file, &[&on[..], &["--cap", "none"]].concat());
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(
        differing(&rows(&said), "looser"),
        ["chroot".to_owned()].into()
    );
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_container_without_a_filter_is_told_so() {
    let server = plain(&["--security-opt=seccomp=unconfined"]);
    let id = server.0.as_str();
    let said = inspect(&["--container", id]);
    assert!(said.good().contains("no filter"), "{said:?}");
    let said = inspect(&["--container", id, "--format", "json"]);
    said.good();
    let rows = rows(&said);
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(
        (&rows[0]["type"], &rows[0]["filters"]),
        (&json!("threads"), &json!(0))
    );
    for more in [&[][..], &["--at-least-as-strict"]] {
        let args = [&["--container", id][..], more].concat();
        let said = prove(&profile(DOCKER.1), &args);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.out.contains("no filter"), "{said:?}");
    }
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_container_of_the_gate_is_held_to_its_policy_and_to_no_other() {
    let folder = world().folder();
    let policy = &folder.path().join("policy.yaml");
    // Berth's first thread makes this call once, in its start-up, and waits in it to its end. A thread that is stopped, as it
    // is below, makes such a call again when it is let go, and then the phase of now decides: `learn` has counted it there too.
    let text = fs::read_to_string(&learnt().policy).expect("a policy");
    assert!(text.contains("rt_sigtimedwait"), "{text}");
    fs::write(policy, &text).expect("written");
    let node = Node::with(policy);
    let server = node.serving();
    let on = [
        "--container",
        server.0.as_str(),
        "--at-least-as-strict",
        "--format",
        "json",
    ];
    let said = prove(policy, &on);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        matches!(result(&rows(&said)), "equal" | "at least as strict"),
        "{said:?}"
    );
    // berth calls it when it is asked to, and the exercise asked
    let other = node.path("other.yaml");
    let removed = without(&text, "getppid");
    fs::write(&other, removed).expect("written");
    let said = prove(&other, &on);
    assert_eq!(said.code, Some(1), "{said:?}");
    let found = rows(&said);
    assert_eq!(result(&found), "looser");
    assert_eq!(differing(&found, "looser"), ["getppid".to_owned()].into());

    // what is asked is shown as such, and the server is still held by the gate afterwards
    let said = inspect(&["--container", &server.0, "--format", "json"]);
    said.good();
    let found = rows(&said);
    assert_eq!(verdict(&found, "x86_64", "getppid"), "allow");
    assert_eq!(verdict(&found, "x86_64", "getpriority"), "ask");
    assert_ne!(verdict(&found, "x86_64", "mount"), "ask");
    assert_ne!(verdict(&found, "x86_64", "mount"), "allow");
    assert_eq!(world().call("getppid").1, 0);
    assert_eq!(world().call("getpriority").1, 1);
}

/// The policy's text without this call in any list.
#[track_caller]
fn without(text: &str, call: &str) -> String {
    let words = |line: &str| line.split(['[', ']', ',', ' ']).any(|word| word == call);
    assert!(text.lines().any(words), "no {call} in:\n{text}");
    let mut edited = String::new();
    for line in text.lines() {
        // one name of several, or the only one on a line of a list
        let shorter = line
            .replace(&format!("{call}, "), "")
            .replace(&format!(", {call}"), "");
        if words(&shorter) {
            assert_eq!(shorter.trim(), format!("- {call}"), "in:\n{text}");
            continue;
        }
        edited.push_str(&shorter);
        edited.push('\n');
    }
    edited
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn containerds_default_profile_is_shown_and_proved() {
    let folder = world().folder();
    let (server, said) = Task::run(folder.path(), "inspected", &[]);
    said.good();
    let containerd = |verb: &[&str]| {
        let mut lazaret = world().lazaret(verb);
        lazaret.env("CONTAINERD_ADDRESS", &world().containerd.socket);
        lazaret.args(["--container", server.name, "--format", "json"]);
        run(&mut lazaret)
    };
    let said = wait_for("first process", || {
        // it is there at once, but runc's own until it executes berth
        let said = containerd(&["inspect"]);
        said.out.contains("\"comm\":\"berth\"").then_some(said)
    });
    let found = rows(&said);
    assert_eq!(verdict(&found, "x86_64", "read"), "allow");
    assert_eq!(verdict(&found, "x86_64", "mount"), "EPERM");

    let file = profile(CONTAINERD.1);
    let file = file.to_str().expect("text");
    let said = containerd(&["prove", file]);
    let version = Task::version();
    assert!(
        version.starts_with(CONTAINERD.0),
        "containerd {version} has another default profile than `{file}`: take its own"
    );
    said.good();
    assert_eq!(result(&rows(&said)), "equal");

    // without the engine's address it is nobody's name
    let said = inspect(&["--container", server.name]);
    assert_eq!(said.code, Some(2), "{said:?}");
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_container_is_found_by_id_beginning_and_name_and_nothing_else_is() {
    let server = plain(&["--name=lazaret-named"]);
    let id = server.0.clone();
    let whole = inspect(&["--container", &id]);
    // Docker's own short form, one that only Docker understands, and the name
    for given in [&id[..12], &id[..6], "lazaret-named"] {
        let said = inspect(&["--container", given]);
        assert_eq!((said.good(), said.code), (whole.good(), Some(0)));
    }
    let last = if id.ends_with('0') { "1" } else { "0" };
    let near = format!("{}{last}", &id[..63]);
    for (given, part) in [
        (near.as_str(), "No such container"),
        ("lazaret-name", "no running container `lazaret-name`"),
        ("lazaret-named; id", "lazaret-named; id"),
        ("", "container"),
    ] {
        for said in [
            inspect(&["--container", given]),
            prove(&profile(DOCKER.1), &["--container", given]),
        ] {
            assert_eq!(said.code, Some(2), "{given}: {said:?}");
            assert!(said.err.contains(part), "{given}: {said:?}");
            assert_eq!(said.out, "", "{given}");
        }
    }
    world().docker(&["stop", "--time=20", &id]).good();
    for given in [&id, "lazaret-named"] {
        let said = inspect(&["--container", given]);
        assert_eq!(said.code, Some(3), "{said:?}");
        assert!(said.err.contains("does not run"), "{said:?}");
    }
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_server_answers_every_request_while_it_is_inspected() {
    const TIMES: usize = 50;
    let (server, _) = by_default();
    let seen = std::thread::scope(|scope| {
        let inspector = scope.spawn(|| {
            let args = ["--container", server.0.as_str(), "--format", "json"];
            (0..TIMES)
                .map(|_| inspect(&args).good().to_owned())
                .collect::<Vec<String>>()
        });
        let mut answered = 0;
        while !inspector.is_finished() {
            // the second makes threads and ends them, so the list is never the same
            for path in ["/ready", "/threads?n=3", "/call/getppid"] {
                let (status, body) = world().get(path).expect("an answer");
                assert_eq!(status, 200, "{path}: {body}");
                answered += 1;
            }
        }
        assert!(answered > 0);
        inspector.join().expect("each was read")
    });
    assert_eq!(seen.len(), TIMES);
    for said in seen {
        assert!(said.contains("\"filters\":1"), "{said}");
    }
    assert_eq!(server.inspect("{{.State.Running}}"), "true");
}
