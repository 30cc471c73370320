//! The changes of engines' files, from text to text: what comes in, what stays, what goes out again, what is refused.

use super::edit;
use super::edit::{Change, EditError, NAME, Scope};
use crate::args::InstallEngine::{self, Containerd, Docker, Podman};

const OURS: &str = "/usr/bin/lazaret-runtime";
const PUT: Change<'_> = Change::Put(OURS, Scope::Named);
const PUT_DEFAULT: Change<'_> = Change::Put(OURS, Scope::Default);
const OUT: Change<'_> = Change::TakeOut(Scope::Named);
const OUT_DEFAULT: Change<'_> = Change::TakeOut(Scope::Default);

#[track_caller]
fn done(engine: InstallEngine, text: &str, change: Change<'_>) -> String {
    edit(engine, Some(text), change).expect("changed").text
}

#[track_caller]
fn refused(engine: InstallEngine, text: &str, change: Change<'_>) -> EditError {
    edit(engine, Some(text), change).expect_err("refused")
}

/// Comes out as expected; a second time changes nothing; taken out again it is what it was.
#[track_caller]
fn there_and_back(engine: InstallEngine, before: &str, change: Change<'_>, expected: &str) {
    let after = done(engine, before, change);
    assert_eq!(after, expected);
    assert_eq!(done(engine, &after, change), after, "second time");
    assert_eq!(done(engine, &after, OUT_DEFAULT), before, "and back");
    assert_eq!(done(engine, before, OUT_DEFAULT), before, "nothing to take");
}

/// Order, odd spaces, large numbers and keys that nobody knows stay.
const DAEMON_JSON: &str = "{\n    \"zeta\" : 12345678901234567890,\n    \"log-opts\": {\"max-size\": \"1.0e1\",\"b\":[1,\n2]},\n    \"bip\":\"10.0.0.1/8\"\n}\n";

#[test]
fn docker_there_and_back() {
    there_and_back(
        Docker,
        DAEMON_JSON,
        PUT,
        "{\n    \"zeta\" : 12345678901234567890,\n    \"log-opts\": {\"max-size\": \"1.0e1\",\"b\":[1,\n2]},\n    \"bip\":\"10.0.0.1/8\",\n    \
         \"runtimes\": {\n        \"lazaret\": {\n            \"path\": \"/usr/bin/lazaret-runtime\"\n        }\n    }\n}\n",
    );
    there_and_back(
        Docker,
        "{\n  \"runtimes\": {\n    \"nvidia\": {\"path\": \"nvidia-container-runtime\", \"runtimeArgs\": []}\n  }\n}\n",
        PUT_DEFAULT,
        "{\n  \"runtimes\": {\n    \"nvidia\": {\"path\": \"nvidia-container-runtime\", \"runtimeArgs\": []},\n    \"lazaret\": {\n      \
         \"path\": \"/usr/bin/lazaret-runtime\"\n    }\n  },\n  \"default-runtime\": \"lazaret\"\n}\n",
    );
    // one line, no newline at its end
    let after = done(Docker, "{\"debug\":true}", PUT);
    let value: serde_json::Value = serde_json::from_str(&after).expect("JSON");
    assert_eq!(value["debug"], true);
    assert_eq!(value["runtimes"]["lazaret"]["path"], OURS);
}

#[test]
fn docker_without_a_file() {
    for none in [None, Some(""), Some(" \n")] {
        let put = edit(Docker, none, PUT).expect("changed");
        let value: serde_json::Value = serde_json::from_str(&put.text).expect("JSON");
        assert_eq!(
            value,
            serde_json::json!({"runtimes": {"lazaret": {"path": OURS}}})
        );
        assert!(put.text.ends_with("}\n") && !put.empty);
        let out = edit(Docker, Some(&put.text), OUT).expect("changed");
        assert!(out.empty, "{out:?}");
        let nothing = edit(Docker, none, OUT).expect("nothing to do");
        assert_eq!(nothing.text, none.unwrap_or_default());
    }
}

#[test]
fn docker_keeps_what_a_person_added_to_the_entry() {
    let mine = r#"{"runtimes": {"lazaret": {"path": "/opt/lazaret-runtime", "runtimeArgs": ["--lazaret-config", "/srv/r.toml"]}}}"#;
    let after = done(Docker, mine, PUT);
    assert_eq!(after, mine.replace("/opt/lazaret-runtime", OURS));
}

#[test]
fn docker_refuses() {
    let check = |text: &str, change: Change<'_>, expected: &str| {
        assert_eq!(refused(Docker, text, change).to_string(), expected);
    };
    let foreign = r#"{"runtimes": {"lazaret": {"path": "/usr/bin/other"}}}"#;
    let sentence = "runtime `lazaret` is `/usr/bin/other`, which is no lazaret-runtime: it is not ours to change";
    check(foreign, PUT, sentence);
    check(foreign, OUT, sentence);
    let is_default = done(Docker, "{}", PUT_DEFAULT);
    check(
        &is_default,
        OUT,
        "`lazaret` is the default runtime here (hint: --remove --default takes that out too)",
    );
    check(
        r#"{"runtimes": {}, "runtimes": {}}"#,
        PUT,
        "`runtimes` stands there 2 times",
    );
    check(r#"{"runtimes": []}"#, PUT, "`runtimes` is not an object");
    check(
        r#"{"default-runtime": 1}"#,
        PUT,
        "`default-runtime` is not a string",
    );
    check("[]", PUT, "`daemon.json` is not an object");
    // what only the editing library would read: comments, commas, quotes
    for (text, line, column) in [
        ("{\n  // comment\n}", 2, 3),
        ("{\n \"a\": 1,\n}", 3, 1),
        ("{'a': 1}", 1, 2),
        ("{\"a\": 1", 1, 7),
    ] {
        let EditError::Syntax {
            line: found_line,
            column: found_column,
            ..
        } = refused(Docker, text, PUT)
        else {
            panic!("{text}");
        };
        assert_eq!((found_line, found_column), (line, column), "{text}");
    }
}

