//! Filters as text: what a note may say on a line that several paths lead to, and filters that others made.

use lazaret_filter::abi::{Abi, X32_BIT};
use lazaret_filter::compile::compile;
use lazaret_filter::disasm::disassemble;
use lazaret_filter::program::{Instruction, Program, code};
use lazaret_filter::rule::{Branch, Condition, Entry, Numbers, RuleTable, Verdict};
use lazaret_filter::table::nr_of;

fn stmt(code: u16, k: u32) -> Instruction {
    Instruction::statement(code, k)
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction::jump(code, k, jt, jf)
}

/// The notes of a filter, line by line.
fn notes(instructions: Vec<Instruction>, abi: Abi) -> Vec<String> {
    let program = Program::new(instructions).expect("valid");
    let text = disassemble(&program, abi);
    let note = |line: &str| {
        line.split_once("; ")
            .map_or(String::new(), |(_, note)| note.to_string())
    };
    text.lines().map(note).collect()
}

#[test]
fn names_are_those_of_the_tested_architecture() {
    let allow = stmt(code::RET_K, Verdict::Allow.to_raw());
    let found = notes(
        vec![
            stmt(code::LD_W_ABS, 4),
            jump(code::JEQ_K, Abi::I386.audit_arch(), 0, 2),
            stmt(code::LD_W_ABS, 0),
            jump(code::JEQ_K, 11, 4, 4),
            jump(code::JEQ_K, Abi::Aarch64.audit_arch(), 0, 3),
            stmt(code::LD_W_ABS, 0),
            jump(code::JEQ_K, 221, 1, 1),
            allow,
            allow,
        ],
        Abi::X86_64,
    );
    let expected = [
        "architecture",
        "i386",
        "number, i386",
        "execve",
        "aarch64",
        "number, aarch64",
        "execve",
        "unreachable",
        "allow",
    ];
    assert_eq!(found, expected);
}

#[test]
fn without_a_test_the_callers_convention_names() {
    let program = vec![
        stmt(code::LD_W_ABS, 0),
        jump(code::JEQ_K, 59, 0, 2),
        stmt(code::LD_W_ABS, 16),
        jump(code::JGT_K, 7, 0, 0),
        stmt(code::RET_K, 0),
    ];
    let found = notes(program.clone(), Abi::X86_64);
    let argument = "execve: argument 0 `filename`, low half";
    assert_eq!(found, ["number", "execve", argument, "", "kill thread"]);
    let found = notes(program, Abi::Aarch64);
    let argument = "fchdir: argument 0, low half";
    assert!(found[1] != "execve" && found[2] != argument, "{found:?}");
}

#[test]
fn x32_is_told_from_x86_64() {
    let ret = |verdict: Verdict| stmt(code::RET_K, verdict.to_raw());
    for test in [code::JGE_K, code::JSET_K] {
        let found = notes(
            vec![
                stmt(code::LD_W_ABS, 4),
                jump(code::JEQ_K, Abi::X86_64.audit_arch(), 0, 4),
                stmt(code::LD_W_ABS, 0),
                jump(test, X32_BIT, 0, 1),
                jump(code::JEQ_K, X32_BIT | 520, 1, 1),
                jump(code::JEQ_K, 520, 0, 0),
                ret(Verdict::Errno(2)),
            ],
            Abi::X86_64,
        );
        assert_eq!(found[3..], ["x32", "execve, x32", "520", "errno 2"]);
    }
}

/// A leaf that two calls share has the names of both, and no argument's name.
#[test]
fn shared_leaves_list_their_calls() {
    let own = Condition {
        arg: 1,
        mask: 0xff,
        values: [1, 2, 4].into(),
    };
    let entry = Entry {
        branches: vec![Branch {
            all: vec![own],
            verdict: Verdict::Allow,
        }],
        otherwise: Verdict::Errno(1),
    };
    let shared = |names: &[&str]| {
        let numbers = |abi| Numbers {
            entries: names
                .iter()
                .filter_map(|name| Some((nr_of(abi, name)?, entry.clone())))
                .collect(),
            otherwise: Verdict::Errno(1),
        };
        let table = RuleTable {
            abis: [Abi::X86_64, Abi::I386]
                .map(|abi| (abi, numbers(abi)))
                .into(),
            foreign: Verdict::KillProcess,
        };
        let text = disassemble(&compile(&table).expect("compiles"), Abi::X86_64);
        let line = text.lines().find(|line| line.contains("ld   [24]"));
        line.and_then(|line| line.split_once("; "))
            .expect("a note")
            .1
            .to_string()
    };
    assert_eq!(shared(&["socket"]), "socket: argument 1 `type`, low half");
    assert_eq!(
        shared(&["ioctl", "fcntl"]),
        "ioctl, fcntl: argument 1, low half"
    );
    assert_eq!(
        shared(&["ioctl", "socket"]),
        "ioctl, socket: argument 1, low half"
    );
    let many = shared(&["ioctl", "socket", "kill", "tgkill", "listen"]);
    assert_eq!(
        many,
        "ioctl, socket, listen and 2 more: argument 1, low half"
    );
}

/// runc's filters by libseccomp.
#[test]
fn filters_of_others() {
    for name in ["asking", "static"] {
        let path = format!(
            "{}/tests/data/runc-1.1.5-libseccomp-2.5.4-{name}.bpf",
            env!("CARGO_MANIFEST_DIR")
        );
        let program = Program::from_bytes(&std::fs::read(path).expect("readable")).expect("valid");
        let text = disassemble(&program, Abi::X86_64);
        assert_eq!(
            text,
            disassemble(&program, Abi::Aarch64),
            "the filter tests its architecture"
        );
        assert_eq!(text.lines().count(), program.instructions().len());
        let has = |note: &str| text.lines().any(|line| line.ends_with(note));
        for note in [
            "; number, x86_64",
            "; x32",
            "; -1",
            "; socket: argument 0 `family`, low half",
            "; bits of argument 1 `type`, low half",
            "; AF_INET6",
            "; allow",
        ] {
            assert!(has(note), "{name}: {note}");
        }
    }
}
