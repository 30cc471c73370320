//! `lazaret learn`: what it makes of berth, and what goes wrong on the way.

use crate::world::{HARDENED, PORT, Said, run, world};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What the server and `docker exec` are made to do: a child, threads, two calls, and a third by `exec` only.
///
/// In bash, which can talk TCP, as nothing else on the machine is known to.
const EXERCISE: &str = r#"set -e
ask() {
    exec 3<>/dev/tcp/127.0.0.1/8080
    printf 'GET %s HTTP/1.1\r\n\r\n' "$1" >&3
    grep -q '^HTTP/1.1 200' <&3
    exec 3>&-
}
for path in /fork /threads?n=3 /read?path=/nonexistent /call/getppid /call/sched_yield; do ask "$path"; done
docker exec "$(docker ps --quiet --filter label=dev.lazaret.learn=1)" /berth exec-probe getsid
"#;

/// A policy learnt from berth.
pub(crate) struct Learnt {
    /// `policy.yaml`
    pub(crate) policy: PathBuf,
    folder: PathBuf,
    said: Said,
}

/// `lazaret learn` of berth with these arguments, into this folder.
pub(crate) fn learn(image: &str, folder: &Path, args: &[&str]) -> Command {
    let mut learn = world().lazaret(&["learn", image, "--format", "json"]);
    learn.arg("--out").arg(folder);
    learn.args(["--settle", "1", "--dwell", "0", "--ready", "/ready"]);
    learn.args(HARDENED.map(|arg| format!("--run-arg={arg}")));
    learn.args(args);
    learn
}

/// Learns berth; once for all tests.
pub(crate) fn learnt() -> &'static Learnt {
    static LEARNT: OnceLock<Learnt> = OnceLock::new();
    LEARNT.get_or_init(|| {
        let folder = world().folder().keep();
        let script = folder.join("exercise.sh");
        fs::write(&script, EXERCISE).expect("written");
        let command = format!("bash {}", script.display());
        let args = ["--exercise-cmd", &command, "--runs", "2"];
        let said = run(&mut learn(&world().berth().reference, &folder, &args));
        said.good();
        Learnt {
            policy: folder.join("policy.yaml"),
            folder,
            said,
        }
    })
}

