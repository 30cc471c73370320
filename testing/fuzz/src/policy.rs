//! Policy texts: read, written, read again, compiled.

use crate::calls::Calls;
use lazaret_core::phase::Phase;
use lazaret_core::policy::Policy;
use lazaret_filter::compile::compile;
use lazaret_filter::interpret::eval;
use lazaret_filter::oci;
use lazaret_filter::rule::{RuleTable, Verdict};
use lazaret_text::policy;

/// Calls that are tried for each table.
const TRIED: usize = 64;

/// What must hold for a policy text.
///
/// - Reading ends with a policy, or with problems that each have a line and a column in the text.
/// - What is written from a policy reads as the same policy; so does its canonical form, which only has one spelling.
/// - A table of a policy compiles or is refused, and what it compiles to decides as the table does. What the filter allows or
///   denies, every phase does.
///
/// # Panics
/// When one of them does not.
pub fn policy_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let read = match policy::parse(text) {
        Ok(read) => read,
        Err(problems) => {
            assert!(!problems.found().is_empty(), "refused without a problem");
            for finding in problems.found() {
                assert!(finding.line > 0 && finding.column > 0, "{finding}");
                assert_eq!(finding.to_string().matches('\u{1b}').count(), 0);
            }
            return;
        }
    };
    let canonical = read.canonical_json();
    assert_eq!(
        Policy::from_canonical_json(&canonical).as_ref(),
        Ok(&read),
        "the canonical form reads as another policy"
    );
    let as_text = String::from_utf8(canonical.clone()).expect("JSON is UTF-8");
    assert_eq!(policy::parse(&as_text).as_ref(), Ok(&read));
    let written = policy::write(read.wire()).expect("a policy can be written");
    match policy::parse(&written) {
        Ok(again) => assert_eq!(again.canonical_json(), canonical, "{written}"),
        Err(problems) => panic!("what was written is refused:\n{problems}\n{written}"),
    }
    for table in [read.bpf_table(), read.kernel_table(), read.static_table()] {
        compiles(data, &table);
    }
    // errors are typed and have been decided on; only that it ends is asked
    drop(oci::profile(&read.kernel_table(), None));
    phases(data, &read);
}

/// A phase's table decides as the policy does in that phase, and the filter as all phases together.
fn phases(data: &[u8], policy: &Policy) {
    let kernel = policy.bpf_table();
    let tables = Phase::ALL.map(|phase| (phase, policy.phase_table(phase)));
    for (_, table) in &tables {
        compiles(data, table);
    }
    for call in Calls::new(data).near_table(&kernel).take(TRIED) {
        let band = kernel.decide(&call);
        for (phase, table) in &tables {
            let decided = policy.decide(*phase, &call).verdict;
            assert_eq!(table.decide(&call), decided, "{phase}: {call:x?}");
            // in the prelude the gate lets through what it is asked
            let allowed = decided == Verdict::Allow;
            match band {
                Verdict::Allow => assert!(allowed, "{phase}: {call:x?}"),
                Verdict::Ask => {}
                _ => assert!(!allowed || *phase == Phase::Prelude, "{phase}: {call:x?}"),
            }
        }
    }
}

/// The compiler's law on some calls.
pub(crate) fn compiles(data: &[u8], table: &RuleTable) {
    let Ok(program) = compile(table) else {
        return;
    };
    for call in Calls::new(data).near_table(table).take(TRIED) {
        let evaluated = eval(&program, &call).expect("no instruction pointer is read");
        assert_eq!(evaluated.verdict, table.decide(&call), "{call:x?}");
    }
}
