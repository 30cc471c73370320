//! The engines' own profiles to a policy, to its text and back: the policy means what runc and libseccomp make of the profile,
//! but for what the notes say. Both ways: no difference without its note, no note without its difference.

use lazaret_core::ceiling::{self, Reach};
use lazaret_core::digest::Digest;
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::compile::compile;
use lazaret_core::filter::oci::{Document, Engine, Host, Operator, meaning};
use lazaret_core::filter::prove::{Cube, Difference, Operand, prove};
use lazaret_core::filter::rule::{Call, RuleTable, Verdict};
use lazaret_core::filter::table;
use lazaret_core::policy::import::{Imported, Note, Subject, import};
use lazaret_text::{policy, profile};
use std::collections::BTreeSet;
use std::path::Path;

/// File of `lazaret-filter/tests/data/profiles`, and whether it tells architectures apart (`archMap`).
const PROFILES: [(&str, bool); 6] = [
    ("moby-20.10.24", true),
    ("moby-20.10.24-old-format", false),
    ("moby-profiles-0.2.4", true),
    ("containers-common-0.50.1", true),
    ("containerd-1.6.20", false),
    ("containerd-1.6.20-sys-admin", false),
];

const CAPABILITIES: [&[&str]; 3] = [
    &[],
    &["CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_SYS_CHROOT"],
    &["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_BPF"],
];

fn read(name: &str) -> Document {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../lazaret-filter/tests/data/profiles")
        .join(format!("{name}.json"));
    profile::read(&path).unwrap_or_else(|error| panic!("{error}"))
}

/// What the runtime's filter means, without the architectures that have no call table.
fn meant(document: &Document, abi: Abi, capabilities: &[&str]) -> RuleTable {
    let capabilities: BTreeSet<String> = capabilities.iter().map(ToString::to_string).collect();
    let host = Host {
        abi,
        kernel: (6, 1),
        capabilities: &capabilities,
    };
    let mut resolved = document.resolve(&host).profile;
    resolved.architectures.retain(|one| one.abi().is_some());
    let engine = Engine::debian12().on(abi);
    let (table, _) = meaning(&resolved, &engine).unwrap_or_else(|error| panic!("{error}"));
    table
}

fn subject() -> Subject {
    Subject {
        name: "imported".to_string(),
        image: "t".to_string(),
        digests: vec![Digest::of(b"i")],
        no_new_privileges: false,
        source: "an engine's profile".to_string(),
    }
}

fn permits(verdict: Verdict) -> bool {
    verdict >= Verdict::Ask
}

/// Whether notes tell of the difference.
fn told(notes: &[Note], difference: &Difference) -> bool {
    notes
        .iter()
        .any(|note| matches!(note, Note::Errno(noted) if same_refusal(noted, difference)))
        || difference
            .when
            .cubes
            .iter()
            .all(|cube| notes.iter().any(|note| is_wider(note, difference, cube)))
}

/// Whether both are about the same two errnos of the same calls. The note's region is as wide as the arguments, the other as
/// the profile's comparison.
fn same_refusal(noted: &Difference, difference: &Difference) -> bool {
    let key = |one: &Difference| (one.abi, one.numbers.clone(), one.expected, one.found);
    key(noted) == key(difference)
}

/// Whether a note tells of a part of the difference: calls with bits in the half of an argument that the kernel does not look at.
fn is_wider(note: &Note, difference: &Difference, cube: &Cube) -> bool {
    let Note::Width { call, arg, bits } = note else {
        return false;
    };
    let abi = difference.abi.expect("a convention with a table");
    let nr = table::nr_of(abi, call).expect("a call of the convention");
    let args = table::args_of(call).expect("its arguments are in the table");
    let at = args.iter().position(|one| one.name == *arg).expect("known");
    let operand = Operand::Argument(u8::try_from(at).expect("six arguments"));
    difference.numbers == (nr..=nr)
        && cube.terms.iter().any(|term| {
            term.operand == operand && term.values.ranges().all(|range| range.start() >> bits != 0)
        })
}

