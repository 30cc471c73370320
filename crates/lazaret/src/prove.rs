//! `lazaret prove`: whether filters mean what a policy or a profile says, for every call there can be.

use crate::args::{Format, Prove};
use crate::exit::{Exit, OrExit, Outcome};
use crate::given::{self, Given};
use crate::inspect::Depth;
use crate::meaning;
use crate::source::{Found, state, who};
use lazaret_core::filter::program::Program;
use lazaret_core::filter::prove::{Comparison, Difference, ProveError, Space};
use lazaret_core::filter::rule::RuleTable;
use lazaret_core::policy::Policy;

/// `lazaret prove`
///
/// # Flow
/// What is meant, as the target says it: an OCI profile's table for containers, processes and profiles, that of
/// `compile --to bpf` for raw filters, the static one with `--static`. Then a proof for each group of threads.
///
/// # Guarantees
/// Exit 0 only when every thread that was found has filters that are equal to what is meant (at least as strict, if that
/// will do) for all numbers, architectures and arguments.
///
/// # Errors
/// Exit 1 also for a filter that cannot be followed (it names the instruction); 2 for a bad target or file, 3 when the kernel
/// does not show it.
pub fn main(args: &Prove, format: Format) -> Outcome {
    let given = given::read(&args.file, &args.host)?;
    let found = args.source.read(&args.host, Depth::EveryThread)?;
    given::host_for(
        given.is_profile() || matches!(found, Found::Profile(_)),
        &args.host,
    )?;
    let unknown = match &found {
        Found::Profile(profile) => given.undecided().or_else(|| profile.undecided()),
        Found::Filter(_) | Found::Live(_) => given.undecided(),
    };
    if let Some(why) = unknown {
        undecided("profile", &why, None, format);
        return Ok(Exit::No);
    }
    let expected = match &given {
        Given::Profile(profile) => profile.table.clone(),
        Given::Policy(policy) => meant(policy, args.static_mode, &found),
    };
    let holds = match &found {
        Found::Profile(profile) => {
            let mut space = Space::new();
            let expected = space.of_table(&expected).or_exit(Exit::No)?;
            let found = space.of_table(&profile.table).or_exit(Exit::No)?;
            let comparison = space.compare(&expected, &found).or_exit(Exit::No)?;
            tell(args, "profile", &comparison, format)
        }
        Found::Filter(program) => chain(
            args,
            "filter",
            &expected,
            std::slice::from_ref(program),
            format,
        )?,
        Found::Live(groups) => {
            let mut holds = true;
            for group in groups {
                let who = who(group);
                if group.programs().is_empty() {
                    let kind = "unfiltered";
                    match format {
                        Format::Text => println!("{who}: {}", state(group)),
                        Format::Json => println!(
                            "{}",
                            serde_json::json!({"type": "proof", "v": 1, "subject": who, "result": kind})
                        ),
                    }
                    holds = false;
                    continue;
                }
                holds &= chain(args, &who, &expected, group.programs(), format)?;
            }
            holds
        }
    };
    Ok(if holds { Exit::Yes } else { Exit::No })
}

fn meant(policy: &Policy, fixed: bool, found: &Found) -> RuleTable {
    match found {
        _ if fixed => policy.static_table(),
        Found::Filter(_) => policy.bpf_table(),
        Found::Live(_) | Found::Profile(_) => policy.kernel_table(),
    }
}

fn chain(
    args: &Prove,
    who: &str,
    expected: &RuleTable,
    chain: &[Program],
    format: Format,
) -> Outcome<bool> {
    match lazaret_core::filter::prove::prove(expected, chain) {
        Ok(comparison) => Ok(tell(args, who, &comparison, format)),
        Err(error) => {
            let at = match error {
                ProveError::Undecided {
                    filter,
                    instruction,
                    ..
                } => Some((filter + 1, instruction)),
                _ => None,
            };
            undecided(who, &meaning::undecided(&error), at, format);
            Ok(false)
        }
    }
}

/// Says that there is no answer, why, and by which filter (from 1) and instruction (from 0).
fn undecided(who: &str, why: &str, at: Option<(usize, usize)>, format: Format) {
    match format {
        Format::Text => println!("{who}: {why}"),
        Format::Json => println!(
            "{}",
            serde_json::json!({
                "type": "proof", "v": 1, "subject": who, "result": "undecided", "why": why,
                "filter": at.map(|(filter, _)| filter), "instruction": at.map(|(_, instruction)| instruction),
            })
        ),
    }
}

/// Says what was found; whether it is what was asked for.
fn tell(args: &Prove, who: &str, comparison: &Comparison, format: Format) -> bool {
    let equal = comparison.is_equal_for_calls();
    let strict = comparison.is_at_least_as_strict();
    let result = match (equal, strict) {
        (true, _) => "equal",
        (false, true) => "at least as strict",
        (false, false) => "looser",
    };
    match format {
        Format::Text => println!("{who}: {result}"),
        Format::Json => println!(
            "{}",
            serde_json::json!({"type": "proof", "v": 1, "subject": who, "result": result})
        ),
    }
    let omitted = comparison.omitted;
    for (kind, list, more) in [
        ("looser", &comparison.looser, omitted.looser),
        ("stricter", &comparison.stricter, omitted.stricter),
        ("another datum", &comparison.other, omitted.other),
    ] {
        if list.is_empty() {
            continue;
        }
        if format == Format::Text {
            println!("  {kind}: expected → found");
        }
        let list: Vec<&Difference> = list.iter().collect();
        meaning::differences(kind, &[], &list, format);
        if more > 0 {
            eprintln!("and {more} more that are {kind}, which are not listed");
        }
    }
    if strict && !equal && !args.at_least_as_strict {
        eprintln!("hint: with --at-least-as-strict the answer is yes");
    }
    if !comparison.no_call.is_empty() {
        eprintln!(
            "note: number -1, which is no call, gets another verdict (libseccomp leaves it out of its test for x32)"
        );
    }
    equal || (strict && args.at_least_as_strict)
}
