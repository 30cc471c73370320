//! The command line as a user meets it: exit codes, messages, and what is left behind. Needs nothing but a temporary
//! directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const POLICY: &str = r#"apiVersion: lazaret.dev/v1
kind: SyscallPolicy
metadata: {name: t, revision: 1}
image: {name: t, digests: ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}
environment: {arch: x86_64, runtimes: [runc 1.1.5], kernel: ">=5.11", noNewPrivileges: true}
mode: enforce
ceiling: default
otherwise: {action: errno, errno: EPERM}
rules:
  - allow: [exit, exit_group, restart_syscall, rt_sigreturn, write, read]
    why: required
  - allow: [bind]
    until: serving
    why: start-up only
"#;
const IMAGE: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

struct Desk(TempDir);

impl Desk {
    fn new() -> Desk {
        let desk = Desk(TempDir::new().expect("a temporary directory"));
        desk.write("policy.yaml", POLICY);
        desk
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).expect("written");
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lazaret"));
        // no engine: nothing here may need one
        command.env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
        command
            .args(args)
            .current_dir(self.path())
            .stdin(Stdio::null())
            .output()
            .expect("lazaret runs")
    }

    /// Runs it; exit code and a part of what it says.
    #[track_caller]
    fn check(&self, args: &[&str], code: i32, said: &str) -> String {
        let output = self.run(args);
        let all = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.status.code(), Some(code), "{args:?}: {all}");
        assert!(all.contains(said), "{args:?}: `{said}` is not in: {all}");
        all
    }

    /// A key pair and its directory of pinned keys.
    fn keys(&self) {
        self.check(
            &["key", "generate", "-o", "site.key"],
            0,
            "BEGIN PUBLIC KEY",
        );
        fs::create_dir(self.path().join("keys")).expect("made");
        fs::copy(
            self.path().join("site.key.pub"),
            self.path().join("keys/site.pem"),
        )
        .expect("copied");
    }
}

#[test]
fn policies_are_checked() {
    let desk = Desk::new();
    desk.check(
        &["policy", "check", "policy.yaml"],
        0,
        "t revision 1: sha256:",
    );
}

#[test]
fn bad_policies_have_a_line_and_a_column() {
    let desk = Desk::new();
    for (from, to, said) in [
        (
            "read]",
            "reed]",
            "line 10 column 69: unknown system call `reed` for x86_64",
        ),
        ("mode: enforce", "mode: enforce\nextra: 1", "extra"),
        (
            "[bind]",
            "[ptrace]",
            "line 12 column 13: `ptrace` is under the ceiling",
        ),
        ("revision: 1", "revision: one", "line 3"),
    ] {
        desk.write("bad.yaml", &POLICY.replace(from, to));
        desk.check(&["policy", "check", "bad.yaml"], 2, said);
        desk.check(
            &["compile", "bad.yaml", "--to", "oci", "-o", "out.json"],
            2,
            said,
        );
        assert!(!desk.path().join("out.json").exists());
    }
    desk.check(
        &["policy", "check", "absent.yaml"],
        2,
        "cannot open policy `absent.yaml`",
    );
    desk.write(
        "large.yaml",
        &format!("{POLICY}# {}\n", "x".repeat(2 << 20)),
    );
    desk.check(
        &["policy", "check", "large.yaml"],
        2,
        "larger than 1048576 bytes",
    );
}

#[test]
fn usage_errors_are_two() {
    let desk = Desk::new();
    for args in [
        &["nonsense"][..],
        &["learn"],
        &["learn", "i", "-o", "d", "--runs", "0"],
        &["decide", "policy.yaml"],
    ] {
        desk.check(args, 2, "--help");
    }
    desk.check(&["exercise", "fhir", "ftp://127.0.0.1/"], 2, "http");
    desk.check(&["--version"], 0, "lazaret 0.");
    desk.check(&["--help"], 0, "Exit codes");
}