#[track_caller]
fn holds(name: &str, table: &RuleTable, abi: Abi) {
    let Imported { policy, notes } =
        import(table, abi, subject()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let text = policy::write(policy.wire()).expect("written");
    let back = policy::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(back, policy, "{name}");

    // its own convention: proved against the filter that the compiler makes
    let numbers = table.abis[&abi].clone();
    let own = RuleTable::single(abi, numbers, table.foreign);
    let filter = compile(&back.static_table()).expect("compiled");
    let found = prove(&own, &[filter]).unwrap_or_else(|error| panic!("{name}: {error}"));
    let omitted = found.omitted;
    let left_out = omitted.looser + omitted.stricter + omitted.other;
    assert_eq!(left_out, 0, "{name}");
    let differences: Vec<&Difference> = found
        .looser
        .iter()
        .chain(&found.stricter)
        .chain(&found.other)
        .collect();
    for difference in &differences {
        assert!(
            told(&notes, difference),
            "{name}: no note of {difference:?}"
        );
    }
    for note in &notes {
        let has_reason = match note {
            Note::Errno(noted) => differences.iter().any(|one| same_refusal(noted, one)),
            Note::Width { .. } => differences.iter().any(|difference| {
                let mut cubes = difference.when.cubes.iter();
                cubes.any(|cube| is_wider(note, difference, cube))
            }),
            Note::Closed { abi: other } => {
                let numbers = &table.abis[other];
                let open = |nr| numbers.widest(nr) == Verdict::Allow;
                let fixed = back.static_table();
                let closed = |nr| !permits(fixed.decide(&Call::new(*other, nr)));
                table::calls(*other).any(|(nr, _)| open(nr) && closed(nr))
            }
            Note::LeftOut { call, .. } => {
                let nr = table::nr_of(abi, call).expect("a call of the convention");
                back.static_table().decide(&Call::new(abi, nr)) == Verdict::Allow
                    || table.abis[&abi].widest(nr) == Verdict::Allow
            }
            other => panic!("{name}: an unknown note: {other}"),
        };
        assert!(has_reason, "{name}: nothing is behind `{note}`");
    }

    // the other conventions: closed, and each that the profile serves is named
    for (other, numbers) in table.abis.iter().filter(|(other, _)| **other != abi) {
        let serves = table::calls(*other).any(|(nr, _)| permits(numbers.widest(nr)));
        assert_eq!(
            notes.contains(&Note::Closed { abi: *other }),
            serves,
            "{name}: {other}"
        );
    }
    // every call of the ceiling that stays open is named
    for forbidden in ceiling::DEFAULT {
        let Some(nr) = table::nr_of(abi, forbidden.call) else {
            continue;
        };
        let open = permits(table.abis[&abi].widest(nr)) && forbidden.reach == Reach::Always;
        let noted = notes
            .iter()
            .any(|note| matches!(note, Note::LeftOut { call, .. } if *call == forbidden.call));
        assert_eq!(noted, open, "{name}: {}", forbidden.call);
    }
}

#[test]
fn the_engines_profiles_survive_the_way_through_a_policy() {
    for (name, for_each_architecture) in PROFILES {
        let document = read(name);
        for capabilities in CAPABILITIES {
            let with = format!("{name} with {capabilities:?}");
            holds(
                &with,
                &meant(&document, Abi::X86_64, capabilities),
                Abi::X86_64,
            );
            if for_each_architecture {
                let table = meant(&document, Abi::Aarch64, capabilities);
                holds(&format!("{with} on aarch64"), &table, Abi::Aarch64);
            }
        }
    }
}

/// What is known to get lost, in so many words: were it something else, or more, this would say so.
#[test]
fn the_limits_are_those_that_are_known() {
    let document = read("moby-20.10.24");
    let table = meant(&document, Abi::X86_64, CAPABILITIES[1]);
    let imported = import(&table, Abi::X86_64, subject()).expect("imported");
    let limits: Vec<String> = imported
        .notes
        .iter()
        .filter(|note| !matches!(note, Note::LeftOut { .. }))
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        limits,
        [
            "the profile serves i386 calls too; a policy closes every convention but its own",
            "the profile serves x32 calls too; a policy closes every convention but its own",
            "the profile compares 64 bits of argument `personality` of `personality`; the kernel uses 32 of them, and so does \
             the policy",
            "470..=1073741823 fails with ENOSYS under the profile and with EPERM under the policy",
            "2147483648..=3221225471 fails with ENOSYS under the profile and with EPERM under the policy",
        ]
    );
}

