//! What servers do: away, slow, busy, strict, broken; with TLS and with tokens.

use super::super::Settings;
use super::super::settings::Written;
use super::fake::{Fake, Scenario};
use super::stage::{QUICK, Stage, recorded, stop, wait};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn nothing_is_lost_while_a_server_fails_in_any_way() {
    for scenario in [
        Scenario::Down,
        Scenario::Hangs,
        Scenario::Cut,
        Scenario::Answers(500, None),
        Scenario::Answers(503, None),
        Scenario::Answers(302, Some(("Location", "http://127.0.0.1:9/".to_owned()))),
        Scenario::Answers(401, None),
        Scenario::Answers(404, None),
        Scenario::Answers(200, None),
        Scenario::Entry("c", 503),
    ] {
        let fake = Fake::start(scenario.clone());
        let stage = Stage::new(&fake);
        stage.events("c", 0..130);
        let export = stage.export();
        if !matches!(scenario, Scenario::Hangs) {
            fake.wait("tried again", |state| state.requests >= 3);
        }
        let metrics = wait(&export, "seen to fail", |m| m.failing.is_some());
        assert_eq!(
            (metrics.posted, metrics.queued_events),
            (0, 130),
            "{scenario:?}"
        );
        fake.behave(Scenario::Correct);
        let metrics = wait(&export, "all posted", |m| m.queued_files == 0);
        assert_eq!(
            (metrics.posted, metrics.rejected, metrics.dropped),
            (130, 0, 0),
            "{scenario:?}"
        );
        let mut times = recorded(&fake, "c");
        times.sort();
        times.dedup();
        assert_eq!(
            (times.len(), fake.state().stored.len()),
            (130, 130),
            "{scenario:?}"
        );
        assert!(
            metrics.failing.is_none() && fake.state().most_open <= 2,
            "{scenario:?}"
        );
        stop(export);
    }
}

#[test]
fn a_server_that_cannot_be_reached_is_tried_again() {
    let stage = Stage::at("http://127.0.0.1:9/fhir");
    stage.events("c", 0..3);
    let export = stage.export();
    wait(&export, "seen to fail", |m| {
        m.failing.is_some() && m.queued_events == 3
    });
    stop(export);
}

#[test]
fn a_server_that_asks_for_time_gets_it() {
    let retry = Some(("Retry-After", "1".to_owned()));
    let fake = Fake::start(Scenario::Answers(429, retry));
    let stage = Stage::new(&fake);
    stage.events("c", 0..3);
    let export = stage.export();
    fake.wait("asked", |state| state.requests == 1);
    let asked = Instant::now();
    fake.behave(Scenario::Correct);
    wait(&export, "posted", |m| m.posted == 3);
    assert!(
        asked.elapsed() >= Duration::from_millis(950),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(fake.state().requests, 2);
    stop(export);
}

#[test]
fn one_bad_entry_is_moved_aside_and_told_and_the_others_arrive() {
    for scenario in [
        Scenario::Entry("bad", 400),
        Scenario::Entry("bad", 422),
        Scenario::Batch("bad", 400),
        Scenario::Batch("bad", 413),
    ] {
        let fake = Fake::start(scenario.clone());
        let stage = Stage::new(&fake);
        stage.events("c", 0..30);
        stage.events("bad", [7]);
        stage.events("c", 30..60);
        let export = stage.export();
        let metrics = wait(&export, "settled", |m| m.rejected == 1 && m.posted == 61);
        assert_eq!(
            (metrics.queued_files, metrics.dropped),
            (0, 0),
            "{scenario:?}"
        );
        assert_eq!(recorded(&fake, "c").len(), 60, "{scenario:?}");
        let aside = stage.files("rejected");
        assert_eq!(aside.len(), 1);
        let text = std::fs::read_to_string(stage.settings.queue.join("rejected").join(&aside[0]));
        let text = text.expect("readable");
        assert!(
            text.contains("\"bad\"") && !text.contains("\"c\""),
            "{text}"
        );
        let told = |state: &super::fake::State| {
            state
                .stored
                .values()
                .any(|r| r["subtype"][0]["code"] == "audit-lost")
        };
        fake.wait("told", told);
        stop(export);
    }
}

#[test]
fn one_entry_that_a_server_cannot_take_now_does_not_hold_up_others() {
    let fake = Fake::start(Scenario::Entry("slow", 500));
    let stage = Stage::new(&fake);
    stage.events("slow", [1]);
    let export = stage.export();
    wait(&export, "seen to fail", |m| m.failing.is_some());
    stage.events("c", 0..5);
    let metrics = wait(&export, "others posted", |m| m.posted == 5);
    assert_eq!(metrics.queued_events, 1);
    fake.behave(Scenario::Correct);
    wait(&export, "posted", |m| m.posted == 6 && m.queued_files == 0);
    stop(export);
}

#[test]
fn refused_batches_are_bounded_on_disk() {
    let fake = Fake::start(Scenario::Batch("bad", 400));
    let mut stage = Stage::new(&fake);
    stage.settings.max_bytes = super::stage::SMALL;
    let export = stage.export();
    for number in 0..8 {
        stage.events("bad", [number]);
        wait(&export, "rejected", |m| m.rejected == number + 1);
    }
    stop(export);
    let files = stage.files("rejected");
    assert_eq!(
        files.len(),
        2,
        "an eighth of 64 KiB in blocks of 4 KiB: {files:?}"
    );
}

#[test]
fn a_token_is_read_again_each_time_and_guarded() {
    let fake = Fake::start(Scenario::Token("new.token"));
    let mut stage = Stage::new(&fake);
    let token = stage.path("token");
    let put = |text: &str, mode| {
        std::fs::write(&token, text).expect("written");
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).expect("a mode");
    };
    put("old.token\n", 0o600);
    stage.settings.token_file = Some(token.clone());
    stage.events("c", 0..3);
    let export = stage.export();
    let failing = |with: &'static str| {
        move |m: &super::super::Metrics| m.failing.as_ref().is_some_and(|why| why.contains(with))
    };
    wait(&export, "refused", failing("401"));
    put("new.token\n", 0o644);
    wait(&export, "readable by all", failing("mode"));
    put("two words", 0o600);
    wait(&export, "no token", failing("no bearer token"));
    put("new.token\n", 0o600);
    let metrics = wait(&export, "posted", |m| m.posted == 3);
    assert_eq!(metrics.rejected, 0);
    stop(export);
}

