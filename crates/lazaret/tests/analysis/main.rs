//! What is said about policies, profiles and filters, as a user meets it: text, JSON, exit codes, bad input. Needs nothing but
//! a temporary directory.

mod filters;
mod policies;
mod profiles;
mod recordings;
mod refused;

use std::fs;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const POLICY: &str = r#"apiVersion: lazaret.dev/v1
kind: SyscallPolicy
metadata: {name: t, revision: 1}
image: {name: t, digests: ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}
environment: {arch: x86_64, runtimes: [runc 1.1.5], kernel: ">=5.11", noNewPrivileges: true}
mode: enforce
phases:
  serving: {when: {http: {port: 8080, path: /metadata, status: 200}, settle: 10s}}
ceiling: default
otherwise: {action: errno, errno: EPERM}
rules:
  - allow: [write, exit, exit_group, restart_syscall, rt_sigreturn, read]
    why: every process needs them
  - allow: [socket]
    when: [{arg: family, in: [AF_UNIX, AF_INET]}]
    why: upstream connections
  - allow: [bind]
    until: serving
    why: start-up only
"#;

const PROFILE: &str = r#"{
  "defaultAction": "SCMP_ACT_ERRNO",
  "architectures": ["SCMP_ARCH_X86_64"],
  "syscalls": [
    {"names": ["exit", "exit_group", "read", "restart_syscall", "rt_sigreturn", "write", "getpid", "ptrace"], "action": "SCMP_ACT_ALLOW"},
    {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]},
    {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
    {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_CHROOT"]}}
  ]
}
"#;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

struct Desk(TempDir);

impl Desk {
    fn new() -> Desk {
        let desk = Desk(TempDir::new().expect("a temporary directory"));
        desk.write("p.yaml", POLICY);
        desk.write("p.json", PROFILE);
        desk
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).expect("written");
    }

    fn bytes(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.path().join(name), bytes).expect("written");
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.path().join(name)).expect("written")
    }

    fn exists(&self, name: &str) -> bool {
        self.0.path().join(name).exists()
    }

    fn run(&self, line: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_lazaret"))
            .args(line.split_whitespace())
            // no engine: nothing here may need one
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .output()
            .expect("lazaret runs")
    }

    /// Runs it; what it says, the exit code checked.
    #[track_caller]
    fn check(&self, line: &str, code: i32, wanted: &[&str]) -> String {
        let output = self.run(line);
        let mut all = String::from_utf8_lossy(&output.stdout).into_owned();
        all.push_str(&String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{line}: {all}");
        for wanted in wanted {
            assert!(all.contains(wanted), "{line}: `{wanted}` is not in: {all}");
        }
        all
    }

    /// The types of the objects that it prints, each one a line.
    #[track_caller]
    fn types(&self, line: &str, wanted: &[&str]) {
        let output = self.run(&format!("--format json {line}"));
        let text = String::from_utf8_lossy(&output.stdout);
        let mut types: Vec<String> = Vec::new();
        for line in text.lines() {
            let value: serde_json::Value =
                serde_json::from_str(line).expect("one JSON object a line");
            assert_eq!(value["v"], 1, "{line}");
            types.push(value["type"].as_str().expect("a type").to_string());
        }
        types.dedup();
        assert_eq!(types, wanted, "{line}: {text}");
    }
}
