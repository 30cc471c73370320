//! What is said about policies: explanations, findings, differences, imports. Both sides of each.

use lazaret_core::digest::Digest;
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::rule::{
    Branch, Call, Condition, Entry, Numbers, RuleTable, Values, Verdict,
};
use lazaret_core::filter::table::nr_of;
use lazaret_core::format::policy::PolicyV1;
use lazaret_core::phase::Phase;
use lazaret_core::policy::diff::{Diff, DiffError, Side, diff};
use lazaret_core::policy::explain::{Cause, ToAllow};
use lazaret_core::policy::import::{ImportError, Imported, Note, Subject, Unsayable, import};
use lazaret_core::policy::lint::lint;
use lazaret_core::policy::{Policy, Written};
use proptest::prelude::*;
use serde_json::{Value, json};

const X: Abi = Abi::X86_64;
const REQUIRED: [&str; 6] = [
    "exit",
    "exit_group",
    "read",
    "restart_syscall",
    "rt_sigreturn",
    "write",
];

fn wire(rules: Value, change: impl FnOnce(&mut Value)) -> PolicyV1 {
    let mut all = vec![json!({"allow": REQUIRED, "why": "every process needs them"})];
    all.extend(rules.as_array().expect("a list").iter().cloned());
    let mut text = json!({
        "apiVersion": "lazaret.dev/v1", "kind": "SyscallPolicy",
        "ceiling": "default",
        "environment": {"arch": "x86_64", "kernel": ">=5.11", "noNewPrivileges": true, "runtimes": ["runc 1.1.5"]},
        "evidence": {"complete": true, "interactions": "1/1", "lost": 0, "recordings": [Digest::of(b"r").to_string()],
                     "sinceLastNew": 9, "stopped": true, "unseen": "0.1 %"},
        "image": {"name": "t", "digests": [Digest::of(b"i").to_string()]},
        "metadata": {"name": "t", "revision": 1},
        "mode": "enforce",
        "otherwise": {"action": "errno", "errno": "EPERM"},
        "phases": {"serving": {"when": {"http": {"path": "/", "port": 80, "status": 200}, "settle": "1s"}}},
        "rules": all,
    });
    change(&mut text);
    serde_json::from_value(text).expect("the test's JSON has the shape")
}

fn policy_with(rules: Value, change: impl FnOnce(&mut Value)) -> Policy {
    Policy::try_from(wire(rules, change)).unwrap_or_else(|error| panic!("{error}"))
}

fn policy(rules: Value) -> Policy {
    policy_with(rules, |_| {})
}

fn nr(name: &str) -> u32 {
    nr_of(X, name).expect("a call of the table")
}

/// Rules of every kind.
fn every_kind() -> Policy {
    policy(json!([
        {"allow": ["getpid"], "why": "asks who it is"},
        {"allow": ["bind"], "until": "serving", "why": "start-up only"},
        {"allow": ["unlink"], "during": ["stopping"], "why": "its lock file"},
        {"allow": ["socket"], "when": [{"arg": "family", "in": ["AF_INET", "AF_UNIX"]}], "why": "upstream connections"},
        {"allow": ["socket"], "when": [{"arg": "family", "in": ["AF_INET6"]}, {"arg": "type", "mask": 15, "in": [1]}],
         "until": "serving", "why": "upstream connections"},
        {"ask": ["ioctl"], "when": [{"arg": "cmd", "in": [{"from": 21504, "to": 21520}]}], "why": "terminals"},
        {"allow": ["clone"], "why": "threads"},
        {"deny": ["clone3"], "errno": "ENOSYS", "why": "flags are behind a pointer"},
        {"deny": ["mount"], "errno": "EACCES", "why": "programs cope with it best"},
    ]))
}

