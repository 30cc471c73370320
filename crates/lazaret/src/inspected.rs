//! `lazaret inspect`: what filters allow, whoever wrote them.

use crate::args::{Format, Inspect};
use crate::exit::{Exit, OrExit, Outcome, fail};
use crate::given;
use crate::inspect::Depth;
use crate::meaning;
use crate::source::{Found, filters, state, who};
use lazaret_core::filter::abi::Abi;
use lazaret_core::filter::program::Program;
use lazaret_core::filter::prove::Space;
use lazaret_core::filter::{bitmap, chain, disasm};

/// `lazaret inspect`
///
/// # Errors
/// Exit 1 for a filter that cannot be followed (it names the instruction), 2 for a bad target or file, 3 when the kernel does
/// not show it.
pub fn main(args: &Inspect, format: Format) -> Outcome {
    let found = args.source.read(&args.host, Depth::Representatives)?;
    given::host_for(matches!(found, Found::Profile(_)), &args.host)?;
    match found {
        Found::Profile(profile) => meaning::show_table(&profile.table, format)?,
        Found::Filter(program) => one(args, &[program], format)?,
        Found::Live(groups) => {
            for group in &groups {
                match format {
                    Format::Text => println!("{}: {}", who(group), state(group)),
                    Format::Json => println!(
                        "{}",
                        serde_json::json!({
                            "type": "threads", "v": 1, "threads": group.threads, "read": group.read, "comm": group.comm,
                            "filters": group.programs().len(), "state": state(group),
                        })
                    ),
                }
                if !group.programs().is_empty() {
                    one(args, group.programs(), format)?;
                }
            }
            if groups.len() > 1 {
                eprintln!(
                    "note: {} groups of threads have different filters",
                    groups.len()
                );
            }
        }
    }
    Ok(Exit::Yes)
}

/// One chain of filters.
fn one(args: &Inspect, chain: &[Program], format: Format) -> Outcome<()> {
    let Some(wanted) = args.filter else {
        return summary(chain, format);
    };
    let Some(program) = chain.get(usize::from(wanted).saturating_sub(1)) else {
        return fail(
            Exit::Usage,
            format_args!(
                "filter {wanted} is not there, the chain has {}",
                chain.len()
            ),
        );
    };
    let text = disasm::disassemble(program, Abi::X86_64);
    match format {
        Format::Text => print!("{text}"),
        Format::Json => println!(
            "{}",
            serde_json::json!({"type": "disassembly", "v": 1, "filter": wanted, "text": text})
        ),
    }
    Ok(())
}

fn summary(chain: &[Program], format: Format) -> Outcome<()> {
    let each: Vec<usize> = chain.iter().map(|one| one.instructions().len()).collect();
    let length = chain::check_length(chain).or_exit(Exit::HostCannot)?;
    let shares: Vec<(Abi, bitmap::Share)> = Abi::ALL
        .into_iter()
        .map(|abi| (abi, bitmap::share(chain, abi)))
        .filter(|(_, share)| share.allowed_by_number > 0)
        .collect();
    match format {
        Format::Text => {
            let each: Vec<String> = each.iter().map(ToString::to_string).collect();
            println!(
                "  {} of {} instructions; as the kernel counts, {} of the {} that a thread may have",
                filters(chain.len()),
                each.join(", "),
                length.instructions,
                length.limit
            );
            for (abi, share) in &shares {
                // only the native and the compat architecture have one (`seccomp_cache_check_allow`, kernel/seccomp.c)
                let bitmap = match abi {
                    Abi::X32 => "the kernel has no bitmap for x32",
                    _ => "bitmap",
                };
                println!(
                    "  {abi}: {} of {} calls that are allowed by number need no filter run ({bitmap})",
                    share.in_bitmap, share.allowed_by_number
                );
            }
        }
        Format::Json => {
            let shares = shares.iter().map(|(abi, share)| {
                serde_json::json!({"arch": abi, "in_bitmap": share.in_bitmap, "allowed_by_number": share.allowed_by_number})
            });
            println!(
                "{}",
                serde_json::json!({
                    "type": "chain", "v": 1, "filters": each, "instructions": length.instructions, "limit": length.limit,
                    "bitmap": shares.collect::<Vec<_>>(),
                })
            );
        }
    }
    let mut space = Space::new();
    let meaning = space
        .of_chain(chain)
        .or_else(|error| fail(Exit::No, meaning::undecided(&error)))?;
    meaning::show(&mut space, &meaning, format)
}
