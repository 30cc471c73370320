//! Bad input: what is said, and that it is told from a *no* by the exit code.

use crate::{DIGEST, Desk, POLICY, PROFILE};
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::table;
use std::fs::File;

/// Whether a verb takes a policy, a profile, either, or a filter; `@` stands for the file.
const POLICIES: [&str; 3] = ["policy check @", "policy explain @ read", "policy lint @"];
const EITHER: [&str; 7] = [
    "policy show @",
    "policy diff @ p.yaml",
    "policy diff p.yaml @",
    "compile @ --to bpf -o none",
    "compile @ --to oci -o none",
    "decide @ --phase serving --call read",
    "prove @ --oci p.json",
];
const PROFILES: [&str; 3] = [
    "inspect --oci @",
    "prove p.yaml --oci @",
    "policy import @ -o none --digest DIGEST",
];
const FILTERS: [&str; 3] = [
    "inspect --bpf @",
    "inspect --bpf @ --filter 1",
    "prove p.yaml --bpf @",
];

/// A desk with one of each kind of bad file.
fn desk() -> Desk {
    let desk = Desk::new();
    std::fs::create_dir(desk.0.path().join("folder")).expect("made");
    let large = File::create(desk.0.path().join("large")).expect("made");
    large.set_len(100 << 20).expect("as long as that");
    desk.write("empty", "");
    desk.write("broken.yaml", &POLICY.replace("[bind]", "[bind"));
    desk.write("bnd.yaml", &POLICY.replace("[bind]", "[bnd]"));
    desk.write(
        "broken.json",
        &PROFILE.replace("\"SCMP_ACT_ERRNO\",", "\"SCMP_ACT_ERRNO\""),
    );
    desk.write("kind.json", &PROFILE.replace("[\"socket\"]", "\"socket\""));
    desk.write("cut.bpf", "\u{6}\0\0\0\0\0\0\0\u{6}\0\0\0");
    desk.write("code.bpf", "\u{7f}\0\0\0\0\0\0\0");
    desk
}

/// What every one of the verbs says of a file, with exit code 2 and without leaving anything behind.
#[track_caller]
fn refused(desk: &Desk, verbs: &[&str], file: &str, wanted: &[&str]) {
    for verb in verbs {
        let line = verb.replace('@', file).replace("DIGEST", DIGEST);
        let all = desk.check(&line, 2, wanted);
        assert!(all.starts_with("lazaret: "), "{line}: {all}");
        assert!(!desk.exists("none"), "{line}");
    }
}

#[test]
fn files_that_are_none_are_refused() {
    let desk = desk();
    let all = [&POLICIES[..], &EITHER, &PROFILES, &FILTERS].concat();
    refused(&desk, &all, "absent", &["`absent`: No such file"]);
    refused(&desk, &all, "folder", &["`folder`: it is a directory"]);
    refused(&desk, &all, "/dev/null", &["`/dev/null`: it is a device"]);
    let texts = [&POLICIES[..], &EITHER, &PROFILES].concat();
    refused(
        &desk,
        &texts,
        "large",
        &["`large` is larger than 1048576 bytes"],
    );
    refused(
        &desk,
        &FILTERS,
        "large",
        &["`large` is larger than 32768 bytes"],
    );
    refused(&desk, &texts, "empty", &["line 1 column 1: "]);
    refused(&desk, &FILTERS, "empty", &["filter is empty"]);
}

#[test]
fn texts_are_refused_with_their_line_and_a_caret() {
    let desk = desk();
    let policies = [&POLICIES[..], &EITHER].concat();
    refused(
        &desk,
        &policies,
        "broken.yaml",
        &["policy `broken.yaml`:\nline 18 column ", "\n18 |", "^"],
    );
    refused(
        &desk,
        &policies,
        "bnd.yaml",
        &[
            "line 17 column 13: unknown system call `bnd` for x86_64, did you mean `bind`?",
            "            ^",
        ],
    );
    let profiles = [&PROFILES[..], &EITHER].concat();
    refused(
        &desk,
        &profiles,
        "broken.json",
        &["profile `broken.json`:\nline 3 column 3: ", "\n  |   ^"],
    );
    refused(
        &desk,
        &profiles,
        "kind.json",
        &[
            "line 6 column 15: syscalls[1].names is a string, expected a list",
            "              ^",
        ],
    );
    // one where the other is taken
    refused(
        &desk,
        &POLICIES,
        "p.json",
        &["cannot read policy `p.json`: it is a seccomp profile"],
    );
    refused(
        &desk,
        &PROFILES,
        "p.yaml",
        &["cannot read profile `p.yaml`: it is a policy"],
    );
}