#[test]
fn without_an_engine_the_host_cannot() {
    let desk = Desk::new();
    desk.check(
        &["learn", "image", "-o", "out"],
        3,
        "cannot reach the container engine",
    );
    assert!(!desk.path().join("out").exists());
    desk.check(
        &["record", "--out", "r.json", "--", "image"],
        1,
        "none of the arguments is an image",
    );
    desk.check(
        &["status", "--control", "absent.sock"],
        3,
        "is lazaretd running?",
    );
    desk.check(&["doctor"], 3, "container engine");
}

#[test]
fn a_server_that_is_no_fhir_server_is_named() {
    use std::io::{Read, Write};
    let desk = Desk::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _read = stream.read(&mut [0; 4096]).expect("a request");
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>").expect("answered");
        }
    });
    let url = format!("http://127.0.0.1:{port}/fhir");
    desk.check(&["exercise", "fhir", &url], 1, "cannot exercise the server");
    desk.check(
        &["exercise", "fhir", "http://127.0.0.1:1/fhir"],
        1,
        "cannot exercise the server",
    );
}

#[test]
fn one_verdict_and_its_rule() {
    let desk = Desk::new();
    let decide = |phase: &str, call: &str, code: i32, said: &str| {
        desk.check(
            &["decide", "policy.yaml", "--phase", phase, "--call", call],
            code,
            said,
        )
    };
    decide("startup", "bind", 0, "allow (ask band; start-up only)");
    decide("serving", "bind", 1, "EPERM (ask band");
    decide("serving", "read", 0, "allow (allow band; required)");
    decide("serving", "mount", 1, "EPERM (deny band");
    decide("serving", "0", 0, "read in serving");
    decide("serving", "9999", 1, "EPERM");
    decide("serving", "reed", 2, "unknown system call `reed`");
    desk.check(
        &[
            "decide",
            "policy.yaml",
            "--phase",
            "serving",
            "--call",
            "0",
            "--arch",
            "i386",
        ],
        1,
        "kill",
    );
}

#[test]
fn compiled_forms_are_what_they_say() {
    let desk = Desk::new();
    desk.check(
        &["compile", "policy.yaml", "--to", "oci", "-o", "p.json"],
        0,
        "",
    );
    let read = |name: &str| fs::read(desk.path().join(name)).expect("written");
    let profile: serde_json::Value = serde_json::from_slice(&read("p.json")).expect("JSON");
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    assert_eq!(profile["listenerPath"], "/run/lazaret/gate.sock");
    let digest = desk.check(&["policy", "check", "policy.yaml"], 0, "sha256:");
    assert!(
        digest.contains(profile["listenerMetadata"].as_str().expect("a digest")),
        "{digest}"
    );
    desk.check(
        &[
            "compile",
            "policy.yaml",
            "--to",
            "oci",
            "--static",
            "-o",
            "s.json",
        ],
        0,
        "",
    );
    let fixed: serde_json::Value = serde_json::from_slice(&read("s.json")).expect("JSON");
    assert!(fixed.get("listenerPath").is_none() && !fixed.to_string().contains("NOTIFY"));
    desk.check(
        &["compile", "policy.yaml", "--to", "bpf", "-o", "p.bpf"],
        0,
        "",
    );
    assert_eq!(read("p.bpf").len() % 8, 0, "struct sock_filter has 8 bytes");
    desk.check(
        &["compile", "policy.yaml", "--to", "disasm"],
        0,
        "rt_sigreturn",
    );
    // same input, same bytes
    desk.check(
        &["compile", "policy.yaml", "--to", "bpf", "-o", "q.bpf"],
        0,
        "",
    );
    assert_eq!(read("p.bpf"), read("q.bpf"));
    desk.check(
        &[
            "compile",
            "policy.yaml",
            "--to",
            "oci",
            "-o",
            "absent/p.json",
        ],
        3,
        "absent",
    );
}

