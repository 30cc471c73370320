//! Profiles: the JSON that a runtime reads, and both sides of every refusal.
#![cfg(feature = "serde")]

use lazaret_filter::abi::Abi;
use lazaret_filter::oci::{Listener, OciError, OciSeccomp, Operator, profile};
use lazaret_filter::rule::{Branch, Condition, Entry, Numbers, RuleTable, Values, Verdict};
use lazaret_filter::table::nr_of;
use serde_json::{Value, json};

const EPERM: Verdict = Verdict::Errno(1);
const INT: u64 = 0xffff_ffff;

fn table(entries: Vec<(&str, Entry)>) -> RuleTable {
    let numbers = Numbers {
        entries: entries
            .into_iter()
            .map(|(name, entry)| (nr_of(Abi::X86_64, name).expect("known"), entry))
            .collect(),
        otherwise: EPERM,
    };
    RuleTable::single(Abi::X86_64, numbers, Verdict::KillThread)
}

fn numbers(table: &RuleTable) -> Numbers {
    table.abis[&Abi::X86_64].clone()
}

fn always(verdict: Verdict) -> Entry {
    Entry::always(verdict)
}

/// A branch: verdict and (argument, mask, values).
fn branch(verdict: Verdict, conditions: &[(u8, u64, &[u64])]) -> Branch {
    Branch {
        all: conditions
            .iter()
            .map(|&(arg, mask, values)| Condition {
                arg,
                mask,
                values: values.iter().copied().collect(),
            })
            .collect(),
        verdict,
    }
}

fn entry(branches: Vec<Branch>, otherwise: Verdict) -> Entry {
    Entry {
        branches,
        otherwise,
    }
}

fn listener() -> Listener {
    Listener {
        path: "/run/lazaret/gate.sock".to_owned(),
        metadata: "sha256:00".to_owned(),
    }
}

fn without_listener(table: &RuleTable) -> Result<OciSeccomp, OciError> {
    profile(table, None)
}

#[test]
fn three_bands_as_json() {
    let domains = branch(Verdict::Allow, &[(0, INT, &[1, 2]), (1, 0xf, &[1])]);
    let prots = branch(Verdict::Allow, &[(2, u64::MAX, &[0, 5])]);
    let table = table(vec![
        ("write", always(Verdict::Allow)),
        ("read", always(Verdict::Allow)),
        ("execve", always(Verdict::Ask)),
        ("brk", always(Verdict::Ask)),
        ("clone3", always(Verdict::Errno(38))),
        ("socket", entry(vec![domains.clone()], EPERM)),
        ("socketpair", entry(vec![domains], EPERM)),
        ("mprotect", entry(vec![prots], EPERM)),
        // the same as the default: not named
        ("mount", always(EPERM)),
    ]);
    let masked = |index: u8, mask: u64, datum: u64| json!({"index": index, "value": mask, "valueTwo": datum, "op": "SCMP_CMP_MASKED_EQ"});
    let sockets = |domain: u64| json!({"names": ["socket", "socketpair"], "action": "SCMP_ACT_ALLOW", "args": [masked(0, INT, domain), masked(1, 0xf, 1)]});
    let expected = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64"],
        "listenerPath": "/run/lazaret/gate.sock",
        "listenerMetadata": "sha256:00",
        "syscalls": [
            {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
            sockets(1),
            sockets(2),
            {"names": ["mprotect"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 2, "value": 0, "op": "SCMP_CMP_EQ"}]},
            {"names": ["mprotect"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 2, "value": 5, "op": "SCMP_CMP_EQ"}]},
            {"names": ["brk", "execve"], "action": "SCMP_ACT_NOTIFY"},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        ],
    });
    let profile = profile(&table, Some(&listener())).expect("can be expressed");
    assert_eq!(
        serde_json::to_value(&profile).expect("serialises"),
        expected
    );
    let back: OciSeccomp = serde_json::from_value(expected).expect("reads back");
    assert_eq!(back, profile);
}