#[test]
fn filters_that_a_kernel_would_refuse_are_refused() {
    let desk = desk();
    refused(
        &desk,
        &FILTERS,
        "cut.bpf",
        &["filter has 12 bytes, not a multiple of 8"],
    );
    refused(
        &desk,
        &FILTERS,
        "code.bpf",
        &["instruction 0 has code 0x007f, which seccomp does not allow"],
    );
}

#[test]
fn names_that_are_none_are_refused() {
    let desk = Desk::new();
    for (line, said) in [
        (
            "policy explain p.yaml soket",
            "unknown system call `soket` for x86_64, did you mean `socket`?",
        ),
        (
            "policy explain p.yaml 99999999999",
            "unknown system call `99999999999` for x86_64\n",
        ),
        (
            "decide p.yaml --phase serving --call raed",
            "did you mean `read`?",
        ),
        (
            "decide p.json --phase serving --call raed",
            "did you mean `read`?",
        ),
        (
            "decide p.yaml --phase serving --call open --arch aarch64",
            "unknown system call `open` for aarch64",
        ),
        (
            "decide p.yaml --phase serve --call read",
            "expected prelude, startup, serving, stopping or exec",
        ),
        (
            "decide p.yaml --phase serving --call read --args 0xg",
            "`0xg` is no number of 64 bits",
        ),
        (
            "decide p.yaml --phase serving --call read --args 1,2,3,4,5,6,7",
            "a call has 6 arguments, 7 are given",
        ),
        (
            "decide p.yaml --phase serving --call read --arch sparc",
            "unknown architecture",
        ),
        (
            "compile p.yaml --to ebpf",
            "possible values: bpf, oci, disasm",
        ),
        ("compile p.json --to bpf --kernel six", "MAJOR.MINOR"),
        ("compile p.json --to bpf --arch i386", "x86_64 or aarch64"),
        ("compile p.json --to bpf --cap 7", "CAP_SYS_ADMIN"),
        (
            "policy import p.json -o none --digest sha256:0",
            "64 lower-case hexadecimal digits",
        ),
        ("inspect --pid 999999999", "999999999"),
        ("inspect --pid many", "many"),
        // a process outside of any container is not touched
        ("inspect --pid 1", "1"),
    ] {
        desk.check(line, 2, &[said]);
    }
    let import = "policy import p.json -o none --name A_b --digest";
    desk.check(
        &format!("{import} {DIGEST}"),
        2,
        &["metadata.name: `A_b` is no name"],
    );
    assert!(!desk.exists("none"));
}

