//! Random profiles: every operator and action, several arguments, several architectures, calls that only some have.

use std::sync::atomic::{AtomicUsize, Ordering};

use lazaret_filter::oci::{
    Action, Architecture, Engine, OciArg, OciReadError, OciSeccomp, OciSyscall, Operator, meaning,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestRunner};
use seccomp_judge::{JudgeError, Search, compile_for, runc};

use crate::calls::{compare, plain};

/// Names that libseccomp treats differently, by themselves and by architecture.
const CALLS: [&str; 24] = [
    "socket",
    "accept",
    "recvmmsg",
    "socketcall",
    "semop",
    "shmat",
    "ipc",
    "read",
    "mprotect",
    "ioctl",
    "clone",
    "arch_prctl",
    "chown32",
    "waitpid",
    "openat",
    "futex_requeue",
    "statmount",
    "uprobe",
    "nosuchcall",
    "execve",
    "time",
    "renameat",
    "prlimit64",
    "set_thread_area",
];

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => select(vec![0, 1, 2, 3, 7, 0xffff_ffff, 1 << 32, 1 << 32 | 1, 2 << 32, u64::MAX]),
        1 => any::<u64>(),
        1 => 0u64..40,
    ]
}

fn arg(operators: Vec<Operator>) -> impl Strategy<Value = OciArg> {
    let index = prop_oneof![6 => 0u8..3, 1 => 0u8..6];
    (index, value(), value(), select(operators)).prop_map(|(index, value, value_two, op)| OciArg {
        index,
        value,
        value_two,
        op,
    })
}

fn actions() -> Vec<Action> {
    use Action::*;
    vec![
        Allow,
        Notify,
        Errno,
        Log,
        Trace,
        Trap,
        Kill,
        KillThread,
        KillProcess,
    ]
}

const OPERATORS: [Operator; 7] = [
    Operator::NotEqual,
    Operator::Less,
    Operator::LessOrEqual,
    Operator::Equal,
    Operator::GreaterOrEqual,
    Operator::Greater,
    Operator::MaskedEqual,
];

fn rule(
    names: Vec<&'static str>,
    actions: Vec<Action>,
    operators: Vec<Operator>,
) -> impl Strategy<Value = OciSyscall> {
    let count = names.len().min(2);
    (
        subsequence(names, 1..=count),
        select(actions),
        proptest::option::of(select(vec![0u32, 1, 38, 4094, 65_574])),
        proptest::collection::vec(arg(operators), 0..4),
    )
        .prop_map(|(names, action, errno_ret, args)| OciSyscall {
            names: names.into_iter().map(str::to_owned).collect(),
            action,
            errno_ret,
            args,
        })
}

/// Few names, actions and operators at a time, so that rules meet.
fn profile() -> impl Strategy<Value = OciSeccomp> {
    let architectures = vec![
        Architecture::X86_64,
        Architecture::X86,
        Architecture::X32,
        Architecture::Aarch64,
    ];
    let pools = (
        subsequence(CALLS.to_vec(), 1..4),
        subsequence(actions(), 1..4),
        subsequence(OPERATORS.to_vec(), 1..=7),
    );
    let rules = pools.prop_flat_map(|(names, actions, operators)| {
        proptest::collection::vec(rule(names, actions, operators), 0..8)
    });
    let default = prop_oneof![
        6 => select(vec![Action::Errno, Action::Allow, Action::KillProcess]),
        1 => select(actions()),
    ];
    let errno = proptest::option::of(select(vec![1u32, 38, 65_537]));
    (default, errno, subsequence(architectures, 0..=4), rules).prop_map(
        |(default_action, default_errno_ret, architectures, syscalls)| OciSeccomp {
            default_action,
            default_errno_ret,
            architectures,
            flags: Vec::new(),
            listener_path: None,
            listener_metadata: None,
            syscalls,
        },
    )
}

#[derive(Default)]
struct Counts {
    compared: AtomicUsize,
    equal: AtomicUsize,
    conflicts: AtomicUsize,
    tangled: AtomicUsize,
    not_loaded: AtomicUsize,
    wrong_word: AtomicUsize,
    refused: AtomicUsize,
}

fn check(profile: &OciSeccomp, counts: &Counts) {
    let count = |counter: &AtomicUsize| counter.fetch_add(1, Ordering::Relaxed);
    let seed = profile.syscalls.len() as u64 * 7919 + 1;
    // not asked about tangled ones: libseccomp does not always come back from them
    let judge = || compile_for(profile, Search::Linear);
    match meaning(profile, &plain()) {
        Ok(meant) => {
            let (filter, _) = judge().unwrap_or_else(|error| panic!("{error:?}\n{profile:#?}"));
            let compared = compare(profile, &meant, &filter, (200, false), seed);
            counts.compared.fetch_add(compared, Ordering::Relaxed);
            count(&counts.equal);
            let with_stub = meaning(profile, &Engine::debian12()).expect("as without");
            let filter = runc(profile).expect("as without");
            compare(profile, &with_stub, &filter, (20, false), seed);
            if profile.syscalls.len() > 1 {
                let (filter, _) = compile_for(profile, Search::Tree).expect("as linear");
                compare(profile, &meant, &filter, (20, false), seed);
            }
        }
        Err(OciReadError::Conflict { .. }) => {
            assert!(
                matches!(judge(), Err(JudgeError::Library { .. })),
                "{profile:#?}"
            );
            count(&counts.conflicts);
        }
        Err(OciReadError::Tangled { .. }) => {
            count(&counts.tangled);
        }
        Err(OciReadError::NumberNotLoaded { .. }) => {
            count(&counts.not_loaded);
        }
        Err(OciReadError::WrongWord { .. }) => {
            count(&counts.wrong_word);
        }
        Err(OciReadError::X32Alone) => {
            count(&counts.refused);
        }
        Err(OciReadError::DefaultAsk | OciReadError::WriteAsk) => {
            assert!(matches!(
                judge(),
                Err(JudgeError::DefaultAsk | JudgeError::WriteAsk)
            ));
            count(&counts.refused);
        }
        Err(error) => panic!("{error}\n{profile:#?}"),
    }
}

#[test]
fn random_profiles_mean_what_libseccomp_makes_of_them() {
    let counts = Counts::default();
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|text| text.parse().ok());
    let cases = cases.unwrap_or(1500);
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 4000,
        ..Config::default()
    });
    runner
        .run(&profile(), |profile| {
            check(&profile, &counts);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    let [
        compared,
        equal,
        conflicts,
        tangled,
        not_loaded,
        wrong_word,
        refused,
    ] = [
        &counts.compared,
        &counts.equal,
        &counts.conflicts,
        &counts.tangled,
        &counts.not_loaded,
        &counts.wrong_word,
        &counts.refused,
    ]
    .map(|counter| counter.load(Ordering::Relaxed));
    println!(
        "{compared} calls, {equal} profiles equal, {conflicts} conflicts, {tangled} tangled, {not_loaded} not loaded, {wrong_word} wrong words, {refused} refused"
    );
    let cases = cases as usize;
    assert!(
        equal * 10 > cases * 6,
        "only {equal} of {cases} have a meaning"
    );
    assert!(conflicts > 0 && compared > cases * 100);
}