#[test]
fn an_explanation_has_causes_and_the_way_out() {
    let policy = every_kind();
    let rule = |cause: Cause| match cause {
        Cause::Allowed(rule) | Cause::Denied(rule) => policy.wire().rules[rule].why.clone(),
        other => format!("{other:?}"),
    };
    let causes = |name: &str, phase: Phase| -> Vec<String> {
        let explanation = policy.explain(nr(name));
        let found = explanation.phases.iter().find(|one| one.phase == phase);
        found
            .expect("every phase")
            .cases
            .iter()
            .map(|case| rule(case.cause))
            .collect()
    };
    assert_eq!(causes("getpid", Phase::Serving), ["asks who it is"]);
    assert_eq!(causes("bind", Phase::Startup), ["start-up only"]);
    assert_eq!(causes("bind", Phase::Serving), ["Otherwise"]);
    assert_eq!(causes("bind", Phase::Prelude), ["Prelude"]);
    assert_eq!(
        causes("socket", Phase::Startup),
        ["upstream connections", "upstream connections", "Otherwise"]
    );
    assert_eq!(causes("clone", Phase::Serving), ["Ceiling", "threads"]);
    assert_eq!(
        causes("clone3", Phase::Prelude),
        ["flags are behind a pointer"]
    );
    assert_eq!(
        causes("mount", Phase::Serving),
        ["programs cope with it best"]
    );
    assert_eq!(causes("ptrace", Phase::Prelude), ["Ceiling"]);

    let to_allow = |name: &str| policy.explain(nr(name)).to_allow;
    let everywhere = vec![Phase::Startup, Phase::Serving, Phase::Stopping, Phase::Exec];
    let add = |phases: &[Phase], narrow| ToAllow::AddRule {
        phases: phases.to_vec(),
        narrow,
    };
    assert_eq!(to_allow("getpid"), []);
    assert_eq!(to_allow("bind"), [add(&everywhere[1..], false)]);
    assert_eq!(to_allow("socket"), [add(&everywhere, true)]);
    assert_eq!(
        to_allow("ptrace"),
        [ToAllow::LeaveCeiling, add(&everywhere, false)]
    );
    assert!(matches!(
        to_allow("clone3")[..],
        [
            ToAllow::LeaveCeiling,
            ToAllow::DropDenial(_),
            ToAllow::AddRule { .. }
        ]
    ));
    assert_eq!(policy.explain(9999).name, None);
    assert!(
        policy
            .explain(nr("ptrace"))
            .ceiling
            .is_some_and(|over| over.why.is_some())
    );
    assert_eq!(policy.explain(nr("getpid")).ceiling, None);
}

proptest! {
    #[test]
    fn an_explanation_says_what_decide_says(nr in prop_oneof![0u32..470, Just(9999)], args in any::<[u64; 6]>(), small in any::<[u8; 6]>(), pick in any::<bool>()) {
        let policy = every_kind();
        let args = if pick { args } else { small.map(|value| u64::from(value) & 15) };
        for one in policy.explain(nr).phases {
            let case = one.cases.iter().find(|case| case.when.iter().all(|condition| condition.holds(&args)));
            let call = Call { nr, arch: X.audit_arch(), args };
            let decision = policy.decide(one.phase, &call);
            let case = case.expect("the last case always holds");
            prop_assert_eq!(case.verdict, decision.verdict);
            let rule = match case.cause { Cause::Allowed(rule) | Cause::Denied(rule) => Some(rule), _ => None };
            prop_assert_eq!(rule, decision.rule);
        }
    }
}

/// The findings as `code place`.
#[track_caller]
fn found(policy: &Policy, wanted: &[&str]) {
    let found = lint(policy).expect("decided");
    let found: Vec<String> = found
        .iter()
        .map(|one| format!("{} {}: {}", one.lint.code(), one.place, one.lint))
        .collect();
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
    for (found, wanted) in found.iter().zip(wanted) {
        assert!(
            found.starts_with(wanted),
            "{found} is not {wanted}: {found:#?}"
        );
    }
}

