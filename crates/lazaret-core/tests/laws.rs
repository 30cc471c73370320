//! Laws: the kernel's part and the ask band together are the policy, whatever the rules; merging is set union.

use lazaret_core::digest::Digest;
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::compile::compile;
use lazaret_core::filter::oci::{Listener, OciError, profile};
use lazaret_core::filter::rule::{Call, Verdict};
use lazaret_core::filter::table::nr_of;
use lazaret_core::format::policy::{
    CallV1, ConditionV1, EndV1, PolicyV1, RangeV1, RuleV1, ValueV1,
};
use lazaret_core::format::recording as wire;
use lazaret_core::phase::Phase;
use lazaret_core::policy::{Http, Policy, PolicyError, Problem, Serving, Trigger, What};
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

/// Conditional arguments of the calls that rules are made for.
const CONDITIONAL: [(&str, &str); 5] = [
    ("socket", "family"),
    ("socketpair", "family"),
    // the ceiling has a condition on the same argument
    ("clone", "clone_flags"),
    ("prctl", "option"),
    ("mmap", "len"),
];

/// A set of values within `mask` that is written as the language wants it: single values and ranges, apart from each other.
fn values(mask: u64) -> impl Strategy<Value = Vec<ValueV1>> {
    let gaps = prop::collection::vec((1_u64..4, 0_u64..3), 1..4);
    let far = prop_oneof![3 => Just(0_u64), 1 => Just(0x1000_0000), 1 => Just(0xffff_fff0)];
    (gaps, far, any::<bool>(), any::<bool>()).prop_map(move |(gaps, far, open_start, open_end)| {
        let mut next = if mask > 0xff { far } else { 0 };
        let mut values = Vec::new();
        // where the mask has holes, neighbours are not told by counting
        let most = if (mask + 1).is_power_of_two() {
            gaps.len()
        } else {
            1
        };
        for (gap, more) in gaps.into_iter().take(most) {
            // two or more after the last: one would touch it
            let (first, last) = (next + gap + 1, next + gap + 1 + more);
            if last > mask || first & !mask != 0 || last & !mask != 0 {
                break;
            }
            values.push(if more == 0 {
                ValueV1::Number(first)
            } else {
                range(Some(first), Some(last))
            });
            next = last;
        }
        if open_end && next < mask - 3 && (next + 3) & !mask == 0 {
            values.push(range(Some(next + 3), None));
        } else if open_start || values.is_empty() {
            values.clear();
            values.push(range(None, Some(6)));
        }
        values
    })
}

fn range(from: Option<u64>, to: Option<u64>) -> ValueV1 {
    ValueV1::Range(RangeV1 {
        from: from.map(EndV1::Number),
        to: to.map(EndV1::Number),
    })
}

/// A rule for one call, with conditions only on arguments that the table knows.
fn rule() -> impl Strategy<Value = RuleV1> {
    let call = prop_oneof![
        3 => prop::sample::select(vec!["getpid", "bind", "execve"]).prop_map(|name| (CallV1::from(name), None)),
        6 => prop::sample::select(CONDITIONAL.to_vec()).prop_map(|(name, arg)| (CallV1::from(name), Some(arg))),
        1 => Just((CallV1::Number(1000), None)),
    ];
    let mask = prop::sample::select(vec![None, Some(0xf_u64), Some(0x1100_0006)]);
    let condition = mask.prop_flat_map(|mask| {
        let values = values(mask.unwrap_or(0xffff_ffff));
        (Just(mask), prop::option::of(values))
    });
    (call, scope(), condition, any::<bool>()).prop_map(
        |((call, arg), (until, during), (mask, values), ask)| {
            let when = arg.zip(values).map(|(arg, values)| ConditionV1 {
                arg: arg.to_string(),
                values,
                mask,
            });
            let (asked, allowed) = if ask {
                (Some(vec![call]), None)
            } else {
                (None, Some(vec![call]))
            };
            RuleV1 {
                allow: allowed,
                ask: asked,
                until,
                during,
                when: when.into_iter().collect(),
                ..RuleV1::default()
            }
        },
    )
}

