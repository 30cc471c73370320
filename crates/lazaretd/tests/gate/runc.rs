//! The same with a real runtime: runc makes the filter from the compiled profile, hands the listener over, and its Go
//! threads and signals do what they do.

use crate::node::{Node, Ours, Paper, STARTUP};
use crate::sandbox::hear;
use lazaret_core::filter::oci::{self, Listener};
use lazaret_core::policy::Policy;
use serde_json::json;
use std::fs;
use std::io::{BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio};

fn skipped() -> bool {
    if crate::node::skipped() {
        return true;
    }
    let there = Command::new("runc")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    let there = there.is_ok_and(|status| status.success());
    if !there {
        println!("SKIP: no runc");
    }
    !there
}

/// A container of runc's. Deleted with everything in it when dropped.
struct Container {
    id: String,
    root: PathBuf,
    bundle: PathBuf,
    run: Option<Ours>,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    stderr: Option<ChildStderr>,
}

impl Container {
    /// `runc run` with the profile of `policy`, as an engine does.
    fn run(node: &Node, policy: &Policy, no_new_privileges: bool) -> Container {
        Container::run_tampered(node, policy, &[], no_new_privileges)
    }

    /// The same with a profile in which somebody has allowed these calls.
    fn run_tampered(
        node: &Node,
        policy: &Policy,
        allowed: &[&str],
        no_new_privileges: bool,
    ) -> Container {
        let id = node.docker_container();
        // as containerd names it: the gate reads engine and id off the path
        let bundle = node.path("io.containerd.runtime.v2.task/moby").join(&id);
        let listener = Listener {
            path: node.path("run/gate.sock").display().to_string(),
            metadata: policy.digest().to_string(),
        };
        let profile = oci::profile(&policy.kernel_table(), Some(&listener)).expect("a profile");
        let mut seccomp = serde_json::to_value(profile).expect("JSON");
        let rules = seccomp["syscalls"].as_array_mut().expect("rules");
        for rule in &mut *rules {
            let names = rule["names"].as_array_mut().expect("names");
            names.retain(|name| !allowed.contains(&name.as_str().expect("a name")));
        }
        rules.retain(|rule| rule["names"] != json!([]));
        if !allowed.is_empty() {
            rules.push(json!({"names": allowed, "action": "SCMP_ACT_ALLOW"}));
        }
        let rootfs = bundle.join("rootfs");
        fs::create_dir_all(rootfs.join("usr")).expect("rootfs");
        fs::create_dir_all(rootfs.join("proc")).expect("rootfs");
        for name in ["bin", "lib", "lib64"] {
            // Debian 12: everything is below /usr
            std::os::unix::fs::symlink(format!("usr/{name}"), rootfs.join(name)).expect("link");
        }
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0}, "args": ["/bin/sh"], "env": ["PATH=/bin"], "cwd": "/",
                "noNewPrivileges": no_new_privileges, "capabilities": {},
            },
            "root": {"path": "rootfs", "readonly": false},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]},
            ],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}], "seccomp": seccomp},
        });
        fs::write(bundle.join("config.json"), config.to_string()).expect("config.json");
        let root = node.path("runc");
        let (run, stdin, stdout, stderr) = spawn(
            Command::new("runc")
                .arg("--root")
                .arg(&root)
                .args(["run", "--bundle"])
                .arg(&bundle)
                .arg(&id),
        );
        Container {
            id,
            root,
            bundle,
            run: Some(run),
            stdin: Some(stdin),
            stdout,
            stderr: Some(stderr),
        }
    }

    fn runc(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(&self.root).args(arguments);
        command
    }

    fn try_chdir(&mut self) -> bool {
        let stdin = self.stdin.as_mut().expect("open");
        stdin
            .write_all(b"cd /usr && echo @yes || echo @no\n")
            .expect("it reads");
        hear(&mut self.stdout) == "yes"
    }

    /// Ends its shell; returns runc's exit code and all of the container's and runc's standard error.
    fn end(&mut self) -> (Option<i32>, String) {
        drop(self.stdin.take());
        let mut text = String::new();
        let mut stderr = self.stderr.take().expect("piped");
        stderr.read_to_string(&mut text).expect("text");
        let mut run = self.run.take().expect("running");
        (run.0.wait().expect("ended").code(), text)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let id = self.id.clone();
        let delete = self.runc(&["delete", "--force", &id]).output();
        assert!(delete.is_ok(), "runc delete");
        assert!(self.bundle.exists());
    }
}