#[test]
fn unknown_fields_and_actions_are_refused() {
    let good = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG"}]});
    let read = |value: &Value| serde_json::from_value::<OciSeccomp>(value.clone());
    read(&good).expect("minimal profile");
    for (pointer, key) in [("", "listener"), ("/syscalls/0", "includes")] {
        let mut bad = good.clone();
        bad.pointer_mut(pointer).expect("place")[key] = json!("x");
        read(&bad).expect_err(key);
    }
    let mut bad = good;
    bad["defaultAction"] = json!("SCMP_ACT_MAYBE");
    read(&bad).expect_err("unknown action");
}

#[test]
fn whole_table() {
    let ok = table(vec![("read", always(Verdict::Allow))]);
    without_listener(&ok).expect("plain table");

    let x32 = RuleTable::single(Abi::X32, numbers(&ok), ok.foreign);
    assert_eq!(without_listener(&x32), Err(OciError::Abi(Abi::X32)));

    let found = Verdict::KillProcess;
    let foreign = RuleTable {
        foreign: found,
        ..ok.clone()
    };
    assert_eq!(without_listener(&foreign), Err(OciError::Foreign { found }));

    let otherwise = Verdict::Ask;
    let asked = Numbers {
        otherwise,
        ..numbers(&ok)
    };
    let asked = RuleTable::single(Abi::X86_64, asked, ok.foreign);
    assert_eq!(
        profile(&asked, Some(&listener())),
        Err(OciError::DefaultAsk)
    );

    let mut malformed = ok;
    malformed
        .abis
        .get_mut(&Abi::X86_64)
        .expect("served")
        .entries
        .insert(7, entry(vec![branch(Verdict::Allow, &[])], EPERM));
    assert!(matches!(
        without_listener(&malformed),
        Err(OciError::Table(_))
    ));
}

#[test]
fn asking() {
    let asks = |name| table(vec![(name, always(Verdict::Ask))]);
    profile(&asks("execve"), Some(&listener())).expect("asked by name");
    assert_eq!(without_listener(&asks("execve")), Err(OciError::NoListener));
    assert_eq!(
        profile(&asks("write"), Some(&listener())),
        Err(OciError::WriteAsk)
    );
    assert_eq!(
        profile(
            &table(vec![("read", always(Verdict::Allow))]),
            Some(&listener())
        ),
        Err(OciError::NothingAsked)
    );
}

#[test]
fn numbers_without_a_name() {
    for nr in [400, 0x3fff_ffff] {
        let mut table = table(vec![]);
        table
            .abis
            .get_mut(&Abi::X86_64)
            .expect("served")
            .entries
            .insert(nr, always(EPERM));
        without_listener(&table).expect("the default needs no name");
        table
            .abis
            .get_mut(&Abi::X86_64)
            .expect("served")
            .entries
            .insert(nr, always(Verdict::Allow));
        let abi = Abi::X86_64;
        assert_eq!(
            without_listener(&table),
            Err(OciError::Nameless { nr, abi })
        );
    }
}

#[test]
fn data_of_actions() {
    let one = |verdict| without_listener(&table(vec![("read", always(verdict))]));
    one(Verdict::Trap(0)).expect("trap without datum");
    assert_eq!(
        one(Verdict::Trap(3)),
        Err(OciError::TrapDatum {
            call: "read".to_owned(),
            datum: 3
        })
    );
    let traced = one(Verdict::Trace(9)).expect("trace with datum");
    assert_eq!(traced.syscalls[0].errno_ret, Some(9));
}

#[test]
fn conditions() {
    let one = |entry| without_listener(&table(vec![("socket", entry)]));
    let call = "socket";
    let allow = |conditions: &[(u8, u64, &[u64])]| branch(Verdict::Allow, conditions);

    one(entry(vec![allow(&[(0, INT, &[1]), (1, INT, &[1])])], EPERM)).expect("two arguments");
    assert_eq!(
        one(entry(vec![allow(&[(1, INT, &[1]), (1, 0xf, &[1])])], EPERM)),
        Err(OciError::SameArgument { call, arg: 1 })
    );
    assert_eq!(
        one(entry(vec![allow(&[(1, 0, &[0])])], EPERM)),
        Err(OciError::NoBits { call, arg: 1 })
    );
    for found in [Verdict::Ask, Verdict::Errno(13), Verdict::Allow] {
        let rest = entry(vec![allow(&[(0, INT, &[1])])], found);
        assert_eq!(one(rest), Err(OciError::Otherwise { call, found }));
    }

    let values = |n: u64| (0..n).collect::<Vec<_>>();
    let product = |n| {
        one(entry(
            vec![allow(&[(0, INT, &values(n)), (1, INT, &values(16))])],
            EPERM,
        ))
    };
    assert_eq!(product(16).expect("fits").syscalls.len(), 256);
    assert_eq!(
        product(17),
        Err(OciError::TooManyRules { call, found: 272 })
    );
}

