//! `phases`: what is refused, word by word, and what its fields mean.

mod common;

use common::{read, refused, text};
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::rule::Call;
use lazaret_core::filter::table::nr_of;
use lazaret_core::life::Readiness;
use lazaret_core::policy::diff::{FieldChange, Side, diff};
use lazaret_core::policy::{ExecStart, Http, Policy, Serving, Trigger};

/// Rules with calls that only startup allows, `execve` among them.
const RULES: &str = r#"{"allow":["execve","bind"],"until":"serving","why":""}"#;

fn with(phases: &str) -> String {
    text(RULES, &[("phases", phases)])
}

#[track_caller]
fn policy(phases: &str) -> Policy {
    let text = with(phases);
    read(&text).unwrap_or_else(|error| panic!("{phases}: {error}"))
}

fn when(when: &str) -> String {
    format!(r#"{{"serving":{{"when":{{{when}}}}}}}"#)
}

const HTTP: &str = r#""http":{"path":"/","port":80,"status":200}"#;

#[test]
fn each_trigger_is_what_it_says() {
    let http = Http {
        port: 80,
        path: "/".to_string(),
        status: 200,
    };
    for (written, trigger, settle_ms, dwell_ms) in [
        (HTTP.to_string(), Trigger::Http(http.clone()), 0, 0),
        (
            format!(r#"{HTTP},"settle":"10s""#),
            Trigger::Http(http),
            10_000,
            0,
        ),
        (
            r#""tcp":{"port":8080},"settle":"10s","dwell":"30s""#.to_string(),
            Trigger::Tcp { port: 8080 },
            10_000,
            30_000,
        ),
        (
            r#""health":"engine","dwell":"1ms""#.to_string(),
            Trigger::Health,
            0,
            1,
        ),
        (
            r#""quiet":"86400s","settle":"86400s","dwell":"86400s""#.to_string(),
            Trigger::Quiet { for_ms: 86_400_000 },
            86_400_000,
            86_400_000,
        ),
    ] {
        let policy = policy(&when(&written));
        let serving = Serving {
            trigger,
            settle_ms,
            dwell_ms,
        };
        assert_eq!(policy.serving(), Some(&serving), "{written}");
        // what synthesis writes is read as what it was
        let mut again = policy.wire().clone();
        again.phases.serving = Some(serving.wire());
        let again = Policy::try_from(again).expect("a policy");
        assert_eq!(again.serving(), Some(&serving));
        let readiness = match serving.trigger {
            Trigger::Quiet { for_ms } => Readiness::Quiet {
                quiet_ms: for_ms,
                settle_ms,
                dwell_ms,
            },
            _ => Readiness::Asked {
                settle_ms,
                dwell_ms,
            },
        };
        assert_eq!(Readiness::of(&policy), readiness);
    }
    assert_eq!(Readiness::of(&policy("{}")), Readiness::ByHand);
}

#[test]
fn a_trigger_is_exactly_one() {
    let one = "phases.serving.when: `when` has exactly one of `http`, `tcp`, `health` and `quiet`";
    for written in [
        String::new(),
        r#""settle":"10s""#.to_string(),
        format!(r#"{HTTP},"tcp":{{"port":80}}"#),
        r#""health":"engine","quiet":"20s""#.to_string(),
        format!(r#"{HTTP},"tcp":{{"port":80}},"health":"engine","quiet":"20s""#),
    ] {
        refused(&with(&when(&written)), &[one]);
    }
    // and each that stands there is looked at
    refused(
        &with(&when(
            r#""http":{"path":"","port":0,"status":1},"tcp":{"port":0},"quiet":"x""#,
        )),
        &[
            "phases.serving.when.http.port: 0 is no TCP port",
            "phases.serving.when.http.status: 1 is no HTTP status",
            "phases.serving.when.http.path: `` is no path of at most 1024 characters beginning with `/`",
            "phases.serving.when.tcp.port: 0 is no TCP port",
            "phases.serving.when.quiet: `x` is no duration from 0s to 86400s, as `10s` or `500ms`",
            one,
        ],
    );
}

#[test]
fn durations_are_at_most_a_day() {
    for field in ["settle", "dwell"] {
        for (duration, ms) in [
            ("0s", Some(0)),
            ("86400s", Some(86_400_000)),
            ("86400000ms", Some(86_400_000)),
            ("86401s", None),
            ("86400001ms", None),
            ("18446744073709551616s", None),
            ("18446744073709551615s", None),
            ("-1s", None),
            ("s", None),
            ("1", None),
            ("1m", None),
            ("1.5s", None),
            (" 1s", None),
        ] {
            let phases = when(&format!(r#"{HTTP},"{field}":"{duration}""#));
            match ms {
                Some(ms) => {
                    let policy = policy(&phases);
                    let serving = policy.serving().expect("a trigger");
                    let found = match field {
                        "settle" => serving.settle_ms,
                        _ => serving.dwell_ms,
                    };
                    assert_eq!(found, ms);
                }
                None => refused(
                    &with(&phases),
                    &[&format!(
                        "phases.serving.when.{field}: `{duration}` is no duration from 0s to 86400s, as `10s` or `500ms`"
                    )],
                ),
            }
        }
    }
}

#[test]
fn quiet_needs_a_time_and_calls_that_end() {
    refused(
        &with(&when(r#""quiet":"0s""#)),
        &["phases.serving.when.quiet: 0 is no time to wait for, write at least `1ms`"],
    );
    let quiet = when(r#""quiet":"1ms""#);
    policy(&quiet);
    let never = "phases.serving.when.quiet: no rule allows a call in startup that serving denies: there is nothing to be \
                 quiet about, end some with `until: serving`";
    for (rules, right) in [
        ("", false),
        (r#"{"allow":["bind"],"why":""}"#, false),
        (r#"{"allow":["bind"],"during":["serving"],"why":""}"#, false),
        (r#"{"allow":["bind"],"until":"stopping","why":""}"#, false),
        (
            r#"{"allow":["bind"],"until":"serving","why":""},{"allow":["bind"],"during":["serving"],"why":""}"#,
            false,
        ),
        (r#"{"ask":["bind"],"until":"serving","why":""}"#, true),
        (
            r#"{"allow":["bind"],"during":["startup","exec"],"why":""}"#,
            true,
        ),
    ] {
        let text = text(rules, &[("phases", &quiet)]);
        if right {
            assert!(read(&text).is_ok(), "{rules}");
        } else {
            refused(&text, &[never]);
        }
    }
}

#[test]
fn restarts_need_a_trigger_and_an_execve_that_ends() {
    let phases = |restarts: u32| {
        format!(
            r#"{{"startup":{{"restarts":{restarts}}},"serving":{{"when":{{"tcp":{{"port":80}}}}}}}}"#
        )
    };
    for restarts in [0, 1, 1000] {
        assert_eq!(policy(&phases(restarts)).restarts(), restarts);
    }
    assert_eq!(policy("{}").restarts(), 0);
    refused(
        &with(&phases(1001)),
        &["phases.startup.restarts: 1001 restarts, at most 1000 are allowed"],
    );
    refused(
        &with(r#"{"startup":{"restarts":1}}"#),
        &[
            "phases.startup.restarts: `restarts` needs `phases.serving`: after a restart nothing else would end the startup",
        ],
    );
    assert_eq!(policy(r#"{"startup":{"restarts":0}}"#).restarts(), 0);
    let never = "phases.startup.restarts: `restarts` needs a rule that allows `execve` or `execveat` in startup and none \
                 that allows it in serving: by that call a restart is seen";
    for (rules, right) in [
        (r#"{"allow":["bind"],"until":"serving","why":""}"#, false),
        (r#"{"allow":["execve"],"why":""}"#, false),
        (r#"{"allow":["execve"],"until":"stopping","why":""}"#, false),
        (r#"{"deny":["execve"],"why":""}"#, false),
        (
            r#"{"allow":["execve"],"during":["startup","exec"],"why":""}"#,
            true,
        ),
        (r#"{"ask":["execveat"],"until":"serving","why":""}"#, true),
        (
            r#"{"allow":["execve"],"why":""},{"allow":["execveat"],"until":"serving","why":""}"#,
            true,
        ),
    ] {
        let text = text(rules, &[("phases", &phases(1))]);
        if right {
            assert!(read(&text).is_ok(), "{rules}");
        } else {
            refused(&text, &[never]);
        }
    }
}

#[test]
fn exec_is_admitted_unless_it_says_otherwise() {
    for (phases, start) in [
        ("{}", ExecStart::Admit),
        (r#"{"exec":{"start":"admit"}}"#, ExecStart::Admit),
        (r#"{"exec":{"start":"refuse"}}"#, ExecStart::Refuse),
    ] {
        assert_eq!(policy(phases).exec_start(), start, "{phases}");
    }
}

#[test]
fn an_engine_cannot_check_a_container_that_it_may_not_enter() {
    let phases = |start: &str, when: &str| {
        format!(r#"{{"exec":{{"start":"{start}"}},"serving":{{"when":{{{when}}}}}}}"#)
    };
    refused(
        &with(&phases("refuse", r#""health":"engine""#)),
        &[
            "phases.serving.when.health: the engine runs its health check as an exec, and `phases.exec.start` refuses those",
        ],
    );
    policy(&phases("admit", r#""health":"engine""#));
    policy(&phases("refuse", r#""tcp":{"port":1}"#));
}

#[test]
fn policies_of_before_have_the_canonical_form_of_before() {
    // the order and the names of the fields that were signed
    let phases = r#"{"prelude":{"calls":["capset"]},"serving":{"when":{"http":{"path":"/","port":80,"status":200},"settle":"1s"}}}"#;
    let json = policy(phases).canonical_json();
    let json = String::from_utf8(json).expect("text");
    assert!(json.contains(&format!(r#""phases":{phases}"#)), "{json}");
    assert!(!json.contains("dwell") && !json.contains("startup\":"));
    let none = String::from_utf8(policy("{}").canonical_json()).expect("text");
    assert!(!none.contains("phases"), "{none}");
    // and the new fields stand among them in alphabetical order
    let all = r#"{"exec":{"start":"refuse"},"prelude":{"calls":[]},"serving":{"when":{"dwell":"1s","settle":"2s","tcp":{"port":1}}},"startup":{"restarts":3}}"#;
    let json = String::from_utf8(policy(all).canonical_json()).expect("text");
    assert!(json.contains(&format!(r#""phases":{all}"#)), "{json}");
    let again = Policy::from_canonical_json(json.as_bytes()).expect("canonical");
    assert_eq!(
        (again.restarts(), again.exec_start()),
        (3, ExecStart::Refuse)
    );
}

#[test]
fn calls_that_only_startup_allows_are_told_by_number_and_arguments() {
    let rules = r#"{"allow":["bind"],"until":"serving","why":""},{"allow":["listen"],"why":""},
        {"allow":["socket"],"until":"serving","why":""},{"allow":["socket"],"during":["serving"],"when":[{"arg":"domain","in":["AF_INET"]}],"why":""}"#;
    let policy = read(&text(rules, &[])).expect("a policy");
    let only = |name: &str, first: u64| {
        let mut call = Call::new(Abi::X86_64, nr_of(Abi::X86_64, name).expect("known"));
        call.args[0] = first;
        policy.is_startup_only(&call)
    };
    assert!(only("bind", 0));
    assert!(!only("listen", 0) && !only("connect", 0) && !only("mount", 0));
    assert!(only("socket", 1) && !only("socket", 2));
}

#[test]
fn a_difference_in_phases_is_told() {
    let base = r#"{"serving":{"when":{"tcp":{"port":80}}}}"#;
    for (other, field, a, b) in [
        (
            r#"{"serving":{"when":{"tcp":{"port":80},"dwell":"5s","settle":"1s"}}}"#,
            "phases.serving",
            "port 80 takes connections",
            "port 80 takes connections, 1000 ms later, then 5000 ms in which denials are told only",
        ),
        (
            r#"{"serving":{"when":{"quiet":"20s"}}}"#,
            "phases.serving",
            "port 80 takes connections",
            "no start-up-only call for 20000 ms",
        ),
        (
            r#"{"serving":{"when":{"health":"engine"}}}"#,
            "phases.serving",
            "port 80 takes connections",
            "the engine's health check says healthy",
        ),
        (
            "{}",
            "phases.serving",
            "port 80 takes connections",
            "by hand",
        ),
        (
            r#"{"exec":{"start":"refuse"},"serving":{"when":{"tcp":{"port":80}}}}"#,
            "phases.exec.start",
            "admit",
            "refuse",
        ),
        (
            r#"{"startup":{"restarts":2},"serving":{"when":{"tcp":{"port":80}}}}"#,
            "phases.startup.restarts",
            "0",
            "2",
        ),
    ] {
        let (base, other) = (policy(base), policy(other));
        let found = diff(Side::Policy(&base), Side::Policy(&other)).expect("comparable");
        let told = FieldChange {
            field,
            a: a.to_string(),
            b: b.to_string(),
        };
        assert_eq!(found.fields, [told]);
        assert!(
            diff(Side::Policy(&other), Side::Policy(&other))
                .expect("comparable")
                .is_empty()
        );
    }
}