fn tls() -> (CertifiedKey<rcgen::KeyPair>, ServerConfig) {
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let made = generate_simple_self_signed(names).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a configuration");
    (made, config)
}

fn https(fake: &Fake, folder: &Path, authority: &str) -> Settings {
    let ca = folder.join("ca.pem");
    std::fs::write(&ca, authority).expect("written");
    std::fs::set_permissions(&ca, std::fs::Permissions::from_mode(0o644)).expect("a mode");
    Settings::new(Written {
        endpoint: format!("https://localhost:{}/fhir", fake.port()),
        queue: folder.join("audit"),
        max_bytes: 8 << 20,
        token_file: None,
        ca_file: Some(ca),
        node_name: Some("node-7".to_owned()),
    })
    .expect("good settings")
}

#[test]
fn https_goes_to_the_server_that_the_authority_vouches_for_only() {
    let (trusted, config) = tls();
    let fake = Fake::start_tls(Scenario::Correct, config);
    let mut stage = Stage::at("http://127.0.0.1:9/");
    let folder = tempfile::tempdir().expect("folder");
    stage.events("c", 0..3);
    stage.settings = https(&fake, folder.path(), &tls().0.cert.pem());
    let export = stage.export();
    let metrics = wait(&export, "refused", |m| m.failing.is_some());
    assert_eq!((metrics.posted, fake.state().requests), (0, 0));
    stop(export);
    stage.settings = https(&fake, folder.path(), &trusted.cert.pem());
    let export = stage.export();
    wait(&export, "posted", |m| m.posted == 3);
    stop(export);
    stage.settings = https(&fake, folder.path(), "no certificate\n");
    let none = super::super::spawn_at(QUICK, &stage.settings, &stage.log(), |_| {});
    assert!(
        none.expect_err("no authority")
            .to_string()
            .contains("no certificate")
    );
}

/// Inside a mount namespace of its own, with 256 KiB of disk.
#[test]
#[ignore = "run by `a_full_disk_loses_nothing` in a namespace of its own"]
fn full_disk_inside() {
    let disk = std::env::var("LAZARET_SMALL_DISK").expect("the test around this one names it");
    let fake = Fake::start(Scenario::Answers(503, None));
    let mut stage = Stage::new(&fake);
    stage.settings.queue = Path::new(&disk).join("audit");
    stage.events("c", 0..100);
    let export = stage.export();
    for piece in 1..8 {
        stage.events("c", piece * 100..piece * 100 + 100);
    }
    let metrics = wait(&export, "no room", |m| {
        m.failing
            .as_ref()
            .is_some_and(|why| why.contains("No space"))
    });
    assert_eq!(metrics.dropped, 0);
    assert!(metrics.queued_events < 800, "{metrics:?}");
    fake.behave(Scenario::Correct);
    let metrics = wait(&export, "posted", |m| m.posted == 800);
    assert_eq!((metrics.dropped, metrics.rejected, metrics.gaps), (0, 0, 0));
    assert_eq!(recorded(&fake, "c").len(), 800);
    stop(export);
}

#[test]
fn a_full_disk_loses_nothing() {
    let disk = tempfile::tempdir().expect("folder");
    let script = "mount -t tmpfs -o size=256k tmpfs \"$1\" && exec \"$2\" --ignored --exact audit::tests::wire::full_disk_inside";
    let run = |inner: &[&str]| {
        Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
            .args(inner)
            .env("LAZARET_SMALL_DISK", disk.path())
            .output()
    };
    if !run(&["true"]).is_ok_and(|done| done.status.success()) {
        println!("SKIP: this user cannot make a mount namespace");
        return;
    }
    let own = std::env::current_exe().expect("this program");
    let paths = [disk.path().to_str(), own.to_str()].map(|path| path.expect("plain paths"));
    let done = run(&[script, "sh", paths[0], paths[1]]).expect("unshare runs");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
}
