//! `lazaret learn` that does not come to its end: Ctrl-C, SIGTERM, a full disk. Nothing is left, nothing is lost.

use crate::learn::{files, learn};
use crate::world::{Ours, Said, run, wait_for, world};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Starts learning, sends a signal when `reached` says so, and gives back how it ended.
#[track_caller]
fn signalled(learn: &mut Command, signal: &str, reached: impl Fn() -> bool) -> Said {
    learn.stdin(Stdio::null());
    learn.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut learning = Ours(learn.spawn().expect("lazaret"));
    wait_for("moment for the signal", || reached().then_some(()));
    let pid = learning.0.id().to_string();
    // the shell's own: a bare Debian has no `kill` program
    run(Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", signal, &pid])).good();
    learning.end(learn)
}

#[track_caller]
fn nothing_is_left(said: &Said, folder: &Path) {
    assert_eq!(said.code, Some(130), "{said:?}");
    assert!(said.err.contains("interrupted, cleaning up"), "{said:?}");
    world().no_container_is_left();
    assert_eq!(files(folder), [""; 0]);
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn while_it_waits_for_the_server() {
    for signal in ["INT", "TERM"] {
        let folder = world().folder();
        let never = "--run-arg=--env=BERTH_READY_AFTER_MS=86400000";
        let mut learn = learn(&world().berth().reference, folder.path(), &[never]);
        let said = signalled(&mut learn, signal, || world().get("/ready").is_some());
        nothing_is_left(&said, folder.path());
    }
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn while_a_command_exercises_the_server() {
    let (folder, beside) = (world().folder(), world().folder());
    let pid = beside.path().join("pid");
    let command = format!("echo $$ > {}; exec sleep 86400", pid.display());
    let args = ["--exercise-cmd", &command];
    let mut learn = learn(&world().berth().reference, folder.path(), &args);
    let exerciser = || fs::read_to_string(&pid).unwrap_or_default();
    // only lazaret gets the signal, as from a service manager; a terminal would send it to the command too
    let said = signalled(&mut learn, "TERM", || exerciser().ends_with('\n'));
    nothing_is_left(&said, folder.path());
    let process = format!("/proc/{}", exerciser().trim());
    wait_for("end of the exercise command", || {
        (!Path::new(&process).exists()).then_some(())
    });
}

/// A disk of 64 KiB with an earlier recording on it and no room left. In a mount namespace of its own, which takes the disk
/// away when this ends; says how learning ended, whether the recording is what it was, and what else is there.
const FULL: &str = r#"set -e
mount -t tmpfs -o size=64k none "$1"
mkdir "$1/recordings"
echo precious > "$1/recordings/run-1.json"
cat /dev/zero > "$1/ballast" 2> /dev/null || true
shift
code=0
"$@" || code=$?
echo "code $code"
"#;

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_full_disk_loses_nothing() {
    let folder = world().folder();
    let learn = learn(
        &world().berth().reference,
        folder.path(),
        &["--exercise-cmd", "true"],
    );
    let mut full = world().with_docker("unshare");
    let tell = format!(
        "{FULL}cat {0}/recordings/run-1.json; find {0} -type f | sort",
        folder.path().display()
    );
    full.args(["--mount", "--", "sh", "-c", &tell, "sh"]);
    full.arg(folder.path()).arg(learn.get_program());
    let said = run(full.args(learn.get_args()));
    let expected = format!(
        "code 3\nprecious\n{0}/ballast\n{0}/recordings/run-1.json",
        folder.path().display()
    );
    assert_eq!(said.good(), expected, "{said:?}");
    assert!(said.err.contains("cannot save the recording"), "{said:?}");
    assert!(said.err.contains("No space left on device"), "{said:?}");
    world().no_container_is_left();
}