/// Band and phases of each call that the policy allows in some phase.
fn calls(policy: &Path) -> BTreeMap<String, (String, Vec<String>)> {
    let mut show = world().lazaret(&["policy", "show", "--format", "json"]);
    let said = run(show.arg(policy));
    let rows = said.good().lines();
    let rows = rows.map(|row| serde_json::from_str::<Value>(row).expect("JSON"));
    let rows =
        rows.filter(|row| row["type"] == "call" && row["phases"] != Value::Array(Vec::new()));
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    rows.map(|row| {
        let phases = row["phases"].as_array().expect("a list");
        let phases = phases.iter().map(text).collect();
        (text(&row["call"]), (text(&row["band"]), phases))
    })
    .collect()
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn berth_is_learnt_whole_and_each_call_stands_in_its_phase() {
    let learnt = learnt();
    let told: Value = serde_json::from_str(learnt.said.good()).expect("JSON");
    assert_eq!((&told["lost"], &told["runs"]), (&0.into(), &2.into()));
    let text = fs::read_to_string(&learnt.policy).expect("a policy");
    for line in ["complete: true", "lost: 0", "stopped: true"] {
        assert!(text.contains(line), "`{line}` is not in:\n{text}");
    }
    assert!(text.contains(&world().berth().config_digest), "{text}");
    for made in [
        "recordings/run-1.json",
        "recordings/run-2.json",
        "profile.json",
    ] {
        assert!(learnt.folder.join(made).is_file(), "no {made}");
    }

    let calls = calls(&learnt.policy);
    let all = ["startup", "serving", "stopping", "exec"].as_slice();
    for (call, band, phases) in [
        ("getppid", "allow", all),
        ("sched_yield", "allow", all),
        ("accept4", "allow", all),
        ("bind", "ask", &["startup"]),
        ("listen", "ask", &["startup"]),
        ("socket", "ask", &["startup", "exec"]),
        ("connect", "ask", &["exec"]),
        ("getsid", "ask", &["exec"]),
        ("unlink", "ask", &["stopping"]),
    ] {
        let phases = phases.iter().map(ToString::to_string).collect();
        let expected = Some((band.to_owned(), phases));
        assert_eq!(calls.get(call).cloned(), expected, "{call}");
    }
    for never in ["getpriority", "mkdir", "execve", "mount", "io_uring_setup"] {
        assert!(!calls.contains_key(never), "{never} was never seen");
    }
    world().no_container_is_left();
}

/// Learning that must fail: exit code and parts of what it says; nothing is left.
#[track_caller]
fn fails(command: &mut Command, folder: &Path, code: i32, parts: &[&str]) {
    let said = run(command);
    assert_eq!(said.code, Some(code), "{said:?}");
    let last = said.err.trim_end();
    for part in parts {
        assert!(last.contains(part), "`{part}` is not in: {last}");
    }
    assert_eq!(said.out, "", "nothing was learnt");
    world().no_container_is_left();
    let files = files(folder);
    assert_eq!(files, [""; 0], "files are left");
}

/// The files below a folder, by their names.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        if entry.file_type().expect("a type").is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found.sort();
    found
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn an_image_that_is_not_there() {
    let folder = world().folder();
    let mut learn = learn("lazaret/absent:none", folder.path(), &[]);
    let parts = ["image `lazaret/absent:none`", "No such image"];
    fails(&mut learn, folder.path(), 1, &parts);
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn an_image_without_a_port_needs_a_base() {
    let world = world();
    let image = "lazaret/portless:test";
    let berth = &world.berth().reference;
    let source = world.docker(&["create", berth]).good().to_owned();
    let import = format!("docker export {source} | docker import - {image}");
    run(world.with_docker("sh").args(["-c", &import])).good();
    world.docker(&["rm", &source]).good();
    let folder = world.folder();
    let mut learn = learn(image, folder.path(), &[]);
    let parts = ["exposes no TCP port", "--fhir-base URL"];
    fails(&mut learn, folder.path(), 2, &parts);
    world.docker(&["rmi", image]).good();
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_server_that_never_becomes_ready() {
    let folder = world().folder();
    let never = "--run-arg=--env=BERTH_READY_AFTER_MS=86400000";
    let args = ["--ready-timeout", "1", never];
    let mut learn = learn(&world().berth().reference, folder.path(), &args);
    let url = format!("http://127.0.0.1:{PORT}/ready did not answer 200 within 1s");
    let parts = ["the server did not become ready", &url, "503"];
    fails(&mut learn, folder.path(), 1, &parts);
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_server_that_ends_before_it_is_ready() {
    let folder = world().folder();
    let args = ["--cmd-arg=bogus"];
    let mut learn = learn(&world().berth().reference, folder.path(), &args);
    let parts = ["exit code 2", "berth: unknown command `bogus`"];
    fails(&mut learn, folder.path(), 1, &parts);
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_server_that_dies_while_it_is_exercised() {
    let folder = world().folder();
    let kill = "docker kill $(docker ps --quiet --filter label=dev.lazaret.learn=1)";
    let args = ["--exercise-cmd", kill];
    let mut learn = learn(&world().berth().reference, folder.path(), &args);
    let parts = [
        "the container ended while it was exercised with exit code 137",
        "berth: listening",
    ];
    fails(&mut learn, folder.path(), 1, &parts);
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn an_exercise_that_fails() {
    let folder = world().folder();
    let args = ["--exercise-cmd", "exit 7"];
    let mut learn = learn(&world().berth().reference, folder.path(), &args);
    let parts = ["the exercise command ended with exit status: 7"];
    fails(&mut learn, folder.path(), 1, &parts);
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_server_that_does_not_speak_fhir() {
    let folder = world().folder();
    let mut learn = learn(&world().berth().reference, folder.path(), &[]);
    let parts = ["cannot exercise the server", "/fhir", "404"];
    fails(&mut learn, folder.path(), 1, &parts);
}