/// A policy of random rules; those that contradict an earlier one are left out.
fn policy() -> impl Strategy<Value = Policy> {
    let denied = prop::option::of(prop::sample::select(vec![
        "getpid", "prctl", "clone", "mount",
    ]));
    (prop::collection::vec(rule(), 0..7), denied).prop_map(|(rules, denied)| {
        let mut wire = base();
        let mut policy = Policy::try_from(wire.clone()).expect("the base");
        let deny = denied.map(|name| RuleV1 {
            deny: Some(vec![CallV1::from(name)]),
            errno: Some("ENOSYS".to_string()),
            ..RuleV1::default()
        });
        for rule in deny.into_iter().chain(rules) {
            wire.rules.push(rule);
            match Policy::try_from(wire.clone()) {
                Ok(longer) => policy = longer,
                Err(PolicyError::Problems { problems }) if problems.iter().all(contradicts) => {
                    wire.rules.pop();
                }
                Err(error) => panic!("{error}"),
            }
        }
        policy
    })
}

fn contradicts(problem: &Problem) -> bool {
    matches!(
        problem.what,
        What::Contradiction { .. } | What::NeverAsked { .. }
    )
}

fn any_call() -> impl Strategy<Value = Call> {
    let names = vec![
        "getpid",
        "bind",
        "socket",
        "socketpair",
        "clone",
        "prctl",
        "mmap",
        "mount",
        "clone3",
        "write",
        "getppid",
        "execve",
    ];
    let number = prop_oneof![
        20 => prop::sample::select(names).prop_map(|name| nr_of(Abi::X86_64, name).expect("a call of the table")),
        1 => Just(1000),
        1 => Just(1001),
    ];
    let value = prop_oneof![
        8 => 0_u64..20,
        2 => 0x1000_0000_u64..0x1000_0010,
        2 => 0xffff_ffe8_u64..0x1_0000_0003,
        1 => Just(0xdead_beef_0000_0001),
        1 => Just(u64::MAX)
    ];
    let abi = prop_oneof![20 => Just(Abi::X86_64), 1 => Just(Abi::I386), 1 => Just(Abi::X32)];
    (number, [value.clone(), value], abi).prop_map(|(nr, [first, second], abi)| {
        let mut call = Call::new(abi, nr);
        call.args[0] = first;
        call.args[1] = second;
        call
    })
}

/// The one of the calls above that every policy must allow.
const WRITE: u32 = 1;

const PHASES: [Phase; 4] = [Phase::Startup, Phase::Serving, Phase::Stopping, Phase::Exec];

