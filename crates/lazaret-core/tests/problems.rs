//! What is refused, word by word and with its place, and beside each the neighbour that is accepted.

mod common;

use common::{problems, read, refused, text};
use std::collections::BTreeSet;

/// What is wrong, what is told, and the nearest text that is right.
struct Case {
    wrong: String,
    told: Vec<&'static str>,
    right: String,
}

/// A case of rules beside the required ones, which are `rules[0]`.
fn rule(wrong: &str, told: &[&'static str], right: &str) -> Case {
    Case {
        wrong: text(wrong, &[]),
        told: told.to_vec(),
        right: text(right, &[]),
    }
}

/// A case of one top-level field.
fn field(name: &str, wrong: &str, told: &[&'static str], right: &str) -> Case {
    Case {
        wrong: text("", &[(name, wrong)]),
        told: told.to_vec(),
        right: text("", &[(name, right)]),
    }
}

/// A condition on `socket`'s type, which has 32 bits.
fn kind(wrong: &str, told: &[&'static str], right: &str) -> Case {
    let socket = |condition: &str| {
        format!(r#"{{"allow":["socket"],"when":[{{"arg":"type",{condition}}}],"why":""}}"#)
    };
    rule(&socket(wrong), told, &socket(right))
}

fn names() -> Vec<Case> {
    vec![
        rule(
            r#"{"allow":["open","reed","open"],"why":""}"#,
            &[
                "rules[1].allow[1]: unknown system call `reed` for x86_64, did you mean `read`?",
                "rules[1].allow[2]: `open` stands here twice",
            ],
            r#"{"allow":["open","read"],"why":""}"#,
        ),
        rule(
            r#"{"deny":["quuux"],"why":""}"#,
            &["rules[1].deny[0]: unknown system call `quuux` for x86_64"],
            r#"{"deny":["mount"],"why":""}"#,
        ),
        rule(
            r#"{"allow":[0],"why":""}"#,
            &["rules[1].allow[0]: number 0 has a name, write `read`"],
            r#"{"allow":[1000],"why":""}"#,
        ),
        rule(
            r#"{"allow":[1073741824],"why":""}"#,
            &["rules[1].allow[0]: 1073741824 is no number of a system call for x86_64"],
            r#"{"allow":[1073741823],"why":""}"#,
        ),
        rule(
            r#"{"deny":[1000,1000],"why":""}"#,
            &["rules[1].deny[1]: `1000` stands here twice"],
            r#"{"deny":[1000,1001],"why":""}"#,
        ),
        rule(
            r#"{"allow":["mount"],"why":""},{"ask":["bpf"],"why":""}"#,
            &[
                "rules[1].allow[0]: `mount` is under the ceiling: no rule can allow it",
                "rules[2].ask[0]: `bpf` is under the ceiling: no rule can allow it",
            ],
            r#"{"deny":["mount","bpf"],"why":""}"#,
        ),
        rule(
            r#"{"allow":[],"why":""}"#,
            &["rules[1].allow: the list is empty"],
            r#"{"allow":["getpid"],"why":""}"#,
        ),
    ]
}

fn actions() -> Vec<Case> {
    let one_action = &["rules[1]: a rule has exactly one of `allow`, `ask` and `deny`"];
    vec![
        rule(r#"{"why":""}"#, one_action, r#"{"ask":["bind"],"why":""}"#),
        rule(
            r#"{"allow":["bind"],"ask":["listen"],"why":""}"#,
            one_action,
            r#"{"allow":["bind"],"why":""},{"ask":["listen"],"why":""}"#,
        ),
        rule(
            r#"{"allow":["bind"],"errno":"EPERM","why":""},{"ask":["listen"],"errno":"EPERM","why":""}"#,
            &[
                "rules[1].errno: `errno` does not go with `allow`",
                "rules[2].errno: `errno` does not go with `ask`",
            ],
            r#"{"deny":["bind","listen"],"errno":"EPERM","why":""}"#,
        ),
        rule(
            r#"{"deny":["bind"],"until":"serving","why":""}"#,
            &["rules[1].until: `until` does not go with `deny`"],
            r#"{"ask":["bind"],"until":"serving","why":""}"#,
        ),
        rule(
            r#"{"deny":["bind"],"errno":"EIO","why":""}"#,
            &["rules[1].errno: unknown errno `EIO`, expected EPERM, EACCES or ENOSYS"],
            r#"{"deny":["bind"],"errno":"EACCES","why":""}"#,
        ),
        rule(
            r#"{"ask":["bind"],"why":""},{"allow":["bind"],"until":"serving","why":""},{"deny":["bind"],"why":""}"#,
            &[
                "rules[1].ask[0]: `bind` is denied by rules[3] and allowed here",
                "rules[2].allow[0]: `bind` is denied by rules[3] and allowed here",
            ],
            r#"{"ask":["bind"],"why":""},{"allow":["bind"],"until":"serving","why":""},{"deny":["listen"],"why":""}"#,
        ),
        rule(
            r#"{"deny":["bind"],"why":""},{"deny":["bind"],"why":""}"#,
            &["rules[2].deny[0]: `bind` is denied already by rules[1]"],
            r#"{"deny":["bind"],"why":""},{"deny":["listen"],"why":""}"#,
        ),
        rule(
            r#"{"ask":["bind"],"until":"serving","why":""},{"allow":["bind"],"why":""}"#,
            &[
                "rules[1].ask[0]: `bind` is asked here, and allowed by rules[2] in every phase whatever its arguments: the kernel would never ask",
            ],
            r#"{"ask":["bind"],"why":""},{"allow":["bind"],"until":"serving","why":""}"#,
        ),
        field(
            "rules",
            r#"[{"allow":["exit","exit_group","restart_syscall","rt_sigreturn","write"],"why":""},{"allow":["read"],"until":"stopping","why":""}]"#,
            &[
                "rules: `read` must be allowed in every phase without conditions: the runtime waits with it for the gate, so it cannot be asked",
            ],
            r#"[{"allow":["exit","exit_group","restart_syscall","rt_sigreturn","write"],"why":""},{"allow":["read"],"why":""}]"#,
        ),
        field(
            "rules",
            r#"[{"allow":["exit","read","restart_syscall","rt_sigreturn"],"why":""},{"ask":["exit_group","write"],"why":""}]"#,
            &[
                "rules: `exit_group` must be allowed in every phase without conditions: processes end through it",
                "rules: `write` must be allowed in every phase without conditions: the runtime hands the listener over with it, so it cannot be asked",
            ],
            r#"[{"allow":["exit","read","restart_syscall","rt_sigreturn"],"why":""},{"allow":["exit_group","write"],"why":""}]"#,
        ),
    ]
}

fn scopes() -> Vec<Case> {
    let case = |wrong: &str, told: &[&'static str], right: &str| {
        let bind = |scope: &str| format!(r#"{{"allow":["bind"],{scope},"why":""}}"#);
        rule(&bind(wrong), told, &bind(right))
    };
    vec![
        case(
            r#""until":"noon""#,
            &["rules[1].until: `noon` cannot stand here, expected serving or stopping"],
            r#""until":"stopping""#,
        ),
        case(
            r#""during":["startup"]"#,
            &["rules[1].during: write `until: serving` instead"],
            r#""until":"serving""#,
        ),
        case(
            r#""during":["serving","startup"]"#,
            &["rules[1].during: write `until: stopping` instead"],
            r#""during":["serving","stopping"]"#,
        ),
        case(
            r#""during":["startup","serving","stopping","exec"]"#,
            &["rules[1].during: these are all phases, leave `during` out"],
            r#""during":["startup","serving","exec"]"#,
        ),
        case(
            r#""during":["prelude"]"#,
            &[
                "rules[1].during[0]: `prelude` cannot stand here, expected startup, serving, stopping or exec",
                "rules[1].during: the list is empty",
            ],
            r#""during":["exec"]"#,
        ),
        case(
            r#""during":["exec","exec"]"#,
            &["rules[1].during[1]: `exec` stands here twice"],
            r#""during":["exec","stopping"]"#,
        ),
        case(
            r#""until":"serving","during":["exec"]"#,
            &["rules[1].until: `until` and `during` exclude each other"],
            r#""during":["startup","exec"]"#,
        ),
    ]
}

fn conditions() -> Vec<Case> {
    vec![
        rule(
            r#"{"allow":["getpid"],"when":[{"arg":"pid","in":[1]}],"why":""}"#,
            &["rules[1].when[0].arg: `getpid` has no argument `pid`, it has none"],
            r#"{"allow":["getpid"],"why":""}"#,
        ),
        rule(
            r#"{"allow":[1000],"when":[{"arg":"fd","in":[1]}],"why":""}"#,
            &[
                "rules[1].when[0].arg: `1000` has no argument `fd`, its arguments are not in the table",
            ],
            r#"{"allow":[1000],"why":""}"#,
        ),
        rule(
            r#"{"allow":["socket"],"when":[{"arg":"famly","in":[1]}],"why":""}"#,
            &[
                "rules[1].when[0].arg: `socket` has no argument `famly`, it has family, type, protocol, did you mean `family`?",
            ],
            r#"{"allow":["socket"],"when":[{"arg":"family","in":[1]}],"why":""}"#,
        ),
        rule(
            r#"{"allow":["socket"],"when":[{"arg":"family","in":["AF_NOWHERE"]}],"why":""}"#,
            &[
                "rules[1].when[0].in[0]: unknown constant `AF_NOWHERE` for argument `family` of `socket`",
            ],
            r#"{"allow":["socket"],"when":[{"arg":"family","in":["AF_UNIX"]}],"why":""}"#,
        ),
        rule(
            r#"{"allow":["socket"],"when":[{"arg":"domain","in":["AF_UNX"]}],"why":""}"#,
            &[
                "rules[1].when[0].in[0]: unknown constant `AF_UNX` for argument `domain` of `socket`, did you mean `AF_UNIX`?",
            ],
            r#"{"allow":["socket"],"when":[{"arg":"domain","in":["AF_UNIX"]}],"why":""}"#,
        ),
        rule(
            r#"{"allow":["socket"],"when":[{"arg":"type","in":[1]},{"arg":"type","in":[2]}],"why":""}"#,
            &[
                "rules[1].when[1].arg: two conditions on argument `type`: join them in one mask and list",
            ],
            r#"{"allow":["socket"],"when":[{"arg":"type","in":[1,2]},{"arg":"protocol","in":[0]}],"why":""}"#,
        ),
        kind(
            r#""in":[]"#,
            &["rules[1].when[0].in: the list is empty"],
            r#""in":[0]"#,
        ),
        kind(
            r#""mask":15,"in":[16]"#,
            &[
                "rules[1].when[0].in[0]: value 0x10 has bits outside the mask 0xf, the condition could never hold",
            ],
            r#""mask":15,"in":[14]"#,
        ),
        kind(
            r#""mask":4294967296,"in":[0]"#,
            &["rules[1].when[0].mask: mask 0x100000000 does not fit an argument of 32 bits"],
            r#""mask":2147483648,"in":[0]"#,
        ),
        kind(
            r#""mask":0,"in":[0]"#,
            &["rules[1].when[0].mask: mask 0x0 does not fit an argument of 32 bits"],
            r#""mask":1,"in":[0]"#,
        ),
    ]
}

fn sets() -> Vec<Case> {
    vec![
        kind(
            r#""in":[{"from":5,"to":3}]"#,
            &["rules[1].when[0].in[0]: the range from 0x5 to 0x3 is empty"],
            r#""in":[{"from":3,"to":5}]"#,
        ),
        kind(
            r#""in":[{"from":5,"to":5}]"#,
            &["rules[1].when[0].in[0]: a range of one value, write 0x5 instead"],
            r#""in":[5]"#,
        ),
        kind(
            r#""in":[{"from":4294967295}]"#,
            &["rules[1].when[0].in[0]: a range of one value, write 0xffffffff instead"],
            r#""in":[{"from":4294967294}]"#,
        ),
        kind(
            r#""in":[{"from":"SOCK_NOTHING","to":4294967296}]"#,
            &[
                "rules[1].when[0].in[0].from: unknown constant `SOCK_NOTHING` for argument `type` of `socket`",
                "rules[1].when[0].in[0].to: value 0x100000000 has bits outside the mask 0xffffffff, the condition could never hold",
            ],
            r#""in":[{"from":"SOCK_STREAM","to":4294967295}]"#,
        ),
        kind(
            r#""mask":240,"in":[{"to":31}]"#,
            &[
                "rules[1].when[0].in[0].to: value 0x1f has bits outside the mask 0xf0, the condition could never hold",
            ],
            r#""mask":240,"in":[{"to":32}]"#,
        ),
        kind(
            r#""in":[2,"SOCK_DGRAM"]"#,
            &["rules[1].when[0].in[1]: `0x2` stands here twice"],
            // single values may be neighbours: they have names
            r#""in":["SOCK_STREAM","SOCK_DGRAM",3]"#,
        ),
        kind(
            r#""in":[3,{"from":2,"to":9}]"#,
            &["rules[1].when[0].in[1]: value 0x3 is in element 0 of the list already"],
            r#""in":[0,{"from":2,"to":9}]"#,
        ),
        kind(
            r#""in":[{"from":2,"to":9},{"from":9,"to":12},20]"#,
            &["rules[1].when[0].in[1]: value 0x9 is in element 0 of the list already"],
            r#""in":[{"from":2,"to":9},{"from":11,"to":12},20]"#,
        ),
        // the one inside hides nothing of the long one from those after it
        kind(
            r#""in":[{"from":2,"to":9},{"from":3,"to":4},{"from":8,"to":12}]"#,
            &[
                "rules[1].when[0].in[1]: value 0x3 is in element 0 of the list already",
                "rules[1].when[0].in[2]: value 0x8 is in element 0 of the list already",
            ],
            r#""in":[{"from":2,"to":12}]"#,
        ),
        kind(
            r#""in":[10,{"from":2,"to":9}]"#,
            &[
                "rules[1].when[0].in[1]: this and element 0 of the list touch, write one range from 0x2 to 0xa instead",
            ],
            r#""in":[11,{"from":2,"to":9}]"#,
        ),
        // under this mask nothing lies between 0x10 and 0x20
        kind(
            r#""mask":240,"in":[{"to":16},{"from":32,"to":48}]"#,
            &[
                "rules[1].when[0].in[1]: this and element 0 of the list touch, write one range from 0x0 to 0x30 instead",
            ],
            r#""mask":240,"in":[{"to":16},{"from":48,"to":64}]"#,
        ),
        kind(
            r#""in":[{}]"#,
            &["rules[1].when[0].in: the condition holds for every value, leave it out"],
            r#""in":[{"from":1}]"#,
        ),
        kind(
            r#""mask":5,"in":[0,1,4,5]"#,
            &["rules[1].when[0].in: the condition holds for every value, leave it out"],
            r#""mask":5,"in":[0,1,5]"#,
        ),
    ]
}

fn header() -> Vec<Case> {
    let environment = |arch: &str, kernel: &str| {
        format!(r#"{{"arch":"{arch}","kernel":"{kernel}","noNewPrivileges":true,"runtimes":[]}}"#)
    };
    let serving = |port: &str, path: &str, status: &str, settle: &str| {
        format!(
            r#"{{"serving":{{"when":{{"http":{{"path":"{path}","port":{port},"status":{status}}},"settle":"{settle}"}}}}}}"#
        )
    };
    let digest = "\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"";
    let image = |digests: &str| format!(r#"{{"name":"t","digests":[{digests}]}}"#);
    let metadata =
        |name: &str, revision: u64| format!(r#"{{"name":"{name}","revision":{revision}}}"#);
    vec![
        field(
            "ceiling",
            r#""open""#,
            &["ceiling: unknown ceiling `open`, the named one is `default`"],
            r#"["mount"]"#,
        ),
        field(
            "ceiling",
            r#"["mount","mownt",999]"#,
            &["ceiling[1]: unknown system call `mownt` for x86_64, did you mean `mount`?"],
            r#"["mount",999]"#,
        ),
        field(
            "phases",
            r#"{"prelude":{"calls":["capset","capseet"]}}"#,
            &[
                "phases.prelude.calls[1]: unknown system call `capseet` for x86_64, did you mean `capset`?",
            ],
            r#"{"prelude":{"calls":["capset",999]}}"#,
        ),
        field(
            "kind",
            r#""Pod""#,
            &["kind: `Pod` is not supported, expected SyscallPolicy"],
            r#""SyscallPolicy""#,
        ),
        field(
            "metadata",
            &metadata("Ä", 0),
            &[
                "metadata.name: `Ä` is no name: 1 to 128 characters of a-z, 0-9, `-`, `.` and `/`, beginning with a letter or digit",
                "metadata.revision: revision 0, revisions count from 1",
            ],
            &metadata("a", 1),
        ),
        field(
            "image",
            &image(&format!("{digest},{digest}")),
            &[
                "image.digests[1]: `sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855` stands here twice",
            ],
            &image(digest),
        ),
        field(
            "image",
            &image(""),
            &["image.digests: the list is empty"],
            &image(digest),
        ),
        field(
            "image",
            &image(&digests(65).join(",")),
            &["image.digests: 65 elements, at most 64 are allowed"],
            &image(&digests(64).join(",")),
        ),
        field(
            "environment",
            &environment("i386", ">=5.11"),
            &["environment.arch: `i386` is not supported, expected x86_64 or aarch64"],
            &environment("x86_64", ">=5.11"),
        ),
        field(
            "environment",
            &environment("x86_64", ">=5.4"),
            &[
                "environment.kernel: `>=5.4` is no kernel bound, expected `>=MAJOR.MINOR` of at least 5.11",
            ],
            &environment("x86_64", ">=6.1"),
        ),
        field(
            "phases",
            &serving("0", "x y", "20", "2h"),
            &[
                "phases.serving.when.http.port: 0 is no TCP port",
                "phases.serving.when.http.status: 20 is no HTTP status",
                "phases.serving.when.http.path: `x y` is no path of at most 1024 characters beginning with `/`",
                "phases.serving.when.settle: `2h` is no duration from 0s to 86400s, as `10s` or `500ms`",
            ],
            &serving("1", "/x", "204", "86400s"),
        ),
        rule(
            &format!(r#"{{"allow":["getpid"],"why":"{}"}}"#, "x".repeat(513)),
            &["rules[1].why: the text has 513 characters, at most 512 printable ones are allowed"],
            &format!(r#"{{"allow":["getpid"],"why":"{}"}}"#, "x".repeat(512)),
        ),
    ]
}

/// What `tests/phases.rs` looks at more closely.
fn phases() -> Vec<Case> {
    let phases = |phases: &str, rules: &str| text(rules, &[("phases", phases)]);
    let ends = r#"{"allow":["execve"],"until":"serving","why":""}"#;
    let never = r#"{"allow":["execve"],"why":""}"#;
    let when = |when: &str| format!(r#"{{"serving":{{"when":{{{when}}}}}}}"#);
    let tcp = r#""serving":{"when":{"tcp":{"port":80}}}"#;
    let health = r#""serving":{"when":{"health":"engine"}}"#;
    let restarts = |count: u32| format!(r#"{{{tcp},"startup":{{"restarts":{count}}}}}"#);
    vec![
        Case {
            wrong: phases(&when(r#""settle":"1s""#), ends),
            told: vec![
                "phases.serving.when: `when` has exactly one of `http`, `tcp`, `health` and `quiet`",
            ],
            right: phases(&when(r#""health":"engine""#), ends),
        },
        Case {
            wrong: phases(&when(r#""quiet":"0ms""#), ends),
            told: vec!["phases.serving.when.quiet: 0 is no time to wait for, write at least `1ms`"],
            right: phases(&when(r#""quiet":"1ms""#), ends),
        },
        Case {
            wrong: phases(&when(r#""quiet":"1s""#), never),
            told: vec![
                "phases.serving.when.quiet: no rule allows a call in startup that serving denies: there is nothing to be quiet about, end some with `until: serving`",
            ],
            right: phases(&when(r#""quiet":"1s""#), ends),
        },
        Case {
            wrong: phases(&restarts(1001), ends),
            told: vec!["phases.startup.restarts: 1001 restarts, at most 1000 are allowed"],
            right: phases(&restarts(1000), ends),
        },
        Case {
            wrong: phases(r#"{"startup":{"restarts":1}}"#, ends),
            told: vec![
                "phases.startup.restarts: `restarts` needs `phases.serving`: after a restart nothing else would end the startup",
            ],
            right: phases(&restarts(1), ends),
        },
        Case {
            wrong: phases(&restarts(1), never),
            told: vec![
                "phases.startup.restarts: `restarts` needs a rule that allows `execve` or `execveat` in startup and none that allows it in serving: by that call a restart is seen",
            ],
            right: phases(&restarts(0), never),
        },
        Case {
            wrong: phases(
                &format!(r#"{{"exec":{{"start":"refuse"}},{health}}}"#),
                ends,
            ),
            told: vec![
                "phases.serving.when.health: the engine runs its health check as an exec, and `phases.exec.start` refuses those",
            ],
            right: phases(&format!(r#"{{"exec":{{"start":"refuse"}},{tcp}}}"#), ends),
        },
    ]
}

/// Different digests, in JSON.
fn digests(count: usize) -> Vec<String> {
    (0..count)
        .map(|nth| format!("\"sha256:{nth:064x}\""))
        .collect()
}

fn cases() -> Vec<Case> {
    [
        names(),
        actions(),
        scopes(),
        conditions(),
        sets(),
        header(),
        phases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn every_problem_is_told_with_its_place_and_its_neighbour_is_right() {
    for case in cases() {
        refused(&case.wrong, &case.told);
        if let Err(error) = read(&case.right) {
            panic!("{}: {error}", case.right);
        }
    }
}

#[test]
fn there_is_a_case_for_every_kind_of_problem() {
    let source = include_str!("../src/policy/problem.rs");
    let body = source
        .split("pub enum What {")
        .nth(1)
        .and_then(|rest| rest.split("\n}").next())
        .expect("the enum is there");
    // a variant stands alone on its line, four blanks in
    let variants: BTreeSet<String> = body
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()))
        .map(|line| line.trim_end_matches([' ', '{', ',']).to_owned())
        .collect();
    assert!(variants.len() > 30, "{variants:?}");
    let told: BTreeSet<String> = cases()
        .iter()
        .flat_map(|case| problems(&case.wrong))
        .map(|problem| {
            let shown = format!("{:?}", problem.what);
            let end = shown.find([' ', '{']).unwrap_or(shown.len());
            shown[..end].to_owned()
        })
        .collect();
    assert_eq!(variants, told);
}

#[test]
fn problems_come_in_the_order_of_the_text() {
    refused(
        &text(
            r#"{"allow":["reed"],"why":""},{"deny":["wriite"],"why":""},{"ask":["opn"],"why":""},{"why":""}"#,
            &[],
        ),
        &[
            "rules[1].allow[0]: unknown system call `reed` for x86_64, did you mean `read`?",
            "rules[2].deny[0]: unknown system call `wriite` for x86_64, did you mean `write`?",
            "rules[3].ask[0]: unknown system call `opn` for x86_64, did you mean `open`?",
            "rules[4]: a rule has exactly one of `allow`, `ask` and `deny`",
        ],
    );
}