#[test]
fn a_sound_policy_has_no_findings() {
    found(
        &policy(json!([
            {"allow": ["bind", "execve"], "until": "serving", "why": "start-up only"},
            {"allow": ["socket"], "when": [{"arg": "family", "in": ["AF_INET"]}], "why": "upstream"},
            {"allow": ["mprotect"], "when": [{"arg": "prot", "in": [{"to": 3}]}], "why": "memory"},
            {"allow": ["clone"], "why": "threads"},
            {"deny": ["clone3"], "errno": "ENOSYS", "why": "flags are behind a pointer"},
        ])),
        &[],
    );
}

#[test]
fn headers_have_findings() {
    for (field, value, wanted) in [
        ("/mode", json!("observe"), "L009 mode"),
        (
            "/phases/serving/when/settle",
            json!("0s"),
            "L014 phases.serving.when",
        ),
        ("/evidence", Value::Null, "L010 evidence"),
        ("/evidence/lost", json!(3), "L011 evidence.lost"),
        ("/evidence/complete", json!(false), "L011 evidence.complete"),
        ("/evidence/stopped", json!(false), "L011 evidence.stopped"),
        ("/ceiling", json!([]), "L008 ceiling"),
        ("/ceiling", json!(["mount", "bpf"]), "L008 ceiling"),
        (
            "/environment/kernel",
            json!(">=6.1"),
            "L012 environment.kernel",
        ),
    ] {
        let policy = policy_with(json!([]), |text| {
            *text.pointer_mut(field).expect("a field") = value
        });
        found(&policy, &[wanted]);
    }
    // a call of 6.5 needs such a kernel, and not a later one
    let rules = || json!([{"allow": ["cachestat"], "why": "asks for the page cache"}]);
    for (bound, findings) in [(">=6.5", &[][..]), (">=6.6", &["L012"])] {
        found(
            &policy_with(rules(), |text| text["environment"]["kernel"] = json!(bound)),
            findings,
        );
    }
    let ends = || json!([{"allow": ["bind"], "until": "serving", "why": "start-up only"}]);
    for (when, findings) in [
        (json!({"tcp": {"port": 1}}), &["L014"][..]),
        (
            json!({"health": "engine", "settle": "0s", "dwell": "0s"}),
            &["L014"],
        ),
        (json!({"tcp": {"port": 1}, "dwell": "1ms"}), &[]),
        (json!({"tcp": {"port": 1}, "settle": "1ms"}), &[]),
        (json!({"quiet": "1ms"}), &[]),
    ] {
        let change = |text: &mut Value| text["phases"]["serving"]["when"] = when;
        found(&policy_with(ends(), change), findings);
    }
    let unphased = |rules| policy_with(rules, |text| text["phases"] = json!({}));
    found(&unphased(json!([])), &[]);
    found(
        &unphased(json!([{"allow": ["unlink"], "until": "serving", "why": "start-up"}])),
        &["L007 phases"],
    );
}

