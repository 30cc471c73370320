//! containerd 1.6 without the wrapper: `ctr run --seccomp-profile` hands the stored profile to plain runc.

use crate::learn::learnt;
use crate::node::Node;
use crate::world::{Said, made, run, wait_for, world};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `ctr` in the engine's network and mount namespaces: client and shim meet in `/run/containerd/fifo`.
pub(crate) fn ctr(args: &[&str]) -> Command {
    let containerd = &world().containerd;
    let mut ctr = Command::new("nsenter");
    for namespace in ["net", "mnt"] {
        let kind = if namespace == "mnt" {
            "mount"
        } else {
            namespace
        };
        ctr.arg(format!("--{kind}=/proc/{}/ns/{namespace}", containerd.pid));
    }
    ctr.args(["--", "ctr", "--address"]).arg(&containerd.socket);
    ctr.args(args);
    ctr
}

/// A container of containerd's, to be removed; what it prints goes into a file.
pub(crate) struct Task {
    pub(crate) name: &'static str,
    output: PathBuf,
}

impl Task {
    /// `ctr run` of berth under this profile; also what `ctr` says of it.
    fn under(node: &Node, name: &'static str, profile: &Path) -> (Task, Said) {
        let profile = profile.to_str().expect("text");
        Task::run(&node.path(""), name, &["--seccomp-profile", profile])
    }

    /// `ctr run` of berth under containerd's default profile, with these options, its output in this folder.
    pub(crate) fn run(folder: &Path, name: &'static str, options: &[&str]) -> (Task, Said) {
        let task = Task {
            name,
            output: folder.join(format!("{name}.log")),
        };
        let output = format!("--log-uri=file://{}", task.output.display());
        let cgroup = format!("--cgroup={}/{name}", world().containerd.cgroup);
        let image = format!("docker.io/{}", world().berth().reference);
        let mut ctr = ctr(&["run", "--detach", "--net-host", "--seccomp"]);
        ctr.args(options);
        let said = run(ctr.args([&output, &cgroup, &image, name]));
        (task, said)
    }

    /// The engine's version, as `v1.6.20`.
    pub(crate) fn version() -> String {
        let said = run(&mut ctr(&["version"]));
        let mut versions = said.good().lines().skip_while(|line| *line != "Server:");
        let version = versions.find_map(|line| line.trim().strip_prefix("Version:"));
        let version = version.expect("the server's version").trim();
        // Debian writes it without the letter
        format!("v{}", version.trim_start_matches('v'))
    }

    fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        run(&mut ctr(&["tasks", "rm", "--force", self.name]));
        run(&mut ctr(&["containers", "rm", self.name]));
    }
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_server_under_containerd_is_admitted_and_held() {
    let node = Node::with(&learnt().policy);
    let pid = world().containerd.pid;
    let profile = node.papers().join("profile.json");
    let (server, said) = Task::under(&node, "held", &profile);
    said.good();
    node.wait_phase(server.name, "serving");
    let status = node.status(server.name).expect("it is known");
    assert_eq!(status["state"]["image"], world().berth().config_digest);
    assert_eq!(made(pid, "getppid"), (0, 0));
    assert_eq!(made(pid, "getpriority"), (-1, 1));
    let denied = node.wait_event(server.name, "denied", "call", "getpriority");
    assert_eq!(
        (&denied["phase"], &denied["process"]),
        (&"serving".into(), &"berth".into())
    );
    let exec = |call: &str| {
        let probe = ["tasks", "exec", "--exec-id", call, server.name];
        run(ctr(&probe).args(["/berth", "exec-probe", call]))
    };
    let (good, held) = (exec("getsid"), exec("getpriority"));
    assert!(good.good().contains("\"errno\": 0"), "{good:?}");
    assert!(held.good().contains("\"errno\": 1"), "{held:?}");

    // nobody tells the gate of the stop signal where there is no wrapper
    run(&mut node.ask(&["phase", server.name, "stopping"])).good();
    run(&mut ctr(&[
        "tasks",
        "kill",
        "--signal",
        "SIGTERM",
        server.name,
    ]))
    .good();
    wait_for("end of the container", || {
        node.status(server.name).is_none().then_some(())
    });
    let output = server.output();
    assert!(
        output.contains("{\"call\": \"unlink\", \"result\": -1, \"errno\": 2}"),
        "{output}"
    );
    assert_eq!(
        node.phases(server.name),
        [
            "prelude>startup (execve)",
            "startup>serving (readiness)",
            "serving>stopping (by hand)"
        ]
    );
}

#[test]
#[ignore = "needs the engines of cargo xtask test"]
fn a_container_of_containerd_without_a_bundle_does_not_start() {
    let node = Node::with(&learnt().policy);
    let profile = node.papers().join("profile.json");
    fs::remove_file(node.papers().join("bundle.json")).expect("it was there");
    let (server, said) = Task::under(&node, "refused", &profile);
    // runc's `start` has done its part when the first `execve` fails
    said.good();
    let event = node.wait_event(server.name, "refused", "check", "no-bundle");
    let reason = event["reason"].as_str().expect("text");
    assert!(reason.contains(&world().berth().config_digest), "{reason}");
    let expected =
        format!("lazaret: container not started: {reason}\nexec /berth: permission denied\n");
    wait_for("sentence", || (server.output() == expected).then_some(()));
}
