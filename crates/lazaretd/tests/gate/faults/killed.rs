//! The daemon is killed at every named point, and some of its successors while they take over.

use super::stage::{KEEP, REVISION, Stage, eventually, moved, revised, try_ask};
use super::{audited, stage::nothing_is_left};
use crate::node::{Node, Paper, skipped};
use crate::sandbox::Sandbox;
use crate::server::Server;
use lazaret_bundle::permit::{Calls, Kind, Permit, Terms};
use lazaret_core::filter::compile::compile;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

/// What is done so that a daemon comes to a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// A container starts.
    Start,
    /// A container starts whose profile names another policy: it must never run.
    Refused,
    /// Containers ask.
    Call,
    /// A container is moved to serving by hand.
    Phase,
    /// A stricter revision is put in force.
    Revise,
    /// A process is put into a container.
    Exec,
    /// The same under a permit, without which the policy refuses it.
    Permit,
    /// A container's server becomes ready.
    Ready,
    /// A container ends.
    End,
    /// The daemon takes over.
    TakeOver,
    /// So much happens that the log is turned over.
    Log,
    /// Events are exported.
    Audit,
}

/// Whether what was asked for holds under the next daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// Not yet: the record is older.
    Before,
    /// It does.
    After,
    /// There is nothing to ask for, or it comes by itself.
    Always,
}

/// One row of the table.
pub(super) struct Row {
    /// The point, and at which arrival.
    pub(super) fault: &'static str,
    reach: Reach,
    holds: Holds,
}

const fn row(fault: &'static str, reach: Reach, holds: Holds) -> Row {
    Row {
        fault,
        reach,
        holds,
    }
}

/// Every point, some of them on several ways.
pub(super) const ROWS: &[Row] = &[
    row("handed-over", Reach::Start, Holds::Always),
    row("record-write", Reach::Start, Holds::Always),
    row("record-rename", Reach::Start, Holds::Always),
    row("record-written", Reach::Start, Holds::Always),
    row("recorded", Reach::Start, Holds::Always),
    row("keeping", Reach::Start, Holds::Always),
    row("keep-acknowledged", Reach::Start, Holds::Always),
    row("kept", Reach::Start, Holds::Always),
    row("received-in-prelude", Reach::Start, Holds::Always),
    row("admit", Reach::Start, Holds::Always),
    row("image-resolved", Reach::Start, Holds::Always),
    row("verified", Reach::Start, Holds::Always),
    row("filters-proved", Reach::Start, Holds::Always),
    row("record-write:2", Reach::Start, Holds::Always),
    row("record-rename:2", Reach::Start, Holds::Always),
    row("record-written:2", Reach::Start, Holds::Always),
    row("checked:2", Reach::Start, Holds::Always),
    row("execve-answered:2", Reach::Start, Holds::Always),
    row("log-written:3", Reach::Start, Holds::Always),
    row("kept", Reach::Refused, Holds::Always),
    row("received-in-prelude", Reach::Refused, Holds::Always),
    row("admit", Reach::Refused, Holds::Always),
    row("image-resolved", Reach::Refused, Holds::Always),
    row("checked:2", Reach::Refused, Holds::Always),
    row("execve-answered:2", Reach::Refused, Holds::Always),
    row("received", Reach::Call, Holds::Always),
    row("decided", Reach::Call, Holds::Always),
    row("answered", Reach::Call, Holds::Always),
    row("received:2", Reach::Call, Holds::Always),
    row("phase-changed", Reach::Phase, Holds::Before),
    row("record-rename", Reach::Phase, Holds::Before),
    row("phase-kept", Reach::Phase, Holds::After),
    row("reply", Reach::Phase, Holds::After),
    row("revision-checked", Reach::Revise, Holds::Before),
    row("record-rename:2", Reach::Revise, Holds::Before),
    row("record-written:2", Reach::Revise, Holds::After),
    row("revised", Reach::Revise, Holds::After),
    row("reply", Reach::Revise, Holds::After),
    row("kept", Reach::Exec, Holds::Always),
    row("record-rename:2", Reach::Exec, Holds::Always),
    row("exec-admitted", Reach::Exec, Holds::Always),
    row("permit-kept", Reach::Permit, Holds::Always),
    row("permit-told", Reach::Permit, Holds::Always),
    row("exec-admitted", Reach::Permit, Holds::Always),
    row("ready", Reach::Ready, Holds::Always),
    row("phase-changed", Reach::Ready, Holds::Always),
    row("ending", Reach::End, Holds::Always),
    row("unkeeping", Reach::End, Holds::Always),
    row("unkept", Reach::End, Holds::Always),
    row("forgotten", Reach::End, Holds::Always),
    row("taking-over", Reach::TakeOver, Holds::Always),
    row("asked-again", Reach::TakeOver, Holds::Always),
    row("one-taken-over", Reach::TakeOver, Holds::Always),
    row("one-taken-over:2", Reach::TakeOver, Holds::Always),
    row("taken-over", Reach::TakeOver, Holds::Always),
    row("log-full", Reach::Log, Holds::Always),
    row("log-moving", Reach::Log, Holds::Always),
    row("log-moved", Reach::Log, Holds::Always),
    row("log-moved:2", Reach::Log, Holds::Always),
    row("log-turned-over:2", Reach::Log, Holds::Always),
    row("audit-write", Reach::Audit, Holds::Always),
    row("audit-written", Reach::Audit, Holds::Always),
    row("audit-queued", Reach::Audit, Holds::Always),
    row("audit-delivered", Reach::Audit, Holds::Always),
    row("audit-settled", Reach::Audit, Holds::Always),
];

