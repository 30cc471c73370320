//! Events as sentences.
//!
//! Names of processes, containers and reasons come from elsewhere, some from inside the containers: nothing of them reaches
//! a terminal that could steer it.

use crate::utc;
use crate::watch::rule;
use lazaret_core::event::{Event, What};
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::rule::Call;
use lazaret_core::filter::table;
use lazaret_core::policy::words;
use std::fmt::Write as _;

/// How many characters of an id are shown; as engines do.
const SHORT: usize = 12;

/// The beginning of a container's id.
pub(crate) fn short_id(id: &str) -> String {
    if id.is_empty() {
        return "-".to_string();
    }
    shown(&id.chars().take(SHORT).collect::<String>())
}

/// A text from elsewhere, with what steers a terminal or turns the direction of writing written as `\u{1b}`.
pub(crate) fn shown(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for one in text.chars() {
        if steers(one) {
            safe.extend(one.escape_unicode());
        } else {
            safe.push(one);
        }
    }
    safe
}

/// Control characters, the separators of lines and paragraphs, and the controls of bidirectional text (Unicode 16, 23.2 and
/// the `Bidi_Control` property).
fn steers(one: char) -> bool {
    one.is_control()
        || matches!(one, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `denied`, or `would deny` where the call went on.
pub(crate) fn denied_verb(enforced: bool) -> &'static str {
    if enforced { "denied" } else { "would deny" }
}

/// A call with its arguments: by name where the tables have them, else six numbers.
pub(crate) fn call(arch: &str, nr: u32, name: &str, args: &[u64; 6]) -> String {
    let known = arch
        .parse()
        .ok()
        // the tables have the arguments' positions of the 64-bit conventions
        .filter(|abi| *abi != Abi::I386)
        .and_then(|abi| Some((abi, table::args_of(table::name_of(abi, nr)?)?)));
    let Some((abi, definitions)) = known else {
        let args: Vec<String> = args.iter().map(|arg| format!("{arg:#x}")).collect();
        return format!("{}({})", shown(name), args.join(", "));
    };
    // registers behind the last argument, and the upper half of one that is an int, hold what the caller left there
    let mut used = Call::new(abi, nr);
    for ((to, from), definition) in used.args.iter_mut().zip(args).zip(definitions) {
        *to = from & definition.width.mask();
    }
    words::call(&used)
}

/// One event, on one line.
pub(crate) fn sentence(event: &Event) -> String {
    let time = utc::stamp(event.time_ms);
    let id = short_id(&event.container);
    format!("{time} {id} {}", shown(&what(&event.what)))
}

fn what(what: &What) -> String {
    match what {
        What::Denied {
            times,
            pid,
            process,
            nr,
            arch,
            call: name,
            args,
            phase,
            enforced,
        } => {
            let verb = denied_verb(*enforced);
            let call = call(arch, *nr, name, args);
            let rule = rule::missing(*phase, arch, *nr, name, args);
            format!("{verb} {call} by {process}[{pid}] in {phase}, {times} times; {rule}")
        }
        What::PhaseChanged { from, to, cause } => format!("{from} → {to} ({cause})"),
        What::Admitted {
            policy,
            key,
            mode,
            stricter,
            ..
        } => {
            let mut text = format!("admitted under {policy}, signed by {key}, mode {mode}");
            if !stricter.is_empty() {
                // a String takes every write
                write!(text, ", kernel stricter: {}", stricter.join(" ")).unwrap_or_default();
            }
            text
        }
        What::Refused { check, reason } => format!("refused ({check}): {reason}"),
        What::ListenerReceived { pid, exec } => {
            let what = if *exec { "exec" } else { "start" };
            format!("{what} of process {pid} at the gate")
        }
        What::Asked { phase, calls } => {
            let total = calls
                .values()
                .fold(0u64, |sum, calls| sum.saturating_add(*calls));
            format!("{total} asked calls in {phase}")
        }
        What::DwellBegan { phase, dwell_ms } => {
            format!("{phase} in {dwell_ms} ms, its denials are reported until then")
        }
        What::RestartRefused {
            pid,
            process,
            reason,
        } => format!("restart of {process}[{pid}] not allowed: {reason}"),
        What::Revised {
            from,
            to,
            revision,
            key,
            until_restart,
        } => {
            let mut text = format!("revision {revision} in force ({from} → {to}), signed by {key}");
            if !until_restart.is_empty() {
                write!(text, ", until restart: {}", until_restart.join(" ")).unwrap_or_default();
            }
            text
        }
        What::Permitted {
            permit,
            key,
            reason,
            until_ms,
        } => {
            let until = utc::stamp(*until_ms);
            format!("exec under permit {permit}, signed by {key}, until {until}: {reason}")
        }
        What::TakenOver {
            pid,
            exec,
            asked_again,
        } => {
            let what = if *exec { "exec" } else { "container" };
            format!("{what} taken over (process {pid}), {asked_again} calls asked again")
        }
        What::PapersLost { check, reason } => {
            format!("papers lost ({check}), every asked call fails: {reason}")
        }
        What::GateStarted { version } => format!("gate started, lazaretd {version}"),
        What::GateStopped => "gate stopped".to_string(),
        What::Unsupervised { pid } => {
            format!("unsupervised since the gate was restarted (process {pid}), asked calls fail")
        }
        What::EventsLost { lines } => format!("{lines} events were not written"),
        What::AuditLost {
            dropped,
            rejected,
            gaps,
        } => format!(
            "audit events that were not exported: {dropped} dropped, {rejected} rejected; {gaps} gaps in what was read"
        ),
        What::Ended { exec } => (if *exec { "exec ended" } else { "ended" }).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(json: &str) -> String {
        let head = r#"{"v":1,"time_ms":1709251199007,"container":"0123456789abcdef","#;
        let event = serde_json::from_str(&format!("{head}{json}}}"));
        sentence(&event.expect("an event"))
    }

    #[test]
    fn events_are_these_sentences() {
        let at = "2024-02-29T23:59:59.007Z 0123456789ab ";
        for (json, expected) in [
            (
                r#""type":"denied","times":12,"pid":7,"process":"java","nr":83,"arch":"x86_64","call":"mkdir","args":[4096,493,9,9,9,9],"phase":"serving","enforced":true"#,
                "denied mkdir(pathname = 0x1000, mode = 493) by java[7] in serving, 12 times; missing: - {allow: [mkdir], during: [serving]}",
            ),
            (
                r#""type":"denied","times":1,"pid":7,"process":"a\u001b[2J\u202e","nr":101,"arch":"x86_64","call":"ptrace","args":[0,0,0,0,0,0],"phase":"exec","enforced":false"#,
                "would deny ptrace() by a\\u{1b}[2J\\u{202e}[7] in exec, 1 times; under the default ceiling: reads and writes other processes; a tracer bypasses seccomp",
            ),
            (
                r#""type":"revised","from":"sha256:a","to":"sha256:b","revision":4,"key":"k","until_restart":["kill"]"#,
                "revision 4 in force (sha256:a → sha256:b), signed by k, until restart: kill",
            ),
            (
                r#""type":"permitted","permit":"sha256:p","key":"k","reason":"ticket 7","until_ms":1709251200000"#,
                "exec under permit sha256:p, signed by k, until 2024-03-01T00:00:00.000Z: ticket 7",
            ),
            (
                r#""type":"taken_over","pid":7,"exec":false,"asked_again":2"#,
                "container taken over (process 7), 2 calls asked again",
            ),
            (
                r#""type":"dwell_began","phase":"serving","dwell_ms":5000"#,
                "serving in 5000 ms, its denials are reported until then",
            ),
            (
                r#""type":"papers_lost","check":"key","reason":"not pinned""#,
                "papers lost (key), every asked call fails: not pinned",
            ),
            (
                r#""type":"restart_refused","pid":9,"process":"node","reason":"no restarts left""#,
                "restart of node[9] not allowed: no restarts left",
            ),
            (r#""type":"gate_stopped""#, "gate stopped"),
            (
                r#""type":"events_lost","lines":3"#,
                "3 events were not written",
            ),
        ] {
            assert_eq!(said(json), format!("{at}{expected}"));
        }
    }

    #[test]
    fn arguments_have_names_where_the_tables_have_them() {
        let socket = call("x86_64", 41, "socket", &[10, 1, 0, 5, 5, 5]);
        assert_eq!(socket, "socket(family = AF_INET6, type = SOCK_STREAM)");
        // an int's upper half does not count
        let upper = call(
            "x86_64",
            41,
            "socket",
            &[0xdead_0000_0000_000a, 1, 0, 0, 0, 0],
        );
        assert_eq!(upper, socket);
        let args = "(0x1, 0x0, 0x0, 0x0, 0x0, 0x6)";
        for (arch, nr, name) in [
            ("i386", 39, "mkdir"),
            ("x86_64", 9999, "9999"),
            ("mips", 1, "x"),
        ] {
            assert_eq!(
                call(arch, nr, name, &[1, 0, 0, 0, 0, 6]),
                format!("{name}{args}")
            );
        }
    }
}
