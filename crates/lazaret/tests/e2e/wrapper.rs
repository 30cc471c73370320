//! Containers that nobody confines: under the wrapper they are what they are under plain runc.

use crate::node::{Container, Node};
use crate::world::{HARDENED, Said, world};

/// `docker run` of berth's image with this command under a runtime: all that a user sees of it.
fn seen(runtime: &str, options: &[&str], command: &[&str]) -> (Option<i32>, String, String) {
    let mut args = vec!["run", "--rm", runtime];
    args.extend(HARDENED);
    args.extend(options);
    args.push(&world().berth().reference);
    args.extend(command);
    let Said { code, out, err } = world().docker(&args);
    // Docker's client logs this or not, as it happens to hear of the container's end (`waitExitOrRemoved`, docker/cli
    // cli/command/container/utils.go, 20.10): neither runtime is asked
    let chance = "error waiting for container: context canceled";
    let lines = err.split_inclusive('\n');
    let err = lines.filter(|line| !line.contains(chance)).collect();
    (code, out, err)
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn exit_codes_and_output_are_those_of_runc() {
    let _node = Node::new();
    let wrapped = world().runtime();
    let cases: [(&[&str], &[&str], i32, &str); 6] = [
        (&[], &["bogus"], 2, "unknown command `bogus`"),
        (&[], &["exec-probe", "getppid"], 1, "cannot ask the server"),
        (&[], &["exec-probe", "nonsense"], 2, "no call `nonsense`"),
        (
            &["--entrypoint=/absent"],
            &[],
            127,
            "no such file or directory",
        ),
        (&["--entrypoint=/tmp"], &[], 126, "permission denied"),
        (&["--workdir=/proc/none"], &[], 127, "/proc/none"),
    ];
    for (options, command, code, part) in cases {
        let (plain, ours) = (
            seen("--runtime=runc", options, command),
            seen(&wrapped, options, command),
        );
        assert_eq!(ours, plain, "{options:?} {command:?}");
        assert_eq!(ours.0, Some(code), "{ours:?}");
        assert!(ours.2.contains(part), "{ours:?}");
    }
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_server_that_nobody_confines_does_what_it_likes() {
    let node = Node::new();
    // no gate runs: nothing of this needs one
    let server: Container = node.berth(&[]);
    world().wait_answering();
    assert_eq!(world().call("getpriority").1, 0);
    let probe = server.probe(&["getpriority"]);
    assert!(probe.good().contains("\"errno\": 0"), "{probe:?}");
    world().docker(&["kill", "--signal=TERM", &server.0]).good();
    assert_eq!(world().docker(&["wait", &server.0]).good(), "0");
}
