//! What runc and libseccomp make of profiles: the known traps, one by one. `testing/seccomp-judge` holds the whole against the
//! library.

use lazaret_filter::abi::{Abi, X32_BIT};
use lazaret_filter::oci::{Engine, Note, OciReadError, OciSeccomp, Place, meaning};
use lazaret_filter::rule::{Call, RuleTable, Verdict};
use lazaret_filter::table::nr_of;
use serde_json::{Value, json};

const ALLOW: Verdict = Verdict::Allow;
const EPERM: Verdict = Verdict::Errno(1);
const ENOSYS: Verdict = Verdict::Errno(38);

fn read(architectures: &[&str], rules: Value) -> OciSeccomp {
    serde_json::from_value(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": architectures.iter().map(|it| format!("SCMP_ARCH_{it}")).collect::<Vec<_>>(),
        "syscalls": rules,
    }))
    .expect("profile")
}

fn meant(architectures: &[&str], rules: Value) -> (RuleTable, Vec<Note>) {
    meaning(&read(architectures, rules), &Engine::debian12()).expect("has a meaning")
}

fn refused(architectures: &[&str], rules: Value) -> OciReadError {
    meaning(&read(architectures, rules), &Engine::debian12()).expect_err("refused")
}

fn decide(table: &RuleTable, abi: Abi, call: &str, args: [u64; 6]) -> Verdict {
    let nr = nr_of(abi, call).expect("known");
    table.decide(&Call {
        args,
        ..Call::new(abi, nr)
    })
}

fn arg(index: u8, value: u64, op: &str) -> Value {
    json!({"index": index, "value": value, "op": format!("SCMP_CMP_{op}")})
}

fn place(rule: usize, call: &str) -> Place {
    Place {
        rule,
        call: call.to_owned(),
    }
}

