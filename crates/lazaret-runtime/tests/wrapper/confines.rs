//! At `create`, containers that are selected get their profile or are refused, and no other bundle is touched.

use crate::host::{Failure, Host, ID, IMAGE, papers};
use serde_json::Value;

const PROFILE: &str = r#"{"defaultAction":"SCMP_ACT_ERRNO","listenerPath":"/run/lazaret/gate.sock","listenerMetadata":"sha256:00","syscalls":[{"names":["write"],"action":"SCMP_ACT_ALLOW"},{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}"#;
const LABEL: &str = "\"own\":\"1\"";
const REQUIRED: &str = "\"own\":\"1\",\"dev.lazaret.confine\":\"required\"";

/// The container was created with the profile, and nothing else changed.
fn assert_confined(host: &Host) -> Result<(), Failure> {
    let mut expected: Value = serde_json::from_str(&host.config_json()?)?;
    let run = host.create()?;
    assert_eq!(run.stderr, "complaint of the runtime\n");
    assert!(run.words().is_some());
    let found: Value = serde_json::from_str(&host.config_json()?)?;
    assert!(
        expected["linux"]["seccomp"] != found["linux"]["seccomp"],
        "no change"
    );
    expected["linux"]["seccomp"] = serde_json::from_str(PROFILE)?;
    assert_eq!(found, expected);
    let names: Vec<_> = std::fs::read_dir(host.bundle())?.collect::<Result<_, _>>()?;
    assert_eq!(names.len(), 1, "a temporary file was left behind");
    Ok(())
}

/// The container was created from the very bytes that the engine wrote.
fn assert_left_alone(host: &Host) -> Result<(), Failure> {
    let before = host.config_json()?;
    assert!(host.create()?.words().is_some());
    assert_eq!(host.config_json()?, before);
    Ok(())
}

/// The runtime was not run, and one sentence was said.
fn assert_refused(host: &Host, sentence: &str) -> Result<(), Failure> {
    let before = host.config_json()?;
    let run = host.create()?;
    assert_eq!(run.words(), None, "the runtime ran");
    assert_eq!(run.status.code(), Some(1));
    assert_eq!(run.stdout, "");
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert!(run.stderr.contains(sentence), "{}", run.stderr);
    assert_eq!(host.config_json()?, before);
    Ok(())
}

#[test]
fn an_image_in_the_store_is_confined() -> Result<(), Failure> {
    let host = Host::new()?;
    assert_left_alone(&host)?;
    host.install(PROFILE)?;
    assert_confined(&host)
}

#[test]
fn a_container_without_the_engines_profile_is_confined_too() -> Result<(), Failure> {
    let host = Host::new()?;
    let mut config: Value = serde_json::from_str(&host.config_json()?)?;
    config["linux"]
        .as_object_mut()
        .and_then(|linux| linux.remove("seccomp"))
        .ok_or("the recorded config.json has no profile")?;
    std::fs::write(host.bundle().join("config.json"), config.to_string())?;
    host.install(PROFILE)?;
    assert_confined(&host)
}

#[test]
fn a_label_asks_for_a_policy() -> Result<(), Failure> {
    let host = Host::new()?;
    host.change_container(LABEL, REQUIRED)?;
    assert_refused(
        &host,
        &format!(
            "must be confined (it is labelled `dev.lazaret.confine=required`), but the store `{}` has no policy for \
             sha256:{IMAGE}",
            host.at("store").display()
        ),
    )?;
    host.install(PROFILE)?;
    assert_confined(&host)
}

#[test]
fn an_unknown_value_of_the_label_is_refused() -> Result<(), Failure> {
    let host = Host::new()?;
    host.change_container(LABEL, &REQUIRED.replace("required", "no"))?;
    assert_refused(
        &host,
        "label `dev.lazaret.confine` is `no`, the only value it can have is `required`",
    )
}

#[test]
fn the_label_can_have_another_name() -> Result<(), Failure> {
    let host = Host::new()?;
    host.change_container(LABEL, REQUIRED)?;
    host.configure("[select]\nlabel = 'other'")?;
    assert_left_alone(&host)
}

#[test]
fn a_listed_image_needs_a_policy() -> Result<(), Failure> {
    let host = Host::new()?;
    host.configure(&format!("[select]\nimages = ['sha256:{IMAGE}']"))?;
    assert_refused(
        &host,
        "must be confined (its image is listed in the node's configuration)",
    )?;
    host.install(PROFILE)?;
    assert_confined(&host)
}

#[test]
fn an_emptied_store_directory_still_asks_for_a_policy() -> Result<(), Failure> {
    let host = Host::new()?;
    std::fs::create_dir_all(host.at(&format!("store/images/{IMAGE}")))?;
    assert_refused(
        &host,
        "must be confined (its image is in the node's store), but the store",
    )
}

#[test]
fn the_highest_revision_is_taken() -> Result<(), Failure> {
    let host = Host::new()?;
    let elsewhere = PROFILE.replace("/run/lazaret/gate.sock", "/tmp/gate.sock");
    host.install_revision(9, &elsewhere)?;
    host.install_revision(10, PROFILE)?;
    assert_confined(&host)?;
    host.install_revision(11, &elsewhere)?;
    assert_refused(&host, "its profile hands the listener to `/tmp/gate.sock`")?;
    // never a lower one in its place
    let highest = format!("{}/profile.json", papers(11));
    std::fs::remove_file(host.at(&highest))?;
    assert_refused(&host, &format!("{highest}` is missing"))
}

