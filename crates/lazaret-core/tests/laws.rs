//! Laws: the kernel's part and the ask band together are the policy, whatever the rules; merging is set union.

use lazaret_core::digest::Digest;
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::rule::{Call, Verdict};
use lazaret_core::filter::table::nr_of;
use lazaret_core::format::policy::{CallV1, ConditionV1, PolicyV1, RuleV1, ValueV1};
use lazaret_core::format::recording as wire;
use lazaret_core::phase::Phase;
use lazaret_core::policy::{Http, Policy, ServingWhen};
use lazaret_core::profile::{Profile, Unseen};
use lazaret_core::recording::{
    ArgSummary, Environment, Exercise, Losses, Observation, Recording, Subject,
};
use lazaret_core::synth::{Request, Stability, SynthError, Warning, synthesise};
use proptest::prelude::*;
use std::collections::BTreeMap;

const BASE: &str = r#"{"apiVersion":"lazaret.dev/v1","ceiling":"default","environment":{"arch":"x86_64","kernel":">=5.11",
"noNewPrivileges":true,"runtimes":[]},"image":{"digests":
["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],"name":"t"},"kind":"SyscallPolicy",
"metadata":{"name":"t","revision":1},"mode":"enforce","otherwise":{"action":"errno","errno":"EPERM"},
"rules":[{"allow":["exit","exit_group","read","restart_syscall","rt_sigreturn","write"],"why":""}]}"#;

fn base() -> PolicyV1 {
    serde_json::from_str(BASE).expect("the test's own policy")
}

fn scope() -> impl Strategy<Value = (Option<String>, Option<Vec<String>>)> {
    let during = |names: &[&str]| (None, Some(names.iter().map(ToString::to_string).collect()));
    prop_oneof![
        3 => Just((None, None)),
        2 => Just((Some("serving".to_string()), None)),
        1 => Just((Some("stopping".to_string()), None)),
        1 => Just(during(&["stopping"])),
        1 => Just(during(&["exec"])),
        1 => Just(during(&["startup", "exec"])),
    ]
}

/// A rule for one call, with conditions only where the call has arguments in the table.
fn rule() -> impl Strategy<Value = RuleV1> {
    let name = prop::sample::select(vec![
        "getpid",
        "bind",
        "socket",
        "socketpair",
        "clone",
        "prctl",
    ]);
    let values = prop::collection::btree_set(0_u64..4, 1..3);
    (
        name,
        scope(),
        any::<bool>(),
        values,
        prop::option::of(Just(0xf_u64)),
    )
        .prop_map(|(name, (until, during), conditional, values, mask)| {
            let arg = match name {
                "socket" | "socketpair" => Some("family"),
                "clone" => Some("clone_flags"),
                "prctl" => Some("option"),
                _ => None,
            };
            let when = arg.filter(|_| conditional).map(|arg| ConditionV1 {
                arg: arg.to_string(),
                values: values.into_iter().map(ValueV1::Number).collect(),
                mask,
            });
            let allow = Some(vec![CallV1::from(name)]);
            RuleV1 {
                allow,
                until,
                during,
                when: when.into_iter().collect(),
                ..RuleV1::default()
            }
        })
}

fn any_call() -> impl Strategy<Value = Call> {
    let names = vec![
        "getpid",
        "bind",
        "socket",
        "socketpair",
        "clone",
        "prctl",
        "mount",
        "write",
        "getppid",
    ];
    let value = prop_oneof![
        0_u64..5,
        Just(0x1000_0000),
        Just(0xdead_beef_0000_0001),
        Just(u64::MAX)
    ];
    let abi = prop_oneof![20 => Just(Abi::X86_64), 1 => Just(Abi::I386), 1 => Just(Abi::X32)];
    (prop::sample::select(names), value, abi).prop_map(|(name, value, abi)| {
        let mut call = Call::new(abi, nr_of(Abi::X86_64, name).expect("a call of the table"));
        call.args[0] = value;
        call
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn kernel_and_ask_band_together_are_the_policy(
        rules in prop::collection::vec(rule(), 0..6),
        calls in prop::collection::vec(any_call(), 30),
    ) {
        let mut wire = base();
        wire.rules.extend(rules);
        let policy = Policy::try_from(wire).map_err(|error| TestCaseError::fail(error.to_string()))?;
        for table in [policy.kernel_table(), policy.bpf_table()] {
            for call in &calls {
                for phase in [Phase::Startup, Phase::Serving, Phase::Stopping, Phase::Exec] {
                    let meant = policy.decide(phase, call).verdict;
                    let held = match table.decide(call) {
                        Verdict::Ask => meant,
                        Verdict::KillThread => Verdict::KillProcess,
                        other => other,
                    };
                    prop_assert_eq!(held, meant, "{:?} in {}", call, phase);
                }
            }
        }
        // the static profile is never stricter than any phase and never opens the ceiling
        let fixed = policy.static_table();
        for call in &calls {
            let any_phase = [Phase::Startup, Phase::Serving, Phase::Stopping, Phase::Exec]
                .into_iter().any(|phase| policy.decide(phase, call).verdict == Verdict::Allow);
            prop_assert_eq!(fixed.decide(call) == Verdict::Allow, any_phase, "{:?}", call);
        }
        // and the canonical form comes back as the same policy
        prop_assert_eq!(Policy::from_canonical_json(&policy.canonical_json()), Ok(policy));
    }

    #[test]
    fn merging_is_commutative_associative_and_idempotent(
        one in recording(), two in recording(), three in recording(),
    ) {
        let profile = |recording: &Recording| Profile::of([recording.clone()]);
        let (a, b, c) = (profile(&one), profile(&two), profile(&three));
        prop_assert_eq!(a.clone().merge(b.clone()), b.clone().merge(a.clone()));
        prop_assert_eq!(a.clone().merge(b.clone()).merge(c.clone()), a.clone().merge(b.clone().merge(c.clone())));
        prop_assert_eq!(a.clone().merge(a.clone()), a.clone());
        prop_assert_eq!(wire::read(&wire::write(&one)), Ok(one));
    }
}

fn recording() -> impl Strategy<Value = Recording> {
    let calls = prop::collection::btree_map((0_u32..450, 0_usize..5), 1_u64..1000, 1..40);
    (calls, 0_u64..5).prop_map(|(calls, nonce)| {
        let observations = calls
            .into_iter()
            .map(|((nr, phase), count)| seen(nr, Phase::ALL[phase], count, &[]))
            .collect();
        Recording {
            duration_ns: 10_000 + nonce,
            ..of(observations)
        }
    })
}

fn seen(nr: u32, phase: Phase, count: u64, args: &[(u8, u64)]) -> Observation {
    let args = args
        .iter()
        .map(|(arg, value)| ArgSummary {
            arg: *arg,
            values: BTreeMap::from([(*value, count)]),
            complete: true,
        })
        .collect();
    Observation {
        abi: Abi::X86_64,
        nr,
        phase,
        count,
        first_ns: 1,
        last_ns: 2,
        args,
    }
}

fn named(name: &str, phase: Phase) -> Observation {
    seen(
        nr_of(Abi::X86_64, name).expect("a call of the table"),
        phase,
        7,
        &[],
    )
}

fn of(observations: Vec<Observation>) -> Recording {
    Recording {
        subject: Subject {
            name: "t".to_string(),
            digests: vec![Digest::of(b"image")],
        },
        environment: Environment {
            kernel: "6.18".to_string(),
            arch: Abi::X86_64,
            runtime: "runc 1.1.5".to_string(),
            no_new_privileges: true,
        },
        probe: "tp_btf".to_string(),
        timeline: BTreeMap::from([
            (Phase::Startup, 1),
            (Phase::Serving, 2),
            (Phase::Stopping, 9_000_000_000),
        ]),
        duration_ns: 10_000_000_000,
        stopped: true,
        exercise: Some(Exercise {
            name: "fhir".to_string(),
            declared: 152,
            succeeded: 148,
            duration_ms: 1,
        }),
        losses: Losses::default(),
        observations,
    }
}

fn request(stability: Stability) -> Request {
    let http = Http {
        port: 8080,
        path: "/fhir/metadata".to_string(),
        status: 200,
    };
    Request {
        name: "t".to_string(),
        revision: 1,
        serving: Some(ServingWhen {
            http,
            settle_ms: 1500,
        }),
        stability,
    }
}

fn synth(recordings: Vec<Recording>) -> Result<Policy, SynthError> {
    let synthesis = synthesise(&Profile::of(recordings), &request(Stability::Exact))?;
    Ok(Policy::try_from(synthesis.policy).expect("what synth writes passes every check"))
}

#[test]
fn what_was_seen_is_allowed_where_it_was_seen() {
    let mut clone = named("clone", Phase::Serving);
    clone.args = vec![ArgSummary {
        arg: 0,
        values: BTreeMap::from([(0x3d_0f00, 7)]),
        complete: true,
    }];
    let mut socket = named("socket", Phase::Startup);
    socket.args = [(0, 2), (1, 0x80801)]
        .map(|(arg, value)| ArgSummary {
            arg,
            values: BTreeMap::from([(value, 1)]),
            complete: true,
        })
        .to_vec();
    let policy = synth(vec![of(vec![
        named("capset", Phase::Prelude),
        named("execve", Phase::Startup),
        named("recvfrom", Phase::Startup),
        named("recvfrom", Phase::Serving),
        named("unlink", Phase::Stopping),
        named("clone3", Phase::Startup),
        clone,
        socket,
    ])])
    .expect("complete");
    let verdict = |name: &str, phase, args: &[u64]| {
        let mut call = Call::new(Abi::X86_64, nr_of(Abi::X86_64, name).expect("known"));
        call.args[..args.len()].copy_from_slice(args);
        policy.decide(phase, &call).verdict == Verdict::Allow
    };
    assert!(verdict("recvfrom", Phase::Serving, &[]) && verdict("recvfrom", Phase::Stopping, &[]));
    assert!(verdict("execve", Phase::Startup, &[]) && !verdict("execve", Phase::Serving, &[]));
    assert!(verdict("unlink", Phase::Stopping, &[]) && !verdict("unlink", Phase::Serving, &[]));
    assert!(
        !verdict("capset", Phase::Startup, &[]),
        "the runtime's own calls stay the runtime's"
    );
    assert!(
        verdict("clone", Phase::Serving, &[0x3d_0f00])
            && !verdict("clone", Phase::Serving, &[0x2000_0000])
    );
    assert!(!verdict("clone3", Phase::Startup, &[]));
    assert!(
        verdict("socket", Phase::Startup, &[2, 1]) && !verdict("socket", Phase::Startup, &[16, 1])
    );
    assert_eq!(policy.serving_when().map(|when| when.settle_ms), Some(1500));
    for always in [
        "exit",
        "exit_group",
        "restart_syscall",
        "rt_sigreturn",
        "clock_gettime",
        // never seen, yet runc's processes wait with it while there may be no gate
        "read",
        "write",
    ] {
        assert!(verdict(always, Phase::Serving, &[]), "{always}");
    }
}

#[test]
fn incomplete_or_mixed_evidence_is_refused() {
    let good = || of(vec![named("read", Phase::Serving)]);
    assert!(synth(vec![good()]).is_ok());
    assert_eq!(synth(vec![]), Err(SynthError::Nothing));
    let refused = |change: fn(&mut Recording)| {
        let mut bad = good();
        change(&mut bad);
        synth(vec![good(), bad]).expect_err("refused").to_string()
    };
    assert!(refused(|bad| bad.losses.failed_insertions = 1).contains("1 calls were lost"));
    assert!(refused(|bad| bad.losses.missed_runs = 2).contains("2 calls were lost"));
    assert!(refused(|bad| bad.stopped = false).contains("stop by signal"));
    assert!(
        refused(|bad| bad.timeline.retain(|phase, _| *phase != Phase::Serving))
            .contains("never served")
    );
    assert!(refused(|bad| bad.observations.clear()).contains("no call"));
    assert!(
        refused(|bad| bad.subject.digests = vec![Digest::of(b"other")])
            .contains("different images")
    );
    assert!(refused(|bad| bad.environment.arch = Abi::Aarch64).contains("different architectures"));
    assert!(refused(|bad| bad.observations[0].abi = Abi::I386).contains("i386"));
}

#[test]
fn what_cannot_be_allowed_is_said() {
    let observations = vec![
        named("io_uring_setup", Phase::Startup),
        seen(9999, Phase::Serving, 3, &[]),
        named("execve", Phase::Serving),
    ];
    let warnings = synthesise(&Profile::of([of(observations)]), &request(Stability::Exact))
        .expect("complete")
        .warnings;
    let found: Vec<bool> = vec![
        warnings
            .iter()
            .any(|w| matches!(w, Warning::UnderCeiling { call, .. } if call == "io_uring_setup")),
        warnings
            .iter()
            .any(|w| matches!(w, Warning::Nameless { nr: 9999, .. })),
        warnings
            .iter()
            .any(|w| matches!(w, Warning::OpenWhileServing { call, .. } if call == "execve")),
    ];
    assert_eq!(found, [true; 3], "{warnings:?}");
}

#[test]
fn equivalents_are_added_only_when_asked_for_and_say_so() {
    let profile = || Profile::of([of(vec![named("openat", Phase::Serving)])]);
    let exact = synthesise(&profile(), &request(Stability::Exact))
        .expect("complete")
        .policy;
    let wide = synthesise(&profile(), &request(Stability::Equivalent))
        .expect("complete")
        .policy;
    let allows = |policy: &PolicyV1| {
        policy
            .rules
            .iter()
            .any(|rule| rule.allow.iter().flatten().any(|call| call == "open"))
    };
    assert!(!allows(&exact) && allows(&wide));
    assert!(wide.rules.iter().any(|rule| rule.why.contains("not seen")));
}

#[test]
fn the_unseen_rest_is_estimated_from_two_runs_on() {
    let one = of(vec![
        named("read", Phase::Serving),
        named("write", Phase::Serving),
    ]);
    let mut two = of(vec![
        named("read", Phase::Serving),
        named("write", Phase::Serving),
        named("mkdir", Phase::Serving),
    ]);
    two.duration_ns += 1;
    assert_eq!(Profile::of([one.clone()]).unseen(), Unseen::Unknown);
    // 5 sightings, one of them the only one of its call
    assert_eq!(Profile::of([one, two]).unseen(), Unseen::PerMille(200));
}