#[test]
fn rules_that_others_cover_are_found() {
    let unix = json!({"allow": ["socket"], "when": [{"arg": "family", "in": ["AF_UNIX"]}], "why": "local sockets"});
    let both = json!({"allow": ["socket"], "when": [{"arg": "family", "in": ["AF_UNIX", "AF_INET"]}], "why": "all sockets"});
    let inet = json!({"allow": ["socket"], "when": [{"arg": "family", "in": ["AF_INET"]}], "why": "net sockets"});
    let early = json!({"allow": ["socket"], "when": [{"arg": "family", "in": ["AF_UNIX"]}], "until": "serving", "why": "x windows"});
    let typed = json!({"allow": ["socket"], "when": [{"arg": "family", "in": ["AF_UNIX"]}, {"arg": "type", "mask": 15, "in": [1]}], "why": "streams only"});
    let asked = json!({"ask": ["socket"], "when": [{"arg": "family", "in": ["AF_UNIX"]}], "why": "watched sockets"});
    let asked_all = json!({"ask": ["socket"], "when": [{"arg": "family", "in": ["AF_UNIX", "AF_INET"]}], "why": "watched sockets"});
    for (rules, covered) in [
        (json!([both, unix]), 1),
        (json!([unix, inet]), 0),
        (json!([both, unix, inet]), 2),
        // the two together cover the one, which is left out first
        (json!([unix, inet, both]), 2),
        (json!([unix, early]), 1),
        (json!([inet, early]), 0),
        (json!([unix, typed]), 1),
        (json!([inet, typed]), 0),
        // the kernel decides what the gate would be asked
        (json!([unix, asked]), 1),
        (json!([inet, asked]), 0),
        // what the gate would be asked does not replace what the kernel decides
        (json!([unix, asked_all]), 0),
        // the gate is asked where the phase counts, whether a rule says so or not
        (json!([asked, early]), 1),
    ] {
        let policy = policy(rules);
        let found = lint(&policy).expect("decided");
        let found = found.iter().filter(|one| one.lint.code() == "L001").count();
        assert_eq!(found, covered, "{:?}", policy.wire().rules);
    }
    // above the ceiling a rule can never hold
    let flags = |value: u64| json!([{"allow": ["clone"], "when": [{"arg": "flags", "mask": 0x2000_0000, "in": [value]}], "why": "namespaces"}]);
    found(&policy(flags(0x2000_0000)), &["L001 rules[0].allow[0]"]);
    found(&policy(flags(0)), &[]);
    // rules that share the phases among them
    let during =
        |phases: &[&str]| json!({"allow": ["unlink"], "during": phases, "why": "its files"});
    let startup = json!({"allow": ["unlink"], "until": "serving", "why": "its files"});
    found(
        &policy(json!([startup, during(&["serving", "stopping", "exec"])])),
        &["L006"],
    );
    found(
        &policy(json!([startup, during(&["stopping", "exec"])])),
        &[],
    );
}

