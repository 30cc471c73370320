//! `compile --recording`: filters that test first what a server calls often, and mean the same.

use crate::Desk;
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::disasm::disassemble;
use lazaret_core::filter::interpret::eval;
use lazaret_core::filter::program::Program;
use lazaret_core::filter::rule::Call;
use lazaret_core::format::recording;
use lazaret_core::phase::Phase;
use serde_json::{Value, json};

/// A FHIR server on a JVM and the policy that was learnt of it (`testing/filter-bench/data/README.md`).
const RECORDING: &str = include_str!("../../../../testing/filter-bench/data/hapi-recording.json");
const POLICY: &str = include_str!("../../../../testing/filter-bench/data/hapi-policy.yaml");

fn desk() -> Desk {
    let desk = Desk::new();
    desk.write("hapi.yaml", POLICY);
    desk.write("r.json", RECORDING);
    desk
}

/// The recording with a change.
fn changed(change: impl FnOnce(&mut Value)) -> String {
    let mut value: Value = serde_json::from_str(RECORDING).expect("JSON");
    change(&mut value["recording"]);
    value.to_string()
}

/// Instructions that a filter runs for all that the server called while it served.
fn executed(filter: &Program) -> u64 {
    let recording = recording::read(RECORDING.as_bytes()).expect("a recording");
    let serving = recording
        .observations
        .iter()
        .filter(|seen| seen.phase == Phase::Serving);
    serving
        .map(|seen| {
            let outcome = eval(filter, &Call::new(seen.abi, seen.nr)).expect("evaluated");
            seen.count * u64::from(outcome.executed)
        })
        .sum()
}

#[test]
fn recordings_change_the_order_of_tests_and_no_verdict() {
    let desk = desk();
    let compiled = |line: &str| {
        desk.check(&format!("compile {line} --to bpf -o f.bpf"), 0, &[]);
        Program::from_bytes(&desk.read("f.bpf")).expect("a filter")
    };
    for (file, how) in [("hapi.yaml", ""), ("hapi.yaml", "--static"), ("p.json", "")] {
        let plain = compiled(&format!("{file} {how}"));
        let weighted = compiled(&format!("{file} {how} --recording r.json"));
        assert_ne!(plain, weighted, "{file} {how}");
        assert!(
            executed(&weighted) < executed(&plain),
            "{file} {how}: {} of {}",
            executed(&weighted),
            executed(&plain)
        );
        desk.check(
            &format!("prove {file} --bpf f.bpf {how}"),
            0,
            &["filter: equal"],
        );
        let text = desk.check(
            &format!("compile {file} {how} --to disasm --recording r.json"),
            0,
            &[],
        );
        // behind the text may stand notes
        assert!(
            text.starts_with(&disassemble(&weighted, Abi::X86_64)),
            "{text}"
        );
    }
}

#[test]
fn several_recordings_count_together_in_any_order() {
    let desk = desk();
    // the other server does nothing but wait
    let waiting = |seen: &Value| seen["phase"] != "serving" || seen["nr"] == 232;
    let other = changed(|recording| {
        let seen = recording["observations"].as_array_mut().expect("a list");
        seen.retain(waiting);
        for one in seen {
            one["nr"] = json!(232);
            one["phase"] = json!("serving");
            one["count"] = json!(1_000_000);
            one["args"] = json!([]);
        }
    });
    desk.write("other.json", &other);
    let compiled = |recordings: &str| {
        desk.check(
            &format!("compile hapi.yaml --to bpf -o f.bpf {recordings}"),
            0,
            &[],
        );
        desk.read("f.bpf")
    };
    let both = compiled("--recording r.json other.json");
    assert_eq!(both, compiled("--recording other.json --recording r.json"));
    assert_ne!(both, compiled("--recording r.json"));
    assert_ne!(both, compiled("--recording other.json"));
    assert_eq!(both, compiled("--recording r.json other.json"));
}

#[test]
fn recordings_that_say_nothing_of_the_filter_are_refused() {
    let desk = desk();
    let idle = changed(|recording| {
        let seen = recording["observations"].as_array_mut().expect("a list");
        seen.retain(|seen| seen["phase"] != "serving");
    });
    desk.write("idle.json", &idle);
    let arm = changed(|recording| recording["environment"]["arch"] = json!("aarch64"));
    desk.write("arm.json", &arm);
    let lossy = changed(|recording| recording["losses"]["missed_runs"] = json!(7));
    desk.write("lossy.json", &lossy);
    desk.write("cut.json", &RECORDING[..1000]);
    for (line, code, said) in [
        (
            "--to bpf --recording idle.json",
            5,
            "recording `idle.json` has no call that was made while serving",
        ),
        (
            "--to bpf --recording r.json idle.json",
            5,
            "`idle.json` has no call",
        ),
        (
            "--to disasm --recording arm.json",
            2,
            "recording `arm.json` is of aarch64, the filter is for x86_64",
        ),
        ("--to bpf --recording cut.json", 2, "`cut.json`: recording"),
        ("--to bpf --recording absent.json", 2, "absent.json"),
        ("--to bpf --recording hapi.yaml", 2, "`hapi.yaml`"),
        ("--to oci --recording r.json", 2, "an OCI profile has none"),
    ] {
        desk.check(&format!("compile hapi.yaml {line} -o none"), code, &[said]);
        assert!(!desk.exists("none"), "{line}");
    }
    // what was counted is still the best there is
    desk.check(
        "compile hapi.yaml --to bpf --recording lossy.json -o f.bpf",
        0,
        &["recording `lossy.json` lost 7 calls"],
    );
}