#[test]
fn a_store_of_the_earlier_layout_is_refused() -> Result<(), Failure> {
    let host = Host::new()?;
    host.write(&format!("store/images/{IMAGE}/profile.json"), PROFILE)?;
    assert_refused(&host, "install the image's bundle again")
}

#[test]
fn an_annotation_asks_too() -> Result<(), Failure> {
    let host = Host::new()?;
    let mut config: Value = serde_json::from_str(&host.config_json()?)?;
    config["annotations"]["dev.lazaret.confine"] = "required".into();
    std::fs::write(host.bundle().join("config.json"), config.to_string())?;
    assert_refused(&host, "must be confined (it is labelled")?;
    host.install(PROFILE)?;
    assert_confined(&host)
}

#[test]
fn a_bundle_of_no_known_engine() -> Result<(), Failure> {
    let host = Host::new()?;
    let bundle = host.at("bundle");
    std::fs::create_dir(&bundle)?;
    let text = host.config_json()?;
    let create = |text: &str| {
        std::fs::write(bundle.join("config.json"), text)?;
        let mut wrapper = host.wrapper();
        // the default bundle is the working directory
        host.run(wrapper.current_dir(&bundle), &["run", "c1"], "0")
    };
    assert!(create(&text)?.words().is_some());
    let mut config: Value = serde_json::from_str(&text)?;
    config["annotations"]["dev.lazaret.confine"] = "required".into();
    let run = create(&config.to_string())?;
    assert_eq!(run.words(), None);
    assert!(
        run.stderr.contains("but no engine that is known made it"),
        "{}",
        run.stderr
    );
    Ok(())
}

#[test]
fn profiles_for_another_listener_are_refused() -> Result<(), Failure> {
    let host = Host::new()?;
    host.install(&PROFILE.replace("/run/lazaret/gate.sock", "/tmp/gate.sock"))?;
    assert_refused(&host, "its profile hands the listener to `/tmp/gate.sock`")?;
    host.install(&PROFILE.replace("\"listenerPath\":\"/run/lazaret/gate.sock\",", ""))?;
    assert_refused(&host, "its profile hands the listener to `nobody`")?;
    host.install(&PROFILE.replace("syscalls", "sysCalls"))?;
    assert_refused(&host, "cannot use the stored profile")
}

#[test]
fn what_cannot_be_found_out_is_refused() -> Result<(), Failure> {
    let host = Host::new()?;
    host.change_container("\"Driver\":\"overlay2\"", "\"Driver\":\"vfs\"")?;
    assert_refused(&host, &format!("the image of container {ID} is not known"))?;
    let host = Host::new()?;
    std::fs::write(
        host.bundle().join("config.json"),
        "{\"linux\":{},\"linux\":{}}",
    )?;
    assert_refused(&host, "config.json is not one JSON object")
}

#[test]
fn restoring_is_refused() -> Result<(), Failure> {
    let host = Host::new()?;
    let restore = || {
        let bundle = host.bundle();
        let bundle = bundle.to_str().ok_or("bundle")?;
        host.run(&mut host.wrapper(), &["restore", "-b", bundle, ID], "0")
    };
    assert!(restore()?.words().is_some());
    host.install(PROFILE)?;
    let run = restore()?;
    assert_eq!(run.words(), None);
    assert!(run.stderr.contains("cannot be restored"), "{}", run.stderr);
    Ok(())
}

#[test]
fn the_engines_log_gets_the_sentence() -> Result<(), Failure> {
    let host = Host::new()?;
    std::fs::create_dir_all(host.at(&format!("store/images/{IMAGE}")))?;
    let (bundle, log) = (host.bundle(), host.at("log.json"));
    let (bundle, log) = (bundle.to_str().ok_or("path")?, log.to_str().ok_or("path")?);
    for format in ["json", "text"] {
        std::fs::write(log, "earlier\n")?;
        let line = [
            "--log",
            log,
            "--log-format",
            format,
            "create",
            "-b",
            bundle,
            ID,
        ];
        let run = host.run(&mut host.wrapper(), &line, "0")?;
        let text = std::fs::read_to_string(log)?;
        let line = text.strip_prefix("earlier\n").ok_or("log was cut")?;
        let sentence = run.stderr.trim_end();
        assert!(sentence.starts_with("lazaret: container "), "{sentence}");
        if format == "json" {
            let line: Value = serde_json::from_str(line)?;
            assert_eq!(line["level"], "error");
            assert_eq!(line["msg"], sentence);
            assert!(line["time"].is_string());
        } else {
            let message = format!(" level=error msg={}\n", Value::from(sentence));
            assert!(
                line.starts_with("time=\"") && line.ends_with(&message),
                "{line}"
            );
        }
    }
    Ok(())
}

#[test]
fn the_wrapper_never_runs_itself() -> Result<(), Failure> {
    let host = Host::new()?;
    host.write(
        "runtime.toml",
        &format!("runtime = '{}'", env!("CARGO_BIN_EXE_lazaret-runtime")),
    )?;
    assert_refused(&host, "which is this wrapper itself")
}

#[test]
fn a_configuration_that_others_can_write_is_refused() -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt as _;
    let host = Host::new()?;
    let permissions = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(host.at("runtime.toml"), permissions)?;
    assert_refused(&host, "has mode 0666, wanted none of the bits 0022")
}
