//! Processes put into a container where its policy refuses them, and what signed permits open.

use crate::node::{Node, Paper, Sandbox, Watch, skipped};
use crate::paper::policy_of;
use lazaret_bundle::key::{Algorithm, PrivateKey};
use lazaret_bundle::permit::{Calls, Kind, Permit, Terms};
use lazaret_bundle::{TrustedKeys, sign_permit, store, verify_permit};
use lazaret_core::digest::Digest;
use lazaret_core::policy::Policy;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const HOUR: u64 = 3600;

/// A container under a policy that refuses execs, and denies `kill` to everybody.
struct Closed {
    node: Node,
    events: Watch,
    container: Sandbox,
    policy: Policy,
}

impl Closed {
    fn start() -> Closed {
        let mut text = Paper::default().text();
        text["phases"] = json!({"exec": {"start": "refuse"}});
        let rules = text["rules"].as_array_mut().expect("rules");
        rules.push(json!({"deny": ["kill"], "why": "nobody needs it"}));
        let policy = policy_of(text);
        let mut node = Node::new();
        node.install(&policy, &node.key);
        node.start();
        let mut events = node.watch();
        let mut container = node.create(&policy);
        container.go();
        events.until_phase("startup");
        assert!(container.try_chdir());
        Closed {
            node,
            events,
            container,
            policy,
        }
    }

    /// A process that is put in; it is let go to its first `execve`.
    fn exec(&self) -> Sandbox {
        let metadata = self.policy.digest().to_string();
        let mut exec = self.node.exec(&self.container, &self.policy, &metadata);
        exec.go();
        exec
    }

    /// Asserts that none gets in, and that this is said.
    fn refuses(&mut self, reason: &str) {
        let mut exec = self.exec();
        let refused = self.events.until("refused");
        assert_eq!(refused["check"], "exec-refused");
        assert_eq!(exec.hear(), "exec: Permission denied (os error 13)");
        let sentence =
            "lazaret: process not started: the policy refuses processes from outside, and ";
        let said = exec.end();
        assert!(
            said.starts_with(sentence) && said.contains(reason),
            "{said}"
        );
    }

    /// Asserts that one gets in under this permit.
    fn admits(&mut self, permit: &Digest) -> Sandbox {
        let mut exec = self.exec();
        let used = self.events.until("permitted");
        assert_eq!(used["permit"], permit.to_string());
        assert_eq!(used["reason"], "case 7");
        self.events.until_phase("exec");
        assert!(exec.try_write());
        exec
    }

    /// What the image's permits say: for the next hour, for its digest, for every container on every node.
    fn terms(&self, calls: Calls) -> Terms {
        let now = now();
        Terms {
            images: BTreeSet::from([Paper::default().image]),
            kind: Kind::Exec { calls },
            reason: "case 7".to_owned(),
            not_before_ms: (now - 1) * 1000,
            not_after_ms: (now + HOUR) * 1000,
            container: None,
            node: None,
        }
    }

    /// Signs and installs one; `key` need not be pinned.
    fn install(&self, terms: Terms, key: &PrivateKey) -> Digest {
        let folder = tempfile::tempdir().expect("folder");
        let public = key.public().to_pem().expect("PEM");
        fs::write(folder.path().join("k.pem"), public).expect("written");
        let keys = TrustedKeys::load(folder.path()).expect("a key");
        let images = terms.images.clone();
        let permit = Permit::new(terms).expect("good terms");
        let envelope = sign_permit(&permit, &[key]).expect("signed");
        let permit = verify_permit(&envelope, &keys, &images).expect("just signed");
        let store = self.node.path("store");
        store::install_permit(&store, &permit, &envelope).expect("installed");
        permit.statement_digest()
    }

    fn remove(&self, permit: &Digest) {
        store::remove_permit(&self.node.path("store"), permit).expect("it was there");
    }
}

/// Whole seconds since the epoch, as permits count.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

#[test]
fn a_policy_that_refuses_execs_says_so_and_a_permit_opens_it() {
    if skipped() {
        return;
    }
    let mut closed = Closed::start();
    closed.refuses("no permit is installed");
    let permit = closed.install(closed.terms(Calls::Policy), &closed.node.key);
    let mut exec = closed.admits(&permit);
    let status = closed.node.status_of(&closed.container);
    assert_eq!(status["state"]["permits"], json!([permit.to_string()]));
    assert_eq!(status["state"]["execs"], 1);
    assert!(!exec.try_chdir(), "to the rules of phase exec, no further");
    // it is taken away: who is in stays, nobody else comes in
    closed.remove(&permit);
    assert!(exec.try_write());
    closed.refuses("no permit is installed");
    exec.end();
    let begin = std::time::Instant::now();
    while closed.node.status_of(&closed.container)["state"]["permits"] != json!(null) {
        assert!(begin.elapsed() < crate::node::PATIENCE, "it has ended");
    }
    assert!(closed.container.try_chdir(), "it was never its affair");
}