/// A profile that refuses `clone3` with another errno than the ceiling does keeps its errno.
#[test]
fn clone3_keeps_its_errno() {
    let nr = table::nr_of(Abi::X86_64, "clone3").expect("a call");
    let clone3 = Call::new(Abi::X86_64, nr);
    for (rule, errno) in [
        // a newer call is named, so runc's stub leaves `clone3` to the default
        (r#""close_range"], "action": "SCMP_ACT_ALLOW""#, 1),
        (
            r#""clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13"#,
            13,
        ),
        (
            r#""clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38"#,
            38,
        ),
    ] {
        let document = profile::parse(&with_required(&format!(r#"{{"names": [{rule}}}"#)))
            .unwrap_or_else(|error| panic!("{error}"));
        let table = meant(&document, Abi::X86_64, &[]);
        assert_eq!(table.decide(&clone3), Verdict::Errno(errno), "{rule}");
        holds(rule, &table, Abi::X86_64);
        let imported = import(&table, Abi::X86_64, subject()).expect("imported");
        let fixed = imported.policy.static_table();
        assert_eq!(fixed.decide(&clone3), Verdict::Errno(errno), "{rule}");
    }
}

/// A profile with the calls that every policy has to allow, and these rules.
fn with_required(rules: &str) -> String {
    format!(
        r#"{{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
            {{"names": ["exit", "exit_group", "read", "restart_syscall", "rt_sigreturn", "write"], "action": "SCMP_ACT_ALLOW"}},
            {rules}]}}"#
    )
}

/// The operators of libseccomp on arguments as wide as a pointer and narrower, through the same way.
#[test]
fn conditions_survive_the_way_through_a_policy() {
    let rules = [
        r#"{"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]}"#,
        r#"{"names": ["clone"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}"#,
        r#"{"names": ["mmap"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "value": 1099511627776, "op": "SCMP_CMP_LT"}]}"#,
        r#"{"names": ["munmap"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "value": 4096, "op": "SCMP_CMP_GE"}]}"#,
        r#"{"names": ["fcntl"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 1024, "op": "SCMP_CMP_LE"}, {"index": 1, "value": 2, "op": "SCMP_CMP_GT"}]}"#,
        r#"{"names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "value": 21505, "op": "SCMP_CMP_EQ"}]}"#,
        r#"{"names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "value": 21506, "op": "SCMP_CMP_EQ"}]}"#,
        r#"{"names": ["bind"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22}"#,
        r#"{"names": ["listen"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}"#,
    ];
    // all of the operators that a profile has
    let all = rules.join(",");
    for operator in [
        Operator::NotEqual,
        Operator::Less,
        Operator::LessOrEqual,
        Operator::Equal,
        Operator::GreaterOrEqual,
        Operator::Greater,
        Operator::MaskedEqual,
    ] {
        let word = serde_saphyr::to_string(&operator).expect("a word");
        assert!(all.contains(word.trim()), "{word}");
    }
    let document = profile::parse(&with_required(&all)).unwrap_or_else(|error| panic!("{error}"));
    let table = meant(&document, Abi::X86_64, &[]);
    holds("conditions", &table, Abi::X86_64);
    let notes = import(&table, Abi::X86_64, subject())
        .expect("imported")
        .notes;
    let narrowed: BTreeSet<&str> = notes
        .iter()
        .filter_map(|note| match note {
            Note::Width { call, .. } => Some(call.as_str()),
            _ => None,
        })
        .collect();
    // lengths are as wide as the comparison
    assert_eq!(narrowed, BTreeSet::from(["fcntl", "ioctl", "socket"]));
}