/// A policy that allows, in every phase, what the `ask` rules of another cover.
fn asks(policy: &Policy) -> Policy {
    let mut wire = policy.wire().clone();
    wire.rules.retain(|rule| rule.ask.is_some());
    for rule in &mut wire.rules {
        rule.allow = rule.ask.take();
        (rule.until, rule.during) = (None, None);
    }
    wire.rules.extend(base().rules);
    Policy::try_from(wire).expect("fewer rules")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn kernel_and_ask_band_together_are_the_policy(
        policy in policy(),
        calls in prop::collection::vec(any_call(), 30),
    ) {
        let asks = asks(&policy);
        for table in [policy.kernel_table(), policy.bpf_table()] {
            for call in &calls {
                let kernel = table.decide(call);
                for phase in PHASES {
                    let meant = policy.decide(phase, call).verdict;
                    let held = match kernel {
                        Verdict::Ask => meant,
                        Verdict::KillThread => Verdict::KillProcess,
                        other => other,
                    };
                    prop_assert_eq!(held, meant, "{:?} in {}", call, phase);
                }
                // the kernel never allows by itself what is to be seen; nobody asks about the required calls
                let asked = asks.decide(Phase::Serving, call).verdict == Verdict::Allow && call.nr != WRITE;
                prop_assert!(!(asked && kernel == Verdict::Allow), "{:?}", call);
            }
        }
        // the static profile is never stricter than any phase and never opens the ceiling
        let fixed = policy.static_table();
        for call in &calls {
            let any_phase = PHASES.into_iter().any(|phase| policy.decide(phase, call).verdict == Verdict::Allow);
            prop_assert_eq!(fixed.decide(call) == Verdict::Allow, any_phase, "{:?}", call);
        }
    }

    #[test]
    fn the_table_of_a_phase_is_what_is_decided_in_it(
        policy in policy(),
        calls in prop::collection::vec(any_call(), 30),
    ) {
        for phase in Phase::ALL {
            let table = policy.phase_table(phase);
            for call in &calls {
                prop_assert_eq!(table.decide(call), policy.decide(phase, call).verdict, "{:?} in {}", call, phase);
            }
        }
    }

    #[test]
    fn a_profile_can_say_every_table_without_numbers(policy in policy()) {
        let listener = Listener { path: "/run/gate".to_string(), metadata: String::new() };
        let written = profile(&policy.kernel_table(), Some(&listener));
        let numbers = policy.bands().allow.contains(&1000) || policy.bands().ask.contains(&1000);
        match written {
            Ok(_) => prop_assert!(!numbers),
            Err(error) => prop_assert_eq!(error, OciError::Nameless { nr: 1000, abi: Abi::X86_64 }),
        }
        prop_assert!(compile(&policy.bpf_table()).is_ok());
    }

    #[test]
    fn the_canonical_form_is_exact_and_knows_no_order(policy in policy(), turn in 0_usize..9, back in any::<bool>()) {
        let bytes = policy.canonical_json();
        prop_assert_eq!(Policy::from_canonical_json(&bytes), Ok(policy.clone()));
        // the same text in another order
        let mut wire = policy.wire().clone();
        let shuffle = |length: usize| turn % length.max(1);
        let at = shuffle(wire.rules.len());
        wire.rules.rotate_left(at);
        for rule in &mut wire.rules {
            for calls in [&mut rule.allow, &mut rule.ask, &mut rule.deny].into_iter().flatten() {
                let at = shuffle(calls.len());
                calls.rotate_left(at);
            }
            for condition in &mut rule.when {
                if back {
                    condition.values.reverse();
                }
            }
        }
        let other = Policy::try_from(wire).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(other.canonical_json(), bytes);
        prop_assert_eq!(other, policy);
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
        serving: Some(Serving {
            trigger: Trigger::Http(http),
            settle_ms: 1500,
            dwell_ms: 0,
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
    assert_eq!(policy.serving().map(|when| when.settle_ms), Some(1500));
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
fn calls_without_a_name_are_allowed_by_number_where_they_were_seen() {
    let observations = vec![
        named("openat", Phase::Serving),
        seen(1000, Phase::Serving, 3, &[]),
        seen(1001, Phase::Startup, 4, &[]),
        seen(1002, Phase::Prelude, 5, &[]),
    ];
    let synthesis = synthesise(&Profile::of([of(observations)]), &request(Stability::Exact));
    let wire = synthesis.expect("complete").policy;
    let prelude = wire
        .phases
        .prelude
        .as_ref()
        .map(|prelude| prelude.calls.clone());
    assert_eq!(prelude, Some(vec![CallV1::Number(1002)]));
    assert!(wire.rules.iter().any(|rule| {
        rule.why
            .ends_with("3 calls in 1 run; no name in the tables")
    }));
    let policy = Policy::try_from(wire).expect("what synth writes passes every check");
    let allowed = |nr, phase| {
        let call = Call::new(Abi::X86_64, nr);
        policy.decide(phase, &call).verdict == Verdict::Allow
    };
    assert!(allowed(1000, Phase::Serving) && allowed(1000, Phase::Stopping));
    assert!(allowed(1001, Phase::Startup) && !allowed(1001, Phase::Serving));
    assert!(!allowed(1002, Phase::Startup));
    let kernel = |nr| policy.bpf_table().decide(&Call::new(Abi::X86_64, nr));
    assert_eq!(kernel(1000), Verdict::Allow);
    assert_eq!(kernel(1001), Verdict::Ask);
    assert_eq!(kernel(1002), Verdict::Errno(1));
    let fixed = policy.static_table();
    assert_eq!(fixed.decide(&Call::new(Abi::X86_64, 1002)), Verdict::Allow);
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