fn spawn(command: &mut Command) -> (Ours, ChildStdin, BufReader<ChildStdout>, ChildStderr) {
    let mut started = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map(Ours)
        .expect("runc");
    let stdin = started.0.stdin.take().expect("piped");
    let stdout = BufReader::new(started.0.stdout.take().expect("piped"));
    let stderr = started.0.stderr.take().expect("piped");
    (started, stdin, stdout, stderr)
}

fn phase(node: &Node, id: &str, to: &str) {
    let request = json!({"type": "phase", "v": 1, "container": id, "to": to});
    assert_eq!(node.client().ask(&request)["type"], "done");
}

#[test]
fn a_container_of_runc_starts_is_confined_and_takes_execs() {
    if skipped() {
        return;
    }
    let paper = Paper::default();
    let policy = paper.policy();
    let node = Node::with(&paper);
    for no_new_privileges in [false, true] {
        let mut events = node.watch();
        let mut container = Container::run(&node, &policy, no_new_privileges);
        let admitted = events.until("admitted");
        // what this libseccomp does not know, and nothing that the policy allows
        let stricter = admitted["stricter"].as_array().expect("a list");
        assert!(stricter.len() < 40, "{admitted}");
        assert!(container.try_chdir());
        phase(&node, &container.id, "serving");
        assert!(!container.try_chdir());
        let denied = events.until("denied");
        assert_eq!(
            (&denied["call"], &denied["process"]),
            (&json!("chdir"), &json!("sh"))
        );

        let id = container.id.clone();
        let words = "echo @here; cd /usr || echo @denied";
        let (mut exec, _stdin, mut stdout, _stderr) =
            spawn(&mut container.runc(&["exec", &id, "/bin/sh", "-c", words]));
        assert_eq!(hear(&mut stdout), "here");
        assert_eq!(hear(&mut stdout), "denied");
        let denied = events.until("denied");
        assert_eq!(
            (&denied["call"], &denied["phase"]),
            (&json!("chdir"), &json!("exec"))
        );
        assert!(exec.0.wait().is_ok());
        assert_eq!(events.until("ended")["exec"], true);

        let (code, said) = container.end();
        assert!(!said.contains("lazaret"), "{said}");
        assert!(code.is_some());
        assert_eq!(events.until("ended")["exec"], false);
    }
    assert_eq!(node.status()["containers"], json!([]));
}

#[test]
fn a_container_of_runc_without_papers_says_why_and_fails() {
    if skipped() {
        return;
    }
    let policy = Paper::default().policy();
    let mut node = Node::new();
    node.start();
    for no_new_privileges in [false, true] {
        let mut container = Container::run(&node, &policy, no_new_privileges);
        let (code, said) = container.end();
        let sentence = "lazaret: container not started: no policy is installed for image sha256:";
        assert_eq!(
            said.matches(sentence).count(),
            1,
            "once, however often Go retries: {said}"
        );
        assert!(
            said.contains("permission denied"),
            "runc's own words: {said}"
        );
        assert_ne!(code, Some(0));
    }
}

#[test]
fn a_profile_that_an_engine_loosened_is_refused() {
    if skipped() {
        return;
    }
    let policy = Paper::default().policy();
    let node = Node::with(&Paper::default());
    let mut events = node.watch();
    let mut container = Container::run_tampered(&node, &policy, &["chdir"], false);
    let (code, said) = container.end();
    assert_ne!(code, Some(0));
    let refused = events.until("refused");
    assert_eq!(refused["check"], "filter-looser", "{refused}");
    let reason = "the kernel's filter is looser than the policy: chdir is allowed instead of asked";
    assert!(said.contains(reason), "{said}");
}

#[test]
fn a_profile_that_does_not_ask_about_execve_gets_its_container_killed() {
    if skipped() {
        return;
    }
    let policy = Paper::default().policy();
    let node = Node::with(&Paper::default());
    // whether it asks for something afterwards or nothing at all
    for calls in [&["execve"][..], STARTUP] {
        let mut events = node.watch();
        let mut container = Container::run_tampered(&node, &policy, calls, false);
        let refused = events.until("refused");
        assert_eq!(refused["check"], "execve-unasked", "{refused}");
        events.until("ended");
        let (code, _) = container.end();
        assert_ne!(code, Some(0), "killed, mostly before runc itself was done");
    }
}