/// Where the daemon after the one that was killed is killed too; each row takes the next.
const AGAIN: [Option<&str>; 4] = [
    None,
    Some("taking-over"),
    Some("one-taken-over"),
    Some("taken-over"),
];

/// Rows that are tried at the same time; most of their time goes by in waiting.
const AT_ONCE: usize = 4;

/// Tries the rows that are reached in one of these ways.
fn check(reached: &[Reach]) {
    if skipped() {
        return;
    }
    let rows = ROWS.iter().enumerate();
    let rows: Vec<_> = rows
        .filter(|(_, row)| reached.contains(&row.reach))
        .collect();
    assert!(!rows.is_empty());
    let next = Mutex::new(rows.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let taken = next.lock().expect("no panic here").next();
                    let Some((at, row)) = taken else {
                        return;
                    };
                    let again = AGAIN[at % AGAIN.len()];
                    println!("row: {} by {:?}, then {again:?}", row.fault, row.reach);
                    let _shown = Shown(row);
                    Trial::of(row).run(again);
                }
            });
        }
    });
}

/// Says which row failed.
struct Shown<'a>(&'a Row);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("FAILED: {} by {:?}", self.0.fault, self.0.reach);
        }
    }
}

/// One row on its node.
struct Trial<'a> {
    row: &'a Row,
    stage: Stage,
    server: Option<Server>,
    export: Option<audited::Export>,
}