#[test]
fn reasons_hot_calls_and_dangers_are_found() {
    for why in ["", "todo", "TBD.", "  ?", "x"] {
        found(
            &policy(json!([{"allow": ["getpid"], "why": why}])),
            &["L003 rules[1].why"],
        );
    }
    found(
        &policy(
            json!([{"allow": ["futex"], "when": [{"arg": "op", "mask": 127, "in": [0, 1]}], "why": "locks"}]),
        ),
        &["L002"],
    );
    found(
        &policy(json!([{"allow": ["epoll_wait"], "until": "stopping", "why": "events"}])),
        &["L013"],
    );
    found(
        &policy(json!([{"allow": ["epoll_wait"], "until": "serving", "why": "events"}])),
        &[],
    );
    found(
        &policy(json!([{"allow": ["getdents"], "until": "stopping", "why": "folders"}])),
        &[],
    );
    for (rule, wanted) in [
        (
            json!({"allow": ["execve"], "why": "helpers"}),
            &["L004 rules[0].allow[0]"][..],
        ),
        (
            json!({"allow": ["execve"], "until": "serving", "why": "helpers"}),
            &[],
        ),
        (
            json!({"allow": ["setuid", "chmod"], "why": "drops its rights"}),
            &["L004", "L004"],
        ),
        (json!({"allow": ["socket"], "why": "sockets"}), &["L004"]),
        (json!({"allow": ["mmap"], "why": "memory"}), &["L004"]),
        (
            json!({"allow": ["mmap"], "when": [{"arg": "prot", "mask": 4, "in": [0]}], "why": "memory"}),
            &[],
        ),
        (
            json!({"allow": ["mmap"], "when": [{"arg": "prot", "in": [{"to": 3}]}], "why": "memory"}),
            &[],
        ),
        (
            json!({"allow": ["mmap"], "when": [{"arg": "prot", "in": [{"to": 4}]}], "why": "memory"}),
            &["L004"],
        ),
        (
            json!({"allow": ["mmap"], "when": [{"arg": "prot", "mask": 3, "in": [0]}], "why": "memory"}),
            &["L004"],
        ),
        (
            json!({"allow": ["open", "socketcall"], "why": "another architecture's"}),
            &["L005 rules[1].allow[1]"],
        ),
    ] {
        found(&policy(json!([rule])), wanted);
    }
    // Linux's numbers: S_IFIFO 0x1000, S_IFCHR 0x2000, S_IFBLK 0x6000, S_IFSOCK 0xc000
    let mode = |call: &str, values: Value, mask: Value| {
        let mut condition = json!({"arg": "mode", "in": values});
        if !mask.is_null() {
            condition["mask"] = mask;
        }
        json!({"allow": [call], "when": [condition], "why": "named pipes"})
    };
    let family = |values: Value| json!({"allow": ["socket"], "when": [{"arg": "family", "in": values}], "why": "sockets"});
    for (rule, dangerous) in [
        (json!({"allow": ["mknod"], "why": "named pipes"}), true),
        (json!({"allow": ["mknodat"], "why": "named pipes"}), true),
        (mode("mknod", json!([0x1000]), json!(0xf000)), false),
        (
            mode("mknodat", json!([0x1000, 0xc000]), json!(0xf000)),
            false,
        ),
        (mode("mknod", json!([0x1000, 0x2000]), json!(0xf000)), true),
        (mode("mknodat", json!([0x6000]), json!(0xf000)), true),
        (mode("mknod", json!([0x11a4]), Value::Null), false),
        (mode("mknod", json!([0x21a4]), Value::Null), true),
        (
            mode(
                "mknod",
                json!([{"from": 0x1000, "to": 0x1fff}]),
                Value::Null,
            ),
            false,
        ),
        (
            mode(
                "mknod",
                json!([{"from": 0x1000, "to": 0x2000}]),
                Value::Null,
            ),
            true,
        ),
        (mode("mknod", json!([{"from": 0x7000}]), Value::Null), false),
        (mode("mknod", json!([{"from": 0x5000}]), Value::Null), true),
        // says nothing of the kind of file
        (mode("mknod", json!([0]), json!(0x80)), true),
        (
            family(json!(["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"])),
            false,
        ),
        (family(json!(["AF_INET", "AF_VSOCK"])), true),
        (family(json!([{"to": 39}, {"from": 41}])), true),
        (family(json!([{"from": 1, "to": 2}])), false),
        (family(json!([{"from": 1, "to": 3}])), true),
        (
            json!({"allow": ["socket"], "when": [{"arg": "family", "mask": 255, "in": [1]}], "why": "sockets"}),
            true,
        ),
        (
            json!({"allow": ["socket"], "when": [{"arg": "type", "mask": 15, "in": [1]}], "why": "sockets"}),
            true,
        ),
    ] {
        let wanted: &[&str] = if dangerous { &["L004 "] } else { &[] };
        found(&policy(json!([rule])), wanted);
    }
    // a ceiling of one's own does not hide what it opens
    let low = |rules| policy_with(rules, |text| text["ceiling"] = json!(["bpf"]));
    let codes: Vec<&str> = lint(&low(json!([{"allow": ["ptrace"], "why": "debugging"}])))
        .expect("decided")
        .iter()
        .map(|one| one.lint.code())
        .collect();
    assert_eq!(codes, ["L008", "L004"]);
}

#[test]
fn places_lead_back_to_the_text_as_written() {
    let text = wire(
        json!([{"allow": ["socket", "futex"], "why": "second"}, {"allow": ["bind", "accept"], "until": "serving", "why": "first"}]),
        |_| {},
    );
    let policy = Policy::try_from(text.clone()).expect("a policy");
    let written = Written::new(&policy, &text);
    for (canonical, rule) in policy.wire().rules.iter().enumerate() {
        let at = written.rule(canonical).expect("a rule");
        assert_eq!(text.rules[at].why, rule.why);
        for (index, call) in rule.allow.iter().flatten().enumerate() {
            let place = lazaret_core::policy::Place::field("rules")
                .index(canonical)
                .at("allow")
                .index(index);
            let found = written.place(&place).to_string();
            let position = text.rules[at]
                .allow
                .iter()
                .flatten()
                .position(|other| other == call);
            assert_eq!(
                found,
                format!("rules[{at}].allow[{}]", position.expect("the call"))
            );
        }
    }
}

fn changes(a: Side<'_>, b: Side<'_>) -> Diff {
    diff(a, b).expect("decided")
}