#[test]
fn what_was_signed_verifies_and_nothing_else() {
    let desk = Desk::new();
    desk.keys();
    desk.check(
        &[
            "sign",
            "policy.yaml",
            "--key",
            "site.key",
            "-o",
            "bundle.json",
        ],
        0,
        IMAGE,
    );
    let verify = |digest: &str, code: i32, said: &str| {
        desk.check(
            &[
                "verify",
                "bundle.json",
                "--keys",
                "keys",
                "--image-digest",
                digest,
            ],
            code,
            said,
        );
    };
    verify(IMAGE, 0, "verified: t revision 1");
    verify(&IMAGE.replace("e3b0", "0000"), 4, "the container runs");
    let good = fs::read_to_string(desk.path().join("bundle.json")).expect("a bundle");
    let at = good.find("\"payload\":\"").expect("a payload") + 40;
    let mut changed = good.clone().into_bytes();
    changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
    desk.write("bundle.json", &String::from_utf8(changed).expect("text"));
    verify(IMAGE, 4, "no signature by a pinned key");
    desk.write("bundle.json", &good[..good.len() / 2]);
    verify(IMAGE, 4, "bundle refused");
    desk.check(
        &[
            "key",
            "generate",
            "-o",
            "other.key",
            "--algorithm",
            "ed25519",
        ],
        0,
        "",
    );
    desk.check(
        &[
            "sign",
            "policy.yaml",
            "--key",
            "other.key",
            "-o",
            "bundle.json",
        ],
        0,
        "",
    );
    verify(IMAGE, 4, "no signature by a pinned key");
}