impl<'a> Trial<'a> {
    fn of(row: &'a Row) -> Trial<'a> {
        let mut node = Node::new();
        let server = (row.reach == Reach::Ready).then(Server::start);
        let paper = Paper {
            exec_start: match row.reach {
                Reach::Permit => "refuse",
                _ => "admit",
            },
            serving_port: server.as_ref().map(|server| server.port),
            ..Paper::default()
        };
        let option = |name: &str, value: &str| [name.to_owned(), value.to_owned()];
        if row.reach == Reach::Log {
            node.options.extend(option("--log-max-bytes", "4096"));
            node.options.extend(option("--log-keep", &KEEP.to_string()));
        }
        if row.reach == Reach::Permit {
            permit(&node, &paper);
        }
        let stage = Stage::set(node, &paper);
        Trial {
            row,
            stage,
            server,
            export: None,
        }
    }

    fn run(mut self, again: Option<&str>) {
        let row = self.row;
        if row.reach == Reach::Audit {
            // from here on: what is in the log already is exported as well
            self.export = Some(audited::Export::to_new_server(&mut self.stage.node));
        }
        let asked = row.reach == Reach::TakeOver;
        if asked {
            // these calls wait for the next daemon
            self.stage.node.kill();
            self.stage.startup.begin_chdir();
            self.stage.serving.begin_chdir();
        }
        let started = self.stage.arm(row.fault);
        let (target, answer) = if started { self.reach() } else { (None, None) };
        self.stage.is_killed(row.fault);
        if let Some(again) = again {
            assert!(!self.stage.arm(again), "{again} is before it listens");
            self.stage.is_killed(again);
        }
        self.stage.node.kill();
        self.stage.node.start();
        if asked || row.reach == Reach::Call {
            assert_eq!(self.stage.startup.chdir_outcome(), Some(true));
            assert_eq!(self.stage.serving.chdir_outcome(), Some(false));
        }
        self.acknowledged(answer.as_ref());
        if let Some(target) = target {
            self.target_holds(target);
        }
        self.stage.rights_hold();
        self.stage.log_holds();
        self.stage.log_is_whole();
        let export = self.export.take();
        if let Some(export) = export {
            let Stage {
                mut node,
                startup,
                serving,
                ..
            } = self.stage;
            for container in [startup, serving] {
                container.end();
            }
            export.is_complete(&mut node);
            nothing_is_left(&mut node);
        } else {
            self.stage.end();
        }
    }

    /// Does what brings the daemon to the point; a container or process that this concerns, and what the daemon answered.
    fn reach(&mut self) -> (Option<Sandbox>, Option<serde_json::Value>) {
        let stage = &mut self.stage;
        let (node, policy) = (&stage.node, &stage.policy);
        let mut target = None;
        let mut answer = None;
        match self.row.reach {
            Reach::Start | Reach::End => target = Some(node.create(policy)),
            Reach::Refused => target = Some(refused(node, policy)),
            Reach::Exec | Reach::Permit => {
                let metadata = policy.digest().to_string();
                target = Some(node.exec(&stage.startup, policy, &metadata));
            }
            Reach::Call => {
                stage.startup.begin_chdir();
                stage.serving.begin_chdir();
            }
            Reach::Phase => answer = try_ask(node, &moved(&stage.startup, "serving")),
            Reach::Revise => answer = try_ask(node, &revised(&stage.startup)),
            Reach::Ready => {
                if let Some(server) = &self.server {
                    server.be_ready();
                }
            }
            Reach::Log => {
                for _ in 0..100 {
                    let mut container = refused(&stage.node, &stage.policy);
                    container.go();
                    let mut gone = false;
                    eventually("refused, or killed over it", || {
                        gone = stage.node.daemon().try_wait().expect("waited").is_some();
                        gone || stage.node.has_logged("ended", &container.id)
                    });
                    container.outer.0.kill().expect("ours");
                    container.end();
                    if gone {
                        break;
                    }
                }
            }
            // it happens by itself
            Reach::TakeOver | Reach::Audit => {}
        }
        if let Some(target) = &mut target {
            target.go();
        }
        if self.row.reach == Reach::End
            && let Some(mut container) = target.take()
        {
            assert!(container.try_chdir());
            container.end();
        }
        (target, answer)
    }

    /// What was answered before the kill holds after it, and what must not hold yet does not.
    fn acknowledged(&self, answer: Option<&serde_json::Value>) {
        let stage = &self.stage;
        let status = stage.node.status_of(&stage.startup);
        let holds = match self.row.reach {
            Reach::Phase => status["state"]["phase"] == "serving",
            Reach::Revise => status["state"]["in_force"]["revision"] == REVISION,
            Reach::Ready => {
                eventually("serving", || {
                    stage.node.status_of(&stage.startup)["state"]["phase"] == "serving"
                });
                return;
            }
            _ => return,
        };
        assert!(answer.is_none() || holds, "{answer:?} was lost: {status}");
        match self.row.holds {
            Holds::Before => assert!(!holds, "{status}"),
            Holds::After => assert!(holds, "{status}"),
            Holds::Always => {}
        }
    }

    /// A container that was starting has started under its policy, or has ended.
    fn target_holds(&self, mut target: Sandbox) {
        let node = &self.stage.node;
        target.begin_chdir();
        let outcome = target.chdir_outcome();
        match self.row.reach {
            // it was started by a daemon that kept its listener, or it never ran
            Reach::Start => assert_ne!(outcome, Some(false)),
            Reach::Refused => assert_eq!(outcome, None, "it ran without papers"),
            Reach::Exec => assert_ne!(outcome, Some(true), "exec denies chdir"),
            Reach::Permit => assert_eq!(outcome, Some(true), "the permit opens chdir"),
            other => panic!("{other:?} has no target"),
        }
        if outcome.is_some() && self.row.reach == Reach::Start {
            let status = node.status_of(&target);
            assert_eq!(status["state"]["is"], "admitted", "{status}");
            assert!(target.still_answers());
        }
        let said = target.end();
        println!("the container said: {said}");
    }
}

/// A container whose profile names a policy that is not installed.
fn refused(node: &Node, policy: &lazaret_core::policy::Policy) -> Sandbox {
    let program = compile(&policy.kernel_table()).expect("compiled");
    let other = lazaret_core::digest::Digest::of(b"another policy");
    node.create_with(&program, &other.to_string())
}

/// Installs a permit for execs, which holds for an hour.
pub(super) fn permit(node: &Node, paper: &Paper) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let now_s = now.as_secs();
    let permit = Permit::new(Terms {
        images: BTreeSet::from([paper.image]),
        kind: Kind::Exec {
            calls: Calls::Ceiling,
        },
        reason: "a test".to_owned(),
        not_before_ms: (now_s - 60) * 1000,
        not_after_ms: (now_s + 3600) * 1000,
        container: None,
        node: None,
    })
    .expect("terms");
    let envelope = lazaret_bundle::sign_permit(&permit, &[&node.key]).expect("signed");
    let keys = lazaret_bundle::TrustedKeys::load(&node.path("store/keys")).expect("keys");
    let verified = lazaret_bundle::verify_permit(&envelope, &keys, &BTreeSet::from([paper.image]))
        .expect("verified");
    lazaret_bundle::store::install_permit(&node.path("store"), &verified, &envelope)
        .expect("installed");
}

#[test]
fn killed_while_a_container_starts() {
    check(&[Reach::Start]);
}

#[test]
fn killed_while_a_container_is_refused() {
    check(&[Reach::Refused]);
}

#[test]
fn killed_over_a_call() {
    check(&[Reach::Call, Reach::TakeOver]);
}

#[test]
fn killed_over_a_request() {
    check(&[Reach::Phase, Reach::Revise, Reach::Ready]);
}

#[test]
fn killed_over_an_exec() {
    check(&[Reach::Exec, Reach::Permit]);
}

#[test]
fn killed_at_the_end_of_a_container() {
    check(&[Reach::End]);
}

#[test]
fn killed_over_the_log() {
    check(&[Reach::Log]);
}

#[test]
fn killed_over_the_export() {
    check(&[Reach::Audit]);
}
