//! `lazaret install` as a user meets it: files, modes, copies, exit codes. Everything is below a root of the test.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

const ENGINES: [(&str, &str, &str); 3] = [
    (
        "docker",
        "etc/docker/daemon.json",
        "{\n  \"debug\": false\n}\n",
    ),
    (
        "containerd",
        "etc/containerd/config.toml",
        "# mine\nversion = 2\n",
    ),
    (
        "podman",
        "etc/containers/containers.conf.d/50-lazaret.conf",
        "# mine\n[engine]\nretry = 3\n",
    ),
];

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

/// A system below a folder, with the wrapper in it.
struct System(TempDir);

impl System {
    fn new() -> System {
        let system = System(TempDir::new().expect("a folder"));
        let wrapper = system.path("usr/bin/lazaret-runtime");
        fs::create_dir_all(wrapper.parent().expect("a folder")).expect("made");
        fs::write(&wrapper, "#!/bin/sh\n").expect("written");
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("ours");
        system
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn write(&self, below: &str, text: &str) -> PathBuf {
        let path = self.path(below);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, text).expect("written");
        path
    }

    #[track_caller]
    fn install(&self, args: &[&str], code: i32) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lazaret"));
        command.arg("install").args(args);
        command
            .arg("--root")
            .arg(self.0.path())
            .stdin(Stdio::null());
        let output = command.output().expect("lazaret runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = Said {
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        };
        assert_eq!(said.code, Some(code), "{args:?}: {}{}", said.out, said.err);
        said
    }

    /// Names of the files beside one.
    fn beside(&self, file: &Path) -> Vec<String> {
        let folder = fs::read_dir(file.parent().expect("a folder")).expect("read");
        let mut names: Vec<String> = folder
            .map(|entry| {
                let name = entry.expect("an entry").file_name();
                name.into_string().expect("text")
            })
            .collect();
        names.sort();
        names
    }
}