#[test]
fn texts_that_mean_the_same_do_not_differ() {
    let a = policy(json!([
        {"allow": ["bind", "getpid"], "why": "one reason"},
        {"allow": ["socket"], "when": [{"arg": "family", "in": ["AF_UNIX", "AF_INET"]}], "why": "sockets"},
    ]));
    let b = policy_with(
        json!([
            {"allow": ["socket"], "when": [{"arg": "domain", "in": [1]}], "why": "local"},
            {"allow": ["socket"], "when": [{"arg": "domain", "in": [2]}], "why": "net"},
            {"allow": ["getpid"], "why": "another"},
            {"allow": ["bind"], "why": "and a third"},
        ]),
        |text| {
            text["evidence"] = Value::Null;
            text["metadata"]["revision"] = json!(7);
        },
    );
    let diff = changes(Side::Policy(&a), Side::Policy(&b));
    assert!(diff.is_empty(), "{diff:?}");
}

#[test]
fn differences_are_found_by_phase_region_and_band() {
    let socket = |values: Value| json!({"allow": ["socket"], "when": [{"arg": "family", "in": values}], "why": "sockets"});
    let a = policy(
        json!([socket(json!([1, 2])), {"allow": ["bind"], "until": "serving", "why": "ports"}, {"allow": ["getpid"], "why": "itself"}]),
    );
    let b = policy_with(
        json!([socket(json!([1, 10])), {"allow": ["bind"], "until": "stopping", "why": "ports"}, {"ask": ["getpid"], "why": "itself"}]),
        |text| text["mode"] = json!("observe"),
    );
    let diff_ab = changes(Side::Policy(&a), Side::Policy(&b));
    let told = |changes: &[lazaret_core::policy::diff::Change]| -> Vec<String> {
        let tell = |one: &lazaret_core::policy::diff::Change| {
            let names: Vec<&str> = one.phases.iter().map(|phase| phase.name()).collect();
            let difference = &one.difference;
            format!(
                "{:?} {} {} {:?} {:?}",
                difference.numbers,
                difference.when,
                names.join(","),
                difference.expected,
                difference.found
            )
        };
        changes.iter().map(tell).collect()
    };
    let all = "startup,serving,stopping,exec";
    let (allow, eperm, ask) = ("Allow", "Errno(1)", "Ask");
    assert_eq!(
        told(&diff_ab.opened),
        [
            format!("41..=41 arg0 & 0xffffffff == 10 {all} {eperm} {allow}"),
            format!("49..=49 always serving {eperm} {allow}"),
        ]
    );
    assert_eq!(
        told(&diff_ab.closed),
        [format!(
            "41..=41 arg0 & 0xffffffff == 2 {all} {allow} {eperm}"
        )]
    );
    assert_eq!(
        told(&diff_ab.bands),
        [format!("39..=39 always  {allow} {ask}")]
    );
    let fields: Vec<&str> = diff_ab.fields.iter().map(|change| change.field).collect();
    assert_eq!(fields, ["mode"]);
    // the other way round it is the reverse
    let diff_ba = changes(Side::Policy(&b), Side::Policy(&a));
    assert_eq!((diff_ba.opened.len(), diff_ba.closed.len()), (1, 2));
    // refused by both, with another errno
    let plain = policy(json!([]));
    let eacces = policy(
        json!([{"deny": ["mount"], "errno": "EACCES", "why": "programs cope with it best"}]),
    );
    let errnos = changes(Side::Policy(&plain), Side::Policy(&eacces));
    assert_eq!(
        told(&errnos.refused),
        [format!("165..=165 always prelude,{all} {eperm} Errno(13)")]
    );
    assert!(errnos.opened.is_empty() && errnos.closed.is_empty() && !errnos.is_empty());
    let arm = policy_with(json!([]), |text| {
        text["environment"]["arch"] = json!("aarch64")
    });
    assert!(matches!(
        diff(Side::Policy(&a), Side::Policy(&arm)),
        Err(DiffError::Architectures { .. })
    ));
}

