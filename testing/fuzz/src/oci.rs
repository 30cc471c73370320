//! Seccomp profiles: read, resolved for a host, turned into what a runtime makes of them, written, read again.

use crate::policy::compiles;
use lazaret_filter::abi::Abi;
use lazaret_filter::oci::{self, Engine, Host, read};
use lazaret_filter::rule::RuleTable;
use lazaret_text::profile;
use std::collections::BTreeSet;

/// What must hold for the JSON of a profile.
///
/// - Reading ends with a profile, or with a problem that has a line and a column.
/// - Resolving it for a host and asking what a runtime makes of it end. A table that comes of it compiles or is refused, and
///   what it compiles to decides as the table does.
/// - A table that is written as a profile reads, and its meaning is the table again.
///
/// # Panics
/// When one of them does not.
pub fn oci_json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        // the reader is handed bytes
        assert!(read::parse(data).is_err(), "no UTF-8, and read");
        return;
    };
    let document = match profile::parse(text) {
        Ok(document) => document,
        Err(problems) => {
            for finding in problems.found() {
                assert!(finding.line > 0 && finding.column > 0, "{finding}");
            }
            return;
        }
    };
    let all = BTreeSet::from(["CAP_SYS_ADMIN".to_owned(), "CAP_BPF".to_owned()]);
    for (capabilities, kernel) in [(&BTreeSet::new(), (4, 0)), (&all, (6, 12))] {
        for abi in [Abi::X86_64, Abi::Aarch64] {
            let host = Host {
                abi,
                kernel,
                capabilities,
            };
            let resolved = document.resolve(&host);
            let engine = Engine::debian12();
            if let Ok((table, _)) = oci::meaning(&resolved.profile, &engine) {
                compiles(data, &table);
                comes_back(&table, &engine);
            }
        }
    }
}

/// Written and read again, a table means the same to the runtime, where it can be written at all.
fn comes_back(table: &RuleTable, engine: &Engine) {
    let Ok(written) = oci::profile(table, None) else {
        return;
    };
    let json = serde_json::to_vec(&written).expect("a profile can be written");
    let document = read::parse(&json).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&json));
    });
    let host = Host {
        abi: Abi::X86_64,
        kernel: (6, 12),
        capabilities: &BTreeSet::new(),
    };
    let resolved = document.resolve(&host);
    assert_eq!(
        resolved.profile, written,
        "resolving changed what has no conditions"
    );
    let (again, _) = oci::meaning(&resolved.profile, engine).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&json));
    });
    for call in crate::calls::Calls::new(&json).near_table(table).take(64) {
        assert_eq!(
            again.decide(&call),
            table.decide(&call),
            "{call:x?}: {}",
            String::from_utf8_lossy(&json)
        );
    }
}
