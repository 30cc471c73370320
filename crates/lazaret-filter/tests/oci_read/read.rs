//! Reading: every form, and both sides of every refusal.

use lazaret_filter::oci::read::parse;
use lazaret_filter::oci::{MAX_DEPTH, MAX_PROFILE_BYTES, OciReadError};
use serde_json::{Value, json};

fn minimal() -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "", "includes": {}, "excludes": {}},
            {"name": "clone", "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
             "includes": {"caps": ["CAP_A"], "arches": ["amd64"], "minKernel": "4.8"}},
        ],
    })
}

fn error(value: &Value) -> String {
    match parse(value.to_string().as_bytes()) {
        Ok(_) => "read".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_smallest_profile_is_read() {
    assert_eq!(error(&minimal()), "read");
    assert_eq!(error(&json!({"defaultAction": "SCMP_ACT_ALLOW"})), "read");
}

/// What is put where, and the message.
#[test]
fn each_error_names_its_place() {
    let cases = [
        ("", "defaultAction", Value::Null, "defaultAction is missing"),
        (
            "",
            "defaultAction",
            json!("SCMP_ACT_MAYBE"),
            "defaultAction: `SCMP_ACT_MAYBE` is not known",
        ),
        (
            "",
            "defaultAction",
            json!(3),
            "defaultAction is a number, expected a string",
        ),
        (
            "",
            "defaultAktion",
            json!(3),
            "defaultAktion is not a field that Docker, podman or the OCI specification know",
        ),
        (
            "",
            "architectures",
            json!(["SCMP_ARCH_X86"]),
            "architectures and archMap exclude each other",
        ),
        (
            "",
            "syscalls",
            json!({}),
            "syscalls is an object, expected a list",
        ),
        (
            "",
            "defaultErrnoRet",
            json!(-1),
            "defaultErrnoRet is a number that is negative, broken or too large, expected a whole number from 0 to 2^64-1",
        ),
        (
            "",
            "defaultErrnoRet",
            json!(1u64 << 32),
            "defaultErrnoRet is 4294967296, the limit is 4294967295",
        ),
        (
            "",
            "defaultErrno",
            json!("EWHAT"),
            "defaultErrno: `EWHAT` is not known",
        ),
        (
            "/archMap/0",
            "architecture",
            json!("SCMP_ARCH_VAX"),
            "archMap[0].architecture: `SCMP_ARCH_VAX` is not known",
        ),
        (
            "/archMap/0",
            "sub",
            json!([]),
            "archMap[0].sub is not a field that Docker, podman or the OCI specification know",
        ),
        (
            "/archMap/0",
            "subArchitectures",
            json!(["x"]),
            "archMap[0].subArchitectures[0]: `x` is not known",
        ),
        (
            "/syscalls/0",
            "names",
            Value::Null,
            "syscalls[0].names is missing",
        ),
        (
            "/syscalls/0",
            "name",
            json!("read"),
            "syscalls[0].name and syscalls[0].names exclude each other",
        ),
        (
            "/syscalls/0",
            "names",
            json!([7]),
            "syscalls[0].names[0] is a number, expected a string",
        ),
        (
            "/syscalls/0",
            "action",
            Value::Null,
            "syscalls[0].action is missing",
        ),
        (
            "/syscalls/0",
            "exclude",
            json!({}),
            "syscalls[0].exclude is not a field that Docker, podman or the OCI specification know",
        ),
        (
            "/syscalls/1/args/0",
            "op",
            json!("=="),
            "syscalls[1].args[0].op: `==` is not known",
        ),
        (
            "/syscalls/1/args/0",
            "op",
            Value::Null,
            "syscalls[1].args[0].op is missing",
        ),
        (
            "/syscalls/1/args/0",
            "index",
            json!(6),
            "syscalls[1].args[0].index is 6, the limit is 5",
        ),
        (
            "/syscalls/1/args/0",
            "value",
            json!(1.5),
            "syscalls[1].args[0].value is a number that is negative, broken or too large, expected a whole number from 0 to 2^64-1",
        ),
        (
            "/syscalls/1/includes",
            "cap",
            json!([]),
            "syscalls[1].includes.cap is not a field that Docker, podman or the OCI specification know",
        ),
        (
            "/syscalls/1/includes",
            "minKernel",
            json!("4"),
            "syscalls[1].includes.minKernel: `4` is not known",
        ),
        (
            "/syscalls/1/includes",
            "minKernel",
            json!("0.0"),
            "syscalls[1].includes.minKernel: `0.0` is not known",
        ),
        (
            "/syscalls/1/includes",
            "minKernel",
            json!("4.8.1"),
            "syscalls[1].includes.minKernel: `4.8.1` is not known",
        ),
    ];
    for (place, field, value, expected) in cases {
        let mut profile = minimal();
        profile.pointer_mut(place).expect("place")[field] = value;
        assert_eq!(error(&profile), expected);
    }
    assert_eq!(error(&json!([])), "profile is a list, expected an object");
}

#[test]
fn errnos_by_number_and_name() {
    let with = |fields: Value| {
        let mut profile = minimal();
        for (field, value) in fields.as_object().expect("object") {
            profile["syscalls"][0][field] = value.clone();
        }
        error(&profile)
    };
    assert_eq!(with(json!({"errnoRet": 1, "errno": "EPERM"})), "read");
    assert_eq!(with(json!({"errno": "38"})), "read");
    assert_eq!(with(json!({"errno": ""})), "read");
    assert_eq!(
        with(json!({"errnoRet": 1, "errno": "ENOSYS"})),
        "syscalls[0].errno is not the errno that errnoRet says"
    );
    assert_eq!(
        with(json!({"errno": "+1"})),
        "syscalls[0].errno: `+1` is not known"
    );
}

#[test]
fn a_field_that_is_there_twice_is_refused() {
    let text = br#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_LOG", "action": "SCMP_ACT_ALLOW"}]}"#;
    let place = "syscalls[0].action".to_owned();
    assert_eq!(parse(text), Err(OciReadError::Twice { place }));
}

#[test]
fn size_and_depth_are_bounded() {
    let found = MAX_PROFILE_BYTES + 1;
    assert_eq!(
        parse(&vec![b' '; found]),
        Err(OciReadError::TooLarge { found })
    );
    let spaces = |count: usize| {
        let mut text = minimal().to_string().into_bytes();
        text.resize(count, b' ');
        parse(&text)
    };
    assert!(spaces(MAX_PROFILE_BYTES).is_ok());

    let nested = |depth: usize| parse(&[vec![b'['; depth], vec![b']'; depth]].concat());
    assert!(matches!(nested(MAX_DEPTH), Err(OciReadError::Kind { .. })));
    let found = MAX_DEPTH + 1;
    assert_eq!(nested(found), Err(OciReadError::TooDeep { found }));
    assert_eq!(
        nested(500_000),
        Err(OciReadError::TooDeep { found: 500_000 })
    );
    // brackets in strings are no depth
    let mut profile = minimal();
    profile["syscalls"][0]["comment"] = json!("[{\"".repeat(100));
    assert_eq!(error(&profile), "read");
}

#[test]
fn broken_json_has_a_line() {
    let found = parse(b"{\n  \"defaultAction\": oops\n}");
    assert!(
        matches!(found, Err(OciReadError::Json { line: 2, .. })),
        "{found:?}"
    );
    assert!(parse(b"{} {}").is_err());
    assert!(parse(b"").is_err());
}