#[test]
fn in_twice_and_out_again() {
    for (engine, below, text) in ENGINES {
        let system = System::new();
        let path = system.write(below, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("ours");
        let name = path.file_name().expect("a name").to_str().expect("text");
        let backup = format!("{name}.before-lazaret");

        let plan = system.install(&[engine, "--dry-run"], 0);
        let shown = path.display();
        assert!(
            plan.out
                .starts_with(&format!("--- {shown}\n+++ {shown}\n@@ ")),
            "{}",
            plan.out
        );
        assert!(
            plan.out.contains("/usr/bin/lazaret-runtime"),
            "{}",
            plan.out
        );
        assert_eq!(fs::read_to_string(&path).expect("read"), text);
        assert_eq!(system.beside(&path), [name]);

        let written = system.install(&[engine], 0);
        assert_eq!(written.out, plan.out, "the plan is what is done");
        assert!(written.err.contains("written: `"), "{}", written.err);
        let after = fs::read_to_string(&path).expect("read");
        assert_ne!(after, text);
        assert_eq!(path.metadata().expect("there").mode() & 0o7777, 0o640);
        assert_eq!(system.beside(&path), [name, backup.as_str()]);
        let copy = path.with_file_name(&backup);
        assert_eq!(fs::read_to_string(&copy).expect("read"), text);
        assert_eq!(copy.metadata().expect("there").mode() & 0o7777, 0o640);

        let inode = path.metadata().expect("there").ino();
        let again = system.install(&[engine], 0);
        assert_eq!(again.out, "");
        assert!(again.err.contains("nothing to do"), "{}", again.err);
        assert_eq!(path.metadata().expect("there").ino(), inode, "not written");

        // a change by somebody else stays, and the copy is of before our first change
        let after = format!("{}\n", after.trim_end_matches('\n')) + "\n\n";
        fs::write(&path, &after).expect("written");
        system.install(&[engine, "--default"], 0);
        assert_eq!(fs::read_to_string(&copy).expect("read"), text);
        let refused = system.install(&[engine, "--remove"], 1);
        assert!(
            refused.err.contains("is the default runtime here"),
            "{}",
            refused.err
        );
        system.install(&[engine, "--remove", "--default"], 0);
        let left = fs::read_to_string(&path).expect("read");
        assert_eq!(left.trim_end(), text.trim_end());
        assert_eq!(system.beside(&path), [name, backup.as_str()]);

        // without a change by others the copy goes too
        fs::write(&path, text).expect("written");
        system.install(&[engine], 0);
        system.install(&[engine, "--remove"], 0);
        assert_eq!(fs::read_to_string(&path).expect("read"), text);
        assert_eq!(system.beside(&path), [name]);
        let nothing = system.install(&[engine, "--remove"], 0);
        assert!(nothing.err.contains("nothing to do"), "{}", nothing.err);
    }
}

#[test]
fn a_file_that_was_not_there_goes_again() {
    for (engine, below, _) in ENGINES {
        let system = System::new();
        let path = system.path(below);
        let plan = system.install(&[engine, "--dry-run"], 0);
        assert!(plan.out.starts_with("--- /dev/null\n"), "{}", plan.out);
        assert!(!system.path("etc").exists());
        system.install(&[engine], 0);
        assert_eq!(path.metadata().expect("there").mode() & 0o7777, 0o644);
        let removed = system.install(&[engine, "--remove"], 0);
        assert!(removed.out.contains("\n+++ /dev/null\n"), "{}", removed.out);
        let restart = removed.err.contains("next: `systemctl restart docker`");
        assert_eq!(restart, engine == "docker", "{}", removed.err);
        assert!(system.beside(&path).is_empty());
        system.install(&[engine, "--remove"], 0);
    }
}

#[test]
fn what_cannot_be_understood_is_not_touched() {
    for (engine, below, text, place) in [
        (
            "docker",
            ENGINES[0].1,
            "{\n  \"a\": 1,\n}\n",
            "line 3, column 1",
        ),
        (
            "containerd",
            ENGINES[1].1,
            "version = 2\n[a\n",
            "line 2, column 3",
        ),
        (
            "podman",
            ENGINES[2].1,
            "[engine]\nx =\n",
            "line 2, column 4",
        ),
    ] {
        let system = System::new();
        let path = system.write(below, text);
        for args in [&[engine][..], &[engine, "--remove"], &[engine, "--dry-run"]] {
            let said = system.install(args, 2);
            assert!(said.err.contains(place), "{}", said.err);
            assert!(said.err.contains("is left as it is"), "{}", said.err);
        }
        assert_eq!(fs::read_to_string(&path).expect("read"), text);
        assert_eq!(system.beside(&path).len(), 1);
    }
    let system = System::new();
    let path = system.write(ENGINES[0].1, "");
    fs::write(&path, [0xff, 0xfe]).expect("written");
    let said = system.install(&["docker"], 2);
    assert!(said.err.contains("is not UTF-8 text"), "{}", said.err);
}

#[test]
fn links_are_not_followed() {
    let system = System::new();
    let real = system.write("srv/daemon.json", "{}\n");
    fs::create_dir_all(system.path("etc/docker")).expect("made");
    let link = system.path("etc/docker/daemon.json");
    symlink(&real, &link).expect("linked");
    let said = system.install(&["docker"], 1);
    assert!(said.err.contains("is a symbolic link to"), "{}", said.err);
    assert_eq!(fs::read_to_string(&real).expect("read"), "{}\n");
    // the file itself can be named
    system.install(&["docker", "--config", "/srv/daemon.json"], 0);
    assert!(
        fs::read_to_string(&real)
            .expect("read")
            .contains("lazaret-runtime")
    );
    assert!(link.is_symlink());
    // a folder that leads out of an image
    let outside = TempDir::new().expect("a folder");
    symlink(outside.path(), system.path("etc/containerd")).expect("linked");
    let said = system.install(&["containerd"], 1);
    assert!(said.err.contains("is a symbolic link to"), "{}", said.err);
    assert_eq!(fs::read_dir(outside.path()).expect("read").count(), 0);
}

#[test]
fn the_wrapper_must_be_there_and_known_again() {
    let system = System::new();
    let absent = system.install(&["docker", "--runtime", "/opt/lazaret-runtime"], 3);
    assert!(
        absent.err.contains("cannot find the wrapper"),
        "{}",
        absent.err
    );
    let other = system.install(&["docker", "--runtime", "/bin/sh"], 2);
    assert!(
        other.err.contains("is not named lazaret-runtime"),
        "{}",
        other.err
    );
    system.install(&["docker", "--runtime", "lazaret-runtime"], 2);
    fs::set_permissions(
        system.path("usr/bin/lazaret-runtime"),
        fs::Permissions::from_mode(0o644),
    )
    .expect("ours");
    let plain = system.install(&["docker"], 3);
    assert!(plain.err.contains("is no program"), "{}", plain.err);
    assert!(!system.path("etc").exists());
}

#[test]
fn json_says_what_was_done() {
    let system = System::new();
    let mut seen = Vec::new();
    for args in [
        &["docker", "--dry-run"][..],
        &["docker"],
        &["docker"],
        &["docker", "--remove"],
    ] {
        let said = system.install(&[args, &["--format", "json"]].concat(), 0);
        let value: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
        assert_eq!(
            (&value["type"], &value["v"]),
            (&"install".into(), &1.into())
        );
        assert_eq!(value["diff"] == "", value["done"] == "nothing");
        seen.push(value["done"].as_str().expect("text").to_owned());
    }
    assert_eq!(seen, ["planned", "written", "nothing", "removed"]);
}
