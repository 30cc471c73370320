//! From rules to a proved filter, and what it costs. Needs no privilege and loads nothing.
//!
//! `cargo run -p lazaret-filter --example tour`

use lazaret_filter::abi::Abi;
use lazaret_filter::compile::{Weights, compile, compile_weighted};
use lazaret_filter::rule::{Branch, Call, Condition, Entry, Numbers, RuleTable, Values, Verdict};
use lazaret_filter::{bitmap, chain, constants, disasm, interpret, prove, table};
use std::error::Error;

/// Calls that need no look at their arguments, and how often a small server makes them.
const PLAIN: [(&str, u64); 16] = [
    ("read", 400),
    ("write", 350),
    ("epoll_wait", 200),
    ("futex", 150),
    ("close", 20),
    ("openat", 10),
    ("fstat", 10),
    ("mmap", 5),
    ("munmap", 5),
    ("brk", 2),
    ("clock_nanosleep", 2),
    ("accept4", 20),
    ("getrandom", 1),
    ("rt_sigreturn", 1),
    ("exit", 1),
    ("exit_group", 1),
];

/// `call`'s argument must have one of the named values.
fn named(call: &str, arg: &str, names: &[&str]) -> Result<Condition, Box<dyn Error>> {
    let (position, definition) = table::arg(call, arg).ok_or("no such argument")?;
    let values = names.iter().map(|name| constants::value(call, arg, name));
    Ok(Condition {
        arg: position,
        // only the bits that the kernel looks at: the rest is whatever the caller left there
        mask: definition.width.mask(),
        values: values.collect::<Option<Values>>().ok_or("no such value")?,
    })
}

fn rules(abi: Abi) -> Result<RuleTable, Box<dyn Error>> {
    let nr = |name: &str| table::nr_of(abi, name).ok_or("no such call");
    let mut numbers = Numbers {
        entries: [].into(),
        otherwise: Verdict::Errno(1), // EPERM
    };
    for (name, _) in PLAIN {
        numbers
            .entries
            .insert(nr(name)?, Entry::always(Verdict::Allow));
    }
    let local = named("socket", "domain", &["AF_UNIX", "AF_INET", "AF_INET6"])?;
    numbers.entries.insert(
        nr("socket")?,
        Entry {
            branches: vec![Branch {
                all: vec![local],
                verdict: Verdict::Allow,
            }],
            otherwise: Verdict::Errno(97), // EAFNOSUPPORT
        },
    );
    // calls of i386 and x32 end the process
    Ok(RuleTable::single(abi, numbers, Verdict::KillProcess))
}

fn main() -> Result<(), Box<dyn Error>> {
    let abi = Abi::X86_64;
    let rules = rules(abi)?;

    let filter = compile(&rules)?;
    println!("{}", disasm::disassemble(&filter, abi));

    // one call, as the kernel would decide it
    let mut call = Call::new(abi, table::nr_of(abi, "socket").ok_or("no such call")?);
    call.args[0] = constants::value("socket", "domain", "AF_PACKET").ok_or("no such value")?;
    let found = interpret::eval(&filter, &call)?;
    println!(
        "socket(AF_PACKET): {:?} after {} instructions",
        found.verdict, found.executed
    );

    // all calls: every number, architecture and argument
    let proof = prove::prove(&rules, std::slice::from_ref(&filter))?;
    println!("the filter is exactly the rules: {}", proof.is_equal());

    // what it costs
    let share = bitmap::share(std::slice::from_ref(&filter), abi);
    let length = chain::check_length(std::slice::from_ref(&filter))?;
    println!("instructions: {}", filter.instructions().len());
    println!(
        "of the kernel's limit for chains: {} of {}",
        length.instructions, length.limit
    );
    println!(
        "allowed without running the filter, from Linux 5.11 on: {} calls",
        share.in_bitmap
    );

    // older kernels run the filter each time: let frequent calls meet few instructions
    let counts = PLAIN.map(|(name, count)| (table::nr_of(abi, name), count));
    let known = counts
        .iter()
        .filter_map(|&(nr, count)| Some(((abi, nr?), count)));
    let weighted = compile_weighted(&rules, &known.clone().collect::<Weights>())?;
    for (name, filter) in [("uniform", &filter), ("weighted", &weighted)] {
        let (mut run, mut calls) = (0, 0);
        for ((_, nr), count) in known.clone() {
            run += u64::from(interpret::eval(filter, &Call::new(abi, nr))?.executed) * count;
            calls += count;
        }
        println!(
            "{name}: {:.1} instructions run for each call",
            run as f64 / calls as f64
        );
    }
    Ok(())
}