#[test]
fn a_profile_can_stand_on_either_side() {
    let a = policy(json!([{"allow": ["getpid"], "why": "itself"}]));
    let table = a.static_table();
    assert!(
        changes(Side::Policy(&a), Side::Table(&table))
            .opened
            .is_empty()
    );
    assert!(changes(Side::Table(&table), Side::Table(&table)).is_empty());
    let b = policy(json!([{"allow": ["getpid"], "until": "serving", "why": "itself"}]));
    let diff = changes(Side::Policy(&b), Side::Table(&table));
    assert_eq!(diff.opened.len(), 1);
    assert_eq!(
        diff.opened[0].phases,
        [Phase::Serving, Phase::Stopping, Phase::Exec]
    );
}

fn subject() -> Subject {
    Subject {
        name: "imported".to_string(),
        image: "t".to_string(),
        digests: vec![Digest::of(b"i")],
        no_new_privileges: false,
        source: "the profile".to_string(),
    }
}

/// A table with the required calls and these entries.
fn profile(entries: &[(&str, Entry)]) -> RuleTable {
    let required = REQUIRED
        .iter()
        .map(|name| (nr(name), Entry::always(Verdict::Allow)));
    let entries = entries
        .iter()
        .map(|(name, entry)| (nr(name), entry.clone()));
    let numbers = Numbers {
        entries: required.chain(entries).collect(),
        otherwise: Verdict::Errno(1),
    };
    RuleTable::single(X, numbers, Verdict::KillThread)
}

fn when(conditions: &[(u8, u64, Values)], verdict: Verdict) -> Entry {
    let all = conditions.iter().map(|(arg, mask, values)| Condition {
        arg: *arg,
        mask: *mask,
        values: values.clone(),
    });
    Entry {
        branches: vec![Branch {
            all: all.collect(),
            verdict,
        }],
        otherwise: Verdict::Errno(1),
    }
}

#[test]
fn imports_mean_what_the_profile_means() {
    let not = |value: u64| Values::of([0..=value - 1, value + 1..=u64::MAX]);
    let table = profile(&[
        ("getpid", Entry::always(Verdict::Allow)),
        ("clone3", Entry::always(Verdict::Errno(38))),
        ("ptrace", Entry::always(Verdict::Allow)),
        (
            "clone",
            when(&[(0, 0x7e02_0000, [0].into())], Verdict::Allow),
        ),
        ("socket", when(&[(0, u64::MAX, not(40))], Verdict::Allow)),
        (
            "personality",
            when(&[(0, u64::MAX, [0, 8, 0xffff_ffff].into())], Verdict::Allow),
        ),
        ("mprotect", when(&[(2, 4, [0].into())], Verdict::Allow)),
    ]);
    let Imported { policy, notes } =
        import(&table, X, subject()).unwrap_or_else(|error| panic!("{error}"));
    let fixed = policy.static_table();
    for (name, args, verdict) in [
        ("getpid", [0, 0, 0], Verdict::Allow),
        ("getppid", [0, 0, 0], Verdict::Errno(1)),
        ("clone3", [0, 0, 0], Verdict::Errno(38)),
        ("ptrace", [0, 0, 0], Verdict::Allow),
        ("mount", [0, 0, 0], Verdict::Errno(1)),
        ("clone", [17, 0, 0], Verdict::Allow),
        ("clone", [0x1000_0000, 0, 0], Verdict::Errno(1)),
        ("socket", [40, 0, 0], Verdict::Errno(1)),
        ("socket", [39, 0, 0], Verdict::Allow),
        // the profile lets this through, and the kernel takes it for AF_VSOCK
        ("socket", [0x1_0000_0028, 0, 0], Verdict::Errno(1)),
        ("personality", [8, 0, 0], Verdict::Allow),
        ("personality", [9, 0, 0], Verdict::Errno(1)),
        ("mprotect", [0, 0, 4], Verdict::Errno(1)),
        ("mprotect", [0, 0, 3], Verdict::Allow),
    ] {
        let mut call = Call::new(X, nr(name));
        call.args[..3].copy_from_slice(&args);
        assert_eq!(fixed.decide(&call), verdict, "{name} {args:x?}");
    }
    let said: Vec<String> = notes.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 4, "{said:#?}");
    assert!(matches!(notes[1], Note::LeftOut { call: "ptrace", .. }));
    assert!(said[2].contains("`family` of `socket`"), "{said:#?}");
    let text = serde_json::to_string(policy.wire()).expect("JSON");
    assert!(
        text.contains(r#"{"from":41}"#) && text.contains(r#"{"to":39}"#),
        "{text}"
    );
    // the other conventions of a profile are closed, and that is said
    let mut wide = table.clone();
    let numbers = wide.abis[&X].clone();
    wide.abis.insert(Abi::X32, numbers);
    let imported = import(&wide, X, subject()).unwrap_or_else(|error| panic!("{error}"));
    assert!(imported.notes.contains(&Note::Closed { abi: Abi::X32 }));
    assert_eq!(imported.policy, policy);
    assert!(matches!(
        import(&table, Abi::Aarch64, subject()),
        Err(ImportError::NotServed(Abi::Aarch64))
    ));
}

