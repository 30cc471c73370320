//! `lazaret decide`: one verdict, and what gave it.

use crate::args::{Decide, Format, ProfileHost};
use crate::calls;
use crate::exit::{Exit, Outcome, fail};
use crate::given::{self, Given};
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::rule::{Call, Verdict};
use lazaret_core::filter::table;
use lazaret_core::policy::{Policy, words};

/// `lazaret decide`
///
/// # Errors
/// Exit 2 for a bad policy or an unknown call. The verdict is the exit code: 0 allowed, 1 denied.
pub fn main(args: &Decide, format: Format) -> Outcome {
    let host = ProfileHost {
        capabilities: args.capabilities.clone(),
        arch: args.arch.filter(|abi| *abi == Abi::Aarch64),
        kernel: args.kernel,
    };
    let given = given::read(&args.file, &host)?;
    let native = match &given {
        Given::Policy(policy) => {
            // --arch says by which convention the call comes
            given::host_for(false, &ProfileHost { arch: None, ..host })?;
            policy.abi()
        }
        Given::Profile(profile) => profile.abi,
    };
    let abi = args.arch.unwrap_or(native);
    let nr = calls::number(abi, &args.call)?;
    let mut call = Call::new(abi, nr);
    if args.args.len() > call.args.len() {
        return fail(
            Exit::Usage,
            format_args!(
                "a call has {} arguments, {} are given",
                call.args.len(),
                args.args.len()
            ),
        );
    }
    for (slot, value) in call.args.iter_mut().zip(&args.args) {
        *slot = *value;
    }
    let answer = match &given {
        Given::Policy(policy) => by_policy(policy, args, &call),
        Given::Profile(profile) => Answer {
            verdict: profile.table.decide(&call),
            kernel: profile.table.decide(&call),
            rule: None,
            why: "the profile's filter",
        },
    };
    let band = match answer.kernel {
        Verdict::Allow => "allow",
        Verdict::Ask => "ask",
        _ => "deny",
    };
    let name = table::display(abi, nr);
    let verdict = words::verdict(answer.verdict);
    match format {
        Format::Text => println!(
            "{name} in {}: {verdict} ({band} band; {})",
            args.phase, answer.why
        ),
        Format::Json => println!(
            "{}",
            serde_json::json!({
                "type": "decision", "v": 1, "call": name.to_string(), "nr": nr, "arch": abi, "phase": args.phase,
                "verdict": verdict, "band": band, "rule": answer.rule, "why": answer.why,
            })
        ),
    }
    Ok(if answer.verdict == Verdict::Allow {
        Exit::Yes
    } else {
        Exit::No
    })
}

/// What is said of one call.
struct Answer<'g> {
    verdict: Verdict,
    kernel: Verdict,
    rule: Option<usize>,
    why: &'g str,
}

fn by_policy<'g>(policy: &'g Policy, args: &Decide, call: &Call) -> Answer<'g> {
    let decision = policy.decide(args.phase, call);
    let rule = decision.rule.and_then(|rule| policy.wire().rules.get(rule));
    let why = rule.map_or(
        match decision.verdict {
            Verdict::Allow => "the prelude is the runtime's own",
            Verdict::KillProcess => "a foreign calling convention",
            _ => "under the ceiling, or without a rule",
        },
        |rule| rule.why.as_str(),
    );
    Answer {
        verdict: decision.verdict,
        kernel: policy.kernel_table().decide(call),
        rule: decision.rule,
        why,
    }
}