#[test]
fn keys_that_others_can_read_are_refused_and_none_is_overwritten() {
    let desk = Desk::new();
    desk.keys();
    let key = desk.path().join("site.key");
    let mode = fs::metadata(&key).expect("a key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = fs::read(&key).expect("a key");
    desk.check(&["key", "generate", "-o", "site.key"], 2, "site.key");
    assert_eq!(fs::read(&key).expect("a key"), before);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("mode set");
    desk.check(
        &["sign", "policy.yaml", "--key", "site.key", "-o", "b.json"],
        4,
        "640",
    );
    assert!(!desk.path().join("b.json").exists());
    desk.check(
        &["sign", "policy.yaml", "--key", "absent.key", "-o", "b.json"],
        4,
        "absent.key",
    );
}

#[test]
fn bundles_are_installed_with_their_profile() {
    let desk = Desk::new();
    desk.keys();
    fs::create_dir(desk.path().join("store")).expect("made");
    fs::rename(desk.path().join("keys"), desk.path().join("store/keys")).expect("moved");
    desk.check(
        &[
            "sign",
            "policy.yaml",
            "--key",
            "site.key",
            "-o",
            "bundle.json",
        ],
        0,
        "",
    );
    desk.check(
        &["bundle", "install", "bundle.json", "--store", "store"],
        0,
        "installed: t revision 1",
    );
    let image = desk
        .path()
        .join("store/images")
        .join(IMAGE.trim_start_matches("sha256:"));
    let mut revisions = fs::read_dir(image).expect("an image");
    let folder = revisions.next().expect("a revision").expect("readable");
    let folder = folder.path();
    assert_eq!(
        fs::read(folder.join("bundle.json")).expect("there"),
        fs::read(desk.path().join("bundle.json")).expect("there")
    );
    assert!(folder.join("profile.json").exists());
    desk.check(&["key", "generate", "-o", "other.key"], 0, "");
    desk.check(
        &[
            "sign",
            "policy.yaml",
            "--key",
            "other.key",
            "-o",
            "other.json",
        ],
        0,
        "",
    );
    let before = fs::read(folder.join("bundle.json")).expect("there");
    desk.check(
        &["bundle", "install", "other.json", "--store", "store"],
        4,
        "no signature by a pinned key",
    );
    assert_eq!(fs::read(folder.join("bundle.json")).expect("there"), before);
}

/// A desk whose folder `store` pins `site.key`, with `N.json` for each of these revisions.
fn desk_with_revisions(revisions: &[u64]) -> Desk {
    let desk = Desk::new();
    desk.keys();
    fs::create_dir(desk.path().join("store")).expect("made");
    fs::rename(desk.path().join("keys"), desk.path().join("store/keys")).expect("moved");
    let policy = fs::read_to_string(desk.path().join("policy.yaml")).expect("a policy");
    for revision in revisions {
        let text = policy.replace("revision: 1", &format!("revision: {revision}"));
        desk.write("policy.yaml", &text);
        let bundle = format!("{revision}.json");
        let sign = ["sign", "policy.yaml", "--key", "site.key", "-o", &bundle];
        desk.check(&sign, 0, &format!("revision {revision} "));
    }
    desk
}

#[test]
fn revisions_are_installed_listed_and_removed() {
    let desk = desk_with_revisions(&[1, 2]);
    let bundle = |args: &[&str], code, part: &str| {
        let args = [&["bundle"], args, &["--store", "store"]].concat();
        desk.check(&args, code, part);
    };
    bundle(&["list"], 1, "no policy is installed in `store`");
    bundle(&["install", "2.json"], 0, "installed: t revision 2");
    bundle(&["install", "1.json"], 0, "revision 2 is installed too");
    bundle(&["list"], 0, "revision 1");
    bundle(&["list", IMAGE], 0, "signed by ");
    let other = IMAGE.replace('1', "2");
    bundle(&["list", &other], 1, "no policy is installed");

    // the number is taken
    let other = POLICY.replace("revision: 1", "revision: 2");
    desk.write("changed.yaml", &other.replace("name: t", "name: u"));
    desk.check(
        &["sign", "changed.yaml", "--key", "site.key", "-o", "c.json"],
        0,
        "revision 2",
    );
    bundle(
        &["install", "c.json"],
        1,
        "revision 2 is installed as policy",
    );

    let image = desk
        .path()
        .join("store/images")
        .join(IMAGE.trim_start_matches("sha256:"));
    for entry in fs::read_dir(&image).expect("an image") {
        let path = entry.expect("readable").path();
        if path.to_string_lossy().contains("/1-") {
            fs::write(path.join("bundle.json"), "{}").expect("written");
        }
    }
    bundle(&["list"], 4, "refused (bundle-format)");
    bundle(
        &["remove", IMAGE, "--revision", "3"],
        1,
        "revision 3 is not installed",
    );
    bundle(&["remove", IMAGE, "--revision", "1"], 0, "removed: ");
    bundle(&["list"], 0, "revision 2");
    bundle(
        &["remove", IMAGE, "--revision", "2"],
        0,
        "no revision is left",
    );
    assert!(image.exists());

    fs::write(image.join("bundle.json"), "{}").expect("written");
    bundle(&["list"], 3, "install the image's bundle again");
    bundle(&["install", "2.json"], 0, "installed: t revision 2");
    bundle(&["list"], 0, "revision 2");
}

#[test]
fn recordings_that_are_cut_off_are_refused() {
    let desk = Desk::new();
    desk.write("r.json", r#"{"type":"recording","v":1,"recording":{"#);
    desk.check(
        &["synth", "r.json", "-o", "p.yaml"],
        2,
        "recording is not of the form",
    );
    desk.write("r.json", r#"{"type":"coverage","v":1}"#);
    desk.check(&["synth", "r.json", "-o", "p.yaml"], 2, "r.json");
    assert!(!desk.path().join("p.yaml").exists());
}

#[test]
fn man_pages_and_completions_come_from_the_definitions() {
    let desk = Desk::new();
    desk.check(&["man", "-o", "man"], 0, "");
    for name in ["lazaret.1", "lazaret-learn.1", "lazaret.bash", "_lazaret"] {
        assert!(desk.path().join("man").join(name).exists(), "{name}");
    }
}
