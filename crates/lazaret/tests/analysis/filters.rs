//! `inspect` and `prove` on files.

use crate::{Desk, POLICY};

#[test]
fn filters_are_inspected_and_proved() {
    let desk = Desk::new();
    desk.check("compile p.yaml --to bpf -o p.bpf", 0, &[]);
    desk.check(
        "inspect --bpf p.bpf",
        0,
        &[
            "1 filter of",
            "x86_64: 6 of 6 calls",
            "under conditions",
            "i386: kill process",
        ],
    );
    desk.check("inspect --bpf p.bpf --filter 1", 0, &["socket"]);
    desk.check(
        "inspect --bpf p.bpf --filter 2",
        2,
        &["filter 2 is not there, the chain has 1"],
    );
    desk.types(
        "inspect --bpf p.bpf",
        &["chain", "calls", "conditional", "calls"],
    );
    desk.check("inspect --oci p.json", 0, &["ptrace: reads and writes"]);
    desk.check("prove p.yaml --bpf p.bpf", 0, &["filter: equal"]);
    desk.types("prove p.yaml --bpf p.bpf", &["proof"]);

    desk.write(
        "narrow.yaml",
        &POLICY.replace("[AF_UNIX, AF_INET]", "[AF_UNIX]"),
    );
    // the filter is looser than the narrower policy, and stricter than the wider one
    desk.check(
        "prove narrow.yaml --bpf p.bpf",
        1,
        &["filter: looser", "socket if family = AF_INET: ask → allow"],
    );
    desk.check(
        "prove narrow.yaml --bpf p.bpf --at-least-as-strict",
        1,
        &["looser"],
    );
    desk.check("compile narrow.yaml --to bpf -o n.bpf", 0, &[]);
    desk.check(
        "prove p.yaml --bpf n.bpf",
        1,
        &["filter: at least as strict"],
    );
    desk.check(
        "prove p.yaml --bpf n.bpf --at-least-as-strict",
        0,
        &["filter: at least as strict"],
    );
    // the static filter is another one
    desk.check("compile p.yaml --to bpf --static -o s.bpf", 0, &[]);
    desk.check("prove p.yaml --bpf s.bpf", 1, &["bind"]);
    desk.check("prove p.yaml --bpf s.bpf --static", 0, &["equal"]);
    desk.check("compile p.yaml --to oci --static -o s.json", 0, &[]);
    desk.check(
        "prove p.yaml --oci s.json --static --at-least-as-strict",
        0,
        &[],
    );
}

/// `struct sock_filter`s: code, jump if true, jump if false, constant.
fn filter(instructions: &[(u16, u8, u8, u32)]) -> Vec<u8> {
    let bytes = |&(code, holds, fails, k): &(u16, u8, u8, u32)| {
        let mut one = code.to_ne_bytes().to_vec();
        one.extend([holds, fails]);
        one.extend(k.to_ne_bytes());
        one
    };
    instructions.iter().flat_map(bytes).collect()
}

// include/uapi/linux/bpf_common.h, filter.h
const LD_W_ABS: u16 = 0x20;
const TAX: u16 = 0x07;
const MUL_X: u16 = 0x2c;
const MUL_K: u16 = 0x24;
const JEQ_K: u16 = 0x15;
const RET_K: u16 = 0x06;

// include/uapi/linux/seccomp.h
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;

#[test]
fn what_cannot_be_followed_is_undecided_and_never_equal() {
    let desk = Desk::new();
    let product = |multiply: u16, k: u32| {
        filter(&[
            (LD_W_ABS, 0, 0, 16),
            (TAX, 0, 0, 0),
            (LD_W_ABS, 0, 0, 24),
            (multiply, 0, 0, k),
            (JEQ_K, 0, 1, 6),
            (RET_K, 0, 0, ALLOW),
            (RET_K, 0, 0, EPERM),
        ])
    };
    desk.bytes("mul.bpf", &product(MUL_X, 0));
    let said = "undecided: filter 1, instruction 3: its result cannot be followed, and instruction 4 depends on it";
    for line in [
        "prove p.yaml --bpf mul.bpf",
        "prove p.yaml --bpf mul.bpf --at-least-as-strict",
        "prove p.json --bpf mul.bpf",
        "inspect --bpf mul.bpf",
    ] {
        let all = desk.check(line, 1, &[said]);
        assert!(!all.contains("filter: equal"), "{all}");
    }
    // the instruction can be read
    desk.check("inspect --bpf mul.bpf --filter 1", 0, &["   3  mul  x"]);
    let output = desk.run("--format json prove p.yaml --bpf mul.bpf");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).expect("text");
    let value: serde_json::Value = serde_json::from_str(&text).expect("one object");
    assert_eq!(
        value,
        serde_json::json!({
            "type": "proof", "v": 1, "subject": "filter", "result": "undecided", "why": said, "filter": 1, "instruction": 3,
        })
    );
    // by a constant it can be followed
    desk.bytes("twice.bpf", &product(MUL_K, 2));
    desk.check("inspect --bpf twice.bpf", 0, &["x86_64"]);
    desk.check("prove p.yaml --bpf twice.bpf", 1, &["filter: looser"]);
    desk.types("prove p.yaml --bpf twice.bpf", &["proof", "difference"]);
}