#[test]
fn what_the_language_cannot_say_is_refused() {
    let problem = |table: &RuleTable| match import(table, X, subject()) {
        Err(ImportError::Unsayable(problems)) => problems,
        other => panic!("{other:?}"),
    };
    for verdict in [
        Verdict::KillProcess,
        Verdict::Trap(0),
        Verdict::Log,
        Verdict::Ask,
        Verdict::Trace(1),
    ] {
        let call = "getpid".to_string();
        let wanted = [Unsayable::Verdict {
            call,
            found: verdict,
        }];
        assert_eq!(
            problem(&profile(&[("getpid", Entry::always(verdict))])),
            wanted
        );
        assert_eq!(problem(&profile(&[("getpid", when(&[], verdict))])), wanted);
        let mut table = profile(&[]);
        table.abis.get_mut(&X).expect("served").otherwise = verdict;
        assert_eq!(problem(&table), [Unsayable::Default { found: verdict }]);
    }
    let two = when(&[(0, 1, [0].into()), (0, 2, [0].into())], Verdict::Allow);
    assert!(matches!(
        problem(&profile(&[("socket", two)]))[..],
        [Unsayable::TwoMasks { .. }]
    ));
    let beyond = when(&[(5, u64::MAX, [0].into())], Verdict::Allow);
    assert!(matches!(
        problem(&profile(&[("socket", beyond)]))[..],
        [Unsayable::NoArgument { arg: 5, .. }]
    ));
    // no program can end under it
    let mut mute = profile(&[]);
    mute.abis
        .get_mut(&X)
        .expect("served")
        .entries
        .remove(&nr("exit_group"));
    assert!(matches!(
        import(&mute, X, subject()),
        Err(ImportError::Policy(_))
    ));
    // an errno before an allow that overlaps: rules of a policy have no order
    let mut entry = when(&[(0, 0xffff_ffff, [2].into())], Verdict::Errno(1));
    entry.branches.push(Branch {
        all: vec![Condition {
            arg: 1,
            mask: 15,
            values: [1].into(),
        }],
        verdict: Verdict::Allow,
    });
    match import(&profile(&[("socket", entry)]), X, subject()) {
        Err(ImportError::Differs(difference)) => assert_eq!(difference.call.args[0], 2),
        other => panic!("{other:?}"),
    }
    // another errno for the same refusal is said, not refused
    let einval = profile(&[("bind", Entry::always(Verdict::Errno(22)))]);
    let imported = import(&einval, X, subject()).unwrap_or_else(|error| panic!("{error}"));
    assert!(
        matches!(imported.notes[..], [Note::Errno(_)]),
        "{:?}",
        imported.notes
    );
    assert!(
        imported.notes[0]
            .to_string()
            .starts_with("bind fails with EINVAL"),
        "{}",
        imported.notes[0]
    );
}