#[test]
fn conditions_on_one_argument_are_alternatives() {
    let rule = |second: Value| json!([{"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [arg(0, 1, "EQ"), second]}]);
    let (either, notes) = meant(&["X86_64"], rule(arg(0, 2, "EQ")));
    assert!(notes.contains(&Note::Alternatives {
        place: place(0, "socket")
    }));
    let (both, notes) = meant(&["X86_64"], rule(arg(1, 2, "EQ")));
    assert!(
        !notes
            .iter()
            .any(|note| matches!(note, Note::Alternatives { .. }))
    );
    let socket = |table, a, b| decide(table, Abi::X86_64, "socket", [a, b, 0, 0, 0, 0]);
    assert_eq!(
        [
            socket(&either, 1, 0),
            socket(&either, 2, 0),
            socket(&either, 3, 0)
        ],
        [ALLOW, ALLOW, EPERM]
    );
    assert_eq!(
        [
            socket(&both, 1, 2),
            socket(&both, 1, 0),
            socket(&both, 2, 2)
        ],
        [ALLOW, EPERM, EPERM]
    );
}

#[test]
fn the_first_rule_without_conditions_decides() {
    let rules = |first: &str, second: &str| {
        json!([
            {"names": ["socket"], "action": "SCMP_ACT_LOG", "args": [arg(0, 1, "EQ")]},
            {"names": ["socket"], "action": first},
            {"names": ["socket"], "action": second},
        ])
    };
    let (table, notes) = meant(&["X86_64"], rules("SCMP_ACT_ALLOW", "SCMP_ACT_KILL"));
    assert_eq!(
        decide(&table, Abi::X86_64, "socket", [1, 0, 0, 0, 0, 0]),
        ALLOW
    );
    assert!(notes.contains(&Note::Covered {
        place: place(2, "socket"),
        abi: Abi::X86_64
    }));
    let (table, _) = meant(&["X86_64"], rules("SCMP_ACT_KILL", "SCMP_ACT_ALLOW"));
    assert_eq!(
        decide(&table, Abi::X86_64, "socket", [0; 6]),
        Verdict::KillThread
    );
}

#[test]
fn rules_that_say_the_default_are_left_out() {
    let rules = json!([
        {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": [arg(0, 1, "EQ")]},
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW"},
    ]);
    let (table, notes) = meant(&["X86_64"], rules);
    // the exception is gone
    assert_eq!(
        decide(&table, Abi::X86_64, "socket", [1, 0, 0, 0, 0, 0]),
        ALLOW
    );
    assert!(notes.contains(&Note::SaysDefault {
        place: place(0, "socket")
    }));
}

#[test]
fn contradictions_are_refused_as_libseccomp_does() {
    let rules = |other: Value| {
        json!([
            {"names": ["socket"], "action": "SCMP_ACT_LOG", "args": [arg(0, 1, "EQ")]},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [other]},
        ])
    };
    let (call, abi) = ("socket".to_owned(), Abi::X86_64);
    assert_eq!(
        refused(&["X86_64"], rules(arg(0, 1, "EQ"))),
        OciReadError::Conflict { call, rule: 1, abi }
    );
    meant(&["X86_64"], rules(arg(0, 2, "EQ")));
}

#[test]
fn comparisons_are_unsigned_and_have_64_bits() {
    let rules = |op| json!([{"names": ["lseek"], "action": "SCMP_ACT_ALLOW", "args": [arg(1, 1 << 32 | 5, op)]}]);
    let values = [0, 5, 1 << 32 | 4, 1 << 32 | 5, 1 << 32 | 6, u64::MAX];
    let cases = [
        ("EQ", [false, false, false, true, false, false]),
        ("NE", [true, true, true, false, true, true]),
        ("LT", [true, true, true, false, false, false]),
        ("LE", [true, true, true, true, false, false]),
        ("GE", [false, false, false, true, true, true]),
        ("GT", [false, false, false, false, true, true]),
    ];
    for (op, expected) in cases {
        let (table, _) = meant(&["X86_64"], rules(op));
        let found = values
            .map(|value| decide(&table, Abi::X86_64, "lseek", [9, value, 0, 0, 0, 0]) == ALLOW);
        assert_eq!(found, expected, "{op}");
        let nr = nr_of(Abi::X86_64, "lseek").expect("known");
        let entry = &table.abis[&Abi::X86_64].entries[&nr];
        assert_eq!(
            (entry.branches.len(), entry.branches[0].all.len()),
            (1, 1),
            "{op} is one condition"
        );
    }
}

#[test]
fn masks() {
    let rules = json!([{"names": ["clone"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": 0xf0, "valueTwo": 0x1f, "op": "SCMP_CMP_MASKED_EQ"}]}]);
    let (table, notes) = meant(&["X86_64"], rules);
    let clone = |flags| decide(&table, Abi::X86_64, "clone", [flags, 0, 0, 0, 0, 0]);
    assert_eq!(
        [clone(0x10), clone(0xff10), clone(0x20)],
        [ALLOW, ALLOW, EPERM]
    );
    assert!(notes.contains(&Note::OutsideMask {
        place: place(0, "clone"),
        arg: 0
    }));
}

#[test]
fn i386_calls_count_for_multiplexers() {
    let rules =
        json!([{"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [arg(0, 40, "NE")]}]);
    let (table, notes) = meant(&["X86_64", "X86"], rules);
    let place = place(0, "socket");
    assert!(notes.contains(&Note::Multiplexed {
        place,
        through: "socketcall"
    }));
    let call = |name, first| decide(&table, Abi::I386, name, [first, 40, 0, 0, 0, 0]);
    // whatever the domain: the condition is replaced
    assert_eq!(
        [call("socketcall", 1), call("socketcall", 2)],
        [ALLOW, EPERM]
    );
    assert_eq!(
        decide(&table, Abi::X86_64, "socket", [40, 0, 0, 0, 0, 0]),
        EPERM
    );
    let (table, _) = meant(
        &["X86_64"],
        json!([{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]),
    );
    assert_eq!(
        table.decide(&Call::new(Abi::I386, 3)),
        Verdict::KillThread,
        "i386 is not served"
    );
}

#[test]
fn names_without_effect() {
    let rules =
        json!([{"names": ["statmount", "uprobe", "chown32", "read"], "action": "SCMP_ACT_ALLOW"}]);
    let (table, notes) = meant(&["X86_64"], rules);
    for call in ["statmount", "uprobe"] {
        assert!(notes.contains(&Note::Unknown {
            place: place(0, call)
        }));
        assert_ne!(decide(&table, Abi::X86_64, call, [0; 6]), ALLOW);
    }
    assert!(notes.contains(&Note::Absent {
        place: place(0, "chown32")
    }));
    assert_eq!(
        notes
            .iter()
            .filter(|note| note.to_string().contains("call read"))
            .count(),
        0
    );
}

#[test]
fn runcs_stub() {
    let rules = json!([{"names": ["read", "cachestat"], "action": "SCMP_ACT_ALLOW"}]);
    let profile = read(&["X86_64"], rules);
    let at = |engine: &Engine, nr| {
        let (table, _) = meaning(&profile, engine).expect("has a meaning");
        table.decide(&Call {
            arch: Abi::X86_64.audit_arch(),
            nr,
            args: [0; 6],
        })
    };
    let runc = Engine::debian12();
    assert_eq!(
        [at(&runc, 451), at(&runc, 452), at(&runc, 450)],
        [ALLOW, ENOSYS, EPERM]
    );
    assert_eq!(at(&runc.clone().without_stub(), 452), EPERM);
    // x32 is killed, but -1 gets the default
    assert_eq!(
        [at(&runc, X32_BIT), at(&runc, u32::MAX)],
        [Verdict::KillThread, EPERM]
    );
    // without a list of architectures there is no stub
    let (table, _) = meant(
        &[],
        json!([{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]),
    );
    assert_eq!(table.decide(&Call::new(Abi::X86_64, 452)), EPERM);
}

#[test]
fn actions_and_errnos() {
    let one = |action: &str, errno: Value| {
        let rules =
            json!([{"names": ["read"], "action": format!("SCMP_ACT_{action}"), "errnoRet": errno}]);
        let (table, notes) = meant(&["X86_64"], rules);
        (
            decide(&table, Abi::X86_64, "read", [0; 6]),
            notes
                .iter()
                .any(|n| matches!(n, Note::ErrnoIgnored { .. } | Note::ErrnoCut { .. })),
        )
    };
    let none = || Value::Null;
    assert_eq!(one("KILL", none()), (Verdict::KillThread, false));
    assert_eq!(one("KILL_PROCESS", none()), (Verdict::KillProcess, false));
    assert_eq!(one("TRACE", none()), (Verdict::Trace(1), false));
    assert_eq!(one("TRACE", json!(7)), (Verdict::Trace(7), false));
    assert_eq!(one("TRAP", json!(7)), (Verdict::Trap(0), true));
    assert_eq!(one("NOTIFY", none()), (Verdict::Ask, false));
    assert_eq!(one("ERRNO", json!(4094)), (Verdict::Errno(4094), false));
    assert_eq!(one("ERRNO", json!(65_538)), (Verdict::Errno(2), true));
    let large = json!([{"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4095}]);
    assert_eq!(
        refused(&["X86_64"], large),
        OciReadError::ErrnoLimit {
            rule: Some(0),
            errno: 4095
        }
    );
    let asked = |name| json!([{"names": [name], "action": "SCMP_ACT_NOTIFY"}]);
    assert_eq!(refused(&["X86_64"], asked("write")), OciReadError::WriteAsk);
    assert_eq!(
        refused(&["X86_64"], asked("")),
        OciReadError::EmptyName { rule: 0 }
    );
}

#[test]
fn accidents_of_libseccomp_are_refused() {
    // compares the lower half where it means the upper one
    let halves = json!([{"names": ["lseek"], "action": "SCMP_ACT_ALLOW", "args": [arg(1, 0, "LE"), arg(1, 1 << 32, "LE")]}]);
    assert!(matches!(
        refused(&["X86_64"], halves),
        OciReadError::WrongWord { .. }
    ));
    // holds for the second argument's values of either rule
    let shared = json!([
        {"names": ["lseek"], "action": "SCMP_ACT_ALLOW", "args": [arg(1, 6, "GT"), arg(2, 1, "EQ")]},
        {"names": ["lseek"], "action": "SCMP_ACT_ALLOW", "args": [arg(1, 5, "GT"), arg(2, 2, "EQ")]},
    ]);
    assert!(matches!(
        refused(&["X86_64"], shared),
        OciReadError::Tangled { .. }
    ));
    // never loads the number
    let lacking = json!([
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [arg(0, 0, "EQ")]},
        {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW"},
    ]);
    let abi = Abi::Aarch64;
    assert_eq!(
        refused(&["AARCH64"], lacking.clone()),
        OciReadError::NumberNotLoaded { abi }
    );
    meant(&["X86_64"], lacking);
    assert!(matches!(
        refused(&["ARM"], json!([])),
        OciReadError::Architecture { .. }
    ));
}