#[test]
fn what_is_missing_or_contradicts_itself_is_refused() {
    let desk = Desk::new();
    desk.check("compile p.yaml --to bpf -o p.bpf", 0, &[]);
    let host = "--cap, --arch and --kernel say for which host a profile is read";
    for (line, said) in [
        ("policy", "Usage: lazaret policy"),
        ("policy explain p.yaml", "<NAME|NR>"),
        ("policy diff", "<A>"),
        ("policy diff p.yaml", "<B>"),
        ("policy import p.json -o none", "--digest"),
        ("compile p.yaml", "--to"),
        ("decide p.yaml --call read", "--phase"),
        ("decide p.yaml --phase serving", "--call"),
        ("inspect", "--container"),
        ("prove", "--container"),
        ("prove p.yaml", "--container"),
        ("prove --bpf p.bpf", "<FILE>"),
        ("inspect --pid 5 --bpf p.bpf", "cannot be used with"),
        ("inspect --oci p.json --filter 1", "cannot be used with"),
        ("inspect --bpf p.bpf --filter 0", "0 is not in 1..=65535"),
        (
            "inspect --bpf p.bpf --filter 2",
            "filter 2 is not there, the chain has 1",
        ),
        (
            "inspect --bpf p.bpf --filter 65535",
            "filter 65535 is not there, the chain has 1",
        ),
        ("prove p.yaml --oci p.json --pid 5", "cannot be used with"),
        (
            "compile p.yaml --to oci --static --listener /g.sock -o none",
            "cannot be used with",
        ),
        (
            "compile p.yaml --to bpf --listener /g.sock -o none",
            "--listener is named by an OCI profile",
        ),
        (
            "compile p.json --to oci --listener /g.sock -o none",
            "--listener is for policies",
        ),
        // nothing of a policy depends on a host
        ("policy show p.yaml --cap none", host),
        ("policy diff p.yaml p.yaml --kernel 6.1", host),
        ("compile p.yaml --to bpf --arch aarch64 -o none", host),
        ("decide p.yaml --phase serving --call read --cap none", host),
        ("inspect --bpf p.bpf --arch aarch64", host),
        ("prove p.yaml --bpf p.bpf --kernel 6.1", host),
    ] {
        desk.check(line, 2, &[said]);
        assert!(!desk.exists("none"), "{line}");
    }
    // the same flags where they say something
    for line in [
        "policy show p.json --cap none",
        "compile p.json --to bpf --kernel 6.1 -o p2.bpf",
        "inspect --oci p.json --kernel 6.1",
        "decide p.yaml --phase serving --call read --arch x86_64",
        "compile p.yaml --to oci --listener /g.sock -o p3.json",
        "inspect --bpf p.bpf --filter 1",
    ] {
        desk.check(line, 0, &[]);
    }
    // neither a policy nor a filter, but the disk
    for line in [
        "compile p.yaml --to bpf -o folder/none",
        "compile p.yaml --to oci -o folder/none",
    ] {
        desk.check(line, 3, &["lazaret: cannot "]);
    }
    let import = format!("policy import p.json -o folder/none --digest {DIGEST}");
    desk.check(&import, 3, &["lazaret: cannot "]);
}

#[test]
fn what_does_not_fit_into_a_filter_is_refused_with_the_figure() {
    let desk = Desk::new();
    let with_fd = |&(_, name): &(u32, &str)| {
        let args = table::args_of(name).unwrap_or_default();
        args.iter().any(|arg| arg.name == "fd") && !["read", "write"].contains(&name)
    };
    let policy = |calls: usize| {
        let mut text = POLICY.to_string();
        for (nth, (_, name)) in (0..).zip(table::calls(Abi::X86_64).filter(with_fd).take(calls)) {
            // 200 values that are no neighbours, and are not those of another call
            let values: Vec<String> = (0..200)
                .map(|at| (1000 * nth + 3 * at).to_string())
                .collect();
            let values = values.join(", ");
            text.push_str(&format!(
                "  - {{allow: [{name}], when: [{{arg: fd, in: [{values}]}}], why: its own files}}\n"
            ));
        }
        text
    };
    desk.write("fits.yaml", &policy(5));
    desk.check("compile fits.yaml --to bpf -o fits.bpf", 0, &[]);
    desk.check("prove fits.yaml --bpf fits.bpf", 0, &["filter: equal"]);
    desk.write("long.yaml", &policy(30));
    for to in ["bpf", "disasm"] {
        let line = format!("compile long.yaml --to {to} -o none");
        let all = desk.check(&line, 2, &["instructions, the kernel allows 4096"]);
        let figure = all.split_once("filter has ").and_then(|(_, rest)| {
            let (figure, _) = rest.split_once(' ')?;
            figure.parse::<u32>().ok()
        });
        assert!(figure.is_some_and(|figure| figure > 4096), "{all}");
        assert!(!desk.exists("none"));
    }
}