#[test]
fn order_of_branches() {
    let one = |branches| without_listener(&table(vec![("socket", entry(branches, EPERM))]));
    let (inet, unix) = (&[2u64][..], &[1u64][..]);
    let allow_inet = branch(Verdict::Allow, &[(0, INT, inet)]);
    let log_unix = branch(Verdict::Log, &[(0, INT, unix)]);
    let log_streams = branch(Verdict::Log, &[(1, INT, unix)]);
    let allow_streams = branch(Verdict::Allow, &[(1, INT, unix)]);
    let deny_streams = branch(EPERM, &[(1, INT, unix)]);
    let deny_unix = branch(EPERM, &[(0, INT, unix)]);

    one(vec![allow_inet.clone(), log_unix]).expect("cannot both hold");
    one(vec![allow_inet.clone(), allow_streams]).expect("same verdict");
    let overlap = Err(OciError::Overlap { call: "socket" });
    assert_eq!(one(vec![log_streams, allow_inet.clone()]), overlap);
    assert_eq!(one(vec![deny_streams, allow_inet.clone()]), overlap);
    // what the default says anyway is not written down
    let profile = one(vec![deny_unix, allow_inet]).expect("cannot both hold");
    assert_eq!(profile.syscalls.len(), 1);
}

#[test]
fn ranges() {
    let one = |mask: u64, ranges: Vec<std::ops::RangeInclusive<u64>>| {
        let condition = Condition {
            arg: 1,
            mask,
            values: Values::of(ranges),
        };
        let branch = Branch {
            all: vec![condition],
            verdict: Verdict::Allow,
        };
        let profile = without_listener(&table(vec![("lseek", entry(vec![branch], EPERM))]))?;
        let args = profile.syscalls.into_iter().flat_map(|rule| rule.args);
        Ok(args
            .map(|arg| (arg.op, arg.value, arg.value_two))
            .collect::<Vec<_>>())
    };
    let whole = u64::MAX;
    let masked = |mask, datum| (Operator::MaskedEqual, mask, datum);
    assert_eq!(
        one(whole, vec![0..=99]),
        Ok(vec![(Operator::LessOrEqual, 99, 0)])
    );
    assert_eq!(
        one(whole, vec![99..=whole]),
        Ok(vec![(Operator::GreaterOrEqual, 99, 0)])
    );
    assert_eq!(
        one(whole, vec![0..=98, 100..=whole]),
        Ok(vec![(Operator::NotEqual, 99, 0)])
    );
    // few values one by one
    assert_eq!(
        one(whole, vec![7..=8]),
        Ok(vec![(Operator::Equal, 7, 0), (Operator::Equal, 8, 0)])
    );
    // aligned blocks: 64 to 127, 128 to 129
    assert_eq!(
        one(INT, vec![64..=129]),
        Ok(vec![masked(INT - 63, 64), masked(INT - 1, 128)])
    );
    // of the values 1 to 4, only 1 and 4 have no bit outside the mask; libseccomp would take 2 for 0
    assert_eq!(one(5, vec![1..=4]), Ok(vec![masked(5, 1), masked(5, 4)]));
    let (call, arg) = ("lseek", 1);
    assert_eq!(one(INT, vec![0..=INT]), Err(OciError::NoBits { call, arg }));
    let even = whole - 1;
    assert_eq!(
        one(even, vec![0..=1000]),
        Err(OciError::Range { call, arg })
    );
}

#[test]
fn what_libseccomp_refuses() {
    assert_eq!(
        without_listener(&table(vec![("read", always(Verdict::Errno(4095)))])),
        Err(OciError::LargestErrno {
            call: "read".to_owned()
        })
    );
    without_listener(&table(vec![("read", always(Verdict::Errno(4094)))])).expect("taken");
}