#[test]
fn up_to_the_ceiling_is_more_than_the_policy_and_less_than_everything() {
    if skipped() {
        return;
    }
    let mut closed = Closed::start();
    let narrow = closed.install(closed.terms(Calls::Policy), &closed.node.key);
    let permit = closed.install(closed.terms(Calls::Ceiling), &closed.node.key);
    assert_ne!(narrow, permit);
    let mut exec = closed.admits(&permit);
    assert!(
        exec.try_chdir(),
        "phase exec does not allow it, the permit does"
    );
    exec.send("kill -0 $$ && echo @yes || echo @no\n");
    assert_eq!(exec.hear(), "no", "a rule denies it");
    // the container itself gains nothing
    let to = json!({"type": "phase", "v": 1, "container": closed.container.id, "to": "serving"});
    assert_eq!(closed.node.client().ask(&to)["type"], "done");
    assert!(!closed.container.try_chdir());
    // the next daemon finds the permit again
    closed.node.kill();
    closed.node.start();
    assert!(exec.try_chdir());
    let status = closed.node.status_of(&closed.container);
    assert_eq!(status["state"]["permits"], json!([permit.to_string()]));
}

#[test]
fn a_permit_that_ends_closes_what_it_opened() {
    if skipped() {
        return;
    }
    let mut closed = Closed::start();
    let ends = now() + 4;
    let terms = Terms {
        not_after_ms: ends * 1000,
        ..closed.terms(Calls::Ceiling)
    };
    let permit = closed.install(terms, &closed.node.key);
    let mut exec = closed.admits(&permit);
    assert!(exec.try_chdir(), "open for four seconds at most");
    let begin = std::time::Instant::now();
    while exec.try_chdir() {
        assert!(begin.elapsed() < crate::node::PATIENCE, "open for ever");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(now() >= ends, "closed too early");
    let denied = closed.events.until("denied");
    assert_eq!(
        (&denied["call"], &denied["phase"], &denied["enforced"]),
        (&json!("chdir"), &json!("exec"), &json!(true))
    );
    assert!(exec.try_write(), "it goes on under the rules of phase exec");
    closed.refuses("permit held until");
}

#[test]
fn a_permit_for_something_else_opens_nothing() {
    if skipped() {
        return;
    }
    let mut closed = Closed::start();
    let stranger = PrivateKey::generate(Algorithm::Ed25519).expect("key");
    let own = || closed.node.key.public().id().to_string();
    let pinned = own();
    let now = now();
    let terms = |change: &dyn Fn(&mut Terms)| {
        let mut terms = closed.terms(Calls::Ceiling);
        change(&mut terms);
        terms
    };
    let cases = [
        (terms(&|_| ()), false, "no signature by a pinned key"),
        (
            terms(&|terms| terms.images = BTreeSet::from([Digest::of(b"another image")])),
            true,
            "permit is for sha256:",
        ),
        (
            terms(&|terms| terms.container = Some("another".to_owned())),
            true,
            "permit is for container `another`",
        ),
        (
            terms(&|terms| terms.node = Some("elsewhere".to_owned())),
            true,
            "permit is for node `elsewhere`",
        ),
        (
            terms(&|terms| {
                terms.not_before_ms = (now - 2 * HOUR) * 1000;
                terms.not_after_ms = (now - HOUR) * 1000;
            }),
            true,
            "permit held until",
        ),
        (
            terms(&|terms| terms.not_before_ms = (now + HOUR / 2) * 1000),
            true,
            "permit holds from",
        ),
    ];
    assert_ne!(pinned, stranger.public().id().to_string());
    for (terms, ours, reason) in cases {
        let key = if ours { &closed.node.key } else { &stranger };
        let permit = closed.install(terms, key);
        closed.refuses(reason);
        closed.remove(&permit);
    }
    // and one that fits does
    let terms = Terms {
        container: Some("h1".to_owned()),
        ..closed.terms(Calls::Policy)
    };
    let permit = closed.install(terms, &closed.node.key);
    closed.admits(&permit);
}