#[test]
fn docker_says_which_default_gives_way() {
    let edited = edit(
        Docker,
        Some(r#"{"default-runtime": "nvidia"}"#),
        PUT_DEFAULT,
    )
    .expect("changed");
    assert!(edited.notes[0].contains("`default-runtime` was `nvidia`"));
    let other = r#"{"default-runtime": "nvidia"}"#;
    assert_eq!(done(Docker, other, OUT_DEFAULT), other, "not ours");
}

const CONFIG_V2: &str = r#"# kept by hand
version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "pause:3.9" # pinned
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      pod_annotations = ["a.*"]
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "/opt/runc" # built here
        SystemdCgroup = true

[grpc]
  address = "/run/containerd/containerd.sock"
"#;

#[test]
fn containerd_version_2_there_and_back() {
    let ours = r#"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.lazaret]
runtime_type = "io.containerd.runc.v2"
pod_annotations = ["a.*"]

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.lazaret.options]
BinaryName = "/usr/bin/lazaret-runtime"
SystemdCgroup = true
"#;
    let (head, tail) = CONFIG_V2.split_at(CONFIG_V2.find("\n[grpc]").expect("there"));
    there_and_back(Containerd, CONFIG_V2, PUT, &format!("{head}{ours}{tail}"));
    let edited = edit(Containerd, Some(CONFIG_V2), PUT).expect("changed");
    assert!(edited.notes[0].contains("`runc` is `/opt/runc` here"));
    let with_default = done(Containerd, CONFIG_V2, PUT_DEFAULT);
    let value: toml_edit::DocumentMut = with_default.parse().expect("TOML");
    let containerd = &value["plugins"]["io.containerd.grpc.v1.cri"]["containerd"];
    assert_eq!(containerd["default_runtime_name"].as_str(), Some(NAME));
    assert_eq!(
        refused(Containerd, &with_default, OUT),
        EditError::IsDefault
    );
    assert_eq!(done(Containerd, &with_default, OUT_DEFAULT), CONFIG_V2);
}

#[test]
fn containerd_version_3_has_another_name() {
    there_and_back(
        Containerd,
        "version = 3\n",
        PUT,
        "version = 3\n\n[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.lazaret]\n\
         runtime_type = \"io.containerd.runc.v2\"\n\n\
         [plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.lazaret.options]\n\
         BinaryName = \"/usr/bin/lazaret-runtime\"\n",
    );
}

#[test]
fn containerd_without_a_file_and_other_formats() {
    let put = edit(Containerd, None, PUT).expect("changed");
    assert!(put.text.starts_with("version = 2\n"), "{}", put.text);
    let out = edit(Containerd, Some(&put.text), OUT).expect("changed");
    assert!(out.empty && out.text == "version = 2\n", "{out:?}");
    assert!(
        edit(Containerd, None, OUT)
            .expect("nothing")
            .text
            .is_empty()
    );
    // as Docker's package of containerd ships it: no version means 1
    let docker = "disabled_plugins = [\"cri\"]\n";
    assert_eq!(
        refused(Containerd, docker, PUT),
        EditError::Version { found: 1 }
    );
    assert_eq!(
        refused(Containerd, "version = 4\n", PUT),
        EditError::Version { found: 4 }
    );
    let disabled = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
    let edited = edit(Containerd, Some(disabled), PUT).expect("changed");
    assert!(edited.notes[0].contains("CRI plugin is disabled"));
}

#[test]
fn containerd_refuses() {
    let foreign = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.lazaret.options]\nBinaryName = \"/x\"\n";
    for change in [PUT, OUT] {
        let found = "/x".to_owned();
        assert_eq!(
            refused(Containerd, foreign, change),
            EditError::Foreign { found }
        );
    }
    let shape = refused(Containerd, "version = 2\nplugins = 1\n", PUT);
    assert_eq!(shape.to_string(), "`plugins` is not a table");
    let EditError::Syntax { line, column, .. } =
        refused(Containerd, "version = 2\n[plugins\nx = 1\n", PUT)
    else {
        panic!("no syntax error");
    };
    assert_eq!((line, column), (2, 9));
}

#[test]
fn podman_there_and_back() {
    let put = edit(Podman, None, PUT).expect("changed");
    assert_eq!(
        put.text,
        "# Made by `lazaret install podman`; `lazaret install podman --remove` takes it out.\n\
         [engine.runtimes]\nlazaret = [\"/usr/bin/lazaret-runtime\"]\n"
    );
    assert!(edit(Podman, Some(&put.text), OUT).expect("changed").empty);
    let with_default = done(Podman, &put.text, PUT_DEFAULT);
    let value: toml_edit::DocumentMut = with_default.parse().expect("TOML");
    assert_eq!(value["engine"]["runtime"].as_str(), Some(NAME));
    assert_eq!(done(Podman, &with_default, PUT_DEFAULT), with_default);
    assert_eq!(refused(Podman, &with_default, OUT), EditError::IsDefault);
    there_and_back(
        Podman,
        "[engine] # ours\nruntime = \"crun\"\n",
        PUT,
        "[engine] # ours\nruntime = \"crun\"\n\n[engine.runtimes]\nlazaret = [\"/usr/bin/lazaret-runtime\"]\n",
    );
    let foreign = "[engine.runtimes]\nlazaret = [\"/usr/bin/lazaret-runtime\", \"/x\"]\n";
    let found = "/x".to_owned();
    assert_eq!(refused(Podman, foreign, OUT), EditError::Foreign { found });
}
